"""Runs a metanetwork on networks of several architectures, with one pass per architecture."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from gmn.foundation.arguments import require_callable, require_several
from gmn.graph import ParameterGraph
from gmn.graph.required import require_graph
from gmn.spec import GraphSpec


def read_all(net: Callable[[ParameterGraph], Tensor], graphs: Sequence[ParameterGraph]) -> Tensor:
    """Runs a net once on all networks of each architecture.

    Args:
        net: maps a graph of B networks to a tensor (B, ...), the same trailing shape for all.
        graphs: networks of any architectures, in any order, on one device.

    Returns:
        The answers of all networks, graph by graph: shape (sum of batches, ...).

    Raises:
        ValueError: if there are no graphs.
    """
    require_callable("net", net, "a metanetwork")
    require_several("graphs", graphs, "graphs")
    for graph in graphs:
        require_graph("a graph", graph)
    if not graphs:
        raise ValueError("no graphs to read")
    groups: dict[GraphSpec, list[int]] = {}
    for index, graph in enumerate(graphs):
        groups.setdefault(graph.spec, []).append(index)
    answers: list[Tensor] = [torch.empty(0)] * len(graphs)
    for indices in groups.values():
        joined = net(ParameterGraph.cat([graphs[n] for n in indices]))
        parts = joined.split([len(graphs[n]) for n in indices])
        for index, part in zip(indices, parts, strict=True):
            answers[index] = part
    return torch.cat(answers)
