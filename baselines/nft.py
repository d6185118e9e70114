"""NFT: neural functional transformers for chains (Zhou et al., NeurIPS 2023, arXiv 2305.13546)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from baselines import adapter
from baselines.edits import ChainEdits
from baselines.layers.encodings import FourierFeatures, LearnedPositions, require_fourier
from baselines.nfn import published_head
from gmn.errors import ArgumentError
from gmn.foundation.arguments import require_whole
from gmn.graph import ParameterGraph
from gmn.graph.required import require_spec
from gmn.nn.heads import EditHead, readout_of
from gmn.nn.metanetwork import Metanetwork
from gmn.spec import GraphSpec


class WeightAttention(nn.Module):
    r"""Attention between weights that commutes with permutations of the neurons of all layers.

    Two terms, with one map of :math:`c` to :math:`3c` channels for queries, keys and values.
    *Global*: a token for every weight and every bias, the mean of its entries; the result is added
    to all of them. *Cross*, for every layer of :math:`n_i` neurons: its tokens are the columns of
    the weight that enters it, its bias, and the rows of the weight that leaves it. Each is a
    function on these neurons, :math:`n_i c` numbers, and a permutation of the neurons moves all
    alike and keeps their products.

    Source: NPAttention of Zhou et al. (arXiv 2305.13546). Attention runs in
    :func:`torch.nn.functional.scaled_dot_product_attention`, which keeps no scores where it can.

    Args:
        channels: number of channels of every entry.
        heads: number of heads.

    Raises:
        ValueError: if the heads do not divide the channels.
    """

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        if channels % heads:
            raise ValueError(f"{heads} heads do not divide {channels} channels")
        self.heads = heads
        self.project = nn.Linear(channels, 3 * channels)

    def forward(
        self,
        weights: Sequence[Tensor],  # shapes: (B, out, in, c)
        biases: Sequence[Tensor],  # shapes: (B, out, c)
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Maps weights and biases to as many of the same shapes."""
        weights = [self.project(weight) for weight in weights]
        biases = [self.project(bias) for bias in biases]
        means = [value.flatten(1, -2).mean(1) for value in (*weights, *biases)]
        shared = self._attend(torch.stack(means, dim=1).unsqueeze(2)).unsqueeze(2).unbind(1)
        new_weights = list(shared[: len(weights)])
        new_biases = [value.squeeze(1) for value in shared[len(weights) :]]
        for layer in range(len(weights) + 1):
            entering, leaving = layer - 1, layer
            parts = []
            if entering >= 0:
                parts += [weights[entering].transpose(1, 2), biases[entering].unsqueeze(1)]
            if leaving < len(weights):
                parts.append(weights[leaving])
            counts = [part.shape[1] for part in parts]
            results = list(self._attend(torch.cat(parts, dim=1)).split(counts, dim=1))
            if leaving < len(weights):
                new_weights[leaving] = new_weights[leaving] + results.pop()
            if entering >= 0:
                weight_change, bias_change = results
                new_weights[entering] = new_weights[entering] + weight_change.transpose(1, 2)
                new_biases[entering] = new_biases[entering] + bias_change.squeeze(1)
        return new_weights, new_biases

    def _attend(self, tokens: Tensor) -> Tensor:
        """Between T tokens, functions on n neurons: (B, T, n, 3c) to (B, T, n, c)."""
        split = tokens.unflatten(-1, (3, self.heads, -1)).permute(3, 0, 4, 1, 2, 5)
        attended = scaled_dot_product_attention(*split.flatten(4).unbind(0))
        neurons = tokens.shape[2]
        return attended.unflatten(3, (neurons, -1)).permute(0, 2, 3, 1, 4).flatten(3)


