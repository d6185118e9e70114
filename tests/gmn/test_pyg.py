"""Graphs as data of PyTorch Geometric: exact there and back, of one meaning, for stock layers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.data import Batch, Data
from torch_geometric.explain import Explainer, GNNExplainer
from torch_geometric.loader import DataLoader
from torch_geometric.nn import GATv2Conv, HeteroConv, RGCNConv, SAGEConv, TransformerConv
from torch_geometric.nn.models import GIN
from torch_geometric.nn.pool import global_mean_pool

from gmn import pyg
from gmn.graph import ParameterGraph
from gmn.testing import assert_invariant
from tests.cases import Case
from tests.gmn.population import small_zoo
from tests.traced import BY_NAME, COVERING, covering_cases, graph_of, spec_of

MIXED = ("cnn", "transformer-rms", "mlp-relu")


@covering_cases
def test_there_and_back_is_exact(case: Case) -> None:
    graph = graph_of(case, networks=3)
    back = ParameterGraph.from_pyg(graph.to_pyg())
    assert isinstance(back, ParameterGraph)
    assert back.spec == graph.spec
    for number in range(3):
        expected, found = graph.to_state_dict(number), back.to_state_dict(number)
        assert list(found) == list(expected)
        for name, value in expected.items():
            assert found[name].dtype == value.dtype
            assert torch.equal(found[name], value), name


def test_batches_of_several_architectures_come_back() -> None:
    data = [one for name in MIXED for one in graph_of(BY_NAME[name]).to_pyg().to_data_list()]
    (batch,) = DataLoader(data[::2] + data[1::2], batch_size=6)
    back = ParameterGraph.from_pyg(batch)
    assert [graph.spec for graph in back] == [spec_of(name) for name in MIXED]
    for name, graph in zip(MIXED, back, strict=True):
        expected = graph_of(BY_NAME[name]).values
        assert all(torch.equal(value, expected[key]) for key, value in graph.values.items())


def test_changed_parameters_come_back() -> None:
    graph = graph_of(BY_NAME["mlp-relu"])
    data = graph.to_pyg()
    data.edge_attr = 2 * data.edge_attr
    back = ParameterGraph.from_pyg(data)
    assert torch.equal(back.values["2.weight"], 2 * graph.values["2.weight"])
    with pytest.raises(ValueError, match="has no origin"):
        ParameterGraph.from_pyg(Data(edge_attr=torch.zeros(3, 1)))
    one = graph.to_pyg()[0]
    one.edge_attr = one.edge_attr[:-1]
    with pytest.raises(ValueError, match="70 edges, but this architecture has 71"):
        ParameterGraph.from_pyg(one)


def test_attributes_mean_the_same_everywhere() -> None:
    types: dict[int, set[tuple[str, str]]] = {}
    for name in COVERING:
        for edges in spec_of(name).edge_sets:
            kind = pyg.edge_type(edges)
            assert 0 <= kind < pyg.EDGE_TYPES
            types.setdefault(kind, set()).add((edges.kind, edges.operation.name))
    kinds = [{kind for kind, _ in found} for found in types.values()]
    assert all(len(found) == 1 for found in kinds)
    assert len(types) > 10
    for dtype in (torch.float32, torch.float64):
        data = graph_of(BY_NAME["cnn"]).to(dtype=dtype).to_pyg()
        assert data.x.dtype == data.edge_attr.dtype == dtype
        assert data.x.shape == (data.num_nodes, pyg.NODE_FEATURES)
        assert set(data.node_type.tolist()) == {0, 1, 2}


def test_targets_come_from_the_rows(tmp_path) -> None:  # type: ignore[no-untyped-def]
    population = small_zoo(tmp_path / "zoo")
    batch = population[:3].to_pyg("test_accuracy")
    assert torch.equal(batch.y, population.labels["test_accuracy"][:3])
    with pytest.raises(KeyError, match="network 0 has no 'loss'"):
        population[:3].to_pyg("loss")


class Stock(nn.Module):
    """A stock network and mean pooling; told the numbers of features by the data."""

    def __init__(self, net: nn.Module, hidden: int, edges: bool) -> None:
        super().__init__()
        self.net, self.head, self.edges = net, nn.Linear(hidden, 1), edges

    def forward(
        self, x: Tensor, edge_index: Tensor, edge_attr: Tensor, batch: Tensor | None = None
    ) -> Tensor:
        extra = {"edge_attr": edge_attr} if self.edges else {}
        return self.head(global_mean_pool(self.net(x, edge_index, **extra), batch))


NETS: dict[str, Callable[[Data], nn.Module]] = {
    "GIN": lambda data: Stock(GIN(data.num_node_features, 8, 2), 8, False),
    "GATv2": lambda data: Stock(GATv2Conv(data.num_node_features, 8, edge_dim=1), 8, True),
    "TransformerConv": lambda data: Stock(
        TransformerConv(data.num_node_features, 8, edge_dim=data.num_edge_features), 8, True
    ),
}


@pytest.mark.parametrize("name", NETS)
def test_stock_networks_train_on_a_mixed_batch(name: str) -> None:
    data = [
        one
        for architecture in MIXED
        for one in graph_of(BY_NAME[architecture]).to(dtype=torch.float32).to_pyg().to_data_list()
    ]
    torch.manual_seed(0)
    net = NETS[name](data[0])
    optimiser, losses = torch.optim.Adam(net.parameters(), 1e-2), []
    for _ in range(20):
        for batch in DataLoader(data, batch_size=6):
            optimiser.zero_grad()
            answer = net(batch.x, batch.edge_index, batch.edge_attr, batch.batch)
            loss = (answer[:, 0] - torch.arange(6.0)).square().mean()
            loss.backward()
            optimiser.step()
            losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("name", NETS)
def test_stock_networks_are_invariant(name: str) -> None:
    graph = graph_of(BY_NAME["cnn-grouped"])
    torch.manual_seed(0)
    net = NETS[name](graph.to_pyg()).double()

    def answer(graph: ParameterGraph) -> Tensor:
        data = graph.to_pyg()
        return net(data.x, data.edge_index, data.edge_attr, data.batch)

    assert_invariant(answer, graph)


def test_types_serve_relational_layers() -> None:
    data = graph_of(BY_NAME["resnet"]).to(dtype=torch.float32).to_pyg()
    layer = RGCNConv(data.num_node_features, 4, num_relations=pyg.EDGE_TYPES, num_bases=3)
    assert layer(data.x, data.edge_index, data.edge_type).shape == (data.num_nodes, 4)


def test_explainer_finds_edges() -> None:
    data = graph_of(BY_NAME["mlp-relu"], networks=1).to(dtype=torch.float32).to_pyg()
    torch.manual_seed(0)
    explainer = Explainer(
        NETS["GIN"](data),
        GNNExplainer(epochs=5),
        explanation_type="model",
        edge_mask_type="object",
        model_config={"mode": "regression", "task_level": "graph", "return_type": "raw"},
    )
    found = explainer(data.x, data.edge_index, edge_attr=data.edge_attr)
    assert found.edge_mask.shape == (data.num_edges,)


@pytest.mark.filterwarnings("ignore:There exist node types")  # inputs are never written
def test_heterogeneous_data_has_a_type_for_each_set() -> None:
    graph = graph_of(BY_NAME["cnn-depthwise"]).to(dtype=torch.float32)
    data = pyg.to_hetero(graph, 1)
    assert data.node_types == [nodes.name for nodes in graph.spec.node_sets]
    assert [kind[1] for kind in data.edge_types] == [edges.name for edges in graph.spec.edge_sets]
    batch = Batch.from_data_list([data, pyg.to_hetero(graph, 0)])
    conv = HeteroConv(
        {kind: SAGEConv((-1, -1), 4, aggr="mean") for kind in data.edge_types if kind[0] != kind[2]}
    )
    answer = conv(batch.x_dict, {k: v for k, v in batch.edge_index_dict.items() if k[0] != k[2]})
    assert all(value.shape[1] == 4 for value in answer.values())
    weight = data[graph.spec.edge_sets[0].source, "0.weight", graph.spec.edge_sets[0].target]
    assert torch.equal(weight.edge_attr[:, 0], graph.pairs("0.weight")[1].flatten())
