"""SIRENs for a generator to learn from, and what its networks are judged by."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from examples.populations import flat
from examples.shallow_sirens import fitted, shuffled
from gmn.graph import ParameterGraph
from gmn.tasks.matching import matched
from gmn.tasks.rendering import PixelGrid
from gmn.tasks.scales import scaled, spreads
from gmn.transport import NetworkDistance, Systems, ZooMetrics, zoo_metrics
from gmn.transport.neurons import weight_clouds
from gmn.transport.populations import metrics_of
from gmn.zoo import images

LINES = 16  # along which networks are seen as sets
NOISY = 0.3  # noise of the networks that get some, as a share of the spread of each weight


@dataclass(frozen=True)
class Population:
    """Fitted networks, their neurons in random order.

    Attributes:
        training: what generators learn from.
        reference: held-out networks that all others are compared with.
        further: as many held-out networks again, which are judged like generated ones.
        grid: pixels of their images.
        units: by entry, the spread of its weights over the training networks.
    """

    training: ParameterGraph
    reference: ParameterGraph
    further: ParameterGraph
    grid: PixelGrid
    units: dict[str, float]

    @classmethod
    def of(cls, name: str, training: int, held_out: int, seed: int) -> Population:
        """Fits networks to images of a set.

        Args:
            name: of the image set, see :func:`gmn.zoo.images.load_all`.
            training: how many to learn from.
            held_out: how many to judge by, twice.
            seed: of the choice of images, the initialisation and the order of neurons.

        Raises:
            ValueError: if the set has not so many images.
        """
        pixels, _ = images.load_all(name)
        needed = training + 2 * held_out
        if needed > len(pixels):
            raise ValueError(f"{needed} networks of one image each, but {name} has {len(pixels)}")
        chosen = torch.randperm(len(pixels), generator=chance(seed))[:needed]
        graph, ratios = fitted(pixels[chosen], seed)
        print(f"{needed} networks, median PSNR {ratios.median():.1f} dB")
        graph = shuffled(graph, seed)
        second = training + held_out
        return cls(
            graph[:training],
            graph[training:second],
            graph[second:],
            PixelGrid(*pixels.shape[-2:]),
            spreads(graph[:training]),
        )

    def in_one_order(self) -> ParameterGraph:
        """The training networks, their neurons matched to those of the first."""
        return matched(self.training, self.training[[0] * len(self.training)])

    def flat(self, graph: ParameterGraph) -> Tensor:
        """Weights in units of their spread, one after the other: shape (B, weights)."""
        return flat(graph, self.units)

    def sets(self, graph: ParameterGraph) -> Tensor:
        """Networks as points that do not know an order: their neurons' sorted projections.

        The Euclidean distance of two points is the sliced Wasserstein distance of order 2 of the
        sets of neurons (its square, the sum over clouds), along 16 lines. Shape (B, numbers).
        """
        parts = []
        for cloud in weight_clouds(scaled(graph, self.units), gauged=False).values():
            systems = Systems.sample(cloud.shape[2], LINES, 1, generator=chance(0))
            projected = (cloud @ systems.directions[:, 0].to(cloud).T).sort(dim=1).values
            parts.append(projected.flatten(1) / projected[0].numel() ** 0.5)
        return torch.cat(parts, dim=1)

    def rendered(self, graph: ParameterGraph) -> Tensor:
        """Pixels, shape (B, height * width)."""
        return self.grid.images(graph).flatten(1)


def chance(seed: int) -> Generator:
    """A source of chance."""
    return Generator().manual_seed(seed)


def known(population: Population, seed: int) -> dict[str, ParameterGraph]:
    """Networks that were not generated, beside which generated ones are to be read."""
    generator, count = chance(seed), len(population.reference)

    def noise(value: Tensor) -> Tensor:
        """As much as a weight varies over the training networks, at its place."""
        return value.std(0) * torch.randn(count, *value.shape[1:], generator=generator)

    values = population.in_one_order().values
    return {
        "held-out networks": population.further,
        "training networks, reordered": shuffled(population.training[:count], seed + 1),
        "training networks with noise": ParameterGraph(
            population.training.spec, {n: v[:count] + NOISY * noise(v) for n, v in values.items()}
        ),
        "a normal distribution per weight": ParameterGraph(
            population.training.spec, {n: v.mean(0) + noise(v) for n, v in values.items()}
        ),
    }


@torch.no_grad()
def judged(graph: ParameterGraph, population: Population) -> dict[str, ZooMetrics]:
    """Metrics of networks as sets of neurons, and as images."""
    real, learned = population.reference, population.training
    as_images = [population.rendered(networks) for networks in (graph, real, learned)]
    pairs = {
        "generated": (0, 0),
        "crossed": (0, 1),
        "reference": (1, 1),
        "learned": (0, 2),
        "held_out": (1, 2),
    }
    distances = {
        name: torch.cdist(as_images[a], as_images[b], compute_mode="donot_use_mm_for_euclid_dist")
        for name, (a, b) in pairs.items()
    }
    return {
        "neurons": zoo_metrics(graph, real, learned, NetworkDistance(lines=LINES)),
        "images": metrics_of(**distances),
    }
