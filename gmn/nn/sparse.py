"""The sparse executor: sums over the edges that enter each node."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType

import torch
from torch import Tensor

from gmn.spec import GraphSpec
from gmn.topology import memberships, topology


@lru_cache(maxsize=1)
def torch_scatter() -> ModuleType | None:
    """The optional torch-scatter package, or None where it is not installed."""
    try:
        return importlib.import_module("torch_scatter")
    except ImportError:
        return None


def sum_into_nodes(messages: Tensor, index: Tensor, pointer: Tensor, fast: bool = True) -> Tensor:
    """Sums messages by node.

    Args:
        messages: shape (..., E, d), sorted by node.
        index: shape (E,), the node of each message, ascending.
        pointer: shape (N + 1,), where each node's messages begin.
        fast: use torch-scatter's segment sum where installed; False for torch alone.

    Returns:
        Tensor of shape (..., N, d).
    """
    scatter = torch_scatter() if fast else None
    if scatter is not None:
        broadcast = pointer.view([1] * (messages.dim() - 2) + [-1])
        return scatter.segment_csr(messages, broadcast.expand(*messages.shape[:-2], -1))
    shape = (*messages.shape[:-2], len(pointer) - 1, messages.shape[-1])
    return messages.new_zeros(shape).index_add(messages.dim() - 2, index, messages)


@dataclass(frozen=True)
class EdgeIndex:
    """The neuron pairs of a spec for message passing, sorted by target.

    Attributes:
        edge_index: (2, P) source and target.
        order: (P,) number of each edge in the spec's order.
        pointer: (N + 1,) where each target's edges begin.
        share: (P, 1) one over the number of edges of the same edge set into the same target.
        members: (2, M) neuron and group of neurons (a head) that it belongs to.
        member_share: (M, 1) one over the number of neurons of the group.
    """

    edge_index: Tensor
    order: Tensor
    pointer: Tensor
    share: Tensor
    members: Tensor
    member_share: Tensor

    def share_in_groups(self, nodes: Tensor) -> Tensor:
        """The mean of every neuron's group, summed over its groups; shapes (..., N, d)."""
        node, group = self.members
        groups = nodes.new_zeros(*nodes.shape[:-2], len(group), nodes.shape[-1])
        means = groups.index_add(-2, group, nodes[..., node, :] * self.member_share)
        return torch.zeros_like(nodes).index_add(-2, node, means[..., group, :])


@lru_cache(maxsize=64)
def edge_index(spec: GraphSpec, device: torch.device, dtype: torch.dtype) -> EdgeIndex:
    """The spec's pairs sorted by target; cached, so treat its tensors as read-only."""
    parts = topology(spec)
    source, target = parts.edge_index
    order = target.argsort(stable=True)
    into_set = target * len(spec.edge_sets) + parts.edge_set
    count = torch.bincount(into_set, minlength=spec.num_nodes * len(spec.edge_sets))
    share = 1 / count[into_set[order]].to(dtype).unsqueeze(1)
    degree = torch.bincount(target, minlength=spec.num_nodes)
    pointer = torch.cat([torch.zeros(1, dtype=torch.long), degree.cumsum(0)])
    members = memberships(spec)
    sizes = torch.bincount(members[1])
    return EdgeIndex(
        torch.stack([source[order], target[order]]).to(device),
        order.to(device),
        pointer.to(device),
        share.to(device),
        members.to(device),
        (1 / sizes[members[1]].to(dtype).unsqueeze(1)).to(device),
    )
