"""Canonical forms: equal for networks that a symmetry relates, and the same function."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

import converters
import gmn
from gmn import symmetry
from gmn.canonical import balanced, canonical, with_positive_signs, without_shifts
from gmn.spec import GraphSpec
from gmn.testing import assert_same_function
from tests.cases import CASES, Case
from tests.traced import BY_NAME, SEVERAL, SHIFTED, UNSCALED, graph_of, one_in, slow_beyond


def _additive(spec: GraphSpec) -> list[str]:
    phases = [s.name for s in spec.scalings if s.domain == "phase"]
    return [*(t.name for t in spec.translations), *phases]


def _distance(one: gmn.ParameterGraph, other: gmn.ParameterGraph) -> float:
    pairs = zip(one.values.values(), other.values.values(), strict=True)
    return max(float((a - b).abs().max()) for a, b in pairs if a.numel())


CONTINUOUS = ("scalings", "gauges", "translations")
by_name = pytest.mark.parametrize(
    "case", slow_beyond((case for case in CASES if case.name not in UNSCALED), SEVERAL)
)
shifted = pytest.mark.parametrize("case", slow_beyond(c for c in CASES if c.name in SHIFTED))


# --- what may be added --------------------------------------------------------------------------


@shifted
def test_shifted_networks_have_one_form(case: Case) -> None:
    graph = graph_of(case)
    expected = without_shifts(graph)
    for name in _additive(graph.spec):
        element = symmetry.only(graph.spec, name, torch.Generator().manual_seed(1))
        moved = element.act_on_graph(graph)
        assert _distance(moved, graph) > 1e-3
        assert _distance(without_shifts(moved), expected) < 1e-12, name


@shifted
def test_taking_out_shifts_keeps_the_function(case: Case) -> None:
    graph = graph_of(case)
    before, after = graph.to_state_dict(1), without_shifts(graph).to_state_dict(1)
    assert_same_function(case.model(), before, after, case.example())


def test_other_networks_keep_their_values() -> None:
    graph = graph_of(BY_NAME["mlp-gelu"])
    assert canonical(graph).values["0.weight"] is graph.values["0.weight"]
    relu = graph_of(BY_NAME["mlp-relu"])
    assert without_shifts(relu).values["0.weight"] is relu.values["0.weight"]


def test_phases_end_within_half_a_period() -> None:
    graph = graph_of(BY_NAME["mlp-sine"])
    far = graph.replace({"0.bias": graph.values["0.bias"] + 2.0})  # nineteen half periods of 30
    assert without_shifts(far).values["0.bias"].abs().max() <= torch.pi / 30 / 2


def test_the_last_bias_keeps_its_phase() -> None:
    """A published form shifts the output's bias too, which changes the function."""
    graph = graph_of(BY_NAME["mlp-sine"])
    assert torch.equal(without_shifts(graph).values["4.bias"], graph.values["4.bias"])


def test_sines_by_hand() -> None:
    """Both generators of the dihedral group of ``sin(30 (Wx + b))``, written out for one neuron."""
    graph = graph_of(BY_NAME["mlp-sine"])
    weight, bias, readers = (
        graph.values[name].clone() for name in ("0.weight", "0.bias", "2.weight")
    )
    bias[:, 2] += 3 * torch.pi / 30  # an odd number of half periods: the sine changes its sign
    readers[:, :, 2] *= -1
    weight[:, 4], bias[:, 4], readers[:, :, 4] = -weight[:, 4], -bias[:, 4], -readers[:, :, 4]
    bias[:, 4] -= 4 * torch.pi / 30
    moved = graph.replace({"0.weight": weight, "0.bias": bias, "2.weight": readers})
    case = BY_NAME["mlp-sine"]
    states = graph.to_state_dict(0), moved.to_state_dict(0)
    assert_same_function(case.model(), *states, case.example())
    assert _distance(canonical(moved), canonical(graph)) < 1e-12


# --- the whole form -----------------------------------------------------------------------------


@by_name
def test_related_networks_have_one_form(case: Case) -> None:
    graph = graph_of(case)
    element = symmetry.sample(
        graph.spec, torch.Generator().manual_seed(3), symmetries=CONTINUOUS, spread=2.0
    )
    moved = element.act_on_graph(graph)
    assert _distance(moved, graph) > 1e-3
    assert _distance(canonical(moved), canonical(graph)) < 1e-8


@by_name
def test_the_form_computes_the_same_function(case: Case) -> None:
    graph = graph_of(case)
    before, after = graph.to_state_dict(1), canonical(graph).to_state_dict(1)
    assert_same_function(case.model(), before, after, case.example())


