"""Clouds and slow, obvious distances on trees."""

from __future__ import annotations

import itertools

import networkx as nx
import numpy as np
import ot
import torch
from torch import Tensor

from gmn.transport import Splitting, Systems


def cloud(points: int, dimension: int = 3, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(points, dimension, generator=generator, dtype=torch.float64)


def weights(points: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(points, generator=generator, dtype=torch.float64) + 0.1


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def by_linear_program(
    systems: Systems,
    splitting: Splitting,
    clouds: tuple[Tensor, Tensor],
    masses: tuple[Tensor, Tensor],
) -> float:
    """Mean over trees of exact transport with the lengths of paths along the tree as costs."""
    total = 0.0
    for number in range(len(systems)):
        tree, atoms = nx.Graph(), []
        coordinates: list[set[float]] = [{0.0} for _ in range(systems.lines)]
        for points, mass in zip(clouds, masses, strict=True):
            found = []
            relative = points.unsqueeze(0) - systems.offsets[number].unsqueeze(1)
            along = (relative * systems.directions[number].unsqueeze(1)).sum(-1)
            away = relative - along.unsqueeze(-1) * systems.directions[number].unsqueeze(1)
            shares = splitting(points, away.norm(dim=-1).unsqueeze(0))[0]
            for line in range(systems.lines):
                for point in range(len(points)):
                    place = float(along[line, point])
                    coordinates[line].add(place)
                    found.append(((line, place), float(mass[point] * shares[line, point])))
            atoms.append(found)
        starts = [0.0] * systems.lines if systems.steps is None else systems.steps[number].tolist()
        for line in range(1, systems.lines):
            parent = 0 if systems.steps is None else line - 1
            coordinates[parent].add(starts[line - 1])
            tree.add_edge((parent, starts[line - 1]), (line, 0.0), weight=0.0)
        for line, places in enumerate(coordinates):
            ordered = sorted(places)
            for near, far in itertools.pairwise(ordered):
                tree.add_edge((line, near), (line, far), weight=far - near)
        lengths = dict(nx.all_pairs_dijkstra_path_length(tree))
        costs = [[lengths[a][b] for b, _ in atoms[1]] for a, _ in atoms[0]]
        first, second = ([share for _, share in side] for side in atoms)
        total += float(ot.emd2(np.array(first), np.array(second), np.array(costs)))
    return total / len(systems)
