"""Blocks of whole models: contracted piece by piece where they lie, in memory or in a mapped file.

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
from gmn.nn.dual.slots import Left, slots_of
from gmn.spec import EdgeSet

SMALL = 2**16  # elements of a block that is converted once and held

Sizes = tuple[tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True)
class Stream:
    """A block that is read piece by piece.

    Attributes:
        values: shape (B, *pair dims, taps), as they lie in the graph.
        change: what to do to them, in the same dimensions.
        dtype: type of what is read.
    """

    values: Tensor
    change: Change
    dtype: torch.dtype

    @property
    def is_view(self) -> bool:
        """Whether the values are right as they lie."""
        return self.values.dtype == self.dtype and self.change.is_none

    def pieces(self) -> Iterator[tuple[tuple[slice, ...], Tensor]]:
        """Where each piece lies, and its values; valid until the next piece is asked for."""
        most = min(pieces.PIECE, self.values.numel())
        room = torch.empty(most, dtype=self.dtype, device=self.values.device)
        for at in cut(self.values, pieces.PIECE):
            part = self.values[at]
            piece = room[: part.numel()].view(part.shape)
            piece.copy_(part)
            _part(self.change, at).apply(piece)
            yield at, piece

    def whole(self) -> Tensor:
        """All of it at once."""
        result = self.values.to(self.dtype, copy=True)
        self.change.apply(result)
        return result


class Blocks(dict[str, Tensor]):
    """Values by edge set, taps last: shape (B, *pair dims, taps), shifts taken out.

    Looking up a block that is streamed makes all of it; contractions use its pieces instead.

    Attributes:
        streams: the blocks that are.
    """

    def __init__(
        self, held: Mapping[str, Tensor], streams: Mapping[str, Stream] | None = None
    ) -> None:
        super().__init__(held)
        self.streams = dict(streams or {})

    def __missing__(self, name: str) -> Tensor:
        return self.streams[name].whole()


def blocks_of(graph: ParameterGraph, dtype: torch.dtype) -> Blocks:
    """The blocks of a graph in the type of a metanetwork.

    With gradients all of them are held, since the backward pass needs them. Without, large blocks
    that have another type, shifts to take out or several taps are streamed; others are views.

    Args:
        graph: B networks, shifts included; values of any floating-point type.
        dtype: type of the blocks.
    """
    alone = slots_of(graph.spec).alone
    if torch.is_grad_enabled():
        graph = without_shifts(graph.to(dtype=dtype))
        blocks = {e.name: taps_last(graph.block(e), e) for e in graph.spec.edge_sets}
        return Blocks({n: _left(b, alone[n]) if n in alone else b for n, b in blocks.items()})
    held, streams = {}, {}
    noted = changes(graph, dtype)
    for edges in graph.spec.edge_sets:
        stream = _stream(graph, edges, noted, dtype)
        small = edges.diagonal or stream.values.numel() <= SMALL
        if edges.name in alone:
            held[edges.name] = _left(stream.whole(), alone[edges.name])
        elif stream.is_view and (small or edges.num_taps == 1):
            held[edges.name] = stream.values
        elif small:
            held[edges.name] = stream.whole()
        else:
            streams[edges.name] = stream
    return Blocks(held, streams)


def _left(values: Tensor, left: Left) -> Tensor:
    """What of numbers their scales leave."""
    if left == "size":
        return values.abs()
    return values.sign() if left == "sign" else (values != 0).to(values)


def _stream(
    graph: ParameterGraph, edges: EdgeSet, noted: Mapping[str, Change], dtype: torch.dtype
) -> Stream:
    change = noted.get(edges.tied_to or edges.name, Change())
    if edges.tied_to is None:
        added, signs = (
            None if numbers is None else taps_last(numbers, edges)
            for numbers in (change.added, change.signs)
        )
        return Stream(taps_last(graph.block(edges), edges), Change(added, signs), dtype)
    values = graph.numbers(edges.parameter)
    if not change.is_none:  # a tied block may name its dimensions otherwise
        values = values.to(dtype, copy=True).contiguous()
        for own in graph.spec.edge_sets:
            if own.parameter == edges.parameter and own.tied_to is None:
                noted.get(own.name, Change()).apply(view_block(values, own))
    return Stream(taps_last(view_block(values, edges), edges), Change(), dtype)


def taps_last(block: Tensor, edges: EdgeSet) -> Tensor:
    """From (B, *shape) to (B, *pair dims, taps).

    Args:
        block: of an edge set, or what broadcasts to it.
        edges: the edge set.

    Returns:
        A view, if the taps lie evenly in memory; what does not vary with the taps has size 1 there.
    """
    order = tap_order(edges)
    moved = block.permute(0, *(1 + place for place in order))
    pairs = 1 + sum(dim.port != "tap" for dim in edges.dims)
    if any(size > 1 for size in moved.shape[pairs:]):
        moved = moved.expand(*moved.shape[:pairs], *(edges.shape[p] for p in order[pairs - 1 :]))
    return moved.reshape(*moved.shape[:pairs], -1 if moved.numel() else edges.num_taps)


def _part(change: Change, at: tuple[slice, ...]) -> Change:
    """The change of a piece."""

    def of(numbers: Tensor | None) -> Tensor | None:
        if numbers is None:
            return None
        sizes = numbers.shape
        return numbers[tuple(s if n > 1 else slice(None) for s, n in zip(at, sizes, strict=True))]

    return Change(of(change.added), of(change.signs))


@dataclass(frozen=True)
class Contraction:
    """Sums over one end of a block and over its taps.

    Attributes:
        block: a letter per dimension of the block but the batch and the taps.
        source: those of the neurons that are read.
        target: those of the neurons that are written.
        sizes: shapes of the neurons that are read, and written.
    """

    block: str
    source: str
    target: str
    sizes: Sizes

    def __call__(self, blocks: Blocks, name: str, code: Tensor, channels: Tensor) -> Tensor:
        """From (B, neurons read, c) to (B, neurons written, c).

        Args:
            blocks: those of the graph.
            name: the edge set.
            code: shape (taps, ranks). Channels fall into ranks that weigh taps differently.
            channels: of the neurons that are read.
        """
        batch, width = len(channels), channels.shape[-1]
        channels = channels.reshape(batch, *self.sizes[0], width)
        if name in blocks.streams:
            result = self._piecewise(blocks.streams[name], code, channels)
        else:
            result = self._product(blocks[name], code, channels)
        return result.reshape(batch, math.prod(self.sizes[1]), width)

    def _product(self, values: Tensor, code: Tensor, channels: Tensor) -> Tensor:
        """Of blocks (B, *pair dims, taps) and channels (B, *source, c)."""
        block, source, target = self.block, self.source, self.target
        split = channels.unflatten(-1, (code.shape[1], -1))
        if values.shape[-1] == 1:
            weighed = (split * code[0].unsqueeze(-1)).reshape(channels.shape)
            return torch.einsum(f"b{block},b{source}c->b{target}c", values[..., 0], weighed)
        mixed = torch.einsum(f"b{block}k,kr->br{block}", values, code)
        return torch.einsum(f"br{block},b{source}rc->b{target}rc", mixed, split).flatten(-2)

    def _piecewise(self, stream: Stream, code: Tensor, channels: Tensor) -> Tensor:
        result = channels.new_zeros(len(channels), *self.sizes[1], channels.shape[-1])
        for at, piece in stream.pieces():
            place = dict(zip(self.block, at[1:-1], strict=True))
            read = (at[0], *(place[letter] for letter in self.source))
            written = (at[0], *(place[letter] for letter in self.target))
            result[written] += self._product(piece, code[at[-1]], channels[read])
        return result
