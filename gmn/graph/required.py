"""Refuses what is no parameter graph, or no spec, where users hand one in."""

from __future__ import annotations

from typing import Any

from gmn.foundation.arguments import require_type
from gmn.graph.parameter_graph import ParameterGraph
from gmn.spec import GraphSpec


def require_graph(name: str, graph: Any) -> None:
    """Refuses everything but graphs: state dicts, modules, zoos, lists of graphs.

    Raises:
        ArgumentError: then; the message says where graphs come from.
    """
    require_type(
        name,
        graph,
        ParameterGraph,
        "a gmn.ParameterGraph, as converters.to_graph(module, inputs), zoo.graph(indices) and "
        "ParameterGraph.from_state_dicts(spec, state_dicts) make one",
    )


def require_spec(name: str, spec: Any) -> None:
    """Refuses everything but specs: graphs, modules.

    Raises:
        ArgumentError: then; the message says where specs come from.
    """
    require_type(
        name,
        spec,
        GraphSpec,
        "a gmn.GraphSpec: that of a graph, graph.spec, or of a module, "
        "converters.trace(module, inputs)",
    )
