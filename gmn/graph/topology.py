"""Views of edge sets in their parameter tensors, and the indices of nodes that edges connect."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from gmn.graph.values import as_real
from gmn.spec import Axis, EdgeSet, Exchange, GraphSpec

MAX_TAP_DIMS = 3


def view_block(values: Tensor, edges: EdgeSet) -> Tensor:
    """The part of stacked parameter tensors that an edge set holds, as a view.

    Args:
        values: shape (B, *parameter shape); of a complex parameter, complex numbers or their pairs.
        edges: the edge set.

    Returns:
        Tensor of shape (B, *edges.shape).
    """
    values = as_real(values)
    flat = values.reshape(len(values), math.prod(values.shape[1:]))
    if edges.size == flat.shape[1] and _is_contiguous(edges):
        return flat.reshape(len(values), *edges.shape)
    inner = flat.stride(1)
    strides = [dim.stride * inner for dim in edges.dims]
    start = flat.storage_offset() + edges.offset * inner
    return flat.as_strided((len(values), *edges.shape), (flat.stride(0), *strides), start)


def _is_contiguous(edges: EdgeSet) -> bool:
    expected = 1
    for dim in reversed(edges.dims):
        if dim.size > 1 and dim.stride != expected:
            return False
        expected *= dim.size
    return edges.offset == 0


def tap_order(edges: EdgeSet) -> tuple[int, ...]:
    """The block's dimensions with the taps moved to the end."""
    ports = [dim.port == "tap" for dim in edges.dims]
    return tuple(sorted(range(len(ports)), key=ports.__getitem__))


def tap_positions(edges: EdgeSet) -> Tensor:
    """Centred physical coordinates of the taps, in input positions.

    Returns:
        Tensor of shape (taps, 3); the last column is the last tap dimension, unused ones are 0.
        Of more than three dimensions, the first ones are numbered through.
    """
    dims = [(dim.size, dim.step) for dim in edges.dims if dim.port == "tap"]
    if (extra := len(dims) - MAX_TAP_DIMS + 1) > 1:
        dims = [(math.prod(size for size, _ in dims[:extra]), 1.0), *dims[extra:]]
    axes = [
        (torch.arange(size, dtype=torch.float64) - (size - 1) / 2) * step for size, step in dims
    ]
    grid = torch.cartesian_prod(*axes).reshape(-1, len(dims)) if dims else torch.zeros(1, 0)
    return torch.nn.functional.pad(grid, (MAX_TAP_DIMS - len(dims), 0)).to(torch.float32)


def pair_index(spec: GraphSpec, edges: EdgeSet) -> Tensor:
    """Source and target neuron of each pair that the edge set connects.

    Returns:
        Long tensor of shape (2, pairs): neuron numbers within the source and the target set, in
        the order of the block with its taps left out. Where an axis stands twice at an end, the
        last of its dimensions numbers the neuron.
    """
    pair_dims = [dim for dim in edges.dims if dim.port != "tap"]
    shape = [dim.size for dim in pair_dims]
    grids: dict[tuple[str | None, str], Tensor] = {
        (dim.axis, dim.port): torch.arange(dim.size).view(
            [-1 if i == position else 1 for i in range(len(shape))]
        )
        for position, dim in enumerate(pair_dims)
    }
    ends = []
    for port, node_set in (("source", edges.source), ("target", edges.target)):
        nodes = spec.node_set(node_set)
        index = torch.zeros(shape, dtype=torch.long)
        for name, size in zip(nodes.axes, nodes.shape, strict=True):
            own, shared = grids.get((name, port)), grids.get((name, "both"))
            position = own if own is not None else shared
            if position is None:
                raise ValueError(f"{edges.name}: no dimension indexes {name} of {node_set}")
            index = index * size + position
        ends.append(index.reshape(-1))
    return torch.stack(ends)


