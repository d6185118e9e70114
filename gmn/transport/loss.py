"""A loss for generated networks whose neurons come in any order."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from gmn.errors import ArgumentError
from gmn.foundation.arguments import require_whole
from gmn.graph import ParameterGraph
from gmn.graph.required import require_graph
from gmn.transport.kinds import powers
from gmn.transport.neurons import weight_clouds


class NeuronSetLoss(nn.Module):
    """Mean over layers of the squared distance between clouds of neurons, by their weights.

    Zero for networks that differ in the order of their neurons, whatever the depth; smooth where
    it is, but for ``kind="tree"``. Weights from one hidden layer to the next are compared by their
    quantiles at each neuron (:func:`gmn.transport.weight_clouds`), which does not tie them to their
    partners: add a loss on functions, or train the decoder so that it keeps an order. Where encoder
    and decoder are both equivariant, plain squared errors are right, and cheaper.

    Args:
        kind: ``"sliced"`` (SW_2²), ``"assignment"`` (exact, for layers of equal width) or
            ``"tree"`` (Db-TSW, not squared).
        lines: directions of slices; trees have four each.
        generator: draws new lines at every call, on the CPU; None for the same lines always.
    """

    def __init__(
        self,
        kind: Literal["sliced", "assignment", "tree"] = "sliced",
        lines: int = 100,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if kind not in ("sliced", "assignment", "tree"):
            raise ValueError(f"no loss is called {kind!r}; there are sliced, assignment and tree")
        require_whole("lines", lines, 1)
        self.kind, self.lines, self.generator = kind, lines, generator

    def forward(self, networks: ParameterGraph, wanted: ParameterGraph) -> Tensor:
        """The loss, a mean over B pairs.

        Args:
            networks: B networks; gradients flow into them.
            wanted: B networks that they should be.

        Raises:
            ValueError: if their layers cannot be compared.
        """
        for name, graph in (("networks", networks), ("wanted", wanted)):
            require_graph(name, graph)
            if not len(graph):
                raise ArgumentError(f"{name} holds no networks; give at least one")
        clouds, target = (weight_clouds(graph, gauged=False) for graph in (networks, wanted))
        generator = self.generator or torch.Generator().manual_seed(0)
        parts = [
            powers(clouds[name], cloud, self.kind, self.lines, generator).mean()
            for name, cloud in target.items()
        ]
        return torch.stack(parts).mean()
