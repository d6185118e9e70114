"""ParameterGraph keeps values, selects networks, exports, and refuses what does not fit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import converters
import gmn
from gmn.graph.topology import pair_index, tap_positions, topology
from tests.memory import allocated
from tests.traced import BY_NAME, graph_of, several_cases, spec_of


def state_of(name: str = "cnn") -> dict[str, torch.Tensor]:
    return dict(BY_NAME[name].model().state_dict())


def graph_from(*states: dict[str, torch.Tensor], name: str = "cnn") -> gmn.ParameterGraph:
    return gmn.ParameterGraph.from_state_dicts(spec_of(name), list(states))


def test_selects_networks() -> None:
    graph = graph_of(BY_NAME["cnn"], networks=4)
    assert (len(graph), len(graph[1:3]), len(graph[2]), len(graph[-1])) == (4, 2, 1, 1)
    assert torch.equal(graph[-1].values["0.weight"][0], graph.values["0.weight"][3])
    assert len(graph[torch.tensor([True, False, True, False])]) == 2
    assert len(list(graph)) == 4
    assert torch.equal(gmn.ParameterGraph.cat([graph[:1], graph[1:]]).values["0.bias"],
                       graph.values["0.bias"])  # fmt: skip
    with pytest.raises(IndexError, match="network 4 asked for, but there are 4"):
        graph[4]
    with pytest.raises(ValueError, match="of one spec"):
        gmn.ParameterGraph.cat([graph, graph_of(BY_NAME["mlp-relu"])])


def test_keeps_types_and_moves_only_floats() -> None:
    graph = graph_of(BY_NAME["batch-norm"])
    half = graph.to(dtype=torch.bfloat16)
    assert half.dtype == torch.bfloat16
    assert half.to_state_dict(1)["1.num_batches_tracked"].dtype == torch.int64
    assert "2 networks of" in repr(half)
    assert "bfloat16" in repr(half)


@pytest.mark.parametrize("name", ["cnn", "batch-norm", "packed-gate", "tied-hidden"])
def test_one_state_dict_is_not_copied(name: str) -> None:
    state = state_of(name)
    graph = graph_from(state, name=name)
    storages = {value.untyped_storage().data_ptr() for value in state.values()}
    for edges in graph.spec.edge_sets:
        assert graph.block(edges).untyped_storage().data_ptr() in storages
    for key, value in graph.to_state_dict().items():
        assert value.data_ptr() == state[key].data_ptr()


def test_mapped_files_stay_mapped(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(256, 512), nn.ReLU(), nn.Linear(512, 256))
    spec = converters.trace(model, (torch.zeros(1, 256),))
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    state = load_file(tmp_path / "weights.safetensors")
    graph, made = allocated(lambda: gmn.ParameterGraph.from_state_dicts(spec, [state]))
    assert made < 1024
    assert all(graph.values[key].data_ptr() == value.data_ptr() for key, value in state.items())


def test_several_state_dicts_are_copied_once() -> None:
    model = nn.Linear(512, 512)
    spec = converters.trace(model, (torch.zeros(1, 512),))
    states = [{k: v + i for k, v in model.state_dict().items()} for i in range(3)]
    graph, made = allocated(lambda: gmn.ParameterGraph.from_state_dicts(spec, states))
    size = sum(value.nbytes for state in states for value in state.values())
    assert size <= made <= 1.01 * size
    assert torch.equal(graph.values["bias"][2], states[2]["bias"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_finds_one_bad_value_among_many(dtype: torch.dtype, bad: float) -> None:
    model = nn.Linear(63, 65).to(dtype)
    spec = converters.trace(model, (torch.zeros(1, 63, dtype=dtype),))
    largest = {k: torch.full_like(v, torch.finfo(dtype).max) for k, v in model.state_dict().items()}
    broken = {k: v.clone() for k, v in largest.items()}
    broken["weight"][37, 11] = bad
    gmn.ParameterGraph.from_state_dicts(spec, [largest])
    with pytest.raises(gmn.StateDictError, match="weight has NaN or infinite values in network 1"):
        gmn.ParameterGraph.from_state_dicts(spec, [largest, broken])


def test_refuses_weights_without_values() -> None:
    with pytest.raises(gmn.StateDictError, match=r"network 1: 0.weight is on the meta device"):
        graph_from(state_of(), {k: v.to("meta") for k, v in state_of().items()})


def test_parameters_without_elements_convert() -> None:
    class Empty(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.nothing = nn.Parameter(torch.zeros(0, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

    graph = converters.to_graph(Empty(), (torch.zeros(1, 3),))
    assert graph.to_state_dict()["nothing"].shape == (0, 3)


def test_zero_weights_keep_their_edges() -> None:
    state = state_of()
    zero = {name: torch.zeros_like(value) for name, value in state.items()}
    full, empty = graph_from(state), graph_from(zero)
    assert empty.to_pyg().num_edges == full.to_pyg().num_edges == full.spec.num_parameters
    assert empty.to_networkx().number_of_edges() == full.spec.num_parameters


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"0.weight": None}, "network 1: not a state dict of this architecture: missing 0.weight"),
        ({"extra": torch.zeros(1)}, "unexpected extra"),
        ({"0.weight": torch.zeros(5, 1, 5, 5).double()}, r"shape \(5, 1, 5, 5\).*needs \(5, 1, 3"),
        ({"0.bias": torch.zeros(5, dtype=torch.int64)}, "network 1: 0.bias is torch.int64"),
        ({"0.bias": torch.full((5,), torch.nan).double()}, "0.bias has NaN or infinite.*network 1"),
        ({"0.bias": torch.full((5,), torch.inf).double()}, "NaN or infinite values in network 1"),
        ({"0.bias": torch.zeros(5)}, "0.bias: the networks differ in dtype"),
    ],
)
def test_refuses_bad_state_dicts(change: dict[str, torch.Tensor | None], message: str) -> None:
    bad = {k: v for k, v in {**state_of(), **change}.items() if v is not None}
    with pytest.raises(gmn.StateDictError, match=message):
        graph_from(state_of(), bad)


def test_refuses_another_architecture_and_emptiness() -> None:
    with pytest.raises(gmn.StateDictError, match="not a state dict of this architecture"):
        graph_from(state_of("mlp-relu"))
    with pytest.raises(gmn.StateDictError, match="at least one network"):
        graph_from()
    graph = graph_of(BY_NAME["cnn"])
    with pytest.raises(gmn.StateDictError, match="different numbers of networks"):
        graph.replace({"0.bias": graph.values["0.bias"][:1]})


def test_refuses_tied_entries_that_differ() -> None:
    state = state_of("tied-hidden")
    state["again.weight"] = state["again.weight"] + 1
    with pytest.raises(gmn.StateDictError, match=r"again.weight is tied to middle.weight"):
        graph_from(state, name="tied-hidden")


@several_cases
def test_pairs_and_their_inverse(case) -> None:  # type: ignore[no-untyped-def]
    graph = graph_of(case)
    own = [edges for edges in graph.spec.edge_sets if edges.tied_to is None]
    back = graph.replace_pairs({edges.name: graph.pairs(edges) for edges in own})
    for name, value in graph.values.items():
        assert torch.equal(back.values[name], value)


def test_pyg_and_networkx_agree() -> None:
    graph = graph_of(BY_NAME["cnn-grouped"])
    data, spec = graph.to_pyg()[1], graph.spec
    graph_nx = graph.to_networkx(1)
    assert data.num_nodes == graph_nx.number_of_nodes() == spec.num_nodes
    names = [(n.name, i) for n in spec.node_sets for i in range(n.size)]
    found = sorted((names[s], names[t], round(w, 9)) for s, t, w in zip(
        *data.edge_index.tolist(), data.edge_attr[:, 0].tolist(), strict=True))  # fmt: skip
    expected = sorted((s, t, round(w, 9)) for s, t, w in graph_nx.edges(data="weight"))
    assert found == expected


def test_grouped_edges_stay_within_groups() -> None:
    spec = spec_of("cnn-grouped")
    source, target = pair_index(spec, spec.edge_set("2.weight"))
    assert torch.equal(source // 2, target // 3)
    assert len(set(zip(source.tolist(), target.tolist(), strict=True))) == 4 * 2 * 3


def test_taps_are_centred_and_dilated() -> None:
    spec = spec_of("cnn-unequal-kernels")
    assert tap_positions(spec.edge_set("0.weight")).abs().amax(0).tolist() == [0, 1, 2]
    assert tap_positions(spec.edge_set("3.weight"))[:, 2].tolist() == [-1, 1]
    flat = tap_positions(spec_of("cnn-flatten").edge_set("4.weight"))
    assert flat.sum(0).tolist() == [0, 0, 0]


def test_topology_numbers_all_neurons() -> None:
    spec = spec_of("resnet")
    parts = topology(spec)
    assert parts.edge_index.max() < spec.num_nodes == len(parts.node_set)
    assert topology(spec) is parts


def test_edge_sets_go_by_name() -> None:
    graph = graph_of(BY_NAME["mlp-relu"])
    edges = graph.spec.edge_set("0.weight")
    assert torch.equal(graph.block("0.weight"), graph.block(edges))
    assert torch.equal(graph.pairs("0.weight"), graph.pairs(edges))
    with pytest.raises(KeyError, match=r"no edge set is called '0\.weigth'; others: 0\.weight"):
        graph.block("0.weigth")


def test_blocks_of_strided_tensors_are_views() -> None:
    graph = graph_of(BY_NAME["cnn"])
    strided = graph.replace({"0.weight": graph.values["0.weight"].transpose(1, 2).contiguous()
                             .transpose(1, 2)})  # fmt: skip
    edges = graph.spec.edge_set("0.weight")
    assert torch.equal(strided.block(edges), graph.block(edges))
