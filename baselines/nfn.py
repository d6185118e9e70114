"""NFN: neural functional networks for chains (Zhou et al., NeurIPS 2023, arXiv 2302.14040)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from gmn.graph import ParameterGraph
from gmn.spec import GraphSpec

from . import adapter
from .equivariant import EquivariantLinear, Feature

Variant = Literal["NP", "HNP"]


class NFN(nn.Module):
    """Equivariant linear layers on weights and biases, invariant pooling, and an MLP.

    ``HNP`` commutes with permutations of hidden neurons: the input axis of the first weight, the
    output axis of the last one and the last bias are channels. ``NP`` commutes with permutations of
    all layers, and learned position embeddings on input and output neurons break that symmetry
    again ("NP-PosEmb"). Kernel places are channels. Both layers hold every linear equivariant map;
    the published HNP code lacks the maps from the last hidden bias to the last weight.

    Weights enter multiplied by the square root of their fan-in, which only changes the scale of the
    first layer's initialisation. Nothing is standardised entry by entry: that would break the
    invariance.

    Args:
        spec: the architecture of the networks it reads; a chain.
        channels: channels per weight (and per kernel place) after each layer.
        variant: ``HNP`` or ``NP``.
        head: number of outputs of the published head (two hidden layers of 1,000), or a module
            that maps pooled features (B, ``pooled``) to anything.

    Attributes:
        pooled: number of invariant features.
        learning_rate: a good peak for :func:`gmn.train.train`.

    Raises:
        UnsupportedArchitecture: if the networks are not chains.
    """

    scales: Tensor
    learning_rate = 1e-3

    def __init__(
        self,
        spec: GraphSpec,
        channels: Sequence[int] = (16, 16, 5),
        variant: Variant = "HNP",
        head: int | nn.Module = 1,
    ) -> None:
        super().__init__()
        self.shapes = adapter.shapes(spec)
        self.variant = variant
        stages = [_features(self.shapes, c, variant) for c in (1, *channels)]
        self.layers = nn.ModuleList(
            EquivariantLinear(before, after) for before, after in pairwise(stages)
        )
        self.pooled = sum(feature.channels for feature in stages[-1])
        self.head = _published_head(self.pooled, head) if isinstance(head, int) else head
        self.register_buffer("scales", adapter.scales(spec), persistent=False)
        self.positions = _Positions(self.shapes) if variant == "NP" else None

    def forward(self, graph: ParameterGraph) -> Tensor:
        """Reads B networks; the answer has shape (B, outputs).

        Raises:
            UnsupportedArchitecture: if their layers are not those the model was built for.
        """
        adapter.require_shapes(graph.spec, self.shapes, type(self).__name__)
        features = adapter.to_features(graph)
        weights = [w * s for w, s in zip(features.weights, self.scales, strict=True)]
        biases = list(features.biases)
        if self.positions is not None:
            weights, biases = self.positions(weights, biases)
        values = _arrange(weights, biases, self.variant)
        for layer in self.layers:
            values = [torch.relu(value) for value in layer(values)]
        means = [value.flatten(1, -2).mean(1) if value.dim() > 2 else value for value in values]
        return self.head(torch.cat(means, dim=1))


def _features(
    shapes: Sequence[tuple[int, int, int]], channels: int, variant: Variant
) -> list[Feature]:
    """Weights, then biases, with the axes that the variant permutes."""
    weights, biases = [], []
    last = len(shapes) - 1
    for number, (out, into, taps) in enumerate(shapes):
        axes, width = [f"n{number + 1}", f"n{number}"], channels * taps
        if variant == "HNP" and number == 0:
            axes.remove("n0")
            width *= into
        if variant == "HNP" and number == last:
            axes.remove(f"n{last + 1}")
            width *= out
        weights.append(Feature(tuple(axes), width))
        ordered = variant == "HNP" and number == last
        bias_axes = () if ordered else (f"n{number + 1}",)
        biases.append(Feature(bias_axes, channels * (out if ordered else 1)))
    return weights + biases


def _arrange(weights: list[Tensor], biases: list[Tensor], variant: Variant) -> list[Tensor]:
    """Tensors of shape (B, *axes, channels) in the order of :func:`_features`."""
    if variant == "NP":
        return [*weights, *(bias.unsqueeze(2) for bias in biases)]
    first, last = weights[0], weights[-1]
    hidden = [bias.unsqueeze(2) for bias in biases[:-1]]
    if len(weights) == 1:
        return [first.flatten(1), *hidden, biases[-1]]
    ends = first.flatten(2), last.transpose(1, 2).flatten(2)
    return [ends[0], *weights[1:-1], ends[1], *hidden, biases[-1]]


class _Positions(nn.Module):
    """Learned embeddings of input and output neurons, added to the weights that touch them."""

    def __init__(self, shapes: Sequence[tuple[int, int, int]]) -> None:
        super().__init__()
        (_, inputs, first), (outputs, _, last) = shapes[0], shapes[-1]
        self.inputs = nn.Parameter(torch.randn(inputs, first))
        self.outputs = nn.Parameter(torch.randn(outputs, 1, last))
        self.biases = nn.Parameter(torch.randn(outputs))

    def forward(
        self, weights: list[Tensor], biases: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Weights (B, out, in, taps) and biases (B, out) with the embeddings added."""
        weights = [weights[0] + self.inputs, *weights[1:]]
        weights = [*weights[:-1], weights[-1] + self.outputs]
        return weights, [*biases[:-1], biases[-1] + self.biases]


def _published_head(pooled: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(pooled, 1000),
        nn.ReLU(),
        nn.Linear(1000, 1000),
        nn.ReLU(),
        nn.Linear(1000, outputs),
    )
