"""Tasks: edit INRs so that the images they represent are dilated, eroded or higher in contrast."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from gmn.graph import ParameterGraph
from gmn.nn.heads import EditHead
from gmn.tasks.answers import mean_squares
from gmn.tasks.rendering import grid_of
from gmn.tasks.task import Task
from gmn.zoo import Zoo

LEAST_ERROR = 1e-12  # where float32 ends: 120 dB
CHUNK = 256  # networks that are rendered at a time
CONTRAST = 2.0


class InrEditing(Task):
    """Edited networks from networks (Zhou et al. 2023), on the zoo's fixed split.

    A model answers with k edits of each network, and the edited image is the mean of theirs
    (k-fold output expansion: Dayan et al., arXiv 2602.01083). The target is the image that the
    network itself renders on its pixels, changed by :meth:`edit`; loss and metric are the mean
    squared error of the rendered image. Predictions and targets have shape
    (B, channels, height, width).

    Args:
        population: a zoo of INRs: networks from two coordinates to colours.
        copies: k, edits per network.
        height: rows of the image; None for those of the zoo's image set.
        width: columns of the image.
        corners: whether the outermost pixels lie in the corners of [-1, 1]², as in the published
            sets, instead of filling it, as in the populations built here.
    """

    kind = "image"
    metric = "mse"
    larger_is_better = False
    outputs: EditHead

    def __init__(
        self,
        population: Zoo | None = None,
        copies: int = 1,
        height: int | None = None,
        width: int | None = None,
        corners: bool = False,
    ) -> None:
        self.grid = grid_of(population, height, width, corners)
        self.points, self.outputs = self.grid.height * self.grid.width, EditHead(copies)
        super().__init__(population)

    @abstractmethod
    def edit(self, images: Tensor) -> Tensor:
        """The target images, of the same shape (B, channels, height, width)."""

    def targets(self, graph: ParameterGraph, indices: Tensor) -> Tensor:
        """The edited images of B networks."""
        return self.edit(self._rendered(graph))

    def prediction(self, output: ParameterGraph) -> Tensor:
        """The images (B, channels, height, width) of B networks with k edits each."""
        every = self.grid.images(output)
        return every.unflatten(0, (self.outputs.copies, -1)).mean(dim=0)

    def loss(self, output: ParameterGraph, target: Tensor) -> Tensor:
        """Mean squared error of the edited networks' images.

        Raises:
            ValueError: if the output does not hold k edits of each network.
        """
        prediction = self.prediction(output)
        if prediction.shape != target.shape:
            raise ValueError(
                f"{self.name}: the model answered with images of shape {tuple(prediction.shape)} "
                f"where {tuple(target.shape)} is wanted; it has to give {self.outputs.copies} "
                "networks per network"
            )
        return functional.mse_loss(prediction, target)

    def metrics(self, prediction: Tensor, target: Tensor) -> dict[str, float]:
        """The mean squared error, and the mean over networks of the signal-to-noise ratio in dB."""
        errors = mean_squares(prediction, target)
        return {
            "mse": float(errors.mean()),
            "psnr": float(-10 * errors.clamp(min=LEAST_ERROR).log10().mean()),
        }

    def baselines(self) -> dict[str, Tensor]:
        """The images as they were, and the mean of the training split's target images."""
        images = torch.cat([self._rendered(part.graph) for part in self.split("test")])
        targets = torch.cat([part.target for part in self.split("train")])
        return {
            "doing nothing": images,
            "always the mean": targets.mean(dim=0, keepdim=True).expand_as(images),
        }

    def settings(self) -> dict[str, Any]:
        """Edits per network, and the grid of pixels."""
        grid = self.grid
        return {
            "copies": self.outputs.copies,
            "height": grid.height,
            "width": grid.width,
            "corners": grid.corners,
        }

    def _rendered(self, graph: ParameterGraph) -> Tensor:
        with torch.no_grad():
            pieces = range(0, len(graph), CHUNK)
            return torch.cat([self.grid.images(graph[i : i + CHUNK]) for i in pieces])


class InrDilation(InrEditing):
    """INR editing: every pixel becomes the brightest of its 3 × 3 neighbours (grey dilation)."""

    name = "INR dilation"
    target = "dilated image"

    def edit(self, images: Tensor) -> Tensor:
        """Maxima over 3 × 3 pixels, as far as they lie in the image."""
        return functional.max_pool2d(images, 3, stride=1, padding=1)


class InrErosion(InrEditing):
    """INR editing: every pixel becomes the darkest of its 3 × 3 neighbours (grey erosion)."""

    name = "INR erosion"
    target = "eroded image"

    def edit(self, images: Tensor) -> Tensor:
        """Minima over 3 × 3 pixels, as far as they lie in the image."""
        return -functional.max_pool2d(-images, 3, stride=1, padding=1)


class InrContrast(InrEditing):
    """INR editing: twice the contrast, in [0, 1].

    Differences from the mean brightness of the image are doubled and what leaves [0, 1] is cut off.
    (Published results for CIFAR-10 equalise histograms by tiles instead: CLAHE.)
    """

    name = "INR contrast"
    target = "image of twice the contrast"

    def edit(self, images: Tensor) -> Tensor:
        """``clip(m + 2 (x - m), 0, 1)`` with the mean ``m`` of each image."""
        mean = images.mean(dim=(1, 2, 3), keepdim=True)
        return (mean + CONTRAST * (images - mean)).clamp(0, 1)
