"""One plain training loop for every metanetwork."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from gmn.graph import ParameterGraph
from gmn.memory import check_fits
from gmn.registry import Estimator
from gmn.tasks.batches import Batch, minibatches


class Task(Protocol):
    """What is predicted; see :class:`gmn.tasks.AccuracyPrediction`.

    Attributes:
        name: of the task.
        target: what is predicted, in words.
        kind: of the answers: ``number`` or ``class``, see :mod:`gmn.tasks.answers`.
        outputs: numbers that a model gives per network.
        metric: the metric that ranks models; larger is better.
    """

    name: str
    target: str
    kind: str
    outputs: int
    metric: str

    def split(self, name: str) -> list[Batch]:
        """Batches of ``train``, ``val`` or ``test``."""

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean loss."""

    def prediction(self, output: Tensor) -> Tensor:
        """What the output stands for: in units of the target, or probabilities of classes."""

    def metrics(self, prediction: Tensor, target: Tensor) -> dict[str, float]:
        """Metrics by name."""


Augment = Callable[[ParameterGraph, torch.Generator], ParameterGraph]


@dataclass(frozen=True)
class Recipe:
    """How models are trained; the same for all models of a comparison.

    Attributes:
        epochs: passes over the training split.
        batch_size: networks per step.
        learning_rate: peak of the one-cycle schedule; None for each model's own (its attribute
            ``learning_rate``, or 0.001).
        weight_decay: of AdamW.
        clip: largest norm of the gradient.
        augment: changes the networks of a training minibatch, see :mod:`gmn.augment`; None for
            none. Estimators, which take no steps, get the networks as they are.
    """

    epochs: int = 25
    batch_size: int = 32
    learning_rate: float | None = None
    weight_decay: float = 1e-2
    clip: float = 1.0
    augment: Augment | None = None


@dataclass(frozen=True)
class Result:
    """A trained model on the test split.

    Attributes:
        metrics: the task's metrics.
        prediction: one per network, in the split's order, shape (B, ...).
        target: the truth.
        epoch: the epoch with the best validation metric, whose weights were kept.
        learning_rate: peak of the schedule; 0 for estimators.
    """

    metrics: dict[str, float]
    prediction: Tensor
    target: Tensor
    epoch: int
    learning_rate: float


Report = Callable[[float, float], None]


def train(
    model: nn.Module | Estimator,
    task: Task,
    recipe: Recipe | None = None,
    seed: int = 0,
    report: Report | None = None,
) -> Result:
    """Trains a model in place and evaluates it on the test split.

    The weights of the epoch with the best validation metric are kept. Minibatches depend on the
    seed only, so all models of one seed see the same ones.

    Args:
        model: a module from graphs to outputs, or an estimator.
        task: what is predicted.
        recipe: optimisation settings; the defaults if None.
        seed: of minibatches (and of the estimator).
        report: called with the fraction done and the last validation metric.

    Raises:
        FloatingPointError: if the loss becomes NaN or infinite.
        DoesNotFit: if a step needs more memory than there is; said before it is allocated.
    """
    recipe = Recipe() if recipe is None else recipe
    report = _silent if report is None else report
    if not isinstance(model, nn.Module):
        return _fit(model, task, seed, report)
    for part in task.split("train"):
        check_fits(model, part.graph, min(recipe.batch_size, len(part)))
    epoch = _optimise(model, task, recipe, seed, report)
    prediction, target = predict(model, task, task.split("test"), recipe.batch_size)
    metrics, rate = task.metrics(prediction, target), peak_rate(model, recipe)
    return Result(metrics, prediction, target, epoch, rate)


def _silent(done: float, metric: float) -> None:
    """Reports nothing."""


def _optimise(model: nn.Module, task: Task, recipe: Recipe, seed: int, report: Report) -> int:
    parts, generator = task.split("train"), torch.Generator().manual_seed(seed)
    # Of its own, so that minibatches are the same with and without augmentation.
    chance = torch.Generator().manual_seed(seed)
    steps = sum(math.ceil(len(part) / recipe.batch_size) for part in parts)
    rate = peak_rate(model, recipe)
    optimiser = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, rate, total_steps=steps * recipe.epochs, pct_start=0.15
    )
    best, best_epoch, kept = -math.inf, 0, copy.deepcopy(model.state_dict())
    for epoch in range(recipe.epochs):
        model.train()
        for batch in minibatches(parts, recipe.batch_size, generator):
            graph = batch.graph if recipe.augment is None else recipe.augment(batch.graph, chance)
            loss = task.loss(model(graph), batch.target)
            if not bool(loss.isfinite()):
                raise FloatingPointError(
                    f"{type(model).__name__}: the loss is {loss.item()} in epoch {epoch}; "
                    "lower the learning rate"
                )
            optimiser.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
            optimiser.step()
            schedule.step()
        prediction, target = predict(model, task, task.split("val"), recipe.batch_size)
        metric = task.metrics(prediction, target)[task.metric]
        if metric > best:
            best, best_epoch, kept = metric, epoch, copy.deepcopy(model.state_dict())
        report((epoch + 1) / recipe.epochs, metric)
    model.load_state_dict(kept)
    return best_epoch


def peak_rate(model: nn.Module, recipe: Recipe) -> float:
    """Peak learning rate of a model: the recipe's, or else the model's own."""
    own = getattr(model, "learning_rate", 1e-3)
    return float(own) if recipe.learning_rate is None else recipe.learning_rate


def predict(
    model: nn.Module, task: Task, parts: Sequence[Batch], batch_size: int = 64
) -> tuple[Tensor, Tensor]:
    """Predictions and targets of all networks, in order, on the CPU."""
    model.eval()
    with torch.no_grad():
        outputs = [task.prediction(model(b.graph)).cpu() for b in minibatches(parts, batch_size)]
    return torch.cat(outputs), torch.cat([part.target for part in parts]).cpu()


def _fit(model: Estimator, task: Task, seed: int, report: Report) -> Result:
    train_parts, test_parts = task.split("train"), task.split("test")
    target = torch.cat([part.target for part in train_parts])
    model.fit([part.graph for part in train_parts], target, seed=seed)
    prediction = model.predict([part.graph for part in test_parts])
    truth = torch.cat([part.target for part in test_parts])
    metrics = task.metrics(prediction, truth)
    report(1.0, metrics[task.metric])
    return Result(metrics, prediction, truth, epoch=0, learning_rate=0.0)
