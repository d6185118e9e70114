r"""Polynomial layers on transformer blocks, equivariant to every head's changes of basis.

The equivariant and invariant layers of Transformer-NFN (Tran et al., ICLR 2025, arXiv 2410.04209)
in compact form. A block holds four families of nodes: numbered or movable
neurons at its source, middle and sink, the hidden neurons of its feed-forward network, and one
global node. Whatever a term of the published layer reads, it first sums onto one such family; so
all terms that end at the same family are one matrix product. Of heads, only the products
:math:`\sum_s Q_s K_s^\top` and :math:`\sum_s V_s O_s` are read, which no change of basis moves.

Sums over :math:`n` neurons are divided by :math:`\sqrt n`, so that no term outweighs the others at
initialisation; this only rescales the published coefficients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations

import torch
from torch import Tensor, nn

from .equivariant import Feature

Kept = frozenset[str]


@dataclass(frozen=True)
class Space:
    """Neurons at one side of a matrix.

    Attributes:
        size: how many.
        axis: name of the axis whose permutations move them; None if each has its own coefficients.
    """

    size: int
    axis: str | None = None


@dataclass(frozen=True)
class RowForm:
    """Form of a head-wise matrix, seen from the units of its heads: one row per unit.

    Attributes:
        space: the neurons along the row.
        bias: whether each row has one more entry.
    """

    space: Space
    bias: bool = False

    @property
    def fixed(self) -> int:
        """Entries of a row that no permutation moves."""
        return (0 if self.space.axis else self.space.size) + self.bias

    @property
    def flat(self) -> int:
        """Numbers per row and channel that no permutation changes."""
        return self.fixed + (self.space.axis is not None)


@dataclass(frozen=True)
class BlockForm:
    """Sizes and symmetry of one block.

    Attributes:
        heads: number of heads.
        query, key, value, output: forms of the rows of the heads' matrices.
        hidden: the hidden neurons; None without a feed-forward network.
        sink: the neurons that the feed-forward network writes.
        gates: number of matrices into the hidden neurons.
        gate_biases: how many of them have a bias.
        out_bias: whether the matrix out of them has one.
        output_bias: whether the attention's output has one.
    """

    heads: int
    query: RowForm
    key: RowForm
    value: RowForm
    output: RowForm
    hidden: Space | None = None
    sink: Space | None = None
    gates: int = 1
    gate_biases: int = 1
    out_bias: bool = True
    output_bias: bool = False

    @cached_property
    def spaces(self) -> dict[str, tuple[Space, ...]]:
        """The spaces that each tensor outside of the heads runs over, by name."""
        middle = self.output.space
        found: dict[str, tuple[Space, ...]] = {}
        if self.hidden is not None and self.sink is not None:
            found["into"] = (middle, self.hidden)
            if self.gate_biases:
                found["into_bias"] = (self.hidden,)
            found["out"] = (self.hidden, self.sink)
            if self.out_bias:
                found["out_bias"] = (self.sink,)
        if self.output_bias:
            found["output_bias"] = (middle,)
        return found

    def copies(self, name: str) -> int:
        """How many tensors of this name there are."""
        return {"into": self.gates, "into_bias": self.gate_biases}.get(name, 1)

    def features(self, channels: int) -> dict[str, Feature]:
        """Forms of these tensors; along ordered spaces, positions are channels."""
        return {
            name: folded_form(spaces, channels * self.copies(name))
            for name, spaces in self.spaces.items()
        }


def folded_form(spaces: Sequence[Space], channels: int) -> Feature:
    """Form of a tensor over these spaces after :func:`fold`."""
    for space in spaces:
        channels *= 1 if space.axis else space.size
    return Feature(tuple(space.axis for space in spaces if space.axis), channels)


def fold(
    value: Tensor,  # shape: (B, *sizes of the spaces, channels)
    spaces: Sequence[Space],
) -> Tensor:  # shape: (B, *sizes of movable spaces, all others)
    """Makes positions along ordered spaces channels."""
    return value.permute(_fold_order(spaces)).flatten(1 + sum(bool(s.axis) for s in spaces))


def unfold(value: Tensor, spaces: Sequence[Space], channels: int) -> Tensor:
    """The inverse of :func:`fold`."""
    order = _fold_order(spaces)
    sizes = [(*(space.size for space in spaces), channels)[place - 1] for place in order[1:]]
    inverse = sorted(range(len(order)), key=order.__getitem__)
    return value.reshape(len(value), *sizes).permute(inverse)


def _fold_order(spaces: Sequence[Space]) -> list[int]:
    places = range(len(spaces))
    moving = [1 + i for i in places if spaces[i].axis]
    return [0, *moving, *(1 + i for i in places if not spaces[i].axis), 1 + len(spaces)]


@dataclass(frozen=True)
class Rows:
    """Values of a head-wise matrix with d channels, for U units of all heads; see :func:`rows_of`.

    Attributes:
        fixed: shape (B, U, d, fixed entries).
        nodes: shape (B, U, n, d) along a movable space; None along an ordered one.
        flat: what no permutation changes, shape (B, U, d, flat entries): the sum of ``nodes``
            divided by the root of their number, and ``fixed``.
    """

    fixed: Tensor
    nodes: Tensor | None
    flat: Tensor


def rows_of(fixed: Tensor, nodes: Tensor | None = None) -> Rows:
    """Rows with their flat entries, which several terms read."""
    if nodes is None:
        return Rows(fixed, None, fixed)
    total = (nodes.sum(2) / nodes.shape[2] ** 0.5).unsqueeze(3)
    return Rows(fixed, nodes, _joined([total, fixed][: 2 if fixed.shape[3] else 1]))


@dataclass(frozen=True)
class State:
    """One block's features.

    Attributes:
        rows: of ``query``, ``key``, ``value``, ``output``.
        features: of everything else, shapes (B, *movable sizes, channels).
    """

    rows: dict[str, Rows]
    features: dict[str, Tensor]

    def rectified(self) -> State:
        """ReLU where entries are numbers; within heads it would break the changes of basis.

        Overwrites what runs over neurons, which a layer's sums have just made.
        """
        return State(
            self.rows,
            {n: v.relu_() if v.dim() > 2 else v.relu() for n, v in self.features.items()},
        )


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


class Products(nn.Module):
    r"""The numbers that products of two head-wise matrices give: all of them, or a few readouts.

    Of :math:`P = \sum_s L_s R_s` every entry is read, along movable spaces the sum and, where both
    sides are the same neurons, the trace. If there are more than ``rank`` entries, that many
    readouts :math:`u_r^\top P v_r` take their place, and the product is never formed.

    Args:
        left: form of the left rows.
        right: form of the right rows.
        channels: channels of both.
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
        found = []
        first, second = (rows.flat.unflatten(1, (heads, -1)) for rows in (left, right))
        size = first.shape[2] ** 0.5
        if self.left is None or self.right is None:
            found.append(torch.einsum("bhudp,bhudq->bhdpq", first, second).flatten(2) / size)
        else:
            reads = torch.einsum("bhudp,rdp->bhudr", first, self.left)
            found.append(
                (reads * torch.einsum("bhudq,rdq->bhudr", second, self.right)).sum((2, 3)) / size
            )
        if self.same and left.nodes is not None and right.nodes is not None:
            trace = (left.nodes * right.nodes).sum(2) / left.nodes.shape[2] ** 0.5
            found.append(trace.unflatten(1, (heads, -1)).sum(2) / size)
        return _joined(found)


