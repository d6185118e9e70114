"""Fits many implicit neural representations to one image each, at once."""

from __future__ import annotations

import math
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from gmn.zoo.training.descent import descend
from gmn.zoo.training.states import State

LEAST_ERROR = 1e-12  # where float32 ends: 120 dB


class SineNetwork(Protocol):
    """A chain of linear layers ``layer1``, ``layer2``, ... with sines between them."""

    frequency: float

    def layers(self) -> tuple[nn.Linear, ...]:
        """The linear layers from input to output."""


def initial_state(
    module: SineNetwork, generator: torch.Generator, dtype: torch.dtype = torch.float32
) -> State:
    """Draws the initial state of one network.

    Weights are uniform in ±1/fan-in (first layer) or ±√(6/fan-in)/ω (others), as in Sitzmann et al.
    (2020, section 3.2); biases in ±1/√fan-in, the default of ``nn.Linear``.

    Args:
        module: any network of the architecture; its own weights are not used.
        generator: source of randomness.
        dtype: type of the state.
    """
    state: State = {}
    for index, layer in enumerate(module.layers()):
        inputs = layer.in_features
        bound = 1 / inputs if index == 0 else math.sqrt(6 / inputs) / module.frequency
        for name, limit in (("weight", bound), ("bias", inputs**-0.5)):
            shape = getattr(layer, name).shape
            drawn = torch.rand(shape, generator=generator, dtype=torch.float64)
            state[f"layer{index + 1}.{name}"] = ((2 * drawn - 1) * limit).to(dtype)
    return state


def fit(
    module: nn.Module,
    initial: State,
    coordinates: Tensor,  # shape: (pixels, 2)
    pixels: Tensor,  # shape: (N, pixels), in [0, 1]
    steps: int,
    learning_rate: float,
) -> tuple[State, Tensor]:
    """Fits N networks side by side: full batches, Adam, learning rate along half a cosine.

    Args:
        module: any network of the architecture; its own weights are not used.
        initial: stacked states to start from; left as they are.
        coordinates: coordinates of the pixels, shape (pixels, 2).
        pixels: the images, shape (N, pixels).
        steps: number of steps.
        learning_rate: learning rate at the first step.

    Returns:
        The fitted states, stacked; and the peak signal-to-noise ratios in decibels, shape (N,).
    """

    def loss(step: int, state: State) -> Tensor:
        return _errors(module, state, coordinates, pixels).sum()

    factors = [0.5 + 0.5 * math.cos(math.pi * step / steps) for step in range(steps)]
    state = descend(initial, loss, learning_rate, factors)
    with torch.no_grad():
        errors = _errors(module, state, coordinates, pixels).clamp(min=LEAST_ERROR)
    return state, -10 * errors.log10()


def _errors(
    module: nn.Module,
    state: State,
    coordinates: Tensor,  # shape: (pixels, 2)
    pixels: Tensor,  # shape: (N, pixels)
) -> Tensor:  # shape: (N,)
    """Mean squared error of each network."""
    images = vmap(lambda weights: functional_call(module, weights, (coordinates,)))(state)
    return (images.squeeze(2) - pixels).square().mean(1)