@by_name
def test_the_form_is_its_own(case: Case) -> None:
    form = canonical(graph_of(case))
    assert _distance(canonical(form), form) < 1e-9


@by_name
def test_the_form_moves_with_permutations(case: Case) -> None:
    """Those of a basis' directions excepted: their order is part of the form."""
    graph = graph_of(case)
    element = symmetry.sample(graph.spec, torch.Generator().manual_seed(4), scalings=False)
    sorted_axes = {gauge.axes[-1] for gauge in graph.spec.gauges}
    kept = {n: p for n, p in element.permutations.items() if n not in sorted_axes}
    expected = replace(element, permutations=kept).act_on_graph(canonical(graph))
    assert _distance(canonical(element.act_on_graph(graph)), expected) < 1e-8


def test_networks_of_a_batch_do_not_see_each_other() -> None:
    graph = graph_of(BY_NAME["transformer"], networks=3)
    assert _distance(canonical(graph)[1], canonical(graph[1])) < 1e-10


def test_parts_can_be_left_out() -> None:
    graph = graph_of(BY_NAME["transformer"])
    form = canonical(graph, shifts=False, scales=False, bases=False, signs=False)
    assert form is graph
    only_signs = canonical(graph, shifts=False, scales=False, bases=False)
    for name, value in only_signs.values.items():
        if value.is_floating_point():
            assert torch.equal(value.abs(), graph.values[name].abs())


def test_the_type_of_the_weights_is_kept() -> None:
    graph = graph_of(BY_NAME["transformer"]).to(dtype=torch.float32)
    form = canonical(graph)
    assert form.dtype == torch.float32
    assert _distance(form, canonical(graph.to(dtype=torch.float64)).to(dtype=torch.float32)) < 1e-6


# --- what the form is ---------------------------------------------------------------------------


def test_neurons_are_balanced() -> None:
    form = balanced(graph_of(BY_NAME["mlp-relu"])).values
    into = form["0.weight"].square().sum(2) + form["0.bias"].square()
    assert torch.allclose(into, form["2.weight"].square().sum(1), atol=1e-12)


def test_what_a_norm_rescales_has_length_one() -> None:
    form = balanced(graph_of(BY_NAME["batch-norm"])).values
    length = form["0.weight"].square().sum((2, 3, 4)) + form["0.bias"].square()
    length += form["1.running_mean"].square() + form["1.running_var"] + 1e-5
    assert torch.allclose(length, torch.ones_like(length), atol=1e-12)


def test_heads_are_balanced_singular_value_decompositions() -> None:
    form = canonical(graph_of(BY_NAME["attention"]), shifts=False).values
    for head in (slice(0, 4), slice(4, 8)):
        q, k = (
            torch.cat([form[f"{n}.weight"][0, head], form[f"{n}.bias"][0, head, None]], dim=1)
            for n in "qk"
        )
        values = torch.linalg.svdvals(q.mT @ k)[:4]
        assert torch.allclose(q @ q.mT, values.diag(), atol=1e-10)
        assert torch.allclose(k @ k.mT, values.diag(), atol=1e-10)
        assert (q[:, :-1].sum(1) > 0).all()


def test_no_scale_of_the_group_makes_it_smaller() -> None:
    graph = balanced(graph_of(BY_NAME["resnet"]))
    two_sided = [
        s.name
        for s in graph.spec.scalings
        if s.domain == "positive" and len({t.exponent > 0 for t in s.terms}) == 2
    ]
    size = sum(v.square().sum() for v in graph.values.values() if v.is_floating_point())
    assert two_sided
    for name in two_sided:
        element = symmetry.only(graph.spec, name, torch.Generator().manual_seed(0))
        moved = element.act_on_graph(graph)
        other = sum(v.square().sum() for v in moved.values.values() if v.is_floating_point())
        assert other > size


def test_centred_weights_take_their_sign_from_the_third_moment() -> None:
    graph = graph_of(BY_NAME["mlp-tanh"])
    weight = graph.values["0.weight"]
    weight = weight - weight.mean(2, keepdim=True)
    form = with_positive_signs(graph.replace({"0.weight": weight})).values["0.weight"]
    assert (form.pow(3).sum(2) > 0).all()


# --- hard networks ------------------------------------------------------------------------------


def _deep(layers: int, width: int = 8) -> nn.Module:
    hidden = [part for _ in range(layers) for part in (nn.Linear(width, width), nn.ReLU())]
    return nn.Sequential(nn.Linear(3, width), nn.ReLU(), *hidden, nn.Linear(width, 2))


