"""Operations that values come from: constants, look-ups, and masks that choose between values."""

from __future__ import annotations

from torch.fx import Node

from ..axes import Atom, fix, fixed, unify
from ..tracing import Rule, Tracing, Value, arguments, place_of, shape_of
from ..units import Unit
from .linear import mapped, moved
from .pieces import cut_evenly
from .pointwise import broadcast_axes, fixed_unit, no_unit, positive_unit


def _uniform_axes(trace: Tracing, node: Node) -> Value:
    return [(Atom(size),) for size in shape_of(node)]


def _counted_axes(trace: Tracing, node: Node) -> Value:
    return [fixed(size, "counting tells positions apart") for size in shape_of(node)]


def _grid_axes(trace: Tracing, node: Node) -> list[Value]:
    """``meshgrid``: every result ranges over all operands, and varies along its own."""
    call = arguments(node)
    axes = [axis for operand in call["tensors"] for axis in trace.axes(operand)]
    if call.get("indexing") == "xy":
        axes[:2] = reversed(axes[:2])
    return [axes for _ in call["tensors"]]


def _embedding_axes(trace: Tracing, node: Node) -> Value:
    call = arguments(node)
    table = trace.axes(call["weight"])
    fix(table[0], "rows belong to tokens")
    trace.use(call["weight"], node, "weight", ("source", "target"))
    return [*trace.axes(call["indices"]), table[1]]


def _embedding_units(trace: Tracing, node: Node) -> Unit:
    call = arguments(node)
    use = trace.find_use(node, call["weight"])
    if use is None:
        return fixed_unit(trace, node)
    trace.balance.fix(trace.end_scale(use, "source"))
    return trace.end_scale(use, "target")


def _masked_units(trace: Tracing, node: Node) -> Unit:
    value = arguments(node)["value"]
    if value == 0:
        return trace.unit(node.args[0])
    return positive_unit(trace, node) if value == float("-inf") else fixed_unit(trace, node)


def _where_units(trace: Tracing, node: Node) -> Unit:
    call = arguments(node)
    trace.balance.equal(trace.unit(call["self"]), trace.unit(call["other"]))
    return trace.unit(call["self"])


def _prelu_axes(trace: Tracing, node: Node) -> Value:
    features, slopes = trace.axes(node.args[0]), trace.axes(node.args[1])
    if shape_of(node.args[1]) != (1,):  # type: ignore[arg-type]
        unify(features[1], slopes[0], place_of(node))
    trace.use(node.args[1], node, "slope", ("both",))
    return list(features)


def _prelu_units(trace: Tracing, node: Node) -> Unit:
    value = trace.unit(node.args[0])
    trace.balance.fix_sign(value)
    trace.balance.fix(trace.unit(node.args[1]))
    return value


def _glu_axes(trace: Tracing, node: Node) -> Value:
    axes, dim = list(trace.axes(node.args[0])), arguments(node)["dim"]
    half, gate = cut_evenly(axes[dim], 2, place_of(node))
    unify(half, gate, place_of(node))
    axes[dim] = half
    return axes


def _glu_units(trace: Tracing, node: Node) -> Unit:
    """``a σ(b)``: the first half keeps its unit, the second has none."""
    unit = trace.unit(node.args[0])
    if len(unit.parts) != 2:
        return fixed_unit(trace, node)
    trace.balance.fix(Unit(unit.parts[1:]))
    return Unit(unit.parts[:1])


_POINTWISE = "permutations that all operands share"
RULES = {
    **dict.fromkeys(
        (
            "zeros",
            "ones",
            "full",
            "zeros_like",
            "ones_like",
            "full_like",
            "new_zeros",
            "new_ones",
            "new_full",
            "empty",
            "scalar_tensor",
        ),
        Rule(_uniform_axes, no_unit, "everything", linear=moved),
    ),
    **dict.fromkeys(("arange", "linspace"), Rule(_counted_axes, no_unit, "nothing")),
    "meshgrid": Rule(_grid_axes, fixed_unit, "any permutation"),
    "embedding": Rule(
        _embedding_axes,
        _embedding_units,
        "permutations and scales of the embedding's dimensions",
        linear=mapped,
    ),
    "masked_fill": Rule(broadcast_axes, _masked_units, f"{_POINTWISE}; scales, if filled with 0"),
    "where": Rule(broadcast_axes, _where_units, f"{_POINTWISE}; scales they share"),
    "prelu": Rule(_prelu_axes, _prelu_units, "permutations of channels; positive scales"),
    "glu": Rule(_glu_axes, _glu_units, "permutations of both halves; scales of the first"),
    **dict.fromkeys(
        (
            "eq",
            "ne",
            "lt",
            "le",
            "gt",
            "ge",
            "logical_and",
            "logical_or",
            "logical_not",
            "bitwise_and",
            "bitwise_or",
            "bitwise_not",
            "__and__",
            "__or__",
            "__xor__",
            "maximum",
            "minimum",
        ),
        Rule(broadcast_axes, fixed_unit, _POINTWISE, recorded=True),
    ),
}
