"""Converts state-dict entries to finite real floating-point tensors and back.

Entries may hold complex numbers, integers, truth values, eight-bit floats, and masks of minus
infinity. What reads a graph meets none of these: complex numbers are pairs of real ones, a mask is
1 where it blocks, and minus infinity among other numbers is one below them all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gmn.errors import ArgumentError
from gmn.foundation.arguments import in_words

# What blocks in a mask: -inf, or the lowest number of a type in its stead; half precision has the
# one nearest to zero.
BLOCKED = torch.finfo(torch.float16).min


def as_real(values: Tensor) -> Tensor:
    """Complex numbers as pairs along a further last dimension; others as they are. A view."""
    return torch.view_as_real(values.resolve_conj()) if values.is_complex() else values


def is_eight_bit(dtype: torch.dtype) -> bool:
    """Whether it is a type of eight-bit floats, which torch can store but not compute with."""
    return dtype.is_floating_point and dtype.itemsize == 1


def computable(values: Tensor) -> Tensor:
    """Eight-bit floats in single precision, which holds them exactly; others as they are."""
    return values.float() if is_eight_bit(values.dtype) else values


def as_floating(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Real floating-point numbers: integers and truth values in ``dtype``. A view, if possible."""
    values = computable(as_real(values))
    return values if values.is_floating_point() else values.to(dtype)


def masked(values: Tensor) -> Tensor:
    """Which networks of (B, ...) hold a mask: zeros and blocking values only, not zeros alone.

    Returns:
        Truth values of shape (B, 1, ..., 1).
    """
    rows = values.flatten(1)
    blocked = rows <= BLOCKED
    masks = (blocked | (rows == 0)).all(dim=1) & blocked.any(dim=1)
    return masks.view(-1, *(1 for _ in values.shape[1:]))


def without_blocks(values: Tensor) -> Tensor:
    """Networks (B, ...) without minus infinity: masks as 1 where they block and 0 elsewhere.

    Of others, such as biases of scores with a mask added to them, what blocks lies below all else.
    """
    if not values.is_floating_point() or not values.numel() or values.amin() > BLOCKED:
        return values
    masks = torch.where(masked(values), (values <= BLOCKED).to(values), values)
    return torch.where(masks.isneginf(), _floor(values)[0], masks)


def _floor(values: Tensor) -> tuple[Tensor, Tensor]:
    """A number below all finite values of each network, and one between; (B, 1, ..., 1)."""
    rows = values.flatten(1)
    lowest = rows.where(rows.isfinite(), torch.inf).amin(dim=1).nan_to_num()
    gap = lowest.abs() + 1  # seen in every precision
    shape = (-1, *(1 for _ in values.shape[1:]))
    return (lowest - gap).view(shape), (lowest - gap / 2).view(shape)


def with_blocks(numbers: Tensor, old: Tensor) -> Tensor:
    """Undoes :func:`without_blocks` for networks whose ``old`` values (B, ...) are masks."""
    if not old.is_floating_point() or not old.numel() or old.amin() > BLOCKED:
        return numbers
    lowest = old.flatten(1).amin(dim=1).view(-1, *(1 for _ in old.shape[1:]))
    blocked = lowest.isneginf() & (numbers < _floor(old)[1])
    others = torch.where(blocked, -torch.inf, numbers)
    return torch.where(masked(old), torch.where(numbers > 0.5, lowest, 0), others)


def like(numbers: Tensor, old: Tensor) -> Tensor:
    """Real numbers in the type of the ``old`` values: pairs as complex numbers, integers whole."""
    if old.is_complex():
        return torch.view_as_complex(numbers).to(old.dtype)
    exact = old.is_floating_point() or not numbers.is_floating_point()
    return (numbers if exact else numbers.round()).to(old.dtype)


def is_finite(values: Tensor) -> bool:
    """Whether no value is NaN or infinite."""
    values = computable(as_real(values))
    if values.numel() == 0 or not values.is_floating_point():
        return True
    # aminmax propagates NaN, reads once and allocates nothing; isfinite().all() makes two copies.
    return bool(torch.stack(values.aminmax()).isfinite().all())


def require_tensors(name: str, values: Any) -> None:
    """Refuses what is no dictionary of tensors.

    Raises:
        ArgumentError: then.
    """
    if not isinstance(values, Mapping) or not all(isinstance(v, Tensor) for v in values.values()):
        raise ArgumentError(
            f"{name} is {in_words(values)}; give a dictionary of torch tensors by name, such as "
            "model.state_dict()"
        )
