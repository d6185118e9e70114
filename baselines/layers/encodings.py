"""Input encodings of NFNs: Fourier features of values, positions of inputs and outputs.

All act on lists of weights (B, out, in, taps * channels) and biases (B, out, channels).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from gmn.foundation.arguments import require_type

Values = tuple[list[Tensor], list[Tensor]]
Shape = tuple[int, int, int]


class Positions(Protocol):
    """Protocol of encodings that distinguish input and output neurons."""

    def build(self, shapes: Sequence[Shape], channels: int) -> nn.Module:
        """A module that maps and returns weights and biases of so many channels per entry."""

    def channels(self, given: int) -> int:
        """Channels per entry afterwards."""


@dataclass(frozen=True)
class LearnedPositions:
    """Learned embeddings of input and output neurons, added to the weights that touch them."""

    def build(self, shapes: Sequence[Shape], channels: int) -> nn.Module:
        """The module for networks with these layers."""
        return _LearnedEmbeddings(shapes, channels)

    def channels(self, given: int) -> int:
        """As many as before."""
        return given


class _LearnedEmbeddings(nn.Module):
    def __init__(self, shapes: Sequence[Shape], channels: int) -> None:
        super().__init__()
        (_, inputs, first), (outputs, _, last) = shapes[0], shapes[-1]
        self.inputs = nn.Parameter(torch.randn(inputs, first * channels))
        self.outputs = nn.Parameter(torch.randn(outputs, 1, last * channels))
        self.biases = nn.Parameter(torch.randn(outputs, channels))

    def forward(self, weights: list[Tensor], biases: list[Tensor]) -> Values:
        """Weights and biases with the embeddings added."""
        weights = [weights[0] + self.inputs, *weights[1:]]
        weights = [*weights[:-1], weights[-1] + self.outputs]
        return weights, [*biases[:-1], biases[-1] + self.biases]


@dataclass(frozen=True)
class SinusoidalPositions:
    """Sines and cosines of the index of input and output neurons, as further channels.

    The first weight gets the code of its input, the last weight and bias that of their output (a
    single weight the sum of both), all others zeros. Source: the IO encoding of Zhou et al.
    (arXiv 2302.14040), of 2 bands + 1 channels.

    Attributes:
        bands: number of frequencies, evenly spaced from half a period to ``bands`` periods.
    """

    bands: int = 6

    def build(self, shapes: Sequence[Shape], channels: int) -> nn.Module:
        """The module for networks with these layers."""
        return _SinusoidalEmbeddings(shapes, self.bands)

    def channels(self, given: int) -> int:
        """2 bands + 1 more than before."""
        return given + 2 * self.bands + 1


class _SinusoidalEmbeddings(nn.Module):
    inputs: Tensor
    outputs: Tensor

    def __init__(self, shapes: Sequence[Shape], bands: int) -> None:
        super().__init__()
        self.taps = [taps for _, _, taps in shapes]
        self.register_buffer("inputs", _waves(shapes[0][1], bands), persistent=False)
        self.register_buffer("outputs", _waves(shapes[-1][0], bands), persistent=False)

    def forward(self, weights: list[Tensor], biases: list[Tensor]) -> Values:
        """Weights and biases with more channels."""
        last = len(weights) - 1
        coded = []
        for layer, (weight, taps) in enumerate(zip(weights, self.taps, strict=True)):
            code = torch.zeros_like(self.inputs[:1])
            if layer == 0:
                code = code + self.inputs
            if layer == last:
                code = code + self.outputs.unsqueeze(1)
            values = weight.unflatten(-1, (taps, -1))
            code = code.expand(*weight.shape[1:3], -1).unsqueeze(2)
            coded.append(_joined(values, code).flatten(-2))
        absent = torch.zeros_like(self.outputs[:1])
        codes = [*(absent for _ in biases[:-1]), self.outputs]
        return coded, [_joined(b, code) for b, code in zip(biases, codes, strict=True)]


def _joined(values: Tensor, code: Tensor) -> Tensor:
    """Values (..., channels) with a code of further channels that broadcasts to them."""
    return torch.cat([values, code.expand(*values.shape[:-1], -1)], dim=-1)


def _waves(count: int, bands: int) -> Tensor:
    """Codes of indices: position in [-1, 1], its sines and cosines: shape (count, 2 bands + 1)."""
    positions = torch.linspace(-1, 1, count).unsqueeze(1) if count > 1 else torch.zeros(1, 1)
    angles = positions * math.pi * torch.linspace(0.5, bands, bands)
    return torch.cat([positions, angles.sin(), angles.cos()], dim=1)


class FourierFeatures(nn.Module):
    """Sines and cosines of random multiples of every value.

    The multiples are fixed; they do not depend on the entry, so permutations pass. A change of sign
    or scale does not. Source: Gaussian Fourier features of Zhou et al. (arXiv 2305.13546).

    Args:
        size: number of multiples; each value becomes 2 ``size`` channels.
        scale: standard deviation of the multiples.

    Attributes:
        channels: 2 ``size``.
    """

    multiples: Tensor

    def __init__(self, size: int = 128, scale: float = 3.0) -> None:
        super().__init__()
        self.channels = 2 * size
        self.register_buffer("multiples", torch.randn(size) * scale)

    def forward(self, values: Tensor) -> Tensor:
        """Shape (..., n) to (..., n * channels)."""
        angles = 2 * math.pi * values.unsqueeze(-1) * self.multiples
        return torch.cat([angles.sin(), angles.cos()], dim=-1).flatten(-2)


def require_fourier(fourier: object) -> None:
    """Refuses what is neither Fourier features nor None."""
    if fourier is not None:
        require_type("fourier", fourier, FourierFeatures, "FourierFeatures(size, scale), or None")
