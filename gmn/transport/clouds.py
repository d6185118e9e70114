"""Clouds of weighted points, and their common frame."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gmn.errors import ArgumentError
from gmn.foundation.arguments import in_words, require_type
from gmn.graph.values import is_eight_bit
from gmn.transport.ordering import order


@dataclass(frozen=True)
class CoordinateFrame:
    """The frame of a system of lines: a centre and a unit of length.

    Attributes:
        centre: shape (..., d).
        scale: shape (...).
    """

    centre: Tensor
    scale: Tensor

    @classmethod
    def of(cls, *clouds: Tensor) -> CoordinateFrame:
        """The mean of all points, and their root mean square deviation per coordinate.

        Each cloud counts alike. No gradients flow into a frame.

        Args:
            clouds: of shape (..., n, d), with numbers of points of their own.
        """
        with torch.no_grad():
            centre = torch.stack([cloud.mean(-2) for cloud in clouds]).mean(0)
            spread = [(cloud - centre.unsqueeze(-2)).square().mean((-2, -1)) for cloud in clouds]
            scale = torch.stack(spread).mean(0).sqrt()
        # A single point, repeated, has no scale: any will do.
        return cls(centre, torch.where(scale > 0, scale, torch.ones_like(scale)))


@dataclass(frozen=True)
class Cloud:
    """A cloud of weighted points, sorted along a fixed direction.

    Points are sorted by one projection, so that the distance of two clouds does not depend on the
    order in which their points come, not even in its last bit.

    Attributes:
        points: shape (..., n, d).
        masses: that sum to 1, shape (..., n).
    """

    points: Tensor
    masses: Tensor

    @classmethod
    def of(cls, points: Tensor, weights: Tensor | None) -> Cloud:
        """Sorts points along a fixed direction, with their weights; None for equal weights.

        Raises:
            ValueError: if weights do not fit, are negative, or all zero.
        """
        # Any direction but an axis: coordinates of neurons often are equal, or zero.
        direction = torch.arange(1, points.shape[-1] + 1).sqrt().to(points)
        sequence = order(points.detach() @ direction)
        masses = _masses(points, weights).gather(-1, sequence)
        # By whole rows, which is faster than by single coordinates.
        count, dimension = points.shape[-2:]
        first = torch.arange(sequence[..., 0].numel(), device=points.device) * count
        rows = (sequence.view(-1, count) + first.unsqueeze(1)).flatten()
        moved = points.reshape(-1, dimension).index_select(0, rows).view(points.shape)
        return cls(moved, masses)


def pair(x: Tensor, y: Tensor, weights: tuple[Tensor | None, Tensor | None]) -> tuple[Cloud, Cloud]:
    """Two clouds that fit each other.

    Args:
        x: points, shape (..., n, d).
        y: points, shape (..., m, d), of equal leading shape.
        weights: of the points of each, shape (..., n) and (..., m) or without leading shape; None
            for equal ones.

    Raises:
        ValueError: as :func:`check`, or if weights do not fit, are negative, or all zero.
    """
    check(x, y)
    if not isinstance(weights, tuple | list) or len(weights) != 2:
        raise ArgumentError(
            f"weights is {in_words(weights)}; give a pair, of the first cloud and of the second"
        )
    return Cloud.of(x, weights[0]), Cloud.of(y, weights[1])


def check(x: Tensor, y: Tensor) -> None:
    """Whether two clouds can be compared.

    Raises:
        ValueError: if shapes or types do not fit, there are no points, or points are not finite.
    """
    for name, cloud in (("x", x), ("y", y)):
        require_type(name, cloud, Tensor, "a tensor of points, shape (..., n, d)")
    if x.ndim < 2 or x.shape[:-2] != y.shape[:-2] or x.shape[-1] != y.shape[-1]:
        raise ValueError(
            f"clouds of shapes {tuple(x.shape)} and {tuple(y.shape)} do not fit: (..., n, d) and "
            "(..., m, d) with equal leading shape and d are compared"
        )
    if not x.numel() or not y.numel():
        raise ValueError("a cloud has no points")
    if x.dtype != y.dtype or not x.is_floating_point() or is_eight_bit(x.dtype):
        raise ValueError(
            f"clouds of {x.dtype} and {y.dtype}: give both one floating-point type, of at least 16 "
            "bits"
        )
    for name, cloud in (("first", x), ("second", y)):
        # A finite sum has finite terms only; the other way round is not certain.
        if not bool(cloud.sum().isfinite()) and not bool(cloud.isfinite().all()):
            raise ValueError(f"the {name} cloud has NaN or infinite coordinates")


def _masses(cloud: Tensor, weights: Tensor | None) -> Tensor:
    if weights is None:
        return cloud.new_full(cloud.shape[:-1], 1 / cloud.shape[-2])
    require_type("a weight", weights, Tensor, "a tensor, one number for each point, or None")
    if weights.shape[-1:] != cloud.shape[-2:-1]:
        raise ValueError(
            f"{weights.shape[-1] if weights.dim() else 1} weights for {cloud.shape[-2]} points"
        )
    if bool((weights < 0).any()) or not bool((weights.sum(-1) > 0).all()):
        raise ValueError("weights of points have to be non-negative, and not all zero")
    weights = weights.to(cloud).expand(cloud.shape[:-1])
    return weights / weights.sum(-1, keepdim=True)
