"""A plain MLP on the flattened parameters: the reference that ignores structure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from gmn.errors import ArgumentError, UnsupportedArchitecture
from gmn.features import fan_in
from gmn.foundation.arguments import require_each_whole
from gmn.graph import ParameterGraph
from gmn.graph.required import require_spec
from gmn.nn import EditHead, InvariantHead
from gmn.nn.edge_edits import Edits, editable
from gmn.nn.metanetwork import Metanetwork
from gmn.spec import EdgeSet, GraphSpec


class FlatMLP(Metanetwork):
    """Flattens every edge set, in the spec's order, into one vector for an MLP.

    It has no symmetry: permuting hidden neurons changes its output. Edits are as many numbers in a
    row as there are parameters.

    Args:
        spec: the architecture of the networks it reads.
        hidden: sizes of the hidden layers.
        head: number of outputs, or an ``EditHead``.
    """

    symmetries = ()

    def __init__(
        self,
        spec: GraphSpec,
        hidden: Sequence[int] = (256, 256),
        head: int | InvariantHead | EditHead = 1,
    ) -> None:
        super().__init__(head)
        require_spec("spec", spec)
        hidden = require_each_whole("hidden", hidden, 1)
        if isinstance(head, nn.Module):
            raise ArgumentError("head: FlatMLP has no states to read; give a number or an EditHead")
        self.edits = Edits(self.copies) if self.copies else None
        changed = sum(edges.size for edges in editable(spec))
        asked = head.outputs if isinstance(head, InvariantHead) else head or 1
        outputs = self.copies * changed if isinstance(asked, EditHead) else asked
        self.length = sum(edges.size for edges in _untied(spec))
        layers: list[nn.Module] = []
        for inputs, size in pairwise((self.length, *hidden)):
            layers += [nn.Linear(inputs, size), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(hidden[-1], outputs))

    def forward(self, graph: ParameterGraph) -> Tensor | ParameterGraph:
        """Reads B networks; the output has shape (B, outputs), or is a graph of edited networks.

        Raises:
            ValueError: if the networks have another number of parameters.
        """
        blocks = [graph.pairs(edges).flatten(1) * _scale(edges) for edges in _untied(graph.spec)]
        vector = torch.cat(blocks, dim=1)
        if vector.shape[1] != self.length:
            raise UnsupportedArchitecture(
                f"these networks have {vector.shape[1]} parameters and statistics, but this "
                f"FlatMLP was built for {self.length}; build one per architecture"
            )
        output = self.layers(vector)
        return output if self.edits is None else self._edited(graph, output)

    def _edited(self, graph: ParameterGraph, output: Tensor) -> ParameterGraph:
        assert self.edits is not None
        parts = editable(graph.spec)
        changed = output.unflatten(1, (-1, len(self.edits.size)))
        changes = {
            edges.name: changed.unflatten(1, (-1, edges.num_taps)) / _scale(edges)
            for edges, changed in zip(parts, changed.split([e.size for e in parts], 1), strict=True)
        }
        return self.edits(graph, changes)


def _scale(edges: EdgeSet) -> float:
    """Factor that makes weights comparable across widths."""
    return fan_in(edges) ** 0.5 if edges.kind == "weight" else 1.0


def _untied(spec: GraphSpec) -> Iterator[EdgeSet]:
    return (edges for edges in spec.edge_sets if edges.tied_to is None)
