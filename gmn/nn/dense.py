"""The dense executor: every edge set is a block, on which the edge computation of a layer runs.

The sources and targets of an edge set's pairs are dimensions of its block, so states of nodes are
broadcast to edges and messages summed along dimensions: no edge list, no gather, no
scatter. Pairs are processed in tiles that fit a cache. Of the three hidden layers of every edge,
the backward pass needs that of the update, and of those of the two messages only the signs.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from gmn.nn.passing.relations import End, Relation, relations_of
from gmn.spec import GraphSpec

EPSILON = 1e-5  # that of nn.LayerNorm
# Bytes of the hidden layers that are in memory at once: as many as a core's caches hold, and as
# many as fill an accelerator.
TILE_BYTES = {"cpu": 3 * 2**20}
LARGE_TILE_BYTES = 2**28


class EdgeOutputs(NamedTuple):
    """The results of the edge computation of a layer.

    Attributes:
        into: (B, N, d) hidden layers of messages along edges, averaged within each edge set.
        out: (B, N, d) those against them, weighted likewise.
        edges: new states of edges, as the executor arranged them.
        mean: (B, d) mean of the new states.
    """

    into: Tensor
    out: Tensor
    edges: Tensor
    mean: Tensor


class EdgeMaps(NamedTuple):
    """The linear maps that a layer applies to every edge.

    Attributes:
        read: (3 d, d) from normalised states to the hidden layers of both messages and the update.
        write: (d, d) from the hidden layer of the update to the change of the state.
        bias: (d,) of the change.
    """

    read: Tensor
    write: Tensor
    bias: Tensor


@dataclass(frozen=True)
class EdgeRange:
    """A relation, and the position of its edges among all edges.

    Attributes:
        relation: the edges.
        first: index of the first one.
    """

    relation: Relation
    first: int

    @property
    def share(self) -> float:
        """One over the number of edges into each target."""
        return 1 / max(self.relation.degree, 1)

    def tiles(self, batch: int, max_pairs: int) -> Iterator[Tile]:
        """Tiles of the block of ``batch`` networks, of at most ``max_pairs`` pairs if possible."""
        shape, pairs = self.relation.shape, self.relation.pairs
        start, networks = batch * self.first, max(1, max_pairs // max(pairs, 1))
        if networks > 1 or not shape:
            for low in range(0, batch, networks):
                high = min(low + networks, batch)
                rows = slice(start + low * pairs, start + high * pairs)
                yield Tile(slice(low, high), slice(None), rows, (high - low, *shape))
            return
        line_size = math.prod(shape[1:])
        lines = max(1, max_pairs // max(line_size, 1))
        for network in range(batch):
            base = start + network * pairs
            for low in range(0, shape[0], lines):
                high = min(low + lines, shape[0])
                rows = slice(base + low * line_size, base + high * line_size)
                yield Tile(
                    slice(network, network + 1), slice(low, high), rows, (1, high - low, *shape[1:])
                )


@dataclass(frozen=True)
class Tile:
    """A part of a block: some networks, or some lines of one network's block.

    Attributes:
        networks: the range of networks.
        lines: the range of indices of the block's first dimension.
        rows: their rows among the states of all edges.
        shape: (networks, *block).
    """

    networks: slice
    lines: slice
    rows: slice
    shape: tuple[int, ...]

    def of(self, end: Tensor) -> Tensor:
        """The tile of a view that ``End.spread`` returned, to read or write."""
        end = end[self.networks]
        return end[:, self.lines] if len(self.shape) > 1 and end.shape[1] > 1 else end

    def block(self, rows: Tensor) -> Tensor:
        """Rows (n, c) as a view (networks, *block, c)."""
        return rows.view(*self.shape, rows.shape[-1])


@lru_cache(maxsize=64)
def edge_ranges(spec: GraphSpec) -> tuple[EdgeRange, ...]:
    """The ranges of all edge sets, in the spec's order."""
    relations = relations_of(spec)
    first = accumulate((relation.pairs for relation in relations[:-1]), initial=0)
    return tuple(map(EdgeRange, relations, first))


