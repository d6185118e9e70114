"""Metanetworks: invariant to what preserves the function, and to nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import gmn
from gmn.nn import GMN, InvariantHead
from gmn.nn.sparse import sum_into_nodes, torch_scatter
from gmn.testing import assert_equivariant, assert_invariant, relative_error
from tests.changes import (
    units_of_heads_exchanged,
    with_heads,
)
from tests.traced import BY_NAME, graph_of, spec_of


def gmn_net(outputs: int = 3) -> GMN:
    torch.manual_seed(0)
    return GMN(hidden=12, depth=2, head=InvariantHead(outputs)).double()


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


def test_the_gates_of_a_recurrent_cell_are_told_apart() -> None:
    graph, net = graph_of(BY_NAME["recurrent-lstm"]), gmn_net()
    order = torch.arange(16).view(4, 4)[[1, 0, 2, 3]].flatten()  # input gate and forget gate
    names = [e.parameter for e in graph.spec.edge_sets if e.name.endswith("[0]")]
    changed = graph.replace({name: graph.values[name][:, order] for name in names})
    assert relative_error(net(changed), net(graph)) > 1e-6


def test_one_net_reads_every_architecture_in_float32() -> None:
    net = gmn_net().float()
    for name in ("mlp-relu", "cnn", "resnet", "cnn-grouped"):
        answer = net(graph_of(BY_NAME[name]).to(dtype=torch.float32))
        assert answer.shape == (2, 3)
        assert answer.isfinite().all()


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
