"""The complete linear layer between features whose axes are permuted independently.

One construction serves every method of the family: NP, HNP and UNF differ only in which axes their
features have. Channels come last, so that mixing them is one matrix product.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from baselines.layers.patterns import Axes, Feature, Form, Reading, key, orders, readings
from gmn.foundation.arguments import require_several, require_type

__all__ = ["EquivariantLinear", "EquivariantMaps", "Feature", "Restriction", "diagonal"]


@dataclass(frozen=True)
class Restriction:
    """Maps that a published layer lacks.

    Attributes:
        source: index of the input feature they read.
        target: index of the output feature they write.
        parts: the output's channels come in so many equal parts, which all get the same; 0 if the
            output gets nothing.
        kept: only the maps that keep these axes; None for all.
    """

    source: int
    target: int
    parts: int = 0
    kept: Axes | None = None


class EquivariantMaps(nn.Module, ABC):
    """What all maps between features read, and where they write; subclasses say with what weights.

    Args:
        inputs: forms of the input features.
        outputs: forms of the output features.
    """

    def __init__(self, inputs: Sequence[Feature], outputs: Sequence[Feature]) -> None:
        super().__init__()
        for name, features in (("inputs", inputs), ("outputs", outputs)):
            require_several(name, features, "forms of features")
            for feature in features:
                require_type(f"one of {name}", feature, Feature, "a Feature")
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self._reads = [readings(feature) for feature in self.inputs]
        self._writes = [readings(feature) for feature in self.outputs]
        self._terms = _terms(self._reads, self._writes)
        self._averages = _means(self._terms, self._reads)

    @abstractmethod
    def _mixed(self, terms: Iterable[list[Tensor]]) -> Iterator[Sequence[Tensor]]:
        """For each term: from what its sources say (..., channels) to what its receivers get."""

    def _channels(self, part: Selection) -> int:
        return self.inputs[part.feature].channels

    def _width(self, part: Selection) -> int:
        return self.outputs[part.feature].channels

    def forward(
        self,
        features: Sequence[Tensor],  # shapes: (B, *sizes of the axes, channels)
    ) -> list[Tensor]:  # shapes: (B, *sizes of the axes, channels)
        """Maps the input features to the output features.

        Raises:
            ValueError: if an output has an axis that no input has, so that its size is unknown.
        """
        self._check_sizes_known()
        averages = {
            (feature, reading): self._average(features[feature], feature, reading)
            for feature, reading in self._averages
        }
        written: list[dict[int, list[Tensor]]] = [{} for _ in self.outputs]
        read = (
            [part.of(averages[part.feature, part.reading]) for part in term.sources]
            for term in self._terms
        )
        for term, blocks in zip(self._terms, self._mixed(read), strict=True):
            for part, block in zip(term.receivers, blocks, strict=True):
                count = len(self._writes[part.feature][part.reading].axes)
                aligned = _align(block, part.blocks, tuple(range(count)))
                written[part.feature].setdefault(part.reading, []).append(aligned)
        return [
            self._assemble(own, terms) for own, terms in zip(self._writes, written, strict=True)
        ]

    def _average(self, value: Tensor, feature: int, index: int) -> dict[tuple[int, ...], Tensor]:
        """Averages of an input on one of its readings, by the blocks that they keep."""
        reading = self._reads[feature][index]
        known = {tuple(range(len(reading.axes))): diagonal(value, reading)}
        for mean in self._averages[feature, index]:
            known[mean.kept] = mean.of(known[mean.source])
        return known

    def _assemble(self, own: Sequence[Reading], terms: dict[int, list[Tensor]]) -> Tensor:
        """An output from what is written to it, and on its diagonals."""
        total = _sum(terms[0])
        for index, reading in enumerate(own):
            if index:
                total = _add_on_diagonal(total, _sum(terms[index]), reading)
        return total

    def _check_sizes_known(self) -> None:
        known = {axis for feature in self.inputs for axis in feature.axes}
        for feature in self.outputs:
            if missing := sorted(set(feature.axes) - known):
                raise ValueError(
                    f"no input has the axes {', '.join(missing)} of the output {feature}; "
                    "add an input that has them"
                )


class EquivariantLinear(EquivariantMaps):
    r"""Every linear map that commutes with permutations of every axis, each exactly once.

    From input :math:`f` to output :math:`g` with distinct axes there is one map for each set
    :math:`S` of axes that both have: average :math:`f` over its axes outside :math:`S`, mix
    channels, repeat along the axes of :math:`g` outside :math:`S`. The average does not depend on
    the output, nor the mixing on where its result is repeated: so all maps with the same :math:`S`
    are one matrix product.

    Where an axis repeats within a feature, the input is also read on its diagonals, the output also
    written on its diagonals, and equal axes of :math:`S` meet in every order: one map for every
    partition of the axes of both (Bell numbers), and none twice unless a repeated axis has fewer
    indices than the partition has blocks. A nested axis (units within heads) is kept only together
    with those it is nested in, which gives the orbits of the wreath product.

    Source: NP and HNP layers of Zhou et al. (arXiv 2302.14040); for general axes, the basis of
    Zhou et al. (arXiv 2402.05232), here also for nested ones.

    Args:
        inputs: forms of the input features.
        outputs: forms of the output features.
        restrictions: maps to leave out or to share, for published layers that are not complete.
    """

    def __init__(
        self,
        inputs: Sequence[Feature],
        outputs: Sequence[Feature],
        restrictions: Sequence[Restriction] = (),
    ) -> None:
        super().__init__(inputs, outputs)
        self.mix = nn.ModuleList(self._mixing(term, restrictions) for term in self._terms)
        self.reset_parameters()

    def _mixed(self, terms: Iterable[list[Tensor]]) -> Iterator[Sequence[Tensor]]:
        for term, linear, parts in zip(self._terms, self.mix, terms, strict=True):
            mixed = linear(parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1))
            # The gradient of a split is a copy, even when there is only one part.
            widths = [self._width(part) for part in term.receivers]
            yield mixed.split(widths, dim=-1) if len(widths) > 1 else (mixed,)

    def _mixing(self, term: MapGroup, restrictions: Sequence[Restriction]) -> nn.Module:
        rows = [part.feature for part in term.receivers for _ in range(self._width(part))]
        columns = [part.feature for part in term.sources for _ in range(self._channels(part))]
        index = _restricted(torch.tensor(rows), torch.tensor(columns), term.kept, restrictions)
        if index is None:
            return nn.Linear(len(columns), len(rows), bias=not term.form)
        return _SharedLinear(index, bias=not term.form)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draws weights and biases from ±√(1 / n), n inputs in all terms of the output channel.

        Args:
            generator: source of randomness; torch's own if None.
        """
        fans = [0] * len(self.outputs)
        for term in self._terms:
            for output in {part.feature for part in term.receivers}:
                fans[output] += sum(map(self._channels, term.sources))
        with torch.no_grad():
            for term, linear in zip(self._terms, self.mix, strict=True):
                assert isinstance(linear, nn.Linear | _SharedLinear)
                bounds = torch.cat(
                    [
                        torch.full((self._width(part),), fans[part.feature] ** -0.5)
                        for part in term.receivers
                    ]
                ).to(linear.weight)
                if isinstance(linear, _SharedLinear):
                    linear.draw(bounds, generator)
                else:
                    linear.weight.uniform_(-1, 1, generator=generator).mul_(bounds.unsqueeze(1))
                if linear.bias is not None:
                    linear.bias.uniform_(-1, 1, generator=generator).mul_(bounds)


