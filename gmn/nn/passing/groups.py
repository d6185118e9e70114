"""Means over the neurons of one head, or of one group of channels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from gmn.graph.topology import memberships
from gmn.spec import GraphSpec


@dataclass(frozen=True, eq=False)
class Groups:
    """Neurons and their groups.

    Attributes:
        members: (2, M) indices of neuron and group.
        share: (M, 1) one over the number of neurons of the group.
        count: number of groups.
    """

    members: Tensor
    share: Tensor
    count: int

    def __bool__(self) -> bool:
        """Whether any neuron belongs to a group."""
        return self.members.shape[1] > 0

    def means(self, nodes: Tensor) -> Tensor:
        """The mean of every neuron's group, summed over its groups; shapes (..., N, d)."""
        node, group = self.members
        groups = nodes.new_zeros(*nodes.shape[:-2], self.count, nodes.shape[-1])
        means = groups.index_add(-2, group, nodes.index_select(-2, node) * self.share)
        return torch.zeros_like(nodes).index_add(-2, node, means.index_select(-2, group))


@lru_cache(maxsize=64)
def groups_of(spec: GraphSpec, device: torch.device, dtype: torch.dtype) -> Groups:
    """The groups of a spec; cached, so treat its tensors as read-only."""
    members = memberships(spec)
    sizes = torch.bincount(members[1])
    share = 1 / sizes[members[1]].to(dtype).unsqueeze(1)
    return Groups(members.to(device), share.to(device), len(sizes))
