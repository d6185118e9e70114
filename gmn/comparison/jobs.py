"""Jobs of a comparison: train and test a model with one seed, or measure what a step costs."""

from __future__ import annotations

import math
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
SECONDS = 1.0  # between two messages about the loss of a run


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

    def __str__(self) -> str:
        metrics = ", ".join(f"{name} {value:.3f}" for name, value in self.metrics.items())
        return f"{self.model}, seed {self.seed}: {metrics} after {self.seconds:.0f} s"


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

    def __str__(self) -> str:
        return f"diverged with seed {self.seed}: {self.why}"


@dataclass(frozen=True)
class Refused:
    """A model that cannot do the task.

    Attributes:
        model: name of the model.
        why: what it cannot read or answer, or which package is missing.
    """

    model: str
    why: str

    def __str__(self) -> str:
        return self.why


REFUSALS = (UnsupportedArchitecture, ImportError)


def refusal(job: TrainingJob, task: Task) -> Refused | None:
    """Whether the model says at once that it cannot do the task: tried on one network, on the CPU.

    For all models before any trains, so that a mistake in the last one shows now; training tries
    every architecture.
    """
    try:
        model = _model(job, task, "cpu")
        if isinstance(model, torch.nn.Module):
            with torch.no_grad():
                model(task.split("train")[0][:1].graph)
    except REFUSALS as error:
        return Refused(job.name, str(error))
    return None


def measure(job: TrainingJob) -> tuple[str, Cost]:
    """The name of the model, and the cost of a step."""
    task = job.task()
    return job.name, cost.measure(_model(job, task, job.device), task, job.recipe.batch_size)


def train_and_test(job: TrainingJob, messages: Any = None) -> RunResult | Diverged | Refused:
    """Trains the model and tests it; reports progress to a queue."""
    task, start = job.task(), time.perf_counter()
    told = _Told(f"{job.name}/{job.seed}", task.metric, messages)
    with torch.random.fork_rng():
        torch.manual_seed(job.seed)
        try:
            model = _model(job, task, job.device)
            result = train(model, task, job.recipe, job.seed, told.metric, running=told.loss)
        except REFUSALS as error:
            return Refused(job.name, str(error))
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


class _Told:
    """Tells a queue how far a training is: after every epoch, and of its loss once a second.

    Args:
        name: of the run.
        metric: name of the metric that ranks models.
        messages: the queue; None to tell nobody.
    """

    def __init__(self, name: str, metric: str, messages: Any) -> None:
        self.name, self.what, self.messages = name, metric, messages
        self.done, self.when = 0.0, -math.inf

    def metric(self, fraction: float, metric: float) -> None:
        """An epoch is done."""
        self._put(fraction, f"{self.what} {metric:.3f}")

    def loss(self, fraction: float, loss: float) -> None:
        """A step is done."""
        if time.monotonic() >= self.when + SECONDS:
            self._put(fraction, f"loss {loss:.3f}")

    def _put(self, fraction: float, words: str) -> None:
        if self.messages is not None:
            self.messages.put((self.name, fraction - self.done, words))
        self.done, self.when = fraction, time.monotonic()


def first_of(answers: torch.Tensor, count: int) -> list[Any]:
    """The first few of many answers, at a precision to look at."""
    nested: list[Any] = answers[:count].double().round(decimals=DIGITS).tolist()
    return nested


def _model(job: TrainingJob, task: Task, device: str) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(job.seed)
        model = task.build(job.factory, task.split("train")[0].graph.spec)
    return model.to(device) if isinstance(model, torch.nn.Module) else model
