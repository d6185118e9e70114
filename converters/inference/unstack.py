"""Separates values along a dimension made by a reshape, such as packed queries, keys, values."""

from __future__ import annotations

from collections.abc import Sequence

from .axes import Atom, Axis, Sum, fix, resolve, size_of


def unstack(axes: Sequence[Axis], dim: int, reason: str) -> list[list[Axis]]:
    """The axes of the values at every index of one dimension.

    Where that dimension is the outer part of a split (a packed weight viewed as 3 × units), what
    was split becomes a concatenation, and each value gets a term of its own.

    Args:
        axes: the axes of the value that is taken apart.
        dim: the dimension that goes.
        reason: what to report for the dimension, which is fixed.
    """
    rest = [resolve(axis) for d, axis in enumerate(axes) if d != dim]
    outer = resolve(axes[dim])
    size = size_of(outer)
    fix(outer, reason)
    if len(outer) != 1 or not isinstance(outer[0], Atom) or not _make_copies(outer[0]):
        return [list(rest) for _ in range(size)]
    stack = outer[0]
    return [[_at(axis, stack, index) for axis in rest] for index in range(size)]


def _make_copies(outer: Atom) -> bool:
    """Turns (outer, inner) into a concatenation of copies of inner; False if that is impossible."""
    if outer.halves is None:
        return False
    whole, inner = outer.halves
    parts = resolve((inner,))
    if any(isinstance(part, Atom) and part.stack is outer for part in parts):
        return True
    originals = [part for part in parts if isinstance(part, Atom)]
    free = all(not (part.fixed or part.shared or part.copies) for part in originals)
    if not free or len(originals) < len(parts) or resolve((whole,)) != (outer, *parts):
        return False
    for original in originals:
        original.stack = outer
        original.copies = [Atom(original.size) for _ in range(outer.size)]
    for index in range(outer.size):
        for original in originals:
            copy, inside = original.copies[index], original.within - {outer}
            copy.within = {p.copies[index] if p in originals else p for p in inside}
    terms = tuple(tuple(o.copies[index] for o in originals) for index in range(outer.size))
    whole.binding = (Sum(terms),)
    return True


def _at(axis: Axis, stack: Atom, index: int) -> Axis:
    return tuple(
        factor.copies[index] if isinstance(factor, Atom) and factor.stack is stack else factor
        for factor in axis
    )
