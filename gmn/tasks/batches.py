"""The splits of a population, each as one batch per architecture with its targets."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cached_property, partial

import torch
from torch import Tensor

from gmn.graph import ParameterGraph
from gmn.tasks.labels import LabelError
from gmn.zoo import Zoo
from gmn.zoo.loading import Batch
from gmn.zoo.stored import Check, KeptGraph, StoredGraph

SPLITS = ("train", "val", "test")
BLOCK = 256  # networks whose targets are computed together


Targets = Callable[[ParameterGraph, Tensor], Tensor]


def split_batches(population: Zoo, targets: Targets) -> dict[str, list[Batch]]:
    """The splits of a zoo, each as one batch per architecture.

    Networks are read when they are asked for, and kept; those that would fill more than half of the
    free memory stay in their files, and every minibatch is read from there. Targets for which no
    network is read, such as labels, are made now, others when they are asked for.

    Args:
        population: the zoo.
        targets: from networks and their numbers in the zoo to what is to be predicted of them.

    Raises:
        LabelError: when networks are read whose weights are NaN or infinite; the message names
            them.
    """
    check = partial(_require_finite, population)
    kind = KeptGraph if population.fits_in_memory else StoredGraph
    splits: dict[str, list[Batch]] = {}
    for split in SPLITS:
        chosen = [population.indices(split, name) for name in population.architectures]
        splits[split] = [
            _batch(kind(population, some, check), targets, some, population)
            for some in chosen
            if len(some)
        ]
    return splits


def _batch(graph: StoredGraph, targets: Targets, indices: Tensor, population: Zoo) -> Batch:
    # What a task needs shows at one network, and so do networks that it cannot use.
    if _reads_networks(population, targets, indices[:1]):
        return ComputedBatch(graph, targets, indices)
    return Batch(graph, targets(graph, indices), indices)


def _reads_networks(population: Zoo, targets: Targets, indices: Tensor) -> bool:
    """Whether a task looks at networks to say what is to be predicted of them."""
    looked: list[int] = []
    check: Check = lambda graph, numbers: looked.append(len(numbers))  # noqa: E731
    targets(StoredGraph(population, indices, check), indices)
    return bool(looked)


class ComputedBatch(Batch):
    """All networks of a split and architecture, with targets that are computed from networks.

    They are computed when they are first asked for, in blocks that do not depend on who asks.

    Args:
        graph: B networks.
        targets: from networks and their indices to their targets.
        numbers: their indices in the population, int64, shape (B,).
    """

    numbers: Tensor
    _targets: Targets
    _missing: set[int]  # blocks whose targets are not computed yet
    _known: Tensor  # the targets of the others

    def __init__(self, graph: ParameterGraph, targets: Targets, numbers: Tensor) -> None:
        # The base is frozen, and its target a tensor.
        missing = set(range(math.ceil(len(numbers) / BLOCK)))
        vars(self).update(graph=graph, numbers=numbers, _targets=targets, _missing=missing)

    @cached_property
    def target(self) -> Tensor:
        """Targets of all networks, shape (B, ...)."""
        return self._computed(set(self._missing))

    def __getitem__(self, index: slice | Tensor) -> Batch:
        if self._missing:
            blocks = (torch.arange(len(self))[index] // BLOCK).tolist()
            self._computed(self._missing.intersection(blocks))
        return Batch(self.graph[index], self._known[index], self.numbers[index])

    def _computed(self, blocks: set[int]) -> Tensor:
        for block in sorted(blocks):
            places = slice(BLOCK * block, BLOCK * (block + 1))
            values = self._targets(self.graph[places], self.numbers[places])
            if "_known" not in vars(self):
                vars(self)["_known"] = values.new_empty((len(self), *values.shape[1:]))
            self._known[places] = values
            self._missing.remove(block)
        return self._known


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
