"""The distribution of one hyper-parameter: over an interval, its logarithm, or some values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

T = TypeVar("T")


@dataclass(frozen=True)
class Range:
    """A distribution over an interval: uniform, or uniform in the logarithm."""

    low: float
    high: float
    logarithmic: bool = False

    def draw(self, generator: torch.Generator) -> float:
        """Draws one value.

        Args:
            generator: source of randomness.

        Returns:
            A number in [low, high).
        """
        fraction = float(torch.rand((), generator=generator, dtype=torch.float64))
        if self.logarithmic:
            return math.exp(math.log(self.low) * (1 - fraction) + math.log(self.high) * fraction)
        return self.low * (1 - fraction) + self.high * fraction


def one_of(values: Sequence[T], generator: torch.Generator) -> T:
    """Draws one of several values, all equally likely.

    Args:
        values: at least one.
        generator: source of randomness.
    """
    return values[int(torch.randint(len(values), (), generator=generator))]
