"""Monomial-NFN: layers that commute with scales (Tran et al., NeurIPS 2024, arXiv 2409.11697)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from baselines.layers.scaled import (
    SIGNS,
    Block,
    Form,
    ScaledChain,
    ScaledEdits,
    ScaledLinear,
    activate,
    by_power,
    complete,
    invariants,
    mlp_head,
)
from gmn.foundation.arguments import require_callable, require_each_whole
from gmn.graph import ParameterGraph
from gmn.graph.required import require_spec
from gmn.nn.heads import EditHead, readout_of
from gmn.nn.metanetwork import Metanetwork
from gmn.spec import GraphSpec


class MonomialNFN(Metanetwork):
    """Linear layers that commute with permutations and scales of hidden neurons, and an MLP.

    The scale of every hidden neuron is positive or a sign, as the spec of the networks says, node
    set by node set; a model that was built for one group reads networks of the other, too, with the
    maps that both allow.

    Layers hold every linear equivariant map, with the input axis of the first weight, the output
    axis of the last one, the last bias and taps as channels. For positive scales that is
    the published layer: the first weight and bias are mixed, the last weight, the last bias, and
    every other tensor with itself alone. Signs are their own inverse, so with them the last weight
    and the last hidden bias also meet, and with one hidden layer the first weight meets both.
    Between layers, features pass ReLU under positive scales and an odd function under signs; under
    both (a weight between a ReLU and a tanh layer) only the identity commutes.

    No linear map that commutes joins what touches different hidden layers. Under positive scales
    the output therefore depends only on the signs of hidden biases (but the first) and, in MLPs, of
    the weights between hidden layers; :class:`baselines.magep.MAGEP` joins them in products.

    Phases of sines are taken out first; weights enter multiplied by the square root of their
    fan-in. The pooled features' own affine map is part of the head's first layer, and apart only
    if ``published``.

    Args:
        spec: the architecture of the networks it reads; a chain whose hidden neurons have scales.
        channels: channels per parameter (weights: and per tap) after each layer.
        head: number of outputs of the published head (two hidden layers of 200), a module that maps
            pooled features (B, ``pooled``) to anything, or an ``EditHead``: changes that transform
            as the parameters do are added to these.
        odd: the function between layers for signs: ``torch.tanh`` or ``torch.sin`` in the paper.
        published: whether layers have only the maps of the published code, which lacks some for
            signs: those of one hidden layer, and all that join weights and biases in CNNs; and
            pooled features a gain and a shift of their own.

    Attributes:
        pooled: number of invariant features.
        learning_rate: a good peak for :func:`gmn.train.train`.

    Raises:
        UnsupportedArchitecture: if the networks are not chains, or hidden neurons have no scales.
    """

    symmetries = ("permutations", "scalings")
    learning_rate = 1e-3

    def __init__(
        self,
        spec: GraphSpec,
        channels: Sequence[int] = (16, 16, 5),
        head: int | nn.Module | EditHead = 1,
        odd: Callable[[Tensor], Tensor] = torch.tanh,
        published: bool = False,
    ) -> None:
        super().__init__(head)
        require_spec("spec", spec)
        channels = require_each_whole("channels", channels, 1)
        require_callable("odd", odd, "a function such as torch.tanh")
        self.chain = ScaledChain.of(spec, type(self).__name__)
        self.odd = odd
        stages = [self.chain.forms(count, self.chain.taps) for count in (1, *channels)]
        self.layers = nn.ModuleList(
            self._layer(before, after, published) for before, after in pairwise(stages)
        )
        self.pooled = sum(form.channels for form in stages[-1])
        self.affine = None
        if published and not self.copies:
            pooled_apart = channels[-1] * (sum(self.chain.taps) + self.chain.depth)
            self.affine = nn.Parameter(torch.randn(2, pooled_apart))
        self.head = readout_of(head, lambda outputs: mlp_head(self.pooled, 200, outputs))
        self.editor: ScaledEdits | None = None
        if self.copies:
            changes = self.chain.forms(self.copies, self.chain.taps)
            self.editor = ScaledEdits(self._layer(stages[-1], changes, published))

    def forward(self, graph: ParameterGraph) -> Tensor | ParameterGraph:
        """Reads B networks; the output has shape (B, outputs), or is a graph of edited networks.

        Raises:
            UnsupportedArchitecture: if their layers are not those it was built for, or hidden
                neurons have no scales.
        """
        chain = self.chain.at(graph.spec)
        values = chain.read(graph)
        for layer in self.layers:
            values = activate(chain, layer(chain, values), self.odd)
        if self.editor is not None:
            return chain.edit(graph, self.editor(chain, values))
        assert self.head is not None
        return self.head(invariants(chain, values, self.affine))

    def _layer(self, before: list[Form], after: list[Form], published: bool) -> ScaledLinear:
        choose = published_blocks if published else complete
        return ScaledLinear(before, after, choose(self.chain, before, after))


def published_blocks(
    chain: ScaledChain, before: Sequence[Form], after: Sequence[Form]
) -> list[Block]:
    """The maps of the published code; without kernels and for signs, the last two join partly."""
    blocks, depth = by_power(before, after), chain.depth
    if depth == 1 or max(chain.taps) > 1 or chain.domains[-1] != SIGNS:
        return blocks
    last_weight, last_hidden_bias = depth - 1, 2 * depth - 2
    blocks.append(((last_hidden_bias,), (last_weight,)))
    if depth > 2:
        blocks.append(((last_weight,), (last_hidden_bias,)))
    return blocks
