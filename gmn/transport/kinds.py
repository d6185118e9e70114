"""Looks up distances between clouds by name, for networks and for losses."""

from __future__ import annotations

import torch
from torch import Tensor

from gmn.transport.assignment import assigned_wasserstein
from gmn.transport.clouds import CoordinateFrame
from gmn.transport.sliced import sliced_wasserstein
from gmn.transport.systems import Systems
from gmn.transport.trees import tree_sliced_wasserstein

LINES_PER_TREE = 4


def order_of(kind: str) -> int:
    """p, the order of a distance."""
    return 1 if kind == "tree" else 2


def directions(dimension: int, lines: int, generator: torch.Generator) -> Tensor:
    """Random directions to slice along, shape (lines, dimension)."""
    return Systems.sample(dimension, lines, 1, generator=generator).directions[:, 0]


def trees(dimension: int, lines: int, generator: torch.Generator) -> Systems:
    """Random trees of four lines each, ``lines`` in all."""
    return Systems.sample(dimension, lines // LINES_PER_TREE, LINES_PER_TREE, generator=generator)


def powers(
    x: Tensor,  # shape: (B, n, d)
    y: Tensor,  # shape: (B, m, d)
    kind: str,
    lines: int,
    generator: torch.Generator,
    frame: CoordinateFrame | None = None,
) -> Tensor:
    """The distance of B pairs of clouds to the power of its order, shape (B,).

    Args:
        x: points, shape (B, n, d).
        y: points, shape (B, m, d).
        kind: ``"sliced"`` (order 2), ``"tree"`` (order 1), ``"sobolev"`` (trees, order 2) or
            ``"assignment"`` (order 2, per coordinate, as slices are).
        lines: directions of slices; trees have four each.
        generator: draws the lines, on the CPU.
        frame: where trees are laid; around each pair if None.
    """
    dimension = x.shape[-1]
    if kind == "sliced":
        along = directions(dimension, lines, generator)
        return sliced_wasserstein(x, y, directions=along, root=False)
    if kind == "assignment":
        return assigned_wasserstein(x, y, root=False) / dimension
    systems = trees(dimension, lines, generator)
    p = order_of(kind)
    return tree_sliced_wasserstein(x, y, p=p, systems=systems, frame=frame, root=False)