@lru_cache(maxsize=64)
def memberships(spec: GraphSpec) -> Tensor:
    """Groups of neurons that no edge connects: those of one head, of one group of channels.

    An axis of :func:`grouping_axes` numbers groups of neurons, in every node set that has it. After
    those come branches that may trade places, each with the neurons of its own: an expert with its
    output of the router.

    Returns:
        Long tensor of shape (2, M): neuron, and group that it belongs to; cached, so treat it as
        read-only.
    """
    first, groups = {}, 0
    for axis, count in grouping_axes(spec):
        first[axis.name], groups = groups, groups + count
    members_of, start = [torch.zeros(2, 0, dtype=torch.long)], 0
    for nodes in spec.node_sets:
        grids = torch.meshgrid(*map(torch.arange, nodes.shape), indexing="ij")
        for name in nodes.axes:
            if name in first:
                # An index of a nested axis means something only within its parents'.
                index = torch.zeros(nodes.shape, dtype=torch.long)
                for part in (*spec.axis(name).within, name):
                    index = index * spec.axis(part).size + grids[nodes.axes.index(part)]
                members = start + torch.arange(nodes.size)
                members_of.append(torch.stack([members, first[name] + index.flatten()]))
        start += nodes.size
    sizes = [nodes.size for nodes in spec.node_sets]
    neurons = torch.arange(sum(sizes)).split(sizes)
    for exchange in spec.exchanges:
        for group, branch in enumerate(own_node_sets(spec, exchange), start=groups):
            members = torch.cat([neurons[0][:0], *(neurons[index] for index in branch)])
            members_of.append(torch.stack([members, torch.full_like(members, group)]))
        groups += len(exchange.branches)
    return torch.cat(members_of, dim=1)


def grouping_axes(spec: GraphSpec) -> list[tuple[Axis, int]]:
    """Axes whose indices stand for groups of neurons, and how many groups each makes.

    They are those that others are nested in (heads of units), and those that several node sets
    have (the factors of a bilinear layer, and its pairs of them), unless their order is fixed.
    """
    outer = {name for axis in spec.axes for name in axis.within}
    owners = Counter(name for nodes in spec.node_sets for name in set(nodes.axes))
    return [
        (axis, axis.size * math.prod(spec.axis(name).size for name in axis.within))
        for axis in spec.axes
        if axis.name in outer or (axis.movable and owners[axis.name] > 1)
    ]


def own_node_sets(spec: GraphSpec, exchange: Exchange) -> list[list[int]]:
    """The node sets that no edges but those of one branch touch.

    Returns:
        Their numbers by branch, in corresponding order; none if branches have different ones.
    """
    index_of = {nodes.name: index for index, nodes in enumerate(spec.node_sets)}
    touching: dict[str, set[str]] = {nodes.name: set() for nodes in spec.node_sets}
    for edges in spec.edge_sets:
        for end in (edges.source, edges.target):
            touching[end].add(edges.tied_to or edges.name)
    owned = []
    for branch in exchange.branches:
        held = [spec.edge_set(name) for name in branch]
        ends = dict.fromkeys(end for edges in held for end in (edges.source, edges.target))
        owned.append([index_of[end] for end in ends if touching[end] <= {*branch}])
    shapes = {tuple(spec.node_sets[index].shape for index in branch) for branch in owned}
    return owned if len(shapes) == 1 else [[] for _ in owned]


@dataclass(frozen=True)
class Topology:
    """All pairs of neurons of a spec, with global indices.

    Attributes:
        edge_index: (2, P) source and target neuron of each pair, over all edge sets in order.
        edge_set: (P,) number of the edge set.
        node_set: (N,) number of each neuron's node set.
        node_offset: number of the first neuron of each node set.
    """

    edge_index: Tensor
    edge_set: Tensor
    node_set: Tensor
    node_offset: tuple[int, ...]


@lru_cache(maxsize=64)
def topology(spec: GraphSpec) -> Topology:
    """The pairs of a spec; cached, so treat its tensors as read-only."""
    sizes = [nodes.size for nodes in spec.node_sets]
    offsets = [sum(sizes[:i]) for i in range(len(sizes))]
    start = {n.name: offset for n, offset in zip(spec.node_sets, offsets, strict=True)}
    pairs = [
        pair_index(spec, edges) + torch.tensor([[start[edges.source]], [start[edges.target]]])
        for edges in spec.edge_sets
    ]
    counts = torch.tensor([pair.shape[1] for pair in pairs], dtype=torch.long)
    return Topology(
        edge_index=torch.cat(pairs, dim=1) if pairs else torch.zeros(2, 0, dtype=torch.long),
        edge_set=torch.arange(len(pairs)).repeat_interleave(counts),
        node_set=torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes)),
        node_offset=tuple(offsets),
    )