@dataclass(frozen=True)
class DenseExecutor:
    """The edge computation of a layer on the blocks of a spec.

    Attributes:
        spec: the architecture.
    """

    spec: GraphSpec

    def arrange(self, states: Sequence[Tensor]) -> Tensor:
        """States of edge sets, (B, pairs, d) each, as one tensor (B P, d), one after another."""
        return torch.cat([part.flatten(0, 1) for part in states])

    def restore(self, edges: Tensor, batch: int) -> Tensor:
        """The states of all edges as (B, P, d)."""
        return torch.cat(self.divide(edges, batch), dim=1)

    def divide(self, edges: Tensor, batch: int) -> list[Tensor]:
        """The states of each edge set, (B, pairs, d): undoes :meth:`arrange`."""
        relations = relations_of(self.spec)
        counts = [batch * relation.pairs for relation in relations]
        width = edges.shape[-1]
        parts = zip(edges.split(counts), relations, strict=True)
        return [part.view(batch, relation.pairs, width) for part, relation in parts]

    def edge_step(
        self, source: Tensor, target: Tensor, edges: Tensor, maps: EdgeMaps
    ) -> EdgeOutputs:
        """The edge computation of a layer.

        With ``(a, b, c) = relu(source_j + target_i + read(norm(e_ij)))``, gives the averages of
        ``a`` at targets and of ``b`` at sources, and ``e_ij + write(c)``. Under autocast, products
        run in its type; states of edges keep theirs.

        Args:
            source: (B, N, 3 d) projections of neurons as sources of edges.
            target: (B, N, 3 d) projections of neurons as targets of edges.
            edges: (B P, d) states, as arranged.
            maps: the linear maps that are applied to every edge.
        """
        device_type = edges.device.type
        mixed = torch.is_autocast_enabled(device_type)
        dtype = torch.get_autocast_dtype(device_type) if mixed else edges.dtype
        products = (tensor.to(dtype) for tensor in (source, target, *maps))
        with torch.autocast(device_type, enabled=False):
            outputs = _EdgeFunction.apply(
                edge_ranges(self.spec), torch.is_grad_enabled(), edges, *products
            )
        return EdgeOutputs(*outputs)


class _Saved(NamedTuple):
    """Tensors saved for the backward pass, by row.

    Attributes:
        scale: (B P, 1) one over the deviation of the states.
        normal: (B P, d) normalised states.
        update: (B P, d) hidden layer of the update.
        signs: (B P, 2 d) where the hidden layers of the messages are positive.
    """

    scale: Tensor
    normal: Tensor
    update: Tensor
    signs: Tensor


class _EdgeFunction(torch.autograd.Function):
    @staticmethod
    def forward(
        context: Any,
        ranges: tuple[EdgeRange, ...],
        keep: bool,
        edges: Tensor,
        source: Tensor,
        target: Tensor,
        read: Tensor,
        write: Tensor,
        bias: Tensor,
    ) -> tuple[Tensor, ...]:
        num_rows, width = edges.shape
        size = num_rows if keep else 0
        saved = _Saved(
            edges.new_empty(num_rows, 1),
            read.new_empty(size, width),
            read.new_empty(size, width),
            edges.new_empty(size, 2 * width, dtype=torch.bool),
        )
        into, out = (torch.zeros_like(source[..., :width]) for _ in range(2))
        mean = torch.zeros_like(into[:, 0])
        new = torch.add(edges, bias)
        buffer = _buffer(ranges, len(source), edges, read)
        for part in ranges:
            at_source, at_target = part.relation.source, part.relation.target
            ends = at_source.spread(source), at_target.spread(target)
            results = at_target.spread(into), at_source.spread(out)
            for tile in part.tiles(len(source), _max_pairs(edges)):
                rows = tile.rows
                normal = _normalise(edges[rows], saved.scale[rows]).to(read.dtype)
                hidden = buffer[: len(normal)]
                from_source, from_target = (tile.of(end) for end in ends)
                # Neither end has all dimensions where an axis stands twice at one of them.
                torch.add(from_source.expand(*tile.shape, -1), from_target, out=tile.block(hidden))
                hidden.addmm_(normal, read.T).relu_()
                block = tile.block(hidden)
                messages, reverse_messages = block[..., :width], block[..., width : 2 * width]
                _add_sums(tile.of(results[0]), messages, at_target, part.share)
                _add_sums(tile.of(results[1]), reverse_messages, at_source, part.share)
                _add_product(new[rows], hidden[:, 2 * width :], write.T)
                if keep:
                    saved.normal[rows], saved.update[rows] = normal, hidden[:, 2 * width :]
                    saved.signs[rows] = hidden[:, : 2 * width]  # True where not 0
        pairs = num_rows // max(len(source), 1)
        counts = [len(source) * part.relation.pairs for part in ranges]
        for part, states in zip(ranges, new.split(counts), strict=True):
            mean += states.view(len(source), part.relation.pairs, width).sum(dim=1)
        if keep:
            context.ranges = ranges
            context.save_for_backward(*saved, read, write)
        return into, out, new, mean.div_(max(pairs, 1))

    @staticmethod
    @once_differentiable
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        into, out, new, mean = gradients
        *tensors, read, write = context.saved_tensors
        saved, ranges = _Saved(*tensors), context.ranges
        (num_rows, width), batch = new.shape, len(into)
        edges, bias_gradient = new.clone(), new.sum(dim=0) + mean.sum(dim=0)
        source, target = (into.new_zeros(*into.shape[:2], 3 * width) for _ in range(2))
        read_gradient, write_gradient = torch.zeros_like(read), torch.zeros_like(write)
        # The norm's subtraction of the mean, done once on the map instead of on every edge.
        centred = read - read.mean(dim=1, keepdim=True)
        buffer = _buffer(ranges, batch, edges, read)
        counts = [batch * part.relation.pairs for part in ranges]
        for part, states in zip(ranges, edges.split(counts), strict=True):
            share = batch / max(num_rows, 1)
            states.view(batch, part.relation.pairs, width).add_((mean * share).unsqueeze(1))
            at_source, at_target = part.relation.source, part.relation.target
            ends = at_target.spread(into * part.share), at_source.spread(out * part.share)
            results = at_source.spread(source), at_target.spread(target)
            for tile in part.tiles(batch, _max_pairs(edges)):
                rows = tile.rows
                normal, update = saved.normal[rows], saved.update[rows]
                change = edges[rows].to(read.dtype)
                hidden = buffer[: len(normal)]
                block, signs = tile.block(hidden), tile.block(_as_numbers(saved.signs[rows], read))
                for index, end in enumerate(ends):
                    channels = slice(index * width, (index + 1) * width)
                    _where_positive(block[..., channels], tile.of(end), signs[..., channels])
                _where_positive(hidden[:, 2 * width :], change @ write, update)
                for result, end in zip(results, (at_source, at_target), strict=True):
                    _add_sums(tile.of(result), block, end)
                read_gradient.addmm_(hidden.T, normal)
                write_gradient.addmm_(change.T, update)
                gradient = (hidden @ centred).to(edges.dtype)
                along = torch.linalg.vecdot(gradient, normal.to(gradient.dtype)).unsqueeze(-1)
                gradient.addcmul_(normal, along, value=-1 / width)
                edges[rows].addcmul_(gradient, saved.scale[rows])
        gradients_of_maps = read_gradient, write_gradient, bias_gradient.to(read.dtype)
        return None, None, edges, source, target, *gradients_of_maps


