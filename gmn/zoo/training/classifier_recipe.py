"""Hyper-parameters of a classifier of a population, and their distribution."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from gmn.zoo.training.ranges import Range


@dataclass(frozen=True)
class ClassifierRecipe:
    """Hyper-parameters of one training run.

    Attributes:
        steps: number of optimiser steps.
        learning_rate: learning rate of AdamW at the first step; it falls linearly to zero.
        weight_decay: decoupled weight decay of AdamW.
        init_scale: factor on the initial weights.
        data_fraction: fraction of the training images that the network is trained on.
        label_noise: fraction of those images whose label is replaced by a random one.
    """

    steps: int
    learning_rate: float
    weight_decay: float
    init_scale: float
    data_fraction: float
    label_noise: float

    optimiser: ClassVar[str] = "adamw"


@dataclass(frozen=True)
class ClassifierRanges:
    """The distribution of the recipes of a population: one range for each hyper-parameter."""

    steps: Range
    learning_rate: Range
    weight_decay: Range
    init_scale: Range
    data_fraction: Range
    label_noise: Range

    def draw(self, generator: torch.Generator) -> ClassifierRecipe:
        """Draws the recipe of one network.

        Args:
            generator: source of randomness.

        Returns:
            Independent hyper-parameters.
        """
        return ClassifierRecipe(
            steps=round(self.steps.draw(generator)),
            learning_rate=self.learning_rate.draw(generator),
            weight_decay=self.weight_decay.draw(generator),
            init_scale=self.init_scale.draw(generator),
            data_fraction=self.data_fraction.draw(generator),
            label_noise=self.label_noise.draw(generator),
        )
