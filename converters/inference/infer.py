"""Runs both inference passes over a forward graph: axes, then actions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from gmn.spec import StateEntry

from ..exporting.entries import entry_views
from .actions import Actions
from .actions_of_values import run_actions
from .axes_of_values import enter_unread, run_axes, tensors
from .dependence import settle_dependence
from .tracing import Tracing


def infer(
    model: nn.Module,
    program: torch.export.ExportedProgram,
    entries: Sequence[StateEntry],
    *,
    pinned: bool = True,
) -> tuple[Actions, list[str]]:
    """What every value ranges over and how it transforms.

    Args:
        model: the network.
        program: its operations.
        entries: its state dict.
        pinned: whether outputs must stay what they are; otherwise they may move as rules allow.

    Returns:
        The actions of all values, and the reports on operations without a rule.
    """
    result = Tracing()
    result.views = entry_views(model, entries)
    owners = {e.name: e.tied_to or e.name for e in entries}
    unknown = run_axes(result, program, owners, pinned)
    enter_unread(result, entries)
    settle_dependence(tensors(result), result.contractions)
    return run_actions(result, program, entries, unknown, pinned), unknown
