"""Every case traced once per process, for all suites."""

from __future__ import annotations

from functools import cache

import pytest

import converters
import gmn
from tests.cases import CASES, Case

BY_NAME = {case.name: case for case in CASES}


@cache
def spec_of(name: str) -> gmn.GraphSpec:
    case = BY_NAME[name]
    return converters.trace(case.model(), case.example())


def graph_of(case: Case, networks: int = 2) -> gmn.ParameterGraph:
    states = [case.model(seed).state_dict() for seed in range(networks)]
    return gmn.ParameterGraph.from_state_dicts(spec_of(case.name), states)


def read_by(model: str) -> Case:
    """A case that an installed model can read."""
    return BY_NAME["transformer" if model.startswith("transformer-nfn") else "cnn"]


LONG = "recurrent-bidirectional"  # takes several times as long as any other
every_case = pytest.mark.parametrize(
    "case",
    [pytest.param(c, marks=pytest.mark.slow) if c.name == LONG else c for c in CASES],
    ids=lambda case: case.name,
)
chains = pytest.mark.parametrize(
    "case", [case for case in CASES if case.chain], ids=lambda case: case.name
)
