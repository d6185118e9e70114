"""Splits a value along its concatenated dimensions into cells of plain product axes.

Within a part every dimension is a product of atoms, so a place, a dimension and the number of an
atom in it, says where something runs. Atoms of one index are left out: nothing varies over them,
unless other inputs than the example may have more.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from .axes import Atom, Axis, Sum, atoms, resolve, size_of, terms
from .equations import Key, Place


@dataclass(frozen=True)
class Cell:
    """One part of a value.

    Attributes:
        key: the term of each dimension that has several.
        atoms: by dimension, its atoms of more than one index, major first.
    """

    key: Key
    atoms: tuple[tuple[Atom | Sum, ...], ...]

    @property
    def places(self) -> list[Place]:
        """All places, major first."""
        return [(dim, k) for dim, factors in enumerate(self.atoms) for k in range(len(factors))]

    def atom(self, place: Place) -> Atom | Sum:
        """The atom at a place."""
        return self.atoms[place[0]][place[1]]


def cells(axes: Sequence[Axis]) -> list[Cell]:
    """The parts of a value, in order.

    A value that is taken apart along one of its dimensions later counts as the concatenation of its
    parts: each index of that dimension is a part.
    """
    stacks = {a.stack for axis in axes for a in atoms(axis) if a.stack is not None}
    choices = [list(_choices(axis, stacks)) for axis in axes]
    result = []
    for combination in itertools.product(*(range(len(options)) for options in choices)):
        picked = [options[n] for options, n in zip(choices, combination, strict=True)]
        taken = {outer: index for _, outer_at in picked for outer, index in outer_at}
        key = tuple((d, n) for d, n in enumerate(combination) if len(choices[d]) > 1)
        result.append(Cell(key, tuple(_large(_copied(a, taken)) for a, _ in picked)))
    return result


def _choices(
    axis: Axis, stacks: set[Atom]
) -> Iterator[tuple[list[Atom | Sum], list[tuple[Atom, int]]]]:
    """The terms of a dimension; one for every index of an atom along which it is taken apart."""
    for term in terms(axis):
        outer = [f for f in term if isinstance(f, Atom) and f in stacks]
        rest = [f for f in term if f not in outer]
        for indices in itertools.product(*(range(f.size) for f in outer)):
            yield rest, list(zip(outer, indices, strict=True))


def _copied(factors: Iterable[Atom | Sum], taken: dict[Atom, int]) -> Iterator[Atom | Sum]:
    for factor in factors:
        if isinstance(factor, Atom) and factor.stack in taken:
            yield from resolve((factor.copies[taken[factor.stack]],))
        else:
            yield factor


def _large(factors: Iterable[Atom | Sum]) -> tuple[Atom | Sum, ...]:
    return tuple(f for f in factors if f.size > 1 or (isinstance(f, Atom) and f.example))


def is_small(axis: Axis) -> bool:
    """Whether the dimension has one index for every input, not only in the example."""
    return size_of(axis) <= 1 and not any(atom.example for atom in atoms(axis))
