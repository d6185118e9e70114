"""Edits the weights of chains by equivariant features of an NFN."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from baselines import adapter
from gmn.graph import ParameterGraph


class ChainEdits(nn.Module):
    """Adds changes to the weights of chains, at first a hundredth of them.

    Args:
        copies: edits per network; the output holds the first edit of all networks, then the second.
    """

    def __init__(self, copies: int) -> None:
        super().__init__()
        self.size = nn.Parameter(torch.full((copies,), 0.01))

    def forward(
        self, graph: ParameterGraph, weights: Sequence[Tensor], biases: Sequence[Tensor]
    ) -> ParameterGraph:
        """The edited networks.

        Args:
            graph: B networks.
            weights: changes of shape (B, out, in, taps * copies), by layer.
            biases: changes of shape (B, out, copies), by layer.
        """
        old = adapter.to_features(graph)
        sized_weights, sized_biases = (
            [change.unflatten(-1, (-1, len(self.size))) * self.size for change in changes]
            for changes in (weights, biases)
        )
        edited = []
        for copy in range(len(self.size)):
            new = adapter.WeightSpaceFeatures(
                tuple(w + d[..., copy] for w, d in zip(old.weights, sized_weights, strict=True)),
                tuple(b + d[..., 0, copy] for b, d in zip(old.biases, sized_biases, strict=True)),
            )
            edited.append(adapter.from_features(graph, new))
        return ParameterGraph.cat(edited) if len(edited) > 1 else edited[0]
