"""Ways of training a classifier: optimiser, augmentation, and the half of the images it saw."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from gmn.zoo.images import ImageSet
from gmn.zoo.seeds import derive_seed
from gmn.zoo.training.augmentation import AUGMENTATIONS
from gmn.zoo.training.classifying import Job, choose_images, draw_batches, initial_state
from gmn.zoo.training.ranges import Range, one_of


@dataclass(frozen=True)
class WaysRecipe:
    """Hyper-parameters of one training run.

    Attributes:
        steps: number of optimiser steps.
        optimiser: ``"adamw"``, ``"adam"``, ``"rmsprop"`` or ``"momentum"`` (SGD with 0.9 of it).
        learning_rate: learning rate at the first step; it falls linearly to zero.
        weight_decay: decoupled for AdamW, the strength of an L2 penalty for the others.
        init_scale: factor on the initial weights.
        augmentation: one of :data:`gmn.zoo.training.augmentation.AUGMENTATIONS`.
        half: 0 or 1: the half of the training images that it may see, see :func:`halves`.
        data_fraction: fraction of that half that it is trained on.
    """

    steps: int
    optimiser: str
    learning_rate: float
    weight_decay: float
    init_scale: float
    augmentation: str
    half: int
    data_fraction: float


@dataclass(frozen=True)
class WaysRanges:
    """The distribution of the recipes of a population.

    Attributes:
        steps: range of their number.
        learning_rate: range for each optimiser; optimisers are equally likely.
        weight_decay: range for each optimiser.
        init_scale: range for all optimisers.
        augmentations: names of augmentations, equally likely.
        data_fraction: range for all optimisers.
    """

    steps: Range
    learning_rate: dict[str, Range]
    weight_decay: dict[str, Range]
    init_scale: Range
    augmentations: tuple[str, ...]
    data_fraction: Range

    def draw(self, generator: torch.Generator) -> WaysRecipe:
        """Draws the recipe of one network.

        Args:
            generator: source of randomness.

        Returns:
            Hyper-parameters, independent of each other given the optimiser.
        """
        optimiser = one_of(sorted(self.learning_rate), generator)
        return WaysRecipe(
            steps=round(self.steps.draw(generator)),
            optimiser=optimiser,
            learning_rate=self.learning_rate[optimiser].draw(generator),
            weight_decay=self.weight_decay[optimiser].draw(generator),
            init_scale=self.init_scale.draw(generator),
            augmentation=one_of(self.augmentations, generator),
            half=one_of((0, 1), generator),
            data_fraction=self.data_fraction.draw(generator),
        )


@dataclass(frozen=True)
class WaysJob(Job):
    """A run whose minibatches are augmented.

    Attributes:
        augmentation: name of the augmentation.
        generator: the run's own source of randomness; every minibatch moves it on, so steps come
            in their order.
    """

    augmentation: str
    generator: torch.Generator

    def minibatch(self, images: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Images (B, ...) and probabilities of classes (B, classes)."""
        chosen, labels = super().minibatch(images, step)
        targets = functional.one_hot(labels, int(self.labels.max()) + 1).to(chosen.dtype)
        return AUGMENTATIONS[self.augmentation](chosen, targets, self.generator)


def draw_ways_job(module: nn.Module, recipe: WaysRecipe, seed: int, images: ImageSet) -> WaysJob:
    """Draws the initial state, the data and the batches of one training run.

    Args:
        module: any network of the architecture.
        recipe: the hyper-parameters of the run.
        seed: the only source of randomness.
        images: the images, of which the network sees some of its half.
    """
    generator = torch.Generator().manual_seed(seed)
    initial = initial_state(module, recipe.init_scale, images.train_images.dtype, generator)
    members = (halves(images) == recipe.half).nonzero().flatten()
    chosen = members[choose_images(len(members), recipe.data_fraction, generator)[0]]
    visible = torch.zeros(len(images.train_labels), dtype=torch.bool)
    visible[chosen] = True
    batches = draw_batches(chosen, recipe.steps, generator)
    labels = images.train_labels
    return WaysJob(initial, labels, visible, batches, recipe.augmentation, generator)


def halves(images: ImageSet) -> Tensor:
    """The half, 0 or 1, that each training image belongs to: the same for all populations.

    Args:
        images: the image set, whose name decides.

    Returns:
        int64, shape (train,); half of the images of each class are in either.
    """
    generator = torch.Generator().manual_seed(derive_seed(0, "half", images.name))
    half = torch.zeros_like(images.train_labels)
    for label in images.train_labels.unique():
        members = (images.train_labels == label).nonzero().flatten()
        order = torch.randperm(len(members), generator=generator)
        half[members[order[: len(members) // 2]]] = 1
    return half
