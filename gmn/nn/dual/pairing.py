"""Pairing: features that tell which queries belong to which values.

Node sets may share an axis although no edge joins them; the heads of queries and keys are those of
values. What differs between heads is small beside what all have in common, and a product of two
small differences is lost among rounding errors. Here differences count in units of their size.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from gmn.graph.topology import grouping_axes, memberships, own_node_sets
from gmn.spec import GraphSpec

SMALLEST = 1e-6  # differences between groups below this size fade out


@dataclass(frozen=True, eq=False)
class Pairs:
    """Groups of neurons (heads, branches) that several node sets have.

    A *part* is the neurons of one node set in one group; a *side* all parts of one node set.

    Attributes:
        node: (M,) neurons.
        part: (M,) the index of the part that each belongs to.
        group: (P,) the group of each part.
        side: (P,) index of the node set and axis (or exchange) of each part; node sets of branches
            that an exchange permutes count as one.
        sizes: (P, 1) neurons of each part.
        counts: (sides, 1) parts of each side.
        groups: number of groups.
    """

    node: Tensor
    part: Tensor
    group: Tensor
    side: Tensor
    sizes: Tensor
    counts: Tensor
    groups: int

    def __bool__(self) -> bool:
        """Whether there are any."""
        return self.node.numel() > 0

    def normalised(self, nodes: Tensor) -> Tensor:
        """Deviations of the parts' means from those of their side, normalised: (B, P, d)."""
        parts = nodes.new_zeros(len(nodes), len(self.group), nodes.shape[-1])
        means = parts.index_add(1, self.part, nodes.index_select(1, self.node)) / self.sizes.to(
            nodes
        )
        deviation = means - self._over_side(means).index_select(1, self.side)
        size = self._over_side(deviation.square().mean(dim=-1, keepdim=True))
        return deviation * (size + SMALLEST**2).rsqrt().index_select(1, self.side)

    def _over_side(self, parts: Tensor) -> Tensor:
        sums = parts.new_zeros(len(parts), len(self.counts), parts.shape[-1])
        return sums.index_add(1, self.side, parts) / self.counts.to(parts)

    def group_sums(self, parts: Tensor) -> Tensor:
        """Sums over the parts of each group, (B, P, c) to (B, groups, c)."""
        groups = parts.new_zeros(len(parts), self.groups, parts.shape[-1])
        return groups.index_add(1, self.group, parts)

    def to_nodes(self, groups: Tensor, count: int) -> Tensor:
        """Sums over the groups of each of ``count`` neurons; zeros for neurons of none."""
        nodes = groups.new_zeros(len(groups), count, groups.shape[-1])
        return nodes.index_add(1, self.node, groups.index_select(1, self.group[self.part]))


@lru_cache(maxsize=64)
def pairs_of(spec: GraphSpec, device: torch.device) -> Pairs:
    """The shared groups of a spec; cached, so treat its tensors as read-only."""
    node, group = memberships(spec)
    num_sets = len(spec.node_sets)
    # Not by gmn.graph.topology, which numbers every pair of neurons.
    sizes = torch.tensor([nodes.size for nodes in spec.node_sets])
    key = group * num_sets + torch.arange(num_sets).repeat_interleave(sizes)[node]
    sets_per_group = torch.bincount(key.unique() // num_sets, minlength=1)
    shared = sets_per_group[group] > 1  # groups that several node sets have
    keys, part = key[shared].unique(return_inverse=True)
    group_id, node_set = keys // num_sets, keys % num_sets
    kind = _kinds_of_groups(spec)[group_id]
    first = _first_of_branches(spec)
    side = (first[kind, node_set] * len(first) + kind).unique(return_inverse=True)[1]
    groups, group = group_id.unique(return_inverse=True)
    sizes, counts = (torch.bincount(ids).unsqueeze(1) for ids in (part, side))
    return Pairs(
        node[shared].to(device),
        part.to(device),
        group.to(device),
        side.to(device),
        sizes.to(device),
        counts.to(device),
        len(groups),
    )


def _kinds_of_groups(spec: GraphSpec) -> Tensor:
    """The index of the axis or, after those, of the exchange of each group.

    Groups are in the order of :func:`gmn.graph.topology.memberships`.
    """
    counts = {axis.name: count for axis, count in grouping_axes(spec)}
    sizes = [counts.get(axis.name, 0) for axis in spec.axes]
    sizes += [len(exchange.branches) for exchange in spec.exchanges]
    return torch.arange(len(sizes)).repeat_interleave(torch.tensor(sizes, dtype=torch.long))


def _first_of_branches(spec: GraphSpec) -> Tensor:
    """For each kind of group and node set, the node set that represents it.

    For branches that an exchange permutes, and branches inside of these, it is that of the first.
    """
    kinds, sets = len(spec.axes) + len(spec.exchanges), len(spec.node_sets)
    first = torch.arange(sets)
    for exchange in spec.exchanges:
        for corresponding in zip(*own_node_sets(spec, exchange), strict=True):
            roots = first[list(corresponding)]
            first[torch.isin(first, roots)] = roots.min()
    result = torch.arange(sets).repeat(kinds, 1)
    result[len(spec.axes) :] = first
    return result


class Pairing(nn.Module):
    """Products of the normalised deviations of the parts of each group, for all of its neurons.

    Args:
        width: channels of neurons.
        inner: channels of the products.
    """

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.one, self.other = (nn.Linear(width, inner, bias=False) for _ in range(2))
        self.out = nn.Linear(inner, width, bias=False)

    def forward(self, pairs: Pairs, nodes: Tensor) -> Tensor:
        """From states (B, N, width) to the term to add, of the same shape."""
        normalised = pairs.normalised(nodes)
        products = pairs.group_sums(self.one(normalised)) * pairs.group_sums(self.other(normalised))
        return pairs.to_nodes(self.out(products), nodes.shape[1])
