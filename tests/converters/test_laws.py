"""What every traced network obeys."""

from __future__ import annotations

import pytest
import torch

import converters
import gmn
from gmn import symmetry
from gmn.testing import assert_covers, assert_same_function
from tests.cases import Case
from tests.traced import (
    BY_NAME,
    COVERING,
    RIGID,
    SHIFTED,
    UNSCALED,
    covering_cases,
    graph_of,
    several_cases,
    spec_of,
)


@covering_cases
def test_round_trip_is_exact(case: Case) -> None:
    state = case.model(1).state_dict()
    back = gmn.ParameterGraph.from_state_dicts(spec_of(case.name), [state]).to_state_dict(0)
    assert list(back) == list(state)
    for name, value in state.items():
        assert back[name].dtype == value.dtype
        assert torch.equal(back[name], value)
    for entry in spec_of(case.name).entries:
        if entry.tied_to:
            assert back[entry.name].data_ptr() == back[entry.tied_to].data_ptr()


@covering_cases
def test_every_parameter_lies_in_one_edge_set(case: Case) -> None:
    spec = spec_of(case.name)
    assert_covers(spec)
    assert spec.num_parameters == sum(p.numel() for p in case.model().parameters())


@covering_cases
def test_symmetries_preserve_the_function(case: Case) -> None:
    model, spec, inputs = case.model(), spec_of(case.name), case.example()
    state, generator = model.state_dict(), torch.Generator().manual_seed(0)
    for _ in range(4):
        moved = symmetry.sample(spec, generator).act(state)
        assert_same_function(model, state, moved, inputs)


@several_cases
def test_certificate(case: Case) -> None:
    certificate = converters.verify(case.model(), case.example(), spec_of(case.name), trials=2)
    assert certificate.ok, str(certificate)
    assert certificate.max_error <= 1e-10


@covering_cases
def test_inverse_undoes(case: Case) -> None:
    spec, state = spec_of(case.name), case.model().state_dict()
    element = symmetry.sample(spec, torch.Generator().manual_seed(3))
    back = element.inverse().act(element.act(state))
    for name, value in state.items():
        torch.testing.assert_close(back[name], value, rtol=1e-12, atol=1e-12)


@covering_cases
def test_json_both_ways(case: Case) -> None:
    spec = spec_of(case.name)
    again = gmn.GraphSpec.from_json(spec.to_json())
    assert again == spec
    assert hash(again) == hash(spec)
    assert spec.node_sets[0].name in repr(spec)


@several_cases
def test_tracing_again_gives_the_same_spec(case: Case) -> None:
    assert converters.trace(case.model(5), case.example(5)) == spec_of(case.name)


@covering_cases
def test_acting_on_a_graph_is_acting_on_its_states(case: Case) -> None:
    graph = graph_of(case)
    element = symmetry.sample(graph.spec, torch.Generator().manual_seed(1))
    moved = element.act_on_graph(graph)
    for number in range(len(graph)):
        for name, value in element.act(graph.to_state_dict(number)).items():
            torch.testing.assert_close(moved.values[name][number], value, rtol=1e-13, atol=1e-13)


def _kinds(spec: gmn.GraphSpec) -> set[str]:
    """What laws of metanetworks may depend on."""
    names = {kind for e in spec.edge_sets for kind in (e.kind, e.operation.name)}
    names |= {scaling.domain for scaling in spec.scalings}
    forms = {f"{e.diagonal} {e.tied_to is None} {len(e.dims)}" for e in spec.edge_sets}
    groups = {n for n in ("gauges", "translations", "exchanges") if getattr(spec, n)}
    return names | forms | groups


@covering_cases
def test_what_is_said_of_its_group_is_true(case: Case) -> None:
    spec = spec_of(case.name)
    additive = spec.translations or any(s.domain == "phase" for s in spec.scalings)
    assert bool(spec.symmetries.permutations) == (case.name not in RIGID)
    assert bool(additive) == (case.name in SHIFTED)
    assert bool(spec.symmetries.followed) == (case.name not in UNSCALED)


@pytest.mark.slow
def test_covering_cases_hold_every_kind() -> None:
    """But for cells in steps, which take several times as long as any other."""
    kinds = {name: _kinds(spec_of(name)) for name in BY_NAME}
    covered = set().union(*(kinds[name] for name in COVERING))
    assert set().union(*kinds.values()) - covered == {"lstm_cell"}
