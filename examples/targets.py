"""Clouds of points to flow to."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from sklearn.datasets import make_swiss_roll
from torch import Generator, Tensor

DIMENSIONS = (10, 50, 100, 200)


def swiss_roll(points: int, seed: int) -> Tensor:
    """Points of a spiral, the farthest coordinate at 1, shape (points, 2)."""
    spiral = torch.from_numpy(make_swiss_roll(points, random_state=seed)[0][:, [0, 2]]).float()
    return spiral / spiral.abs().max()


def gaussians_25(points: int, seed: int) -> Tensor:
    """Equally many points, or nearly, at each of 5 × 5 places in the square [-1, 1]²."""
    ticks = torch.linspace(-1, 1, 5)
    places = torch.cartesian_prod(ticks, ticks)
    chosen = places[torch.arange(points) % len(places)]
    return chosen + 0.02 * torch.randn(points, 2, generator=Generator().manual_seed(seed))


def gaussian(points: int, seed: int, dimension: int) -> Tensor:
    """A standard normal cloud whose mean is 1 in every coordinate."""
    return 1 + torch.randn(points, dimension, generator=Generator().manual_seed(seed))


TARGETS: dict[str, Callable[[int, int], Tensor]] = {
    "swiss-roll": swiss_roll,
    "25-gaussians": gaussians_25,
    **{f"gaussian-{dimension}": partial(gaussian, dimension=dimension) for dimension in DIMENSIONS},
}


def problem(target: str, points: int, seed: int) -> tuple[Tensor, Tensor]:
    """Standard normal points to start from, and the points of a target, shapes (points, d).

    Args:
        target: a name in ``TARGETS``.
        points: number of points of either.
        seed: of both; they are drawn independently.
    """
    goal = TARGETS[target](points, 2 * seed)
    chance = Generator().manual_seed(2 * seed + 1)
    return torch.randn(goal.shape, generator=chance), goal
