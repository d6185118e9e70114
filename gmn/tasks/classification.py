"""Tasks: predict a class, that of an INR's image or one that a column of the index holds."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from gmn.foundation.arguments import require_several, require_whole
from gmn.graph import ParameterGraph
from gmn.tasks import labels
from gmn.tasks.about import about_of
from gmn.tasks.regression import require_label
from gmn.tasks.task import Task
from gmn.zoo import Zoo

LEAST_PROBABILITY = 1e-12


class ClassTask(Task):
    """The common part of tasks of classes: scores, cross-entropy, probabilities."""

    kind = "class"
    metric = "accuracy"
    outputs: int

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


class InrClassification(ClassTask):
    """The class of the image that a network holds (Navon et al. 2023), on the zoo's fixed split.

    Predictions are probabilities (B, classes); the loss is the cross-entropy.

    Args:
        population: a zoo with the label ``label``: whole numbers from zero.
        classes: how many there are; None to find it in the population, where labels beyond the
            number of networks (or 1,000) count as mistakes.
    """

    name = "INR classification"
    target = "class of the image"

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

    def settings(self) -> dict[str, Any]:
        """The number of classes."""
        return {"classes": self.outputs}


class Classification(ClassTask):
    """The class that a column of the index holds, such as ``-O label=optimiser``.

    Classes are the different values of the column, sorted: text, whole numbers or truth values.
    Networks without a value in the column are left out, with a warning.

    Args:
        population: a zoo with the column.
        label: name of the column.
        classes: names of the classes in their order; None to find them in the population.
        about: ``function`` or ``training``; None to go by the name of the column.
    """

    name = "classification"

    def __init__(
        self,
        population: Zoo | None = None,
        label: str | None = None,
        classes: Sequence[labels.Name] | None = None,
        about: str | None = None,
    ) -> None:
        if classes is not None:
            require_several("classes", classes, "names of classes, such as [adam, sgd]")
        self.label = self.target = require_label(label)
        self.about = about_of(self.label, about)
        self._given = classes
        super().__init__(population and labels.present(population, self.label))
        self.classes = list(classes or ()) if population is None else self._labels[1]
        self.outputs = require_whole("number of classes", len(self.classes), 1)

    def targets(self, graph: ParameterGraph, indices: Tensor) -> Tensor:
        """Classes (B,), int64."""
        return self._labels[0][indices]

    @cached_property
    def _labels(self) -> tuple[Tensor, list[labels.Name]]:
        return labels.named_classes(self.zoo, self.label, self._given)

    def metrics(self, prediction: Tensor, target: Tensor) -> dict[str, float]:
        """Accuracy, its mean over the classes ``balanced``, and the ``nll`` of the truth.

        Args:
            prediction: probabilities (B, classes).
            target: classes (B,).
        """
        right = (prediction.argmax(dim=1) == target).double()
        recalls = torch.stack([right[target == number].mean() for number in target.unique()])
        return {**super().metrics(prediction, target), "balanced": float(recalls.mean())}

    def class_name(self, number: int) -> str:
        """The value of the column that a class stands for."""
        return str(self.classes[number])

    def settings(self) -> dict[str, Any]:
        """Column, names of the classes, and what it is about."""
        return {"label": self.label, "classes": self.classes, "about": self.about}
