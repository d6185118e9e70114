"""NG-GNN and NG-T: invariant to permutations of neurons, and to nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

import converters
import gmn
from gmn.nn import InvariantHead, NeuralGraphGNN, NeuralGraphTransformer
from gmn.nn.buckets import buckets
from gmn.nn.neural_graph import neural_graph
from gmn.testing import assert_invariant, relative_error
from tests.cases import Case
from tests.changes import (
    differences,
    every_exchange,
    every_operation,
    exchanged,
    units_of_heads_exchanged,
    with_heads,
    with_operation,
)
from tests.traced import BY_NAME, covering_cases, graph_of


def gnn(reverse: bool = True, recompute: bool = False) -> nn.Module:
    torch.manual_seed(0)
    return NeuralGraphGNN(
        12, 2, InvariantHead(3), edge_hidden=8, reverse=reverse, recompute=recompute
    ).double()


def forward_gnn() -> nn.Module:
    return gnn(reverse=False)


def transformer(recompute: bool = False) -> nn.Module:
    torch.manual_seed(0)
    return NeuralGraphTransformer(
        12, 2, InvariantHead(3), edge_hidden=8, attention=16, heads=2, recompute=recompute
    ).double()


both = pytest.mark.parametrize("build", [gnn, transformer], ids=["gnn", "transformer"])
all_three = pytest.mark.parametrize(
    "build", [gnn, forward_gnn, transformer], ids=["gnn", "forward-gnn", "transformer"]
)


def difference(net: nn.Module, one: gmn.ParameterGraph, other: gmn.ParameterGraph) -> float:
    with torch.no_grad():
        return relative_error(net(one), net(other))


@all_three
@covering_cases
def test_invariant_to_permutations(case: Case, build: Callable[[], nn.Module]) -> None:
    assert_invariant(build(), graph_of(case), symmetries={"permutations"})


@all_three
@covering_cases
def test_every_parameter_matters(case: Case, build: Callable[[], nn.Module]) -> None:
    graph = graph_of(case)
    read = {edges.parameter: graph.values[edges.parameter] for edges in graph.spec.edge_sets}
    read = {name: v for name, v in read.items() if v.is_floating_point() and v.numel()}
    changed = {name: graph.replace({name: v + 0.3}) for name, v in read.items()}
    for name, difference in differences(build(), graph, changed):
        assert difference > 1e-8, name


@all_three
def test_one_sided_permutations_are_noticed(build: Callable[[], nn.Module]) -> None:
    graph, net = graph_of(BY_NAME["mlp-relu"]), build()
    for name, dim in (("0.weight", 1), ("0.weight", 2), ("4.weight", 1)):
        changed = graph.replace({name: graph.values[name].flip(dim)})
        assert difference(net, changed, graph) > 1e-8, (name, dim)


@both
@every_operation
def test_what_the_operations_do_is_noticed(
    operation: Callable[[], nn.Module], build: Callable[[], nn.Module]
) -> None:
    assert difference(build(), *with_operation(operation)) > 1e-8


@both
def test_places_of_a_kernel_are_told_apart(build: Callable[[], nn.Module]) -> None:
    graph = graph_of(BY_NAME["cnn"])
    changed = graph.replace({"0.weight": graph.values["0.weight"].flip(4)})
    assert difference(build(), changed, graph) > 1e-8


@both
@every_exchange
def test_queries_keys_and_values_are_told_apart(
    one: list[str], other: list[str], build: Callable[[], nn.Module]
) -> None:
    graph = graph_of(BY_NAME["attention"])
    assert difference(build(), exchanged(graph, one, other), graph) > 1e-8


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
    wiring = neural_graph(graph.spec, graph.device, True)
    answers = []
    for change in (0.0, 1.0):
        bias = graph.values["2.bias"].clone()
        bias[:, 0] += change  # of one output neuron
        changed = graph.replace({"2.bias": bias})
        answers.append(net.layers[0](wiring, *net.encoder(changed, wiring))[0])
    moved = (answers[0] - answers[1]).abs().amax(dim=(1, 2)) > 0
    role = {nodes.name: nodes.role for nodes in graph.spec.node_sets}
    expected = {"input": [False] * 4, "hidden": [True] * 6, "output": [True, False, False]}
    assert moved.tolist() == [flag for name in role for flag in expected[role[name]]]


@both
def test_a_batch_is_its_networks(build: Callable[[], nn.Module]) -> None:
    graph, net = graph_of(BY_NAME["resnet"], networks=3), build()
    torch.testing.assert_close(net(graph), torch.cat([net(graph[i]) for i in range(3)]))


@all_three
def test_one_net_reads_every_architecture_in_float32(build: Callable[[], nn.Module]) -> None:
    net = build().float()
    for name in ("mlp-relu", "cnn", "resnet", "cnn-grouped", "transformer"):
        answer = net(graph_of(BY_NAME[name]).to(dtype=torch.float32))
        assert answer.shape == (2, 3)
        assert answer.isfinite().all()


@all_three
@pytest.mark.parametrize("damage", [0.0, 1e-15, 1e4])
def test_gradients_are_finite_and_reach_every_parameter(
    damage: float, build: Callable[[], nn.Module]
) -> None:
    graph, net = graph_of(BY_NAME["attention"]), build()
    values = (graph.values["q.weight"] * damage).requires_grad_()
    net(graph.replace({"q.weight": values})).square().sum().backward()
    silent = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert not silent
    assert all(p.grad.isfinite().all() for p in (values, *net.parameters()))


@both
def test_recomputed_layers_give_the_same_gradients(
    build: Callable[[bool], nn.Module],
) -> None:
    graph, gradients = graph_of(BY_NAME["attention"]), []
    for recompute in (False, True):
        net = build(recompute=recompute)
        net(graph).square().sum().backward()
        gradients.append([p.grad for p in net.parameters()])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_buckets_reduce_the_edges_of_every_node() -> None:
    torch.manual_seed(0)
    source, target = torch.randint(7, (20,)), torch.randint(6, (20,))  # node 6 has no edge
    found = buckets(source, target, 7)
    values = torch.randn(20, 2, 3)
    total = found.reduce(values[found.order], lambda part: part.sum(dim=1), 3)
    largest = found.reduce(values[found.order], lambda part: part.amax(dim=1), 3)
    for node in range(7):
        own = values[target == node]
        torch.testing.assert_close(total[node], own.sum(dim=0))
        torch.testing.assert_close(largest[node], own.amax(dim=0) if len(own) else own.sum(dim=0))
        assert found.degree[node] == len(own)
    assert torch.equal(found.source, source[found.order])
    assert torch.equal(found.target, target[found.order])


def test_reverse_edges_know_each_other() -> None:
    graph = graph_of(BY_NAME["cnn-grouped"])
    wiring = neural_graph(graph.spec, graph.device, True)
    at, turned = wiring.edges, wiring.turned
    assert torch.equal(at.source[turned], at.target)
    assert torch.equal(turned[turned], torch.arange(len(turned)))
    assert not (at.order[turned] == at.order).any()


def test_heads_must_divide_the_attention() -> None:
    with pytest.raises(ValueError, match="3 heads do not divide 16"):
        NeuralGraphTransformer(attention=16, heads=3)
