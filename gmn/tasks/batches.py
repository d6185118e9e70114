"""The splits of a population, each as one batch per architecture with its targets."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from gmn.graph import ParameterGraph
from gmn.tasks.labels import LabelError
from gmn.zoo import Zoo
from gmn.zoo.loading import Batch

SPLITS = ("train", "val", "test")
PIECE = 1_000  # networks looked at together, of those that stay in their files


Targets = Callable[[ParameterGraph, Tensor], Tensor]


def split_batches(population: Zoo, targets: Targets) -> dict[str, list[Batch]]:
    """The splits of a zoo, each as one batch per architecture.

    Networks that would fill more than half of the free memory stay in their files, and every
    minibatch is read from there.

    Args:
        population: the zoo.
        targets: from networks and their numbers in the zoo to what is to be predicted of them.

    Raises:
        LabelError: if weights are NaN or infinite; the message names the networks.
    """
    fits = population.fits_in_memory
    splits: dict[str, list[Batch]] = {}
    for split in SPLITS:
        chosen = [population.indices(split, name) for name in population.architectures]
        splits[split] = [_batch(population, targets, some, fits) for some in chosen if len(some)]
    return splits


def _batch(population: Zoo, targets: Targets, indices: Tensor, fits: bool) -> Batch:
    graph = population.graph(indices) if fits else population.stored(indices)
    size, parts = len(indices) if fits else PIECE, []
    for start in range(0, len(indices), size):
        piece, chosen = graph[start : start + size], indices[start : start + size]
        _require_finite(population, piece, chosen)
        parts.append(targets(piece, chosen))
    return Batch(graph, torch.cat(parts), indices)


def _require_finite(population: Zoo, graph: ParameterGraph, chosen: Tensor) -> None:
    """Refuses diverged networks: a single one would make every loss NaN."""
    for name in dict.fromkeys(edges.parameter for edges in graph.spec.edge_sets):
        if broken := not_finite(graph.numbers(name)):
            who = network_names(population, chosen[broken])
            raise LabelError(
                f"{population.folder}: {name} has NaN or infinite values in {who}. "
                "Take diverged networks out of the population before training on it"
            )


def not_finite(values: Tensor) -> list[int]:
    """Indices along the first dimension where some value is NaN or infinite."""
    rows = values.detach().flatten(1)
    if rows.numel() == 0 or bool(torch.stack(rows.aminmax()).isfinite().all()):
        return []
    indices: list[int] = (~rows.isfinite().all(dim=1)).nonzero().flatten().tolist()
    return indices


def network_names(population: Zoo, indices: Tensor) -> str:
    """Networks of a population in words: the ids of the first few."""
    ids = [str(population.rows[index]["id"]) for index in indices[:5].tolist()]
    more = f" and {len(indices) - 5} more" if len(indices) > 5 else ""
    return f"network{'s' if len(indices) > 1 else ''} {', '.join(ids)}{more}"
