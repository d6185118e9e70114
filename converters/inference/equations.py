"""Homogeneous linear equations between functions on index sets: scales, signs and shifts.

An unknown is a function on some dimensions of an entry of the state dict, one number per index. How
a value transforms is a sum of terms: unknowns, each with the dimensions of the value that it runs
over. Terms that run over different dimensions are different functions, so each kind of them must
vanish by itself.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import NamedTuple, TypeAlias

# A dimension of a value, and which of its atoms, major first.
Place: TypeAlias = "tuple[int, int]"

# Which term of each concatenated dimension is meant: pairs of dimension and number.
Key: TypeAlias = "tuple[tuple[int, int], ...]"


@dataclass(frozen=True, eq=False)
class Unknown:
    """One number for every index of some dimensions of an entry.

    Attributes:
        entry: the entry's name.
        key: which terms of its concatenated dimensions.
        slots: the places of the entry that it runs over.
        phase: whether it is the parity of a phase, which something beside scales has to follow.
    """

    entry: str
    key: Key
    slots: tuple[Place, ...]
    phase: bool = False


class Term(NamedTuple):
    """An unknown in a value.

    Attributes:
        unknown: what it is.
        at: for every slot of the unknown, the place of the value where it runs; where values are
            mixed in, the places over which it may vary.
        mixed: 0, or the number of the linear map that values make of the unknown. Terms of one
            number and one unknown are the same function.
    """

    unknown: Unknown
    at: tuple[Place, ...]
    mixed: int = 0


Terms: TypeAlias = "Mapping[Term, Fraction | int]"


def add(first: Terms, second: Terms, factor: Fraction | int = 1) -> Terms:
    """The sum of the first terms and a multiple of the second."""
    if not second or not factor:
        return first
    if not first and factor == 1:
        return second
    result = dict(first)
    for term, coefficient in second.items():
        total = result.get(term, 0) + factor * coefficient
        if total:
            result[term] = total
        else:
            del result[term]
    return result


class Following(NamedTuple):
    """An unknown, or a linear map of it, as a function on the slots of another unknown.

    Attributes:
        unknown: what it is.
        slots: for every slot of the unknown, the other one's that it runs over; of a map of it,
            for every place where that varies.
        mixed: 0, or the number of the map.
    """

    unknown: Unknown
    slots: tuple[int, ...]
    mixed: int = 0


# Coefficients of unknowns, each as it follows another one.
Expression: TypeAlias = "dict[Following, Fraction | int]"


class MapStep(NamedTuple):
    """A linear map, as the last of several.

    Attributes:
        before: the number of the maps before it; 0 if it is the first.
        at: places of what it is applied to.
        how: what tells it from others.
    """

    before: int
    at: tuple[Place, ...]
    how: Hashable


@dataclass(frozen=True)
class Carrier:
    """A weight that a map sums over: a part of an entry, entry by entry as it is.

    Attributes:
        entry: the entry's name.
        key: which part of it.
        source: by place of what is mapped, the place of the entry that runs with it.
        target: likewise by place of the result; all other places of the entry are summed over.
    """

    entry: str
    key: Key
    source: tuple[Place, ...]
    target: tuple[Place, ...]


class Maps:
    """Numbers for the linear maps that values make of unknowns.

    A number stands for all steps from the unknown on, so terms of one number and one unknown are
    the same function, whichever way they came about.
    """

    def __init__(self) -> None:
        self._numbers: dict[MapStep, int] = {}
        self._steps: list[MapStep] = []
        self._carriers: dict[int, Carrier] = {}

    def mix(self, terms: Terms, how: Hashable, also: Iterable[Place] = ()) -> Terms:
        """The terms after a map was applied that varies over further places.

        Args:
            terms: functions of unknowns.
            how: what tells the map from others.
            also: where it varies.
        """
        also = tuple(also)
        result: dict[Term, Fraction | int] = {}
        for term, coefficient in terms.items():
            number = self._number(MapStep(term.mixed, term.at, how))
            at = tuple(sorted({*term.at, *also}))
            result[Term(term.unknown, at, number)] = coefficient
        return result

    def _number(self, step: MapStep) -> int:
        if step not in self._numbers:
            self._steps.append(step)
            self._numbers[step] = len(self._steps)
        return self._numbers[step]

    def last(self, number: int) -> MapStep:
        """The last step of a map."""
        return self._steps[number - 1]

    def after(self, number: int, first: int, slots: tuple[int, ...]) -> int:
        """The number of a map that is applied after another one, or after slots were reordered.

        Args:
            number: the later map, of some unknown.
            first: the earlier one; 0 for none.
            slots: for every place of what the earlier one gives, the unknown's slot that it is.
        """
        steps = [number]
        while before := self.last(steps[-1]).before:
            steps.append(before)
        result = first
        for depth, one in enumerate(reversed(steps)):
            step = self.last(one)
            at = step.at if depth else tuple(step.at[slot] for slot in slots)
            result = self._number(MapStep(result, at, step.how))
            if one in self._carriers:
                # A product, which is the first step, and a sum, which is the second.
                self._carriers[result] = _reordered(self._carriers[one], slots, depth == 1)
        return result

    def carry(self, number: int, carrier: Carrier) -> None:
        """Records that the last two steps of a map, product and sum, are those with a weight."""
        self._carriers[number] = carrier

    def before(self, number: int) -> int:
        """The number of a carried map without its last weight; 0 if there is no other."""
        return self.last(self.last(number).before).before

    def carriers(self, number: int) -> list[Carrier] | None:
        """The weights that a map consists of, the first one first; None if it has other parts."""
        result: list[Carrier] = []
        while number:
            carrier = self._carriers.get(number)
            if carrier is None:
                return None
            result.insert(0, carrier)
            number = self.before(number)
        return result


def _reordered(carrier: Carrier, slots: tuple[int, ...], first: bool) -> Carrier:
    if not first:
        return carrier
    return replace(carrier, source=tuple(carrier.source[slot] for slot in slots))


class System:
    """A system of linear equations that is solved as equations are added.

    Args:
        modulus: 2 for signs, None for numbers.
        maps: the maps of unknowns that terms may hold.
    """

    def __init__(self, modulus: int | None = None, maps: Maps | None = None) -> None:
        self._modulus = modulus
        self.maps = Maps() if maps is None else maps
        # What a solved unknown is, by others.
        self._solved: dict[Unknown, Expression] = {}
        self._order: dict[Unknown, int] = {}

    def declare(self, unknown: Unknown) -> None:
        """Enters an unknown; later ones are expressed by earlier ones."""
        self._order.setdefault(unknown, len(self._order))

    def reduce(self, terms: Terms) -> Terms:
        """The terms, by unknowns that are still free."""
        # Modulo 2, terms without a solved unknown still change: even coefficients vanish.
        if not terms or (
            self._modulus is None and all(t.unknown not in self._solved for t in terms)
        ):
            return terms
        result: dict[Term, Fraction | int] = {}
        stack = list(terms.items())
        while stack:
            term, coefficient = stack.pop()
            solved = self._expression(term.unknown)
            if solved is None:
                total = result.get(term, 0) + coefficient
                result[term] = total if self._modulus is None else total % self._modulus
                continue
            for (unknown, slots, mixed), factor in solved.items():
                if term.mixed:
                    number = self.maps.after(term.mixed, mixed, slots)
                    new = Term(unknown, term.at, number)
                else:
                    new = Term(unknown, tuple(term.at[slot] for slot in slots), mixed)
                stack.append((new, coefficient * factor))
        return {t: c for t, c in result.items() if c}

    def _expression(self, unknown: Unknown) -> Expression | None:
        """A solved unknown in terms of free ones, with path compression."""
        solved = self._solved.get(unknown)
        if solved is None or not any(other in self._solved for other, *_ in solved):
            return solved
        result: Expression = {}
        for following, factor in solved.items():
            expression = self._expression(following.unknown)
            if expression is None:
                result[following] = result.get(following, 0) + factor
                continue
            for inner, own in expression.items():
                key = self._chained(following, inner)
                result[key] = result.get(key, 0) + factor * own
        self._solved[unknown] = {key: c for key, c in result.items() if c}
        return self._solved[unknown]

    def _chained(self, outer: Following, inner: Following) -> Following:
        """What follows an unknown, by what that one follows."""
        if outer.mixed:
            number = self.maps.after(outer.mixed, inner.mixed, inner.slots)
            return Following(inner.unknown, outer.slots, number)
        slots = tuple(outer.slots[slot] for slot in inner.slots)
        return Following(inner.unknown, slots, inner.mixed)

    def require(self, terms: Terms) -> None:
        """Adds the equation that the terms sum to zero at every index.

        What values of the program make of a sum of terms vanishes if the sum does. Only weights
        are known as maps: an unknown may be what a weight makes of others.
        """
        for inner in self._unmapped(self.reduce(terms)):
            self.require(inner)
        for term in self.reduce(terms):
            if self._is_opaque(term):
                self._pin(term.unknown)
        while groups := self._groups(self.reduce(terms)):
            self._solve(groups[0])

    def _is_opaque(self, term: Term) -> bool:
        """Whether a term is an opaque map: only the dims it varies over are known."""
        if not term.mixed:
            return False
        carriers = self.maps.carriers(term.mixed)
        return carriers is None or len(carriers[-1].target) != len(term.at)

    def _unmapped(self, terms: Terms) -> list[Terms]:
        """By last map and places, the terms that opaque maps are applied to."""
        result: dict[tuple[Hashable, tuple[Place, ...]], Terms] = {}
        for term, coefficient in terms.items():
            if self._is_opaque(term):
                step = self.maps.last(term.mixed)
                inner: Terms = {Term(term.unknown, step.at, step.before): coefficient}
                key = step.how, term.at
                result[key] = add(result.get(key, {}), inner)
        return list(result.values())

    def _groups(self, terms: Terms) -> list[dict[Term, Fraction | int]]:
        """Terms by the places that they run over."""
        groups: dict[frozenset[Place], dict[Term, Fraction | int]] = {}
        for term, coefficient in terms.items():
            groups.setdefault(frozenset(term.at), {})[term] = coefficient
        return list(groups.values())

    def _solve(self, group: Mapping[Term, Fraction | int]) -> None:
        """Solves for the latest unknown that occurs once; if none does, all unknowns are zero."""
        counts: dict[Unknown, int] = {}
        for term in group:
            counts[term.unknown] = counts.get(term.unknown, 0) + 1
        once = [
            t
            for t in group
            if not t.mixed and counts[t.unknown] == 1 and len(set(t.at)) == len(t.at)
        ]
        # On a diagonal, a term is a function of fewer indices than its unknown has, so it does not
        # determine the unknown. To pin all of them gives up symmetries, but claims no false one.
        if not once or any(len(set(t.at)) < len(t.at) for t in group):
            for term in group:
                self._pin(term.unknown)
            return
        # Later unknowns follow earlier ones, so generators are named after the first weight that
        # they move. Parities stay free longest: phases are settled when all else is known.
        pivot = max(once, key=lambda t: (not t.unknown.phase, self._order[t.unknown]))
        own = -Fraction(group[pivot])
        self._solved[pivot.unknown] = {
            Following(
                term.unknown, tuple(pivot.at.index(place) for place in term.at), term.mixed
            ): _plain(c / own)
            for term, c in group.items()
            if term is not pivot
        }

    def _pin(self, unknown: Unknown) -> None:
        # The unknown is zero only if the free ones that it follows are; an empty sum is zero.
        for term in self.reduce({Term(unknown, unknown.slots): 1}):
            self._solved[term.unknown] = {}

    def is_zero(self, terms: Terms) -> bool:
        """Whether the equations leave nothing of the terms."""
        return not self.reduce(terms)

    def is_free(self, unknown: Unknown) -> bool:
        """Whether no equation says what an unknown is."""
        return unknown not in self._solved

    def order(self, unknown: Unknown) -> int:
        """How many unknowns were entered before."""
        return self._order[unknown]

    def solutions(self) -> dict[Unknown, list[tuple[Following, Fraction | int]]]:
        """What follows each unknown that is free.

        Returns:
            By free unknown: every unknown that follows it, for each of the free one's slots the
            slot of the follower that runs with it (of a map of the free one: for each place where
            that varies), and the coefficient.
        """
        result: dict[Unknown, list[tuple[Following, Fraction | int]]] = {}
        for unknown in self._order:
            reduced = self.reduce({Term(unknown, tuple((0, n) for n in _numbers(unknown))): 1})
            for term, coefficient in reduced.items():
                follows = tuple(place[1] for place in term.at)
                following = Following(unknown, follows, term.mixed)
                result.setdefault(term.unknown, []).append((following, coefficient))
        return result


def _numbers(unknown: Unknown) -> range:
    return range(len(unknown.slots))


def _plain(fraction: Fraction) -> Fraction | int:
    return int(fraction) if fraction.denominator == 1 else fraction
