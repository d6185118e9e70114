"""Batches of networks with targets; one batch holds networks of one architecture."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gmn.graph import ParameterGraph
from gmn.memory import available_bytes
from gmn.tasks.labels import LabelError
from gmn.zoo import Zoo

SPLITS = ("train", "val", "test")
PIECE = 1_000  # networks looked at together, of those that stay in their files


@dataclass(frozen=True)
class Batch:
    """Networks of one architecture and what is to be predicted of them.

    Attributes:
        graph: B networks.
        target: shape (B, ...).
        numbers: of the networks in their population, shape (B,); None if they are of none.
    """

    graph: ParameterGraph
    target: Tensor
    numbers: Tensor | None = None

    def __len__(self) -> int:
        return len(self.graph)

    def __getitem__(self, chosen: slice | Tensor) -> Batch:
        numbers = None if self.numbers is None else self.numbers[chosen]
        return Batch(self.graph[chosen], self.target[chosen], numbers)

    def to(self, device: torch.device) -> Batch:
        """The batch on a device."""
        if self.graph.device == self.target.device == device:
            return self
        return Batch(self.graph.to(device), self.target.to(device), self.numbers)


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
    fits = population.num_bytes <= available_bytes(torch.device("cpu")) / 2
    splits: dict[str, list[Batch]] = {}
    for split in SPLITS:
        chosen = [population.indices(split, name) for name in population.architectures]
        splits[split] = [_batch(population, targets, some, fits) for some in chosen if len(some)]
    return splits


def _batch(population: Zoo, targets: Targets, numbers: Tensor, fits: bool) -> Batch:
    graph = population.graph(numbers) if fits else population.stored(numbers)
    size, found = len(numbers) if fits else PIECE, []
    for start in range(0, len(numbers), size):
        piece, chosen = graph[start : start + size], numbers[start : start + size]
        _require_finite(population, piece, chosen)
        found.append(targets(piece, chosen))
    return Batch(graph, torch.cat(found), numbers)


def _require_finite(population: Zoo, graph: ParameterGraph, chosen: Tensor) -> None:
    """Refuses diverged networks: left in, one of them makes every loss NaN."""
    for name in dict.fromkeys(edges.parameter for edges in graph.spec.edge_sets):
        if broken := not_finite(graph.numbers(name)):
            who = network_names(population, chosen[broken])
            raise LabelError(
                f"{population.folder}: {name} has NaN or infinite values in {who}. "
                "Take diverged networks out of the population before training on it"
            )


def not_finite(values: Tensor) -> list[int]:
    """Places along the first dimension where something is NaN or infinite."""
    rows = values.detach().flatten(1)
    if rows.numel() == 0 or bool(torch.stack(rows.aminmax()).isfinite().all()):
        return []
    found: list[int] = (~rows.isfinite().all(dim=1)).nonzero().flatten().tolist()
    return found


def network_names(population: Zoo, numbers: Tensor) -> str:
    """Networks of a population in words: the ids of the first few."""
    ids = [str(population.rows[number]["id"]) for number in numbers[:5].tolist()]
    more = f" and {len(numbers) - 5} more" if len(numbers) > 5 else ""
    return f"network{'s' if len(numbers) > 1 else ''} {', '.join(ids)}{more}"


def minibatches(
    parts: Sequence[Batch], size: int, generator: torch.Generator
) -> Iterator[list[Batch]]:
    """All networks once, in random minibatches.

    A minibatch comes as one batch per architecture. It holds one architecture as far as there are
    enough networks of it; what is left of each is mixed. So networks that all differ are trained on
    in minibatches of the same size as networks that are all alike.

    Args:
        parts: one large batch per architecture.
        size: networks per minibatch; the mixed one that comes last may have fewer.
        generator: the source of chance.
    """
    orders = [torch.randperm(len(part), generator=generator) for part in parts]
    full = [len(order) - len(order) % size for order in orders]
    mixed = torch.randperm(len(parts), generator=generator).tolist()
    runs = [(n, orders[n][: full[n]]) for n in range(len(parts))]
    runs += [(n, orders[n][full[n] :]) for n in mixed]
    owners = torch.cat([torch.full_like(places, n) for n, places in runs]).split(size)
    places = torch.cat([places for _, places in runs]).split(size)
    for number in torch.randperm(len(places), generator=generator).tolist():
        owner, place = owners[number], places[number]
        yield [parts[n][place[owner == n]] for n in owner.unique().tolist()]
