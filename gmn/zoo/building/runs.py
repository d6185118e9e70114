"""The common part of builders of image classifiers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn

from gmn.zoo import images
from gmn.zoo.architectures.networks import network
from gmn.zoo.building.builders import DEFAULT, Builder, Options, Shard
from gmn.zoo.building.cards import accuracies
from gmn.zoo.images import ImageSet
from gmn.zoo.seeds import derive_seed, split_of
from gmn.zoo.store.files import Row
from gmn.zoo.training.classifying import (
    BATCH_SIZE,
    Job,
    checkpoint_steps,
    labels_and_masks,
    mean_gradients,
)
from gmn.zoo.training.states import State


class Ranges(Protocol):
    """A distribution of recipes."""

    def draw(self, generator: torch.Generator) -> Any:
        """The hyper-parameters of one run."""


@dataclass(frozen=True)
class RunBuilder(Builder):
    """Classifiers of one image set, each trained by a recipe and from a seed of its own.

    Attributes:
        images: name of the image set.
        architectures: names of the architectures.
        ranges: distribution of the hyper-parameters.
        options: checkpoints of each run, and gradients.
    """

    images: str
    architectures: tuple[str, ...]
    ranges: Ranges
    options: Options = field(default=DEFAULT, kw_only=True)

    @property
    def checkpoints(self) -> int:
        """How many networks in a row come from one run."""
        return self.options.checkpoints

    def configured(self, options: Options) -> Self:
        """With several checkpoints of each run, and gradients, if chosen."""
        if options.views != DEFAULT.views:
            raise ValueError("views are of networks that hold images, not of classifiers")
        if options.checkpoints > self.shortest:
            raise ValueError(
                f"{options.checkpoints} checkpoints of each run, but the shortest have "
                f"{self.shortest} steps"
            )
        return replace(self, options=options)

    def configuration(self) -> dict[str, Any]:
        """Image set, architectures, how they are trained, options, sizes of batches and shards."""
        fixed = {name: value for name, value in asdict(self).items() if name != "options"}
        sizes = {"batch_size": BATCH_SIZE, "shard_size": self.shard_size}
        return {**fixed, **self.options.chosen(), **sizes}

    def example(self) -> Tensor:
        """One image, shape (1, channels, height, width)."""
        return images.load(self.images).train_images[:1]

    @property
    @abstractmethod
    def shortest(self) -> int:
        """Steps of the shortest run."""

    @abstractmethod
    def steps_of(self, recipe: Any) -> int:
        """Number of steps of a run with this recipe."""

    @abstractmethod
    def noted(self, recipe: Any, seed: int) -> Row:
        """The columns of a network's row that hold its recipe and seed."""

    @abstractmethod
    def job(self, module: nn.Module, recipe: Any, seed: int, data: ImageSet) -> Job:
        """The random choices of a run."""

    @abstractmethod
    def fit(
        self, module: nn.Module, recipes: Sequence[Any], data: ImageSet, seeds: Sequence[int]
    ) -> tuple[State, list[Row]]:
        """Trains networks of one architecture.

        Args:
            module: any network of the architecture.
            recipes: the hyper-parameters of each of the N runs.
            data: the images they are trained and tested on.
            seeds: the seed of each run.

        Returns:
            The states, every tensor stacked to shape (N * checkpoints, ...), those of one run in a
            row; and for each state its accuracies and losses, and what else changes with the steps.
        """

    def train(self, shard: Shard, seed: int) -> tuple[State, list[Row]]:
        """Trains the classifiers of one shard; rows hold accuracies, losses and recipes.

        With several checkpoints of each run, rows also say which ``run`` and ``step`` they are of.
        """
        count, runs = self.checkpoints, self._runs(shard)
        recipes, seeds = self._drawn(runs, seed)
        data, module = images.load(self.images), network(shard.architecture)
        state, metrics = self.fit(module, recipes, data, seeds)
        run_columns: list[Row] = [
            {"run": run, "step": step} if count > 1 else {}
            for run, recipe in zip(runs, recipes, strict=True)
            for step in checkpoint_steps(self.steps_of(recipe), count)
        ]
        rows: list[Row] = [
            {"split": split_of(seed, runs[i // count]), **columns, **metric}
            | self.noted(recipes[i // count], seeds[i // count])
            for i, (columns, metric) in enumerate(zip(run_columns, metrics, strict=True))
        ]
        return state, rows

    def train_with_extras(
        self, shard: Shard, seed: int
    ) -> tuple[State, list[Row], dict[str, State]]:
        """As :meth:`train`, and the gradients of mean training losses if these are chosen."""
        state, rows = self.train(shard, seed)
        if not self.options.gradients:
            return state, rows, {}
        data, module = images.load(self.images), network(shard.architecture).eval()
        drawn = zip(*self._drawn(self._runs(shard), seed), strict=True)
        jobs = [self.job(module, recipe, run_seed, data) for recipe, run_seed in drawn]
        labels, visible = labels_and_masks(jobs, self.checkpoints)
        gradients = mean_gradients(module, state, data.train_images, labels, visible)
        return state, rows, {"gradient": gradients}

    def card(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Spread of ``test_accuracy`` by architecture: numbers per tenth, and quantiles."""
        return accuracies(rows)

    def _runs(self, shard: Shard) -> list[int]:
        return [index // self.checkpoints for index in shard.networks[:: self.checkpoints]]

    def drawn(self, run: int, seed: int) -> Any:
        """The recipe of a run of a population of this seed."""
        return self.ranges.draw(torch.Generator().manual_seed(derive_seed(seed, "recipe", run)))

    def _drawn(self, runs: Sequence[int], seed: int) -> tuple[list[Any], list[int]]:
        """The recipe and the seed of each run."""
        recipes = [self.drawn(run, seed) for run in runs]
        return recipes, [derive_seed(seed, "network", run) for run in runs]
