"""The image of translation numbers under the weight that they pass."""

from __future__ import annotations

import torch
from torch import Tensor

from gmn.graph import pieces
from gmn.spec import Through


def carried(weight: Tensor, through: Through, numbers: Tensor) -> Tensor:
    """The image of numbers under a weight: sums of products over all dimensions but the target's.

    Args:
        weight: the block of the weight's edge set (B, *shape); where it does not vary, dimensions
            may be expanded. It is read in pieces, never converted as a whole.
        through: how its dimensions run with those of the numbers and of the result.
        numbers: of the translation, (B or 1, *its shape).

    Returns:
        (B, *sizes of the target's dimensions), in the type of the numbers or of the weight, the
        more precise of both.
    """
    dtype = torch.promote_types(weight.dtype, numbers.dtype)
    dims = [*range(weight.dim())]
    source, target = ([0, *(1 + dim for dim in ends)] for ends in (through.source, through.target))
    spread = numbers.to(dtype).expand(len(weight), *numbers.shape[1:])

    def image(at: tuple[slice, ...]) -> Tensor:
        parts = weight[at].to(dtype), spread[tuple(at[dim] for dim in source)]
        result: Tensor = torch.einsum(parts[0], dims, parts[1], source, target)
        return result

    if weight.numel() <= pieces.PIECE:
        return image((slice(None),) * weight.dim())
    total = spread.new_zeros([weight.shape[dim] for dim in target])
    for at in pieces.cut(weight, pieces.PIECE):
        total[tuple(at[dim] for dim in target)] += image(at)
    return total
