"""Networks chosen by number, slice or mask: checked, so that none is taken for another."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gmn.errors import ArgumentError
from gmn.foundation.arguments import in_words, require_whole

WAY_OUT = "give whole numbers, such as [3], a slice where one is allowed, or a mask"
Index = int | slice | Tensor | Sequence[int]


def chosen(index: Index, networks: int) -> slice | Tensor:
    """What picks networks out of stacked tensors: a slice, numbers (n,) or a mask (networks,).

    Args:
        index: a number, negative ones counted from the end; a slice; or several numbers or one
            truth value per network, as a sequence, an array or a tensor.
        networks: how many there are.

    Raises:
        IndexError: if there is no network of that number.
        ArgumentError: if it is none of these, or a mask of another length.
    """
    if isinstance(index, slice):
        return index
    if (number := _single(index)) is not None:
        if not -networks <= number < networks:
            raise IndexError(f"network {number} asked for, but there are {networks}")
        return slice(number, number + 1 or None)
    several = index if isinstance(index, Tensor) else torch.from_numpy(_array("index", index))
    _require_numbers("index", several.dim(), several.dtype == torch.bool, len(several), networks)
    if several.is_floating_point() or several.is_complex():
        raise ArgumentError(f"index holds {several.dtype}; {WAY_OUT}")
    return several


def require_network(network: Any, networks: int) -> int:
    """The number of one network, negative ones counted from the end.

    Args:
        network: its number.
        networks: how many there are.

    Raises:
        IndexError: if there is no network of that number.
        ArgumentError: if it is no whole number.
    """
    number = require_whole("network", network)
    if not -networks <= number < networks:
        raise IndexError(f"network {number} asked for, but there are {networks}")
    return number


def numbers_of(indices: Any, networks: int) -> np.ndarray[Any, Any]:
    """Numbers of several networks, int64 (n,), counted from 0.

    Args:
        indices: numbers, negative ones counted from the end, or one truth value per network, as a
            sequence, an array or a tensor.
        networks: how many there are.

    Raises:
        IndexError: if there are not so many networks.
        ArgumentError: if they are neither.
    """
    given = _array("indices", indices.cpu() if isinstance(indices, Tensor) else indices)
    _require_numbers("indices", given.ndim, given.dtype == bool, len(given), networks)
    if given.dtype == bool:
        return np.flatnonzero(given)
    numbers: np.ndarray[Any, Any] = given.astype(np.int64)
    if not numbers.size:
        return numbers
    least, most = int(numbers.min()), int(numbers.max())
    if least < -networks or most >= networks:
        wrong = least if least < -networks else most
        raise IndexError(f"network {wrong} asked for, but there are {networks}")
    return numbers if least >= 0 else np.where(numbers < 0, numbers + networks, numbers)


def _single(index: Any) -> int | None:
    """The one number that an index is; None if it is several."""
    if isinstance(index, Tensor) and index.dim():
        return None
    if isinstance(index, bool | np.bool_) or getattr(index, "dtype", None) == torch.bool:
        raise ArgumentError(f"index is {index}; a mask has one truth value per network")
    try:
        return operator.index(index)
    except TypeError:
        return None


def _array(name: str, indices: Any) -> np.ndarray[Any, Any]:
    """Whole numbers or truth values as an array of one dimension."""
    try:
        given = np.asarray(indices)
    except (TypeError, ValueError, RuntimeError):
        given = np.asarray(None)
    if given.ndim == 1 and not given.size:
        return np.zeros(0, np.int64) if given.dtype != bool else given
    if given.ndim != 1 or given.dtype.kind not in "iub":
        content = f" of {given.dtype}" if given.ndim and given.dtype != object else ""
        raise ArgumentError(f"{name} is {in_words(indices)}{content}; {WAY_OUT}")
    return given


def _require_numbers(name: str, dims: int, mask: bool, length: int, networks: int) -> None:
    if dims != 1:
        raise ArgumentError(f"{name} has {dims} dimensions; {WAY_OUT}")
    if mask and length != networks:
        raise ArgumentError(f"{name} is a mask of {length} networks, but there are {networks}")
