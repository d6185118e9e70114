"""Telling from the weights of an implicit neural representation what its image shows."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor
from torch.nn import functional

from gmn import zoo
from gmn.tasks.batches import Batch, split_batches
from gmn.zoo import Zoo

LEAST_PROBABILITY = 1e-12


class InrClassification:
    """The class of the image that a network holds (Navon et al. 2023), on the zoo's fixed split.

    Predictions are probabilities (B, classes); the loss is the cross-entropy.

    Args:
        population: a zoo with the label ``label``: whole numbers from zero.
    """

    name = "INR classification"
    target = "class of the image"
    kind = "class"
    metric = "accuracy"

    def __init__(self, population: Zoo) -> None:
        self.zoo = population
        labels = population.labels("label").long()
        self.outputs = int(labels.max()) + 1
        self._splits = split_batches(population, labels)

    @classmethod
    def open(cls, folder: str | Path) -> InrClassification:
        """The task on the zoo in a folder; ``partial(InrClassification.open, folder)`` pickles."""
        return cls(zoo.open(folder))

    def split(self, name: str) -> list[Batch]:
        """One batch per architecture of ``train``, ``val`` or ``test``; targets (B,), int64."""
        return self._splits[name]

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
