"""Populations of image classifiers whose recipes, and so accuracies, differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from gmn.zoo import images
from gmn.zoo.builders import DEFAULT, Builder, Options, Shard, State
from gmn.zoo.cards import accuracies
from gmn.zoo.networks import network
from gmn.zoo.recipe import Recipe, RecipeRanges, derive_seed, split_of
from gmn.zoo.store import Row
from gmn.zoo.training import (
    BATCH_SIZE,
    checkpoint_steps,
    draw_job,
    mean_gradients,
    seen,
    train_chunk,
)


@dataclass(frozen=True)
class ClassifierBuilder(Builder):
    """Classifiers of one image set, each trained by a recipe of its own.

    Attributes:
        images: Name of the image set.
        architectures: Names of the architectures.
        ranges: Where the hyper-parameters come from.
        options: Checkpoints of each run, and gradients.
    """

    images: str
    architectures: tuple[str, ...]
    ranges: RecipeRanges
    options: Options = DEFAULT

    shard_size = 25  # of very different length: few enough that the last ones do not train alone

    @property
    def checkpoints(self) -> int:
        """How many networks in a row come from one run."""
        return self.options.checkpoints

    def configured(self, options: Options) -> ClassifierBuilder:
        """With several checkpoints of each run, and gradients, if chosen."""
        if options.views != DEFAULT.views:
            raise ValueError("views are of networks that hold images, not of classifiers")
        if options.checkpoints > self.ranges.steps.low:
            raise ValueError(
                f"{options.checkpoints} checkpoints of each run, but the shortest have "
                f"{self.ranges.steps.low:.0f} steps"
            )
        return replace(self, options=options)

    def configuration(self) -> dict[str, Any]:
        """Image set, architectures, ranges, options, and the sizes of batches and shards."""
        fixed = {name: value for name, value in asdict(self).items() if name != "options"}
        sizes = {"batch_size": BATCH_SIZE, "shard_size": self.shard_size}
        return {**fixed, **self.options.chosen(), **sizes}

    def example(self) -> Tensor:
        """One image, shape (1, channels, height, width)."""
        return images.load(self.images).train_images[:1]

    def train(self, shard: Shard, seed: int) -> tuple[State, list[Row]]:
        """Trains the classifiers of one shard; rows hold accuracies, losses and recipes.

        With several checkpoints of each run, rows also say which ``run`` and ``step`` they are of.
        """
        count, data = self.checkpoints, images.load(self.images)
        runs = self._runs(shard)
        recipes, seeds = self._recipes(runs, seed)
        module = network(shard.architecture)
        state, metrics = train_chunk(module, recipes, data, seeds, count)
        places: list[Row] = [
            {"run": run, "step": step} if count > 1 else {}
            for run, recipe in zip(runs, recipes, strict=True)
            for step in checkpoint_steps(recipe.steps, count)
        ]
        rows: list[Row] = [
            {"split": split_of(seed, runs[i // count]), **place, **metric}
            | asdict(recipes[i // count])
            for i, (place, metric) in enumerate(zip(places, metrics, strict=True))
        ]
        return state, rows

    def train_with_extras(
        self, shard: Shard, seed: int
    ) -> tuple[State, list[Row], dict[str, State]]:
        """As :meth:`train`, and the gradients of mean training losses if these are chosen."""
        state, rows = self.train(shard, seed)
        if not self.options.gradients:
            return state, rows, {}
        data, module = images.load(self.images), network(shard.architecture)
        drawn = zip(*self._recipes(self._runs(shard), seed), strict=True)
        jobs = [draw_job(module, recipe, own, data) for recipe, own in drawn]
        labels, visible = seen(jobs, self.checkpoints)
        gradients = mean_gradients(module, state, data.train_images, labels, visible)
        return state, rows, {"gradient": gradients}

    def _runs(self, shard: Shard) -> list[int]:
        return [number // self.checkpoints for number in shard.networks[:: self.checkpoints]]

    def _recipes(self, runs: Sequence[int], seed: int) -> tuple[list[Recipe], list[int]]:
        """The recipe and the seed of each run."""
        recipes = [
            self.ranges.draw(torch.Generator().manual_seed(derive_seed(seed, "recipe", run)))
            for run in runs
        ]
        return recipes, [derive_seed(seed, "network", run) for run in runs]

    def card(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Spread of ``test_accuracy`` by architecture: numbers per tenth, and quantiles."""
        return accuracies(rows)
