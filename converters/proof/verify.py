"""The certificate: tests by experiment that a spec's symmetries preserve the function."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import cycle
from typing import Any

import torch
from torch import nn

from converters.exporting.modules import require_module
from gmn.foundation.arguments import require_type, require_whole
from gmn.graph.required import require_spec
from gmn.spec import Axis, GraphSpec

from ..conversion import trace
from .completeness import Completeness, measure
from .generators import generators, moving
from .running import Given, in_widest
from .situations import Situation, as_given, as_it_is, at_random, without_values

TOLERANCE = 1e-8


@dataclass(frozen=True)
class Certificate:
    """Relative changes of the outputs when the weights moved along the group.

    Errors are relative: the largest change of any entry of an output over its largest entry. Where
    entries of the state dict share storage and an element would have them differ, by how much.

    Attributes:
        max_error: over random elements of the whole group.
        trials: number of such elements.
        errors: by movable axis, scaling, gauge, translation and exchange, moving it alone.
        missed: ordered axes of hidden neurons whose permutation changed nothing: symmetries that
            the spec does not claim.
        unknown: operations without a rule.
        tolerance: errors up to this are rounding. It is 1e-8, more where the module runs in
            float32 only or makes much of little changes.
        random: whether the module draws random numbers. They were the same before and after;
            permutations, which then hold in distribution only, were left out.
        complete: how many continuous symmetries there are, if that was asked for.
    """

    max_error: float
    trials: int
    errors: dict[str, float]
    missed: tuple[str, ...]
    unknown: tuple[str, ...]
    tolerance: float = TOLERANCE
    random: bool = False
    complete: Completeness | None = None

    @property
    def ok(self) -> bool:
        """Whether every claimed symmetry preserves the function."""
        return max([self.max_error, *self.errors.values()]) <= self.tolerance

    def to_json(self) -> str:
        """All fields and ``ok`` as JSON text."""
        return json.dumps({"ok": self.ok, **asdict(self)})

    def __str__(self) -> str:
        lines = [
            f"certificate: {'passed' if self.ok else 'FAILED'}; {self.trials} random elements of "
            f"the group change outputs by at most {self.max_error:.1e} (relative), with the "
            "module's own weights and random ones"
        ]
        width = max(map(len, self.errors), default=0)
        for name, error in self.errors.items():
            mark = "" if error <= self.tolerance else "  not a symmetry"
            lines.append(f"  {name.ljust(width)}  {error:.1e}{mark}")
        if self.random:
            lines.append("  the module draws random numbers: permutations were not tried")
        if self.missed:
            lines.append(f"  ordered, yet free to permute: {', '.join(self.missed)}")
        lines += [f"  {report}" for report in self.unknown]
        lines += [str(self.complete)] if self.complete else []
        return "\n".join(lines)


def verify(
    model: nn.Module,
    example_inputs: tuple[Any, ...],
    spec: GraphSpec | None = None,
    trials: int = 8,
    generator: torch.Generator | None = None,
    *,
    example_kwargs: Mapping[str, Any] | None = None,
    complete: bool = False,
) -> Certificate:
    """Moves the weights of a copy of the module along its group and compares outputs.

    The copy runs in float64 (float32 where the module takes nothing wider) with the module's own
    weights and with random ones, on the example inputs and on fresh ones of other magnitudes and,
    where it takes them, other batch sizes. Entries that share storage share it in the copy.

    Args:
        model: the network; it is left as it is, and so are the random numbers of the process.
        example_inputs: positional inputs, as for ``torch.export.export``.
        spec: its spec; if None, all that the rules claim, whether it holds or not.
        trials: number of random elements of the whole group.
        generator: source of randomness, on the CPU; seeded with 0 if None.
        example_kwargs: inputs by name.
        complete: whether to count the continuous symmetries that the spec does not claim, which
            takes up to a minute.

    Raises:
        TraceError: if there is no spec and ``torch.export`` cannot follow the module.
        ValueError: if the outputs are not finite, the module is on the meta device, or has too
            many parameters to count symmetries.
    """
    require_module(model)
    require_whole("trials", trials, 0)
    if spec is not None:
        require_spec("spec", spec)
    if generator is not None:
        require_type("generator", generator, torch.Generator, "a torch.Generator")
    if (name := without_values(model)) is not None:
        raise ValueError(
            f"{name} is on the meta device, which holds no values, so the module cannot run; build "
            "it on the CPU and load a checkpoint first (tracing needs neither)"
        )
    if spec is None:
        spec = trace(model, example_inputs, example_kwargs, experiment=False)
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    given = as_given(example_inputs, example_kwargs)
    situations = _situations(model, given, spec, generator)
    random = any(situation.random for situation in situations)
    names = generators(spec, permutations=not random)
    errors = {name: _worst(situations, spec, [name], generator) for name in names}
    pairs = cycle([situations[:1], situations[1:]])
    whole = [_worst(next(pairs), spec, names, generator) for _ in range(2 * trials)]
    tolerance = max(situation.tolerance for situation in situations)
    worst = max([*whole, *errors.values()], default=0.0)
    if worst > tolerance:
        tolerance = max(tolerance, *(situation.rounding() for situation in situations))
    free = () if random else _ordered(spec)
    return Certificate(
        max(whole, default=0.0),
        trials,
        errors,
        tuple(a.name for a in free if _worst(situations, spec, [a.name], generator) <= tolerance),
        spec.unknown,
        tolerance,
        random,
        measure(model, given, spec, generator) if complete else None,
    )


def _situations(
    model: nn.Module, given: Given, spec: GraphSpec, generator: torch.Generator
) -> list[Situation]:
    """The module as it is, and with random weights and inputs."""
    situations = in_widest(
        model, lambda r: [as_it_is(r, given), at_random(r, given, spec, generator)]
    )
    for situation in situations:
        situation.keep_copies()
    return situations


def _worst(
    situations: list[Situation], spec: GraphSpec, names: list[str], generator: torch.Generator
) -> float:
    """The largest change by an element that moves these, a new one in each situation."""
    return max(s.error(moving(spec, names, generator)) for s in situations)


def _ordered(spec: GraphSpec) -> Iterator[Axis]:
    hidden = {n for nodes in spec.node_sets if nodes.role == "ordered" for n in nodes.axes}
    return (axis for axis in spec.axes if axis.name in hidden and axis.size > 1)
