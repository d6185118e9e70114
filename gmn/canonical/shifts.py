"""What may be added: one representative for all parameters that additive symmetries relate.

What may be added to parameters without changing the function is removed: the bias of attention
keys becomes 0, the columns that write to a centred stream get mean 0, a running mean moves into
the bias before it, the phase of a sine lands within half a period around 0.
"""

from __future__ import annotations

from torch import Tensor

from gmn.canonical.draft import Draft, along
from gmn.graph import ParameterGraph
from gmn.spec import Scaling, Translation


def without_shifts(graph: ParameterGraph) -> ParameterGraph:
    """The graph with every translation and every phase of its spec taken out.

    Two graphs that differ by a translation or by half periods of sines get the same result; it
    computes the same function as the original. Values that no such symmetry moves are shared with
    it. At exactly half a period the phase may round either way.

    Source: the phase form corrects that of ScaleGMN's code; the period of ``sin(ω(Wx + b))`` in
    ``b`` is ``2π/ω``, and each half of it flips what reads the neuron.
    """
    draft = Draft(graph)
    for translation in graph.spec.translations:
        _centre(translation, draft)
    for scaling in graph.spec.scalings:
        if scaling.domain == "phase":
            _rewind(scaling, draft)
    return draft.finish()


def flips(graph: ParameterGraph) -> dict[str, Tensor]:
    """The signs with which taking out phases multiplies edge sets, by name; only those it does.

    Returns:
        Signs that broadcast to the edge set's block (B, *shape).
    """
    phases = [scaling for scaling in graph.spec.scalings if scaling.domain == "phase"]
    result: dict[str, Tensor] = {}
    draft = Draft(graph)
    for translation in graph.spec.translations if phases else ():
        _centre(translation, draft)
    for scaling in phases:
        sign = _rewind(scaling, draft)
        for term in scaling.terms:
            if term.exponent % 2:
                own = along(sign, term.dims, draft.block(term.edge_set))
                result[term.edge_set] = result.get(term.edge_set, 1) * own
    return result


def _centre(translation: Translation, draft: Draft) -> None:
    *others, last = translation.terms
    block = draft.block(last.edge_set)
    constant = [1 + place for place in range(block.dim() - 1) if place not in last.dims]
    shift = block.mean(dim=constant, keepdim=True) if constant else block.clone()
    block -= shift
    order = (0, *(1 + place for place in last.dims), *constant)
    numbers = shift.permute(order).reshape(len(block), *translation.shape) / last.factor
    for term in others:
        other = draft.block(term.edge_set)
        other -= term.factor * along(numbers, term.dims, other)


def _rewind(scaling: Scaling, draft: Draft) -> Tensor:
    bias = next(term for term in scaling.terms if term.shift)
    block = draft.block(bias.edge_set)
    steps = (block / bias.shift).round().permute(0, *(1 + d for d in bias.dims))
    block -= along(steps, bias.dims, block) * bias.shift
    sign = 1 - 2 * (steps % 2)
    for term in scaling.terms:
        if term.exponent % 2:
            reader = draft.block(term.edge_set)
            reader *= along(sign, term.dims, reader)
    return sign
