"""Every case traced once, for all suites and all processes that run them."""

from __future__ import annotations

import os
from collections.abc import Callable, Container, Iterable
from functools import cache
from pathlib import Path
from typing import Protocol, TypeVar

import pytest
from _pytest.mark import ParameterSet

import converters
import gmn
from tests.cases import CASES, Case

T = TypeVar("T")


class Named(Protocol):
    """A case of any list."""

    @property
    def name(self) -> str: ...


SHARED = "GMN_TRACED_CASES"  # a folder where parallel processes find what one of them traced
BY_NAME = {case.name: case for case in CASES}


@cache
def spec_of(name: str) -> gmn.GraphSpec:
    case = BY_NAME[name]
    if (folder := os.environ.get(SHARED)) is None:
        return converters.trace(case.model(), case.example())
    file = Path(folder) / f"{name}.json"
    if file.exists():
        return gmn.GraphSpec.from_json(file.read_text())
    spec = converters.trace(case.model(), case.example())
    part = file.with_suffix(f".{os.getpid()}")
    part.write_text(spec.to_json())
    part.replace(file)
    return spec


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

# A few of different kinds, for laws that take longer or whose kinds others cover.
SEVERAL = frozenset({
    "mlp-sine", "cnn-regrouped", "resnet", "tied-transpose", "transformer", "packed-gate", "prelu",
    "recurrent-gru", "bilinear",
})

# Known before anything is traced; test_laws holds them against the specs.
RIGID = frozenset({  # no neurons trade places
    "single-layer", "input-residual", "called-twice", "shifted-units", "picked", "scalar-hidden",
})
SHIFTED = frozenset({  # something may be added: translations, phases
    "mlp-identity", "mlp-sine", "cnn-grouped", "cnn-depthwise", "batch-norm", "pre-activation",
    "attention", "attention-grouped", "attention-packed", "attention-module", "transformer",
    "transformer-rms", "group-norm", "recurrent-lstm", "recurrent-gru", "recurrent-bidirectional",
    "recurrent-projected", "stepped-lstm", "stepped-relu", "places", "best",
})
UNSCALED = frozenset({  # permutations alone
    "mlp-sigmoid", "mlp-gelu", "mlp-silu", "mlp-elu", "mlp-softplus", "mlp-relu6", "mlp-mish",
    "single-layer", "input-residual", "called-twice", "tied-transpose", "read-twice", "written",
})
# fmt: on
chains = pytest.mark.parametrize(
    "case", [case for case in CASES if case.chain], ids=lambda case: case.name
)


def _parameter(item: object, name: str, fast: bool) -> ParameterSet:
    values = item if isinstance(item, tuple) else (item,)
    return pytest.param(*values, marks=() if fast else pytest.mark.slow, id=name)


def slow_beyond(cases: Iterable[Named], default: Container[str] = COVERING) -> list[ParameterSet]:
    """All cases as parameters of a test, those outside `default` among the slow ones."""
    return [_parameter(case, case.name, case.name in default) for case in cases]


def slow_but(names: Iterable[T], default: Container[T]) -> list[ParameterSet]:
    """All names as parameters of a test, or tuples of them; those outside `default` as slow."""
    return [_parameter(name, _words(name), name in default) for name in names]


def one_in(
    step: int, items: Iterable[T], name: Callable[[T], str] | None = None
) -> list[ParameterSet]:
    """All items as parameters of a test: the first of every `step`, the others as slow ones."""
    return [
        _parameter(item, (name or _words)(item), number % step == 0)
        for number, item in enumerate(items)
    ]


def _words(item: object) -> str:
    return "-".join(map(str, item)) if isinstance(item, tuple) else str(item)


covering_cases = pytest.mark.parametrize("case", slow_beyond(CASES))
several_cases = pytest.mark.parametrize("case", slow_beyond(CASES, SEVERAL))
