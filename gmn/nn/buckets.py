"""Reductions over the edges of each node as dense reductions, whatever the graph.

Nodes of equal degree form a bucket. With edges sorted by bucket and node, the edges of a bucket are
a view of shape (nodes, degree, ...), so minima, deviations and softmaxes over the edges of a node
are reductions along a dimension: no scatter. Parameter graphs have about one degree per layer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Buckets:
    """Edges sorted by the degree of their target, then by target.

    Attributes:
        source: (E,) source node of each edge.
        target: (E,) its target node.
        order: (E,) its number before sorting.
        degree: (N, 1, 1) number of edges that enter each node.
        sizes: nodes and degree of each bucket.
        place: (N,) row of each node where the buckets' results follow one another; nodes without
            edges share one more row at the end.
    """

    source: Tensor
    target: Tensor
    order: Tensor
    degree: Tensor
    sizes: tuple[tuple[int, int], ...]
    place: Tensor

    def split(self, edges: Tensor) -> list[Tensor]:
        """Edge states (E, ...) as views of shape (nodes, degree, ...), one per bucket."""
        parts = edges.split([nodes * degree for nodes, degree in self.sizes])
        return [
            part.view(*size, *edges.shape[1:]) for part, size in zip(parts, self.sizes, strict=True)
        ]

    def gather(self, parts: list[Tensor], like: Tensor) -> Tensor:
        """Results (nodes, ...) of the buckets as one (N, ...); nodes without edges get zeros.

        Args:
            parts: one result per bucket.
            like: a tensor of the results' type and trailing shape.
        """
        return torch.cat([*parts, like.new_zeros(1, *like.shape[1:])]).index_select(0, self.place)

    def reduce(self, edges: Tensor, function: Callable[[Tensor], Tensor], width: int) -> Tensor:
        """Applies a reduction along dimension 1 to every bucket.

        Args:
            edges: shape (E, B, d).
            function: from (nodes, degree, B, d) to (nodes, B, width).
            width: channels of the result.

        Returns:
            Tensor of shape (N, B, width).
        """
        parts = [function(part) for part in self.split(edges)]
        return self.gather(parts, edges.new_empty(0, edges.shape[1], width))


def buckets(source: Tensor, target: Tensor, nodes: int) -> Buckets:
    """Sorts the edges of a graph with ``nodes`` nodes."""
    degree = torch.bincount(target, minlength=nodes)
    order = (degree[target] * nodes + target).argsort(stable=True)
    ranked = (degree * nodes + torch.arange(nodes, device=target.device)).argsort()
    ranked = ranked[degree[ranked] > 0]
    found, counts = degree[ranked].unique_consecutive(return_counts=True)
    place = torch.full_like(degree, len(ranked))
    place[ranked] = torch.arange(len(ranked), device=target.device)
    return Buckets(
        source[order],
        target[order],
        order,
        degree.view(-1, 1, 1),
        tuple(zip(counts.tolist(), found.tolist(), strict=True)),
        place,
    )
