"""Runs networks on given inputs, such as the pixel grid of an INR."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from gmn.foundation.arguments import require_whole
from gmn.graph import ParameterGraph
from gmn.spec.program import ProgramError
from gmn.zoo import Zoo, images
from gmn.zoo.images import pixel_grid
from gmn.zoo.population import require_zoo


@dataclass(frozen=True)
class PixelGrid:
    """Where an image of ``height`` × ``width`` pixels lies in the square [-1, 1]².

    Attributes:
        height: number of rows.
        width: number of columns.
        corners: whether the outermost points lie in the corners of the square; otherwise points are
            the centres of pixels that fill it.
    """

    height: int
    width: int
    corners: bool = False

    def __post_init__(self) -> None:
        require_whole("height", self.height, 1)
        require_whole("width", self.width, 1)

    def points(self) -> Tensor:
        """Coordinates (x to the right, y downwards), row by row, shape (height * width, 2).

        >>> PixelGrid(1, 5, corners=True).points()[:, 0].round(decimals=4).tolist()
        [-1.0, -0.5, 0.0, 0.5, 1.0]
        """
        points = pixel_grid(self.height, self.width)
        if self.corners:
            sizes = torch.tensor([self.width, self.height])
            points = points * (sizes / (sizes - 1).clamp(min=1))
        return points

    def images(self, graph: ParameterGraph) -> Tensor:
        """The images that B networks hold, shape (B, channels, height, width); differentiable.

        Raises:
            ProgramError: if they are no functions of two coordinates that can be run.
        """
        outputs = answers(graph, self.points().to(graph.device, graph.dtype))
        return outputs.mT.unflatten(2, (self.height, self.width))


def answers(graph: ParameterGraph, points: Tensor) -> Tensor:
    """Outputs of B networks at points; differentiable in their weights.

    Args:
        graph: networks of one input and one output whose last dimensions are features.
        points: shape (points, inputs).

    Returns:
        Shape (B, points, outputs).

    Raises:
        ProgramError: if they take other inputs, or their spec has no program.
    """
    program = graph.spec.program
    shapes = [given.shape for given in program.inputs] if program is not None else []
    if program is None or len(shapes) != 1 or shapes[0][-1:] != points.shape[1:]:
        taken = f"take inputs of shapes {shapes}" if program is not None else "have no program"
        raise ProgramError(
            f"these networks {taken}; they would have to be functions of {points.shape[1]} "
            "coordinates, traced with a tensor of them"
        )
    # The example had so many points at once; the last run of them may have some to spare.
    at_once = math.prod(shapes[0][:-1])
    runs = -(-len(points) // at_once)
    spare = runs * at_once - len(points)
    padded = torch.cat([points, points[:1].expand(spare, -1)]) if spare else points
    (outputs,) = program.observe(
        graph.values, [padded.reshape(runs, *shapes[0])], program.outputs[:1]
    )  # (B, runs, places, outputs)
    return outputs.flatten(1, 2)[:, : len(points)]


def grid_of(
    population: Zoo | None, height: int | None, width: int | None, corners: bool
) -> PixelGrid:
    """The grid of a population's images: the one that is given, or else that of its image set.

    Args:
        population: a zoo of INRs; None if height and width are given.
        height: number of rows; None to find it.
        width: number of columns; None to find it.
        corners: see :class:`PixelGrid`.

    Raises:
        ValueError: if one of the two is missing, or the population does not say its image set.
        MissingImages: if its images are not installed.
    """
    if height is not None and width is not None:
        return PixelGrid(height, width, corners)
    if height is not None or width is not None:
        raise ValueError("the grid of pixels needs a height and a width, or neither")
    configuration: dict[str, Any] = {}
    if population is not None:
        require_zoo("population", population)
        configuration = population.manifest.get("configuration", {})
    if configuration.get("images") not in images.READERS:
        raise ValueError(
            f"{population and population.folder}: the population does not say of which image set "
            "it is, so give the height and width of its images (task options height=28 width=28)"
        )
    pixels, _ = images.load_all(configuration["images"])
    return PixelGrid(pixels.shape[-2], pixels.shape[-1], corners)
