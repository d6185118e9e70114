"""How one network of a population is trained: its hyper-parameters, and how they are drawn."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Recipe:
    """Hyper-parameters of one training run.

    Attributes:
        steps: Number of optimiser steps.
        learning_rate: Of AdamW at the first step; it falls linearly to zero at the last.
        weight_decay: Decoupled, of AdamW.
        init_scale: Factor on the weights that a network starts from.
        data_fraction: Share of the training images that this network gets to see.
        label_noise: Share of those images whose label is replaced by a random one.
    """

    steps: int
    learning_rate: float
    weight_decay: float
    init_scale: float
    data_fraction: float
    label_noise: float


@dataclass(frozen=True)
class Range:
    """A distribution over an interval: uniform, or uniform in the logarithm."""

    low: float
    high: float
    logarithmic: bool = False

    def draw(self, generator: torch.Generator) -> float:
        """Draws one value.

        Args:
            generator: The source of chance.

        Returns:
            A number in [low, high).
        """
        share = float(torch.rand((), generator=generator, dtype=torch.float64))
        if self.logarithmic:
            return math.exp(math.log(self.low) * (1 - share) + math.log(self.high) * share)
        return self.low * (1 - share) + self.high * share


@dataclass(frozen=True)
class RecipeRanges:
    """The distribution of the recipes of a population: one range for each hyper-parameter."""

    steps: Range
    learning_rate: Range
    weight_decay: Range
    init_scale: Range
    data_fraction: Range
    label_noise: Range

    def draw(self, generator: torch.Generator) -> Recipe:
        """Draws the recipe of one network.

        Args:
            generator: The source of chance.

        Returns:
            Independent hyper-parameters.
        """
        return Recipe(
            steps=round(self.steps.draw(generator)),
            learning_rate=self.learning_rate.draw(generator),
            weight_decay=self.weight_decay.draw(generator),
            init_scale=self.init_scale.draw(generator),
            data_fraction=self.data_fraction.draw(generator),
            label_noise=self.label_noise.draw(generator),
        )
