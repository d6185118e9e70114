"""Blocks of large models, contracted piece by piece from memory or from a mapped file.

A large block is never converted, centred or copied as a whole. What a contraction needs is read,
brought to the type in which the metanetwork computes, used, and overwritten by the next piece;
the backward pass reads the pieces again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd import forward_ad

from gmn.canonical.shifts import Change, changes, without_shifts
from gmn.graph import ParameterGraph, pieces
from gmn.graph.pieces import cut
from gmn.graph.topology import tap_order, view_block
from gmn.nn.dual.slots import InvariantPart, slots_of
from gmn.spec import EdgeSet

SMALL = 2**16  # elements of a block that is converted once and held


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
            if torch.is_grad_enabled():  # gradients of gradients keep each piece
                buffer = torch.empty_like(buffer)
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

    Values that need gradients are all held. Of others, large blocks that have another type or
    shifts to take out are streamed, in the backward pass again; others are views.

    Args:
        graph: B networks, shifts included; values of any floating-point type.
        dtype: type of the blocks.
    """
    unfactored = slots_of(graph.spec).unfactored
    if torch.is_grad_enabled() and any(map(_needs_gradient, graph.values.values())):
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
        elif stream.is_view:
            in_memory[edges.name] = stream.values
        elif small:
            in_memory[edges.name] = stream.full()
        else:
            streams[edges.name] = stream
    return Blocks(in_memory, streams)


def _needs_gradient(values: Tensor) -> bool:
    """Whether values need gradients, or carry those of forward mode."""
    return values.requires_grad or forward_ad.unpack_dual(values).tangent is not None


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
