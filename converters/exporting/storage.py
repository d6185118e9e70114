"""Finds state-dict entries that are views of the same memory but not the same tensor."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class View:
    """How an entry shares memory with another one.

    Attributes:
        owner: an entry before it that has some of this memory; itself, if elements of its own
            share memory (an expanded tensor).
        dims: for every dimension of the entry, the dimension of the owner that it is; None if the
            entry is not all of the owner with its dimensions reordered.
    """

    owner: str
    dims: tuple[int, ...] | None


def shared_views(model: nn.Module) -> dict[str, View]:
    """Finds the entries that overlap with an entry before them.

    An entry that is the very same tensor as one before it is a tie, and none of these. Where more
    than two entries overlap, each names one before it, and owners may have owners.

    Args:
        model: its tensors are not read; on the meta device nothing shares memory.

    Returns:
        By name of the entry.
    """
    result: dict[str, View] = {}
    seen: dict[int, list[tuple[str, Tensor]]] = {}  # by storage
    for name, tensor in model.state_dict(keep_vars=True).items():
        if not _has_memory(tensor):
            continue
        others = seen.setdefault(tensor.untyped_storage().data_ptr(), [])
        if any(tensor is other for _, other in others):
            continue
        overlapping = [(owner, other) for owner, other in others if _overlap(tensor, other)]
        others.append((name, tensor))
        if overlapping:
            views = [View(owner, _reordered(tensor, other)) for owner, other in overlapping]
            result[name] = next((view for view in views if view.dims is not None), views[0])
        elif _is_expanded(tensor):
            result[name] = View(name, None)
    return result


def _has_memory(tensor: object) -> bool:
    return (
        isinstance(tensor, Tensor)
        and not tensor.is_meta
        and tensor.layout == torch.strided
        and tensor.numel() > 0
        and tensor.untyped_storage().data_ptr() != 0
    )


def _is_expanded(tensor: Tensor) -> bool:
    sizes = zip(tensor.shape, tensor.stride(), strict=True)
    return any(size > 1 and step == 0 for size, step in sizes)


def _overlap(one: Tensor, other: Tensor) -> bool:
    """Whether they have an element in common, exact for views of at most a million elements."""
    (start, end), (first, last) = _span(one), _span(other)
    if end <= first or last <= start:
        return False
    if max(one.numel(), other.numel()) > 10**6 or one.element_size() != other.element_size():
        return True
    return bool(torch.isin(_offsets(one), _offsets(other)).any())


def _span(tensor: Tensor) -> tuple[int, int]:
    """First byte of a tensor in its storage, and the first one after it."""
    size = tensor.element_size()
    steps = sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    start = int(tensor.storage_offset())
    return start * size, (start + int(steps) + 1) * size


def _offsets(tensor: Tensor) -> Tensor:
    offsets = torch.tensor([tensor.storage_offset()])
    for size, step in zip(tensor.shape, tensor.stride(), strict=True):
        offsets = (offsets[:, None] + step * torch.arange(size)).flatten()
    return offsets


def _reordered(tensor: Tensor, owner: Tensor) -> tuple[int, ...] | None:
    """For each dim of a view the owner's dim, if the view covers all of the owner."""
    if tensor.dtype != owner.dtype or tensor.storage_offset() != owner.storage_offset():
        return None
    if tensor.dim() != owner.dim() or sorted(tensor.shape) != sorted(owner.shape):
        return None
    for dims in permutations(range(owner.dim())):  # the order as it is comes first
        moved = owner.permute(dims)
        if moved.shape == tensor.shape and _same_strides(moved, tensor):
            return dims
    return None


def _same_strides(one: Tensor, other: Tensor) -> bool:
    """Whether strides agree; dimensions of size one are ignored."""
    pairs = zip(one.shape, one.stride(), other.stride(), strict=True)
    return all(size == 1 or a == b for size, a, b in pairs)
