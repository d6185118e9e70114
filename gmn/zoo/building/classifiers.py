"""Populations of image classifiers, many of which are trained at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from torch import nn

from gmn.zoo.building.runs import Ranges, RunBuilder
from gmn.zoo.images import ImageSet
from gmn.zoo.store.files import Row
from gmn.zoo.training.classifier_recipe import ClassifierRanges, ClassifierRecipe
from gmn.zoo.training.classifying import Job, draw_job, train_jobs
from gmn.zoo.training.ranges import Range
from gmn.zoo.training.states import State


class SteppedRanges(Ranges, Protocol):
    """A distribution of recipes that have a number of steps."""

    @property
    def steps(self) -> Range:
        """The range of their number."""


@dataclass(frozen=True)
class SideBySideBuilder(RunBuilder):
    """Classifiers that are trained side by side, each for the steps of its own recipe.

    Attributes:
        ranges: distribution of the hyper-parameters.
    """

    ranges: SteppedRanges

    shard_size = 25  # of very different length: few enough that the last ones do not train alone

    @property
    def shortest(self) -> int:
        """Steps of the shortest run."""
        return int(self.ranges.steps.low)

    def steps_of(self, recipe: Any) -> int:
        """Number of steps of a run with this recipe."""
        steps: int = recipe.steps
        return steps

    def noted(self, recipe: Any, seed: int) -> Row:
        """The recipe; the seed follows from the population's."""
        return asdict(recipe)

    def fit(
        self, module: nn.Module, recipes: Sequence[Any], data: ImageSet, seeds: Sequence[int]
    ) -> tuple[State, list[Row]]:
        """Trains networks side by side: see :func:`gmn.zoo.training.classifying.train_jobs`."""
        runs = zip(recipes, seeds, strict=True)
        jobs = [self.job(module, recipe, seed, data) for recipe, seed in runs]
        return train_jobs(module, recipes, jobs, data, self.checkpoints)


@dataclass(frozen=True)
class ClassifierBuilder(SideBySideBuilder):
    """Classifiers whose recipes, and so accuracies, differ.

    Attributes:
        ranges: distribution of the hyper-parameters.
    """

    ranges: ClassifierRanges

    def job(self, module: nn.Module, recipe: ClassifierRecipe, seed: int, data: ImageSet) -> Job:
        """The random choices of a run."""
        return draw_job(module, recipe, seed, data)
