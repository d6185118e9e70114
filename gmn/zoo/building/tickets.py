"""Populations of initialisations, each with its winning ticket."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

import torch
from torch import Tensor, nn

from gmn.zoo import images
from gmn.zoo.architectures.networks import network
from gmn.zoo.building.builders import Builder, Shard
from gmn.zoo.seeds import derive_seed, split_of
from gmn.zoo.store.files import Row
from gmn.zoo.training.classifying import initial_state
from gmn.zoo.training.pruning import TrainingSetup, accuracies, keep_largest, prune
from gmn.zoo.training.states import State

MASK = "mask"
MASKS = ("dense", "ticket", "random", "magnitude")


@dataclass(frozen=True)
class TicketBuilder(Builder):
    """Initialisations of classifiers, and the masks that iterative magnitude pruning finds.

    The networks of the population are *untrained*; beside each lies, under ``mask``, which weights
    its winning ticket keeps (Frankle & Carbin, 2019). Layers are pruned one by one, so that all
    tickets keep the same number of weights in each; the last layer half as fast, as in the paper;
    biases not at all. All networks see the same images in the same order: a ticket is a function
    of the initialisation.

    Attributes:
        images: name of the image set.
        architectures: names of the architectures, which read flat images.
        keep: share of the weights of each layer but the last that a ticket keeps; the last keeps
            the root of it.
        rounds: number of times that networks are trained, pruned and rewound.
        steps: training steps in each round.
        batch_size: images per step.
        learning_rate: learning rate of Adam at the first step; it falls linearly to zero.
    """

    images: str
    architectures: tuple[str, ...]
    keep: float = 0.05
    rounds: int = 10
    steps: int = 150
    batch_size: int = 64
    learning_rate: float = 1e-2

    shard_size = 50

    @classmethod
    def of(cls, configuration: Mapping[str, Any]) -> Self:
        """The builder of a population that has this configuration."""
        arguments = {field.name: configuration[field.name] for field in fields(cls)}
        return cls(**{**arguments, "architectures": tuple(arguments["architectures"])})

    def configuration(self) -> dict[str, Any]:
        """Image set, architectures, all about training and pruning, and the size of shards."""
        return {**asdict(self), "shard_size": self.shard_size}

    def example(self) -> Tensor:
        """One flat image, shape (1, inputs)."""
        return images.load(self.images).train_images[:1].flatten(1)

    def train(self, shard: Shard, seed: int) -> tuple[State, list[Row]]:
        """The initialisations of one shard, and the accuracies that can be reached from them."""
        return self.train_with_extras(shard, seed)[:2]

    def train_with_extras(
        self, shard: Shard, seed: int
    ) -> tuple[State, list[Row], dict[str, State]]:
        """Finds the tickets of one shard.

        Returns:
            The initialisations; rows with the accuracy after training under each of ``MASKS``; and
            the masks of the tickets, bool.
        """
        module = network(shard.architecture)
        seeds = [derive_seed(seed, "network", index) for index in shard.networks]
        initial = _initialisations(module, seeds)
        counts = self.counts(module)
        rounds, trained = prune(module, initial, self.setup(), counts)
        masks = {
            "ticket": rounds[-1],
            "random": random_masks(rounds[-1], counts[-1], seeds),
            "magnitude": {n: keep_largest(initial[n].abs(), k) for n, k in counts[-1].items()},
        }
        test_accuracies = {
            name: self.accuracy(module, initial, mask) for name, mask in masks.items()
        }
        test_accuracies["dense"] = self._score(module, trained)
        rows: list[Row] = [
            {
                "split": split_of(seed, index),
                **{f"{name}_accuracy": float(test_accuracies[name][row]) for name in MASKS},
                "seed": seeds[row],
            }
            for row, index in enumerate(shard.networks)
        ]
        return initial, rows, {MASK: {name: mask.bool() for name, mask in rounds[-1].items()}}

    def setup(self) -> TrainingSetup:
        """The images, batches and learning rate of all networks of all such populations."""
        data = images.load(self.images)
        generator = torch.Generator().manual_seed(derive_seed(0, "batches"))
        size = (self.steps, self.batch_size)
        batches = torch.randint(len(data.train_labels), size, generator=generator)
        return TrainingSetup(
            data.train_images.flatten(1), data.train_labels, batches, self.learning_rate
        )

    def counts(self, module: nn.Module) -> list[dict[str, int]]:
        """How many weights each layer keeps after each round, by name."""
        sizes = {n: value.numel() for n, value in module.state_dict().items() if value.ndim > 1}
        last = list(sizes)[-1]
        return [
            {
                name: round(size * self.keep ** (fraction / 2 if name == last else fraction))
                for name, size in sizes.items()
            }
            for fraction in (done / self.rounds for done in range(1, self.rounds + 1))
        ]

    def accuracy(self, module: nn.Module, initial: State, masks: State) -> Tensor:
        """Accuracy on the test images after training from an initialisation under masks.

        Args:
            module: any network of the architecture; its own weights are not used.
            initial: stacked states of N networks.
            masks: by name of a weight, 1 where it is kept and 0 elsewhere, shape (N, ...).

        Returns:
            Shape (N,).
        """
        return self._score(module, self.setup().train(module, initial, masks))

    def _score(self, module: nn.Module, state: State) -> Tensor:
        data = images.load(self.images)
        return accuracies(module, state, data.test_images.flatten(1), data.test_labels)

    def card(self, rows: Sequence[Row]) -> dict[str, Any]:
        """Mean accuracy after training under each of ``MASKS``, and the weights of each ticket."""
        means = {
            name: round(sum(row[f"{name}_accuracy"] for row in rows) / len(rows), 4)
            for name in MASKS
        }
        kept = {name: self.counts(network(name))[-1] for name in self.architectures}
        return {"mean_accuracy": means, "weights_kept": kept}


def _initialisations(module: nn.Module, seeds: Sequence[int]) -> State:
    """Normal weights of variance 2 / fan-in and zero biases, one network for each seed."""
    states = [
        initial_state(module, 1.0, torch.float32, torch.Generator().manual_seed(seed))
        for seed in seeds
    ]
    return {name: torch.stack([state[name] for state in states]) for name in states[0]}


def random_masks(like: State, counts: Mapping[str, int], seeds: Sequence[int]) -> State:
    """Masks that keep as many weights of each layer, chosen at random.

    Args:
        like: tensors of the shapes (N, ...) of the weights, by name.
        counts: how many weights are kept, by name.
        seeds: one seed for each network.

    Returns:
        1 where a weight is kept and 0 elsewhere, shape (N, ...).
    """
    generators = [torch.Generator().manual_seed(derive_seed(seed, "random mask")) for seed in seeds]
    return {
        name: keep_largest(
            torch.stack([torch.rand(mask.shape[1:], generator=g) for g in generators]), counts[name]
        )
        for name, mask in like.items()
    }
