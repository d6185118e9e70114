"""Draws random elements of a group that was inferred but not yet named."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

from ..inference.actions import Actions, Field
from ..inference.axes import Atom, atoms
from ..inference.equations import System, Unknown
from ..inference.tracing import flat_axes
from .moved_values import Move, parents

SCALES, SIGNS, SHIFTS, PERMUTATIONS = KINDS = ("magnitudes", "signs", "shifts", "permutations")


@dataclass(frozen=True)
class Freedom:
    """One independent freedom of the group: a free unknown or a permutable atom.

    Attributes:
        kind: one of ``KINDS``.
        free: the unknown that is free, or the atom that may be permuted.
        entries: the entries of the state dict that it moves.
    """

    kind: str
    free: Unknown | Atom
    entries: tuple[str, ...]


class Group:
    """The group that a finished trace allows.

    Args:
        actions: how values transform.

    Attributes:
        parts: what may move by itself.
    """

    def __init__(self, actions: Actions) -> None:
        self._actions = actions
        # By product both factors of which may be shifted: what shifts each.
        self._torn = _torn(actions)
        self.parts = [*self._unknowns(), *self._permutations()]

    def _unknowns(self) -> list[Freedom]:
        result = []
        for kind in (SCALES, SIGNS, SHIFTS):
            system: System = getattr(self._actions, kind)
            for free, followers in system.solutions().items():
                torn = kind == SHIFTS and any(free in a and free in b for a, b in self._torn)
                if not torn:
                    entries = tuple(dict.fromkeys(f.unknown.entry for f, _ in followers))
                    result.append(Freedom(kind, free, entries))
        return result

    def _permutations(self) -> list[Freedom]:
        parameters = {
            name: {atom for axis in axes for atom in atoms(axis)}
            for name, axes in self._actions.trace.parameters.items()
        }
        return [
            Freedom(PERMUTATIONS, atom, tuple(n for n, own in parameters.items() if atom in own))
            for atom in _atoms(self._actions)
        ]

    def compatible(self, parts: Sequence[Freedom]) -> list[Freedom]:
        """Freedoms that may move together: of every product, shifts of one factor only."""
        kept: list[Freedom] = []
        for part in parts:
            if not any(self._meet(part, other) for other in kept):
                kept.append(part)
        return kept

    def _meet(self, part: Freedom, other: Freedom) -> bool:
        if part.kind != SHIFTS or other.kind != SHIFTS:
            return False
        pairs = (*self._torn, *(torn[::-1] for torn in self._torn))
        return any(part.free in one and other.free in two for one, two in pairs)

    def element(self, parts: Sequence[Freedom], generator: torch.Generator) -> Move:
        """A random element that moves these parts and nothing else."""
        values: dict[str, dict[Unknown, Tensor]] = {SCALES: {}, SIGNS: {}, SHIFTS: {}}
        permutations: dict[Atom, Tensor] = {}
        for part in parts:
            if isinstance(part.free, Atom):
                permutations[part.free] = _permutation(part.free, generator)
            else:
                sizes = self._actions.sizes(part.free)
                values[part.kind][part.free] = _random_values(part.kind, sizes, generator)
        return Move(values[SCALES], values[SIGNS], values[SHIFTS], permutations)


def _torn(actions: Actions) -> list[tuple[set[Unknown], set[Unknown]]]:
    def free_of(factor: Field) -> set[Unknown]:
        reduced = (actions.shifts.reduce(terms) for terms in factor.values())
        return {term.unknown for terms in reduced for term in terms}

    return [(free_of(one), free_of(other)) for one, other in actions.conflicts]


def _atoms(actions: Actions) -> list[Atom]:
    values = [*actions.trace.parameters.values(), *actions.trace.values.values()]
    every = chain.from_iterable(atoms(axis) for value in values for axis in flat_axes(value))
    return [a for a in dict.fromkeys(every) if not a.fixed and a.size > 1]


def _random_values(kind: str, sizes: list[int], generator: torch.Generator) -> Tensor:
    if kind == SIGNS:
        flips = torch.randint(2, sizes, generator=generator).double()
        return flips if bool(flips.any()) else 1 - flips
    size = 0.7 if kind == SCALES else 1.3
    return size * torch.randn(sizes, generator=generator, dtype=torch.float64)


def _permutation(atom: Atom, generator: torch.Generator) -> Tensor:
    sizes = [parent.size for parent in parents(atom)]
    while True:
        table = torch.rand([*sizes, atom.size], generator=generator).argsort(-1)
        if not bool((table == torch.arange(atom.size)).all()):
            return table
