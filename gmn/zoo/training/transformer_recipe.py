"""How one transformer of a population is trained: the axes of the Small Transformer Zoo."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from gmn.zoo.training.ranges import Range, one_of


@dataclass(frozen=True)
class TransformerRecipe:
    """Hyper-parameters of one training run.

    Attributes:
        optimiser: ``"adam"``, ``"rmsprop"``, ``"sgd"`` or ``"momentum"`` (SGD with 0.9 of it).
        learning_rate: the highest; it rises linearly over the first tenth of the steps and falls
            along half a cosine to ``FINAL_RATE``.
        init_std: standard deviation of the normal, cut off at two of it, that weights start from.
        l2: strength of the L2 penalty on all parameters.
        data_fraction: share of the training images, chosen at random, that it gets to see.
        dropout: share of values dropped in training.
    """

    optimiser: str
    learning_rate: float
    init_std: float
    l2: float
    data_fraction: float
    dropout: float


@dataclass(frozen=True)
class TransformerRanges:
    """The distribution of the recipes of a population.

    Attributes:
        learning_rate: range for each optimiser; optimisers are equally likely.
        init_std: range for each optimiser.
        l2: range for all optimisers.
        data_fraction: range for all optimisers.
        dropout: range for all optimisers.
    """

    learning_rate: dict[str, Range]
    init_std: dict[str, Range]
    l2: Range
    data_fraction: Range
    dropout: Range

    def draw(self, generator: torch.Generator) -> TransformerRecipe:
        """Draws the recipe of one network.

        Args:
            generator: source of randomness.

        Returns:
            Hyper-parameters, independent of each other given the optimiser.
        """
        optimiser = one_of(sorted(self.learning_rate), generator)
        return TransformerRecipe(
            optimiser=optimiser,
            learning_rate=self.learning_rate[optimiser].draw(generator),
            init_std=self.init_std[optimiser].draw(generator),
            l2=self.l2.draw(generator),
            data_fraction=self.data_fraction.draw(generator),
            dropout=self.dropout.draw(generator),
        )
