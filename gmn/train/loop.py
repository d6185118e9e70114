"""Trains a metanetwork on a task: epochs with validation, early stopping and resuming."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gmn.errors import ArgumentError, NotFiniteError
from gmn.foundation.arguments import in_words, require_seed, require_type
from gmn.foundation.files import OutputFolder
from gmn.graph import ParameterGraph
from gmn.nn.heads import EditHead
from gmn.nn.memory import check_fits
from gmn.nn.metanetwork import Metanetwork
from gmn.registry import Estimator
from gmn.tasks.batches import SPLITS, network_names, not_finite
from gmn.tasks.task import Task
from gmn.train.distributed import ranks
from gmn.train.evaluate import device_of
from gmn.train.finite import require_finite_answers, require_finite_weights
from gmn.train.identity import identity_of
from gmn.train.journal import Journal, run_folder
from gmn.train.recipe import Recipe, peak_rate, require_recipe
from gmn.train.run import Run
from gmn.zoo.loading import Batch, Loader


@dataclass(frozen=True, repr=False)
class Result:
    """The result of a training: predictions and metrics on the test split.

    Attributes:
        metrics: metrics of the task, by name.
        prediction: one per network, in the split's order, shape (B, ...).
        target: targets, in the same order and shape.
        epoch: the epoch with the best validation metric, whose weights were kept.
        learning_rate: peak of the schedule; 0 for estimators.
    """

    metrics: dict[str, float]
    prediction: Tensor
    target: Tensor
    epoch: int
    learning_rate: float

    def __repr__(self) -> str:
        metrics = ", ".join(f"{name} {value:.4g}" for name, value in self.metrics.items())
        return f"Result({metrics}; {len(self.prediction)} networks, best epoch {self.epoch})"


Report = Callable[[float, float], None]
Running = Callable[[float, float], None]


def train(
    model: nn.Module | Estimator,
    task: Task,
    recipe: Recipe | None = None,
    seed: int = 0,
    report: Report | None = None,
    folder: str | Path | None = None,
    running: Running | None = None,
) -> Result:
    """Trains a model in place and evaluates it on the test split.

    The weights of the epoch with the best validation metric are kept. Minibatches depend on the
    seed only, so all models of one seed see the same ones.

    Under ``torchrun`` the processes share the work of every minibatch, and train what one process
    would; each needs equal arguments, and gets the same result. The first alone writes files.

    Args:
        model: a module from graphs to outputs, on the device where it is to be trained, or an
            estimator. Batches are moved to it.
        task: the task: targets, loss and metrics.
        recipe: optimisation settings; the defaults if None.
        seed: of minibatches (and of the estimator).
        report: called with the fraction done and the last validation metric.
        folder: where the run is stored after every epoch, with its log; a run that was stopped,
            by whatever means, goes on from there if it is called again with equal arguments, and
            on a CPU ends with the same bits as an undisturbed one. None to store nothing.
        running: called after every step with the fraction done and the mean loss of the epoch so
            far; estimators take no steps.

    Raises:
        NotFiniteError: if losses, answers or weights become NaN or infinite.
        ArgumentError: if the model's head is not one for the task.
        DoesNotFit: if a step needs more memory than there is; said before it is allocated.
        OutputError: if the folder holds files of others, another process trains there, or it
            cannot be written.
        ValueError: if a split has no networks, the folder holds another run, the model is an
            estimator and there is a folder, or several processes train a model with batch
            normalisation.
    """
    require_recipe(recipe)
    require_seed("seed", seed)
    require_type("task", task, Task, "a task, such as gmn.tasks.task_of(folder)")
    if not isinstance(model, nn.Module) and (
        isinstance(model, type) or not isinstance(model, Estimator)
    ):
        raise ArgumentError(f"model is {in_words(model)}; give a torch.nn.Module or an Estimator")
    folder = None if folder is None else Path(folder)
    recipe = Recipe() if recipe is None else recipe
    report, running = report or _silent, running or _silent
    if not isinstance(model, nn.Module):
        if folder is not None:
            raise ValueError(f"{type(model).__name__} is fitted at once: it has no run to store")
        _require_splits(task)
        return _fit(model, task, seed, report)
    with opened(folder, task) as output:
        return train_in(output, model, task, recipe, seed, report, running)


def opened(folder: Path | None, task: Task) -> AbstractContextManager[OutputFolder | None]:
    """The folder of a run, for the one process that writes there; None for the others."""
    _require_splits(task)
    if folder is None or not ranks().first:
        return nullcontext()
    return run_folder(folder, [task.zoo.folder])


def _require_splits(task: Task) -> None:
    for name in SPLITS:
        task.split(name)  # now rather than after hours: one of them may be empty


def train_in(
    output: OutputFolder | None,
    model: nn.Module,
    task: Task,
    recipe: Recipe,
    seed: int,
    report: Report,
    running: Running,
) -> Result:
    """:func:`train` of a module in a folder that is open."""
    _require_answers(model, task)
    for part in task.split("train"):
        batch = part[: recipe.batch_size].to(device_of(model) or part.graph.device)
        check_fits(model, batch.graph, ranks().in_one_memory(batch))
    if isinstance(model, Metanetwork):
        model.prepare(_networks(task.split("train"), recipe.batch_size))
    epoch = _optimise(model, task, recipe, seed, report, running, output)
    require_finite_weights(type(model).__name__, model, "lower the learning rate")
    prediction, target = ranks().predict(model, task, task.split("test"), recipe.batch_size)
    require_finite_answers(type(model).__name__, prediction, "lower the learning rate")
    metrics, rate = task.test_metrics(prediction, target), peak_rate(model, recipe)
    return Result(metrics, prediction, target, epoch, rate)


def _networks(parts: list[Batch], batch_size: int) -> Iterator[ParameterGraph]:
    """All networks of a split, some at a time; none is read before it is asked for."""
    return (batch.graph for batches in Loader(parts, batch_size).batches() for batch in batches)


def _require_answers(model: nn.Module, task: Task) -> None:
    """Refuses a head of another task, by what it answers to one network."""
    part = task.split("train")[0][:1]
    was_training = model.training
    with torch.no_grad(), torch.random.fork_rng():
        output = model.eval()(part.graph.to(device_of(model) or part.graph.device))
    model.train(was_training)
    if isinstance(output, ParameterGraph):
        copies = task.outputs.copies if isinstance(task.outputs, EditHead) else len(output)
        found, fits = f"{len(output)} networks", task.answers_networks and len(output) == copies
    else:
        outputs, shape = task.outputs, tuple(getattr(output, "shape", ()))
        found = f"numbers of shape {shape}" if isinstance(output, Tensor) else in_words(output)
        fits = not task.answers_networks and (not isinstance(outputs, int) or shape == (1, outputs))
    if not fits:
        raise ArgumentError(
            f"model is a {type(model).__name__} that answers to one network with {found}; for "
            f"{task.name} give it head={task.outputs!r}"
        )


def _silent(done: float, value: float) -> None:
    """Reports nothing."""


def _optimise(
    model: nn.Module,
    task: Task,
    recipe: Recipe,
    seed: int,
    report: Report,
    running: Running,
    output: OutputFolder | None,
) -> int:
    steps = math.ceil(sum(map(len, task.split("train"))) / recipe.batch_size)
    run, journal = Run(model, recipe, seed, steps), None
    run.ranks.require_separable(model)
    if output is not None:
        journal = Journal(output, partial(_identity, model, task, recipe, seed))
        journal.resume(run)
    run.ranks.share(run)
    try:
        while not run.finished:
            metric = _epoch(run, task, running)
            if journal is not None:
                journal.write(run)
            report(1.0 if run.finished else run.epoch / recipe.epochs, metric)
            if run.epoch == 1:
                _read_once(task.split("test"), recipe.batch_size)
    finally:
        if journal is not None:
            journal.close()
    model.load_state_dict(run.kept)
    return run.best_epoch


def _read_once(parts: list[Batch], batch_size: int) -> None:
    """Reads networks, so that those that cannot be used are named now rather than after hours."""
    for graph in _networks(parts, batch_size):
        _ = graph.values


def _epoch(run: Run, task: Task, running: Running) -> float:
    """Trains for an epoch and validates; the metric that ranks models."""
    rate = float(run.optimiser.param_groups[0]["lr"])
    run.ranks.reseed(run.seed, run.epoch)
    loss = _pass_over(run, task, running)
    prediction, target = run.ranks.predict(
        run.evaluated, task, task.split("val"), run.recipe.batch_size
    )
    who = f"{type(run.model).__name__} after epoch {run.epoch}"
    require_finite_answers(who, prediction, "lower the learning rate")
    metrics = task.metrics(prediction, target)
    row = {"epoch": run.epoch, "learning_rate": rate, "loss": loss}
    score = metrics[task.metric] if task.larger_is_better else -metrics[task.metric]
    run.end_epoch(score, row | {f"val_{k}": v for k, v in metrics.items()})
    return metrics[task.metric]


def _pass_over(run: Run, task: Task, running: Running) -> float:
    """Steps through the training split once; the mean loss over its networks."""
    total, done, parts = 0.0, 0, task.split("train")
    networks = sum(map(len, parts))
    run.model.train()
    loader = Loader(
        parts,
        run.recipe.batch_size,
        run.order,
        run.recipe.augment,
        run.chance,
        device_of(run.model),
    )
    for batches in loader.batches():
        total += _step(run, task, batches)
        done += sum(map(len, batches))
        running((run.epoch + done / networks) / run.recipe.epochs, total / done)
    return total / networks


def _step(run: Run, task: Task, batches: list[Batch]) -> float:
    """One step on a minibatch; the sum of its networks' losses."""
    size = sum(map(len, batches))
    total, why = 0.0, "another process says why"
    run.optimiser.zero_grad()
    for batch in run.ranks.parts(batches):
        output = _output(run.model, batch.graph, run.recipe.bf16)
        loss = task.loss(output, batch.target) * (len(batch) / size)
        loss.backward()
        total += float(loss.detach())
        if not math.isfinite(total):
            why = _culprits(task, batch, output)
            break
    mean = run.ranks.sum(total)
    if not math.isfinite(mean):
        name = type(run.model).__name__
        raise NotFiniteError(f"{name}: the loss is {mean} in epoch {run.epoch}; {why}")
    run.step()
    return mean * size