@dataclass(frozen=True)
class Selection:
    """Blocks of one reading of one feature, in a given order."""

    feature: int
    reading: int
    blocks: tuple[int, ...]

    @property
    def in_order(self) -> tuple[int, ...]:
        """The blocks in the reading's order."""
        return tuple(sorted(self.blocks))

    def of(self, averages: dict[tuple[int, ...], Tensor]) -> Tensor:
        """The average that keeps the blocks: shape (B, *their sizes, channels)."""
        return _align(averages[self.in_order], self.in_order, self.blocks)


@dataclass
class MapGroup:
    """All maps that keep the same axes: each source is mixed into each receiver."""

    form: Form
    sources: list[Selection] = field(default_factory=list)
    receivers: list[Selection] = field(default_factory=list)

    @property
    def kept(self) -> Axes:
        return tuple(axis for axis, _ in self.form)


def _terms(inputs: Sequence[list[Reading]], outputs: Sequence[list[Reading]]) -> list[MapGroup]:
    """All terms, those that keep fewest axes first.

    The axes of each are ordered as in the first input that has them, which then needs no
    transposition. Sources are there in all orders of equal axes, receivers in one.
    """
    by_form: dict[Form, MapGroup] = {}
    for feature, own in enumerate(inputs):
        for index, reading in enumerate(own):
            for blocks in reading.selections():
                form = reading.form(blocks)
                term = by_form.setdefault(key(form), MapGroup(form))
                for order in orders(reading, blocks, term.form):
                    term.sources.append(Selection(feature, index, order))
    for feature, own in enumerate(outputs):
        for index, reading in enumerate(own):
            for blocks in reading.selections():
                if (term_read := by_form.get(key(reading.form(blocks)))) is not None:
                    order = orders(reading, blocks, term_read.form)[0]
                    term_read.receivers.append(Selection(feature, index, order))
    return sorted((t for t in by_form.values() if t.receivers), key=lambda term: len(term.form))


