"""Layers that are computed again in the backward pass instead of kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint


def run(layer: Callable[..., Any], recompute: bool, *inputs: Any) -> Any:
    """Runs a layer; if it may be computed again, the backward pass finds its inputs only."""
    if recompute and torch.is_grad_enabled():
        return checkpoint(layer, *inputs, use_reentrant=False)
    return layer(*inputs)
