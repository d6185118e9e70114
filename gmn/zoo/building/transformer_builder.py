"""Populations of small transformers, after the Small Transformer Zoo (Tran et al. 2025)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import nn

from gmn.zoo.building.runs import RunBuilder
from gmn.zoo.images import ImageSet
from gmn.zoo.store.files import Row
from gmn.zoo.training.classifying import Job
from gmn.zoo.training.states import State
from gmn.zoo.training.transformer_recipe import TransformerRanges, TransformerRecipe
from gmn.zoo.training.transformer_training import draw_transformer_job, train_transformer


@dataclass(frozen=True)
class TransformerBuilder(RunBuilder):
    """Transformers of one image set.

    As published: network, optimisers, axes of the sweep, schedule. Smaller: images, steps, batches;
    so learning rates are other. Better: all published runs start from one seed and see the first
    part of the images, here each has its own seed and a random part. Runs that learn nothing are
    kept, as they were: they are part of the task.

    Attributes:
        ranges: distribution of the hyper-parameters.
        steps: number of optimiser steps.
    """

    ranges: TransformerRanges
    steps: int

    shard_size = 10  # half a minute of training, all that a kill can lose

    @property
    def shortest(self) -> int:
        """Steps of every run."""
        return self.steps

    def steps_of(self, recipe: TransformerRecipe) -> int:
        """Steps of every run."""
        return self.steps

    def noted(self, recipe: TransformerRecipe, seed: int) -> Row:
        """The recipe and, as in the published zoo, the seed."""
        return {**asdict(recipe), "seed": seed}

    def job(self, module: nn.Module, recipe: TransformerRecipe, seed: int, data: ImageSet) -> Job:
        """The random choices of a run."""
        generator = torch.Generator().manual_seed(seed)
        return draw_transformer_job(module, recipe, data, self.steps, generator)

    def fit(
        self,
        module: nn.Module,
        recipes: Sequence[TransformerRecipe],
        data: ImageSet,
        seeds: Sequence[int],
    ) -> tuple[State, list[dict[str, float]]]:
        """Trains one network after the other: see :func:`train_transformer`."""
        trained = [
            train_transformer(module, recipe, data, seed, self.steps, self.checkpoints)
            for recipe, seed in zip(recipes, seeds, strict=True)
        ]
        states = {name: torch.cat([state[name] for state, _ in trained]) for name in trained[0][0]}
        return states, [metrics for _, of_run in trained for metrics in of_run]