class Contraction(nn.Module):
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


class Mix(nn.Module):
    """All terms of the published layer that end at given features.

    Args:
        form: the block.
        channels: channels of its state.
        outputs: forms of the features to compute.
        rank: bound on the rank of large maps, and on readouts of products; None for none.
    """

    def __init__(
        self, form: BlockForm, channels: int, outputs: Sequence[Feature], rank: int | None = None
    ) -> None:
        super().__init__()
        self.outputs = tuple(outputs)
        self.inputs = form.features(channels)
        self.scores = Products(form.query, form.key, channels, rank)
        self.values = Products(form.value, form.output, channels, rank)
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
                self.contractions[f"{left} {right}"] = Contraction(first.flat, channels, size)
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

    def _contracted(self) -> list[tuple[str, str, RowForm, Kept, Contraction]]:
        found = []
        for left, right, first, second in self.reads:
            name = f"{left} {right}"
            if name in self.contractions:
                module = self.contractions[name]
                assert isinstance(module, Contraction)
                assert second.space.axis is not None
                found.append((left, right, first, frozenset({second.space.axis}), module))
        return found

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
            mixed = linear(_joined(parts))
            mixed = mixed + extra[kept] if kept in extra else mixed
            receivers = [i for i, g in enumerate(self.outputs) if kept <= set(g.axes)]
            widths = [self.outputs[i].channels for i in receivers]
            blocks = mixed.split(widths, dim=-1) if len(widths) > 1 else (mixed,)
            for i, block in zip(receivers, blocks, strict=True):
                terms[i].append(_spread(block, self.order[kept], self.outputs[i].axes))
        return [_total(own) for own in terms]

    def _statistics(self, state: State) -> dict[Kept, list[Tensor]]:
        """What every family of nodes reads."""
        rows = state.rows
        found: dict[Kept, list[Tensor]] = {kept: [] for kept in self.kept}
        for products, left, right in (
            (self.scores, "query", "key"),
            (self.values, "value", "output"),
        ):
            found[frozenset()].append(products(rows[left], rows[right]).squeeze(1))
        for name, feature in self.inputs.items():
            for kept in _subsets(feature.axes):
                if kept in found:
                    found[kept].append(
                        _summed(state.features[name], feature.axes, self.order[kept])
                    )
        for left, right, kept in self.traces:
            first, second = rows[left].nodes, rows[right].nodes
            assert first is not None
            assert second is not None
            found[kept].append((first * second).sum(1) / first.shape[1] ** 0.5)
        return found


