"""Kinds of predictions, and the error of each network that paired tests compare."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class AnswerKind:
    """How a comparison stores a kind of prediction, and its error per network.

    Attributes:
        answers: from predictions and targets (B, ...) to one number per network (B,): the answer
            itself, or how wrong it is where it is many numbers.
        errors: from these numbers for all seeds (S, B) and the truth (B,) to errors (B,), whose
            means a paired test compares.
        single: whether an answer is one number, so that all answers can be kept.
        shown: of how many test networks answers are kept where they are many numbers.
    """

    answers: Callable[[Tensor, Tensor], Tensor]
    errors: Callable[[Tensor, Tensor], Tensor]
    single: bool = True
    shown: int = 0


def mean_squares(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of each network: from (B, ...) to (B,)."""
    return (prediction - target).square().flatten(1).mean(dim=1)


def overlaps(prediction: Tensor, target: Tensor) -> Tensor:
    """Share of the weights of the larger mask that both keep: from masks (B, ...) to (B,)."""
    one, other = prediction.flatten(1), target.flatten(1)
    return (one * other).sum(1) / torch.maximum(one.sum(1), other.sum(1))


def _missed(prediction: Tensor, target: Tensor) -> Tensor:
    """Share of the weights of the larger mask that only one keeps."""
    return 1 - overlaps(prediction, target)


def _numbers(prediction: Tensor, target: Tensor) -> Tensor:
    return prediction


def _distances(answers: Tensor, truth: Tensor) -> Tensor:
    """Distance of the mean prediction from the target."""
    return (answers.mean(dim=0) - truth).abs()


def _classes(prediction: Tensor, target: Tensor) -> Tensor:
    return prediction.argmax(dim=1)


def _shares_wrong(answers: Tensor, truth: Tensor) -> Tensor:
    """Share of the seeds whose prediction is wrong."""
    return (answers != truth).double().mean(dim=0)


def _means(errors: Tensor, truth: Tensor) -> Tensor:
    """Mean of the seeds' errors."""
    return errors.mean(dim=0)


ANSWERS: dict[str, AnswerKind] = {
    "number": AnswerKind(_numbers, _distances),
    "class": AnswerKind(_classes, _shares_wrong),
    "image": AnswerKind(mean_squares, _means, single=False, shown=6),
    "function": AnswerKind(mean_squares, _means, single=False, shown=6),
    "mask": AnswerKind(_missed, _means, single=False),
}
