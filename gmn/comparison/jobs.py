"""Jobs of a comparison: measure one model's cost, or train and test it with one seed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from gmn import registry
from gmn.comparison import cost
from gmn.comparison.cost import Cost
from gmn.errors import NotFiniteError, UnsupportedArchitecture
from gmn.tasks import Task
from gmn.tasks.answers import ANSWERS
from gmn.train import Recipe, train

TaskFactory = Callable[[], Task]
DIGITS = 4  # of answers that are many numbers


@dataclass(frozen=True)
class TrainingJob:
    """One model to be trained with one seed.

    Attributes:
        task: factory of the task.
        name: name of the model.
        factory: factory of the model.
        seed: seed of weights and minibatches.
        recipe: optimisation settings.
        device: where the model computes; estimators stay on the CPU.
    """

    task: TaskFactory
    name: str
    factory: registry.Factory
    seed: int
    recipe: Recipe
    device: str = "cpu"


@dataclass(frozen=True)
class RunResult:
    """What a table keeps of a trained model; plain JSON values.

    Attributes:
        model: name of the model.
        seed: seed of weights and minibatches.
        metrics: metrics on the test split, by name.
        answers: one number per test network, see :class:`gmn.tasks.answers.AnswerKind`.
        shown: answers to the first test networks, where they are many numbers.
        learning_rate: peak of the schedule; 0 for estimators.
        seconds: duration of the training, in seconds.
    """

    model: str
    seed: int
    metrics: dict[str, float]
    answers: list[float]
    shown: list[Any]
    learning_rate: float
    seconds: float


@dataclass(frozen=True)
class Diverged:
    """A training that ended in numbers that are not finite.

    Attributes:
        model: name of the model.
        seed: seed of weights and minibatches.
        why: what was not finite, and where.
    """

    model: str
    seed: int
    why: str


def measure(job: TrainingJob) -> Cost | str:
    """The cost of a step; as text, why the model cannot do the task."""
    task = job.task()
    try:
        model = _model(job, task)
        if isinstance(model, torch.nn.Module):
            with torch.no_grad():
                for part in task.split("train"):
                    model(part[:1].to(torch.device(job.device)).graph)
        return cost.measure(model, task, job.recipe.batch_size)
    except (UnsupportedArchitecture, ImportError) as error:
        return str(error)


def train_and_test(job: TrainingJob, messages: Any = None) -> RunResult | Diverged:
    """Trains the model and tests it; reports progress to a queue."""
    task, start, done = job.task(), time.perf_counter(), 0.0

    def tell(fraction: float, metric: float) -> None:
        nonlocal done
        if messages is not None:
            messages.put((f"{job.name}/{job.seed}", fraction - done, metric))
        done = fraction

    with torch.random.fork_rng():
        torch.manual_seed(job.seed)
        try:
            result = train(_model(job, task), task, job.recipe, job.seed, tell)
        except NotFiniteError as error:
            return Diverged(job.name, job.seed, str(error))
    kind = ANSWERS[task.kind]
    return RunResult(
        job.name,
        job.seed,
        metrics=result.metrics,
        answers=kind.answers(result.prediction, result.target).tolist(),
        shown=first_of(result.prediction, kind.shown),
        learning_rate=result.learning_rate,
        seconds=time.perf_counter() - start,
    )


def first_of(answers: torch.Tensor, count: int) -> list[Any]:
    """The first few of many answers, at a precision to look at."""
    nested: list[Any] = answers[:count].double().round(decimals=DIGITS).tolist()
    return nested


def _model(job: TrainingJob, task: Task) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(job.seed)
        model = task.build(job.factory, task.split("train")[0].graph.spec)
    return model.to(job.device) if isinstance(model, torch.nn.Module) else model
