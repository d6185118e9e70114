"""How layers run: with activations that are computed again, and outside the compiler."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch.utils.checkpoint import checkpoint

P = ParamSpec("P")
R = TypeVar("R")


def run(layer: Callable[..., Any], recompute: bool, *inputs: Any) -> Any:
    """Runs a layer; with ``recompute`` only its inputs are kept for the backward pass."""
    if recompute and torch.is_grad_enabled():
        return checkpoint(layer, *inputs, use_reentrant=False)
    return layer(*inputs)


def uncompiled(method: Callable[P, R]) -> Callable[P, R]:
    """``torch.compiler.disable``, but the compiler is imported by who compiles, not by all.

    Importing it takes more than half as long as torch.
    """
    kept: list[Callable[P, R]] = []

    @wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if "torch._dynamo" not in sys.modules:
            return method(*args, **kwargs)
        if not kept:
            kept.append(torch.compiler.disable(method))
        return kept[0](*args, **kwargs)

    return call
