"""NFN: neural functional networks for chains (Zhou et al., NeurIPS 2023, arXiv 2302.14040)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from baselines import adapter
from baselines.adapter import UnsupportedArchitecture
from baselines.edits import ChainEdits
from baselines.layers.encodings import FourierFeatures, LearnedPositions, Positions, require_fourier
from baselines.layers.equivariant import EquivariantLinear, Feature, Restriction
from gmn.foundation.arguments import require_each_whole, require_one_of
from gmn.graph import ParameterGraph
from gmn.graph.required import require_spec
from gmn.nn.heads import EditHead, readout_of
from gmn.nn.metanetwork import Metanetwork
from gmn.spec import GraphSpec

Variant = Literal["NP", "HNP", "DWS"]


class NFN(Metanetwork):
    """Equivariant linear layers on weights and biases, and an invariant or an equivariant head.

    ``HNP`` commutes with permutations of hidden neurons: the input axis of the first weight, the
    output axis of the last one and the last bias are channels. ``NP`` commutes with permutations of
    all layers, and positions of input and output neurons break that symmetry again ("NP-PosEmb").
    ``DWS`` is the linear form of DWSNets (Navon et al., arXiv 2301.12780), with means and "deep
    sets" instead of attention: its group is that of HNP, and so are the maps, which the paper lists
    case by case. Taps are channels.

    All layers hold every linear equivariant map. The published codes do not: HNP lacks the maps
    from the last hidden bias to the last weight; DWS gives all outputs of the last weight the same
    from the weight before it, and from the biases before that. ``published=True`` leaves the same
    maps out, to reproduce their numbers; and as published, NP then embeds positions before every
    layer, not only the first, and pools as HNP does, each input and output neuron by itself. What
    remains is the redundancy of the published layers: maps that are sums of others, and several
    constants for the same entries.

    Weights enter multiplied by the square root of their fan-in, which only changes the scale of the
    first layer's initialisation. Nothing is standardised entry by entry: that would break the
    invariance.

    Args:
        spec: the architecture of the networks it reads; a chain.
        channels: channels per weight (and per tap) after each layer.
        variant: ``HNP``, ``NP`` or ``DWS``.
        head: number of outputs of the published head (two hidden layers of 1,000); or a module
            that maps pooled features (B, ``pooled``) to anything; or an :class:`gmn.nn.EditHead`
            for edited networks. Edits come from one further layer, at first of size 0.01, in units
            of one over the square root of the fan-in.
        published: whether to leave out the maps that the published layer lacks, and to embed and
            pool in NP as published.
        positions: encoding that distinguishes input and output neurons in ``NP``; None for
            learned embeddings.
        fourier: Fourier features of values; None to read them as they are.

    Attributes:
        pooled: number of invariant features; 0 with a head for edits.
        learning_rate: a good peak for :func:`gmn.train.train`.

    Raises:
        UnsupportedArchitecture: if the networks are not chains.
    """

    scales: Tensor
    symmetries = ("permutations",)
    learning_rate = 1e-3

    def __init__(
        self,
        spec: GraphSpec,
        channels: Sequence[int] = (16, 16, 5),
        variant: Variant = "HNP",
        head: int | nn.Module | EditHead = 1,
        published: bool = False,
        positions: Positions | None = None,
        fourier: FourierFeatures | None = None,
    ) -> None:
        super().__init__(head)
        require_spec("spec", spec)
        channels = require_each_whole("channels", channels, 1)
        require_one_of("variant", variant, get_args(Variant))
        self.shapes = adapter.shapes(spec)
        self.variant = variant
        require_fourier(fourier)
        self.fourier = fourier
        width = 1 if fourier is None else fourier.channels
        self.positions, self.positions_between = None, None
        edits = (self.copies,) if self.copies else ()
        between = (*channels, *edits)[:-1]
        if variant == "NP":
            if published and positions is None:
                learned = (LearnedPositions().build(self.shapes, c) for c in between)
                self.positions_between = nn.ModuleList(learned)
            positions = LearnedPositions() if positions is None else positions
            self.positions = positions.build(self.shapes, width)
            width = positions.channels(width)
        self.pool: Variant = "HNP" if published and variant == "NP" else variant
        stages = [_features(self.shapes, c, variant) for c in (width, *channels, *edits)]
        missing = _missing(len(self.shapes), self.shapes[-1][0], variant) if published else ()
        self.layers = nn.ModuleList(
            EquivariantLinear(before, after, missing) for before, after in pairwise(stages)
        )
        pools = _features(self.shapes, channels[-1], self.pool)
        self.pooled = 0 if edits else sum(feature.channels for feature in pools)
        self.edits = ChainEdits(self.copies) if self.copies else None
        self.head = readout_of(head, lambda outputs: published_head(self.pooled, outputs))
        self.register_buffer("scales", adapter.scales(spec), persistent=False)

    def forward(self, graph: ParameterGraph) -> Tensor | ParameterGraph:
        """Reads B networks; the output has shape (B, outputs), or is a graph of edited networks.

        Raises:
            UnsupportedArchitecture: if their layers are not those the model was built for.
        """
        adapter.require_shapes(graph.spec, self.shapes, type(self).__name__)
        values = _arrange(*self._encode(graph), self.variant)
        for index, layer in enumerate(self.layers):
            values = layer(values if index == 0 else self._between(values, index))
        if self.edits is not None:
            weights, biases = _rearrange(values, self.shapes, self.variant)
            scaled = [w / s for w, s in zip(weights, self.scales, strict=True)]
            return self.edits(graph, scaled, biases)
        assert self.head is not None
        values = [torch.relu(value) for value in values]
        if self.pool != self.variant:
            values = _arrange(*_rearrange(values, self.shapes, self.variant), self.pool)
        means = [value.flatten(1, -2).mean(1) if value.dim() > 2 else value for value in values]
        return self.head(torch.cat(means, dim=1))

    def _between(self, values: list[Tensor], index: int) -> list[Tensor]:
        """What the layer of an index reads of the results of the one before."""
        values = [torch.relu(value) for value in values]
        if self.positions_between is None:
            return values
        embed = self.positions_between[index - 1]
        weights, biases = embed(*_rearrange(values, self.shapes, self.variant))
        return _arrange(weights, biases, self.variant)

    def _encode(self, graph: ParameterGraph) -> tuple[list[Tensor], list[Tensor]]:
        """Weights (B, out, in, taps * channels) and biases (B, out, channels)."""
        features = adapter.to_features(graph)
        weights = [w * s for w, s in zip(features.weights, self.scales, strict=True)]
        biases = [bias.unsqueeze(2) for bias in features.biases]
        if self.fourier is not None:
            weights = [self.fourier(weight) for weight in weights]
            biases = [self.fourier(bias) for bias in biases]
        return (weights, biases) if self.positions is None else self.positions(weights, biases)


def _features(
    shapes: Sequence[tuple[int, int, int]], channels: int, variant: Variant
) -> list[Feature]:
    """Weights, then biases, with the axes that the variant permutes."""
    weights, biases = [], []
    last = len(shapes) - 1
    for layer, (out, into, taps) in enumerate(shapes):
        axes, width = [f"n{layer + 1}", f"n{layer}"], channels * taps
        if variant != "NP" and layer == 0:
            axes.remove("n0")
            width *= into
        if variant != "NP" and layer == last:
            axes.remove(f"n{last + 1}")
            width *= out
        weights.append(Feature(tuple(axes), width))
        ordered = variant != "NP" and layer == last
        bias_axes = () if ordered else (f"n{layer + 1}",)
        biases.append(Feature(bias_axes, channels * (out if ordered else 1)))
    return weights + biases


def _missing(layers: int, outputs: int, variant: Variant) -> list[Restriction]:
    """What the published layer lacks, on features in the order of :func:`_features`.

    Raises:
        UnsupportedArchitecture: if the published layer does not exist for so few layers.
    """
    last = layers - 1
    if variant == "HNP" and last:
        # No term b^{(L-1)}_k in W'^{(L)}_{jk}.
        return [Restriction(layers + last - 1, last, kept=(f"n{last}",))]
    if variant == "DWS" and layers < 3:
        raise UnsupportedArchitecture(
            f"the published DWS layer needs three weights, this network has {layers}; leave "
            "published=False"
        )
    if variant == "DWS":
        shared = [last - 1, *range(layers, layers + last - 1)]
        return [Restriction(source, last, parts=outputs) for source in shared]
    return []


def _arrange(weights: list[Tensor], biases: list[Tensor], variant: Variant) -> list[Tensor]:
    """Tensors of shape (B, *axes, channels) in the order of :func:`_features`."""
    if variant == "NP":
        return [*weights, *biases]
    first, last = weights[0], weights[-1]
    ordered = biases[-1].flatten(1)
    if len(weights) == 1:
        return [first.flatten(1), *biases[:-1], ordered]
    ends = first.flatten(2), last.transpose(1, 2).flatten(2)
    return [ends[0], *weights[1:-1], ends[1], *biases[:-1], ordered]


def _rearrange(
    values: Sequence[Tensor], shapes: Sequence[tuple[int, int, int]], variant: Variant
) -> tuple[list[Tensor], list[Tensor]]:
    """The inverse of :func:`_arrange`."""
    weights, biases = list(values[: len(shapes)]), list(values[len(shapes) :])
    if variant == "NP":
        return weights, biases
    outputs, inputs = shapes[-1][0], shapes[0][1]
    biases[-1] = biases[-1].unflatten(1, (outputs, -1))
    if len(shapes) == 1:
        return [weights[0].unflatten(1, (outputs, inputs, -1))], biases
    weights[0] = weights[0].unflatten(2, (inputs, -1))
    weights[-1] = weights[-1].unflatten(2, (outputs, -1)).transpose(1, 2)
    return weights, biases


def published_head(pooled: int, outputs: int) -> nn.Sequential:
    """The MLP with two hidden layers of 1,000 of the published NFN."""
    return nn.Sequential(
        nn.Linear(pooled, 1000),
        nn.ReLU(),
        nn.Linear(1000, 1000),
        nn.ReLU(),
        nn.Linear(1000, outputs),
    )
