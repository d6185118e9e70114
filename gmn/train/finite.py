"""Refuses results that are not finite where they leave: they are no answers."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from gmn.errors import NotFiniteError
from gmn.tasks.batches import not_finite


def require_finite_answers(who: str, prediction: Tensor, way_out: str) -> None:
    """Refuses predictions (B, ...) that hold NaN or infinity.

    Args:
        who: whose predictions they are, for the message.
        prediction: the predictions.
        way_out: what to do, for the message.

    Raises:
        NotFiniteError: then; the message counts the networks.
    """
    if broken := not_finite(prediction.unsqueeze(-1)):
        raise NotFiniteError(
            f"{who}: the answers to {len(broken)} of {len(prediction)} networks are NaN or "
            f"infinite; {way_out}"
        )


def require_finite_weights(who: str, model: nn.Module, way_out: str) -> None:
    """Refuses models whose parameters hold NaN or infinity; buffers may hold masks.

    Raises:
        NotFiniteError: then; the message names the first parameter.
    """
    for name, parameter in model.named_parameters():
        if not bool(parameter.detach().isfinite().all()):
            raise NotFiniteError(f"{who}: {name} holds NaN or infinite weights; {way_out}")


def require_telling_answers(
    who: str, metric: str, value: float, prediction: Tensor, target: Tensor
) -> None:
    """Refuses a metric that is NaN as all answers are alike, where the truth is not.

    Raises:
        NotFiniteError: then.
    """
    if math.isnan(value) and _alike(prediction) and not _alike(target):
        raise NotFiniteError(
            f"{who}: {metric} is nan, as it answers the same to all {len(prediction)} test "
            "networks; lower the learning rate, or train for more epochs"
        )


def _alike(values: Tensor) -> bool:
    return torch.equal(values, values[:1].expand_as(values))
