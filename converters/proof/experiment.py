"""Tries the symmetries of a new spec on its module, and drops those that fail.

Rules can be wrong, and whoever uses a spec believes it. Whole elements of the group come first, so
a module that is right costs three forward passes; only where one fails does each generator move
alone, to find which.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from gmn.spec import EdgeSet, GraphSpec

from .generators import generators, moving, weaker, without
from .running import Given, in_widest
from .situations import Situation, as_given, at_random, without_values

LARGEST = 50_000_000  # parameters of a module that is tried; every pass needs a wide copy of them
ELEMENTS = 2


class FalseSymmetryWarning(UserWarning):
    """A rule claimed a symmetry that the module does not have; the spec leaves it out."""


def tried(
    model: nn.Module,
    example_inputs: tuple[Any, ...],
    spec: GraphSpec,
    example_kwargs: Mapping[str, Any] | None = None,
    *,
    blame: Callable[[], str | None] = lambda: None,
) -> GraphSpec:
    """Moves random weights of a copy of the module along the group that its spec claims.

    The copy runs in float64 on fresh inputs, with another batch size if it takes one, and with
    entries that share storage as they are. Of a module that draws random numbers, permutations are
    symmetries in distribution only; they are not tried.

    Args:
        model: the network; it is left as it is, and so are the random numbers of the process.
        example_inputs: positional inputs, as for ``torch.export.export``.
        spec: its spec.
        example_kwargs: inputs by name.
        blame: names the operation whose rule is wrong; it is asked only where a claim fails.

    Returns:
        The spec without what failed; ``tried`` names what held, and ``untried`` says why if
        something could not be tried.

    Warns:
        FalseSymmetryWarning: for every symmetry that failed.
    """
    if not generators(spec):
        return spec
    given = as_given(example_inputs, example_kwargs)
    reason = _reason_not_to(model, given, spec)
    if reason is None:
        try:
            source = torch.Generator().manual_seed(0)
            situation = in_widest(model, lambda runner: at_random(runner, given, spec, source))
        except Exception as error:  # the module's own; a spec is of use without the experiment
            message = (str(error).strip().splitlines() or [""])[0]
            reason = f"{type(model).__name__} does not run with random weights: {message}"
    if reason is not None:
        return replace(spec, tried=(), untried=reason)
    spec = _without_false(spec, situation, type(model).__name__, blame)
    random = "the module draws random numbers, so permutations hold in distribution only"
    names = generators(spec, permutations=not situation.random)
    return replace(spec, tried=tuple(names), untried=random if situation.random else "")


def _reason_not_to(model: nn.Module, given: Given, spec: GraphSpec) -> str | None:
    if without_values(model) is not None:
        return "weights on the meta device"
    if any(tensor.is_meta for tensor in given.tensors):
        return "example inputs on the meta device"
    if spec.num_parameters > LARGEST:
        return f"more than {LARGEST:,} parameters; converters.verify tries any number"
    return None


def _without_false(
    spec: GraphSpec, situation: Situation, module: str, blame: Callable[[], str | None]
) -> GraphSpec:
    """Drops symmetries until random elements of the whole group preserve the outputs."""
    source = torch.Generator().manual_seed(1)
    allowed = situation.tolerance
    asked, wrong = False, None
    while True:
        names = generators(spec, permutations=not situation.random)
        error = max(
            (situation.error(moving(spec, names, source)) for _ in range(ELEMENTS)), default=0.0
        )
        if error <= allowed:
            return spec
        # Measured only now, as most modules pass with the default tolerance.
        if allowed < (noise := situation.rounding()):
            allowed = noise
            continue
        if not asked:
            asked, wrong = True, _asked(blame)
        for name, error in _false(spec, names, situation, allowed, source):
            spec = _given_up(spec, name, error, situation, allowed, source, module, wrong)


def _asked(blame: Callable[[], str | None]) -> str | None:
    """The name of the culprit operation; None if the search fails."""
    try:
        return blame()
    except Exception:  # the module's own operations, run one by one
        return None


def _false(
    spec: GraphSpec,
    names: list[str],
    situation: Situation,
    allowed: float,
    source: torch.Generator,
) -> list[tuple[str, float]]:
    """The generators that fail alone, with their errors; else the first that fails with others."""
    errors = [(name, situation.error(moving(spec, [name], source))) for name in names]
    false = [(name, error) for name, error in errors if not error <= allowed]
    if false:
        return false
    # Each holds alone, together they do not: bisect for the one with which it begins.
    low, high = 1, len(names)
    while low < high:  # the shortest list of the first ones that fails as a whole
        middle = (low + high) // 2
        fails = situation.error(moving(spec, names[:middle], source)) > allowed
        low, high = (low, middle) if fails else (middle + 1, high)
    return [(names[low - 1], situation.error(moving(spec, names[:low], source)))]


def _given_up(
    spec: GraphSpec,
    name: str,
    error: float,
    situation: Situation,
    allowed: float,
    source: torch.Generator,
    module: str,
    wrong: str | None,
) -> GraphSpec:
    """The spec without one claim, or with a part of it that holds."""
    kept, left = without(spec, [name]), "it is left out"
    others = generators(kept)
    for part in weaker(spec, name):
        new = [other for other in generators(part) if other not in others]
        if situation.error(moving(part, new, source)) <= allowed:
            kept, left = part, "a smaller one takes its place"
            break
    first = f": the first result that its rule does not tell is that of {wrong}" if wrong else ""
    warnings.warn(
        f"{module}: the claimed {_kind(spec, name)} {name} is none: it changes outputs by "
        f"{error:.0e} (relative) on random weights, so {left}. It passes "
        f"{', '.join(dict.fromkeys(_operations(spec, name)))}, one of whose rules is wrong"
        f"{first}. "
        "Please report the module to the authors of the library.",
        FalseSymmetryWarning,
        stacklevel=2,
    )
    return kept


def _kind(spec: GraphSpec, name: str) -> str:
    group = spec.symmetries
    kinds = {axis.name: "permutation of" for axis in group.permutations}
    kinds |= {scaling.name: f"{scaling.domain} scaling" for scaling in group.scalings}
    kinds |= {gauge.name: f"{gauge.group} change of basis" for gauge in group.gauges}
    kinds |= {translation.name: "translation" for translation in group.translations}
    kinds |= {exchange.name: "exchange of branches" for exchange in group.exchanges}
    return kinds[name]


def _operations(spec: GraphSpec, name: str) -> Iterator[str]:
    """The operations that read what the symmetry moves, and those on the neurons in between."""
    for edges in _edge_sets(spec, name):
        yield edges.operation.name
        for end in (edges.source, edges.target):
            yield from (operation.name for operation in spec.node_set(end).operations)


def _edge_sets(spec: GraphSpec, name: str) -> Iterator[EdgeSet]:
    for symmetry in spec.symmetries.followed:
        if symmetry.name == name:
            yield from (spec.edge_set(term.edge_set) for term in symmetry.terms)
    for exchange in spec.exchanges:
        if exchange.name == name:
            yield from (spec.edge_set(edges) for edges in exchange.branches[0])
    yield from (edges for edges in spec.edge_sets if any(dim.axis == name for dim in edges.dims))
