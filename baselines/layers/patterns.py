"""Orbits of tensor entries under permutations of the axes: partitions of equal indices.

Entries of tensors lie in one orbit of the permutation group if the same ones of their indices are
equal: a partition of the axes, in which only axes of one name may share a block. Where an axis is
nested in others (units within heads), its indices can only be compared within the same parents.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations, permutations

Axes = tuple[str, ...]
Form = tuple[tuple[str, tuple[int, ...]], ...]


@dataclass(frozen=True)
class Feature:
    """The form of one feature: a tensor of shape (B, *sizes of the axes, channels).

    Attributes:
        axes: names of the axes; the same name is the same permutation everywhere. A name may
            repeat, as in a square weight of a residual stream.
        channels: number of channels, which no permutation touches.
        within: for every axis the indices in ``axes`` of those it is nested in: each of their
            indices has a permutation of its own. Empty if nothing is nested.

    Raises:
        ValueError: if ``within`` is neither empty nor as long as ``axes``.
    """

    axes: Axes
    channels: int
    within: tuple[tuple[int, ...], ...] = ()

    def __post_init__(self) -> None:
        if self.within and len(self.within) != len(self.axes):
            raise ValueError(f"{self}: one entry of within for every axis, or none at all")

    def parents(self, dim: int) -> tuple[int, ...]:
        """Indices of the axes that the axis at ``dim`` is nested in."""
        return self.within[dim] if self.within else ()


def pattern(feature: Feature) -> Feature:
    """The feature with other names of its axes: equal for those that differ in names alone."""
    names = {axis: str(index) for index, axis in enumerate(dict.fromkeys(feature.axes))}
    return replace(feature, axes=tuple(names[axis] for axis in feature.axes))


@dataclass(frozen=True)
class Reading:
    """A feature on some of its diagonals: axes in one block run together.

    Attributes:
        axes: name of each block's axis.
        dims: dims of the feature that belong to each block; blocks are sorted by the first.
        within: for every block those it is nested in.
    """

    axes: Axes
    dims: tuple[tuple[int, ...], ...]
    within: tuple[tuple[int, ...], ...]

    @property
    def is_whole(self) -> bool:
        """Whether this is the feature itself, on no diagonal."""
        return all(len(dims) == 1 for dims in self.dims)

    def form(self, blocks: tuple[int, ...]) -> Form:
        """What permutations see of some blocks, in this order: axes, and which nests in which."""
        position = {block: index for index, block in enumerate(blocks)}
        return tuple(
            (self.axes[block], tuple(position[parent] for parent in self.within[block]))
            for block in blocks
        )

    def selections(self) -> Iterator[tuple[int, ...]]:
        """Sets of blocks that mean something on their own: none without those it is nested in."""
        for count in range(len(self.axes) + 1):
            for blocks in combinations(range(len(self.axes)), count):
                if all(set(self.within[block]) <= set(blocks) for block in blocks):
                    yield blocks


def readings(feature: Feature) -> list[Reading]:
    """All ways to read a feature, the feature itself first."""
    partitions: list[list[list[int]]] = [[]]
    for dim in sorted(range(len(feature.axes)), key=lambda dim: _depth(feature, dim)):
        partitions = [
            extended for blocks in partitions for extended in _with_dim(feature, blocks, dim)
        ]
    return [_reading(feature, sorted(map(sorted, blocks))) for blocks in partitions]


def _depth(feature: Feature, dim: int) -> int:
    return 1 + max((_depth(feature, parent) for parent in feature.parents(dim)), default=-1)


def _with_dim(feature: Feature, blocks: list[list[int]], dim: int) -> Iterator[list[list[int]]]:
    """Partitions with one more axis: in a block of its own, or in one that it may be equal to."""
    yield [*blocks, [dim]]
    for index, block in enumerate(blocks):
        if _comparable(feature, blocks, dim, block[0]):
            yield [*blocks[:index], [*block, dim], *blocks[index + 1 :]]


def _comparable(feature: Feature, blocks: list[list[int]], one: int, other: int) -> bool:
    owner = {dim: index for index, block in enumerate(blocks) for dim in block}
    first, second = ([owner[parent] for parent in feature.parents(dim)] for dim in (one, other))
    return feature.axes[one] == feature.axes[other] and first == second


def _reading(feature: Feature, blocks: list[list[int]]) -> Reading:
    owner = {dim: index for index, block in enumerate(blocks) for dim in block}
    return Reading(
        axes=tuple(feature.axes[block[0]] for block in blocks),
        dims=tuple(tuple(block) for block in blocks),
        within=tuple(
            tuple(owner[parent] for parent in feature.parents(block[0])) for block in blocks
        ),
    )


def orders(reading: Reading, blocks: tuple[int, ...], form: Form) -> list[tuple[int, ...]]:
    """The blocks in every order in which they have the given form."""
    if len(set(names := [reading.axes[block] for block in blocks])) == len(names):
        known = dict(zip(names, blocks, strict=True))
        ordered = tuple(known[axis] for axis, _ in form)
        return [ordered] if reading.form(ordered) == form else []
    return [order for order in permutations(blocks) if reading.form(order) == form]


def key(form: Form) -> Form:
    """The same for all orders of a form."""
    return min(_reordered(form, order) for order in _candidates(form))


def _candidates(form: Form) -> Iterator[tuple[int, ...]]:
    by_name = sorted(range(len(form)), key=lambda slot: form[slot][0])
    if len({axis for axis, _ in form}) == len(form):
        yield tuple(by_name)
    else:
        yield from permutations(by_name)


def _reordered(form: Form, order: tuple[int, ...]) -> Form:
    position = {slot: index for index, slot in enumerate(order)}
    return tuple(
        (form[slot][0], tuple(position[parent] for parent in form[slot][1])) for slot in order
    )
