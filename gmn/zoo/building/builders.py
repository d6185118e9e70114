"""The interface that every kind of population implements."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from gmn.foundation.arguments import require_whole
from gmn.zoo.store.files import Row
from gmn.zoo.training.states import State


@dataclass(frozen=True)
class Shard:
    """The networks that are trained together and lie in one file.

    Attributes:
        number: position of the shard.
        architecture: name of the one architecture in it.
        networks: indices of its networks in the population.
    """

    number: int
    architecture: str
    networks: tuple[int, ...]


@dataclass(frozen=True)
class Options:
    """Options that some populations have.

    Attributes:
        checkpoints: for classifiers, how many states of each run are kept, the last one at its end;
            they lie at equal distances, and each is a network of its own.
        gradients: for classifiers, whether the gradient of each network's mean training loss is
            stored beside its weights.
        views: for INRs, how many networks in a row hold the same image.

    Raises:
        ValueError: If checkpoints or views are not positive.
    """

    checkpoints: int = 1
    gradients: bool = False
    views: int = 1

    def __post_init__(self) -> None:
        require_whole("checkpoints", self.checkpoints, 1)
        require_whole("views", self.views, 1)

    def chosen(self) -> dict[str, Any]:
        """The options that differ from their defaults, as JSON values."""
        default = asdict(DEFAULT)
        return {name: value for name, value in asdict(self).items() if value != default[name]}


DEFAULT = Options()


class Builder(ABC):
    """Which networks a population has, what they are trained on, and what is recorded of each.

    Network i of a seed must not depend on the size of the population.

    Attributes:
        architectures: names of its architectures, which alternate from network to network.
        shard_size: largest number of networks, or of runs, that are trained together.
    """

    architectures: tuple[str, ...]
    shard_size: int

    @property
    def checkpoints(self) -> int:
        """How many networks in a row come from one run."""
        return 1

    def configured(self, options: Options) -> Builder:
        """This population with other options.

        Args:
            options: the options.

        Raises:
            ValueError: If the population lacks one of these options.
        """
        if options.chosen():
            raise ValueError(
                f"{type(self).__name__} has no choice of {', '.join(options.chosen())}; "
                "checkpoints and gradients are of classifiers, views of networks that hold images"
            )
        return self

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
            shard: the networks to train.
            seed: seed of the population.

        Returns:
            The states, every tensor stacked to shape (networks, ...); and for each network a row of
            split, labels and hyper-parameters.
        """

    def train_with_extras(
        self, shard: Shard, seed: int
    ) -> tuple[State, list[Row], dict[str, State]]:
        """As :meth:`train`, and further stacked tensors, by kind, to store beside the states.

        There are none, unless a builder overrides this.
        """
        return *self.train(shard, seed), {}

    @abstractmethod
    def card(self, rows: Sequence[Row]) -> dict[str, Any]:
        """What a reader should know about this kind of population, as JSON values.

        Args:
            rows: the rows of all its networks.
        """


def finite(state: State, rows: Sequence[Row]) -> Tensor:
    """Which networks are worth keeping: all their weights and metrics are finite numbers.

    Args:
        state: stacked tensors, each of shape (networks, ...).
        rows: the row of each network.

    Returns:
        Shape (networks,), bool.
    """
    weights = torch.stack([value.flatten(1).isfinite().all(1) for value in state.values()]).all(0)
    metrics = [[value for value in row.values() if isinstance(value, float)] for row in rows]
    return weights & torch.tensor([all(map(math.isfinite, each)) for each in metrics])


def plan(
    size: int, architectures: tuple[str, ...], shard_size: int, checkpoints: int = 1
) -> list[Shard]:
    """Assigns `size` networks to shards; architectures alternate.

    Args:
        size: number of networks.
        architectures: their names; run i has the one at ``i % len(architectures)``.
        shard_size: largest number of runs in a shard.
        checkpoints: how many networks in a row come from one run.

    Returns:
        The shards, numbered from zero.

    Raises:
        ValueError: If the networks are not those of whole runs.
    """
    if size % checkpoints:
        raise ValueError(
            f"size {size} is no multiple of the {checkpoints} checkpoints of each run; "
            f"take {size - size % checkpoints + checkpoints}"
        )
    runs = size // checkpoints
    width = len(architectures)
    stride = shard_size * width
    parts = [
        (architecture, tuple(range(start + offset, min(start + stride, runs), width)))
        for start in range(0, runs, stride)
        for offset, architecture in enumerate(architectures)
    ]
    each = range(checkpoints)
    filled = [part for part in parts if part[1]]
    return [
        Shard(number, architecture, tuple(run * checkpoints + k for run in part for k in each))
        for number, (architecture, part) in enumerate(filled)
    ]
