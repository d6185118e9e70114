"""From solved equations to independent generators, each at the largest set of indices it may have.

A scale that may differ from neuron to neuron may also be the same for all of them. Such a generator
is part of the larger one and is not listed again; one that is no part of any other is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from .equations import Place, System, Unknown

# For every unknown that follows: the slot of it that runs with each slot of the free one, and the
# coefficient.
Followers = dict[tuple[Unknown, tuple[int, ...]], "Fraction | int"]


@dataclass(frozen=True)
class Generator:
    """One free unknown and all that follow it.

    Attributes:
        free: the unknown.
        terms: by follower, with its slots in the order of the free one's, the coefficient.
    """

    free: Unknown
    terms: Followers


def generators(system: System, modulus: int | None = None) -> list[Generator]:
    """The independent generators of a solved system, in the order of their unknowns.

    Args:
        system: the solved system.
        modulus: 2 if coefficients count modulo 2.
    """
    found: list[Generator] = []
    for free, followers in system.solutions().items():
        terms: Followers = {}
        for unknown, follows, coefficient in followers:
            terms[unknown, follows] = terms.get((unknown, follows), 0) + coefficient
        found.append(Generator(free, {k: c for k, c in terms.items() if c}))
    covered = _covered(found, modulus)
    largest = [generator for generator in found if generator.free not in covered]
    parts = [generator for generator in found if generator.free in covered]
    return _sparse(largest, parts, modulus)


def _sparse(
    found: list[Generator], parts: Sequence[Generator], modulus: int | None
) -> list[Generator]:
    """The same group by generators that move as little as possible: neighbours are subtracted."""
    holders: dict[Unknown, list[Generator]] = {}
    for generator in (*found, *parts):
        for unknown, _ in generator.terms:
            holders.setdefault(unknown, []).append(generator)
    result = []
    for generator in found:
        short: Generator | None = generator
        while short is not None:
            one, short = short, _shortened(short, holders, modulus)
        result.append(one)
    return result


def _shortened(
    one: Generator, holders: dict[Unknown, list[Generator]], modulus: int | None
) -> Generator | None:
    """One generator less a multiple of a neighbour, if that moves fewer edges."""
    shared: dict[Unknown, list[tuple[int, ...]]] = {}
    for unknown, own in one.terms:
        shared.setdefault(unknown, []).append(own)
    others = {id(g): g for unknown in shared for g in holders[unknown] if g.free is not one.free}
    for other in others.values():
        # Terms that only the other has are gained: at least half have to go.
        common = sum(unknown in shared for unknown, _ in other.terms)
        if len(one.free.slots) == len(other.free.slots) and 2 * common > len(other.terms):
            short = _shorter(one, other, shared, modulus)
            if short is not None:
                return short
    return None


def _shorter(
    one: Generator,
    other: Generator,
    shared: dict[Unknown, list[tuple[int, ...]]],
    modulus: int | None,
) -> Generator | None:
    """One generator less a multiple of another, if that moves fewer edges."""
    for (unknown, follows), coefficient in other.terms.items():
        for own in shared.get(unknown, ()):
            # Slots of the other in the order of this one's: both run with the shared follower.
            order = [follows.index(slot) for slot in own]
            factor = Fraction(one.terms[unknown, own]) / Fraction(coefficient)
            terms = dict(one.terms)
            for (u, f), c in other.terms.items():
                key = u, tuple(f[k] for k in order)
                terms[key] = terms.get(key, 0) - factor * c
                if modulus is not None:
                    terms[key] = terms[key] % modulus
            terms = {k: c for k, c in terms.items() if c}
            if len(terms) < len(one.terms):
                return Generator(one.free, terms)
    return None


def _covered(found: Sequence[Generator], modulus: int | None) -> set[Unknown]:
    """Free unknowns of generators that are parts of larger ones, by elimination."""
    lookup = {_name(g.free): g.free for g in found}
    rows: dict[Unknown, dict[Unknown, Fraction]] = {}
    for generator in sorted(found, key=lambda g: -len(g.free.slots)):
        if generator.free in rows:
            continue
        for slots in _proper_subsets(len(generator.free.slots)):
            row = _eliminated(_restricted(generator, slots, lookup), rows, modulus)
            if row:
                pivot = next(iter(row))
                rows[pivot] = {u: c / row[pivot] for u, c in row.items()}
    return set(rows)


def _eliminated(
    row: dict[Unknown, Fraction], rows: dict[Unknown, dict[Unknown, Fraction]], modulus: int | None
) -> dict[Unknown, Fraction]:
    changed = True
    while changed:
        changed = False
        for pivot in list(row):
            if pivot in rows:
                factor = row[pivot]
                for unknown, coefficient in rows[pivot].items():
                    row[unknown] = row.get(unknown, Fraction(0)) - factor * coefficient
                if modulus is not None:
                    row = {u: c % modulus for u, c in row.items()}
                row = {u: c for u, c in row.items() if c}
                changed = True
                break
    return row


def _restricted(
    generator: Generator, slots: Sequence[int], lookup: dict[tuple[object, ...], Unknown]
) -> dict[Unknown, Fraction]:
    """What a generator is of free unknowns once it no longer varies over its other slots."""
    row: dict[Unknown, Fraction] = {}
    for (unknown, follows), coefficient in generator.terms.items():
        kept = tuple(sorted(unknown.slots[follows[slot]] for slot in slots))
        free = lookup.get((unknown.entry, unknown.key, kept, unknown.phase))
        if free is not None:
            row[free] = row.get(free, Fraction(0)) + coefficient
    return {u: c for u, c in row.items() if c}


def _name(unknown: Unknown) -> tuple[object, ...]:
    return unknown.entry, unknown.key, tuple(sorted(unknown.slots)), unknown.phase


def _proper_subsets(count: int) -> Iterator[tuple[int, ...]]:
    for mask in range(2**count - 1):
        yield tuple(n for n in range(count) if mask >> n & 1)


def places_of(unknown: Unknown, follows: Sequence[int]) -> tuple[Place, ...]:
    """For every slot of the free unknown, the place of a follower's entry that runs with it."""
    return tuple(unknown.slots[slot] for slot in follows)
