"""Splitting maps: how the mass of a point is shared among the lines of a system."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from gmn.foundation.arguments import require_number, require_whole


class Splitting(Protocol):
    """A map from points to shares of lines that sum to one."""

    def __call__(self, points: Tensor, distances: Tensor) -> Tensor:
        """Shares, shape (..., trees, lines, n), of points given in units of the frame.

        Args:
            points: relative to the frame, shape (..., n, d).
            distances: of the points from the lines, shape (..., trees, lines, n).
        """


@dataclass(frozen=True)
class Uniform:
    """Every line gets the same share."""

    def __call__(self, points: Tensor, distances: Tensor) -> Tensor:
        """Shares ``1 / lines``."""
        return torch.ones_like(distances) / distances.shape[-2]


@dataclass(frozen=True)
class ByDistance:
    """Shares that fall with the distance from the line: ``softmax(-delta * distance)``.

    Rotations and shifts of points and lines together do not change them (Db-TSW, Tran et al. 2025,
    arXiv 2503.11050).

    Attributes:
        delta: per unit of the frame; 0 is :class:`Uniform`.
    """

    delta: float = 2.0

    def __post_init__(self) -> None:
        require_number("delta", self.delta, least=0)

    def __call__(self, points: Tensor, distances: Tensor) -> Tensor:
        """Shares by softmax."""
        return (-self.delta * distances).softmax(-2)


class Learned(nn.Module):
    """Shares by a softmax of linear functions of the point and its distance from each line.

    At first it is :class:`ByDistance`.

    Args:
        dimension: dimension of the points.
        lines: number of lines of each system.
        delta: initial coefficient of distances.
    """

    def __init__(self, dimension: int, lines: int, delta: float = 2.0) -> None:
        super().__init__()
        require_whole("dimension", dimension, 1)
        require_whole("lines", lines, 1)
        require_number("delta", delta, least=0)
        self.of_point = nn.Linear(dimension, lines)
        self.delta = nn.Parameter(torch.full((lines, 1), delta))
        nn.init.zeros_(self.of_point.weight)
        nn.init.zeros_(self.of_point.bias)

    def forward(self, points: Tensor, distances: Tensor) -> Tensor:
        """Shares, shape (..., trees, lines, n)."""
        scores: Tensor = self.of_point(points).mT.unsqueeze(-3)
        return (scores - self.delta * distances).softmax(-2)
