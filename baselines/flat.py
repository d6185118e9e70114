"""A plain MLP on all parameters in a row: what ignoring the structure costs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from gmn.features import fan_in
from gmn.graph import ParameterGraph
from gmn.spec import GraphSpec


class FlatMLP(nn.Module):
    """Flattens every edge set, in the spec's order, into one vector for an MLP.

    It has no symmetry: permuting hidden neurons changes its answer.

    Args:
        spec: the architecture of the networks it reads.
        hidden: sizes of the hidden layers.
        outputs: length of the answer.
    """

    def __init__(
        self, spec: GraphSpec, hidden: Sequence[int] = (256, 256), outputs: int = 1
    ) -> None:
        super().__init__()
        self.length = sum(edges.size for edges in _held(spec))
        layers: list[nn.Module] = []
        for inputs, size in pairwise((self.length, *hidden)):
            layers += [nn.Linear(inputs, size), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(hidden[-1], outputs))

    def forward(self, graph: ParameterGraph) -> Tensor:
        """Reads B networks; the answer has shape (B, outputs).

        Raises:
            ValueError: if the networks have another number of parameters.
        """
        blocks = [
            graph.pairs(edges).flatten(1) * (fan_in(edges) ** 0.5 if edges.kind == "weight" else 1)
            for edges in _held(graph.spec)
        ]
        vector = torch.cat(blocks, dim=1)
        if vector.shape[1] != self.length:
            raise ValueError(
                f"these networks have {vector.shape[1]} parameters and statistics, but this "
                f"FlatMLP was built for {self.length}; build one per architecture"
            )
        return self.layers(vector)


def _held(spec: GraphSpec):  # type: ignore[no-untyped-def]
    return (edges for edges in spec.edge_sets if edges.tied_to is None)
