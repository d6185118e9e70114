"""Tree-sliced Wasserstein distances on systems of lines (TSW-SL, Db-TSW)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gmn.transport.clouds import Cloud, Frame, pair
from gmn.transport.splitting import ByDistance, Splitting
from gmn.transport.systems import Kind, Systems

CHUNK = 2**22  # numbers of coordinates that are worked on at once
DEFAULT_SPLITTING = ByDistance()


def tree_sliced_wasserstein(
    x: Tensor,  # shape: (..., n, d)
    y: Tensor,  # shape: (..., m, d)
    *,
    p: float = 1,
    trees: int = 25,
    lines: int = 4,
    kind: Kind = "concurrent",
    splitting: Splitting = DEFAULT_SPLITTING,
    orthogonal: bool = False,
    weights: tuple[Tensor | None, Tensor | None] = (None, None),
    systems: Systems | None = None,
    frame: Frame | None = None,
    root: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The tree-sliced Wasserstein distance on systems of lines.

    Points are projected onto all lines of a tree, their mass shared among the lines by the
    splitting map; the distance of the two projected measures along the tree is averaged over trees
    (Tran et al. 2025, arXiv 2406.13725, equations 11 and 13). For ``p > 1`` it is the Sobolev
    transport form: masses beyond edges to the p-th power, and the p-th root of the mean.

    With one line a tree and ``p = 1`` it is the sliced Wasserstein distance W_1; and so it is with
    any splitting that is the same for all points, as then each line's masses cancel. By default
    trees are laid around the mean of both clouds in units of their spread, so that the distance
    moves with shifts and units of a pair; give one ``frame`` and ``systems`` to all pairs for
    distances that obey the triangle inequality among each other.

    Args:
        x: points, shape (..., n, d).
        y: points, shape (..., m, d).
        p: order, at least 1.
        trees: number of systems.
        lines: of each system.
        kind: ``"concurrent"`` or ``"chain"``, see :meth:`Systems.sample`.
        splitting: how mass is shared: :class:`ByDistance` (Db-TSW), :class:`Learned`, a module of
            your own, or :class:`Uniform`, which makes it W_1 sliced along all lines, whatever the
            trees.
        orthogonal: whether the lines of a system are orthogonal to each other.
        weights: of the points, shapes (..., n) and (..., m); None for equal ones.
        systems: instead of random ones.
        frame: where the systems are laid; around these clouds if None.
        root: False for the p-th power (of p > 1).
        generator: the source of chance, on the CPU.

    Returns:
        Shape (...), in units of the points' coordinates; differentiable in points and weights.

    Raises:
        ValueError: if shapes do not fit, numbers are not finite, or p is below 1.

    >>> cloud = torch.arange(6.0).view(3, 2)
    >>> float(tree_sliced_wasserstein(cloud, cloud.flip(0)))
    0.0
    """
    if p < 1:
        raise ValueError(f"p is {p}; it has to be at least 1")
    clouds = pair(x, y, weights)
    if systems is None:
        systems = Systems.sample(
            x.shape[-1], trees, lines, kind, orthogonal=orthogonal, generator=generator
        )
    if systems.dimension != x.shape[-1]:
        raise ValueError(f"systems of {systems.dimension} dimensions, clouds of {x.shape[-1]}")
    systems = systems.to(x)
    frame = Frame.of(*(cloud.points for cloud in clouds)) if frame is None else frame
    scale = frame.scale.to(x)
    moved = [
        Cloud((c.points - frame.centre.to(x).unsqueeze(-2)) / scale[..., None, None], c.masses)
        for c in clouds
    ]
    numbers = sum(cloud.masses.numel() for cloud in moved) * systems.lines
    parts = systems.split(max(1, CHUNK // numbers))
    powers = sum(_on(part, moved, p, splitting).sum(-1) for part in parts) / len(systems)
    return (scale * powers) ** (1 / p) if root and p != 1 else scale * powers


def _on(systems: Systems, pair: Sequence[Cloud], p: float, splitting: Splitting) -> Tensor:
    """The p-th power of the distance on each tree, shape (..., trees)."""
    places, masses = [], []
    for cloud, sign in zip(pair, (1, -1), strict=True):
        coordinates, distances = _project(systems, cloud.points)
        places.append(coordinates)
        shares = splitting(cloud.points, distances)
        masses.append(sign * cloud.masses[..., None, None, :] * shares)
    return tree_wasserstein(torch.cat(places, -1), torch.cat(masses, -1), systems.steps, p)


def _project(systems: Systems, cloud: Tensor) -> tuple[Tensor, Tensor]:
    """Coordinates on all lines and distances from them, shapes (..., trees, lines, n).

    By matrix products: no tensor of points times lines times dimensions is made.
    """
    directions, offsets = systems.directions.flatten(0, 1), systems.offsets.flatten(0, 1)
    starts = (directions * offsets).sum(-1, keepdim=True)
    coordinates = directions @ cloud.mT - starts
    squares = cloud.square().sum(-1).unsqueeze(-2) + offsets.square().sum(-1, keepdim=True)
    squares = squares - 2 * offsets @ cloud.mT - coordinates.square()
    # The root's slope is infinite at 0, where a point is on the line.
    distances = squares.clamp(min=torch.finfo(cloud.dtype).eps).sqrt()
    shape = (len(systems), systems.lines)
    return coordinates.unflatten(-2, shape), distances.unflatten(-2, shape)


def tree_wasserstein(
    places: Tensor,  # shape: (..., lines, points)
    masses: Tensor,  # shape: (..., lines, points)
    steps: Tensor | None = None,  # shape: (..., lines)
    p: float = 1,
) -> Tensor:
    """``sum over edges of length * |mass beyond the edge|^p`` on a tree of lines.

    The root is the first line's coordinate 0. Each further line starts, at its coordinate 0, at the
    coordinate ``steps`` of the line before, or all of them start at the root. For ``p = 1`` this is
    the Wasserstein distance along the tree between positive and negative masses (arXiv 2406.13725,
    equation 13), if they cancel.

    Args:
        places: coordinates on the lines, shape (..., lines, points).
        masses: at these places, signed, shape (..., lines, points).
        steps: where the next line starts, shape (..., lines), that of the last without meaning;
            None for lines through the root.
        p: power of masses.

    Returns:
        Shape (...).
    """
    zero = torch.zeros_like(places[..., :1])
    starts = zero if steps is None else steps.expand(places.shape[:-1]).unsqueeze(-1)
    breaks = [zero] if steps is None else [zero, starts]
    places, order = torch.cat([places, *breaks], -1).sort(-1)
    masses = torch.cat([masses, *(torch.zeros_like(each) for each in breaks)], -1)
    below = masses.gather(-1, order).cumsum(-1)
    if steps is not None:
        # All that hangs on the next line counts where that line starts.
        own = below[..., -1]
        hanging = own.flip(-1).cumsum(-1).flip(-1) - own
        below = below + hanging.unsqueeze(-1) * (places >= starts)
    # The root is a place, too: every gap is on one side of it.
    after = below[..., -1:] - below[..., :-1]
    beyond = torch.where(places[..., :-1] < 0, below[..., :-1], after).abs()
    return (places.diff(dim=-1) * (beyond if p == 1 else beyond**p)).sum((-2, -1))
