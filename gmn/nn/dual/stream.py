"""Blocks of large models, contracted piece by piece from memory or from a mapped file.

A large block is never converted, centred or copied as a whole. What a contraction needs is read,
brought to the type in which the metanetwork computes, used, and overwritten by the next piece.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from gmn.canonical.shifts import Change, changes, without_shifts
from gmn.graph import ParameterGraph, pieces
from gmn.graph.pieces import cut
from gmn.graph.topology import tap_order, view_block
from gmn.nn.dual.slots import InvariantPart, slots_of
from gmn.spec import EdgeSet

SMALL = 2**16  # elements of a block that is converted once and held
RANKS = 4  # independent weightings of the taps of a kernel in a message

Sizes = tuple[tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True)
class Stream:
    """A block that is read piece by piece.

    Attributes:
        values: values in the graph, shape (B, *pair dims, taps).
        change: the change to apply to them, in the same dimensions.
        dtype: type of the pieces.
    """

    values: Tensor
    change: Change
    dtype: torch.dtype

    @property
    def is_view(self) -> bool:
        """Whether the values need neither conversion nor change."""
        return self.values.dtype == self.dtype and self.change.is_none

    def pieces(self) -> Iterator[tuple[tuple[slice, ...], Tensor]]:
        """The index of each piece, and its values; valid until the next piece is requested."""
        size = min(pieces.PIECE, self.values.numel())
        buffer = torch.empty(size, dtype=self.dtype, device=self.values.device)
        for index in cut(self.values, pieces.PIECE):
            part = self.values[index]
            piece = buffer[: part.numel()].view(part.shape)
            piece.copy_(part)
            _part(self.change, index).apply(piece)
            yield index, piece

    def full(self) -> Tensor:
        """The full block, as a copy."""
        result = self.values.to(self.dtype, copy=True)
        self.change.apply(result)
        return result


class Blocks(dict[str, Tensor]):
    """Values by edge set, taps last: shape (B, *pair dims, taps), shifts taken out.

    Looking up a streamed block reads all of it; contractions use its pieces instead.

    Attributes:
        streams: the streamed blocks.
    """

    def __init__(
        self, held: Mapping[str, Tensor], streams: Mapping[str, Stream] | None = None
    ) -> None:
        super().__init__(held)
        self.streams = dict(streams or {})

    def __missing__(self, name: str) -> Tensor:
        return self.streams[name].full()


def blocks_of(graph: ParameterGraph, dtype: torch.dtype) -> Blocks:
    """The blocks of a graph in the type of a metanetwork.

    With gradients all of them are held, since the backward pass needs them. Without, large blocks
    that have another type, shifts to take out or several taps are streamed; others are views.

    Args:
        graph: B networks, shifts included; values of any floating-point type.
        dtype: type of the blocks.
    """
    unfactored = slots_of(graph.spec).unfactored
    if torch.is_grad_enabled():
        graph = without_shifts(graph.to(dtype=dtype))
        blocks = {e.name: taps_last(graph.block(e), e) for e in graph.spec.edge_sets}
        for name in unfactored:
            blocks[name] = _invariant_part(blocks[name], unfactored[name])
        return Blocks(blocks)
    in_memory, streams = {}, {}
    changes_of = changes(graph, dtype)
    for edges in graph.spec.edge_sets:
        stream = _stream(graph, edges, changes_of, dtype)
        small = edges.diagonal or stream.values.numel() <= SMALL
        if edges.name in unfactored:
            in_memory[edges.name] = _invariant_part(stream.full(), unfactored[edges.name])
        elif stream.is_view and (small or edges.num_taps == 1):
            in_memory[edges.name] = stream.values
        elif small:
            in_memory[edges.name] = stream.full()
        else:
            streams[edges.name] = stream
    return Blocks(in_memory, streams)


def _invariant_part(values: Tensor, part: InvariantPart) -> Tensor:
    """The part of values that their scales leave invariant."""
    if part == "size":
        return values.abs()
    return values.sign() if part == "sign" else (values != 0).to(values)


def _stream(
    graph: ParameterGraph, edges: EdgeSet, changes_of: Mapping[str, Change], dtype: torch.dtype
) -> Stream:
    change = changes_of.get(edges.tied_to or edges.name, Change())
    if edges.tied_to is None:
        added, signs = (
            None if value is None else taps_last(value, edges)
            for value in (change.added, change.signs)
        )
        return Stream(taps_last(graph.block(edges), edges), Change(added, signs), dtype)
    values = graph.numbers(edges.parameter)
    if not change.is_none:  # a tied block may name its dimensions otherwise
        values = values.to(dtype, copy=True).contiguous()
        for other in graph.spec.edge_sets:
            if other.parameter == edges.parameter and other.tied_to is None:
                changes_of.get(other.name, Change()).apply(view_block(values, other))
    return Stream(taps_last(view_block(values, edges), edges), Change(), dtype)


def taps_last(block: Tensor, edges: EdgeSet) -> Tensor:
    """From (B, *shape) to (B, *pair dims, taps).

    Args:
        block: the block of an edge set, or a tensor that broadcasts to it.
        edges: the edge set.

    Returns:
        A view, if the taps lie evenly in memory; what does not vary with the taps has size 1 there.
    """
    order = tap_order(edges)
    moved = block.permute(0, *(1 + dim for dim in order))
    pairs = 1 + sum(dim.port != "tap" for dim in edges.dims)
    if any(size > 1 for size in moved.shape[pairs:]):
        moved = moved.expand(*moved.shape[:pairs], *(edges.shape[p] for p in order[pairs - 1 :]))
    return moved.reshape(*moved.shape[:pairs], -1 if moved.numel() else edges.num_taps)


def _part(change: Change, index: tuple[slice, ...]) -> Change:
    """The change of a piece."""

    def of(values: Tensor | None) -> Tensor | None:
        if values is None:
            return None
        sizes = values.shape
        return values[tuple(s if n > 1 else slice(None) for s, n in zip(index, sizes, strict=True))]

    return Change(of(change.added), of(change.signs))


@dataclass(frozen=True)
class Contraction:
    """Sums over one end of a block and over its taps.

    Attributes:
        block: an einsum subscript for each dimension of the block but the batch and the taps.
        source: the subscripts of the neurons that are read.
        target: the subscripts of the neurons that are written.
        sizes: shapes of the neurons that are read, and written.
    """

    block: str
    source: str
    target: str
    sizes: Sizes

    def __call__(self, kernels: Kernels, name: str, backward: bool, channels: Tensor) -> Tensor:
        """From (B, neurons read, c) to (B, neurons written, c).

        Args:
            kernels: the blocks of the graph, with the codes of a layer.
            name: the edge set.
            backward: whether the codes are those of messages against the network.
            channels: states of the neurons that are read, shape (B, neurons, c).
        """
        batch, width = len(channels), channels.shape[-1]
        channels = channels.reshape(batch, *self.sizes[0], width)
        code = kernels.code(name, backward)
        if name in kernels.blocks.streams:
            result = self._piecewise(kernels.blocks.streams[name], code, channels)
        elif len(code) == 1:
            result = self._one_tap(kernels.blocks[name], code, channels)
        else:
            result = self._ranked(kernels.weighed(name, backward), channels)
        return result.reshape(batch, math.prod(self.sizes[1]), width)

    def _one_tap(self, values: Tensor, code: Tensor, channels: Tensor) -> Tensor:
        """Contracts blocks (B, *pair dims, 1) with channels (B, *source, c)."""
        split = channels.unflatten(-1, (code.shape[1], -1))
        weighed = (split * code[0].unsqueeze(-1)).reshape(channels.shape)
        subscripts = f"b{self.block},b{self.source}c->b{self.target}c"
        return torch.einsum(subscripts, values[..., 0], weighed)

    def _ranked(self, weighed: Tensor, channels: Tensor) -> Tensor:
        """Contracts blocks (ranks, B, *pair dims) with channels (B, *source, c)."""
        block, source, target = self.block, self.source, self.target
        split = channels.unflatten(-1, (len(weighed), -1)).movedim(-2, 0)
        result = torch.einsum(f"rb{block},rb{source}c->rb{target}c", weighed, split)
        return result.movedim(0, -2).flatten(-2)

    def _piecewise(self, stream: Stream, code: Tensor, channels: Tensor) -> Tensor:
        result = channels.new_zeros(len(channels), *self.sizes[1], channels.shape[-1])
        for index, piece in stream.pieces():
            slices = dict(zip(self.block, index[1:-1], strict=True))
            read = (index[0], *(slices[letter] for letter in self.source))
            written = (index[0], *(slices[letter] for letter in self.target))
            part = code[index[-1]]
            if len(code) == 1:
                result[written] += self._one_tap(piece, part, channels[read])
            else:
                result[written] += self._ranked(_weighed(piece, part), channels[read])
        return result


class Kernels:
    """Blocks and what one layer makes of their taps.

    Args:
        blocks: the blocks of the graph.
        codes: by edge set, weights of the taps, shape (taps, 2 ranks or more): those of messages
            along the network, then those of messages against it.
    """

    def __init__(self, blocks: Blocks, codes: Mapping[str, Tensor]) -> None:
        self.blocks, self.codes = blocks, codes
        self._weighed: dict[str, Tensor] = {}

    def code(self, name: str, backward: bool) -> Tensor:
        """How each rank of channels counts at each tap, shape (taps, ranks)."""
        return self.codes[name][:, _ranks(backward)]

    def weighed(self, name: str, backward: bool) -> Tensor:
        """Sums over the taps of a block, weighed for each rank: shape (ranks, B, *pair dims).

        Both directions are computed at once, when the first is asked for.
        """
        if name not in self._weighed:
            self._weighed[name] = _weighed(self.blocks[name], self.codes[name][:, : 2 * RANKS])
        return self._weighed[name][_ranks(backward)]


def _ranks(backward: bool) -> slice:
    return slice(RANKS, 2 * RANKS) if backward else slice(RANKS)


def _weighed(values: Tensor, code: Tensor) -> Tensor:
    """From (B, *pair dims, taps) and (taps, ranks) to (ranks, B, *pair dims)."""
    # With ranks first, the product is several times as fast as with ranks last.
    return (code.T @ values.flatten(0, -2).T).unflatten(1, values.shape[:-1])
