"""Gradient flows: clouds of points that descend a distance to other clouds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Generator, Tensor

from gmn.transport import (
    assigned_wasserstein,
    max_tree_sliced_wasserstein,
    sliced_wasserstein,
    tree_sliced_wasserstein,
)
from gmn.transport.systems import Kind

LINES = 100  # of every sliced method, drawn anew at each step
LINES_PER_TREE = 4
ASCENT_STEPS = 5  # of the maximum, at each step of the flow


class Loss(Protocol):
    """What points descend."""

    def __call__(self, x: Tensor, y: Tensor, generator: Generator) -> Tensor:
        """Distances of the clouds (B, n, d) and (B, m, d), shape (B,)."""


@dataclass(frozen=True)
class Method:
    """A distance to descend.

    Attributes:
        label: for tables and pictures.
        loss: the distance, to the power of its order.
    """

    label: str
    loss: Loss


def _sliced(x: Tensor, y: Tensor, generator: Generator, p: float) -> Tensor:
    return sliced_wasserstein(x, y, p=p, projections=LINES, root=False, generator=generator)


def _tree(
    x: Tensor,
    y: Tensor,
    generator: Generator,
    p: float = 1,
    kind: Kind = "concurrent",
    orthogonal: bool = False,
) -> Tensor:
    lines = min(LINES_PER_TREE, x.shape[-1]) if orthogonal else LINES_PER_TREE
    return tree_sliced_wasserstein(
        x,
        y,
        p=p,
        trees=LINES // lines,
        lines=lines,
        kind=kind,
        orthogonal=orthogonal,
        root=False,
        generator=generator,
    )


def _maximum(x: Tensor, y: Tensor, generator: Generator) -> Tensor:
    pairs = zip(x, y, strict=True)
    found = [
        max_tree_sliced_wasserstein(a, b, steps=ASCENT_STEPS, generator=generator) for a, b in pairs
    ]
    return torch.stack(found)


def _exact(x: Tensor, y: Tensor, generator: Generator) -> Tensor:
    return assigned_wasserstein(x, y, root=False)


METHODS = {
    "sw1": Method("SW₁", partial(_sliced, p=1)),
    "sw2": Method("SW₂²", partial(_sliced, p=2)),
    "db-tsw": Method("Db-TSW", _tree),
    "db-tsw-orthogonal": Method("Db-TSW⊥", partial(_tree, orthogonal=True)),
    "chain": Method("TSW-SL, chains, by distance", partial(_tree, kind="chain")),
    "sobolev": Method("Db-TSW, Sobolev p = 2", partial(_tree, p=2)),
    "maximum": Method("MaxTSW-SL, by distance", _maximum),
    "assignment": Method("W₂², assignment", _exact),
}


def flow(
    start: Tensor,  # shape: (B, n, d)
    goal: Tensor,  # shape: (B, m, d)
    loss: Loss,
    rates: Sequence[float],
    steps: int,
    generator: Generator,
) -> Iterator[Tensor]:
    """Moves the points of B clouds by Adam, each cloud at a learning rate of its own.

    Args:
        start: where the points are at first, shape (B, n, d); left as it is.
        goal: the clouds they shall become, shape (B, m, d).
        loss: what the points descend.
        rates: a learning rate for each cloud.
        steps: of Adam.
        generator: draws the lines, the same for all clouds of a step.

    Yields:
        The points, shape (B, n, d), before the first step and after each.
    """
    leaves = [cloud.clone().requires_grad_() for cloud in start]
    groups = [{"params": [leaf], "lr": rate} for leaf, rate in zip(leaves, rates, strict=True)]
    optimiser = torch.optim.Adam(groups)
    for _ in range(steps):
        points = torch.stack(leaves)
        yield points.detach()
        optimiser.zero_grad()
        loss(points, goal, generator).sum().backward()
        optimiser.step()
    yield torch.stack(leaves).detach()
