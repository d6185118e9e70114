"""No claim about a random program is false, and nothing but a TraceError leaves the tracer."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.traced import one_in

from .fuzzing import examine, shrunk
from .kept_programs import KEPT
from .programs import OPERATIONS, Program, programs

STEADY = settings(
    derandomize=True,
    database=None,
    deadline=None,
    phases=(Phase.explicit, Phase.generate),  # failures are shrunk by deleting operations instead
    suppress_health_check=list(HealthCheck),
)


def assert_holds(program: Program) -> None:
    finding = examine(program)
    assert not finding.faults, f"\n{shrunk(finding)}"


@settings(STEADY, max_examples=5)
@given(programs())
def test_claims_about_random_programs_hold(program: Program) -> None:
    assert_holds(program)


@pytest.mark.slow
@settings(STEADY, max_examples=20_000)
@given(programs())
def test_claims_about_many_random_programs_hold(program: Program) -> None:
    assert_holds(program)


@pytest.mark.parametrize("name", one_in(6, KEPT))
def test_claims_about_kept_programs_hold(name: str) -> None:
    finding = examine(KEPT[name])
    assert not finding.faults, f"\n{finding}"


def test_programs_are_drawn_from_more_than_eighty_operations() -> None:
    assert len({operation.name for operation in OPERATIONS}) > 80