def _output(model: nn.Module, graph: ParameterGraph, bf16: bool) -> Any:
    if not bf16:
        return model(graph)
    with torch.autocast(graph.device.type, torch.bfloat16):
        output = model(graph)
    return output.to(dtype=graph.dtype)


def _culprits(task: Task, batch: Batch, output: Any) -> str:
    """Why a loss is not finite: some networks of the batch, or, if it is all of them, the model."""
    values = output.values.values() if isinstance(output, ParameterGraph) else [output]
    # Of k answers per network, the first of all networks come first.
    broken = {row % len(batch) for value in values for row in not_finite(value)}
    if not broken or len(broken) == len(batch):
        return "lower the learning rate"
    rows = torch.tensor(sorted(broken))
    if batch.numbers is None:
        who = f"{len(broken)} of the batch's {len(batch)} networks"
    else:
        who = network_names(task.zoo, batch.numbers[rows])
    return (
        f"what it answers to {who} alone is not finite. If their weights are much larger than "
        "those of the others, take them out of the population; otherwise lower the learning rate"
    )


def _identity(model: nn.Module, task: Task, recipe: Recipe, seed: int) -> dict[str, Any]:
    """Everything that determines a run, as plain values."""
    return {
        "model": type(model).__name__,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        **identity_of(task),
        "seed": seed,
        **recipe.in_words(),
    }


def _fit(model: Estimator, task: Task, seed: int, report: Report) -> Result:
    train_parts, test_parts = task.split("train"), task.split("test")
    target = torch.cat([part.target for part in train_parts])
    model.fit([part.graph for part in train_parts], target, seed=seed)
    prediction = model.predict([part.graph for part in test_parts])
    require_finite_answers(type(model).__name__, prediction, "look at what it was fitted to")
    truth = torch.cat([part.target for part in test_parts])
    metrics = task.test_metrics(prediction, truth)
    report(1.0, metrics[task.metric])
    return Result(metrics, prediction, truth, epoch=0, learning_rate=0.0)
