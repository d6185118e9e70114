"""Reduces solved equations to independent generators, each over its largest index set.

A scale that may differ from neuron to neuron may also be the same for all of them. Such a generator
is part of the larger one and is not listed again; one that is no part of any other is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from .equations import Following, Maps, Place, System, Unknown

# For every unknown that follows: its slots that run with the free one's, and the coefficient.
Followers = dict[Following, "Fraction | int"]


@dataclass(frozen=True)
class Generator:
    """One free unknown and all that follow it.

    Attributes:
        free: the unknown.
        terms: by follower, with its slots in the order of the free one's (of the places where it
            varies, if weights carry the free one to it), the coefficient.
    """

    free: Unknown
    terms: Followers


def generators(system: System, modulus: int | None = None) -> list[Generator]:
    """The independent generators of a solved system, in the order of their unknowns.

    Args:
        system: the solved system.
        modulus: 2 if coefficients count modulo 2.
    """
    candidates: list[Generator] = []
    for free, followers in system.solutions().items():
        terms: Followers = {}
        for following, coefficient in followers:
            terms[following] = terms.get(following, 0) + coefficient
        candidates.append(Generator(free, {k: c for k, c in terms.items() if c}))
    covered = _covered(candidates, modulus)
    largest = [generator for generator in candidates if generator.free not in covered]
    parts = [generator for generator in candidates if generator.free in covered]
    if not any(following.mixed for generator in candidates for following in generator.terms):
        return _sparse(largest, parts, modulus)
    largest.sort(key=lambda generator: system.order(generator.free))
    return _step_by_step(_less_later(largest), parts, system.maps)


def _sparse(
    candidates: list[Generator], parts: Sequence[Generator], modulus: int | None
) -> list[Generator]:
    """The same group by generators that move as little as possible: neighbours are subtracted."""
    holders: Holders = {}
    for generator in (*candidates, *parts):
        _hold(holders, generator)
    result = []
    for generator in candidates:
        one = generator
        while (short := next(_shortened(one, holders, modulus), None)) is not None:
            one = short
        result.append(one)
    return result


def _less_later(candidates: Sequence[Generator]) -> list[Generator]:
    """The same group by generators less multiples of later ones, as long as they become shorter.

    Along a residual stream, what is added to the bias of one block is taken back by the next one,
    not by all that follow. Only later ones are subtracted, so none is lost.
    """
    later: Holders = {}
    result = []
    for generator in reversed(candidates):
        one = generator
        while short := min(_shortened(one, later), key=lambda g: len(g.terms), default=None):
            one = short
        result.append(one)
        _hold(later, generator)
    return result[::-1]


# By follower and the map that takes the free unknown to it, the generators that move it.
Holders = dict[tuple[Unknown, int], list[Generator]]


def _hold(holders: Holders, generator: Generator) -> None:
    for unknown, _, mixed in generator.terms:
        holders.setdefault((unknown, mixed), []).append(generator)


def _shortened(one: Generator, holders: Holders, modulus: int | None = None) -> Iterator[Generator]:
    """One generator less multiples of neighbours that make it move fewer edges."""
    shared: dict[tuple[Unknown, int], list[Following]] = {}
    for mine in one.terms:
        shared.setdefault((mine.unknown, mine.mixed), []).append(mine)
    others = {id(g): g for key in shared for g in holders.get(key, ()) if g.free is not one.free}
    for other in others.values():
        # Terms that only the other has are gained: at least half have to go.
        common = sum((unknown, mixed) in shared for unknown, _, mixed in other.terms)
        if len(one.free.slots) == len(other.free.slots) and 2 * common > len(other.terms):
            short = _shorter(one, other, shared, modulus)
            if short is not None:
                yield short


def _shorter(
    one: Generator,
    other: Generator,
    shared: dict[tuple[Unknown, int], list[Following]],
    modulus: int | None,
) -> Generator | None:
    for following, coefficient in other.terms.items():
        for mine in shared.get((following.unknown, following.mixed), ()):
            aligned = _aligned(other, following, mine)
            if aligned is None:
                continue
            factor = Fraction(one.terms[mine]) / Fraction(coefficient)
            terms = dict(one.terms)
            for key, c in aligned.items():
                terms[key] = terms.get(key, 0) - factor * c
                if modulus is not None:
                    terms[key] = terms[key] % modulus
            terms = {k: c for k, c in terms.items() if c}
            if len(terms) < len(one.terms):
                return Generator(one.free, terms)
    return None


def _aligned(other: Generator, shared: Following, mine: Following) -> Followers | None:
    """What follows another free unknown, in the order of this one's slots; None if none can say.

    Both run with a follower that they share.
    """
    if mine.mixed or any(following.mixed for following in other.terms):
        return other.terms if mine.slots == shared.slots else None
    order = [shared.slots.index(slot) for slot in mine.slots]
    return {Following(u, tuple(f[k] for k in order)): c for (u, f, _), c in other.terms.items()}


def _covered(candidates: Sequence[Generator], modulus: int | None) -> set[Unknown]:
    """Free unknowns of generators that are parts of larger ones, by elimination."""
    lookup = {_name(g.free): g.free for g in candidates}
    rows: dict[Unknown, dict[Unknown, Fraction]] = {}
    # Largest first: a scale per neuron contains the one that is alike for all neurons.
    for generator in sorted(candidates, key=lambda g: -len(g.free.slots)):
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
    for (unknown, follows, mixed), coefficient in generator.terms.items():
        if mixed:
            continue  # what a weight carries there is no unknown that is free
        kept = tuple(sorted(unknown.slots[follows[slot]] for slot in slots))
        free = lookup.get((unknown.entry, unknown.key, kept, unknown.phase))
        if free is not None:
            row[free] = row.get(free, Fraction(0)) + coefficient
    return {u: c for u, c in row.items() if c}


def _name(unknown: Unknown) -> tuple[object, ...]:
    return unknown.entry, unknown.key, tuple(sorted(unknown.slots)), unknown.phase


# --- maps of one weight each --------------------------------------------------------------------


def _step_by_step(
    candidates: list[Generator], parts: Sequence[Generator], maps: Maps
) -> list[Generator]:
    """The same group by generators whose numbers pass as few weights as possible.

    Of three linear layers in a row, what is added to the first bias is not made up for in the
    third, two weights on, but in the second.
    """
    return [_made_near(generator, (*candidates, *parts), maps) for generator in candidates]


def _made_near(one: Generator, others: Sequence[Generator], maps: Maps) -> Generator:
    while _weights(one.terms, maps):
        nearer = (_nearer(one, other, maps) for other in others if other.free is not one.free)
        near = next((candidate for candidate in nearer if candidate is not None), None)
        if near is None:
            break
        one = near
    return one


def _nearer(one: Generator, other: Generator, maps: Maps) -> Generator | None:
    """One generator minus a mapped other one, if its numbers then pass fewer weights."""
    for following, coefficient in one.terms.items():
        for before in _parts(following.mixed, maps):
            for theirs, own in other.terms.items():
                order = _order(following, before, theirs, maps)
                if order is None:
                    continue
                terms = dict(one.terms)
                factor = Fraction(coefficient) / Fraction(own)
                for each, c in other.terms.items():
                    key = _mapped(each, before, order, maps)
                    terms[key] = terms.get(key, 0) - factor * c
                terms = {key: c for key, c in terms.items() if c}
                if _weights(terms, maps) < _weights(one.terms, maps):
                    return Generator(one.free, terms)
    return None


def _parts(number: int, maps: Maps) -> Iterator[int]:
    """A carried map without its last weight, without its last two, and so on."""
    while number and (number := maps.before(number)):
        yield number


def _order(
    following: Following, before: int, theirs: Following, maps: Maps
) -> tuple[int, ...] | None:
    """Slots of another free unknown that a map, which is the first part of a follower's, gives.

    None if what is left of the follower's map is not that of the other unknown's follower.
    """
    if theirs.unknown is not following.unknown or theirs.slots != following.slots:
        return None
    if not theirs.mixed:
        return None
    first, rest = theirs.mixed, following.mixed
    while maps.last(first).before:
        first = maps.last(first).before
    while maps.last(rest).before != before:
        rest = maps.last(rest).before
    given, expected = maps.last(first).at, maps.last(rest).at
    if len(given) != len(expected) or set(given) != set(expected):
        return None
    order = tuple(given.index(place) for place in expected)
    return order if maps.after(theirs.mixed, before, order) == following.mixed else None


def _mapped(each: Following, before: int, order: tuple[int, ...], maps: Maps) -> Following:
    """A follower of an unknown, once that is what a map gives."""
    if each.mixed:
        return Following(each.unknown, each.slots, maps.after(each.mixed, before, order))
    return Following(each.unknown, tuple(each.slots[slot] for slot in order), before)


def _weights(terms: Followers, maps: Maps) -> int:
    """How many weights a generator's numbers pass after the first one."""
    passed = (len(maps.carriers(following.mixed) or ()) for following in terms)
    return sum(max(0, count - 1) for count in passed)


def _proper_subsets(count: int) -> Iterator[tuple[int, ...]]:
    for mask in range(2**count - 1):
        yield tuple(n for n in range(count) if mask >> n & 1)


def places_of(unknown: Unknown, follows: Sequence[int]) -> tuple[Place, ...]:
    """For every slot of the free unknown, the place of a follower's entry that runs with it."""
    return tuple(unknown.slots[slot] for slot in follows)
