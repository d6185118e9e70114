"""Scale symmetry as dimensional analysis (design: give every neuron a unit, balance the equations).

A value's unit is a product of powers of unknown scales, one unknown per parameter and end. Powers
of magnitudes are rational, powers of signs count modulo 2, so there are two homogeneous linear
systems. What remains free after all operations have stated their equations is a scale symmetry.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from gmn.spec import Port

from .axes import Atom


@dataclass(frozen=True, eq=False)
class Unknown:
    """One unknown scale for every index of its atoms.

    Attributes:
        atoms: what it varies over.
        parameter: the parameter it scales, if it belongs to one.
        port: the end of the parameter that it belongs to.
        term: the term of that end's axis, where it is a concatenation.
        phase: whether it is the parity of a phase, which something beside scales has to follow.
    """

    atoms: frozenset[Atom]
    parameter: str | None = None
    port: Port = "both"
    term: int = 0
    phase: bool = False


Powers = Mapping[Unknown, Fraction]


@dataclass(frozen=True)
class Monomial:
    """Powers of unknown scales, for magnitudes and for signs."""

    magnitude: Powers = field(default_factory=dict)
    sign: Powers = field(default_factory=dict)

    def times(self, other: Monomial, power: int = 1) -> Monomial:
        """The product with a power of another monomial."""
        return Monomial(
            _add(self.magnitude, other.magnitude, power), _add(self.sign, other.sign, power)
        )

    def unknowns(self) -> set[Unknown]:
        """The unknowns that occur."""
        return {*self.magnitude, *self.sign}


class UnitMismatch(Exception):
    """Two values are concatenations in different ways; their units cannot be compared."""


@dataclass(frozen=True)
class Unit:
    """The unit of a value: one monomial, or one for every term of its concatenated dimension."""

    parts: tuple[Monomial, ...] = (Monomial(),)

    def pairs(self, other: Unit) -> list[tuple[Monomial, Monomial]]:
        """Corresponding parts; a value that is not a concatenation is the same in all of them.

        Raises:
            UnitMismatch: if both are concatenations of different numbers of terms.
        """
        count = max(len(self.parts), len(other.parts))
        if not {len(self.parts), len(other.parts)} <= {1, count}:
            raise UnitMismatch
        first, second = (u.parts * (count // len(u.parts)) for u in (self, other))
        return list(zip(first, second, strict=True))

    def __mul__(self, other: Unit) -> Unit:
        return Unit(tuple(a.times(b) for a, b in self.pairs(other)))

    def __truediv__(self, other: Unit) -> Unit:
        return Unit(tuple(a.times(b, -1) for a, b in self.pairs(other)))

    def __pow__(self, exponent: int) -> Unit:
        return Unit(tuple(Monomial().times(part, exponent) for part in self.parts))

    @property
    def magnitude(self) -> Unit:
        """The unit without its signs."""
        return Unit(tuple(Monomial(part.magnitude, {}) for part in self.parts))

    @property
    def sign(self) -> Unit:
        """The unit without its magnitudes."""
        return Unit(tuple(Monomial({}, part.sign) for part in self.parts))


ONE = Unit()


def of(*unknowns: Unknown) -> Unit:
    """The unit whose parts are these unknowns."""
    return Unit(tuple(Monomial({u: Fraction(1)}, {u: Fraction(1)}) for u in unknowns))


def _add(first: Powers, second: Powers, factor: int) -> Powers:
    result = dict(first)
    for unknown, power in second.items():
        result[unknown] = result.get(unknown, Fraction(0)) + factor * power
    return result


class System:
    """Homogeneous linear equations in unknowns, solved as they come.

    Args:
        modulus: 2 for signs, None for magnitudes.
    """

    def __init__(self, modulus: int | None = None) -> None:
        self._modulus = modulus
        self._solved: dict[Unknown, Powers] = {}

    def reduce(self, powers: Powers) -> dict[Unknown, Fraction]:
        """The powers in terms of unknowns that are still free."""
        result: dict[Unknown, Fraction] = {}
        stack = list(powers.items())
        while stack:
            unknown, power = stack.pop()
            if unknown in self._solved:
                stack.extend((u, p * power) for u, p in self._solved[unknown].items())
            else:
                result[unknown] = result.get(unknown, Fraction(0)) + power
        if self._modulus is not None:
            result = {u: p % self._modulus for u, p in result.items()}
        return {u: p for u, p in result.items() if p}

    def require(self, powers: Powers) -> None:
        """Adds the equation: the product of these powers is 1 at every index.

        It is solved for an unknown that varies over everything the others vary over. Where there
        is none, all of them are set to 1, which can lose symmetries but never invents one.
        """
        powers = self.reduce(powers)
        if not powers:
            return
        everything = frozenset(atom for unknown in powers for atom in unknown.atoms)
        pivots = [u for u in powers if u.atoms == everything and self._invertible(powers[u])]
        if not pivots:
            for unknown in powers:
                self._solved[unknown] = {}
            return
        pivot = max(enumerate(pivots), key=_preference)[1]
        self._solved[pivot] = {u: -p / powers[pivot] for u, p in powers.items() if u is not pivot}

    def _invertible(self, power: Fraction) -> bool:
        return power != 0 and (self._modulus is None or power % self._modulus == 1)


def _preference(candidate: tuple[int, Unknown]) -> tuple[bool, bool, int]:
    """Parities stay unknown as long as possible, scales of parameters longer than others."""
    number, unknown = candidate
    return not unknown.phase, unknown.parameter is None, number


class Balance:
    """The two systems of one network, and the statements that operations make about units."""

    def __init__(self) -> None:
        self._magnitudes = System()
        self._signs = System(modulus=2)

    def equal(self, first: Unit, second: Unit) -> None:
        """Both values carry the same unit, as the terms of a sum must."""
        for part in (first / second).parts:
            self._magnitudes.require(part.magnitude)
            self._signs.require(part.sign)

    def fix_magnitude(self, unit: Unit) -> None:
        """The magnitude may not change, as before tanh."""
        self.equal(unit.magnitude, ONE)

    def fix_sign(self, unit: Unit) -> None:
        """The sign may not change, as before ReLU."""
        self.equal(unit.sign, ONE)

    def fix(self, unit: Unit) -> None:
        """Nothing may change, as before GELU."""
        self.equal(unit, ONE)

    def restrict(self, unit: Unit, allowed: frozenset[Atom]) -> Unit:
        """The unit may vary over ``allowed`` only; returns it in unknowns that do."""
        for part in self._reduced(unit).parts:
            for unknown in part.unknowns():
                if not unknown.atoms <= allowed:
                    self.equal(of(unknown), of(Unknown(unknown.atoms & allowed)))
        return self._reduced(unit)

    def merge(self, unit: Unit) -> Unit:
        """All parts must be equal, as when the terms of a concatenation are treated alike."""
        for part in unit.parts[1:]:
            self.equal(Unit((part,)), Unit(unit.parts[:1]))
        return Unit(unit.parts[:1])

    def split(self, unit: Unit, atoms: frozenset[Atom]) -> tuple[Unit, Unit]:
        """The factors of a unit that vary over some of ``atoms``, and the others."""
        unit = self._reduced(unit)
        inside = Unit(tuple(_touching(part, atoms) for part in unit.parts))
        return inside, unit / inside

    def is_one(self, unit: Unit) -> bool:
        """Whether the equations leave no scale in the unit."""
        return not any(part.unknowns() for part in self._reduced(unit).parts)

    def _reduced(self, unit: Unit) -> Unit:
        return Unit(
            tuple(
                Monomial(self._magnitudes.reduce(p.magnitude), self._signs.reduce(p.sign))
                for p in unit.parts
            )
        )

    def solutions(
        self, unknowns: Iterable[Unknown]
    ) -> dict[str, dict[Unknown, dict[Unknown, Fraction]]]:
        """The free scales and what follows them.

        Returns:
            For ``"positive"`` and ``"sign"``: by free unknown, the power with which each of the
            given unknowns follows it.
        """
        result: dict[str, dict[Unknown, dict[Unknown, Fraction]]] = {}
        unknowns = list(unknowns)
        for domain, system in (("positive", self._magnitudes), ("sign", self._signs)):
            found: dict[Unknown, dict[Unknown, Fraction]] = {}
            for unknown in unknowns:
                for free, power in system.reduce({unknown: Fraction(1)}).items():
                    found.setdefault(free, {})[unknown] = power
            result[domain] = found
        return result


def _touching(part: Monomial, atoms: frozenset[Atom]) -> Monomial:
    return Monomial(
        {u: p for u, p in part.magnitude.items() if u.atoms & atoms},
        {u: p for u, p in part.sign.items() if u.atoms & atoms},
    )
