"""Populations of classifiers, every second one with a backdoor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from gmn.zoo.building.cards import spread
from gmn.zoo.building.classifiers import SideBySideBuilder
from gmn.zoo.images import ImageSet
from gmn.zoo.seeds import derive_seed, split_of
from gmn.zoo.store.files import Row
from gmn.zoo.training.backdoor import (
    BackdoorRanges,
    BackdoorRecipe,
    attack_successes,
    draw_backdoor_job,
)
from gmn.zoo.training.classifying import Job, checkpoint_steps
from gmn.zoo.training.states import State


@dataclass(frozen=True)
class BackdoorBuilder(SideBySideBuilder):
    """Classifiers that a trigger makes see another class, if they have a backdoor.

    Attributes:
        ranges: distribution of the hyper-parameters.
    """

    ranges: BackdoorRanges

    def drawn(self, run: int, seed: int) -> BackdoorRecipe:
        """The recipe of a run, with a trigger of its split."""
        generator = torch.Generator().manual_seed(derive_seed(seed, "recipe", run))
        return self.ranges.draw(generator, split_of(seed, run))

    def job(self, module: nn.Module, recipe: BackdoorRecipe, seed: int, data: ImageSet) -> Job:
        """The random choices of a run."""
        return draw_backdoor_job(module, recipe, seed, data)

    def fit(
        self,
        module: nn.Module,
        recipes: Sequence[BackdoorRecipe],
        data: ImageSet,
        seeds: Sequence[int],
    ) -> tuple[State, list[Row]]:
        """Trains networks side by side; rows say ``backdoor``, its age, and ``attack_success``."""
        state, metrics = super().fit(module, recipes, data, seeds)
        steps = [
            (recipe, step)
            for recipe in recipes
            for step in checkpoint_steps(recipe.steps, self.checkpoints)
        ]
        found = attack_successes(module, state, [recipe for recipe, _ in steps], data)
        rows = [
            {**metric, **recipe.backdoor_after(step), "attack_success": success}
            for metric, (recipe, step), success in zip(metrics, steps, found, strict=True)
        ]
        return state, rows

    def card(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Spread of ``test_accuracy`` by architecture, and of both measures by ``backdoor``."""
        measures = ("test_accuracy", "attack_success")
        by_backdoor = {f"{name}_by_backdoor": spread(rows, "backdoor", name) for name in measures}
        return {**super().card(rows), **by_backdoor}
