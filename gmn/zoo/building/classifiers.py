"""Populations of image classifiers, many of which are trained at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from torch import nn

from gmn.zoo.building.runs import RunBuilder
from gmn.zoo.images import ImageSet
from gmn.zoo.store.files import Row
from gmn.zoo.training.classifier_recipe import ClassifierRanges, ClassifierRecipe
from gmn.zoo.training.classifying import Job, draw_job, train_chunk
from gmn.zoo.training.states import State


@dataclass(frozen=True)
class ClassifierBuilder(RunBuilder):
    """Classifiers whose recipes, and so accuracies, differ.

    Attributes:
        ranges: distribution of the hyper-parameters.
    """

    ranges: ClassifierRanges

    shard_size = 25  # of very different length: few enough that the last ones do not train alone

    @property
    def shortest(self) -> int:
        """Steps of the shortest run."""
        return int(self.ranges.steps.low)

    def steps_of(self, recipe: ClassifierRecipe) -> int:
        """Number of steps of a run with this recipe."""
        return recipe.steps

    def noted(self, recipe: ClassifierRecipe, seed: int) -> Row:
        """The recipe; the seed follows from the population's."""
        return asdict(recipe)

    def job(self, module: nn.Module, recipe: ClassifierRecipe, seed: int, data: ImageSet) -> Job:
        """The random choices of a run."""
        return draw_job(module, recipe, seed, data)

    def fit(
        self,
        module: nn.Module,
        recipes: Sequence[ClassifierRecipe],
        data: ImageSet,
        seeds: Sequence[int],
    ) -> tuple[State, list[dict[str, float]]]:
        """Trains networks side by side: see :func:`gmn.zoo.training.classifying.train_chunk`."""
        return train_chunk(module, recipes, data, seeds, self.checkpoints)
