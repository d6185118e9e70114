"""Predicting a network's test accuracy from its weights."""

from __future__ import annotations

from pathlib import Path

import torch
from scipy.stats import kendalltau
from torch import Tensor

from gmn import zoo
from gmn.tasks.batches import Batch, split_batches
from gmn.zoo import Zoo


class AccuracyPrediction:
    """Test accuracy from weights (Unterthiner et al. 2020), on the zoo's fixed split.

    The loss is the cross-entropy of the accuracy as a probability, as in Kofinas et al. 2024.

    Args:
        population: a zoo with the label ``test_accuracy``.
    """

    name = "accuracy prediction"
    target = "test accuracy"
    kind = "number"
    outputs = 1
    metric = "tau"

    def __init__(self, population: Zoo) -> None:
        self.zoo = population
        self._splits = split_batches(population, population.labels("test_accuracy"))

    @classmethod
    def open(cls, folder: str | Path) -> AccuracyPrediction:
        """The task on the zoo in a folder; ``partial(AccuracyPrediction.open, folder)`` pickles."""
        return cls(zoo.open(folder))

    def split(self, name: str) -> list[Batch]:
        """One batch per architecture of ``train``, ``val`` or ``test``; targets (B,)."""
        return self._splits[name]

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean loss of outputs (B, 1) on accuracies (B,)."""
        return torch.nn.functional.binary_cross_entropy_with_logits(output.squeeze(1), target)

    def prediction(self, output: Tensor) -> Tensor:
        """Accuracies (B,) that the outputs (B, 1) stand for."""
        return output.squeeze(1).sigmoid()

    def metrics(self, prediction: Tensor, target: Tensor) -> dict[str, float]:
        """Kendall's τ-b and the coefficient of determination R²."""
        residual = (target - prediction).square().sum()
        total = (target - target.mean()).square().sum()
        tau = float(kendalltau(prediction.numpy(), target.numpy()).statistic)
        return {"tau": tau, "r2": float(1 - residual / total)}
