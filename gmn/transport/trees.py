"""Tree-sliced Wasserstein distances on systems of lines (TSW-SL, Db-TSW)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gmn.foundation.arguments import require_callable, require_number, require_type
from gmn.transport.clouds import Cloud, CoordinateFrame, check, pair
from gmn.transport.ordering import order
from gmn.transport.splitting import ByDistance, Splitting
from gmn.transport.systems import Kind, Systems

CHUNK = 2**20  # numbers of coordinates that are worked on at once, near the cache
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
    frame: CoordinateFrame | None = None,
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
        lines: number of lines of each system.
        kind: ``"concurrent"`` or ``"chain"``, see :meth:`Systems.sample`.
        splitting: how mass is shared: :class:`ByDistance` (Db-TSW), :class:`Learned`, a module of
            your own, or :class:`Uniform`, which makes it W_1 sliced along all lines, whatever the
            trees.
        orthogonal: whether the lines of a system are orthogonal to each other.
        weights: of the points, shapes (..., n) and (..., m); None for equal ones.
        systems: systems of lines to use instead of random ones.
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
    require_number("p", p, least=1)
    clouds = pair(x, y, weights)
    require_callable("splitting", splitting, "one such as gmn.transport.ByDistance()")
    if systems is not None:
        require_type("systems", systems, Systems, "gmn.transport.Systems, or None")
    if frame is not None:
        require_type("frame", frame, CoordinateFrame, "gmn.transport.CoordinateFrame, or None")
    if systems is None:
        systems = Systems.sample(
            x.shape[-1], trees, lines, kind, orthogonal=orthogonal, generator=generator
        )
    if systems.dimension != x.shape[-1]:
        raise ValueError(f"systems of {systems.dimension} dimensions, clouds of {x.shape[-1]}")
    systems = systems.to(x)
    frame = CoordinateFrame.of(*(cloud.points for cloud in clouds)) if frame is None else frame
    scale, moved = frame.scale.to(x), [_in_frame(cloud, frame) for cloud in clouds]
    projections = sum(cloud.masses.numel() for cloud in moved) * systems.lines
    parts = systems.split(max(1, CHUNK // projections))
    powers = sum(_on(part, moved, p, splitting).sum(-1) for part in parts) / len(systems)
    return (scale * powers) ** (1 / p) if root and p != 1 else scale * powers


def tree_sliced_pairs(
    x: Tensor,  # shape: (A, n, d)
    y: Tensor,  # shape: (B, m, d)
    pairs: Tensor,  # shape: (P, 2)
    systems: Systems,
    frame: CoordinateFrame,
    splitting: Splitting = DEFAULT_SPLITTING,
    p: float = 1,
) -> Tensor:
    """:func:`tree_sliced_wasserstein` of many pairs out of few clouds, which are projected once.

    Args:
        x: clouds, shape (A, n, d).
        y: clouds, shape (B, m, d).
        pairs: indices into x and y, shape (P, 2).
        systems: systems of lines.
        frame: one for all pairs.
        splitting: map from points to shares of lines.
        p: order of the distance.

    Returns:
        The p-th powers, shape (P,).

    Raises:
        ValueError: if shapes do not fit, or numbers are not finite.
    """
    check(x.flatten(0, 1), y.flatten(0, 1))
    systems, moved = systems.to(x), [_in_frame(Cloud.of(cloud, None), frame) for cloud in (x, y)]
    per_tree = (x.shape[1] + y.shape[1]) * systems.lines
    total = x.new_zeros(len(pairs))
    for part in systems.split(max(1, CHUNK // (per_tree * (len(x) + len(y))))):
        (x_places, x_masses), (y_places, y_masses) = (_shadow(part, c, splitting) for c in moved)
        rows = pairs.split(max(1, CHUNK // (per_tree * len(part))))
        total += torch.cat(
            [
                tree_wasserstein(
                    torch.cat([x_places[i], y_places[j]], -1),
                    torch.cat([x_masses[i], -y_masses[j]], -1),
                    part.steps,
                    p,
                ).sum(-1)
                for i, j in (row.T for row in rows)
            ]
        )
    return frame.scale.to(x) * total / len(systems)


def _in_frame(cloud: Cloud, frame: CoordinateFrame) -> Cloud:
    """The cloud relative to a frame, in its units."""
    points = cloud.points - frame.centre.to(cloud.points).unsqueeze(-2)
    return Cloud(points.div_(frame.scale.to(points)[..., None, None]), cloud.masses)


def _on(systems: Systems, pair: Sequence[Cloud], p: float, splitting: Splitting) -> Tensor:
    """The p-th power of the distance on each tree, shape (..., trees)."""
    (positions, masses), (others, negative) = (_shadow(systems, cloud, splitting) for cloud in pair)
    return tree_wasserstein(
        torch.cat([positions, others], -1), torch.cat([masses, -negative], -1), systems.steps, p
    )


def _shadow(systems: Systems, cloud: Cloud, splitting: Splitting) -> tuple[Tensor, Tensor]:
    """Coordinates of a cloud on all lines and the masses there, shapes (..., trees, lines, n)."""
    coordinates, distances = _project(systems, cloud.points)
    return coordinates, cloud.masses[..., None, None, :] * splitting(cloud.points, distances)


def _project(systems: Systems, cloud: Tensor) -> tuple[Tensor, Tensor]:
    """Coordinates on all lines and distances from them, shapes (..., trees, lines, n).

    By matrix products: no tensor of points times lines times dimensions is made.
    """
    # Concurrent lines start at one point.
    starts = systems.offsets[:, :1] if systems.steps is None else systems.offsets
    along = (systems.directions * starts).sum(-1, keepdim=True)
    coordinates = _products(systems.directions, cloud) - along
    squares = cloud.square().sum(-1)[..., None, None, :] + starts.square().sum(-1, keepdim=True)
    squares = squares - 2 * _products(starts, cloud) - coordinates.square()
    # The root's slope is infinite at 0, where a point is on the line.
    return coordinates, squares.clamp(min=torch.finfo(cloud.dtype).eps).sqrt()


def _products(vectors: Tensor, cloud: Tensor) -> Tensor:
    """From vectors (trees, lines, d) and points (..., n, d) to (..., trees, lines, n)."""
    return (vectors.flatten(0, 1) @ cloud.mT).unflatten(-2, vectors.shape[:2])


def tree_wasserstein(
    positions: Tensor,  # shape: (..., lines, points)
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
        positions: coordinates on the lines, shape (..., lines, points).
        masses: at these places, signed, shape (..., lines, points).
        steps: where the next line starts, shape (..., lines), that of the last without meaning;
            None for lines through the root.
        p: power of masses.

    Returns:
        Shape (...).
    """
    zero = torch.zeros_like(positions[..., :1])
    starts = zero if steps is None else steps.expand(positions.shape[:-1]).unsqueeze(-1)
    breaks = [zero] if steps is None else [zero, starts]
    positions = torch.cat([positions, *breaks], -1)
    masses = torch.cat([masses, *(torch.zeros_like(each) for each in breaks)], -1)
    sequence = order(positions)
    positions, below = positions.gather(-1, sequence), masses.gather(-1, sequence).cumsum(-1)
    if steps is not None:
        # All that hangs on the next line counts where that line starts.
        own = below[..., -1]
        hanging = own.flip(-1).cumsum(-1).flip(-1) - own
        below = below + hanging.unsqueeze(-1) * (positions >= starts)
    # The root is a place, too: every gap is on one side of it.
    after = below[..., -1:] - below[..., :-1]
    beyond = torch.where(positions[..., :-1] < 0, below[..., :-1], after).abs()
    return (positions.diff(dim=-1) * (beyond if p == 1 else beyond**p)).sum((-2, -1))
