"""SIRENs as they were published, and how their weights are found in a state dict."""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

from gmn.zoo.importing.layout import State

FREQUENCY = 30.0


class PublishedSiren(nn.Module):
    """Linear layers with sines between them (Sitzmann et al. 2020): 2-32-32-outputs, or others.

    Args:
        outputs: 1 for grey images, 3 for colour.
        shift: constant added to the output.
        inputs: number of coordinates.
        hidden: neurons of each hidden layer.
        frequency: factor in all sines.

    >>> sum(p.numel() for p in PublishedSiren(outputs=3).parameters())
    1251
    """

    def __init__(
        self,
        outputs: int = 1,
        shift: float = 0.0,
        inputs: int = 2,
        hidden: tuple[int, ...] = (32, 32),
        frequency: float = FREQUENCY,
    ) -> None:
        super().__init__()
        self.shift = shift
        self.frequency = frequency
        self.depth = len(hidden) + 1
        widths = (inputs, *hidden, outputs)
        for layer in range(self.depth):
            self.add_module(f"layer{layer + 1}", nn.Linear(widths[layer], widths[layer + 1]))

    def forward(
        self,
        coordinates: Tensor,  # shape: (points, inputs), in [-1, 1]
    ) -> Tensor:  # shape: (points, outputs)
        """Brightness at each point."""
        x = coordinates
        for layer in range(1, self.depth):
            x = torch.sin(self.frequency * self.get_submodule(f"layer{layer}")(x))
        x = self.get_submodule(f"layer{self.depth}")(x)
        return x + self.shift if self.shift else x


def chain_weights(state: State) -> list[tuple[Tensor, Tensor]]:
    """Weight and bias of each layer of a chain, by the numbers in their names.

    Args:
        state: names end in ``weight`` and ``bias``; what stands before is the same for both.

    Raises:
        ValueError: If names are of another form, or a layer lacks one of the two.
    """
    layers: dict[str, dict[str, Tensor]] = {}
    for name, value in state.items():
        stem, _, kind = name.rpartition(".")
        if kind not in ("weight", "bias"):
            raise ValueError(f"{name} is neither a weight nor a bias")
        layers.setdefault(stem, {})[kind] = value
    for stem, layer in layers.items():
        if lacking := {"weight", "bias"} - layer.keys():
            raise ValueError(f"layer {stem or '(no name)'} has no {lacking.pop()}")
    ordered = sorted(layers.items(), key=lambda item: by_numbers(item[0]))
    return [(layer["weight"], layer["bias"]) for _, layer in ordered]


def siren_state(state: State, depth: int = 3) -> State:
    """The weights of a published chain of layers, as :class:`PublishedSiren` names them.

    Raises:
        ValueError: If the state is no chain of so many layers.
    """
    layers = chain_weights(state)
    if len(layers) != depth:
        raise ValueError(f"{len(layers)} layers of weight and bias, not {depth}")
    result: State = {}
    for layer, (weight, bias) in enumerate(layers, start=1):
        result[f"layer{layer}.weight"] = weight
        result[f"layer{layer}.bias"] = bias
    return result


def by_numbers(name: str) -> list[str | int]:
    """Key under which layer 10 comes after layer 9."""
    pieces = re.split(r"(\d+)", name)
    return [int(piece) if piece.isdigit() else piece for piece in pieces]
