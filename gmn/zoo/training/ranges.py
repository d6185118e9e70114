"""The distribution of one hyper-parameter: uniform over an interval or over its logarithm."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch


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
