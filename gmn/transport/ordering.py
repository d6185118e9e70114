"""Fast sorting of projections, which takes most of the time of sliced distances."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

INDEX = 0xFFFFFFFF  # the lower half of a key


def order(values: Tensor) -> Tensor:
    """Indices that sort along the last dimension, smallest first; without gradients.

    On the CPU NumPy sorts, three to ten times as fast as ``torch.sort`` for the short rows there
    are here. float32 numbers are sorted as 64-bit integers whose lower half is the index, so that
    equal numbers stay in their order.

    Args:
        values: finite numbers, shape (..., n) with n below 2^32.

    Returns:
        int64, of the same shape.
    """
    values = values.detach()
    if values.device.type != "cpu" or values.dtype not in (torch.float32, torch.float64):
        return values.argsort(dim=-1, stable=True)
    if values.dtype == torch.float64:
        return torch.from_numpy(np.argsort(values.numpy(), axis=-1))
    bits = values.contiguous().view(torch.int32)
    # Negative numbers have their bits the other way round; integers then compare as floats do.
    keys = (bits ^ (bits >> 31).bitwise_and_(0x7FFFFFFF)).long()
    keys.bitwise_left_shift_(32).bitwise_or_(torch.arange(values.shape[-1]))
    keys.numpy().sort(axis=-1)
    return keys.bitwise_and_(INDEX)


def ordered(values: Tensor) -> Tensor:
    """The values sorted along the last dimension, smallest first; differentiable."""
    return values.gather(-1, order(values))
