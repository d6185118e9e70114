"""A net may claim a part of the group."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import gmn
from gmn import symmetry
from gmn.testing import assert_equivariant, assert_invariant
from tests.traced import BY_NAME, graph_of


def sizes(graph: gmn.ParameterGraph) -> Tensor:
    """Invariant to scalings, not to permutations."""
    first, second = graph.values["0.weight"], graph.values["2.weight"]
    return first.norm(dim=2) * second.norm(dim=1)


def test_only_the_named_parts_move() -> None:
    spec = graph_of(BY_NAME["transformer"]).spec
    element = symmetry.sample(spec, symmetries={"scalings", "translations"})
    assert not element.permutations
    assert not element.bases
    assert set(element.scales) == {s.name for s in spec.scalings}
    assert set(element.shifts) == {t.name for t in spec.translations}


def test_all_parts_are_the_whole_group() -> None:
    spec = graph_of(BY_NAME["transformer"]).spec
    one, other = (
        symmetry.sample(spec, torch.Generator().manual_seed(0), symmetries=kinds)
        for kinds in (None, symmetry.KINDS)
    )
    for kind in ("permutations", "scales", "bases", "shifts"):
        first, second = getattr(one, kind), getattr(other, kind)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_net_is_held_to_what_it_claims() -> None:
    graph = graph_of(BY_NAME["two-layers"])
    assert_invariant(sizes, graph, symmetries={"scalings"})
    with pytest.raises(AssertionError, match="is not invariant"):
        assert_invariant(sizes, graph, symmetries={"permutations"})

    def halved(graph: gmn.ParameterGraph) -> gmn.ParameterGraph:
        return graph.replace({"0.bias": graph.values["0.bias"] * torch.tensor([0, 1] * 3)})

    assert_equivariant(halved, graph, symmetries={"scalings"})
    with pytest.raises(AssertionError, match="is not equivariant"):
        assert_equivariant(halved, graph, symmetries=["permutations"])


def test_unknown_parts_are_refused() -> None:
    with pytest.raises(ValueError, match="'scale'"):
        symmetry.sample(graph_of(BY_NAME["two-layers"]).spec, symmetries={"scale"})
