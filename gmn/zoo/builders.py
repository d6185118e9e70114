"""The populations that can be built by name: which networks, which images, which recipes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from gmn.zoo.recipe import Range, RecipeRanges
from gmn.zoo.training import BATCH_SIZE

SHARD_SIZE = 25


@dataclass(frozen=True)
class Builder:
    """What a population is made of.

    Attributes:
        images: Name of the image set that its networks learn.
        architectures: Names of its architectures; networks take them in turn.
        ranges: Where the hyper-parameters come from.
    """

    images: str
    architectures: tuple[str, ...]
    ranges: RecipeRanges

    def configuration(self) -> dict[str, Any]:
        """All that decides what is built, besides size and seed, as JSON values."""
        return {**asdict(self), "batch_size": BATCH_SIZE, "shard_size": SHARD_SIZE}


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


# Length and strength of training spread the accuracies, and both leave their trace in the weights.
# Wide ranges of the last three would not: accuracy could no longer be read off a network.
CNN_RANGES = RecipeRanges(
    steps=Range(5, 600, logarithmic=True),
    learning_rate=Range(3e-3, 2e-2, logarithmic=True),
    weight_decay=Range(2e-2, 6.0, logarithmic=True),
    init_scale=Range(0.9, 1.1),
    data_fraction=Range(0.6, 1.0),
    label_noise=Range(0.0, 0.1),
)

BUILDERS: dict[str, Builder] = {
    "cnn-mnist": Builder("mnist", ("cnn-relu", "cnn-tanh"), CNN_RANGES),
    "cnn-digits": Builder("digits", ("cnn-relu", "cnn-tanh"), CNN_RANGES),
}


def builder(name: str) -> Builder:
    """The builder of this name.

    Args:
        name: ``"cnn-mnist"`` or ``"cnn-digits"``.

    Returns:
        What the population is made of.

    Raises:
        ValueError: If no population has this name.
    """
    if name not in BUILDERS:
        raise ValueError(f"no population is called {name!r}; known: {', '.join(sorted(BUILDERS))}")
    return BUILDERS[name]


def plan(size: int, architectures: tuple[str, ...]) -> list[Shard]:
    """Deals `size` networks out to shards, so that architectures take turns.

    Args:
        size: Number of networks.
        architectures: Names; network i has the one at ``i % len(architectures)``.

    Returns:
        The shards, numbered from zero.
    """
    width = len(architectures)
    stride = SHARD_SIZE * width
    parts = [
        (architecture, tuple(range(start + offset, min(start + stride, size), width)))
        for start in range(0, size, stride)
        for offset, architecture in enumerate(architectures)
    ]
    filled = [part for part in parts if part[1]]
    return [Shard(number, *part) for number, part in enumerate(filled)]
