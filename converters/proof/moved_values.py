"""Predicts every value of a run on transformed weights from a run on the original ones.

A value's type says how it follows: which factor and which summand each of its entries gets, and
where permutations put it. Two runs, one on the weights and one on the moved ones, then show the
first operation whose result is another than its type says: its rule is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..inference.actions import NOTHING, Action, Actions, Field
from ..inference.axes import Atom, Axis, Sum, atoms, resolve
from ..inference.cells import Cell
from ..inference.equations import Place, System, Term, Terms, Unknown
from ..inference.tracing import Value

# By atom: for every index of the atoms that it depends on, where each of its indices goes.
Permutations = Mapping[Atom, Tensor]


@dataclass(frozen=True)
class Move:
    """An element of the group that a trace found, before anything has a name.

    Numbers are given for free unknowns, one for every index of their slots; the others follow.

    Attributes:
        magnitudes: logarithms of positive factors.
        signs: parities, 0 or 1.
        shifts: what is added.
        permutations: by atom, the new place of each index; of one that depends on others, a tensor
            with their indices in front, in the order of :func:`parents`.
    """

    magnitudes: Mapping[Unknown, Tensor] = field(default_factory=dict)
    signs: Mapping[Unknown, Tensor] = field(default_factory=dict)
    shifts: Mapping[Unknown, Tensor] = field(default_factory=dict)
    permutations: Permutations = field(default_factory=dict)


@dataclass(frozen=True)
class ValuePart:
    """A part of a value: a product of atoms, and where it lies in the tensor.

    Attributes:
        cell: what it ranges over.
        indices: by dimension, the index in the tensor of each of its own indices, major first.
    """

    cell: Cell
    indices: tuple[Tensor, ...]

    @property
    def sizes(self) -> list[int]:
        """Sizes of its places."""
        return [self.cell.atom(place).size for place in self.cell.places]

    def of(self, value: Tensor) -> Tensor:
        """The part of a tensor, with one dimension for each place."""
        return value[self._index()].reshape(self.sizes)

    def write(self, value: Tensor, part: Tensor) -> None:
        """Overwrites the part of a tensor."""
        value[self._index()] = part.reshape([len(p) for p in self.indices])

    def _index(self) -> tuple[Tensor, ...]:
        rank = len(self.indices)
        return tuple(
            p.reshape([-1 if d == dim else 1 for d in range(rank)])
            for dim, p in enumerate(self.indices)
        )


def parents(atom: Atom) -> list[Atom]:
    """The atoms of more than one index that a permutation may depend on, in one order for all."""
    return sorted((p for p in atom.within if p.size > 1), key=id)


class Moved:
    """Predicts values of a run on transformed weights.

    Args:
        actions: how they transform; equations are solved.
        move: an element of the group.
        state: the entries of the state dict before it moves: weights carry on what is added.
    """

    def __init__(self, actions: Actions, move: Move, state: Mapping[str, Tensor]) -> None:
        self._actions = actions
        self._move = move
        self._state = state
        self._parts: dict[int, list[ValuePart]] = {}

    def entry(self, name: str, value: Tensor) -> Tensor:
        """What an entry of the state dict becomes."""
        action = self._actions.entries.get(name, NOTHING)
        axes = self._actions.trace.parameters[name]
        offset = self._actions.offsets.get(name, 0.0)
        return (
            self.value(action, axes, value + offset) - offset
            if offset
            else self.value(action, axes, value)
        )

    def value(self, action: Action, axes: Value, value: Tensor) -> Tensor:
        """What a value of the program becomes, as far as its type says; see :meth:`error`."""
        result = value.clone()
        if not value.numel():
            return result
        for part in self._parts_of(axes):
            predicted = self._scaled(action, part, part.of(value))
            part.write(result, self._permuted(part, predicted))
        return result

    def error(self, action: Action, axes: Value, before: Tensor, after: Tensor) -> float:
        """How far a value is from what its type says, relative to its largest entry.

        Where values of the program are mixed into a shift, all that is known of it is what it
        varies over: only what varies otherwise counts.

        Args:
            action: its type.
            axes: its dimensions.
            before: what it was.
            after: what it is.
        """
        if not before.numel():
            return 0.0
        if not is_number(before):
            expected = self.value(NOTHING, axes, before)
            return float((expected != after).any())
        finite = torch.cat([before.flatten(), after.flatten()])
        finite = finite[finite.isfinite()].abs()
        largest = float(finite.max()) if finite.numel() else 0.0
        worst = 0.0
        for part in self._parts_of(axes):
            old = part.of(before)
            predicted = self._scaled(action, part, old)
            actual = self._permuted(part, part.of(after), back=True)
            if bool((_kind(predicted) != _kind(actual)).any()):
                return math.inf
            difference = torch.where(predicted.isfinite(), actual - predicted, 0)
            for term in action.shift.get(part.cell.key, {}):
                if self._actions.maps.carriers(term.mixed) is None:
                    difference = _beside(difference, part.cell.places, term.at)
            if difference.numel():
                worst = max(worst, float(difference.abs().max()))
        return worst / largest if largest else worst

    # --- parts ----------------------------------------------------------------------------------

    def _parts_of(self, axes: Value) -> list[ValuePart]:
        result = self._parts.get(id(axes))
        if result is None:
            result = self._parts[id(axes)] = parts(self._actions, axes)
        return result

    def _scaled(self, action: Action, part: ValuePart, value: Tensor) -> Tensor:
        if not is_number(value):
            return value
        key = part.cell.key
        value = value * self._sum(action.magnitude, part, "magnitudes").exp()
        value = value * (1 - 2 * (self._sum(action.sign, part, "signs") % 2))
        return value + self._sum(action.shift, part, "shifts") if action.shift.get(key) else value

    def _sum(self, channel: Field, part: ValuePart, kind: str) -> Tensor:
        """The sum of the terms of a channel at every index; those of unknown maps are left out."""
        system: System = getattr(self._actions, kind)
        total = torch.zeros(part.sizes, dtype=torch.float64)
        terms: Terms = channel.get(part.cell.key, {})
        if kind == "shifts":
            total = total + self._half_periods(terms, part)
        values: Mapping[Unknown, Tensor] = getattr(self._move, kind)
        for term, coefficient in system.reduce(terms).items():
            if term.unknown not in values:
                continue
            added = self._carried(values[term.unknown], term)
            if added is not None:
                total = total + float(coefficient) * _spread(added, term, part)
        return total

    def _carried(self, values: Tensor, term: Term) -> Tensor | None:
        """The numbers of a term, after the weights on their way; None if those are not known."""
        carriers = self._actions.maps.carriers(term.mixed)
        for carrier in carriers or ():
            axes = self._actions.trace.parameters[carrier.entry]
            (part,) = [p for p in self._parts_of(axes) if p.cell.key == carrier.key]
            whole = self._actions.entries.get(carrier.entry, NOTHING)
            scales = replace(whole, shift={})  # nothing shifts both factors of a product
            weight = self._scaled(scales, part, part.of(self._state[carrier.entry])).double()
            places = part.cell.places
            source = [places.index(place) for place in carrier.source]
            target = [places.index(place) for place in carrier.target]
            ends = [*range(len(places))], values.double(), source, target
            values = torch.einsum(weight, *ends)
        return None if carriers is None else values

    def _half_periods(self, terms: Terms, part: ValuePart) -> Tensor:
        """What biases of a phase are shifted by where its parity is odd."""
        total = torch.zeros(part.sizes, dtype=torch.float64)
        steps = {shift: (parity, step) for parity, (shift, step) in self._actions.phases.items()}
        for term, coefficient in terms.items():
            if term.unknown not in steps or term.mixed:
                continue
            parity, step = steps[term.unknown]
            amount = torch.zeros(part.sizes, dtype=torch.float64)
            for own, c in self._actions.signs.reduce({Term(parity, term.at): 1}).items():
                if own.unknown in self._move.signs:
                    amount = amount + float(c) * _spread(self._move.signs[own.unknown], own, part)
            total = total + float(coefficient) * float(step) * math.pi * (amount % 2)
        return total

    def _permuted(self, part: ValuePart, value: Tensor, *, back: bool = False) -> Tensor:
        places = part.cell.places
        where = {part.cell.atom(place): n for n, place in enumerate(places)}
        # Children first: the permutation of a child goes by its parent's index before the move.
        order = sorted(range(len(places)), key=lambda n: -_depth(part.cell.atom(places[n])))
        for n in order if not back else reversed(order):
            atom = part.cell.atom(places[n])
            table = self._move.permutations.get(atom) if isinstance(atom, Atom) else None
            if table is not None:
                assert isinstance(atom, Atom)
                value = _moved_along(value, n, table, [where[p] for p in parents(atom)], back)
        return value


def _kind(value: Tensor) -> Tensor:
    """0 where a number is finite, others for NaN and the infinities."""
    if value.is_complex():
        return (~value.isfinite()).int()
    return value.isnan().int() + 2 * value.isposinf().int() + 3 * value.isneginf().int()


def _depth(factor: Atom | Sum) -> int:
    inner = parents(factor) if isinstance(factor, Atom) else []
    return 1 + max(map(_depth, inner), default=0)


def _moved_along(
    value: Tensor, dim: int, table: Tensor, outer: Sequence[int], back: bool
) -> Tensor:
    """Entries moved along a dimension to where a table says, for every index of others."""
    order = [*outer, dim]
    sizes = [value.shape[d] if d in order else 1 for d in range(value.dim())]
    permutation = [order.index(d) for d in sorted(order)]
    index = table.permute(permutation).reshape(sizes).expand(value.shape)
    return value.gather(dim, index) if back else torch.empty_like(value).scatter(dim, index, value)


def _spread(values: Tensor, term: Term, part: ValuePart) -> Tensor:
    """Numbers of an unknown at the places of a part where it runs."""
    places = part.cell.places
    at = [places.index(place) for place in term.at]
    letters = [chr(ord("a") + n) for n in range(len(places))]
    ones = [torch.ones(size, dtype=torch.float64) for size in part.sizes]
    equation = ",".join(["".join(letters[n] for n in at), *letters]) + "->" + "".join(letters)
    return torch.einsum(equation, values.double(), *ones)


def _beside(difference: Tensor, places: Sequence[Place], at: Sequence[Place]) -> Tensor:
    """The part of a difference that is not a function of some places alone."""
    others = [n for n, place in enumerate(places) if place not in at]
    return difference - difference.mean(dim=others, keepdim=True) if others else difference * 0


def parts(actions: Actions, axes: Value) -> list[ValuePart]:
    """The parts of a value with their places, in the order of its cells."""
    cells = actions.cells(axes)
    stacks = {a.stack for axis in axes for a in atoms(axis) if a.stack is not None}
    options = [_choices(axis, stacks) for axis in axes]
    return [
        ValuePart(cell, indices) for cell, indices in zip(cells, _products(options), strict=True)
    ]


def _products(options: Sequence[Sequence[Tensor]]) -> list[tuple[Tensor, ...]]:
    result: list[tuple[Tensor, ...]] = [()]
    for choices in options:
        result = [(*head, choice) for head in result for choice in choices]
    return result


def _choices(axis: Axis, stacks: set[Atom]) -> list[Tensor]:
    """The places of every term of a dimension; one for every index of an atom in ``stacks``."""
    result = []
    for factors, indices in _terms(axis):
        outer = [n for n, f in enumerate(factors) if isinstance(f, Atom) and f in stacks]
        rest = [n for n in range(len(factors)) if n not in outer]
        by_outer = indices.permute([*outer, *rest])
        count = math.prod(factors[n].size for n in outer)
        result += list(by_outer.reshape(count, -1))
    return result


def _terms(axis: Axis) -> list[tuple[tuple[Atom, ...], Tensor]]:
    """The products of which a dimension is a concatenation, with the place of every index."""
    result: list[tuple[tuple[Atom, ...], Tensor]] = [((), torch.zeros((), dtype=torch.long))]
    for factor in resolve(axis):
        own: list[tuple[tuple[Atom, ...], Tensor]] = []
        if isinstance(factor, Sum):
            start = 0
            for term in factor.terms:
                own += [(f, p + start) for f, p in _terms(term)]
                start += math.prod(f.size for f in term)
        else:
            own = [((factor,), torch.arange(factor.size))]
        result = [
            (
                (*head, *more),
                indices.reshape(*indices.shape, *[1] * len(more)) * factor.size + inner,
            )
            for head, indices in result
            for more, inner in own
        ]
    return result


def is_number(value: Tensor) -> bool:
    """Whether entries are real or complex numbers."""
    return value.is_floating_point() or value.is_complex()


def rounding(result: Tensor) -> float:
    """The rounding error to expect of a result of this type."""
    return 1e6 * torch.finfo(result.dtype).eps if is_number(result) else 0.0


def redrawn(value: Tensor, size: float, generator: torch.Generator) -> Tensor:
    """A random tensor of the same kind: whole numbers stay, what was positive is."""
    if not is_number(value) or not value.numel():
        return value
    drawn = size * torch.randn(value.shape, generator=generator, dtype=value.dtype)
    positive = not value.is_complex() and bool((value > 0).all())
    return drawn.abs() + 0.1 * size if positive else drawn
