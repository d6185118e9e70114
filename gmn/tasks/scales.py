"""Standardises weights by their spread over a population, so that all entries count alike."""

from __future__ import annotations

from collections.abc import Mapping

from gmn.graph import ParameterGraph
from gmn.graph.values import as_real


def spreads(graph: ParameterGraph) -> dict[str, float]:
    """By entry, the standard deviation of its weights over all networks; 1 if they are constant."""
    learnable = [entry.name for entry in graph.spec.entries if entry.learnable]
    floating = {name: as_real(graph.values[name]).float() for name in learnable}
    return {n: float(v.std(correction=0)) or 1.0 for n, v in floating.items()}


def scaled(graph: ParameterGraph, units: Mapping[str, float]) -> ParameterGraph:
    """The networks with the weights of each entry divided by its unit; differentiable.

    What they compute is another function: this is for comparing weights.

    Args:
        graph: B networks.
        units: by entry, such as :func:`spreads` gives them; 1 if absent.
    """
    given = {name: unit for name, unit in units.items() if unit != 1}
    return graph.replace({name: graph.values[name] / unit for name, unit in given.items()})
