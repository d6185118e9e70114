"""The base of message-passing layers: on blocks as over lists of edges, whatever the reduction."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch_geometric.nn import aggr

import gmn
from gmn.graph.topology import pair_index, topology
from gmn.nn import EditHead, MessagePassing, MessagePassingNetwork
from gmn.nn.passing import message_passing
from gmn.nn.passing.reductions import Reduction
from gmn.nn.passing.relations import Wiring, chunks, relations_of, wiring_of
from gmn.spec import GraphSpec
from tests.metanetwork_laws import Laws
from tests.traced import BY_NAME, graph_of, spec_of

NAMES = ("mlp-relu", "cnn", "resnet", "cnn-grouped", "attention", "recurrent-lstm", "bilinear")
STATISTICS: tuple[Reduction, ...] = ("sum", "mean", "min", "max", "std")
HEADS, WIDTH = 2, 6


class Layer(MessagePassing):
    """Reads both ends and the edge."""

    def message(self, source: Tensor, target: Tensor, edge: Tensor) -> Any:
        return torch.tanh(source + 2 * target) * edge

    def update(self, nodes: Tensor, messages: Tensor) -> Tensor:
        return messages

    def edge_update(self, source: Tensor, target: Tensor, edge: Tensor) -> Tensor:
        return edge * source - target


class Attention(Layer):
    """Answers with scores of two heads, and values."""

    def message(self, source: Tensor, target: Tensor, edge: Tensor) -> tuple[Tensor, Tensor]:
        return 9 * (source * target * edge)[..., :HEADS], torch.tanh(source + edge)


def inputs(name: str, reverse: bool = True) -> tuple[Wiring, Tensor, list[Tensor]]:
    """A wiring, states of nodes (3, N, WIDTH) and of edges."""
    spec = spec_of(name)
    wiring = wiring_of(spec, torch.device("cpu"), torch.float64, reverse)
    torch.manual_seed(0)
    nodes = torch.randn(3, spec.num_nodes, WIDTH, dtype=torch.float64)
    edges = [torch.randn(3, *r.shape, WIDTH, dtype=torch.float64) for r in wiring.relations]
    return wiring, nodes, edges


def edge_list(wiring: Wiring) -> tuple[Tensor, Tensor]:
    """Source and target neuron of every edge, relation after relation."""
    spec = wiring.spec
    first = dict(zip((n.name for n in spec.node_sets), topology(spec).node_offset, strict=True))
    ends = []
    for relation in wiring.relations:
        own = spec.edge_set(relation.name)
        source, target = pair_index(spec, own)
        source, target = (
            source + first[own.source],
            target + first[own.target],
        )
        ends.append(torch.stack([target, source] if relation.reverse else [source, target]))
    return tuple(torch.cat(ends, dim=1))


def flat(edges: list[Tensor]) -> Tensor:
    return torch.cat([states.reshape(len(states), -1, states.shape[-1]) for states in edges], dim=1)


def by_lists(layer: Layer, wiring: Wiring, nodes: Tensor, edges: list[Tensor]) -> Tensor:
    """The reference: gathers, PyG's aggregations, scatters."""
    source, target = edge_list(wiring)
    messages = layer.message(nodes[:, source], nodes[:, target], flat(edges))
    size = nodes.shape[1]
    if isinstance(messages, tuple):
        scores, values = messages
        one_by_one = []
        for score, value in zip(scores, values, strict=True):
            weights = torch.zeros(size, HEADS).double().index_add(0, target, score.exp())
            weights = score.exp() / weights[target]
            weighed = (weights.unsqueeze(-1) * value.unflatten(-1, (HEADS, -1))).flatten(1)
            one_by_one.append(aggr.SumAggregation()(weighed, target, dim_size=size, dim=0))
        return torch.stack(one_by_one)
    order = target.argsort(stable=True)

    def reduced(name: str) -> Tensor:
        aggregate = getattr(aggr, f"{name.title()}Aggregation")()
        parts = [aggregate(own[order], target[order], dim_size=size) for own in messages]
        return torch.stack(parts)

    has = (wiring.degree > 0).double()
    deviation = (reduced("var") + 1e-5).sqrt() * has  # PyG's own has other limits near 0
    return torch.cat([deviation if n == "std" else reduced(n) for n in layer.reduce], dim=-1)


