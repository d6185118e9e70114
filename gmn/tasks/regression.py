"""Task: predict a numeric column of the population's index from weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from gmn.errors import ArgumentError
from gmn.foundation.arguments import require_number, require_one_of
from gmn.graph import ParameterGraph
from gmn.tasks import labels
from gmn.tasks.about import about_of
from gmn.tasks.task import Task
from gmn.zoo import Zoo

TRANSFORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda values: values,
    "log": torch.log,
    "logit": torch.logit,
}
DIGITS = 6  # of mean and deviation: they only have to be about right


class Regression(Task):
    """The number that a column of the index holds, such as ``-O label=learning_rate``.

    Targets, predictions and metrics are of the transformed numbers: with ``log``, an answer of -3
    stands for exp(-3). The loss is the squared error in units of the training split's deviation.
    Networks without a value in the column are left out, with a warning.

    Args:
        population: a zoo with the column.
        label: name of the column.
        transform: ``none``, ``log`` of positive numbers, or ``logit`` of numbers between 0 and 1.
        about: ``function`` or ``training``; None to go by the name of the column.
        mean: mean of the transformed numbers; None for that of the training split.
        deviation: their standard deviation; None for that of the training split.
    """

    name = "regression"

    def __init__(
        self,
        population: Zoo | None = None,
        label: str | None = None,
        transform: str = "none",
        about: str | None = None,
        mean: float | None = None,
        deviation: float | None = None,
    ) -> None:
        require_one_of("transform", transform, TRANSFORMS)
        self.label, self.transform = require_label(label), transform
        self.about = about_of(self.label, about)
        self.target = self.label if transform == "none" else f"{transform} of {self.label}"
        super().__init__(population and labels.present(population, self.label))
        if population is not None and (mean is None or deviation is None):
            values = torch.cat([part.target for part in self.split("train")]).double()
            mean = float(values.mean()) if mean is None else mean
            if deviation is None:
                deviation = float(values.std(correction=0)) or 1.0  # of a column that is constant
        self.mean = _rounded(require_number("mean", 0.0 if mean is None else mean))
        given = 1.0 if deviation is None else deviation
        self.deviation = _rounded(require_number("deviation", given, above=0))

    def targets(self, graph: ParameterGraph, indices: Tensor) -> Tensor:
        """Transformed numbers (B,)."""
        values = TRANSFORMS[self.transform](labels.numbers(self.zoo, self.label))
        what = f"a number without a {self.transform}: choose another transform"
        labels.refuse(self.zoo, self.label, ~values.isfinite(), what)
        return values[indices]

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean squared error of outputs (B, 1) on standardised targets (B,)."""
        return functional.mse_loss(output.squeeze(1), (target - self.mean) / self.deviation)

    def prediction(self, output: Tensor) -> Tensor:
        """Transformed numbers (B,) that the outputs (B, 1) stand for."""
        return self.mean + self.deviation * output.squeeze(1)

    def metrics(self, prediction: Tensor, target: Tensor) -> dict[str, float]:
        """R², the mean absolute error, and Kendall's τ-b, of transformed numbers."""
        return {**super().metrics(prediction, target), "tau": kendall(prediction, target)}

    def settings(self) -> dict[str, Any]:
        """Column, transform, what it is about, mean and deviation."""
        names = ("label", "transform", "about", "mean", "deviation")
        return {name: getattr(self, name) for name in names}


def require_label(label: str | None) -> str:
    """The name of a column.

    Raises:
        ArgumentError: if there is none.
    """
    if not isinstance(label, str) or not label:
        raise ArgumentError(
            "label is missing; name a column of the index, such as -O label=learning_rate: "
            "gmn zoo show lists them"
        )
    return label


def kendall(prediction: Tensor, target: Tensor) -> float:
    """Kendall's τ-b of predictions (B,) and targets (B,)."""
    from scipy.stats import kendalltau  # takes half as long to import as torch

    return float(kendalltau(prediction.numpy(), target.numpy()).statistic)


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
