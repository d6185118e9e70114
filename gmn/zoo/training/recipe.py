"""How one network of a population is trained: its hyper-parameters, and how they are drawn."""

from __future__ import annotations

import hashlib
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


def derive_seed(seed: int, *purpose: object) -> int:
    """A seed for one purpose, independent of those for every other purpose.

    Args:
        seed: The seed of the whole zoo.
        *purpose: What the seed is for, such as the number of a network.

    Returns:
        A number below 2**63, the same on every machine.
    """
    text = ":".join(map(str, (seed, *purpose)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def split_of(seed: int, number: int | str) -> str:
    """The split of a network, whatever the size of the zoo: 70 % train, 15 % val, 15 % test.

    Args:
        seed: Seed of the population.
        number: Number or name of the network, or of the run that it belongs to.

    Returns:
        ``"train"``, ``"val"`` or ``"test"``.
    """
    percent = derive_seed(seed, "split", number) % 100
    return "train" if percent < 70 else "val" if percent < 85 else "test"
