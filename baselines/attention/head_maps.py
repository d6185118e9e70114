"""Linear maps and products from which the layers of Transformer-NFN are built."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import torch
from torch import Tensor, nn

from baselines.attention.head_forms import BlockForm, RowForm, Rows, State, joined, rows_of
from baselines.layers.equivariant import Feature

Kept = frozenset[str]


class RowMap(nn.Module):
    """Every linear map of rows that commutes with the changes of basis of the units."""

    def __init__(self, form: RowForm, inputs: int, outputs: int, rank: int | None) -> None:
        super().__init__()
        self.outputs, self.width = outputs, form.flat
        fan_in = inputs * (form.flat + (form.space.axis is not None))
        self.flat = _linear(inputs * form.flat, outputs * form.flat, False, rank)
        _spread_out(self.flat, fan_in**-0.5)
        self.nodes = None
        if form.space.axis:
            self.nodes = nn.Linear(inputs, outputs, bias=False)
            _spread_out(self.nodes, fan_in**-0.5)

    def forward(self, rows: Rows) -> Rows:
        """Maps rows of d channels to rows of e channels."""
        flat = self.flat(rows.flat.flatten(2)).unflatten(2, (self.outputs, self.width))
        if self.nodes is None or rows.nodes is None:
            return rows_of(flat)
        return rows_of(flat[..., 1:], self.nodes(rows.nodes) + flat[..., 0].unsqueeze(2))


class HeadProducts(nn.Module):
    r"""The numbers that products of two head-wise matrices give: all of them, or a few readouts.

    Of :math:`P = \sum_s L_s R_s` every entry is read, along movable spaces the sum and, where both
    sides are the same neurons, the trace. If there are more than ``rank`` entries, that many
    readouts :math:`u_r^\top P v_r` take their place, and the product is never formed.

    Args:
        left: form of the left rows.
        right: form of the right rows.
        channels: number of channels of both matrices.
        rank: largest number of entries; None for no limit.
    """

    def __init__(self, left: RowForm, right: RowForm, channels: int, rank: int | None) -> None:
        super().__init__()
        self.same = left.space.axis is not None and left.space.axis == right.space.axis
        entries = channels * left.flat * right.flat
        self.left = self.right = None
        if rank is not None and entries > rank:
            self.left, self.right = (
                _parameter((rank, channels, form.flat), channels**0.5 * form.flat)
                for form in (left, right)
            )
            entries = rank
        self.width = entries + (channels if self.same else 0)

    def forward(self, left: Rows, right: Rows, heads: int = 1) -> Tensor:
        """The numbers, for each of ``heads`` equal groups of units: shape (B, heads, width)."""
        parts = []
        first, second = (rows.flat.unflatten(1, (heads, -1)) for rows in (left, right))
        size = first.shape[2] ** 0.5
        if self.left is None or self.right is None:
            parts.append(torch.einsum("bhudp,bhudq->bhdpq", first, second).flatten(2) / size)
        else:
            reads = torch.einsum("bhudp,rdp->bhudr", first, self.left)
            parts.append(
                (reads * torch.einsum("bhudq,rdq->bhudr", second, self.right)).sum((2, 3)) / size
            )
        if self.same and left.nodes is not None and right.nodes is not None:
            trace = (left.nodes * right.nodes).sum(2) / left.nodes.shape[2] ** 0.5
            parts.append(trace.unflatten(1, (heads, -1)).sum(2) / size)
        return joined(parts)


class RowContraction(nn.Module):
    r"""Rows of a product, read at each neuron of one side.

    :math:`\sum_p \varphi_p (LR)_{pj} = \sum_u (\varphi^\top L)_u R_{uj}`: the coefficients come
    first, so that the product, neurons × neurons, is never formed.
    """

    def __init__(self, flat: int, channels: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, channels, flat))

    def forward(self, flat: Tensor, nodes: Tensor) -> Tensor:
        """Rows (B, U, d, flat) and nodes (B, U, n, d) to (B, n, outputs)."""
        reads = torch.einsum("budc,odc->budo", flat, self.weight)
        return torch.einsum("budo,bund->bno", reads, nodes) / flat.shape[1] ** 0.5


class TermMix(nn.Module):
    """All terms of the published layer that end at given features.

    Args:
        form: form of the block.
        channels: number of input channels.
        outputs: forms of the features to compute.
        rank: bound on the rank of large maps, and on readouts of products; None for none.
    """

    def __init__(
        self, form: BlockForm, channels: int, outputs: Sequence[Feature], rank: int | None = None
    ) -> None:
        super().__init__()
        self.outputs = tuple(outputs)
        self.inputs = form.features(channels)
        self.scores = HeadProducts(form.query, form.key, channels, rank)
        self.values = HeadProducts(form.value, form.output, channels, rank)
        self.reads = [
            ("query", "key", form.query, form.key),
            ("key", "query", form.key, form.query),
            ("value", "output", form.value, form.output),
            ("output", "value", form.output, form.value),
        ]
        widths: dict[Kept, int] = {frozenset(): self.scores.width + self.values.width}
        for feature in self.inputs.values():
            for kept in _subsets(feature.axes):
                if self._width(kept):
                    widths[kept] = widths.get(kept, 0) + feature.channels
        self.traces = [
            (left, right, frozenset({form.space.axis}))
            for left, right, form, other in (self.reads[0], self.reads[2])
            if form.space.axis and form.space.axis == other.space.axis
        ]
        self.traces = [item for item in self.traces if self._width(item[2])]
        for *_, kept in self.traces:
            widths[kept] = widths.get(kept, 0) + channels
        self.contractions = nn.ModuleDict()
        for left, right, first, second in self.reads:
            axis = second.space.axis
            if axis and self._width(frozenset({axis})):
                size = self._width(frozenset({axis}))
                self.contractions[f"{left} {right}"] = RowContraction(first.flat, channels, size)
        self.kept = sorted(widths, key=lambda kept: (len(kept), sorted(kept)))
        self.order = {kept: self._ordered(kept) for kept in self.kept}
        self.mix = nn.ModuleList(
            _linear(widths[kept], self._width(kept), not kept, rank) for kept in self.kept
        )
        self._reset(widths, channels)

    def _ordered(self, kept: Kept) -> tuple[str, ...]:
        """The axes as the first input has them, which then needs no transposition."""
        holders = (f.axes for f in self.inputs.values() if kept <= set(f.axes))
        return tuple(axis for axis in next(holders, tuple(kept)) if axis in kept)

    def _width(self, kept: Kept) -> int:
        return sum(feature.channels for feature in self._receivers(kept))

    def _receivers(self, kept: Kept) -> list[Feature]:
        return [feature for feature in self.outputs if kept <= set(feature.axes)]

    def _contracted(self) -> list[tuple[str, str, RowForm, Kept, RowContraction]]:
        result = []
        for left, right, first, second in self.reads:
            name = f"{left} {right}"
            if name in self.contractions:
                module = self.contractions[name]
                assert isinstance(module, RowContraction)
                assert second.space.axis is not None
                result.append((left, right, first, frozenset({second.space.axis}), module))
        return result

    def _reset(self, widths: dict[Kept, int], channels: int) -> None:
        """Draws coefficients from ±√(1 / n), n numbers in all terms of the output."""
        fan_in = [
            sum(width for kept, width in widths.items() if kept <= set(feature.axes))
            + sum(
                channels * form.flat
                for *_, form, kept, _ in self._contracted()
                if kept <= set(feature.axes)
            )
            for feature in self.outputs
        ]

        def bounds(kept: Kept) -> Tensor:
            parts = zip(self.outputs, fan_in, strict=True)
            return torch.cat(
                [torch.full((f.channels,), n**-0.5) for f, n in parts if kept <= set(f.axes)]
            )

        with torch.no_grad():
            for kept, linear in zip(self.kept, self.mix, strict=True):
                _spread_out(linear, bounds(kept))
            for *_, kept, contraction in self._contracted():
                contraction.weight.uniform_(-1, 1).mul_(bounds(kept)[:, None, None])

    def forward(self, state: State) -> list[Tensor]:
        """The features, shapes (B, *movable sizes, channels)."""
        statistics = self._statistics(state)
        rows = state.rows
        extra: dict[Kept, Tensor] = {}
        for left, right, _, kept, contraction in self._contracted():
            nodes = rows[right].nodes
            assert nodes is not None
            term = contraction(rows[left].flat, nodes)
            extra[kept] = extra[kept] + term if kept in extra else term
        terms: list[list[Tensor]] = [[] for _ in self.outputs]
        for kept, linear in zip(self.kept, self.mix, strict=True):
            parts = statistics[kept]
            mixed = linear(joined(parts))
            mixed = mixed + extra[kept] if kept in extra else mixed
            receivers = [i for i, g in enumerate(self.outputs) if kept <= set(g.axes)]
            widths = [self.outputs[i].channels for i in receivers]
            blocks = mixed.split(widths, dim=-1) if len(widths) > 1 else (mixed,)
            for i, block in zip(receivers, blocks, strict=True):
                terms[i].append(_spread(block, self.order[kept], self.outputs[i].axes))
        return [_total(own) for own in terms]

    def _statistics(self, state: State) -> dict[Kept, list[Tensor]]:
        """The statistics that every node family reads."""
        rows = state.rows
        statistics: dict[Kept, list[Tensor]] = {kept: [] for kept in self.kept}
        for products, left, right in (
            (self.scores, "query", "key"),
            (self.values, "value", "output"),
        ):
            statistics[frozenset()].append(products(rows[left], rows[right]).squeeze(1))
        for name, feature in self.inputs.items():
            for kept in _subsets(feature.axes):
                if kept in statistics:
                    statistics[kept].append(
                        _summed(state.features[name], feature.axes, self.order[kept])
                    )
        for left, right, kept in self.traces:
            first, second = rows[left].nodes, rows[right].nodes
            assert first is not None
            assert second is not None
            statistics[kept].append((first * second).sum(1) / first.shape[1] ** 0.5)
        return statistics


def _subsets(axes: Sequence[str]) -> list[Kept]:
    return [frozenset(c) for n in range(len(axes) + 1) for c in combinations(axes, n)]


def _summed(value: Tensor, axes: tuple[str, ...], kept: tuple[str, ...]) -> Tensor:
    """Summed over the other axes, divided by the root of their number."""
    dim = 1
    for axis in axes:
        if axis in kept:
            dim += 1
        else:
            # One axis at a time: the gradient is then contiguous along those that are summed later.
            value = value.sum(dim) / value.shape[dim] ** 0.5
    return _spread(value, tuple(axis for axis in axes if axis in kept), kept)


def _total(terms: Sequence[Tensor]) -> Tensor:
    """The sum of terms, given from the smallest to the largest, with few full-size tensors."""
    *smaller, total = terms
    groups: list[Tensor] = []
    for term in smaller:
        if groups and torch.broadcast_shapes(groups[-1].shape, term.shape) == term.shape:
            groups[-1] = groups[-1] + term
        else:
            groups.append(term)
    for index, group in enumerate(groups):
        total = total.add_(group) if index else total + group  # fresh after the first
    return total


def _spread(value: Tensor, axes: tuple[str, ...], target: tuple[str, ...]) -> Tensor:
    """A tensor over ``axes`` in the order of ``target``, of size 1 along its other axes."""
    order = [axes.index(axis) for axis in target if axis in axes]
    value = value.permute(0, *(1 + dim for dim in order), len(axes) + 1)
    for dim, axis in enumerate(target):
        if axis not in axes:
            value = value.unsqueeze(1 + dim)
    return value


def _linear(inputs: int, outputs: int, bias: bool, rank: int | None) -> nn.Module:
    """A linear layer, of bounded rank where that has fewer parameters."""
    if rank is None or rank * (inputs + outputs) >= inputs * outputs:
        return nn.Linear(inputs, outputs, bias=bias)
    return nn.Sequential(nn.Linear(inputs, rank, bias=False), nn.Linear(rank, outputs, bias=bias))


def _spread_out(linear: nn.Module, bound: Tensor | float) -> None:
    """Draws a map's coefficients uniformly; ``bound`` is one number, or one per output."""
    layers = [linear] if isinstance(linear, nn.Linear) else list(linear.children())
    first, last = layers[0], layers[-1]
    assert isinstance(first, nn.Linear)
    assert isinstance(last, nn.Linear)
    limit = torch.as_tensor(bound).expand(last.out_features)
    with torch.no_grad():
        if first is not last:
            # The bottleneck's numbers are as large as what it reads, of which it keeps the energy.
            first.weight.uniform_(-1, 1).mul_((3 / first.in_features) ** 0.5)
            limit = limit * (first.in_features / last.in_features) ** 0.5
        last.weight.uniform_(-1, 1).mul_(limit.unsqueeze(1))
        if last.bias is not None:
            last.bias.uniform_(-1, 1).mul_(limit)


def _parameter(shape: tuple[int, ...], fan_in: float) -> nn.Parameter:
    return nn.Parameter(torch.empty(shape).uniform_(-1, 1) * (3 / fan_in) ** 0.5)
