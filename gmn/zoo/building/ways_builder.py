"""Populations whose classifiers were trained in different ways."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from gmn.zoo.building.cards import spread
from gmn.zoo.building.classifiers import SideBySideBuilder
from gmn.zoo.images import ImageSet
from gmn.zoo.store.files import Row
from gmn.zoo.training.classifying import Job
from gmn.zoo.training.ways import WaysRanges, WaysRecipe, draw_ways_job

WAYS = ("optimiser", "augmentation", "half")


@dataclass(frozen=True)
class WaysBuilder(SideBySideBuilder):
    """Classifiers of several optimisers and augmentations, and of either half of the images.

    Attributes:
        ranges: distribution of the hyper-parameters.
    """

    ranges: WaysRanges

    def job(self, module: nn.Module, recipe: WaysRecipe, seed: int, data: ImageSet) -> Job:
        """The random choices of a run."""
        return draw_ways_job(module, recipe, seed, data)

    def card(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Spread of ``test_accuracy`` by architecture, and by what the question may be."""
        by_way = {column: spread(rows, column, "test_accuracy") for column in WAYS}
        return {**super().card(rows), "test_accuracy_by": by_way}
