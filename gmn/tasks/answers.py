"""What a metanetwork answers, and how wrong an answer is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class AnswerKind:
    """What a comparison keeps of each answer, and the error it tests models by.

    Attributes:
        answers: from predictions and targets (B, ...) to one number per network (B,): the answer
            itself, or how wrong it is where it is many numbers.
        errors: from these numbers for all seeds (S, B) and the truth (B,) to errors (B,), whose
            means a paired test compares.
        single: whether an answer is one number, so that all answers can be kept.
    """

    answers: Callable[[Tensor, Tensor], Tensor]
    errors: Callable[[Tensor, Tensor], Tensor]
    single: bool = True


def mean_squares(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of each network: from (B, ...) to (B,)."""
    return (prediction - target).square().flatten(1).mean(dim=1)


def _numbers(prediction: Tensor, target: Tensor) -> Tensor:
    return prediction


def _distances(answers: Tensor, truth: Tensor) -> Tensor:
    """Of the mean answer from the truth."""
    return (answers.mean(dim=0) - truth).abs()


def _classes(prediction: Tensor, target: Tensor) -> Tensor:
    return prediction.argmax(dim=1)


def _shares_wrong(answers: Tensor, truth: Tensor) -> Tensor:
    """The share of the seeds whose answer is wrong."""
    return (answers != truth).double().mean(dim=0)


def _means(errors: Tensor, truth: Tensor) -> Tensor:
    """Of the seeds' errors."""
    return errors.mean(dim=0)


ANSWERS: dict[str, AnswerKind] = {
    "number": AnswerKind(_numbers, _distances),
    "class": AnswerKind(_classes, _shares_wrong),
    "image": AnswerKind(mean_squares, _means, single=False),
    "function": AnswerKind(mean_squares, _means, single=False),
}
