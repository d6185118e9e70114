"""Operations that overwrite a value, or a part of it that was cut out before.

The part shares its index sets with the whole, so what is stated about it holds for all who read
the whole afterwards.
"""

from __future__ import annotations

from torch.fx import Node

from ..axes import size_of, unify
from ..tracing import Rule, Tracing, Value, arguments, place_of
from ..units import Unit
from .pointwise import fixed_unit, same_axes, same_unit


def _copy_axes(trace: Tracing, node: Node) -> Value:
    """The part takes the entries of another value, broadcast to its shape."""
    call = arguments(node)
    part, source = trace.axes(call["self"]), trace.axes(call["src"])
    for axis, other in zip(reversed(part), reversed(source), strict=False):
        if size_of(axis) == size_of(other):
            unify(axis, other, place_of(node))
    return list(part)


def _fill_units(trace: Tracing, node: Node) -> Unit:
    """Zero has every unit, other numbers have none."""
    zero = arguments(node)["value"] == 0
    return same_unit(trace, node) if zero else fixed_unit(trace, node)


RULES = {
    "copy": Rule(_copy_axes, fixed_unit, "permutations that both values share"),
    "fill": Rule(same_axes, _fill_units, "any permutation; scales, if filled with 0"),
    "zero": Rule(same_axes, same_unit, "everything"),
}
