"""Finds the system of lines with the largest tree-sliced distance between two clouds."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from gmn.errors import ArgumentError
from gmn.foundation.arguments import require_number, require_whole
from gmn.transport.clouds import CoordinateFrame, check
from gmn.transport.splitting import Splitting
from gmn.transport.systems import Kind, Systems
from gmn.transport.trees import DEFAULT_SPLITTING, tree_sliced_wasserstein


def max_tree_sliced_wasserstein(
    x: Tensor,  # shape: (n, d)
    y: Tensor,  # shape: (m, d)
    *,
    lines: int = 4,
    kind: Kind = "concurrent",
    splitting: Splitting = DEFAULT_SPLITTING,
    weights: tuple[Tensor | None, Tensor | None] = (None, None),
    steps: int = 100,
    learning_rate: float = 0.05,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The largest distance that gradient ascent on one system finds (MaxTSW-SL, Algorithm 3).

    With one line it is the max-sliced Wasserstein distance of order 1. The system found is held
    fixed afterwards, so that the result is differentiable in the points.

    Args:
        x: points, shape (n, d).
        y: points, shape (m, d).
        lines: number of lines of the system.
        kind: ``"concurrent"`` or ``"chain"``.
        splitting: map from points to shares of lines.
        weights: of the points; None for equal ones.
        steps: of Adam on directions and places of the lines.
        learning_rate: learning rate of these steps.
        generator: draws the first system, on the CPU.

    Returns:
        A number, shape ().

    Raises:
        ValueError: if shapes do not fit, or numbers are not finite.
    """
    check(x, y)
    if x.dim() != 2:
        raise ArgumentError(f"x has shape {tuple(x.shape)}; give one cloud, (n, d)")
    require_whole("steps", steps, 1)
    require_number("learning_rate", learning_rate, above=0)
    # Adam's steps of half precision divide by 0.
    wide = x.float() if x.dtype.itemsize < torch.float32.itemsize else x
    first = Systems.sample(x.shape[-1], 1, lines, kind, generator=generator).to(wide)
    root = first.offsets[:, :1].clone().requires_grad_()
    directions = first.directions.clone().requires_grad_()
    walk = None if first.steps is None else first.steps.clone().requires_grad_()
    frame = CoordinateFrame.of(x, y)

    def system() -> Systems:
        units = functional.normalize(directions, dim=-1)
        if walk is None:
            return Systems(units, root.expand_as(units), None)
        return Systems.chained(root, units, walk)

    def distance(a: Tensor, b: Tensor, systems: Systems) -> Tensor:
        return tree_sliced_wasserstein(
            a, b, splitting=splitting, weights=weights, systems=systems, frame=frame
        )

    moved = [root, directions] if walk is None else [root, directions, walk]
    optimiser = torch.optim.Adam(moved, learning_rate, maximize=True)
    best, chosen = -torch.inf, first
    with torch.enable_grad():
        for _ in range(steps):
            current = system()
            value = distance(x.detach(), y.detach(), current)
            if float(value.detach()) > best:
                best, chosen = float(value.detach()), current
            optimiser.zero_grad()
            value.backward()
            optimiser.step()
    return distance(x, y, chosen.detach())
