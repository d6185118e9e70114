"""Canonical forms: one representative for all parameters that additive symmetries relate.

What may be added to parameters without changing the function is removed: the bias of attention
keys becomes 0, the columns that write to a centred stream get mean 0, a running mean moves into
the bias before it, the phase of a sine lands within half a period around 0.
"""

from __future__ import annotations

from torch import Tensor

from gmn.graph import ParameterGraph
from gmn.spec import GraphSpec, Scaling, Translation
from gmn.topology import view_block


def without_shifts(graph: ParameterGraph) -> ParameterGraph:
    """The graph with every translation and every phase of its spec taken out.

    Two graphs that differ by a translation or by half periods of sines get the same result; it
    computes the same function as the original. Values that no such symmetry moves are shared with
    it. At exactly half a period the phase may round either way.

    Source: the phase form corrects that of ScaleGMN's code; the period of ``sin(ω(Wx + b))`` in
    ``b`` is ``2π/ω``, and each half of it flips what reads the neuron.
    """
    values = dict(graph.values)
    fresh: set[str] = set()
    for translation in graph.spec.translations:
        _centre(graph.spec, translation, values, fresh)
    for scaling in graph.spec.scalings:
        if scaling.domain == "phase":
            _rewind(graph.spec, scaling, values, fresh)
    return graph.replace({name: values[name] for name in fresh})


def _writable(spec: GraphSpec, name: str, values: dict[str, Tensor], fresh: set[str]) -> Tensor:
    """A block as a view of a copy that may be changed."""
    edges = spec.edge_set(name)
    if edges.parameter not in fresh:
        values[edges.parameter] = values[edges.parameter].clone().contiguous()
        fresh.add(edges.parameter)
    return view_block(values[edges.parameter], edges)


def _centre(
    spec: GraphSpec, translation: Translation, values: dict[str, Tensor], fresh: set[str]
) -> None:
    *others, last = translation.terms
    block = _writable(spec, last.edge_set, values, fresh)
    constant = [1 + place for place in range(block.dim() - 1) if place not in last.dims]
    shift = block.mean(dim=constant, keepdim=True) if constant else block.clone()
    block -= shift
    order = (0, *(1 + place for place in last.dims), *constant)
    numbers = shift.permute(order).reshape(len(block), *translation.shape) / last.factor
    for term in others:
        other = _writable(spec, term.edge_set, values, fresh)
        other -= term.factor * _along(numbers, term.dims, other)


def _rewind(spec: GraphSpec, scaling: Scaling, values: dict[str, Tensor], fresh: set[str]) -> None:
    bias = next(term for term in scaling.terms if term.shift)
    block = _writable(spec, bias.edge_set, values, fresh)
    steps = (block / bias.shift).round().permute(0, *(1 + d for d in bias.dims))
    block -= _along(steps, bias.dims, block) * bias.shift
    sign = 1 - 2 * (steps % 2)
    for term in scaling.terms:
        if term.exponent % 2:
            reader = _writable(spec, term.edge_set, values, fresh)
            reader *= _along(sign, term.dims, reader)


def _along(numbers: Tensor, dims: tuple[int, ...], block: Tensor) -> Tensor:
    """Numbers (B, *sizes of dims) in the block's dimensions, of size 1 along the others."""
    order = sorted(range(len(dims)), key=dims.__getitem__)
    shape = [n if place in dims else 1 for place, n in enumerate(block.shape[1:])]
    return numbers.permute(0, *(1 + place for place in order)).reshape(len(block), *shape)
