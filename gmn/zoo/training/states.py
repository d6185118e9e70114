"""Weights of networks by name, of one or of many stacked."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

State = dict[str, Tensor]


def stack(states: Sequence[State]) -> State:
    """States of N networks as one, every tensor of shape (N, ...)."""
    return {name: torch.stack([state[name] for state in states]) for name in states[0]}
