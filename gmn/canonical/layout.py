"""Numbers along some dimensions of a block: spread, summed, and as matrices."""

from __future__ import annotations

import math

from torch import Tensor


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
    rest = math.prod(moved.shape[1 + len(dims) :])  # not -1, for batches of no networks
    return moved.reshape(*moved.shape[: 1 + len(dims)], rest)


def from_matrices(matrices: Tensor, dims: tuple[int, ...], block: Tensor) -> Tensor:
    """Undoes :func:`as_matrices`, into the shape of ``block``."""
    order = _order(block, dims)
    inverse = sorted(range(len(order)), key=order.__getitem__)
    return matrices.reshape([block.shape[dim] for dim in order]).permute(inverse)


def _order(block: Tensor, dims: tuple[int, ...]) -> list[int]:
    others = [dim for dim in range(block.dim() - 1) if dim not in dims]
    return [0, *(1 + dim for dim in (*dims, *others))]
