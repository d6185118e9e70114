"""Editing: edits transform like the networks, and start next to nothing."""

from __future__ import annotations

import pytest
import torch

from gmn.nn import DualGMN, EditHead
from gmn.testing import assert_equivariant, relative_error
from tests.cases import Case
from tests.traced import BY_NAME, graph_of, several_cases


def editing(copies: int = 1) -> DualGMN:
    torch.manual_seed(0)
    return DualGMN(16, 2, EditHead(copies)).double()


@several_cases
def test_equivariant_to_the_whole_group(case: Case) -> None:
    assert_equivariant(editing(), graph_of(case), scalings=True)


@several_cases
def test_every_parameter_can_change_and_statistics_stay(case: Case) -> None:
    graph = graph_of(case)
    with torch.no_grad():
        edited = editing()(graph)
    for entry in graph.spec.entries:
        change = (edited.values[entry.name].double() - graph.values[entry.name].double()).abs()
        if entry.parameter and entry.floating and change.numel():
            assert float(change.max()) > 0, entry.name
        else:
            assert not bool(change.any()), entry.name


def test_copies_are_edits_of_their_own() -> None:
    graph = graph_of(BY_NAME["mlp-sine"], 3)
    edited = editing(copies=2)(graph)
    assert len(edited) == 6
    name = graph.spec.entries[0].name
    assert relative_error(edited.values[name][:3], edited.values[name][3:]) > 1e-6


@pytest.mark.parametrize("name", ["mlp-sine", "cnn", "transformer"])
def test_gradients_reach_every_weight(name: str) -> None:
    net = editing()
    edited = net(graph_of(BY_NAME[name]))
    sum(v.square().sum() for v in edited.values.values() if v.requires_grad).backward()  # type: ignore[union-attr]
    missing = [n for n, p in net.named_parameters() if p.grad is None]
    elsewhere = ("fact", "group", "even", "summary", "pairing")  # of networks of other forms
    assert all(any(part in name for part in elsewhere) for name in missing)
