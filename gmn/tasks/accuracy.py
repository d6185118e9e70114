"""Task: predict a network's test accuracy from its weights."""

from __future__ import annotations

import torch
from torch import Tensor

from gmn.graph import ParameterGraph
from gmn.tasks import labels
from gmn.tasks.regression import kendall
from gmn.tasks.task import Task


class AccuracyPrediction(Task):
    """Test accuracy from weights (Unterthiner et al. 2020), on the zoo's fixed split.

    The loss is the cross-entropy of the accuracy as a probability, as in Kofinas et al. 2024.

    Args:
        population: a zoo with the label ``test_accuracy``, between 0 and 1.
    """

    name = "accuracy prediction"
    target = "test accuracy"
    metric = "tau"

    def targets(self, graph: ParameterGraph, indices: Tensor) -> Tensor:
        """Accuracies (B,)."""
        return labels.numbers(self.zoo, "test_accuracy", 0, 1)[indices]

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean loss of outputs (B, 1) on accuracies (B,)."""
        return torch.nn.functional.binary_cross_entropy_with_logits(output.squeeze(1), target)

    def prediction(self, output: Tensor) -> Tensor:
        """Accuracies (B,) that the outputs (B, 1) stand for."""
        return output.squeeze(1).sigmoid()

    def metrics(self, prediction: Tensor, target: Tensor) -> dict[str, float]:
        """Kendall's τ-b and the coefficient of determination R²."""
        r2 = super().metrics(prediction, target)["r2"]
        return {"tau": kendall(prediction, target), "r2": r2}