@pytest.mark.parametrize("reverse", [True, False], ids=["both-ways", "forward"])
@pytest.mark.parametrize("name", NAMES)
def test_reductions_on_blocks_are_those_over_lists_of_edges(name: str, reverse: bool) -> None:
    wiring, nodes, edges = inputs(name, reverse)
    layers: list[Layer] = [Layer(WIDTH, reduction) for reduction in STATISTICS]
    for layer in (*layers, Layer(WIDTH, STATISTICS), Attention(WIDTH, "softmax")):
        leaves = [nodes.clone().requires_grad_(), *(e.clone().requires_grad_() for e in edges)]
        given = leaves[0], leaves[1:]
        found = layer.propagate(wiring, given[0], given[0], given[1])
        expected = by_lists(layer, wiring, *given)
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-12)
        weights = torch.randn_like(found)
        gradients = [torch.autograd.grad((y * weights).sum(), leaves) for y in (found, expected)]
        torch.testing.assert_close(*gradients, atol=1e-11, rtol=1e-11)


@pytest.mark.parametrize("name", NAMES)
def test_edge_updates_are_those_over_lists_of_edges(name: str) -> None:
    wiring, nodes, edges = inputs(name)
    source, target = edge_list(wiring)
    layer = Layer(WIDTH)
    found = layer.edge_updater(wiring, nodes, 2 * nodes, edges)
    assert [new.shape for new in found] == [old.shape for old in edges]
    expected = layer.edge_update(nodes[:, source], 2 * nodes[:, target], flat(edges))
    torch.testing.assert_close(flat(found), expected)


