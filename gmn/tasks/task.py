"""The base class of tasks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Self

from torch import Tensor, nn
from torch.nn import functional

from gmn import zoo
from gmn.graph import ParameterGraph
from gmn.nn.heads import EditHead
from gmn.registry import Estimator, Factory, Head, about
from gmn.spec import GraphSpec
from gmn.tasks.batches import split_batches
from gmn.zoo import Zoo
from gmn.zoo.loading import Batch
from gmn.zoo.population import require_zoo


class Task(ABC):
    """A task for metanetworks: targets, loss, metrics and the kind of predictions.

    A task of one's own says in :meth:`targets` what is to be predicted. The defaults are those of
    one number per network: squared error, R² and the mean absolute error.

    Args:
        population: the zoo, whose fixed split is used; None for a task without data, which says
            what a trained model's outputs stand for.

    Attributes:
        name: of the task, in words.
        target: what is predicted, in words.
        kind: of the answers: ``number``, ``class``, ``image`` or ``function``; see
            :mod:`gmn.tasks.answers`.
        metric: the metric that ranks models.
        larger_is_better: whether larger values of it are better.
        about: what the question is about: ``function``, what a network computes, which no exact
            symmetry changes; or ``training``, how its weights came about.
        outputs: what a model answers with: so many numbers, or edited networks.
        points: on how many inputs, such as pixels, each network is run for an answer.

    Raises:
        LabelError: if labels cannot be used, or, once they are read, weights; the message names the
            networks.
    """

    name: ClassVar[str]
    target: str
    kind: str = "number"
    metric: str = "r2"
    larger_is_better: bool = True
    about: str = "function"
    outputs: Head = 1
    points: int = 0

    def __init__(self, population: Zoo | None = None) -> None:
        if population is not None:
            require_zoo("population", population)
        self._zoo = population
        self._splits: dict[str, list[Batch]] = {}
        if population is not None:
            self._splits = split_batches(population, self.targets)

    @classmethod
    def open(cls, folder: str | Path) -> Self:
        """The task on the zoo in a folder; ``partial(Name.open, folder)`` pickles."""
        return cls(zoo.open(folder))

    def __repr__(self) -> str:
        sizes = [f"{name} {sum(map(len, parts))}" for name, parts in self._splits.items()]
        return f"{type(self).__name__}({', '.join(sizes) or 'without networks'})"

    @property
    def zoo(self) -> Zoo:
        """The population.

        Raises:
            ValueError: if the task has no data.
        """
        if self._zoo is None:
            raise ValueError(f"this {self.name} has no population")
        return self._zoo

    @property
    def answers_networks(self) -> bool:
        """Whether models answer with networks instead of numbers."""
        return isinstance(self.outputs, EditHead)

    @abstractmethod
    def targets(self, graph: ParameterGraph, indices: Tensor) -> Tensor:
        """The targets of some networks of the population.

        A network is read when its values are asked for. A task that asks for none, such as one of
        labels, is called once for each split and architecture; another is called when training
        comes to its networks, some at a time.

        Args:
            graph: B networks of one architecture.
            indices: theirs in the population, shape (B,).

        Returns:
            Shape (B, ...).
        """

    def split(self, name: str) -> list[Batch]:
        """One batch per architecture of ``train``, ``val`` or ``test``.

        Raises:
            ValueError: if there is no such data.
        """
        if self._splits.get(name):
            return self._splits[name]
        if self._zoo is not None and name in self._splits:
            folder = self.zoo.folder
            problem = (
                f"{folder} has no networks in split {name!r}; gmn zoo show {folder} counts them"
            )
        else:
            known = ", ".join(self._splits) or "none: it was made without a population"
            problem = f"no split {name!r}; known: {known}"
        raise ValueError(f"{self.name}: {problem}")

    def build(self, factory: Factory, spec: GraphSpec) -> nn.Module | Estimator:
        """The model that answers this task.

        Args:
            factory: factory of a metanetwork; a :class:`gmn.registry.ByQuestion` gives the one for
                what the task is about.
            spec: the first architecture that it is trained on.

        Raises:
            UnsupportedArchitecture: if the metanetwork cannot read these networks, or cannot
                answer with networks where the task asks for it.
        """
        return about(factory, self.about)(spec, self.outputs)

    def loss(self, output: Any, target: Tensor) -> Tensor:
        """Mean loss of a model's output on targets (B, ...)."""
        return functional.mse_loss(self.prediction(output), target)

    def prediction(self, output: Any) -> Tensor:
        """What the output stands for, shape (B, ...): numbers, or probabilities of classes."""
        prediction: Tensor = output.squeeze(1)
        return prediction

    def metrics(self, prediction: Tensor, target: Tensor) -> dict[str, float]:
        """Metrics by name: the coefficient of determination R² and the mean absolute error."""
        residual = (target - prediction).square().sum()
        total = (target - target.mean()).square().sum()
        return {"r2": float(1 - residual / total), "mae": float((target - prediction).abs().mean())}

    def test_metrics(self, prediction: Tensor, target: Tensor) -> dict[str, float]:
        """Metrics of predictions for the whole test split, in its order.

        They may take long: unlike :meth:`metrics`, they are not computed after every epoch.
        """
        return self.metrics(prediction, target)

    def baselines(self) -> dict[str, Tensor]:
        """Predictions for the test split that need no model, by name."""
        return {}

    def class_name(self, number: int) -> str:
        """A class in words, for tasks that predict classes."""
        return str(number)

    def settings(self) -> dict[str, Any]:
        """Arguments of the constructor, except data, as JSON values."""
        return {}
