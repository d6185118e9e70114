"""Cuts large tensors into pieces, so that intermediate results stay small."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

PIECE = 2**20  # elements: converted to another type, they still fit a core's caches


def cut(tensor: Tensor, most: int) -> Iterator[tuple[slice, ...]]:
    """Slices of at most ``most`` elements that together cover a tensor, each element once.

    Cuts run along the dimension of the largest stride, so that a mapped file is read in its order.

    Args:
        tensor: any view.
        most: elements of a piece; at least 1.
    """
    if tensor.numel() <= most:
        yield (slice(None),) * tensor.dim()
        return
    wide = [place for place, size in enumerate(tensor.shape) if size > 1]
    place = max(wide, key=tensor.stride)
    size = tensor.shape[place]
    step = max(1, most * size // tensor.numel())
    for start in range(0, size, step):
        here = slice(start, min(start + step, size))
        for at in cut(tensor.narrow(place, start, here.stop - start), most):
            yield (*at[:place], here, *at[place + 1 :])


def mean(tensor: Tensor, dims: Sequence[int], dtype: torch.dtype) -> Tensor:
    """The mean over some dimensions, which stay with size 1, computed in ``dtype``.

    Unlike ``tensor.mean(dtype=...)`` on the CPU, this converts no more than a piece at a time.
    """
    if tensor.dtype == dtype:
        return tensor.mean(dim=tuple(dims), keepdim=True)
    shape = [1 if place in dims else size for place, size in enumerate(tensor.shape)]
    total = torch.zeros(shape, dtype=dtype, device=tensor.device)
    for at in cut(tensor, PIECE):
        part = tensor[at].to(dtype).sum(dim=tuple(dims), keepdim=True)
        total[tuple(slice(None) if p in dims else s for p, s in enumerate(at))] += part
    return total / math.prod(tensor.shape[place] for place in dims)
