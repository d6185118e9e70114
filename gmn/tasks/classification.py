"""Task: predict the class of the image that an INR represents."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn import functional

from gmn.foundation.arguments import require_whole
from gmn.graph import ParameterGraph
from gmn.tasks import labels
from gmn.tasks.task import Task
from gmn.zoo import Zoo

LEAST_PROBABILITY = 1e-12


class InrClassification(Task):
    """The class of the image that a network holds (Navon et al. 2023), on the zoo's fixed split.

    Predictions are probabilities (B, classes); the loss is the cross-entropy.

    Args:
        population: a zoo with the label ``label``: whole numbers from zero.
        classes: how many there are; None to find it in the population, where labels beyond the
            number of networks (or 1,000) count as mistakes.
    """

    name = "INR classification"
    target = "class of the image"
    kind = "class"
    metric = "accuracy"
    outputs: int

    def __init__(self, population: Zoo | None = None, classes: int | None = None) -> None:
        self._given = classes
        super().__init__(population)
        found = 0 if population is None else int(self._labels().max()) + 1
        self.outputs = require_whole(
            "classes", found if classes is None else classes, max(found, 1)
        )

    def targets(self, graph: ParameterGraph, indices: Tensor) -> Tensor:
        """Classes (B,), int64."""
        return self._labels()[indices]

    def _labels(self) -> Tensor:
        return labels.classes(self.zoo, "label", self._given)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean cross-entropy of scores (B, classes) on classes (B,)."""
        return functional.cross_entropy(output, target)

    def prediction(self, output: Tensor) -> Tensor:
        """Probabilities (B, classes) that the scores (B, classes) stand for."""
        return output.softmax(dim=1)

    def metrics(self, prediction: Tensor, target: Tensor) -> dict[str, float]:
        """Accuracy, and the mean negative log-likelihood ``nll`` of the truth (smaller is better).

        Args:
            prediction: probabilities (B, classes).
            target: classes (B,).
        """
        chances = prediction.double().gather(1, target.unsqueeze(1)).clamp(min=LEAST_PROBABILITY)
        right = (prediction.argmax(dim=1) == target).double()
        return {"accuracy": float(right.mean()), "nll": float(-chances.log().mean())}

    def settings(self) -> dict[str, Any]:
        """The number of classes."""
        return {"classes": self.outputs}
