"""CNNs of any depth, widths, kernels, activations and skip connections, by their names."""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gmn.zoo.architectures.activations import ACTIVATIONS

LAYER = re.compile(r"(\d+)k(\d+)-([a-z-]+)(?:\+(\d+))?")


@dataclass(frozen=True)
class WildLayer:
    """One convolution.

    Attributes:
        channels: number of output channels.
        kernel: height and width of its kernel, odd.
        activation: A key of ``ACTIVATIONS``.
        skip: the layer whose output is added before the activation: 0 for the image, 1 for the
            first convolution; None for none.
    """

    channels: int
    kernel: int
    activation: str
    skip: int | None = None

    def __str__(self) -> str:
        skip = "" if self.skip is None else f"+{self.skip}"
        return f"{self.channels}k{self.kernel}-{self.activation}{skip}"


def wild_name(inputs: int, layers: tuple[WildLayer, ...], outputs: int) -> str:
    """The name of a network, such as ``"3/16k3-relu/8k5-tanh/10"``.

    Args:
        inputs: channels of the images.
        layers: the convolutions in their order.
        outputs: number of classes.
    """
    return "/".join(map(str, (inputs, *layers, outputs)))


class WildCNN(nn.Module):
    """A network of the CNN Wild Park (Kofinas et al. 2024).

    Convolutions of stride 1 that keep the size of the image, global average pooling and one linear
    layer. A skip connection adds as many channels as both ends have, the first of each.

    Args:
        inputs: channels of the images.
        layers: the convolutions in their order.
        outputs: number of classes.

    >>> layers = (WildLayer(16, 3, "relu"), WildLayer(8, 5, "tanh"), WildLayer(32, 7, "gelu", 1))
    >>> WildCNN(3, layers, 10).name
    '3/16k3-relu/8k5-tanh/32k7-gelu+1/10'
    """

    def __init__(self, inputs: int, layers: tuple[WildLayer, ...], outputs: int) -> None:
        super().__init__()
        self.layers = layers
        self.name = wild_name(inputs, layers, outputs)
        widths = (inputs, *(layer.channels for layer in layers))
        self.convs = nn.ModuleList(
            nn.Conv2d(width, layer.channels, layer.kernel, padding=layer.kernel // 2)
            for width, layer in zip(widths, layers, strict=False)
        )
        self.activations = nn.ModuleList(ACTIVATIONS[layer.activation]() for layer in layers)
        self.head = nn.Linear(widths[-1], outputs)

    @classmethod
    def of_name(cls, name: str) -> WildCNN:
        """The network of a name that :attr:`name` gave.

        Raises:
            ValueError: If it is no such name.
        """
        inputs, *middle, outputs = name.split("/")
        matches = [LAYER.fullmatch(text) for text in middle]
        if not middle or None in matches or not (inputs.isdigit() and outputs.isdigit()):
            raise ValueError(f"{name!r} is no name such as '3/16k3-relu/8k5-tanh/10'")
        layers = tuple(
            WildLayer(int(m[1]), int(m[2]), m[3], None if m[4] is None else int(m[4]))
            for m in matches
            if m is not None
        )
        return cls(int(inputs), layers, int(outputs))

    def forward(
        self,
        images: Tensor,  # shape: (batch, inputs, height, width)
    ) -> Tensor:  # shape: (batch, outputs)
        """Class scores of each image."""
        outputs = [images]
        for layer, conv, activation in zip(self.layers, self.convs, self.activations, strict=True):
            x = conv(outputs[-1])
            if layer.skip is not None:
                x = _add(x, outputs[layer.skip])
            outputs.append(activation(x))
        return self.head(outputs[-1].mean((2, 3)))


def _add(
    x: Tensor,  # shape: (batch, channels, height, width)
    skipped: Tensor,  # shape: (batch, other channels, height, width)
) -> Tensor:  # shape: (batch, channels, height, width)
    shared = min(x.shape[1], skipped.shape[1])
    if shared == x.shape[1]:
        return x + skipped[:, :shared]
    return torch.cat([x[:, :shared] + skipped, x[:, shared:]], dim=1)