def _restricted(
    rows: Tensor, columns: Tensor, kept: Axes, restrictions: Sequence[Restriction]
) -> Tensor | None:
    """Index of the free weight at each entry of a matrix; -1 where the entry is 0.

    None if all entries are free.

    Args:
        rows: index of the output feature of each row.
        columns: index of the input feature of each column.
        kept: the axes that the matrix's maps keep.
        restrictions: entries that are not free.
    """
    active = [
        rule
        for rule in restrictions
        if rule.kept in (None, kept)
        and bool((rows == rule.target).any() and (columns == rule.source).any())
    ]
    if not active:
        return None
    index = torch.arange(len(rows) * len(columns)).view(len(rows), len(columns))
    for rule in active:
        entries = ((rows == rule.target).nonzero(), (columns == rule.source).nonzero().T)
        block = index[entries]
        if rule.parts:
            first = block[: len(block) // rule.parts]
            index[entries] = first.repeat(rule.parts, 1)
        else:
            index[entries] = -1
    values, weights = index.unique(return_inverse=True)
    return weights - int(bool(values[0] < 0))


class _SharedLinear(nn.Module):
    """A linear map with entries that are absent, or equal to others.

    Args:
        index: index of the free weight of each entry of the matrix, -1 where it is 0.
        bias: whether there is a bias.
    """

    index: Tensor

    def __init__(self, index: Tensor, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(int(index.max()) + 1))
        self.bias = nn.Parameter(torch.zeros(len(index))) if bias else None
        self.register_buffer("index", index, persistent=False)

    def draw(self, bounds: Tensor, generator: torch.Generator | None) -> None:
        """Draws weights uniformly, bounded as the rows that they stand in."""
        every = self.weight.new_empty(self.index.shape)
        every.uniform_(-1, 1, generator=generator).mul_(bounds.unsqueeze(1))
        present = self.index >= 0
        self.weight[self.index[present]] = every[present]

    def forward(self, x: Tensor) -> Tensor:
        """Shape (..., columns) to (..., rows)."""
        absent = self.weight.new_zeros(1)
        return nn.functional.linear(x, torch.cat([self.weight, absent])[self.index], self.bias)


@dataclass(frozen=True)
class _Mean:
    """An average of one reading that keeps some blocks, from a larger one.

    Attributes:
        kept: the blocks, in their order in the reading.
        source: blocks of the smallest average known that has them all.
    """

    kept: tuple[int, ...]
    source: tuple[int, ...]

    def of(self, value: Tensor) -> Tensor:
        """The average of the source's value."""
        dims = [1 + i for i, block in enumerate(self.source) if block not in self.kept]
        count = math.prod([value.shape[dim] for dim in dims])
        # The gradient of a sum is an expanded view, that of a mean a full-size tensor.
        return value.sum(dims) / count


def _means(terms: Sequence[MapGroup], inputs: Sequence[list[Reading]]) -> _Plan:
    """By input and reading, the averages that terms need, each from the smallest that has it."""
    needed: dict[tuple[int, int], set[tuple[int, ...]]] = {}
    for term in terms:
        for part in term.sources:
            needed.setdefault((part.feature, part.reading), set()).add(part.in_order)
    plan: _Plan = {}
    for (feature, reading), sets in needed.items():
        whole = tuple(range(len(inputs[feature][reading].axes)))
        known, plan[feature, reading] = [whole], []
        for kept in sorted(sets - {whole}, key=lambda kept: (-len(kept), kept)):
            source = min((have for have in known if set(kept) < set(have)), key=len)
            plan[feature, reading].append(_Mean(kept, source))
            known.append(kept)
    return plan


_Plan = dict[tuple[int, int], list[_Mean]]


def diagonal(value: Tensor, reading: Reading) -> Tensor:
    """A view of a feature, shape (B, *sizes of the reading's blocks, channels)."""
    if reading.is_whole:
        return value
    owner = {axis: block for block, axes in enumerate(reading.dims) for axis in axes}
    dims = [-1, *(owner[axis] for axis in range(len(owner))), len(owner)]
    for block, axes in enumerate(reading.dims):
        for _ in axes[1:]:
            first, second = [i for i, other in enumerate(dims) if other == block][:2]
            value = value.diagonal(0, first, second)
            dims = [other for i, other in enumerate(dims) if i not in (first, second)] + [block]
    return value.permute(sorted(range(len(dims)), key=dims.__getitem__))


def _add_on_diagonal(total: Tensor, value: Tensor, reading: Reading) -> Tensor:
    """Adds a value of shape (B, *blocks, channels) where the axes of each block agree."""
    firsts = tuple(block[0] for block in reading.dims)
    axes = tuple(range(total.dim() - 2))
    chosen = total.new_ones([1] * total.dim())
    for block in reading.dims:
        for dim in block[1:]:
            shape = [1] * total.dim()
            shape[1 + block[0]] = shape[1 + dim] = total.shape[1 + dim]
            same = torch.eye(shape[1 + dim], dtype=total.dtype, device=total.device)
            chosen = chosen * same.view(shape)
    return torch.addcmul(total, _align(value, firsts, axes), chosen)


def _align(value: Tensor, axes: tuple[int, ...], order: tuple[int, ...]) -> Tensor:
    """A view with the dimensions in the order ``order``, of size one for axes it lacks."""
    if axes == order:
        return value
    ordered = [1 + axes.index(axis) for axis in order if axis in axes]
    value = value.permute(0, *ordered, value.dim() - 1)
    for dim, axis in enumerate(order):
        if axis not in axes:
            value = value.unsqueeze(1 + dim)
    return value


def _sum(terms: list[Tensor]) -> Tensor:
    """Sum of broadcastable terms in as few full-size tensors as possible: the result, and no more.

    Args:
        terms: from the smallest to the largest; the first broadcasts into all others.
    """
    if len(terms) < 3:
        return sum(terms[1:], terms[0])
    constant, small, *middle, largest = terms
    total = largest + (small + constant)
    for term in middle:
        total = _add(total, term)
    return total


def _add(total: Tensor, term: Tensor) -> Tensor:
    """Adds in place where the sum has the total's shape; ``total`` must be a fresh tensor."""
    if torch.broadcast_shapes(total.shape, term.shape) == total.shape:
        return total.add_(term)
    return total + term
