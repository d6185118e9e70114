"""The dense executor: every edge set is a block, and the edge work of a layer runs on blocks.

The sources and targets of an edge set's pairs are dimensions of its block, so what nodes tell
edges is a broadcast and what edges tell nodes a sum along dimensions: no edge list, no gather, no
scatter. Pairs pass in pieces that fit a cache, and of the three hidden layers of every edge one is
kept for the backward pass; of the messages' two, one bit's worth a number.
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
# Bytes of the hidden layers that are in memory at once: what stays in a core's caches, and what
# fills an accelerator.
PIECE = {"cpu": 3 * 2**20}
LARGE_PIECE = 2**28


class Exchanged(NamedTuple):
    """What the edge work of a layer gives.

    Attributes:
        into: (B, N, d) hidden layers of messages along edges, averaged within each edge set.
        out: (B, N, d) those against them, weighted likewise.
        edges: new states of edges, as the executor arranged them.
        mean: (B, d) their mean.
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
class Stretch:
    """A relation, and where its edges' states lie among those of all.

    Attributes:
        relation: the edges.
        first: number of the first one.
    """

    relation: Relation
    first: int

    @property
    def share(self) -> float:
        """One over the number of edges into each target."""
        return 1 / max(self.relation.degree, 1)

    def pieces(self, batch: int, most: int) -> Iterator[Slab]:
        """Parts of the block of ``batch`` networks with at most ``most`` pairs, if possible."""
        shape, pairs = self.relation.shape, self.relation.pairs
        start, networks = batch * self.first, max(1, most // max(pairs, 1))
        if networks > 1 or not shape:
            for low in range(0, batch, networks):
                high = min(low + networks, batch)
                rows = slice(start + low * pairs, start + high * pairs)
                yield Slab(slice(low, high), slice(None), rows, (high - low, *shape))
            return
        each = math.prod(shape[1:])
        lines = max(1, most // max(each, 1))
        for network in range(batch):
            base = start + network * pairs
            for low in range(0, shape[0], lines):
                high = min(low + lines, shape[0])
                rows = slice(base + low * each, base + high * each)
                yield Slab(
                    slice(network, network + 1), slice(low, high), rows, (1, high - low, *shape[1:])
                )


@dataclass(frozen=True)
class Slab:
    """A part of a block: some networks, or some lines of one network's block.

    Attributes:
        networks: which networks.
        lines: which indices of the block's first dimension.
        rows: their rows among the states of all edges.
        shape: (networks, *block).
    """

    networks: slice
    lines: slice
    rows: slice
    shape: tuple[int, ...]

    def of(self, end: Tensor) -> Tensor:
        """The part of a view that ``End.spread`` made, to be read or written."""
        end = end[self.networks]
        return end[:, self.lines] if len(self.shape) > 1 and end.shape[1] > 1 else end

    def block(self, rows: Tensor) -> Tensor:
        """Stretch (n, c) as (networks, *block, c)."""
        return rows.view(*self.shape, rows.shape[-1])


@lru_cache(maxsize=64)
def stretches_of(spec: GraphSpec) -> tuple[Stretch, ...]:
    """The stretches of all edge sets, in the spec's order."""
    relations = relations_of(spec)
    first = accumulate((relation.pairs for relation in relations[:-1]), initial=0)
    return tuple(map(Stretch, relations, first))


@dataclass(frozen=True)
class DenseExecutor:
    """The edge work of a layer on the blocks of a spec.

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

    def exchange(self, source: Tensor, target: Tensor, edges: Tensor, maps: EdgeMaps) -> Exchanged:
        """The edge work of a layer.

        With ``(a, b, c) = relu(source_j + target_i + read(norm(e_ij)))``, gives the averages of
        ``a`` at targets and of ``b`` at sources, and ``e_ij + write(c)``. Under autocast, products
        run in its type; states of edges keep theirs.

        Args:
            source: (B, N, 3 d) what neurons tell the edges that leave them.
            target: (B, N, 3 d) what they tell those that enter.
            edges: (B P, d) states, as arranged.
            maps: what is applied to every edge.
        """
        kind = edges.device.type
        mixed = torch.is_autocast_enabled(kind)
        type_ = torch.get_autocast_dtype(kind) if mixed else edges.dtype
        products = (tensor.to(type_) for tensor in (source, target, *maps))
        with torch.autocast(kind, enabled=False):
            found = _Exchange.apply(
                stretches_of(self.spec), torch.is_grad_enabled(), edges, *products
            )
        return Exchanged(*found)


class _Kept(NamedTuple):
    """What the backward pass cannot do without, by row.

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


class _Exchange(torch.autograd.Function):
    @staticmethod
    def forward(
        context: Any,
        parts: tuple[Stretch, ...],
        keep: bool,
        edges: Tensor,
        source: Tensor,
        target: Tensor,
        read: Tensor,
        write: Tensor,
        bias: Tensor,
    ) -> tuple[Tensor, ...]:
        rows, width = edges.shape
        size = rows if keep else 0
        kept = _Kept(
            edges.new_empty(rows, 1),
            read.new_empty(size, width),
            read.new_empty(size, width),
            edges.new_empty(size, 2 * width, dtype=torch.bool),
        )
        into, out = (torch.zeros_like(source[..., :width]) for _ in range(2))
        mean = torch.zeros_like(into[:, 0])
        new = torch.add(edges, bias)
        room = _room(parts, len(source), edges, read)
        for part in parts:
            at_source, at_target = part.relation.source, part.relation.target
            ends = at_source.spread(source), at_target.spread(target)
            results = at_target.spread(into), at_source.spread(out)
            for piece in part.pieces(len(source), _most(edges)):
                at = piece.rows
                normal = _normalise(edges[at], kept.scale[at]).to(read.dtype)
                hidden = room[: len(normal)]
                read_, written = (piece.of(end) for end in ends)
                # Neither end has all dimensions where an axis stands twice at one of them.
                torch.add(read_.expand(*piece.shape, -1), written, out=piece.block(hidden))
                hidden.addmm_(normal, read.T).relu_()
                block = piece.block(hidden)
                ahead, back = block[..., :width], block[..., width : 2 * width]
                _add_sums(piece.of(results[0]), ahead, at_target, part.share)
                _add_sums(piece.of(results[1]), back, at_source, part.share)
                _add_product(new[at], hidden[:, 2 * width :], write.T)
                if keep:
                    kept.normal[at], kept.update[at] = normal, hidden[:, 2 * width :]
                    kept.signs[at] = hidden[:, : 2 * width]  # True where not 0
        pairs = rows // max(len(source), 1)
        counts = [len(source) * part.relation.pairs for part in parts]
        for part, states in zip(parts, new.split(counts), strict=True):
            mean += states.view(len(source), part.relation.pairs, width).sum(dim=1)
        if keep:
            context.parts = parts
            context.save_for_backward(*kept, read, write)
        return into, out, new, mean.div_(max(pairs, 1))

    @staticmethod
    @once_differentiable
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        into, out, new, mean = gradients
        *tensors, read, write = context.saved_tensors
        kept, parts = _Kept(*tensors), context.parts
        (rows, width), batch = new.shape, len(into)
        edges, of_bias = new.clone(), new.sum(dim=0) + mean.sum(dim=0)
        source, target = (into.new_zeros(*into.shape[:2], 3 * width) for _ in range(2))
        of_read, of_write = torch.zeros_like(read), torch.zeros_like(write)
        # The norm's subtraction of the mean, done once on the map instead of on every edge.
        centred = read - read.mean(dim=1, keepdim=True)
        room = _room(parts, batch, edges, read)
        counts = [batch * part.relation.pairs for part in parts]
        for part, states in zip(parts, edges.split(counts), strict=True):
            share = batch / max(rows, 1)
            states.view(batch, part.relation.pairs, width).add_((mean * share).unsqueeze(1))
            at_source, at_target = part.relation.source, part.relation.target
            ends = at_target.spread(into * part.share), at_source.spread(out * part.share)
            results = at_source.spread(source), at_target.spread(target)
            for piece in part.pieces(batch, _most(edges)):
                at = piece.rows
                normal, update, change = kept.normal[at], kept.update[at], edges[at].to(read.dtype)
                hidden = room[: len(normal)]
                block, signs = piece.block(hidden), piece.block(_as_numbers(kept.signs[at], read))
                for place, end in enumerate(ends):
                    own = slice(place * width, (place + 1) * width)
                    _where_positive(block[..., own], piece.of(end), signs[..., own])
                _where_positive(hidden[:, 2 * width :], change @ write, update)
                for result, end in zip(results, (at_source, at_target), strict=True):
                    _add_sums(piece.of(result), block, end)
                of_read.addmm_(hidden.T, normal)
                of_write.addmm_(change.T, update)
                back = (hidden @ centred).to(edges.dtype)
                along = torch.linalg.vecdot(back, normal.to(back.dtype)).unsqueeze(-1)
                back.addcmul_(normal, along, value=-1 / width)
                edges[at].addcmul_(back, kept.scale[at])
        return None, None, edges, source, target, of_read, of_write, of_bias.to(read.dtype)


def _room(parts: tuple[Stretch, ...], batch: int, edges: Tensor, read: Tensor) -> Tensor:
    """Where the hidden layers of one piece after the other lie; fresh memory is slow."""
    sizes = [math.prod(p.shape) for part in parts for p in part.pieces(batch, _most(edges))]
    return read.new_empty(max(sizes, default=0), len(read))


def _most(edges: Tensor) -> int:
    """How many pairs pass at once."""
    room = PIECE.get(edges.device.type, LARGE_PIECE)
    return max(1, room // (3 * edges.shape[-1] * edges.element_size()))


def _normalise(states: Tensor, scale: Tensor) -> Tensor:
    """States of mean 0 and variance 1; writes what they were multiplied with into ``scale``."""
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