class EquivariantLayer(nn.Module):
    """The published equivariant polynomial layer.

    Args:
        form: the block.
        inputs: channels before.
        outputs: channels after.
        rank: see :class:`Mix`.
    """

    def __init__(self, form: BlockForm, inputs: int, outputs: int, rank: int | None = None) -> None:
        super().__init__()
        self.heads = nn.ModuleDict(
            {
                name: RowMap(rows, inputs, outputs, rank)
                for name, rows in (
                    ("query", form.query),
                    ("key", form.key),
                    ("value", form.value),
                    ("output", form.output),
                )
            }
        )
        features = form.features(outputs)
        self.names = tuple(features)
        self.mix = Mix(form, inputs, tuple(features.values()), rank) if features else None

    def forward(self, state: State) -> State:
        """Maps a block's state to one with other channels."""
        rows = {name: module(state.rows[name]) for name, module in self.heads.items()}
        mixed = [] if self.mix is None else self.mix(state)
        return State(rows, dict(zip(self.names, mixed, strict=True)))


class InvariantLayer(nn.Module):
    """The published invariant layer; numbers that no symmetry of the block changes.

    Args:
        form: the block.
        inputs: channels of its state.
        outputs: how many numbers.
        rank: see :class:`Mix`.
    """

    def __init__(self, form: BlockForm, inputs: int, outputs: int, rank: int | None = None) -> None:
        super().__init__()
        self.mix = Mix(form, inputs, (Feature((), outputs),), rank)

    def forward(self, state: State) -> Tensor:
        """Shape (B, outputs)."""
        return self.mix(state)[0]


class HeadReadout(nn.Module):
    r"""Numbers from every head's own products, through an MLP before heads are summed.

    The published layers read heads only through :math:`\sum_s Q_s K_s^\top` and
    :math:`\sum_s V_s O_s`, which do not say which unit belongs to which head, nor which values to
    which scores. An MLP on :math:`u^\top Q_s K_s^\top v` and :math:`u^\top V_s O_s v` of one head
    does; it is not part of the published method.

    Args:
        form: the block.
        channels: channels of its state.
        reads: readouts of each product.
        outputs: how many numbers.
    """

    def __init__(self, form: BlockForm, channels: int, reads: int, outputs: int) -> None:
        super().__init__()
        self.count = form.heads
        self.scores = Products(form.query, form.key, channels, reads)
        self.values = Products(form.value, form.output, channels, reads)
        width = self.scores.width + self.values.width
        self.hidden, self.answer = nn.Linear(width, 2 * width), nn.Linear(2 * width, outputs)

    def forward(self, state: State) -> Tensor:
        """Shape (B, outputs)."""
        rows, count = state.rows, self.count
        scores = self.scores(rows["query"], rows["key"], count)
        values = self.values(rows["value"], rows["output"], count)
        return self.answer(self.hidden(torch.cat([scores, values], dim=2)).relu().mean(1))


def _subsets(axes: Sequence[str]) -> list[Kept]:
    return [frozenset(c) for n in range(len(axes) + 1) for c in combinations(axes, n)]


def _summed(value: Tensor, axes: tuple[str, ...], kept: tuple[str, ...]) -> Tensor:
    """Summed over the other axes, divided by the root of their number."""
    place = 1
    for axis in axes:
        if axis in kept:
            place += 1
        else:
            # One axis at a time: the gradient is then contiguous along those that are summed later.
            value = value.sum(place) / value.shape[place] ** 0.5
    return _spread(value, tuple(axis for axis in axes if axis in kept), kept)


def _joined(parts: Sequence[Tensor]) -> Tensor:
    """Side by side along the last dimension; a single part is not copied."""
    return parts[0] if len(parts) == 1 else torch.cat([*parts], dim=-1)


def _total(terms: Sequence[Tensor]) -> Tensor:
    """The sum of terms, given from the smallest to the largest, with few full-size tensors."""
    *smaller, total = terms
    groups: list[Tensor] = []
    for term in smaller:
        if groups and torch.broadcast_shapes(groups[-1].shape, term.shape) == term.shape:
            groups[-1] = groups[-1] + term
        else:
            groups.append(term)
    for number, group in enumerate(groups):
        total = total.add_(group) if number else total + group  # fresh after the first
    return total


def _spread(value: Tensor, axes: tuple[str, ...], wanted: tuple[str, ...]) -> Tensor:
    """A tensor over ``axes`` in the order of ``wanted``, of size 1 along its other axes."""
    order = [axes.index(axis) for axis in wanted if axis in axes]
    value = value.permute(0, *(1 + place for place in order), len(axes) + 1)
    for place, axis in enumerate(wanted):
        if axis not in axes:
            value = value.unsqueeze(1 + place)
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
