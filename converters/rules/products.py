"""Products of two activations: matrix products and attention."""

from __future__ import annotations

from collections.abc import Sequence

from torch.fx import Node

from ..axes import Atom, Axis, fix, regroup, size_of, unify
from ..tracing import Rule, Tracing, Value, arguments, atoms_of, place_of
from ..units import Unit
from .linear import Atoms, attended, contracted
from .pointwise import fixed_unit
from .weights import contraction_units, is_matrix, product_axes


def batch_axes(first: Sequence[Axis], second: Sequence[Axis], reason: str) -> Value:
    """Joins the batch dimensions of two operands, aligned from the right, as broadcasting does."""
    result: Value = []
    for place in range(max(len(first), len(second)), 0, -1):
        pair = [axes[-place] for axes in (first, second) if len(axes) >= place]
        full = [axis for axis in pair if size_of(axis) == max(map(size_of, pair))]
        for axis in full[1:]:
            unify(full[0], axis, reason)
        result.append(full[0])
    return result


def matmul_axes(trace: Tracing, node: Node) -> Value | None:
    """``A @ B``, both of at least two dimensions, or with a parameter matrix."""
    if is_matrix(trace, node.args[1]):
        return product_axes(trace, node)
    first, second = trace.axes(node.args[0]), trace.axes(node.args[1])
    if min(len(first), len(second)) < 2:
        return None
    batch = batch_axes(first[:-2], second[:-2], place_of(node))
    unify(first[-1], second[-2], place_of(node))
    trace.contract(first[-1], batch)
    return [*batch, first[-2], second[-1]]


def matmul_units(trace: Tracing, node: Node) -> Unit:
    """The units of the summed axis must cancel; the others multiply."""
    if min(len(trace.axes(operand)) for operand in node.args) < 2:
        return fixed_unit(trace, node)
    if is_matrix(trace, node.args[1]):
        return contraction_units(trace, node)
    summed = atoms_of(trace.axes(node.args[0])[-1])
    return cancel(trace, trace.unit(node.args[0]), trace.unit(node.args[1]), summed)


def cancel(trace: Tracing, first: Unit, second: Unit, summed: frozenset[Atom]) -> Unit:
    """Unit of a sum of products over an axis."""
    balance = trace.balance
    inside, outside = zip(*(balance.split(unit, summed) for unit in (first, second)), strict=True)
    balance.fix(inside[0] * inside[1])
    return balance.merge(outside[0]) * balance.merge(outside[1])


