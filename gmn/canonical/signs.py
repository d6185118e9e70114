"""Fixes signs: incoming weights get a positive sum, or a positive higher odd moment."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from gmn.canonical.layout import along, sum_onto
from gmn.graph import ParameterGraph
from gmn.graph.draft import Draft
from gmn.graph.required import require_graph
from gmn.spec import Gauge, GraphSpec, Scaling, ScalingTerm

Signed = Scaling | Gauge
MOMENTS = (1, 3, 5)
NEGLIGIBLE = 1e-6  # of a moment, over that of absolute values: centred blocks have sum 0


@torch.no_grad()
def with_positive_signs(graph: ParameterGraph, *, bases: bool = True) -> ParameterGraph:
    """The graph with the signs of its spec chosen.

    A sign is read off an edge set that no other open sign reaches, of which there is one unless
    signs act in a circle: the sum over the neuron's weights there becomes positive; if that is
    negligible, the sum of third or fifth powers; if that is, too, the next such edge set decides.
    A neuron that leaves no moment anywhere keeps its sign. Sums do not depend on the order of
    other neurons, so the choice follows permutations.

    Args:
        graph: the networks, in principal bases if ``bases``.
        bases: whether to choose the signs of bases' directions, too.
    """
    require_graph("graph", graph)
    draft = Draft(graph.spec, graph.values, torch.float64)
    left = _signed(graph.spec, bases)
    while left:
        chosen, anchors = _next(left, graph.spec)
        signs = _signs(anchors, draft)
        for term in chosen.terms:
            block = draft.block(term.edge_set)
            block *= along(signs, term.dims, block)
        left.remove(chosen)
    return graph.replace(draft.changed())


def _signed(spec: GraphSpec, bases: bool) -> list[Signed]:
    signs: list[Signed] = [s for s in spec.scalings if s.domain == "sign"]
    return [*signs, *spec.gauges] if bases else signs


Anchors = list[list[ScalingTerm]]  # those that trade places decide together


def _next(left: Sequence[Signed], spec: GraphSpec) -> tuple[Signed, Anchors]:
    """The next symmetry whose sign can be fixed, and the terms that fix it."""
    reached = Counter(term.edge_set for one in left for term in one.terms)
    for one in left:
        anchors = [
            terms
            for terms in _together(one, spec)
            if all(reached[term.edge_set] == 1 for term in terms)
        ]
        if anchors:
            return one, anchors
    return left[0], _together(left[0], spec)


def _together(one: Signed, spec: GraphSpec) -> Anchors:
    """The terms of a symmetry, in groups whose values exchanges of branches may bring together."""
    groups: dict[tuple[str, tuple[int, ...]], list[ScalingTerm]] = {}
    for term in one.terms:
        key = spec.places.get(term.edge_set, term.edge_set), term.dims
        groups.setdefault(key, []).append(term)
    return [*groups.values()]


def _signs(anchors: Anchors, draft: Draft) -> Tensor:
    """±1 for every neuron (B, *shape)."""
    result: Tensor | None = None
    for terms in anchors:
        units = [(_unit(draft.block(term.edge_set)), term.dims) for term in terms]
        for power in MOMENTS:
            moment = torch.stack([sum_onto(u**power, dims) for u, dims in units]).sum(0)
            size = torch.stack([sum_onto(u.abs() ** power, dims) for u, dims in units]).sum(0)
            sign = moment.sign() * (moment.abs() > NEGLIGIBLE * size)
            result = sign if result is None else torch.where(result == 0, sign, result)
    assert result is not None
    return torch.where(result == 0, torch.ones_like(result), result)


def _unit(block: Tensor) -> Tensor:
    """A block over its largest number."""
    largest = block.abs().flatten(1).amax(1).clamp(min=torch.finfo(block.dtype).tiny)
    return block / largest.view(-1, *[1] * (block.dim() - 1))