def _buffer(ranges: tuple[EdgeRange, ...], batch: int, edges: Tensor, read: Tensor) -> Tensor:
    """Memory for the hidden layers of all tiles in turn; allocating for each would be slow."""
    most = _max_pairs(edges)
    sizes = [math.prod(tile.shape) for part in ranges for tile in part.tiles(batch, most)]
    return read.new_empty(max(sizes, default=0), len(read))


def _max_pairs(edges: Tensor) -> int:
    """Number of pairs of a tile."""
    size = TILE_BYTES.get(edges.device.type, LARGE_TILE_BYTES)
    return max(1, size // (3 * edges.shape[-1] * edges.element_size()))


def _normalise(states: Tensor, scale: Tensor) -> Tensor:
    """States of mean 0 and variance 1; writes the inverse deviations into ``scale``."""
    centred = states - states.mean(dim=-1, keepdim=True)
    length = torch.linalg.vector_norm(centred, dim=-1, keepdim=True)
    torch.rsqrt(length.square_().div_(states.shape[-1]).add_(EPSILON), out=scale)
    return centred.mul_(scale)


def _add_sums(result: Tensor, block: Tensor, end: End, factor: float = 1.0) -> None:
    """Adds the block's sums over the dimensions that do not index an end, in place."""
    if end.others:
        block = block.sum(end.reduced, keepdim=True)
    result.add_(block, alpha=factor)


def _add_product(states: Tensor, left: Tensor, right: Tensor) -> None:
    """Adds ``left @ right`` to states in place."""
    if states.dtype == left.dtype:
        states.addmm_(left, right)
    else:
        states += left @ right


def _as_numbers(flags: Tensor, like: Tensor) -> Tensor:
    """Ones and zeros; eight times as fast as from booleans."""
    return flags.view(torch.int8).to(like.dtype)


def _where_positive(result: Tensor, values: Tensor, signs: Tensor) -> None:
    """Writes values where the signs are positive, and 0 elsewhere: the gradient of a ReLU."""
    torch.ops.aten.threshold_backward.grad_input(
        values.expand_as(result), signs, 0, grad_input=result
    )
