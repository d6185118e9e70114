"""A parameter graph under revision: changed blocks are copies, all others are shared."""

from __future__ import annotations

import torch
from torch import Tensor

from gmn.graph import ParameterGraph
from gmn.topology import view_block
from gmn.values import as_real, computable, like


class Draft:
    """Values of a graph that may be changed block by block; the graph keeps its own.

    Args:
        graph: where the values come from.
        dtype: type to compute in; None for the values' own.
    """

    def __init__(self, graph: ParameterGraph, dtype: torch.dtype | None = None) -> None:
        self.spec = graph.spec
        self._graph, self._dtype = graph, dtype
        self._fresh: dict[str, Tensor] = {}

    def block(self, name: str) -> Tensor:
        """An edge set's values (B, *shape), as a view of a copy that may be changed."""
        edges = self.spec.edge_set(name)
        if edges.parameter not in self._fresh:
            value = computable(as_real(self._graph.values[edges.parameter]))
            self._fresh[edges.parameter] = value.to(self._dtype, copy=True).contiguous()
        return view_block(self._fresh[edges.parameter], edges)

    def finish(self) -> ParameterGraph:
        """The graph with what was changed, in its own type."""
        values = self._graph.values
        return self._graph.replace({n: like(v, values[n]) for n, v in self._fresh.items()})


def along(numbers: Tensor, dims: tuple[int, ...], block: Tensor) -> Tensor:
    """Numbers (B, *sizes of dims) in the block's dimensions, of size 1 along the others."""
    order = sorted(range(len(dims)), key=dims.__getitem__)
    shape = [n if dim in dims else 1 for dim, n in enumerate(block.shape[1:])]
    return numbers.permute(0, *(1 + dim for dim in order)).reshape(len(block), *shape)


def sum_onto(block: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Sums over all other dimensions: (B, *sizes of dims). The adjoint of :func:`along`."""
    return as_matrices(block, dims).sum(-1)


def as_matrices(block: Tensor, dims: tuple[int, ...]) -> Tensor:
    """The block as matrices (B, *sizes of dims, everything else); the last of dims are rows."""
    moved = block.permute(_order(block, dims))
    return moved.reshape(*moved.shape[: 1 + len(dims)], -1)


def from_matrices(matrices: Tensor, dims: tuple[int, ...], block: Tensor) -> Tensor:
    """Undoes :func:`as_matrices`, into the shape of ``block``."""
    order = _order(block, dims)
    inverse = sorted(range(len(order)), key=order.__getitem__)
    return matrices.reshape([block.shape[dim] for dim in order]).permute(inverse)


def _order(block: Tensor, dims: tuple[int, ...]) -> list[int]:
    others = [dim for dim in range(block.dim() - 1) if dim not in dims]
    return [0, *(1 + dim for dim in (*dims, *others))]
