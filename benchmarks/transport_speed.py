"""How fast distances between clouds and between networks are, in one run.

`clouds`   forward and backward of one pair of clouds, by 100 lines: POT's and our sliced
           Wasserstein, trees (concurrent, orthogonal, chains), the same trees with every difference
           of points and lines materialised, exact assignment.
`networks` the matrix of all distances between 1,000 networks of a population.

Run: python -m benchmarks.transport_speed clouds
     python -m benchmarks.transport_speed networks runs/inr-mnist runs/cnn-mnist
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import ot
import torch
from torch import Tensor

from gmn import transport, zoo
from gmn.transport.clouds import CoordinateFrame
from gmn.transport.trees import tree_wasserstein

TREES, LINES = 25, 4
SIZES = ((64, 66), (256, 258), (1024, 1026))
Distance = Callable[[Tensor, Tensor], Tensor]


def materialised(x: Tensor, y: Tensor, systems: transport.Systems) -> Tensor:
    """Db-TSW as the published code computes it: tensors of trees times lines times n times d."""
    frame, systems = CoordinateFrame.of(x, y), systems.to(x)
    places, masses = [], []
    for cloud, sign in ((x, 1), (y, -1)):
        points = (cloud - frame.centre) / frame.scale
        moved = points - systems.offsets.unsqueeze(2)  # shape: (trees, lines, n, d)
        along = systems.directions.unsqueeze(2)
        coordinates = (moved * along).sum(-1)
        feet = coordinates.unsqueeze(-1) * along
        distances = (moved - feet).square().sum(-1).clamp(min=1e-7).sqrt()
        places.append(coordinates)
        masses.append(sign / len(cloud) * (-2 * distances).softmax(-2))
    powers = tree_wasserstein(torch.cat(places, -1), torch.cat(masses, -1), systems.steps)
    return frame.scale * powers.mean()


def methods(dimension: int, dtype: torch.dtype) -> dict[str, Distance]:
    """The distances by name; all with 100 lines, the same ones in every step."""

    def systems(kind: str = "concurrent", orthogonal: bool = False) -> transport.Systems:
        chance = torch.Generator().manual_seed(0)
        drawn = transport.Systems.sample(
            dimension, TREES, LINES, kind, orthogonal=orthogonal, generator=chance
        )
        return drawn.to(torch.zeros((), dtype=dtype))

    tree = transport.tree_sliced_wasserstein
    lines = systems().directions.flatten(0, 1)
    return {
        "POT sliced W_2": partial(
            ot.sliced_wasserstein_distance, n_projections=len(lines), projections=lines.T
        ),
        "sliced W_2": partial(transport.sliced_wasserstein, directions=lines),
        "Db-TSW": partial(tree, systems=systems()),
        "Db-TSW, orthogonal": partial(tree, systems=systems(orthogonal=True)),
        "chains": partial(tree, systems=systems("chain")),
        "Db-TSW, materialised": partial(materialised, systems=systems()),
        "assignment": transport.assigned_wasserstein,
    }


def step(distance: Distance, x: Tensor, y: Tensor) -> float:
    """Seconds of a forward and backward pass."""
    x = x.detach().requires_grad_()
    start = time.perf_counter()
    distance(x, y).backward()
    return time.perf_counter() - start


def clouds(options: argparse.Namespace) -> None:
    """Prints milliseconds of a step, and in brackets how many steps of POT's that is."""
    print("| n, d | " + " | ".join(methods(8, torch.float32)) + " |")
    for n, d in SIZES:
        chance = torch.Generator().manual_seed(0)
        x, y = torch.randn(2, n, d, generator=chance)
        found = methods(d, x.dtype)
        seconds: dict[str, list[float]] = {name: [] for name in found}
        for turn in range(options.turns + 1):
            for name, distance in found.items():
                took = step(distance, x, y)
                if turn:  # the first one warms up
                    seconds[name].append(took)
        middle = {name: statistics.median(times) for name, times in seconds.items()}
        cells = [f"{t * 1e3:.1f} ({t / middle['POT sliced W_2']:.2f})" for t in middle.values()]
        print(f"| {n}, {d} | " + " | ".join(cells) + " |", flush=True)


def networks(options: argparse.Namespace) -> None:
    """Prints seconds of the matrix of distances, by coordinates and kind."""
    print("| population | coordinates | kind | networks | clouds s | matrix s |")
    for folder in options.populations:
        population = zoo.open(folder)
        chosen = population.indices(architecture=population.architectures[0])[: options.count]
        graph = population.graph(chosen)
        for coords in ("io", "probe"):
            for kind in ("sliced", "tree", "assignment"):
                distance = transport.NetworkDistance(coords, kind)
                start = time.perf_counter()
                distance.clouds(graph)
                middle = time.perf_counter()
                distance.matrix(graph)
                took = time.perf_counter() - middle
                print(
                    f"| {folder.name} | {coords} | {kind} | {len(graph)} | "
                    f"{middle - start:.1f} | {took:.1f} |",
                    flush=True,
                )


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["clouds", "networks"])
    parser.add_argument("populations", nargs="*", type=Path)
    parser.add_argument("--turns", type=int, default=9, help="steps of which the median is shown")
    parser.add_argument("--count", type=int, default=1000, help="networks of each population")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    (clouds if options.what == "clouds" else networks)(options)


if __name__ == "__main__":
    main()
