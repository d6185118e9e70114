"""Runs layers whose activations the backward pass computes again instead of keeping them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint


def run(layer: Callable[..., Any], recompute: bool, *inputs: Any) -> Any:
    """Runs a layer; with ``recompute`` only its inputs are kept for the backward pass."""
    if recompute and torch.is_grad_enabled():
        return checkpoint(layer, *inputs, use_reentrant=False)
    return layer(*inputs)