def _attention_axes(trace: Tracing, node: Node) -> Value:
    call, reason = arguments(node), place_of(node)
    query, key, value = (trace.axes(call[name]) for name in ("query", "key", "value"))
    if call.get("enable_gqa") and size_of(query[-3]) != size_of(key[-3]):
        groups = size_of(key[-3])
        heads = regroup([query[-3]], (groups, size_of(query[-3]) // groups), reason)
        unify(heads[0], key[-3], reason)
        batch = list(query[:-2])
        for first, second in zip(query[:-3], key[:-3], strict=True):
            unify(first, second, reason)
        for first, second in zip(key[:-2], value[:-2], strict=True):
            unify(first, second, reason)
    else:
        batch = batch_axes(batch_axes(query[:-2], key[:-2], reason), value[:-2], reason)
    unify(query[-1], key[-1], reason)
    unify(key[-2], value[-2], reason)
    if call["is_causal"]:
        for axis in (query[-2], key[-2]):
            fix(axis, "causal attention keeps the order of positions")
    if call["attn_mask"] is not None:
        batch_axes([*batch, query[-2], key[-2]], trace.axes(call["attn_mask"]), reason)
    trace.contract(query[-1], batch)
    trace.contract(key[-2], batch)
    return [*batch, query[-2], value[-1]]


def _attention_units(trace: Tracing, node: Node) -> Unit:
    """Queries and keys balance unit by unit; values keep theirs, but for differences in time."""
    call = arguments(node)
    query, key = trace.unit(call["query"]), trace.unit(call["key"])
    trace.balance.fix(query * key)
    if call["attn_mask"] is not None:
        trace.balance.fix(trace.unit(call["attn_mask"]))
    axes = trace.axes(call["value"])
    return trace.balance.restrict(trace.unit(call["value"]), atoms_of(*axes[:-2], axes[-1]))


def _einsum_axes(trace: Tracing, node: Node) -> Value | None:
    labels, output = _labels(node)
    if labels is None:
        return None
    found: dict[str, Axis] = {}
    for operand, letters in zip(_operands(node), labels, strict=True):
        for letter, axis in zip(letters, trace.axes(operand), strict=True):
            unify(found.setdefault(letter, axis), axis, place_of(node))
    shared = [axis for letter, axis in found.items() if all(letter in part for part in labels)]
    for letter, axis in found.items():
        if letter not in output:
            trace.contract(axis, shared)
    return [found[letter] for letter in output]


def _einsum_units(trace: Tracing, node: Node) -> Unit:
    labels, output = _labels(node)
    operands = _operands(node)
    if labels is None or len(operands) > 2:
        for operand in operands:
            trace.balance.fix(trace.unit(operand))
        return Unit()
    summed = [
        axis
        for operand, letters in zip(operands, labels, strict=True)
        for letter, axis in zip(letters, trace.axes(operand), strict=True)
        if letter not in output
    ]
    units = [trace.unit(operand) for operand in operands]
    return cancel(trace, units[0], units[1] if len(units) > 1 else Unit(), atoms_of(*summed))


def _operands(node: Node) -> list[Node]:
    return list(arguments(node)["tensors"])


def _einsum_linear(trace: Tracing, node: Node) -> Atoms:
    """One or two operands: letters that both are summed over, and those that one hands on."""
    labels, output = _labels(node)
    if labels is None or len(labels) > 2:
        return Atoms()
    passing: list[Axis] = []
    others: list[Axis] = []
    for operand, letters in zip(_operands(node), labels, strict=True):
        for letter, axis in zip(letters, trace.axes(operand), strict=True):
            summed = letter not in output
            (passing if summed == (sum(letter in p for p in labels) == 2) else others).append(axis)
    return atoms_of(*passing) - atoms_of(*others)


def _labels(node: Node) -> tuple[list[str] | None, str]:
    """Letters of every operand and of the output; None where a letter repeats or dots stand."""
    equation = str(arguments(node)["equation"]).replace(" ", "")
    left, arrow, output = equation.partition("->")
    parts = left.split(",")
    plain = arrow and "." not in equation and all(len(set(p)) == len(p) for p in parts)
    return (parts if plain else None), output


def _added_axes(trace: Tracing, node: Node) -> Value:
    """``baddbmm``: a product added to a third value."""
    added, first, second = (trace.axes(operand) for operand in node.args[:3])
    batch = batch_axes(first[:-2], second[:-2], place_of(node))
    unify(first[-1], second[-2], place_of(node))
    trace.contract(first[-1], batch)
    return batch_axes([*batch, first[-2], second[-1]], added, place_of(node))


def _added_units(trace: Tracing, node: Node) -> Unit:
    added, first, second = (trace.unit(operand) for operand in node.args[:3])
    result = cancel(trace, first, second, atoms_of(trace.axes(node.args[1])[-1]))
    trace.balance.equal(added, result)
    return result


_PRODUCT = "permutations that both operands share; scales that cancel in the sum"
RULES = {
    **dict.fromkeys(
        ("matmul", "bmm", "mm"), Rule(matmul_axes, matmul_units, _PRODUCT, linear=contracted)
    ),
    "baddbmm": Rule(_added_axes, _added_units, _PRODUCT),
    "einsum": Rule(
        _einsum_axes,
        _einsum_units,
        f"{_PRODUCT} (no repeated letters)",
        linear=_einsum_linear,
    ),
    "scaled_dot_product_attention": Rule(
        _attention_axes,
        _attention_units,
        "heads; units within a head, queries with keys; a scale per unit of queries over keys, "
        "any of values; any change of basis within a head",
        recorded=True,
        linear=attended,
    ),
}
