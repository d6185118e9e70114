"""Populations of image classifiers whose recipes, and so accuracies, differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from gmn.zoo import images
from gmn.zoo.builders import Builder, Shard, State
from gmn.zoo.cards import accuracies
from gmn.zoo.networks import network
from gmn.zoo.recipe import RecipeRanges, derive_seed, split_of
from gmn.zoo.store import Row
from gmn.zoo.training import BATCH_SIZE, train_chunk


@dataclass(frozen=True)
class ClassifierBuilder(Builder):
    """Classifiers of one image set, each trained by a recipe of its own.

    Attributes:
        images: Name of the image set.
        architectures: Names of the architectures.
        ranges: Where the hyper-parameters come from.
    """

    images: str
    architectures: tuple[str, ...]
    ranges: RecipeRanges

    shard_size = 25  # of very different length: few enough that the last ones do not train alone

    def configuration(self) -> dict[str, Any]:
        """Image set, architectures, ranges, and the sizes of batches and shards."""
        return {**asdict(self), "batch_size": BATCH_SIZE, "shard_size": self.shard_size}

    def example(self) -> Tensor:
        """One image, shape (1, channels, height, width)."""
        return images.load(self.images).train_images[:1]

    def train(self, shard: Shard, seed: int) -> tuple[State, list[Row]]:
        """Trains the classifiers of one shard; rows hold accuracies, losses and recipes."""
        seeds = [derive_seed(seed, "network", number) for number in shard.networks]
        recipes = [
            self.ranges.draw(torch.Generator().manual_seed(derive_seed(seed, "recipe", number)))
            for number in shard.networks
        ]
        data = images.load(self.images)
        state, metrics = train_chunk(network(shard.architecture), recipes, data, seeds)
        rows: list[Row] = [
            {"split": split_of(seed, number), **metric, **asdict(recipe)}
            for number, metric, recipe in zip(shard.networks, metrics, recipes, strict=True)
        ]
        return state, rows

    def card(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Spread of ``test_accuracy`` by architecture: numbers per tenth, and quantiles."""
        return accuracies(rows)
