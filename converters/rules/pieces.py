"""Operations that join values along a dimension, or cut them."""

from __future__ import annotations

from typing import Any

from torch.fx import Node

from ..axes import Atom, Axis, Sum, cut, fix, fixed, size_of, terms, unify
from ..tracing import Rule, Tracing, Value, arguments, count_terms, place_of, shape_of, stacked
from ..units import ONE, Monomial, Unit
from ..unstack import unstack
from .linear import moved, taken
from .pointwise import same_unit


def _cat_axes(trace: Tracing, node: Node) -> Value:
    call = arguments(node)
    values = [trace.axes(operand) for operand in call["tensors"]]
    dim = call["dim"] % len(values[0])
    result = list(values[0])
    for value in values[1:]:
        for place, axis in enumerate(value):
            if place != dim:
                unify(result[place], axis, place_of(node))
    result[dim] = (Sum(tuple(value[dim] for value in values)),)
    return result


def _cat_units(trace: Tracing, node: Node) -> Unit:
    call = arguments(node)
    dim, parts = call["dim"], tuple[Monomial, ...]()
    for operand in call["tensors"]:
        unit, count = trace.unit(operand), count_terms([trace.axes(operand)[dim]])
        if len(unit.parts) not in (1, count):
            unit = trace.balance.merge(unit)
        parts += unit.parts * (count // len(unit.parts))
    return Unit(parts)


def _stack_axes(trace: Tracing, node: Node) -> Value:
    call = arguments(node)
    values = [trace.axes(operand) for operand in call["tensors"]]
    for value in values[1:]:
        for first, other in zip(values[0], value, strict=True):
            unify(first, other, place_of(node))
    result = list(values[0])
    result.insert(call["dim"] % (len(result) + 1), fixed(len(values), "stacked values"))
    return result


def _stack_units(trace: Tracing, node: Node) -> Unit:
    first, *others = (trace.unit(operand) for operand in arguments(node)["tensors"])
    for other in others:
        trace.balance.equal(first, other)
    return first


def _cut_axes(trace: Tracing, node: Node) -> list[Value]:
    """Split, chunk and their kin: parts of known sizes along one dimension."""
    axes, dim = trace.axes(node.args[0]), arguments(node).get("dim", 0)
    dim %= len(axes)
    sizes = [int(part.shape[dim]) for part in node.meta["val"]]
    parts = _parts(axes[dim], sizes, place_of(node))
    return [[*axes[:dim], part, *axes[dim + 1 :]] for part in parts]


def _parts(axis: Axis, sizes: list[int], reason: str) -> list[Axis]:
    found = cut(axis, sizes, reason) if len(sizes) > 1 else [axis]
    return found if found is not None else [fixed(size, reason) for size in sizes]


def cut_evenly(axis: Axis, count: int, reason: str) -> list[Axis]:
    """Consecutive parts of equal size."""
    return _parts(axis, [size_of(axis) // count] * count, reason)


def _unbind_axes(trace: Tracing, node: Node) -> list[Value]:
    axes, dim = trace.axes(node.args[0]), arguments(node)["dim"]
    dim %= len(axes)
    return unstack(axes, dim, "unbinding tells positions apart")


def _select_axes(trace: Tracing, node: Node) -> Value:
    axes, call = trace.axes(node.args[0]), arguments(node)
    return unstack(axes, call["dim"] % len(axes), "selecting tells positions apart")[call["index"]]


def _slice_axes(trace: Tracing, node: Node) -> Value:
    call = arguments(node)
    axes, dim = list(trace.axes(node.args[0])), call["dim"]
    dim %= len(axes)
    before, after = size_of(axes[dim]), shape_of(node)[dim]
    start = _start(call, before)
    if after == before:
        return axes
    if not after:
        axes[dim] = fixed(0, "an empty slice")
        return axes
    if call["step"] != 1:
        fix(axes[dim], "slicing with a step tells positions apart")
        axes[dim] = fixed(after, "slicing with a step")
        return axes
    sizes = [start, after, before - start - after]
    wanted = [size for size in sizes if size]
    parts = _parts(axes[dim], wanted, place_of(node))
    axes[dim] = parts[1 if start else 0]
    return axes


def _unbind_units(trace: Tracing, node: Node) -> Unit:
    unit, count = trace.unit(node.args[0]), len(node.meta["val"])
    return unit if len(unit.parts) == count else trace.balance.merge(unit)


def _select_units(trace: Tracing, node: Node) -> Unit:
    axes, call = trace.axes(node.args[0]), arguments(node)
    unit = trace.unit(node.args[0])
    if len(unit.parts) == size_of(axes[call["dim"]]) == stacked(axes):
        return Unit((unit.parts[call["index"]],))
    return _beside(trace, node, unit)


def _beside(trace: Tracing, node: Node, unit: Unit) -> Unit:
    """A concatenation keeps a part per term if something else is taken apart."""
    axes, dim = trace.axes(node.args[0]), arguments(node)["dim"]
    whole = len(terms(axes[dim])) == 1 and count_terms(trace.values[node]) == len(unit.parts)
    return unit if whole else trace.balance.merge(unit)


def _slice_units(trace: Tracing, node: Node) -> Unit:
    """A slice of a concatenation has the units of the terms that it covers."""
    unit, call = trace.unit(node.args[0]), arguments(node)
    before = trace.axes(node.args[0])[call["dim"]]
    sizes = [size_of(term) for term in terms(before)]
    starts = [sum(sizes[:number]) for number in range(len(sizes) + 1)]
    start = _start(call, size_of(before))
    end = start + shape_of(node)[call["dim"]]
    if start == end:
        return ONE
    if len(unit.parts) == len(sizes) and call["step"] == 1 and {start, end} <= {*starts}:
        return Unit(unit.parts[starts.index(start) : starts.index(end)])
    return _beside(trace, node, unit)


def _start(call: dict[str, Any], size: int) -> int:
    start = call["start"] or 0
    return int(min(max(start + (size if start < 0 else 0), 0), size))


def _expand_axes(trace: Tracing, node: Node) -> Value:
    axes, shape = trace.axes(node.args[0]), shape_of(node)
    new = len(shape) - len(axes)
    # Copies are alike, so a repeated dimension may be permuted.
    return [
        axes[place - new] if place >= new and size_of(axes[place - new]) == size else (Atom(size),)
        for place, size in enumerate(shape)
    ]


_CUT = "permutations within every part"
_OTHERS = "permutations of the other dimensions"
RULES = {
    "cat": Rule(
        _cat_axes,
        _cat_units,
        "permutations and scales of every part",
        recorded=True,
        linear=moved,
    ),
    "stack": Rule(
        _stack_axes, _stack_units, "permutations and scales that all values share", linear=moved
    ),
    **dict.fromkeys(
        ("split", "split_with_sizes", "chunk", "tensor_split"),
        Rule(_cut_axes, same_unit, _CUT, linear=moved),
    ),
    "unbind": Rule(_unbind_axes, _unbind_units, _OTHERS, linear=taken),
    "select": Rule(_select_axes, _select_units, _OTHERS, linear=taken),
    "slice": Rule(
        _slice_axes, _slice_units, "permutations within and outside the slice", linear=moved
    ),
    **dict.fromkeys(
        ("expand", "expand_as"),
        Rule(_expand_axes, same_unit, "everything; copies may be permuted", linear=moved),
    ),
}
