"""The interface of population builders: what differs between kinds of population."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from gmn.arguments import require_whole
from gmn.zoo.store.files import Row
from gmn.zoo.training.states import State


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


@dataclass(frozen=True)
class Options:
    """What can be chosen of a population beside its name, if it has that choice.

    Attributes:
        checkpoints: Of classifiers: how many states of each run are kept, the last one at its end;
            they lie at equal distances, and each is a network of its own.
        gradients: Of classifiers: whether the gradient of each network's mean training loss is
            stored beside its weights.
        views: Of networks that hold images: how many in a row hold the same one.

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
        """Those that are not as they are by default, as JSON values."""
        usual = asdict(DEFAULT)
        return {name: value for name, value in asdict(self).items() if value != usual[name]}


DEFAULT = Options()


class Builder(ABC):
    """Which networks a population has, what they learn, and what is noted down of each.

    Network i of a seed must not depend on the size of the population.

    Attributes:
        architectures: Names of its architectures; networks take them in turn.
        shard_size: Largest number of networks, or of runs, that are trained together.
    """

    architectures: tuple[str, ...]
    shard_size: int

    @property
    def checkpoints(self) -> int:
        """How many networks in a row come from one run."""
        return 1

    def configured(self, options: Options) -> Builder:
        """This population, as far as it can be had in other ways.

        Args:
            options: The choices.

        Raises:
            ValueError: If it has not all these choices.
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
            shard: Which ones.
            seed: Seed of the population.

        Returns:
            The states, every tensor stacked to shape (networks, ...); and of each network its
            split, labels and hyper-parameters.
        """

    def train_with_extras(
        self, shard: Shard, seed: int
    ) -> tuple[State, list[Row], dict[str, State]]:
        """As :meth:`train`, and by kind further stacked tensors to be stored beside the states.

        There are none, unless a builder overrides this.
        """
        return *self.train(shard, seed), {}

    @abstractmethod
    def card(self, rows: Sequence[Row]) -> dict[str, Any]:
        """What a reader should know about this kind of population, as JSON values.

        Args:
            rows: The rows of all its networks.
        """


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


def plan(
    size: int, architectures: tuple[str, ...], shard_size: int, checkpoints: int = 1
) -> list[Shard]:
    """Deals `size` networks out to shards, so that architectures take turns.

    Args:
        size: Number of networks.
        architectures: Names; run i has the one at ``i % len(architectures)``.
        shard_size: Largest number of runs in a shard.
        checkpoints: How many networks in a row come from one run.

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
