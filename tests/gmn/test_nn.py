"""Metanetworks: invariant to what preserves the function, and to nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn

import gmn
from gmn.nn import GMN, InvariantHead
from gmn.nn.sparse import sum_into_nodes, torch_scatter
from gmn.testing import assert_equivariant, assert_invariant, relative_error
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
from tests.traced import BY_NAME, covering_cases, graph_of, spec_of


def gmn_net(outputs: int = 3) -> GMN:
    torch.manual_seed(0)
    return GMN(hidden=12, depth=2, head=InvariantHead(outputs)).double()


@covering_cases
def test_invariant_on_every_architecture(case: Case) -> None:
    assert_invariant(gmn_net(), graph_of(case))


@covering_cases
def test_every_parameter_matters(case: Case) -> None:
    """Each entry of the state dict that is an edge set moves the answer."""
    graph = graph_of(case)
    read = {edges.parameter: graph.values[edges.parameter] for edges in graph.spec.edge_sets}
    read = {name: v for name, v in read.items() if v.is_floating_point()}
    changed = {name: graph.replace({name: v + 0.3}) for name, v in read.items()}
    for name, difference in differences(gmn_net(), graph, changed):
        assert difference > 1e-7, name


def test_permuting_one_side_only_is_noticed() -> None:
    graph, net = graph_of(BY_NAME["mlp-relu"]), gmn_net()
    moved = graph.replace({"0.weight": graph.values["0.weight"].flip(1)})  # rows, not its readers
    assert relative_error(net(moved), net(graph)) > 1e-6


@every_operation
def test_what_the_operations_do_is_noticed(operation: Callable[[], nn.Module]) -> None:
    """Equal weights, other function: published graphs cannot tell these apart."""
    one, other = with_operation(operation)
    assert relative_error(gmn_net()(one), gmn_net()(other)) > 1e-6


def test_running_statistics_are_noticed() -> None:
    graph, net = graph_of(BY_NAME["batch-norm"]), gmn_net()
    for name in ("1.running_mean", "1.running_var"):
        changed = graph.replace({name: graph.values[name] * 1.5})
        assert relative_error(net(changed), net(graph)) > 1e-6


def test_input_and_output_neurons_are_told_apart() -> None:
    graph, net = graph_of(BY_NAME["mlp-relu"]), gmn_net()
    inputs = graph.replace({"0.weight": graph.values["0.weight"].flip(2)})
    outputs = {n: graph.values[n].flip(1) for n in ("4.weight", "4.bias")}
    for changed in (inputs, graph.replace(outputs)):
        assert relative_error(net(changed), net(graph)) > 1e-6


def test_kernel_places_are_told_apart() -> None:
    graph, net = graph_of(BY_NAME["cnn"]), gmn_net()
    changed = graph.replace({"0.weight": graph.values["0.weight"].flip(4)})
    assert relative_error(net(changed), net(graph)) > 1e-6


@every_exchange
def test_queries_keys_and_values_are_told_apart(one: list[str], other: list[str]) -> None:
    graph, net = graph_of(BY_NAME["attention"]), gmn_net()
    assert relative_error(net(exchanged(graph, one, other)), net(graph)) > 1e-6


def test_one_entry_of_the_queries_is_not_one_of_the_keys() -> None:
    """Parallel edges of one type are exchangeable one by one in published attention graphs."""
    graph, net = graph_of(BY_NAME["attention"]), gmn_net()
    q, k = (graph.values[f"{layer}.weight"].clone() for layer in "qk")
    q[:, 0, 0], k[:, 0, 0] = graph.values["k.weight"][:, 0, 0], graph.values["q.weight"][:, 0, 0]
    changed = graph.replace({"q.weight": q, "k.weight": k})
    assert relative_error(net(changed), net(graph)) > 1e-6


def test_units_of_other_heads_are_told_apart() -> None:
    net = gmn_net()
    one, other = units_of_heads_exchanged()
    assert relative_error(net(one), net(other)) > 1e-9


def test_the_number_of_heads_is_noticed() -> None:
    one, two, four = map(gmn_net(), with_heads(1, 2, 4))
    assert relative_error(one, two) > 1e-9
    assert relative_error(two, four) > 1e-9


def test_the_branches_of_a_gated_unit_are_told_apart() -> None:
    graph, net = graph_of(BY_NAME["transformer-rms"]), gmn_net()
    changed = exchanged(graph, ["gated.gate.weight"], ["gated.up.weight"])
    assert relative_error(net(changed), net(graph)) > 1e-6


def test_the_gates_of_a_recurrent_cell_are_told_apart() -> None:
    graph, net = graph_of(BY_NAME["recurrent-lstm"]), gmn_net()
    order = torch.arange(16).view(4, 4)[[1, 0, 2, 3]].flatten()  # input gate and forget gate
    names = [e.parameter for e in graph.spec.edge_sets if e.name.endswith("[0]")]
    changed = graph.replace({name: graph.values[name][:, order] for name in names})
    assert relative_error(net(changed), net(graph)) > 1e-6


def test_a_batch_is_its_networks() -> None:
    graph, net = graph_of(BY_NAME["resnet"], networks=3), gmn_net()
    torch.testing.assert_close(net(graph), torch.cat([net(graph[i]) for i in range(3)]))


def test_one_net_reads_every_architecture_in_float32() -> None:
    net = gmn_net().float()
    for name in ("mlp-relu", "cnn", "resnet", "cnn-grouped"):
        answer = net(graph_of(BY_NAME[name]).to(dtype=torch.float32))
        assert answer.shape == (2, 3)
        assert answer.isfinite().all()


def test_gradients_reach_every_parameter() -> None:
    graph, net = graph_of(BY_NAME["attention"]), gmn_net()
    net(graph).square().sum().backward()
    silent = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    assert not silent


def test_torch_scatter_gives_the_same_sums() -> None:
    index = torch.tensor([0, 0, 1, 3, 3, 3])
    pointer = torch.tensor([0, 2, 3, 3, 6])
    messages = torch.randn(2, 6, 5, dtype=torch.float64)
    slow = sum_into_nodes(messages, index, pointer, fast=False)
    expected = torch.stack(
        [messages[:, a:b].sum(1) for a, b in ((0, 2), (2, 3), (3, 3), (3, 6))], 1
    )
    torch.testing.assert_close(slow, expected)
    if torch_scatter() is not None:
        torch.testing.assert_close(sum_into_nodes(messages, index, pointer), slow)


def test_assertions_catch_nets_that_break_the_law() -> None:
    graph = graph_of(BY_NAME["mlp-relu"])
    with pytest.raises(AssertionError, match="is not invariant"):
        assert_invariant(lambda g: g.values["0.weight"][:, 0], graph)
    with pytest.raises(AssertionError, match="is not equivariant"):
        assert_equivariant(lambda g: g.replace({"0.weight": g.values["0.weight"] + _ramp()}), graph)
    assert (
        assert_equivariant(lambda g: g.replace({"0.weight": 2 * g.values["0.weight"]}), graph) == 0
    )


def _ramp() -> torch.Tensor:
    return torch.arange(18.0).view(6, 3)


def test_invariance_to_scalings_is_not_claimed() -> None:
    with pytest.raises(AssertionError, match="is not invariant"):
        assert_invariant(gmn_net(), graph_of(BY_NAME["mlp-relu"]), scalings=True)


def test_a_spec_with_another_depth_is_noticed() -> None:
    graph, net = graph_of(BY_NAME["mlp-relu"]), gmn_net()
    edges = (replace(graph.spec.edge_sets[0], depth=2), *graph.spec.edge_sets[1:])
    other = gmn.ParameterGraph(replace(spec_of("mlp-relu"), edge_sets=edges), graph.values)
    assert relative_error(net(other), net(graph)) > 1e-6
