"""Statistics of weights: how the values of each edge set are distributed."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
from torch import Tensor

from gmn.graph import ParameterGraph
from gmn.graph.required import require_graph
from gmn.graph.topology import pair_index
from gmn.spec import EdgeSet, GraphSpec

QUANTILES = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 1.0)
DISTRIBUTION = 6 + len(QUANTILES)
EDGE_STATISTICS = 4 * DISTRIBUTION
NEURON_STATISTICS = 2
LARGEST_SPECTRUM = 512  # of wider matrices singular values would take longer than all else
TINY = 1e-12


def edge_statistics(graph: ParameterGraph, edges: EdgeSet, sizes: bool = False) -> Tensor:
    """How an edge set's values are distributed, and the norms and spectrum that they make.

    Four distributions, each by :func:`distribution`: of all values; of the norms of what enters
    each target neuron; of the norms of what leaves each source neuron; and of singular values of
    the matrix from sources and taps to targets (0 where its smaller side is over 512). None depends
    on the order of neurons.

    Args:
        graph: B networks.
        edges: one of their edge sets.
        sizes: whether values count without their signs.

    Returns:
        Tensor of shape (B, EDGE_STATISTICS).

    Source: layer statistics of Unterthiner et al. (2020, arXiv 2002.11448) with norms and spectra.
    """
    require_graph("graph", graph)
    matrices = _matrices(_readable(graph.block(edges), sizes), edges)
    batch, _, targets, sources, taps = matrices.shape
    flat = matrices.flatten(3)
    spectrum = flat.new_zeros(batch, 1)
    if min(targets, sources * taps) <= LARGEST_SPECTRUM:
        spectrum = torch.linalg.svdvals(flat)
    parts = (
        matrices,
        torch.linalg.vector_norm(flat, dim=3),
        torch.linalg.vector_norm(matrices, dim=(2, 4)),
        spectrum,
    )
    return torch.cat([distribution(part.flatten(1)) for part in parts], dim=1)


def neuron_statistics(
    graph: ParameterGraph, edges: EdgeSet, sizes: bool = False
) -> tuple[Tensor, Tensor]:
    """What an edge set takes from each source neuron, and what it gives to each target neuron.

    Two numbers for a neuron: the logarithm of the norm of its values, and their sum over it.

    Args:
        graph: B networks.
        edges: one of their edge sets.
        sizes: whether values count without their signs.

    Returns:
        Tensors of shape (B, neurons, NEURON_STATISTICS) for the sources and for the targets.
    """
    require_graph("graph", graph)
    values = _readable(graph.pairs(edges), sizes)
    parts = torch.stack([values.square().sum(dim=2), values.sum(dim=2)], dim=2)
    ends = []
    index = _ends(graph.spec, edges).to(parts.device)
    for nodes, numbers in zip((edges.source, edges.target), index, strict=True):
        neurons = graph.spec.node_set(nodes).size
        squares, sums = (
            parts.new_zeros(len(parts), neurons, 2).index_add(1, numbers, parts).unbind(2)
        )
        norms = (squares + TINY).sqrt()
        ends.append(torch.stack([norms.log(), sums / norms], dim=2))
    return ends[0], ends[1]


def distribution(values: Tensor) -> Tensor:
    """Moments and quantiles of every row.

    Args:
        values: shape (B, n).

    Returns:
        Tensor of shape (B, DISTRIBUTION): mean, deviation and its logarithm, mean size, skewness,
        kurtosis, and the quantiles at ``QUANTILES``.
    """
    mean = values.mean(dim=1, keepdim=True)
    deviation = (values - mean).square().mean(dim=1, keepdim=True).clamp(min=TINY**2).sqrt()
    unit = (values - mean) / deviation
    moments = [unit.pow(power).mean(dim=1, keepdim=True) for power in (3, 4)]
    size = values.abs().mean(dim=1, keepdim=True)
    ordered = quantiles(values, QUANTILES)
    return torch.cat([mean, deviation, deviation.log(), size, *moments, ordered], dim=1)


def quantiles(values: Tensor, levels: Sequence[float]) -> Tensor:
    """Quantiles of every row (B, n): shape (B, levels); torch.quantile refuses long rows."""
    ordered, last = values.sort(dim=1).values, values.shape[1] - 1
    positions = torch.tensor(levels, dtype=torch.float64, device=values.device) * last
    below = positions.floor().long()
    above = (below + 1).clamp(max=last)
    weight = (positions - below).to(values)
    return torch.lerp(ordered[:, below], ordered[:, above], weight)


@lru_cache(maxsize=1024)
def _ends(spec: GraphSpec, edges: EdgeSet) -> Tensor:
    """:func:`gmn.graph.topology.pair_index`, kept: every step of a training asks for it."""
    return pair_index(spec, edges)


def _matrices(block: Tensor, edges: EdgeSet) -> Tensor:
    """An edge set as matrices, one for each index that both its ends share.

    Returns:
        Tensor of shape (B, shared, targets, sources, taps).
    """
    ports = [dim.port for dim in edges.dims]
    order = [
        [place for place, found in enumerate(ports) if found == port]
        for port in ("both", "target", "source", "tap")
    ]
    sizes = [[edges.shape[place] for place in places] for places in order]
    dims = [0, *(1 + place for places in order for place in places)]
    shape = [torch.Size(size).numel() for size in sizes]
    return block.permute(dims).reshape(len(block), *shape)


def _readable(values: Tensor, sizes: bool) -> Tensor:
    """Values in single precision where theirs is less: spectra and quantiles do not know it."""
    if values.dtype not in (torch.float32, torch.float64):
        values = values.float()
    return values.abs() if sizes else values
