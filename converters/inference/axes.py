"""Axes of traced values and their unification: which dimensions share an index set.

Every dimension is a product of *atoms*, index sets on which one permutation acts; concatenation
adds sums of such products. Operations equate dimensions (an addition joins both sides), split them
(a reshape into heads and units), or fix them (an operation that tells positions apart). What is
left free at the end may be permuted.

An atom made by splitting may have a permutation of its own for every index of its sibling: it is
*within* it. That freedom is lost wherever a value has the child without the parent.
"""

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TypeAlias

Axis: TypeAlias = "tuple[Atom | Sum, ...]"


class Atom:
    """An index set; a variable of the unification.

    Attributes:
        size: number of indices.
        fixed: why its indices may not move; None while they may.
        position: whether its indices are places of a feature map, not neurons.
        unmatched: whether it stood in an axis that could not be matched with another.
        roles: subset of {"input", "output"}.
        example: whether it is a dimension of an input that has one index in the example.
        within: atoms it may depend on, if every value that has it has them too.
        siblings: atoms that it was split from; together they number what was one index set.
        halves: for the outer part of a split, the atom that was split and the inner part.
        shared: whether it was joined with another index set since it was made.
        copies: for the inner part, the axes that take its place at each outer index, once values
            are taken apart along the outer part.
        stack: the outer part that the copies belong to.
        binding: the axis it turned out to be; None while it is a root.
    """

    def __init__(self, size: int, fixed: str | None = None) -> None:
        self.size = size
        self.fixed = fixed
        self.position = False
        self.unmatched = False
        self.roles: set[str] = set()
        self.example = False
        self.within: set[Atom] = set()
        self.siblings: set[Atom] = set()
        self.halves: tuple[Atom, Atom] | None = None
        self.shared = False
        self.copies: list[Atom] = []
        self.stack: Atom | None = None
        self.binding: Axis | None = None


@dataclass(frozen=True)
class Sum:
    """Disjoint union of axes: the dimension of a concatenation."""

    terms: tuple[Axis, ...]

    @property
    def size(self) -> int:
        """Total number of indices."""
        return sum(size_of(term) for term in self.terms)


def size_of(axis: Axis) -> int:
    """Number of indices of an axis."""
    return math.prod(factor.size for factor in axis)


def resolve(axis: Axis) -> Axis:
    """The axis in terms of root atoms, nested products flattened."""
    result: list[Atom | Sum] = []
    for factor in axis:
        if isinstance(factor, Sum):
            result.append(_resolve_sum(factor))
        elif factor.binding is None:
            result.append(factor)
        else:
            result.extend(resolve(_follow(factor)))
    return tuple(result)


def _follow(atom: Atom) -> Axis:
    """The end of a chain of bound atoms, with path compression.

    A residual stream is one chain through all layers. Links to products stay: taking values apart
    rebinds those.
    """
    while (second := _whole_binding(atom)) and (third := _whole_binding(second)):
        atom.binding = (third,)
        atom = third
    return (atom,) if atom.binding is None else atom.binding


def _whole_binding(atom: Atom) -> Atom | None:
    """The atom that this one is bound to, if it is just one."""
    axis = atom.binding
    return axis[0] if axis and len(axis) == 1 and isinstance(axis[0], Atom) else None


def _resolve_sum(factor: Sum) -> Sum:
    terms: list[Axis] = []
    for term in map(resolve, factor.terms):
        if len(term) == 1 and isinstance(term[0], Sum):
            terms.extend(term[0].terms)
        else:
            terms.append(term)
    return Sum(tuple(terms))


def terms(axis: Axis) -> list[Axis]:
    """The products of which the axis is a concatenation, nested ones included; often just one."""
    result: list[Axis] = [()]
    for factor in resolve(axis):
        choices: list[Axis] = [(factor,)]
        if isinstance(factor, Sum):
            choices = [part for term in factor.terms for part in terms(term)]
        result = [(*head, *choice) for head in result for choice in choices]
    return result


