"""Several parameter graphs of the same networks as one input: checkpoints, gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from gmn.errors import ArgumentError
from gmn.foundation.arguments import require_several
from gmn.graph import ParameterGraph
from gmn.graph.required import require_graph


class StackedGraph(ParameterGraph):
    """Several values for every parameter: checkpoints of a training run, weights and gradients.

    Code that expects a plain graph sees the first one. Selecting networks and moving to
    another device or type keep all. Changing weights gives the first graph alone: what changes them
    says nothing of what is stacked on them, and :class:`gmn.features.Stacked` refuses the result.
    Made by :func:`stack`.

    Attributes:
        graphs: the graphs.
    """

    def __init__(self, graphs: Sequence[ParameterGraph]) -> None:
        require_several("graphs", graphs, "graphs of the same networks")
        for graph in graphs:
            require_graph("a graph", graph)
        if not graphs:
            raise ArgumentError("graphs is empty; give at least one graph")
        first = graphs[0]
        untied = [entry.name for entry in first.spec.entries if entry.tied_to is None]
        super().__init__(first.spec, {n: first.values[n] for n in untied}, first.rows)
        self.graphs = tuple(graphs)

    @classmethod
    def cat(cls, graphs: Sequence[ParameterGraph]) -> StackedGraph:
        """Joins stacks of one architecture and one height into one batch.

        Raises:
            ValueError: if there are none, their specs differ, or their heights.
        """
        stacks = [graph.graphs for graph in graphs if isinstance(graph, StackedGraph)]
        if len(stacks) < len(graphs) or len({len(parts) for parts in stacks}) != 1:
            raise ValueError("cat needs at least one stack, all of as many graphs each")
        return cls([ParameterGraph.cat(parts) for parts in zip(*stacks, strict=True)])

    def _map(
        self, function: Callable[[Tensor], Tensor], rows: Sequence[Mapping[str, Any]] | None
    ) -> StackedGraph:
        return StackedGraph([graph._map(function, rows) for graph in self.graphs])

    def __repr__(self) -> str:
        return f"StackedGraph({len(self.graphs)} × {self.graphs[0]!r})"


def stack(graphs: Sequence[ParameterGraph]) -> StackedGraph:
    """Stacks graphs of the same networks, for :class:`gmn.features.Stacked`.

    ``stack([canonical(graph), graph])`` keeps what a canonical form removes; checkpoints and
    gradients of the same weights stack alike. Permutations act on all graphs in the same way;
    scales act inversely on gradients.

    Raises:
        ValueError: if there are none, or they differ in spec, number of networks, type or device.
    """
    require_several("graphs", graphs, "graphs of the same networks")
    if isinstance(graphs, ParameterGraph):
        raise ArgumentError("graphs is one graph; give a list, such as [weights, gradients]")
    for graph in graphs:
        require_graph("a graph of the stack", graph)
    kinds = {(graph.spec, len(graph), graph.dtype, graph.device) for graph in graphs}
    if len(kinds) != 1:
        raise ValueError("stack needs graphs of one spec, all of as many networks, type and device")
    return StackedGraph(graphs)
