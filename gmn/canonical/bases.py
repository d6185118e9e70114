"""Rotates balanced bases to principal directions, sorted by singular value."""

from __future__ import annotations

import torch
from torch import Tensor

from gmn.canonical.layout import as_matrices, from_matrices
from gmn.graph import ParameterGraph
from gmn.graph.draft import Draft
from gmn.graph.required import require_graph
from gmn.spec import Gauge


@torch.no_grad()
def in_principal_bases(graph: ParameterGraph) -> ParameterGraph:
    """The graph with every basis turned to the principal directions of what it carries.

    Directions come in falling order, up to their signs, which :func:`with_positive_signs` chooses.
    After :func:`balanced` this is the balanced singular value decomposition of heads:
    ``Q = √S Uᵀ``, ``K = √S Vᵀ`` for ``QᵀK = U S Vᵀ``. Unique where the singular values differ.
    """
    require_graph("graph", graph)
    draft = Draft(graph.spec, graph.values, torch.float64)
    turns = {gauge.name: _principal(gauge, draft) for gauge in graph.spec.gauges}
    for gauge in graph.spec.gauges:
        for term in gauge.terms:
            block = draft.block(term.edge_set)
            turned = turns[gauge.name] @ as_matrices(block, term.dims)
            block.copy_(from_matrices(turned, term.dims, block))
    return graph.replace(draft.changed())


def _principal(gauge: Gauge, draft: Draft) -> Tensor:
    """Rotations (B, *shape, n). Rotations, signs and permutations elsewhere do not change them."""
    carried: Tensor | float = 0.0
    for term in gauge.terms:
        if gauge.group == "orthogonal" or term.exponent > 0:
            matrices = as_matrices(draft.block(term.edge_set), term.dims)
            carried = carried + matrices @ matrices.mT
    assert isinstance(carried, Tensor)
    _, directions = torch.linalg.eigh(carried)
    return directions.flip(-1).mT