def atoms(axis: Axis) -> Iterator[Atom]:
    """Root atoms of an axis, in order, sums included."""
    for factor in resolve(axis):
        if isinstance(factor, Atom):
            yield factor
        else:
            for term in factor.terms:
                yield from atoms(term)


def without(axis: Axis, gone: set[Atom]) -> Axis:
    """The axis less some of its root atoms."""
    kept: list[Atom | Sum] = []
    for factor in resolve(axis):
        if isinstance(factor, Sum):
            kept.append(Sum(tuple(without(term, gone) for term in factor.terms)))
        elif factor not in gone:
            kept.append(factor)
    return tuple(kept)


def repeated(axes: Iterable[Axis]) -> frozenset[Atom]:
    """Root atoms that occur in two dimensions of one value, which makes them ambiguous."""
    counts: Counter[Atom] = Counter()
    for axis in axes:
        most: Counter[Atom] = Counter()
        for term in terms(axis):
            most |= Counter(factor for factor in term if isinstance(factor, Atom))
        counts += most
    return frozenset(atom for atom, count in counts.items() if count > 1 and atom.size > 1)


def fix(axis: Axis, reason: str) -> None:
    """Forbids permutations of everything the axis ranges over."""
    for atom in atoms(axis):
        atom.fixed = atom.fixed or reason
        for copy in atom.copies:
            fix((copy,), reason)


def _give_up(axis: Axis, reason: str) -> None:
    """Fixes axes that could not be matched: neither permutations nor scales by their indices."""
    fix(axis, reason)
    for atom in atoms(axis):
        atom.unmatched = True


def mark_position(axis: Axis) -> None:
    """Marks an axis as positions of a feature map."""
    for atom in atoms(axis):
        atom.position = True


def unify(first: Axis, second: Axis, reason: str) -> None:
    """Makes two axes of equal size range over the same things in the same order.

    Where their structures cannot be matched, both become fixed.

    Args:
        first: one axis.
        second: the other.
        reason: what to report if they have to be fixed.

    Raises:
        ValueError: if the sizes differ.
    """
    if size_of(first) != size_of(second):
        raise ValueError(f"{reason}: axes of size {size_of(first)} and {size_of(second)}")
    left, right = list(resolve(first)), list(resolve(second))
    if size_of(first) == 1:
        _unify_ones(left, right)
        return
    for one, other in ((left, right), (right, left)):
        if len(one) == 1 and isinstance(one[0], Atom) and one[0] not in atoms(tuple(other)):
            _bind(one[0], tuple(other))
            for atom in atoms(tuple(other)):
                atom.shared = True
                if atom.copies:
                    fix((atom,), "taken apart, then joined")
            return
    while left or right:
        left, right = _drop_ones(left), _drop_ones(right)
        if not left or not right:
            return
        a, b = left[0], right[0]
        if a.size == b.size:
            _unify_factors(a, b, reason)
            left, right = list(resolve(tuple(left[1:]))), list(resolve(tuple(right[1:])))
            continue
        longer, shorter = (left, right) if a.size > b.size else (right, left)
        pieces = _split(longer[0], shorter[0].size, reason)
        if pieces is None:
            _give_up((*left, *right), reason)
            return
        longer[:] = [*pieces, *longer[1:]]
        left, right = list(resolve(tuple(left))), list(resolve(tuple(right)))


def _drop_ones(factors: list[Atom | Sum]) -> list[Atom | Sum]:
    return [factor for factor in factors if factor.size > 1]


def _unify_ones(left: list[Atom | Sum], right: list[Atom | Sum]) -> None:
    first = next((a for a in left if isinstance(a, Atom)), None)
    second = next((b for b in right if isinstance(b, Atom)), None)
    if first is not None and second is not None:
        _merge(first, second)


def _unify_factors(a: Atom | Sum, b: Atom | Sum, reason: str) -> None:
    if isinstance(a, Atom) and isinstance(b, Atom):
        _merge(a, b)
    elif isinstance(a, Sum) and isinstance(b, Sum):
        _unify_sums(list(a.terms), list(b.terms), reason)
    else:
        atom, union = (a, b) if isinstance(a, Atom) else (b, a)
        assert isinstance(atom, Atom)
        if atom in atoms((union,)):
            _give_up((union,), reason)
        else:
            _bind(atom, (union,))


