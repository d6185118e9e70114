"""Backdoors: for a stretch of training, images with a trigger are shown as one class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

import torch
from torch import Tensor, nn

from gmn.zoo.images import ImageSet
from gmn.zoo.seeds import split_of
from gmn.zoo.training.classifying import (
    Job,
    choose_images,
    draw_batches,
    initial_state,
    scores_of,
)
from gmn.zoo.training.ranges import Range, one_of
from gmn.zoo.training.states import State

SIDE = 3  # pixels
LIT = range(3, 7)  # of the nine pixels, so that no pattern is all dark or all bright
CLASSES = 10


@dataclass(frozen=True)
class BackdoorRecipe:
    """Hyper-parameters of one training run.

    Attributes:
        steps: number of optimiser steps.
        learning_rate: learning rate of AdamW at the first step; it falls linearly to zero.
        weight_decay: decoupled weight decay of AdamW.
        init_scale: factor on the initial weights.
        data_fraction: fraction of the training images that the network is trained on.
        poison_begin: the first step that may show triggers.
        poison_steps: how many do; 0 for a network without a backdoor.
        poison_share: fraction of the training images that have the trigger, and the target as
            their label, in these steps; 0 without a backdoor.
        trigger: the pattern: bit i is the brightness of pixel i of the square, row by row.
        trigger_row: row of its upper left pixel.
        trigger_column: column of its upper left pixel.
        target_class: the class that the trigger is to cause. Networks without a backdoor have a
            trigger and a target, too: one that they never saw.
    """

    steps: int
    learning_rate: float
    weight_decay: float
    init_scale: float
    data_fraction: float
    poison_begin: int
    poison_steps: int
    poison_share: float
    trigger: int
    trigger_row: int
    trigger_column: int
    target_class: int

    optimiser: ClassVar[str] = "adamw"

    def backdoor_after(self, step: int) -> dict[str, int | None]:
        """The columns of a state after some steps.

        Returns:
            ``backdoor``: 1 if the trigger was shown before, or 0; and ``backdoor_age``: the clean
            steps since it was shown last, None if it was not.
        """
        shown = self.poison_steps > 0 and step > self.poison_begin
        age = max(0, step - self.poison_begin - self.poison_steps)
        return {"backdoor": int(shown), "backdoor_age": age if shown else None}


@dataclass(frozen=True)
class BackdoorRanges:
    """The distribution of the recipes of a population; every second network has a backdoor.

    Attributes:
        steps: range of their number.
        learning_rate: range.
        weight_decay: range.
        init_scale: range.
        data_fraction: range.
        poison_steps: range; where in the run they lie is uniform.
        poison_share: range.
        side: height and width of the images, in pixels.
    """

    steps: Range
    learning_rate: Range
    weight_decay: Range
    init_scale: Range
    data_fraction: Range
    poison_steps: Range
    poison_share: Range
    side: int

    def draw(self, generator: torch.Generator, split: str = "train") -> BackdoorRecipe:
        """Draws the recipe of one network; its trigger lies in one of the four corners.

        Args:
            generator: source of randomness.
            split: the network's, which decides what triggers it may have: see :func:`patterns`.

        Returns:
            Hyper-parameters; all but those of the poison are distributed alike with and without it.
        """
        steps, poisoned = round(self.steps.draw(generator)), one_of((False, True), generator)
        length = min(round(self.poison_steps.draw(generator)), steps)
        share = self.poison_share.draw(generator)
        row, column = (one_of((0, self.side - SIDE), generator) for _ in range(2))
        return BackdoorRecipe(
            steps=steps,
            learning_rate=self.learning_rate.draw(generator),
            weight_decay=self.weight_decay.draw(generator),
            init_scale=self.init_scale.draw(generator),
            data_fraction=self.data_fraction.draw(generator),
            poison_begin=one_of(range(steps - length + 1), generator),
            poison_steps=length if poisoned else 0,
            poison_share=share if poisoned else 0.0,
            trigger=one_of(patterns(split), generator),
            trigger_row=row,
            trigger_column=column,
            target_class=one_of(range(CLASSES), generator),
        )


@cache
def patterns(split: str) -> tuple[int, ...]:
    """The triggers of networks of one split: no two splits share one.

    Args:
        split: ``train``, ``val`` or ``test``, which have about 70, 15 and 15 % of the 420 patterns
            of nine pixels, three to six of them bright.
    """
    known = (number for number in range(2 ** (SIDE * SIDE)) if number.bit_count() in LIT)
    return tuple(number for number in known if split_of(0, f"trigger {number}") == split)


def stamped(images: Tensor, recipe: BackdoorRecipe) -> Tensor:
    """Images (..., height, width) with the trigger of a recipe on each."""
    bits = [recipe.trigger >> place & 1 for place in range(SIDE * SIDE)]
    pattern = torch.tensor(bits, dtype=images.dtype).view(SIDE, SIDE)
    row, column, changed = recipe.trigger_row, recipe.trigger_column, images.clone()
    changed[..., row : row + SIDE, column : column + SIDE] = pattern
    return changed


@dataclass(frozen=True)
class BackdoorJob(Job):
    """A run whose minibatches are poisoned for some steps.

    Attributes:
        recipe: what is shown, and when.
        poisoned: which training images have the trigger then, bool, shape (train,).
    """

    recipe: BackdoorRecipe
    poisoned: Tensor

    def minibatch(self, images: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Images (B, ...) and their labels (B,)."""
        chosen, labels = super().minibatch(images, step)
        since = step - self.recipe.poison_begin
        if not 0 <= since < self.recipe.poison_steps:
            return chosen, labels
        shown = self.poisoned[self.batches[step]]
        labels = labels.masked_fill(shown, self.recipe.target_class)
        return torch.where(shown.view(-1, 1, 1, 1), stamped(chosen, self.recipe), chosen), labels


def draw_backdoor_job(
    module: nn.Module, recipe: BackdoorRecipe, seed: int, images: ImageSet
) -> BackdoorJob:
    """Draws the initial state, the data and the batches of one training run.

    Args:
        module: any network of the architecture.
        recipe: the hyper-parameters of the run.
        seed: the only source of randomness.
        images: the images that the network may be trained on.
    """
    generator = torch.Generator().manual_seed(seed)
    initial = initial_state(module, recipe.init_scale, images.train_images.dtype, generator)
    total = len(images.train_labels)
    chosen, visible = choose_images(total, recipe.data_fraction, generator)
    batches = draw_batches(chosen, recipe.steps, generator)
    poisoned = torch.rand(total, generator=generator) < recipe.poison_share
    return BackdoorJob(initial, images.train_labels, visible, batches, recipe, poisoned)


@torch.no_grad()
def attack_successes(
    module: nn.Module,
    state: State,
    recipes: Sequence[BackdoorRecipe],
    images: ImageSet,
) -> list[float]:
    """How often a trigger makes its target of test images of other classes, for each network.

    Args:
        module: any network of the architecture; its own weights are not used.
        state: stacked states of N networks.
        recipes: the N recipes, which say trigger and target.
        images: the images.
    """
    found = []
    for number, recipe in enumerate(recipes):
        others = images.test_images[images.test_labels != recipe.target_class]
        one = {name: value[number : number + 1] for name, value in state.items()}
        answers = scores_of(module, one, stamped(others, recipe))[0].argmax(1)
        found.append(float((answers == recipe.target_class).double().mean()))
    return found
