"""Homogeneous linear equations between functions on index sets: scales, signs and shifts.

An unknown is a function on some dimensions of an entry of the state dict, one number per index. How
a value transforms is a sum of terms: unknowns, each with the dimensions of the value that it runs
over. Terms that run over different dimensions are different functions, so each kind of them must
vanish by itself.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
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


# Coefficients of unknowns, each with the slots of another one that its own slots run over.
Expression: TypeAlias = "dict[tuple[Unknown, tuple[int, ...]], Fraction | int]"


class Maps:
    """Numbers for the linear maps that values make of unknowns."""

    def __init__(self) -> None:
        self._numbers: dict[Hashable, int] = {}

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
            own = term.mixed or term.at
            number = self._numbers.setdefault((own, how), len(self._numbers) + 1)
            at = tuple(sorted({*term.at, *also}))
            result[Term(term.unknown, at, number)] = coefficient
        return result


class System:
    """Equations, solved as they come.

    Args:
        modulus: 2 for signs, None for numbers.
    """

    def __init__(self, modulus: int | None = None) -> None:
        self._modulus = modulus
        # What a solved unknown is: coefficients of others, with the slot of it that each slot of
        # theirs runs over.
        self._solved: dict[Unknown, Expression] = {}
        self._order: dict[Unknown, int] = {}
        self._indirect: dict[tuple[int, Unknown, Unknown, tuple[int, ...]], int] = {}

    def declare(self, unknown: Unknown) -> None:
        """Enters an unknown; later ones are expressed by earlier ones."""
        self._order.setdefault(unknown, len(self._order))

    def reduce(self, terms: Terms) -> Terms:
        """The terms, by unknowns that are still free."""
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
            for (unknown, slots), factor in solved.items():
                at = term.at if term.mixed else tuple(term.at[slot] for slot in slots)
                mixed = term.mixed and self._through(term, unknown, slots)
                stack.append((Term(unknown, at, mixed), coefficient * factor))
        return {t: c for t, c in result.items() if c}

    def _expression(self, unknown: Unknown) -> Expression | None:
        """What a solved unknown is, by unknowns that are still free; each look makes it shorter."""
        solved = self._solved.get(unknown)
        if solved is None or not any(other in self._solved for other, _ in solved):
            return solved
        result: Expression = {}
        for (other, slots), factor in solved.items():
            expression = self._expression(other)
            if expression is None:
                expression = {(other, tuple(range(len(slots)))): 1}
            for (free, inner), own in expression.items():
                key = free, tuple(slots[slot] for slot in inner)
                result[key] = result.get(key, 0) + factor * own
        self._solved[unknown] = {key: c for key, c in result.items() if c}
        return self._solved[unknown]

    def _through(self, term: Term, unknown: Unknown, slots: tuple[int, ...]) -> int:
        """The number of a map of an unknown that another one is expressed by; all negative."""
        key = term.mixed, term.unknown, unknown, slots
        return self._indirect.setdefault(key, -1 - len(self._indirect))

    def require(self, terms: Terms) -> None:
        """Adds the equation that the terms sum to nothing at every index."""
        terms = self.reduce(terms)
        for term in terms:
            if term.mixed:
                self._pin(term.unknown)
        while groups := self._groups(self.reduce(terms)):
            self._solve(groups[0])

    def _groups(self, terms: Terms) -> list[dict[Term, Fraction | int]]:
        """Terms by the places that they run over."""
        found: dict[frozenset[Place], dict[Term, Fraction | int]] = {}
        for term, coefficient in terms.items():
            found.setdefault(frozenset(term.at), {})[term] = coefficient
        return list(found.values())

    def _solve(self, group: Mapping[Term, Fraction | int]) -> None:
        """Expresses the latest unknown that occurs once; without one, all are nothing."""
        counts: dict[Unknown, int] = {}
        for term in group:
            counts[term.unknown] = counts.get(term.unknown, 0) + 1
        once = [t for t in group if counts[t.unknown] == 1 and len(set(t.at)) == len(t.at)]
        if not once or any(len(set(t.at)) < len(t.at) for t in group):
            for term in group:
                self._pin(term.unknown)
            return
        pivot = max(once, key=lambda t: (not t.unknown.phase, self._order[t.unknown]))
        own = -Fraction(group[pivot])
        self._solved[pivot.unknown] = {
            (term.unknown, tuple(pivot.at.index(place) for place in term.at)): _plain(c / own)
            for term, c in group.items()
            if term is not pivot
        }

    def _pin(self, unknown: Unknown) -> None:
        for term in self.reduce({Term(unknown, unknown.slots): 1}):
            self._solved[term.unknown] = {}

    def is_zero(self, terms: Terms) -> bool:
        """Whether the equations leave nothing of the terms."""
        return not self.reduce(terms)

    def solutions(self) -> dict[Unknown, list[tuple[Unknown, tuple[int, ...], Fraction | int]]]:
        """What follows each unknown that is free.

        Returns:
            By free unknown: every unknown that follows it, for each of the free one's slots the
            slot of the follower that runs with it, and the coefficient.
        """
        found: dict[Unknown, list[tuple[Unknown, tuple[int, ...], Fraction | int]]] = {}
        for unknown in self._order:
            reduced = self.reduce({Term(unknown, tuple((0, n) for n in _numbers(unknown))): 1})
            for term, coefficient in reduced.items():
                follows = tuple(place[1] for place in term.at)
                found.setdefault(term.unknown, []).append((unknown, follows, coefficient))
        return found


def _numbers(unknown: Unknown) -> range:
    return range(len(unknown.slots))


def _plain(number: Fraction) -> Fraction | int:
    return int(number) if number.denominator == 1 else number
