"""Relations: the blocks of pairs along which neurons exchange messages.

The sources and targets of an edge set's pairs are dimensions of its block, so states of nodes are
broadcast to edges and messages reduced along dimensions: no edge list, no
gather, no scatter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from gmn.nn.passing.groups import Groups, groups_of
from gmn.spec import EdgeSet, GraphSpec


@dataclass(frozen=True)
class End:
    """One end of a relation: which dimensions of the block index the nodes.

    Attributes:
        nodes: name of the set of nodes.
        first: index of its first node.
        shape: sizes of its axes.
        dims: for each axis, the dimension of the block that runs over it.
        others: the block's other dimensions.
    """

    nodes: str
    first: int
    shape: tuple[int, ...]
    dims: tuple[int, ...]
    others: tuple[int, ...]

    @property
    def size(self) -> int:
        """Number of neurons."""
        return math.prod(self.shape)

    @property
    def reduced(self) -> tuple[int, ...]:
        """The dimensions of (B, *block, c) over which each neuron's edges lie."""
        return tuple(1 + dim for dim in self.others)

    def spread(self, nodes: Tensor) -> Tensor:
        """A view of (B, N, c) that broadcasts to the block's (B, *block, c)."""
        block = nodes[:, self.first : self.first + self.size]
        block = block.view(len(nodes), *self.shape, nodes.shape[-1])
        order = sorted(range(len(self.dims)), key=self.dims.__getitem__)
        block = block.permute(0, *(1 + axis for axis in order), -1)
        for dim in self.others:
            block = block.unsqueeze(1 + dim)
        return block

    def gather(self, reduced: Tensor) -> Tensor:
        """From (B, *block without others, c), reduced over :attr:`reduced`, to (B, size, c)."""
        order = sorted(self.dims)
        moved = reduced.permute(0, *(1 + order.index(dim) for dim in self.dims), -1)
        return moved.flatten(1, -2) if self.dims else moved.unsqueeze(1)


@dataclass(frozen=True)
class Relation:
    """Edges from one set of nodes to another.

    Attributes:
        name: name of the edge set whose weights they are.
        shape: shape of the block without taps.
        source: the end that is read.
        target: the end that is written.
        reverse: whether the edges run against the network's own direction.
    """

    name: str
    shape: tuple[int, ...]
    source: End
    target: End
    reverse: bool = False

    @property
    def pairs(self) -> int:
        """Number of edges."""
        return math.prod(self.shape)

    @property
    def degree(self) -> int:
        """Number of edges into each target."""
        return math.prod(self.shape[dim] for dim in self.target.others)

    def reversed(self) -> Relation:
        """The same edges in the other direction."""
        return replace(self, source=self.target, target=self.source, reverse=not self.reverse)


@dataclass(frozen=True, eq=False)
class Wiring:
    """The relations and groups of an architecture, on which layers pass messages.

    Attributes:
        spec: the architecture.
        relations: weights in the network's direction, then the same in reverse if included. Edge
            states are a list with one tensor (B, *shape, channels) for each.
        sizes: sizes of the sets of nodes, by name and in order; their sum is N.
        groups: neurons of one head, or of one group of channels.
    """

    spec: GraphSpec
    relations: tuple[Relation, ...]
    sizes: Mapping[str, int]
    groups: Groups

    @cached_property
    def degree(self) -> Tensor:
        """Number of edges into each neuron: shape (N, 1); treat it as read-only."""
        degree = self.groups.share.new_zeros(sum(self.sizes.values()), 1)
        for relation in self.relations:
            end = relation.target
            degree[end.first : end.first + end.size] += relation.degree
        return degree

    def reverse_states(self, edges: list[Tensor]) -> list[Tensor]:
        """For every relation, the states of the same edges in the other direction."""
        half = len(edges) // 2
        return edges[half:] + edges[:half]


@lru_cache(maxsize=64)
def relations_of(spec: GraphSpec) -> tuple[Relation, ...]:
    """The relations of all edge sets, diagonal ones included, in the spec's order."""
    first, nodes = {}, 0
    for node_set in spec.node_sets:
        first[node_set.name], nodes = nodes, nodes + node_set.size
    return tuple(
        Relation(
            edges.name,
            tuple(dim.size for dim in edges.dims if dim.port != "tap"),
            _end(spec, edges, "source", first[edges.source]),
            _end(spec, edges, "target", first[edges.target]),
        )
        for edges in spec.edge_sets
    )


def _end(spec: GraphSpec, edges: EdgeSet, port: str, first: int) -> End:
    pair_dims = [dim for dim in edges.dims if dim.port != "tap"]
    dim_of: dict[tuple[str | None, str], int] = {
        (dim.axis, dim.port): index for index, dim in enumerate(pair_dims)
    }
    nodes = spec.node_set(edges.source if port == "source" else edges.target)
    dims = tuple(
        dim_of[(axis, port) if (axis, port) in dim_of else (axis, "both")] for axis in nodes.axes
    )
    others = tuple(dim for dim in range(len(pair_dims)) if dim not in dims)
    return End(nodes.name, first, nodes.shape, dims, others)


@lru_cache(maxsize=64)
def wiring_of(spec: GraphSpec, device: torch.device, dtype: torch.dtype, reverse: bool) -> Wiring:
    """The wiring of a spec; cached, so treat its tensors as read-only.

    Args:
        spec: the architecture.
        device: device of its tensors.
        dtype: type of its tensors.
        reverse: whether messages also run against the network's direction.
    """
    pairs = zip(spec.edge_sets, relations_of(spec), strict=True)
    forward = tuple(relation for edges, relation in pairs if not edges.diagonal)
    backward = tuple(relation.reversed() for relation in forward) if reverse else ()
    sizes = {nodes.name: nodes.size for nodes in spec.node_sets}
    return Wiring(spec, forward + backward, sizes, groups_of(spec, device, dtype))


@dataclass(frozen=True)
class Chunk:
    """A part of a relation that fits a bound on memory.

    Attributes:
        networks: the range of networks.
        dim: the dimension of the block of which it takes a part; None to take all.
        lines: the range of indices of that dimension.
    """

    networks: slice
    dim: int | None
    lines: slice

    def of(self, tensor: Tensor) -> Tensor:
        """The part of a tensor that broadcasts to (B, *block, c)."""
        tensor = tensor[self.networks]
        if self.dim is None or tensor.shape[1 + self.dim] == 1:
            return tensor
        return tensor.narrow(1 + self.dim, self.lines.start, self.lines.stop - self.lines.start)


def chunks(relation: Relation, batch: int, max_edges: int) -> list[list[Chunk]]:
    """Parts of the relation of ``batch`` networks with at most ``max_edges`` edges, if possible.

    Every target's edges stay together.

    Returns:
        Parts of the same networks are parts along the first axis of the targets.
    """
    size = max(relation.pairs, 1)
    networks = max(1, max_edges // size)
    starts = range(0, max(batch, 1), networks)  # one empty part of no networks
    groups = [slice(low, min(low + networks, batch)) for low in starts]
    if size <= max_edges or not relation.target.dims:
        return [[Chunk(group, None, slice(None))] for group in groups]
    dim = relation.target.dims[0]
    length = relation.shape[dim]
    lines = max(1, max_edges * length // size)
    cuts = [slice(low, min(low + lines, length)) for low in range(0, length, lines)]
    return [[Chunk(group, dim, cut) for cut in cuts] for group in groups]
