"""Numbers that pass a weight: in elements of the group, in canonical forms and in edits."""

from __future__ import annotations

import pytest
import torch

from gmn import symmetry
from gmn.canonical import without_shifts
from gmn.canonical.shifts import changes, passing
from gmn.graph import ParameterGraph
from gmn.nn import DualGMN, EditHead, ScaleGMN
from gmn.spec import Through
from gmn.symmetry import Element
from gmn.symmetry.carried import carried
from gmn.testing import assert_equivariant, assert_invariant, assert_same_function
from tests.traced import BY_NAME, graph_of, spec_of


def test_dimensions_that_neither_end_has_are_summed_over() -> None:
    weight = torch.randn(3, 5, 2, 4, 6)
    numbers = torch.randn(3, 6, 2)
    found = carried(weight, Through("w", (3, 1), (0,)), numbers)
    torch.testing.assert_close(found, torch.einsum("boghu,bug->bo", weight, numbers))
    alike = carried(weight, Through("w", (1,), (1, 0)), torch.ones(1, 2))
    torch.testing.assert_close(alike, weight.sum((3, 4)).mT)


def test_the_bias_of_values_is_that_of_the_output_after_the_weight() -> None:
    state = BY_NAME["attention"].model().state_dict()
    spec = spec_of("attention")
    shift = torch.randn(2, 4, dtype=torch.float64)
    moved = Element(spec, {}, {}, {}, {"v.bias.carry": shift}).act(state)
    torch.testing.assert_close(moved["v.bias"], state["v.bias"] + shift.flatten())
    torch.testing.assert_close(
        moved["o.bias"], state["o.bias"] - state["o.weight"] @ shift.flatten()
    )
    assert torch.equal(moved["o.weight"], state["o.weight"])


def test_a_weight_that_moves_carries_half_before_and_half_after() -> None:
    spec = spec_of("attention-module")
    state = BY_NAME["attention-module"].model().state_dict()
    shifts = {
        t.name: torch.randn(t.shape, dtype=torch.float64)
        for t in spec.translations
        if t.terms[0].edge_set in ("self_attn.in_proj_bias[2]", "self_attn.out_proj.weight")
    }
    assert len(shifts) == 2
    element = Element(spec, {}, {}, {}, shifts)
    moved = element.act(state)
    weights = (state["self_attn.out_proj.weight"], moved["self_attn.out_proj.weight"])
    assert not torch.equal(*weights)
    image = (weights[0] + weights[1]) / 2 @ shifts["self_attn.in_proj_bias[2].carry"].flatten()
    torch.testing.assert_close(
        moved["self_attn.out_proj.bias"], state["self_attn.out_proj.bias"] - image
    )
    case = BY_NAME["attention-module"]
    assert_same_function(case.model(), state, moved, case.example())
    back = element.inverse().act(moved)
    for name, value in state.items():
        torch.testing.assert_close(back[name], value, rtol=1e-12, atol=1e-12)


def test_only_biases_change_where_a_form_carries_numbers_on() -> None:
    graph = graph_of(BY_NAME["attention"], 2)
    noted = changes(graph)
    assert set(noted) == {"k.bias", "v.bias", "o.bias"}
    plain = without_shifts(graph)
    assert plain.values["o.weight"] is graph.values["o.weight"]
    assert not plain.values["v.bias"].any()
    (terms,) = passing(graph).values()
    torch.testing.assert_close(terms[0][1].flatten(1), graph.values["v.bias"])


def test_biases_that_others_move_into_before_they_move_on_end_at_exactly_zero() -> None:
    plain = without_shifts(graph_of(BY_NAME["mlp-identity"], 2))
    assert not plain.values["0.bias"].any()
    assert not plain.values["2.bias"].any()
    assert plain.values["4.bias"].any()


def test_types_of_weights_stay() -> None:
    spec = spec_of("attention")
    state = {k: v.float() for k, v in BY_NAME["attention"].model().state_dict().items()}
    graph = ParameterGraph.from_state_dicts(spec, [state])
    element = symmetry.sample(spec, torch.Generator().manual_seed(0))
    assert all(v.dtype == torch.float32 for v in element.act_on_graph(graph).values.values())
    assert all(v.dtype == torch.float32 for v in without_shifts(graph).values.values())


@pytest.mark.parametrize("name", ["attention", "attention-module", "mlp-identity"])
def test_edits_carry_on_what_the_edited_weight_carries(name: str) -> None:
    torch.manual_seed(0)
    graph = graph_of(BY_NAME[name], 2)
    only = {"symmetries": ["translations"], "trials": 2}
    dual = DualGMN(8, 1).double()
    with torch.no_grad():
        assert_invariant(dual, graph, **only)
    assert_equivariant(DualGMN(8, 1, EditHead(2)).double(), graph, **only)
    if name == "mlp-identity":
        assert_equivariant(ScaleGMN(8, 1, EditHead(2)).double(), graph, **only)