@cache
def _deep_spec() -> GraphSpec:
    return converters.trace(_deep(2), (torch.randn(5, 3),))


EDITS = ("dead", "tiny", "twins", "zero")


def _edited(edit: str) -> dict[str, Tensor]:
    torch.manual_seed(0)
    state = _deep(2).double().state_dict()
    if edit == "dead":
        state["0.weight"][0], state["0.bias"][0], state["4.weight"][:, 3] = 0, 0, 0
    if edit == "tiny":
        state["0.weight"][0] *= 1e-15
        state["2.weight"][:, 0] *= 1e-15
    if edit == "twins":
        state["0.weight"][1], state["0.bias"][1] = state["0.weight"][0], state["0.bias"][0]
    if edit == "zero":
        state = {name: torch.zeros_like(value) for name, value in state.items()}
    return state


@pytest.mark.parametrize(
    ("edit", "spread"),
    one_in(2, [(edit, spread) for edit in EDITS for spread in (10.0, 0.5)]),
)
def test_hard_weights(edit: str, spread: float) -> None:
    model, inputs = _deep(2).double(), (torch.randn(5, 3).double(),)
    spec = _deep_spec()
    graph = gmn.ParameterGraph.from_state_dicts(spec, [_edited(edit)])
    element = symmetry.sample(
        spec, torch.Generator().manual_seed(1), symmetries=CONTINUOUS, spread=spread
    )
    form = canonical(graph)
    assert _distance(canonical(element.act_on_graph(graph)), form) < 1e-8
    assert_same_function(model, graph.to_state_dict(), form.to_state_dict(), inputs)


def test_neurons_without_input_lose_their_output() -> None:
    spec = _deep_spec()
    form = balanced(gmn.ParameterGraph.from_state_dicts(spec, [_edited("dead")])).values
    assert not form["2.weight"][:, :, 0].any()
    assert not form["2.weight"][:, 3].any()


@pytest.mark.parametrize("depth", [8, pytest.param(30, marks=pytest.mark.slow)])
def test_deep_networks(depth: int) -> None:
    torch.manual_seed(0)
    model, inputs = _deep(depth).double(), (torch.randn(5, 3).double(),)
    spec = converters.trace(model, inputs)
    graph = gmn.ParameterGraph.from_state_dicts(spec, [model.state_dict()])
    element = symmetry.sample(spec, torch.Generator().manual_seed(1), symmetries=CONTINUOUS)
    form = canonical(graph)
    assert _distance(canonical(element.act_on_graph(graph)), form) < 1e-8
    assert_same_function(model, graph.to_state_dict(), form.to_state_dict(), inputs)


class _Recurrence(nn.Module):
    """A linear recurrence: one basis at both ends of a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.again, self.out = nn.Linear(3, 4), nn.Linear(4, 4, False), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.again(self.again(self.into(x))))


class _Rotated(nn.Module):
    """One weight writes and reads: rotations only."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(3, 6, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.encoder(x) @ self.encoder.weight


@pytest.mark.parametrize("build", [_Recurrence, _Rotated])
def test_unusual_bases(build: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model, inputs = build().double(), (torch.randn(5, 3).double(),)
    spec = converters.trace(model, inputs)
    assert spec.gauges
    graph = gmn.ParameterGraph.from_state_dicts(spec, [model.state_dict()])
    element = symmetry.sample(spec, torch.Generator().manual_seed(1), symmetries=CONTINUOUS)
    form = canonical(graph)
    assert _distance(canonical(element.act_on_graph(graph)), form) < 1e-8
    assert_same_function(model, graph.to_state_dict(), form.to_state_dict(), inputs)


def test_one_scale_of_a_whole_tensor_is_balanced() -> None:
    """A spectral norm takes out one number, which has no axis."""
    module = nn.Sequential(spectral_norm(nn.Linear(5, 8)), nn.ReLU(), nn.Linear(8, 2)).double()
    module.eval()
    spec = converters.trace(module, (torch.zeros(1, 5).double(),))
    assert any(not scaling.axes for scaling in spec.symmetries.scalings)
    values = {n: torch.randn(2, *v.shape).to(v) for n, v in module.state_dict().items()}
    graph = gmn.ParameterGraph(spec, values)
    element = symmetry.sample(spec, torch.Generator().manual_seed(0), symmetries=("scalings",))
    found, moved = canonical(graph), canonical(element.act_on_graph(graph))
    for name, value in found.values.items():
        torch.testing.assert_close(moved.values[name], value, rtol=1e-9, atol=1e-9)
