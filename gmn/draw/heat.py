"""Draws one edge set as a heat map: targets down and sources across."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gmn.foundation.arguments import require_whole
from gmn.graph import ParameterGraph
from gmn.graph.required import require_graph

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LONGEST, SHORTEST = 6.0, 1.2  # inches of a side
CELL = 0.25  # inches of an entry, if there is room


def matrix(graph: ParameterGraph, edge_set: str, network: int = 0) -> tuple[Tensor, int, int]:
    """The values of an edge set as a matrix: rows are targets, columns sources.

    Kernels are tiled: the last two tap dimensions lie within a cell, further ones before them in
    its height. Neurons that are both ends (biases, depthwise kernels) lie along the columns of
    biases, and along the rows of all others.

    Returns:
        The matrix, and the height and width of a kernel in it.
    """
    edges = graph.spec.edge_set(edge_set)
    block = graph.block(edges)[network]
    ports = [dim.port for dim in edges.dims]
    ends = {p: [i for i, port in enumerate(ports) if port == p] for p in set(ports)}
    both, taps = ends.get("both", []), ends.get("tap", [])
    down, across = [*both, *ends.get("target", [])], ends.get("source", [])
    if edges.diagonal and not taps:
        down, across = [], both
    *high, wide = taps if taps else [-1]
    order = [*down, *high, *across, *([wide] if taps else [])]
    height = math.prod(edges.dims[place].size for place in high)
    width = edges.dims[wide].size if taps else 1
    rows = height * math.prod(edges.dims[place].size for place in down)
    return block.permute(order).reshape(rows, -1), height, width


def heat_map(graph: ParameterGraph, edge_set: str, network: int = 0) -> Figure:
    """Draws the values of one edge set: weights, or what :mod:`gmn.explain` found of them.

    Colours run from white to red; from blue over white to red where there are negative values.
    Lines part the kernels of neurons.

    Args:
        graph: weights or attributions.
        edge_set: name of the edge set.
        network: which network of the graph.

    Raises:
        KeyError: if the spec has no such edge set.
    """
    from gmn.draw.picture import Picture

    require_graph("graph", graph)
    require_whole("network", network)
    if not -len(graph) <= network < len(graph):
        raise IndexError(f"network {network} asked for, but there are {len(graph)}")
    values, height, width = matrix(graph, edge_set, network)
    values = values.detach().to("cpu", torch.float64)
    rows, columns = values.shape
    inches = min(CELL, LONGEST / max(rows, columns))
    size = (max(SHORTEST, columns * inches) + 1.6, max(SHORTEST, rows * inches) + 1.0)
    figure = Picture(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    largest = float(values.abs().max()) or 1.0
    signed = bool((values < 0).any())
    image = axes.imshow(
        values.numpy(),
        cmap="RdBu_r" if signed else "Reds",
        vmin=-largest if signed else 0.0,
        vmax=largest,
        interpolation="nearest",
        aspect="equal" if max(rows, columns) < 12 * min(rows, columns) else "auto",
    )
    if height * width > 1:
        for row in range(height, rows, height):
            axes.axhline(row - 0.5, color="0.6", linewidth=0.5)
        for column in range(width, columns, width):
            axes.axvline(column - 0.5, color="0.6", linewidth=0.5)
    edges = graph.spec.edge_set(edge_set)
    axes.set(title=edge_set, xlabel=f"{edges.source} →", ylabel=f"→ {edges.target}")
    axes.title.set_fontsize(9)
    axes.set(xticks=[], yticks=[])
    figure.colorbar(image, ax=axes, shrink=0.8)
    return figure