class _Norm(nn.Module):
    """Layer norm of every entry over its channels, one gain and shift for each."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, values: Sequence[Tensor]) -> list[Tensor]:
        return [self.norm(value) for value in values]


class _Pointwise(nn.Module):
    """A small MLP on every entry, one for each weight and each bias."""

    def __init__(self, features: int, channels: int) -> None:
        super().__init__()
        self.maps = nn.ModuleList(
            nn.Sequential(
                nn.Linear(channels, 4 * channels), nn.GELU(), nn.Linear(4 * channels, channels)
            )
            for _ in range(features)
        )

    def forward(self, values: Sequence[Tensor]) -> list[Tensor]:
        return [layer(value) for layer, value in zip(self.maps, values, strict=True)]


class _AttentionBlock(nn.Module):
    """Pre-norm attention and pre-norm MLP, each added to what it reads."""

    def __init__(self, layers: int, channels: int, heads: int) -> None:
        super().__init__()
        self.layers = layers
        self.before_attention, self.before_mlp = _Norm(channels), _Norm(channels)
        self.attention = WeightAttention(channels, heads)
        self.mlp = _Pointwise(2 * layers, channels)

    def forward(self, values: list[Tensor]) -> list[Tensor]:
        """Weights (B, out, in, c), then biases (B, out, c)."""
        normal = self.before_attention(values)
        weights, biases = self.attention(normal[: self.layers], normal[self.layers :])
        values = [a + b for a, b in zip(values, (*weights, *biases), strict=True)]
        changes = self.mlp(self.before_mlp(values))
        return [a + b for a, b in zip(values, changes, strict=True)]


class NFT(Metanetwork):
    """Blocks of attention between weights, and an invariant or an equivariant head.

    Commutes with permutations of the neurons of all layers; learned positions of input and output
    neurons break the symmetry there, so the output is invariant to hidden ones only.

    Each weight's and each bias's values (of all taps) are first mapped to ``channels`` by a map of
    its own. The published code keeps channels for every tap instead and maps them to and fro in
    each block; its norm divides by the standard deviation without an epsilon.

    Args:
        spec: the architecture of the networks it reads; a chain.
        channels: channels of every pair of neurons.
        depth: number of blocks.
        heads: number of attention heads.
        head: number of outputs of an MLP with two hidden layers of 1,000 on the means; or a module
            that maps pooled features (B, ``pooled``) to anything; or an :class:`gmn.nn.EditHead`
            for edited networks, in units of one over the square root of the fan-in.
        fourier: Fourier features of values (published for INRs: 128 of scale 3); None to read
            them as they are, multiplied by the square root of their fan-in.

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
        channels: int = 64,
        depth: int = 4,
        heads: int = 4,
        head: int | nn.Module | EditHead = 1,
        fourier: FourierFeatures | None = None,
    ) -> None:
        super().__init__(head)
        require_spec("spec", spec)
        for name, count in (("channels", channels), ("heads", heads)):
            require_whole(name, count, 1)
        require_whole("depth", depth, 0)
        if channels % heads:
            raise ArgumentError(f"{heads} heads do not divide {channels} channels")
        self.shapes = adapter.shapes(spec)
        require_fourier(fourier)
        self.fourier = fourier
        width, layers = 1 if fourier is None else fourier.channels, len(self.shapes)
        all_taps = [taps for _, _, taps in self.shapes] + [1] * layers
        self.stem = nn.ModuleList(nn.Linear(width * taps, channels) for taps in all_taps)
        self.positions = LearnedPositions().build(
            [(out, into, 1) for out, into, _ in self.shapes], channels
        )
        self.blocks = nn.ModuleList(_AttentionBlock(layers, channels, heads) for _ in range(depth))
        self.last = _Norm(channels)
        self.register_buffer("scales", adapter.scales(spec), persistent=False)
        self.pooled, self.edits = 2 * layers * channels, None
        if self.copies:
            self.pooled, self.edits = 0, ChainEdits(self.copies)
            self.unstem = nn.ModuleList(
                nn.Linear(channels, taps * self.copies) for taps in all_taps
            )
        self.head = readout_of(head, lambda outputs: published_head(self.pooled, outputs))

    def forward(self, graph: ParameterGraph) -> Tensor | ParameterGraph:
        """Reads B networks; the output has shape (B, outputs), or is a graph of edited networks.

        Raises:
            UnsupportedArchitecture: if their layers are not those the model was built for.
        """
        adapter.require_shapes(graph.spec, self.shapes, type(self).__name__)
        values = self._encode(graph)
        for block in self.blocks:
            values = block(values)
        values = self.last(values)
        if self.edits is None:
            assert self.head is not None
            return self.head(torch.cat([v.flatten(1, -2).mean(1) for v in values], dim=1))
        changes = [layer(value) for layer, value in zip(self.unstem, values, strict=True)]
        layers = len(self.shapes)
        weights = [w / s for w, s in zip(changes[:layers], self.scales, strict=True)]
        return self.edits(graph, weights, changes[layers:])

    def _encode(self, graph: ParameterGraph) -> list[Tensor]:
        features = adapter.to_features(graph)
        weights = [w * s for w, s in zip(features.weights, self.scales, strict=True)]
        values = [*weights, *(bias.unsqueeze(2) for bias in features.biases)]
        if self.fourier is not None:
            values = [self.fourier(value) for value in values]
        values = [layer(value) for layer, value in zip(self.stem, values, strict=True)]
        layers = len(self.shapes)
        weights, biases = self.positions(values[:layers], values[layers:])
        return [*weights, *biases]
