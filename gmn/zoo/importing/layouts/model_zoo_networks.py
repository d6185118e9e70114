"""The networks of the Model Zoos (Schürholt et al. 2022)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from gmn.zoo.architectures.activations import ACTIVATIONS

# Channels and kernels of the three convolutions, and inputs of the first linear layer.
SHAPES = {
    "cnn-s": ((8, 5), (6, 5), (4, 2), 36),
    "cnn-l": ((16, 3), (32, 3), (15, 3), 60),
}


class ModelZooCNN(nn.Module):
    """Three convolutions, the first two or all three with max pooling, and two linear layers.

    Images are 28 × 28 for the small network, 32 × 32 for the large one. Activations come after
    pooling, which matters to GELU only.

    Args:
        size: ``"cnn-s"`` (pooling after two convolutions) or ``"cnn-l"`` (after three).
        channels: channels of the images, 1 or 3.
        activation: A key of ``ACTIVATIONS``.

    >>> sum(p.numel() for p in ModelZooCNN("cnn-s", 1, "tanh").parameters())
    2464
    >>> sum(p.numel() for p in ModelZooCNN("cnn-l", 3, "gelu").parameters())
    10853
    """

    def __init__(self, size: str, channels: int, activation: str) -> None:
        super().__init__()
        (width1, kernel1), (width2, kernel2), (width3, kernel3), flat = SHAPES[size]
        self.conv1 = nn.Conv2d(channels, width1, kernel1)
        self.conv2 = nn.Conv2d(width1, width2, kernel2)
        self.conv3 = nn.Conv2d(width2, width3, kernel3)
        self.fc1 = nn.Linear(flat, 20)
        self.fc2 = nn.Linear(20, 10)
        self.activation = ACTIVATIONS[activation]()
        self.last_pool = size == "cnn-l"

    def forward(
        self,
        images: Tensor,  # shape: (batch, channels, height, width)
    ) -> Tensor:  # shape: (batch, 10)
        """Class scores of each image."""
        x = self.activation(functional.max_pool2d(self.conv1(images), 2))
        x = self.activation(functional.max_pool2d(self.conv2(x), 2))
        x = self.conv3(x)
        x = self.activation(functional.max_pool2d(x, 2) if self.last_pool else x)
        return self.fc2(self.activation(self.fc1(x.flatten(1))))


class ResidualBlock(nn.Module):
    """Two 3 × 3 convolutions with batch normalisation beside an identity or 1 × 1 convolution."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(outputs))

    def forward(
        self,
        x: Tensor,  # shape: (batch, inputs, height, width)
    ) -> Tensor:  # shape: (batch, outputs, height / stride, width / stride)
        """What the next block reads."""
        y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        return functional.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet18(nn.Module):
    """ResNet-18 (He et al. 2016) for small images: a 3 × 3 convolution first, and no pooling.

    Entries are named as torchvision names them.

    Args:
        channels: channels of the images.
        classes: number of classes.
        width: channels of the first stage; 64 in the publication.

    >>> sum(p.numel() for p in ResNet18(3, 10).parameters())
    11173962
    """

    def __init__(self, channels: int, classes: int, width: int = 64) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = _stage(width, width, 1)
        self.layer2 = _stage(width, 2 * width, 2)
        self.layer3 = _stage(2 * width, 4 * width, 2)
        self.layer4 = _stage(4 * width, 8 * width, 2)
        self.fc = nn.Linear(8 * width, classes)

    def forward(
        self,
        images: Tensor,  # shape: (batch, channels, height, width)
    ) -> Tensor:  # shape: (batch, classes)
        """Class scores of each image."""
        x = functional.relu(self.bn1(self.conv1(images)))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((2, 3)))


def _stage(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(ResidualBlock(inputs, outputs, stride), ResidualBlock(outputs, outputs, 1))


def example_image(architecture: nn.Module) -> Tensor:
    """An image of the size that a network of this file is for, shape (1, channels, h, w)."""
    first = architecture.get_submodule("conv1")
    assert isinstance(first, nn.Conv2d)
    side = 28 if first.kernel_size == (5, 5) else 32
    return torch.zeros(1, first.in_channels, side, side)
