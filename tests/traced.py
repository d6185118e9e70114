"""Every case traced once per process, for all suites."""

from __future__ import annotations

from collections.abc import Container, Iterable
from functools import cache

import pytest
from _pytest.mark import ParameterSet

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


# Every operation, kind of edge and kind of symmetry at least once (test_laws says so).
# fmt: off
COVERING = frozenset({
    "mlp-relu", "mlp-sine", "single-layer", "scalar-hidden", "cnn-flatten", "cnn-unequal-kernels",
    "cnn-1d", "cnn-regrouped", "cnn-depthwise", "resnet", "tied-transpose", "decoder", "unused",
    "attention-packed", "transformer", "transformer-rms", "packed-gate", "group-norm", "prelu",
    "recurrent-lstm", "recurrent-gru", "recurrent-tanh", "stepped-gru", "stepped-relu", "bilinear",
    "u-net", "places", "picked", "fused", "read-twice",
})
# fmt: on
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
chains = pytest.mark.parametrize(
    "case", [case for case in CASES if case.chain], ids=lambda case: case.name
)


def slow_beyond(cases: Iterable[Case], default: Container[str] = COVERING) -> list[ParameterSet]:
    """All cases as parameters of a test, those outside `default` among the slow ones."""
    return [
        pytest.param(case, marks=() if case.name in default else pytest.mark.slow, id=case.name)
        for case in cases
    ]


covering_cases = pytest.mark.parametrize("case", slow_beyond(CASES))
