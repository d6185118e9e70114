"""Layers that are computed again in the backward pass instead of kept."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def run(layer: nn.Module, recompute: bool, *inputs: Any) -> Any:
    """Runs a layer; if it may be computed again, the backward pass finds its inputs only."""
    if recompute and torch.is_grad_enabled():
        return checkpoint(layer, *inputs, use_reentrant=False)
    return layer(*inputs)
