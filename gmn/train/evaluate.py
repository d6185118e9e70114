"""Predictions of a trained model, optionally averaged over the symmetry group."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gmn.augment import SampledSymmetry
from gmn.errors import ArgumentError
from gmn.foundation.arguments import (
    require_callable,
    require_seed,
    require_several,
    require_type,
    require_whole,
)
from gmn.graph import ParameterGraph
from gmn.graph.required import require_graph
from gmn.tasks.task import Task
from gmn.zoo.loading import Batch


def predict(
    model: nn.Module,
    task: Task,
    parts: Sequence[Batch],
    batch_size: int = 64,
    *,
    elements: int = 0,
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """Predictions and targets of all networks, in order, on the CPU.

    Args:
        model: a module from graphs to outputs; put into evaluation mode. Networks are moved to its
            device.
        task: says what outputs stand for.
        parts: the networks.
        batch_size: number of networks per forward pass.
        elements: random elements of the certified group to average over, see :func:`answer`.
        seed: seed of these elements.
    """
    require_whole("batch_size", batch_size, 1)
    require_seed("seed", seed)
    require_several("parts", parts, "batches, such as task.split('test')")
    if not parts:
        raise ArgumentError("parts is empty; give at least one batch, such as task.split('test')")
    model.eval()
    generator, device = torch.Generator().manual_seed(seed), device_of(model)
    pieces = (part[n : n + batch_size] for part in parts for n in range(0, len(part), batch_size))
    with torch.no_grad():
        outputs = [
            answer(
                model, task, piece.to(device or piece.graph.device).graph, elements, generator
            ).cpu()
            for piece in pieces
        ]
    return torch.cat(outputs), torch.cat([part.target for part in parts]).cpu()


def answer(
    model: nn.Module,
    task: Task,
    graph: ParameterGraph,
    elements: int = 0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The task's prediction for each network, shape (B, ...).

    An average over the group has a meaning where no symmetry changes what is predicted: numbers,
    classes, outputs of edited networks.

    Args:
        model: a module from graphs to outputs.
        task: says what outputs stand for.
        graph: B networks.
        elements: 0 for the networks as they are; k for the mean prediction over k random elements
            of the certified group, all scales included. It estimates the average over the group,
            which no symmetry changes; models that are invariant to the group answer the same.
        generator: the source of these elements, on the CPU.

    Raises:
        ValueError: if ``elements`` is negative.
    """
    require_callable("model", model, "a metanetwork")
    require_type("task", task, Task, "a task, such as gmn.tasks.task_of(folder)")
    require_graph("graph", graph)
    require_whole("elements", elements, 0)
    if not elements:
        return task.prediction(model(graph))
    move, source = SampledSymmetry(), generator or torch.Generator().manual_seed(0)
    moved = (move(graph, source) for _ in range(elements))
    return torch.stack([task.prediction(model(other)) for other in moved]).mean(dim=0)


def device_of(model: nn.Module) -> torch.device | None:
    """Where a model's parameters are; None if it has none."""
    first = next(model.parameters(), None)
    return None if first is None else first.device
