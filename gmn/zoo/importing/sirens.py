"""SIRENs as they were published, and how their weights are found in a state dict."""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

from gmn.zoo.importing.layout import State

FREQUENCY = 30.0


class PublishedSiren(nn.Module):
    """2-32-32-outputs with sines of frequency 30 and a linear last layer (Sitzmann et al. 2020).

    Args:
        outputs: 1 for grey images, 3 for colour.
        shift: What is added to the output.

    >>> sum(p.numel() for p in PublishedSiren(outputs=3).parameters())
    1251
    """

    def __init__(self, outputs: int = 1, shift: float = 0.0) -> None:
        super().__init__()
        self.layer1 = nn.Linear(2, 32)
        self.layer2 = nn.Linear(32, 32)
        self.layer3 = nn.Linear(32, outputs)
        self.shift = shift

    def forward(
        self,
        coordinates: Tensor,  # shape: (points, 2), in [-1, 1]
    ) -> Tensor:  # shape: (points, outputs)
        """Brightness at each point."""
        x = torch.sin(FREQUENCY * self.layer1(coordinates))
        x = torch.sin(FREQUENCY * self.layer2(x))
        x = self.layer3(x)
        return x + self.shift if self.shift else x


def chain_weights(state: State) -> list[tuple[Tensor, Tensor]]:
    """Weight and bias of each layer of a chain, by the numbers in their names.

    Args:
        state: Names end in ``weight`` and ``bias``; what stands before is the same for both.

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


def siren_state(state: State) -> State:
    """The weights of a published chain of three layers, as :class:`PublishedSiren` names them.

    Raises:
        ValueError: If the state is no chain of three layers.
    """
    layers = chain_weights(state)
    if len(layers) != 3:
        raise ValueError(f"{len(layers)} layers of weight and bias, not 3")
    result: State = {}
    for number, (weight, bias) in enumerate(layers, start=1):
        result[f"layer{number}.weight"] = weight
        result[f"layer{number}.bias"] = bias
    return result


def by_numbers(name: str) -> list[str | int]:
    """Key under which layer 10 comes after layer 9."""
    pieces = re.split(r"(\d+)", name)
    return [int(piece) if piece.isdigit() else piece for piece in pieces]
