"""Refuses what is no module where users hand one in."""

from __future__ import annotations

from typing import Any

from torch import nn

from gmn.foundation.arguments import require_type


def require_module(model: Any) -> None:
    """Refuses everything but modules: classes, functions, state dicts, paths of checkpoints.

    Raises:
        ArgumentError: then; the message says what to give.
    """
    require_type(
        "model",
        model,
        nn.Module,
        "a torch.nn.Module; weights alone do not say how a network computes, but "
        "converters.infer_chain guesses plain chains of layers",
    )
