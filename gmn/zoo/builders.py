"""What a kind of population has to say about itself; the rest of building is common to all."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gmn.zoo.store import Row

State = dict[str, Tensor]


@dataclass(frozen=True)
class Shard:
    """The networks that are trained together and lie in one file.

    Attributes:
        number: Position of the shard.
        architecture: Name of the one architecture in it.
        networks: Numbers of its networks in the whole population.
    """

    number: int
    architecture: str
    networks: tuple[int, ...]


class Builder(ABC):
    """Which networks a population has, what they learn, and what is noted down of each.

    Network i of a seed must not depend on the size of the population.

    Attributes:
        architectures: Names of its architectures; networks take them in turn.
        shard_size: Largest number of networks that are trained together.
    """

    architectures: tuple[str, ...]
    shard_size: int

    @abstractmethod
    def configuration(self) -> dict[str, Any]:
        """All that decides what is built, besides size and seed, as JSON values."""

    @abstractmethod
    def example(self) -> Tensor:
        """An input of the networks, to trace them with.

        Raises:
            MissingImages: If the images of the population are not installed.
        """

    @abstractmethod
    def train(self, shard: Shard, seed: int) -> tuple[State, list[Row]]:
        """Trains the networks of one shard.

        Args:
            shard: Which ones.
            seed: Seed of the population.

        Returns:
            The states, every tensor stacked to shape (networks, ...); and of each network its
            split, labels and hyper-parameters.
        """

    @abstractmethod
    def card(self, rows: Sequence[Row]) -> dict[str, Any]:
        """What a reader should know about this kind of population, as JSON values.

        Args:
            rows: The rows of all its networks.
        """


def stack(states: Sequence[State]) -> State:
    """States of N networks as one, every tensor of shape (N, ...)."""
    return {name: torch.stack([state[name] for state in states]) for name in states[0]}


def finite(state: State, rows: Sequence[Row]) -> Tensor:
    """Which networks are worth keeping: all their weights and metrics are finite numbers.

    Args:
        state: Stacked tensors, each of shape (networks, ...).
        rows: What was noted down of each network.

    Returns:
        Shape (networks,), bool.
    """
    weights = torch.stack([value.flatten(1).isfinite().all(1) for value in state.values()]).all(0)
    numbers = [[value for value in row.values() if isinstance(value, float)] for row in rows]
    return weights & torch.tensor([all(map(math.isfinite, each)) for each in numbers])


def plan(size: int, architectures: tuple[str, ...], shard_size: int) -> list[Shard]:
    """Deals `size` networks out to shards, so that architectures take turns.

    Args:
        size: Number of networks.
        architectures: Names; network i has the one at ``i % len(architectures)``.
        shard_size: Largest number of networks in a shard.

    Returns:
        The shards, numbered from zero.
    """
    width = len(architectures)
    stride = shard_size * width
    parts = [
        (architecture, tuple(range(start + offset, min(start + stride, size), width)))
        for start in range(0, size, stride)
        for offset, architecture in enumerate(architectures)
    ]
    filled = [part for part in parts if part[1]]
    return [Shard(number, *part) for number, part in enumerate(filled)]
