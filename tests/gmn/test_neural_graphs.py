"""NG-GNN and NG-T: invariant to permutations of neurons, and to nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

import converters
import gmn
from gmn.nn import InvariantHead, NeuralGraphGNN, NeuralGraphTransformer
from gmn.nn.relations import wiring_of
from gmn.testing import relative_error
from tests.changes import (
    units_of_heads_exchanged,
    with_heads,
)
from tests.traced import BY_NAME, graph_of


def gnn(reverse: bool = True) -> nn.Module:
    torch.manual_seed(0)
    return NeuralGraphGNN(12, 2, InvariantHead(3), edge_hidden=8, reverse=reverse).double()


def forward_gnn() -> nn.Module:
    return gnn(reverse=False)


def transformer() -> nn.Module:
    torch.manual_seed(0)
    return NeuralGraphTransformer(
        12, 2, InvariantHead(3), edge_hidden=8, attention=16, heads=2
    ).double()


both = pytest.mark.parametrize("build", [gnn, transformer], ids=["gnn", "transformer"])
all_three = pytest.mark.parametrize(
    "build", [gnn, forward_gnn, transformer], ids=["gnn", "forward-gnn", "transformer"]
)


def difference(net: nn.Module, one: gmn.ParameterGraph, other: gmn.ParameterGraph) -> float:
    with torch.no_grad():
        return relative_error(net(one), net(other))


@both
def test_places_of_a_kernel_are_told_apart(build: Callable[[], nn.Module]) -> None:
    graph = graph_of(BY_NAME["cnn"])
    changed = graph.replace({"0.weight": graph.values["0.weight"].flip(4)})
    assert difference(build(), changed, graph) > 1e-8


@both
def test_heads_are_told_apart(build: Callable[[], nn.Module]) -> None:
    assert difference(build(), *units_of_heads_exchanged()) > 1e-10
    assert difference(build(), *with_heads(2, 4)) > 1e-10


@both
def test_a_weight_of_zero_is_an_edge(build: Callable[[], nn.Module]) -> None:
    """Attention to all pairs, or a mask made from values, sees no difference between these."""
    narrow, wide = (
        nn.Sequential(nn.Linear(3, n), nn.ReLU(), nn.Linear(n, 2)).double() for n in (4, 5)
    )
    with torch.no_grad():
        for parameter in (*narrow.parameters(), *wide.parameters()):
            parameter.zero_()
    one, other = (converters.to_graph(m, (torch.zeros(1, 3).double(),)) for m in (narrow, wide))
    assert difference(build(), one, other) > 1e-8


def test_attention_follows_real_edges_only() -> None:
    """Output neurons are not connected: one layer carries nothing between them."""
    torch.manual_seed(0)
    net = NeuralGraphTransformer(12, 1, edge_hidden=8, attention=16, heads=2, recompute=False)
    graph = graph_of(BY_NAME["two-layers"]).to(dtype=torch.float32)
    wiring = wiring_of(graph.spec, graph.device, graph.dtype, reverse=True)
    answers = []
    for change in (0.0, 1.0):
        bias = graph.values["2.bias"].clone()
        bias[:, 0] += change  # of one output neuron
        changed = graph.replace({"2.bias": bias})
        answers.append(net.layers[0](wiring, *net.encoder(changed, wiring))[0])
    moved = (answers[0] - answers[1]).abs().amax(dim=(0, 2)) > 0
    role = {nodes.name: nodes.role for nodes in graph.spec.node_sets}
    expected = {"input": [False] * 4, "hidden": [True] * 6, "output": [True, False, False]}
    assert moved.tolist() == [flag for name in role for flag in expected[role[name]]]


@all_three
def test_one_net_reads_every_architecture_in_float32(build: Callable[[], nn.Module]) -> None:
    net = build().float()
    for name in ("mlp-relu", "cnn", "resnet", "cnn-grouped", "transformer"):
        answer = net(graph_of(BY_NAME[name]).to(dtype=torch.float32))
        assert answer.shape == (2, 3)
        assert answer.isfinite().all()


def test_states_of_version_0_1_are_read() -> None:
    net = gnn()
    old = {
        name.replace("to_message", "message").replace("to_update", "update"): value
        for name, value in net.state_dict().items()
    }
    assert "layers.0.message.weight" in old
    torch.manual_seed(1)
    other = NeuralGraphGNN(12, 2, InvariantHead(3), edge_hidden=8).double()
    other.load_state_dict(old)
    with torch.no_grad():
        graph = graph_of(BY_NAME["cnn"])
        assert torch.equal(other(graph), net(graph))


def test_heads_must_divide_the_attention() -> None:
    with pytest.raises(ValueError, match="3 heads do not divide 16"):
        NeuralGraphTransformer(attention=16, heads=3)
