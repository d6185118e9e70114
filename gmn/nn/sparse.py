"""The sparse executor: PyG's message passing over a list of edges."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType

import torch
from torch import Tensor
from torch.nn.functional import layer_norm, linear
from torch_geometric.nn import MessagePassing

from gmn.graph.topology import topology
from gmn.nn.dense import EdgeMaps, EdgeOutputs
from gmn.spec import GraphSpec


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
        pointer: shape (N + 1,), index of each node's first message.
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
        order: (P,) index of each edge in the spec's order.
        pointer: (N + 1,) index of each target's first edge.
        share: (P, 1) one over the number of edges of the same edge set into the same target.
        counts: number of pairs of each edge set.
    """

    edge_index: Tensor
    order: Tensor
    pointer: Tensor
    share: Tensor
    counts: tuple[int, ...]


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
    return EdgeIndex(
        torch.stack([source[order], target[order]]).to(device),
        order.to(device),
        pointer.to(device),
        share.to(device),
        tuple(torch.bincount(parts.edge_set, minlength=len(spec.edge_sets)).tolist()),
    )


class SparseExecutor(MessagePassing):
    """The edge computation of a layer with gathers and scatters; the reference for the dense one.

    Args:
        index: the pairs of the spec.
    """

    def __init__(self, index: EdgeIndex) -> None:
        super().__init__(node_dim=-2)
        self.index = index

    def arrange(self, states: Sequence[Tensor]) -> Tensor:
        """States of edge sets, (B, pairs, d) each, as one tensor (B, P, d), sorted by target."""
        return torch.cat(list(states), dim=1)[:, self.index.order]

    def restore(self, edges: Tensor, batch: int) -> Tensor:
        """The states of all edges as (B, P, d), in any order."""
        return edges

    def divide(self, edges: Tensor, batch: int) -> list[Tensor]:
        """The states of each edge set, (B, pairs, d): undoes :meth:`arrange`."""
        return list(edges[:, self.index.order.argsort()].split(self.index.counts, dim=1))

    def edge_step(
        self, source: Tensor, target: Tensor, edges: Tensor, maps: EdgeMaps
    ) -> EdgeOutputs:
        """As :meth:`gmn.nn.dense.DenseExecutor.edge_step`, on edges sorted by target."""
        index = self.index
        normal = layer_norm(edges, edges.shape[-1:])
        forward_hidden, reverse_hidden, update = self.edge_updater(
            index.edge_index, source=source, target=target, edge=linear(normal, maps.read)
        )
        size = (source.shape[-2],) * 2
        into = self.propagate(
            index.edge_index, message=forward_hidden * index.share, pointer=index.pointer, size=size
        )
        out = torch.zeros_like(into).index_add(
            -2, index.edge_index[0], reverse_hidden * index.share
        )
        edges = edges + linear(update, maps.write, maps.bias)
        return EdgeOutputs(into, out, edges, edges.sum(dim=1) / max(edges.shape[1], 1))

    def edge_update(self, source_j: Tensor, target_i: Tensor, edge: Tensor) -> tuple[Tensor, ...]:
        """Hidden layers of both messages and of the edge update, each (B, P, d)."""
        # In place: none of the three is needed for the backward pass.
        return source_j.add_(target_i).add_(edge).relu_().chunk(3, dim=-1)

    def message(self, message: Tensor) -> Tensor:
        """Messages are computed with the edge update."""
        return message

    def aggregate(self, inputs: Tensor, index: Tensor, pointer: Tensor) -> Tensor:
        """Sums messages by target."""
        return sum_into_nodes(inputs, index, pointer)


@lru_cache(maxsize=64)
def sparse_executor(spec: GraphSpec, device: torch.device, dtype: torch.dtype) -> SparseExecutor:
    """The sparse executor of a spec; cached."""
    return SparseExecutor(edge_index(spec, device, dtype))