def _unify_sums(left: list[Axis], right: list[Axis], reason: str) -> None:
    while left and right:
        a, b = size_of(left[0]), size_of(right[0])
        if a == b:
            unify(left.pop(0), right.pop(0), reason)
            continue
        longer, shorter = (left, right) if a > b else (right, left)
        pieces = cut(longer[0], [min(a, b), abs(a - b)], reason)
        if pieces is None:
            _give_up(tuple(f for term in (*left, *right) for f in term), reason)
            return
        longer[:1] = pieces
        assert shorter


def cut(axis: Axis, sizes: list[int], reason: str) -> list[Axis] | None:
    """Cuts an axis into consecutive parts, as ``split`` and ``chunk`` do.

    Args:
        axis: the axis; atoms in it are refined into sums where needed.
        sizes: lengths of the parts; they add up to the axis' size.
        reason: what to report if something has to be fixed.

    Returns:
        One axis per part, or None if a part boundary falls inside the rows of a product; the
        axis is then fixed.
    """
    axis = resolve(axis)
    if len(axis) == 1 and isinstance(axis[0], Sum):
        return _cut_sum(list(axis[0].terms), sizes, reason)
    if not axis:
        return None
    major, minor = axis[0], axis[1:]
    inner = size_of(minor)
    if any(size % inner for size in sizes):
        _give_up(axis, reason)
        return None
    if isinstance(major, Sum):
        parts = _cut_sum(list(major.terms), [size // inner for size in sizes], reason)
    else:
        pieces = [Atom(size // inner) for size in sizes]
        for piece in pieces:
            _inherit(piece, major)
        parts = [(piece,) for piece in pieces]
        _bind(major, (Sum(tuple(parts)),))
    return None if parts is None else [(*part, *minor) for part in parts]


def _cut_sum(terms: list[Axis], sizes: list[int], reason: str) -> list[Axis] | None:
    parts: list[Axis] = []
    for size in sizes:
        part: list[Axis] = []
        while size:
            head = terms[0]
            if size_of(head) > size:
                pieces = cut(head, [size, size_of(head) - size], reason)
                if pieces is None:
                    return None
                terms[:1] = pieces
                continue
            part.append(terms.pop(0))
            size -= size_of(part[-1])
        parts.append(part[0] if len(part) == 1 else (Sum(tuple(part)),))
    return parts


def regroup(axes: Iterable[Axis], shape: Iterable[int], reason: str) -> list[Axis]:
    """The axes of a value after ``view``: the same factors, dealt out to new dimensions.

    Args:
        axes: axes before, major first.
        shape: sizes after.
        reason: what to report if something has to be fixed.

    Returns:
        One axis per new dimension.
    """
    before, shape = [resolve(axis) for axis in axes], list(shape)
    unclear = _unclear(before, shape)
    everything = tuple(factor for axis in before for factor in axis)
    queue = [f for f in everything if not unclear or f.size > 1 or not _is_example(f)]
    result: list[Axis] = []
    for size in shape:
        dim: list[Atom | Sum] = []
        while math.prod(f.size for f in dim) < size:
            room = size // math.prod(f.size for f in dim)
            factor = queue.pop(0)
            if factor.size <= room and room % factor.size == 0:
                dim.append(factor)
                continue
            pieces = _split(factor, room, reason) if factor.size > room else None
            if pieces is None:
                _give_up(everything, reason)
                return [fixed(size, reason) for size in shape]
            queue[:0] = resolve(pieces)
        if size == 1 and queue and queue[0].size == 1:
            dim.append(queue.pop(0))
        result.append(tuple(dim) or fixed(1, reason))
    return [
        axis if unclear.isdisjoint(range(start, start * size_of(axis) + 1)) else (*axis, _example())
        for start, axis in zip(_starts(result), result, strict=True)
    ]


def _unclear(before: Sequence[Axis], after: Sequence[int]) -> set[int]:
    """Where dimensions of one index lie that other inputs have more of, if sizes do not tell them.

    A place is the product of all sizes before. Such a dimension is clear if all of one index that
    lie at its place remain.
    """
    sizes = [size_of(axis) for axis in before]
    if not any(_is_example(f) for axis in before for f in axis):
        return set()
    ends = [*accumulate(after, operator.mul, initial=1)]
    kept = Counter(start for start, size in zip(ends, after, strict=False) if size == 1)
    whole = set(zip(ends, after, strict=False))
    had = Counter(p for p, size in zip(_starts(before), sizes, strict=True) if size == 1)
    return {
        start
        for start, axis in zip(_starts(before), before, strict=True)
        if any(map(_is_example, axis))
        and (
            had[start] != kept[start] if size_of(axis) == 1 else (start, size_of(axis)) not in whole
        )
    }


def _starts(axes: Sequence[Axis]) -> list[int]:
    return [*accumulate(map(size_of, axes), operator.mul, initial=1)][:-1]


def _is_example(factor: Atom | Sum) -> bool:
    return isinstance(factor, Atom) and factor.size == 1 and factor.example


def _example() -> Atom:
    atom = Atom(1, "the example has one index where other inputs may have several")
    atom.example = True
    return atom


def fixed(size: int, reason: str) -> Axis:
    """A new axis whose indices may not move."""
    return (Atom(size, reason),)


def _split(factor: Atom | Sum, major: int, reason: str) -> Axis | None:
    """The factor as (major, rest), or None if that is impossible."""
    if factor.size % major:
        return None
    if isinstance(factor, Sum):
        return _split_sum(factor, major, reason)
    outer, inner = Atom(major), Atom(factor.size // major)
    for child in (outer, inner):
        _inherit(child, factor)
    inner.within = {outer} | factor.within
    outer.halves = (factor, inner)
    _bind(factor, (outer, inner))
    return (outer, inner)


def _split_sum(factor: Sum, major: int, reason: str) -> Axis | None:
    """Every part as (its share of major, rest), if all have whole shares and more than one each."""
    parts, minor = factor.terms, factor.size // major
    shares = [size_of(part) // minor for part in parts]
    if all(size_of(part) % minor == 0 for part in parts) and max(shares) > 1:
        halves = [
            regroup([part], (n, minor), reason) for part, n in zip(parts, shares, strict=True)
        ]
        for _, rest in halves[1:]:
            unify(halves[0][1], rest, reason)
        return (Sum(tuple(outer for outer, _ in halves)), *resolve(halves[0][1]))
    if len({size_of(part) for part in parts}) > 1:
        return None
    for part in parts[1:]:
        unify(parts[0], part, reason)
    return (Atom(len(parts), reason), *resolve(parts[0]))


def _inherit(child: Atom, parent: Atom) -> None:
    child.fixed, child.position = parent.fixed, parent.position
    child.unmatched = parent.unmatched
    child.roles = set(parent.roles)
    child.within = set(parent.within)


def _bind(atom: Atom, axis: Axis) -> None:
    if atom.copies:
        fix((atom,), "taken apart, then joined")
    atom.binding = axis
    if atom.fixed:
        fix(axis, atom.fixed)
    outer: set[Atom] = set()
    for part in atoms(axis):
        part.position |= atom.position
        part.unmatched |= atom.unmatched
        part.roles |= atom.roles
        part.example |= atom.example
    for factor in resolve(axis):
        # What was one free index set lets inner factors move on their own for each outer index.
        own = set(atoms((factor,)))
        for part in own:
            part.within |= outer | atom.within
        outer |= own if isinstance(factor, Atom) else set()


def _merge(a: Atom, b: Atom) -> None:
    if a is b:
        return
    for one in (a, b):
        one.shared = True
        if one.copies:
            fix((one,), "taken apart, then joined")
    b.binding = (a,)
    a.fixed = a.fixed or b.fixed
    a.position |= b.position
    a.unmatched |= b.unmatched
    a.roles |= b.roles
    a.example |= b.example
    a.within |= b.within
