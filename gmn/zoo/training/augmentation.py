"""Ways to change the images of a minibatch, each drawn anew in every step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

FARTHEST = 2  # pixels of a shift
NOISE = 0.3  # standard deviation, of images in [0, 1]

Augmentation = Callable[[Tensor, Tensor, torch.Generator], tuple[Tensor, Tensor]]
"""From images (B, C, H, W), targets (B, classes) and a source of randomness to other ones."""


def unchanged(images: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The minibatch as it is."""
    return images, targets


def shifted(images: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Each image moved by up to two pixels in both directions; zeros come in."""
    count, _, height, width = images.shape
    moves = torch.randint(2 * FARTHEST + 1, (2, count, 1), generator=generator)
    rows = moves[0] + torch.arange(height)
    columns = moves[1] + torch.arange(width)
    padded = functional.pad(images, [FARTHEST] * 4).movedim(1, 3)
    numbers = torch.arange(count).view(-1, 1, 1)
    return padded[numbers, rows.unsqueeze(2), columns.unsqueeze(1)].movedim(3, 1), targets


def noisy(images: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Normal noise on every pixel."""
    noise = torch.randn(images.shape, generator=generator, dtype=images.dtype)
    return images + NOISE * noise, targets


def mixed(images: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Each image and target averaged with another's, by a uniform share (mixup).

    Zhang et al. 2018, https://arxiv.org/abs/1710.09412, with α = 1.
    """
    others = torch.randperm(len(images), generator=generator)
    shares = torch.rand(len(images), 1, generator=generator, dtype=images.dtype)
    blended = images.flatten(1).lerp(images[others].flatten(1), shares).view_as(images)
    return blended, targets.lerp(targets[others], shares)


def erased(images: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A square of half the height set to zero in each image, anywhere inside of it."""
    count, _, height, width = images.shape
    side = height // 2
    rows, columns = (
        torch.randint(size - side + 1, (count, 1), generator=generator) for size in (height, width)
    )
    in_rows, in_columns = (
        (torch.arange(size) >= start) & (torch.arange(size) < start + side)
        for size, start in ((height, rows), (width, columns))
    )
    square = in_rows.unsqueeze(2) & in_columns.unsqueeze(1)
    return images.masked_fill(square.unsqueeze(1), 0), targets


AUGMENTATIONS: dict[str, Augmentation] = {
    "none": unchanged,
    "shift": shifted,
    "noise": noisy,
    "mixup": mixed,
    "erase": erased,
}
