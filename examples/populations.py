"""Populations of networks as clouds: every network one point, in coordinates of its weights."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from tqdm.auto import tqdm

from gmn.canonical import canonical
from gmn.graph import ParameterGraph
from gmn.spec import GraphSpec
from gmn.tasks.matching import matched
from gmn.tasks.scales import scaled, spreads
from gmn.zoo import Zoo, images
from gmn.zoo.architectures.networks import Siren, network
from gmn.zoo.images import pixel_grid
from gmn.zoo.training.fitting import fit, initial_state
from gmn.zoo.training.states import stack

FITTED_AT_ONCE = 50


@dataclass(frozen=True)
class Coordinates:
    """The weights of networks along their principal directions.

    Entries of the state dict are taken in units of their spread; coordinates in units of their root
    mean square.

    Attributes:
        spec: of the networks.
        scales: standard deviation by state-dict entry.
        centre: of all networks, in these units, shape (weights,).
        basis: the directions, of one length, shape (dimensions, weights).
    """

    spec: GraphSpec
    scales: dict[str, float]
    centre: Tensor
    basis: Tensor

    @classmethod
    def of(cls, graph: ParameterGraph, dimensions: int) -> Coordinates:
        """The directions along which these networks differ most, at most one less than them."""
        scales = spreads(graph)
        weights = flat(graph, scales)
        centre = weights.mean(dim=0)
        _, lengths, directions = torch.linalg.svd(weights - centre, full_matrices=False)
        kept = min(dimensions, len(weights) - 1)
        unit = float((lengths[:kept].square().sum() / (len(weights) * kept)).sqrt())
        return cls(graph.spec, scales, centre, directions[:kept] * unit)

    def points(self, graph: ParameterGraph) -> Tensor:
        """Networks as points, shape (B, dimensions)."""
        moved = (flat(graph, self.scales) - self.centre) @ self.basis.T
        return moved / self.basis[0].square().sum()

    def networks(self, points: Tensor) -> ParameterGraph:
        """Points as networks."""
        weights = points @ self.basis + self.centre
        values = {}
        for entry in self.spec.entries:
            size = math.prod(entry.shape)
            own, weights = weights[:, :size], weights[:, size:]
            values[entry.name] = own.unflatten(1, entry.shape) * self.scales[entry.name]
        return ParameterGraph(self.spec, values)


def flat(graph: ParameterGraph, units: dict[str, float]) -> Tensor:
    """All weights in units of their spread, one after the other: shape (B, weights)."""
    values = scaled(graph, units).values.values()
    return torch.cat([value.flatten(1) for value in values], dim=1)


def of_digit(zoo: Zoo, digit: int, count: int) -> Tensor:
    """The numbers of the first networks that hold a digit.

    Raises:
        SystemExit: if there are not so many.
    """
    found = torch.nonzero(zoo.labels("label") == digit).flatten()
    if len(found) < count:
        raise SystemExit(
            f"{zoo.folder} has {len(found)} networks of the digit {digit}, not {count}: choose "
            "fewer with --networks, or build a larger zoo"
        )
    return found[:count]


def pictures(zoo: Zoo, indices: Tensor) -> Tensor:
    """The images that networks were fitted to, shape (B, 1, height, width)."""
    known, _ = images.load_all(zoo.manifest["configuration"]["images"])
    return known[zoo.labels("image", indices).long()]


def aligned(graph: ParameterGraph) -> ParameterGraph:
    """Canonical phases and signs, and hidden neurons in an order near to the first network's."""
    graph = canonical(graph)
    first = graph[torch.zeros(len(graph), dtype=torch.int64)]
    units = spreads(graph)
    near = matched(scaled(graph, units), onto=scaled(first, units))
    return scaled(near, {name: 1 / unit for name, unit in units.items()})


def refitted(zoo: Zoo, indices: Tensor, seed: int) -> ParameterGraph:
    """Networks of the same images, fitted by the zoo's recipe, all from one initialisation.

    Raises:
        SystemExit: if the zoo is not one of SIRENs.
    """
    module = network(zoo.architectures[0])
    if not isinstance(module, Siren):
        raise SystemExit(f"{zoo.folder} holds {zoo.architectures[0]}, not SIRENs")
    start = initial_state(module, Generator().manual_seed(seed))
    wanted = pictures(zoo, indices)
    points = pixel_grid(*wanted.shape[-2:])
    recipe = zoo.manifest["configuration"]
    parts = []
    for some in tqdm(wanted.split(FITTED_AT_ONCE), "fits from one start", unit="batch"):
        initial = stack([start] * len(some))
        state, _ = fit(
            module, initial, points, some.flatten(1), recipe["steps"], recipe["learning_rate"]
        )
        parts.append(ParameterGraph(zoo.spec(zoo.architectures[0]), state))
    return ParameterGraph.cat(parts)
