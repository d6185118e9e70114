"""Sliced Wasserstein distances: one-dimensional transport along many directions."""

from __future__ import annotations

import torch
from torch import Tensor

from gmn.errors import ArgumentError
from gmn.foundation.arguments import require_number, require_type
from gmn.transport.clouds import pair
from gmn.transport.ordering import order, ordered
from gmn.transport.systems import Systems


def sliced_wasserstein(
    x: Tensor,  # shape: (..., n, d)
    y: Tensor,  # shape: (..., m, d)
    *,
    p: float = 2,
    projections: int = 100,
    weights: tuple[Tensor | None, Tensor | None] = (None, None),
    directions: Tensor | None = None,
    root: bool = True,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The sliced Wasserstein distance of order p (Bonneel et al. 2015).

    ``(mean over directions of W_p^p of the projections)^(1/p)``, as in ``POT``; here for batches of
    pairs of clouds. Differentiable in points and weights.

    Args:
        x: points, shape (..., n, d).
        y: points, shape (..., m, d).
        p: order, at least 1.
        projections: number of random directions, the same for all pairs of the batch.
        weights: of the points, shapes (..., n) and (..., m); None for equal ones.
        directions: of length 1, shape (projections, d), instead of random ones.
        root: False for the p-th power, whose gradient is finite where clouds are equal.
        generator: the source of chance, on the CPU.

    Returns:
        Shape (...).

    Raises:
        ValueError: if shapes do not fit, numbers are not finite, or p is below 1.

    >>> cloud = torch.arange(6.0).view(3, 2)
    >>> float(sliced_wasserstein(cloud, cloud.flip(0)))
    0.0
    """
    require_number("p", p, least=1)
    first, second = pair(x, y, weights)
    if directions is not None:
        require_type("directions", directions, Tensor, "a tensor (projections, d), or None")
    if directions is None:
        systems = Systems.sample(x.shape[-1], projections, 1, generator=generator)
        directions = systems.directions[:, 0]
    elif directions.shape[1:] != x.shape[-1:] or not bool(directions.isfinite().all()):
        raise ArgumentError(
            f"directions have shape {tuple(directions.shape)}; give finite ones, as many as you "
            f"want: (projections, {x.shape[-1]})"
        )
    if not len(directions):
        raise ArgumentError("directions are none; give at least one")
    directions = directions.to(x)
    equal = weights[0] is None and weights[1] is None
    powers = wasserstein_1d(
        directions @ first.points.mT,
        directions @ second.points.mT,
        p,
        None if equal else (first.masses, second.masses),
    ).mean(-1)
    return powers ** (1 / p) if root else powers


def wasserstein_1d(
    x: Tensor,  # shape: (..., projections, n)
    y: Tensor,  # shape: (..., projections, m)
    p: float = 1,
    weights: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """``W_p^p`` on the line, for clouds that share their weights over all projections.

    Args:
        x: coordinates, shape (..., projections, n).
        y: coordinates, shape (..., projections, m).
        p: order of the distance.
        weights: that sum to 1, shapes (..., n) and (..., m); None for equal ones.

    Returns:
        Shape (..., projections).
    """
    n, m = x.shape[-1], y.shape[-1]
    if weights is None and n == m:
        return _power(ordered(x) - ordered(y), p).mean(-1)
    if weights is None:
        weights = (x.new_full((*x.shape[:-2], n), 1 / n), x.new_full((*x.shape[:-2], m), 1 / m))
    x, x_levels = _quantiles(x, weights[0])
    y, y_levels = _quantiles(y, weights[1])
    levels = ordered(torch.cat([x_levels, y_levels], -1))
    steps = levels.diff(dim=-1, prepend=levels.new_zeros((*levels.shape[:-1], 1)))
    # The middle of each step: its ends are levels of one of the clouds.
    middles = (levels - steps / 2).detach().contiguous()
    return (steps * _power(_at(x, x_levels, middles) - _at(y, y_levels, middles), p)).sum(-1)


def _quantiles(values: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Sorted coordinates, and the weight up to and including each."""
    sequence = order(values)
    levels = weights.unsqueeze(-2).expand(values.shape).gather(-1, sequence).cumsum(-1)
    return values.gather(-1, sequence), levels


def _at(values: Tensor, levels: Tensor, middles: Tensor) -> Tensor:
    """The quantile function at the middles."""
    indices = torch.searchsorted(levels.detach().contiguous(), middles)
    return values.gather(-1, indices.clamp(max=values.shape[-1] - 1))


def _power(value: Tensor, p: float) -> Tensor:
    """``|value|^p``, without a detour over powers where there is none."""
    if p == 1:
        return value.abs()
    return value.square() if p == 2 else value.abs() ** p
