"""The networks that populations are made of, by the short name that identifies them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from gmn.zoo.architectures.transformers import SmallTransformer
from gmn.zoo.architectures.wild_network import WildCNN

ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh}


class SmallCNN(nn.Module):
    """Three strided convolutions, global average pooling, one linear layer: 4,970 parameters.

    The network of the Small CNN Zoo (Unterthiner et al., 2020, https://arxiv.org/abs/2002.11448).

    Args:
        activation: ``"relu"`` or ``"tanh"``.
        width: number of channels of each convolution.
        padding: zeros around the images and feature maps, in pixels. 0 is what Keras does: with
            it, weights mean the same for images of any size.

    Raises:
        ValueError: If the activation is not one of the two.

    >>> sum(p.numel() for p in SmallCNN("relu").parameters())
    4970
    """

    def __init__(self, activation: str, width: int = 16, padding: int = 1) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            known = ", ".join(sorted(ACTIVATIONS))
            raise ValueError(f"SmallCNN has no activation {activation!r}; known: {known}")
        self.conv1 = nn.Conv2d(1, width, kernel_size=3, stride=2, padding=padding)
        self.conv2 = nn.Conv2d(width, width, kernel_size=3, stride=2, padding=padding)
        self.conv3 = nn.Conv2d(width, width, kernel_size=3, stride=2, padding=padding)
        self.head = nn.Linear(width, 10)
        self.activation = ACTIVATIONS[activation]()

    def forward(
        self,
        images: Tensor,  # shape: (batch, 1, height, width)
    ) -> Tensor:  # shape: (batch, 10)
        """Class scores of each image."""
        x = self.activation(self.conv1(images))
        x = self.activation(self.conv2(x))
        x = self.activation(self.conv3(x))
        return self.head(x.mean((2, 3)))


class Siren(nn.Module):
    """An image as a network from coordinates to brightness: 2-32-32-1 with sines, 1,185 parameters.

    Sitzmann et al., 2020, https://arxiv.org/abs/2006.09661.

    Args:
        width: number of neurons of each hidden layer.

    >>> sum(p.numel() for p in Siren().parameters())
    1185
    """

    frequency = 30.0

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.layer1 = nn.Linear(2, width)
        self.layer2 = nn.Linear(width, width)
        self.layer3 = nn.Linear(width, 1)

    def layers(self) -> tuple[nn.Linear, ...]:
        """The linear layers from input to output."""
        return self.layer1, self.layer2, self.layer3

    def forward(
        self,
        coordinates: Tensor,  # shape: (points, 2), in [-1, 1]
    ) -> Tensor:  # shape: (points, 1)
        """Brightness at each point."""
        x = torch.sin(self.frequency * self.layer1(coordinates))
        x = torch.sin(self.frequency * self.layer2(x))
        return self.layer3(x)


class MLP(nn.Module):
    """Three linear layers with ReLUs between, for flat images of ten classes.

    Args:
        inputs: number of pixels.
        width: number of neurons of each hidden layer.

    >>> sum(p.numel() for p in MLP(64).parameters())
    3466
    """

    def __init__(self, inputs: int, width: int = 32) -> None:
        super().__init__()
        self.layer1 = nn.Linear(inputs, width)
        self.layer2 = nn.Linear(width, width)
        self.layer3 = nn.Linear(width, 10)

    def forward(
        self,
        images: Tensor,  # shape: (batch, inputs)
    ) -> Tensor:  # shape: (batch, 10)
        """Class scores of each image."""
        x = torch.relu(self.layer1(images))
        x = torch.relu(self.layer2(x))
        return self.layer3(x)


class ImageMLP(nn.Module):
    """Linear layers with ReLUs between, for images of ten classes.

    Args:
        pixels: number of pixels of an image of one channel.
        depth: number of hidden layers.
        width: number of neurons of each.

    >>> sum(p.numel() for p in ImageMLP(64, 1).parameters())
    2410
    """

    def __init__(self, pixels: int, depth: int, width: int = 32) -> None:
        super().__init__()
        widths = [pixels, *[width] * depth]
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.head = nn.Linear(width, 10)

    def forward(
        self,
        images: Tensor,  # shape: (batch, 1, height, width)
    ) -> Tensor:  # shape: (batch, 10)
        """Class scores of each image."""
        x = images.flatten(1)
        for layer in self.hidden:
            x = torch.relu(layer(x))
        return self.head(x)


# How to make a network of populations, given its width, and the width that it has in populations.
ARCHITECTURES: dict[str, tuple[Callable[[int], nn.Module], int]] = {
    "cnn-relu": (partial(SmallCNN, "relu"), 16),
    "cnn-tanh": (partial(SmallCNN, "tanh"), 16),
    "siren": (Siren, 32),
    "mlp-64": (partial(MLP, 64), 32),
    "mlp-196": (partial(MLP, 196), 32),
    **{
        f"mlp-{pixels}-depth{depth}": (partial(ImageMLP, pixels, depth), 32)
        for pixels in (64, 196)
        for depth in (1, 2, 3)
    },
}


# How to make a network whose hidden layers have one width only.
FIXED: dict[str, Callable[[], nn.Module]] = {
    "transformer-14": partial(SmallTransformer, side=14, patch=4, padding=1, centred=True),
    "transformer-8": partial(SmallTransformer, side=8, patch=2, centred=True),
}


def network(architecture: str, widening: int = 1) -> nn.Module:
    """An untrained network of the named architecture, ready to take a state of a zoo.

    Args:
        architecture: A name from ``Zoo.architectures``, such as ``"cnn-relu"``, or of a CNN after
            the CNN Wild Park, such as ``"1/16k3-relu/8k5-tanh+0/10"``.
        widening: factor on the widths of its hidden layers; :func:`gmn.zoo.widen` gives states
            of such networks.

    Returns:
        A new module.

    Raises:
        ValueError: If no architecture has this name, or it cannot be widened.
    """
    if architecture in FIXED or "/" in architecture:
        if widening != 1:
            raise ValueError(f"{architecture} comes in one width; widening must be 1")
        return FIXED[architecture]() if architecture in FIXED else WildCNN.of_name(architecture)
    if architecture not in ARCHITECTURES:
        known = ", ".join(sorted([*ARCHITECTURES, *FIXED]))
        raise ValueError(
            f"no architecture is called {architecture!r}; known: {known}, and such as "
            "'1/16k3-relu/8k5-tanh/10'"
        )
    make, width = ARCHITECTURES[architecture]
    return make(widening * width)
