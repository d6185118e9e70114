"""What a metanetwork answers, a number or a class, and how wrong an answer is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class AnswerKind:
    """How predictions become one answer per network, and answers an error per network.

    Attributes:
        answers: from predictions (B, ...) to answers (B,).
        errors: from the answers of all seeds (S, B) and the truth (B,) to errors (B,), whose means
            a paired test compares.
    """

    answers: Callable[[Tensor], Tensor]
    errors: Callable[[Tensor, Tensor], Tensor]


def _numbers(prediction: Tensor) -> Tensor:
    return prediction


def _distances(answers: Tensor, truth: Tensor) -> Tensor:
    """Of the mean answer from the truth."""
    return (answers.mean(dim=0) - truth).abs()


def _classes(prediction: Tensor) -> Tensor:
    return prediction.argmax(dim=1)


def _shares_wrong(answers: Tensor, truth: Tensor) -> Tensor:
    """The share of the seeds whose answer is wrong."""
    return (answers != truth).double().mean(dim=0)


ANSWERS: dict[str, AnswerKind] = {
    "number": AnswerKind(_numbers, _distances),
    "class": AnswerKind(_classes, _shares_wrong),
}
