"""What a weight makes of the numbers that a translation adds before it."""

from __future__ import annotations

import torch
from torch import Tensor

from gmn.spec import Through


def carried(weight: Tensor, through: Through, numbers: Tensor) -> Tensor:
    """The image of numbers under a weight: sums of products over all dimensions but the target's.

    Args:
        weight: the block of the weight's edge set (B, *shape); where it does not vary, dimensions
            may be expanded.
        through: how its dimensions run with those of the numbers and of the result.
        numbers: of the translation, (B or 1, *its shape).

    Returns:
        (B, *sizes of the target's dimensions), in the weight's type.
    """
    places = [1 + place for place in range(weight.dim() - 1)]
    source = [0, *(1 + place for place in through.source)]
    target = [0, *(1 + place for place in through.target)]
    spread = numbers.to(weight).expand(len(weight), *numbers.shape[1:])
    result: Tensor = torch.einsum(weight, [0, *places], spread, source, target)
    return result
