"""Probes: answers of hidden neurons transform like the neurons, so nothing else changes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import gmn
from gmn.nn import DualGMN, InvariantHead, Probes
from gmn.spec.program import ProgramError
from gmn.testing import assert_invariant, relative_error
from tests.cases import CASES, Case
from tests.traced import BY_NAME, graph_of, several_cases


def asking(case: Case) -> DualGMN:
    torch.manual_seed(0)
    inputs = case.example()
    initial = [
        torch.randn(3, *v.shape) if v.is_floating_point() else v.expand(3, *v.shape) for v in inputs
    ]
    return DualGMN(16, 2, InvariantHead(3), Probes(*initial)).double()


@several_cases
def test_invariant_to_the_whole_group(case: Case) -> None:
    assert_invariant(asking(case), graph_of(case), scalings=True)


# Where no answer reaches the net's own: seen neurons share one scale, which nothing else has; and
# where the network writes into what it has already read, which no gradient survives.
MUTE, WRITES = ("cosines",), ("overwritten",)


@several_cases
def test_answers_matter_and_gradients_reach_probes(case: Case) -> None:
    if case.name in MUTE + WRITES:
        return
    net, graph = asking(case), graph_of(case)
    answer = net(graph)
    answer.sum().backward()
    for probe in net.probes.parameters():
        assert probe.grad is not None
        assert bool(probe.grad.isfinite().all())
    with torch.no_grad():
        for probe in net.probes.parameters():
            probe.add_(torch.randn_like(probe) / 30)
        assert relative_error(net(graph), answer) > 1e-8 or not list(net.probes.parameters())


def test_networks_that_cannot_be_run_are_refused() -> None:
    case = CASES[0]
    graph = graph_of(case)
    bare = gmn.ParameterGraph(replace(graph.spec, program=None), graph.values)
    with pytest.raises(ProgramError, match="has no program"):
        asking(case)(bare)


def test_probes_of_unequal_number_are_refused() -> None:
    with pytest.raises(ValueError, match="all of length k"):
        Probes(torch.zeros(2, 3), torch.zeros(3, 3))


@pytest.mark.parametrize("name", ["cnn", "recurrent-gru"])
def test_programs_run_no_networks(name: str) -> None:
    graph = graph_of(BY_NAME[name])
    assert graph.spec.program is not None
    inputs = [torch.rand(3, *given.shape).double() for given in graph.spec.program.inputs]
    some = graph.spec.program.observe(graph.values, inputs)
    none = graph.spec.program.observe(graph[:0].values, inputs)
    assert [value.shape for value in none] == [(0, *value.shape[1:]) for value in some]