@pytest.mark.parametrize("most", [40, 1000])
@pytest.mark.parametrize("name", NAMES)
def test_chunks_change_nothing(name: str, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    wiring, nodes, edges = inputs(name)
    layers = Layer(WIDTH, STATISTICS), Attention(WIDTH, "softmax")
    whole = [layer.propagate(wiring, nodes, nodes, edges) for layer in layers]
    updated = layers[0].edge_updater(wiring, nodes, nodes, edges)
    monkeypatch.setitem(message_passing.CHUNK_ELEMENTS, "cpu", most)
    for layer, expected in zip(layers, whole, strict=True):
        torch.testing.assert_close(layer.propagate(wiring, nodes, nodes, edges), expected)
    torch.testing.assert_close(layers[0].edge_updater(wiring, nodes, nodes, edges), updated)


def test_chunks_are_small_and_whole() -> None:
    for relation in relations_of(spec_of("cnn")):
        for batch, most in ((5, 7), (5, 100), (1, 10**6)):
            cuts = chunks(relation, batch, most)
            edges = torch.ones(batch, *relation.shape, 1)
            parts = [chunk.of(edges) for row in cuts for chunk in row]
            assert sum(part.numel() for part in parts) == edges.numel()
            along_targets = len(relation.target.dims) > 0
            assert not along_targets or max(part.numel() for part in parts) <= max(
                most, relation.degree * relation.target.size // relation.target.shape[0]
            )


def test_equal_messages_share_the_gradient_of_their_extremes() -> None:
    """Else the gradient would say in which order neurons are stored."""
    wiring, nodes, edges = inputs("mlp-relu", reverse=False)
    same = [torch.ones_like(states).requires_grad_() for states in edges]
    nodes = torch.ones_like(nodes)
    Layer(WIDTH, ("min", "max")).propagate(wiring, nodes, nodes, same).sum().backward()
    for states in same:
        assert states.grad is not None
        assert states.grad.abs().min() > 0
        torch.testing.assert_close(states.grad, states.grad.flatten()[0].expand_as(states.grad))


class Own(MessagePassing):
    """A layer that updates its edges, too, unless nobody reads them afterwards."""

    def __init__(self, hidden: int, edge_hidden: int, last: bool) -> None:
        super().__init__(hidden, ("mean", "max"))
        self.edge = nn.Linear(edge_hidden, hidden)
        self.back = None if last else nn.Linear(hidden, edge_hidden)
        self.out = nn.Linear(2 * hidden, hidden)

    def message(self, source: Tensor, target: Tensor, edge: Tensor) -> Tensor:
        return nn.functional.silu(source - target + self.edge(edge))

    def update(self, nodes: Tensor, messages: Tensor) -> Tensor:
        return nodes + self.out(messages)

    def edge_update(self, source: Tensor, target: Tensor, edge: Tensor) -> Tensor:
        assert self.back is not None
        return edge + self.back(source * target)

    def forward(
        self, wiring: Wiring, nodes: Tensor, edges: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        nodes, edges = super().forward(wiring, nodes, edges)
        if self.back is not None:
            edges = self.edge_updater(wiring, nodes, nodes, edges)
        return nodes, edges


class TestOwnLayers(Laws):
    """A network of layers that a user wrote obeys every law."""

    names = ("perceptron", "gated-attention")

    def build(self, spec: GraphSpec, head: int | EditHead) -> nn.Module:
        layers = [Own(12, 8, last=False), Own(12, 8, last=not isinstance(head, EditHead))]
        return MessagePassingNetwork(layers, 12, 8, head)


@pytest.mark.parametrize(
    ("reduce", "message"),
    [
        ("median", "unknown reduction 'median'"),
        (("mean", "softmax"), "softmax alone"),
        ((), "give"),
    ],
)
def test_reductions_that_do_not_exist_are_refused(reduce: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MessagePassing(4, reduce)  # type: ignore[arg-type]


def test_messages_of_a_wrong_width_are_refused() -> None:
    wiring, nodes, edges = inputs("mlp-relu")
    with pytest.raises(ValueError, match=r"along .* have shape .* of 5 channels"):
        Layer(WIDTH, channels=5).propagate(wiring, nodes, nodes, edges)


def test_messages_that_read_one_end_only_are_spread_over_all_edges() -> None:
    class Sources(Layer):
        def message(self, source: Tensor, target: Tensor, edge: Tensor) -> Tensor:
            return source

    wiring, nodes, edges = inputs("cnn")
    found = Sources(WIDTH, "sum").propagate(wiring, nodes, nodes, edges)
    source, target = edge_list(wiring)
    torch.testing.assert_close(
        found, torch.zeros_like(nodes).index_add(1, target, nodes[:, source])
    )


def test_gradients_of_functions_of_torch_func() -> None:
    wiring, nodes, edges = inputs("resnet")
    layer = Layer(WIDTH, STATISTICS)

    def total(nodes: Tensor) -> Tensor:
        return layer.propagate(wiring, nodes, nodes, edges).square().sum()

    leaf = nodes.clone().requires_grad_()
    (expected,) = torch.autograd.grad(total(leaf), leaf)
    torch.testing.assert_close(torch.func.grad(total)(nodes), expected)


def test_no_networks_give_no_answers() -> None:
    graph = graph_of(BY_NAME["cnn"])[:0]
    torch.manual_seed(0)
    for net in (
        gmn.nn.NeuralGraphGNN(12, 1, 2, edge_hidden=8),
        gmn.nn.NeuralGraphTransformer(12, 1, 2, edge_hidden=8, attention=8, heads=2),
    ):
        assert net.double()(graph).shape == (0, 2)


def test_methods_that_are_missing_are_named() -> None:
    class Empty(MessagePassing):
        pass

    wiring, nodes, edges = inputs("mlp-relu")
    with pytest.raises(NotImplementedError, match=r"Empty must define message\(\)"):
        Empty(WIDTH)(wiring, nodes, edges)
    with pytest.raises(NotImplementedError, match=r"Empty must define edge_update\(\)"):
        Empty(WIDTH).edge_updater(wiring, nodes, nodes, edges)


def test_features_of_your_own_are_read() -> None:
    graph = graph_of(BY_NAME["mlp-relu"])
    torch.manual_seed(0)
    net = gmn.nn.NeuralGraphGNN(12, 1, 2, edge_hidden=8, features=gmn.features.SignLog()).double()
    assert net(graph).shape == (len(graph), 2)
    assert net.encoder.edges.codes[-1].out_features == 8 * gmn.features.SignLog().channels
