"""Populations of small transformers, after the Small Transformer Zoo (Tran et al. 2025)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from gmn.zoo import images
from gmn.zoo.builders import Builder, Shard, State, stack
from gmn.zoo.cards import accuracies
from gmn.zoo.networks import network
from gmn.zoo.recipe import derive_seed, split_of
from gmn.zoo.store import Row
from gmn.zoo.transformer_recipe import TransformerRanges
from gmn.zoo.transformer_training import BATCH_SIZE, train_transformer


@dataclass(frozen=True)
class TransformerBuilder(Builder):
    """Transformers of one image set, each trained by a recipe and from a seed of its own.

    As published: network, optimisers, axes of the sweep, schedule. Smaller: images, steps, batches;
    so learning rates are other. Better: all published runs start from one seed and see the first
    part of the images, here each has its own seed and a random part. Runs that learn nothing are
    kept, as they were: they are part of the task.

    Attributes:
        images: Name of the image set.
        architectures: Names of the architectures.
        ranges: Where the hyper-parameters come from.
        steps: Number of optimiser steps.
    """

    images: str
    architectures: tuple[str, ...]
    ranges: TransformerRanges
    steps: int

    shard_size = 10  # half a minute of training, all that a kill can lose

    def configuration(self) -> dict[str, Any]:
        """Image set, architectures, ranges, steps, and the sizes of batches and shards."""
        return {**asdict(self), "batch_size": BATCH_SIZE, "shard_size": self.shard_size}

    def example(self) -> Tensor:
        """One image, shape (1, 1, height, width)."""
        return images.load(self.images).train_images[:1]

    def train(self, shard: Shard, seed: int) -> tuple[State, list[Row]]:
        """Trains the transformers of one shard; rows hold accuracies, losses and recipes."""
        data = images.load(self.images)
        states: list[State] = []
        rows: list[Row] = []
        for number in shard.networks:
            generator = torch.Generator().manual_seed(derive_seed(seed, "recipe", number))
            recipe = self.ranges.draw(generator)
            own = derive_seed(seed, "network", number)
            module = network(shard.architecture)
            metrics = train_transformer(module, recipe, data, own, self.steps)
            states.append({name: value.clone() for name, value in module.state_dict().items()})
            rows.append({"split": split_of(seed, number), **metrics, **asdict(recipe), "seed": own})
        return stack(states), rows

    def card(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Spread of ``test_accuracy`` by architecture, and of how many runs learned nothing."""
        return accuracies(rows)
