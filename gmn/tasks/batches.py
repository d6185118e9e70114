"""Batches of networks with targets; one batch holds networks of one architecture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gmn.graph import ParameterGraph
from gmn.zoo import Zoo

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Batch:
    """Networks of one architecture and what is to be predicted of them.

    Attributes:
        graph: B networks.
        target: shape (B, ...).
    """

    graph: ParameterGraph
    target: Tensor

    def __len__(self) -> int:
        return len(self.graph)


def split_batches(population: Zoo, labels: Tensor) -> dict[str, list[Batch]]:
    """The splits of a zoo, each as one batch per architecture.

    Args:
        population: the zoo.
        labels: what is to be predicted of each of its networks, shape (networks, ...).
    """
    return {
        split: [
            Batch(population.graph(chosen), labels[chosen])
            for architecture in population.architectures
            if len(chosen := population.indices(split, architecture))
        ]
        for split in SPLITS
    }


def minibatches(
    parts: Sequence[Batch], size: int, generator: torch.Generator | None = None
) -> Iterator[Batch]:
    """Cuts batches into smaller ones, each of one architecture.

    Args:
        parts: one large batch per architecture.
        size: networks per minibatch; the last one of each architecture may have fewer.
        generator: shuffles networks and minibatches; None keeps the order.
    """
    pieces = []
    for number, part in enumerate(parts):
        order = torch.arange(len(part))
        if generator is not None:
            order = torch.randperm(len(part), generator=generator)
        pieces += [(number, chosen) for chosen in order.split(size)]
    if generator is not None:
        pieces = [pieces[i] for i in torch.randperm(len(pieces), generator=generator)]
    for number, chosen in pieces:
        yield Batch(parts[number].graph[chosen], parts[number].target[chosen])
