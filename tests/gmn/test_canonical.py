"""Canonical forms: equal for networks that a symmetry relates, and the same function."""

from __future__ import annotations

import pytest
import torch

from gmn import symmetry
from gmn.canonical import without_shifts
from gmn.spec import GraphSpec
from gmn.testing import assert_same_function
from tests.cases import CASES, Case
from tests.traced import BY_NAME, graph_of, spec_of


def _additive(spec: GraphSpec) -> list[str]:
    phases = [s.name for s in spec.scalings if s.domain == "phase"]
    return [*(t.name for t in spec.translations), *phases]


SHIFTED = [case for case in CASES if _additive(spec_of(case.name))]


@pytest.mark.parametrize("case", SHIFTED, ids=lambda case: case.name)
def test_related_networks_have_one_form(case: Case) -> None:
    graph = graph_of(case)
    expected = without_shifts(graph)
    for name in _additive(graph.spec):
        element = symmetry.only(graph.spec, name, torch.Generator().manual_seed(1))
        moved = element.act_on_graph(graph)
        assert max(_distance(moved, graph)) > 1e-3
        assert max(_distance(without_shifts(moved), expected)) < 1e-12, name


def _distance(one, other) -> list[float]:  # type: ignore[no-untyped-def]
    pairs = zip(one.values.values(), other.values.values(), strict=True)
    return [float((a - b).abs().max()) for a, b in pairs if a.numel()]


@pytest.mark.parametrize("case", SHIFTED, ids=lambda case: case.name)
def test_the_form_computes_the_same_function(case: Case) -> None:
    graph = graph_of(case)
    before, after = graph.to_state_dict(1), without_shifts(graph).to_state_dict(1)
    assert_same_function(case.model(), before, after, case.example())


def test_other_networks_keep_their_values() -> None:
    graph = graph_of(BY_NAME["mlp-relu"])
    assert without_shifts(graph).values["0.weight"] is graph.values["0.weight"]


def test_phases_end_within_half_a_period() -> None:
    graph = graph_of(BY_NAME["mlp-sine"])
    far = graph.replace({"0.bias": graph.values["0.bias"] + 2.0})  # nineteen half periods of 30
    assert without_shifts(far).values["0.bias"].abs().max() <= torch.pi / 30 / 2


def test_the_last_bias_keeps_its_phase() -> None:
    """A published form shifts the output's bias too, which changes the function."""
    graph = graph_of(BY_NAME["mlp-sine"])
    assert torch.equal(without_shifts(graph).values["4.bias"], graph.values["4.bias"])
