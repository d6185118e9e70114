"""Rules of operations that join values along a dimension, or cut them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from torch.fx import Node

from ..inference.actions import NOTHING, Action, Actions, Field, merge_origins
from ..inference.axes import Atom, Axis, Sum, atoms, cut, fix, fixed, size_of, terms, unify
from ..inference.cells import Cell
from ..inference.equations import System, add
from ..inference.primitives import by_choices, choices, linear_moved, matched, renumbered, transfer
from ..inference.tracing import Rule, Tracing, Value, arguments, path_of, shape_of
from ..inference.unstack import unstack
from .pointwise import is_zero, moved

MOST = 16  # parts of a dimension that slices make

# --- joining ------------------------------------------------------------------------------------


def _cat_axes(trace: Tracing, node: Node) -> Value:
    values = [trace.axes(operand) for operand in _joined(node)]
    dim = arguments(node).get("dim", 0) % len(values[0])
    result = list(values[0])
    for value in values[1:]:
        for d, axis in enumerate(value):
            if d != dim:
                unify(result[d], axis, path_of(node))
    result[dim] = (Sum(tuple(value[dim] for value in values)),)
    return result


def _joined(node: Node) -> list[Node]:
    """The operands, without those that hold nothing."""
    tensors = list(arguments(node)["tensors"])
    full = [t for t in tensors if shape_of(t) != (0,)]
    return full or tensors


def _cat(actions: Actions, node: Node) -> Action:
    """Every part keeps its own scales and shifts."""
    linear_moved(actions, node)
    rank = len(actions.axes(node))
    dim = arguments(node).get("dim", 0) % rank
    parts, start = [], 0
    for operand in _joined(node):
        axes = actions.axes(operand)
        count = len(choices(actions, axes, dim))
        single = count == 1
        pairs = matched(
            actions, axes, actions.axes(node), range(rank), dim,
            lambda n, s=start, one=single: s if one else s + n,
        )  # fmt: skip
        parts.append(transfer(actions, actions.of(operand), pairs, range(rank)))
        start += count
    return _together(parts)


def _together(parts: Sequence[Action]) -> Action:
    """One action from the actions of disjoint parts."""
    return Action(
        {key: terms for part in parts for key, terms in part.magnitude.items()},
        {key: terms for part in parts for key, terms in part.sign.items()},
        {key: terms for part in parts for key, terms in part.shift.items()},
        {key: origins for part in parts for key, origins in part.origins.items()},
    )


def _stack_axes(trace: Tracing, node: Node) -> Value:
    call = arguments(node)
    values = [trace.axes(operand) for operand in call["tensors"]]
    for value in values[1:]:
        for first, other in zip(values[0], value, strict=True):
            unify(first, other, path_of(node))
    result = list(values[0])
    result.insert(call["dim"] % (len(result) + 1), fixed(len(values), "stacked values"))
    return result


def _stack(actions: Actions, node: Node) -> Action:
    """Values side by side: what all of them share passes."""
    linear_moved(actions, node)
    call, result = arguments(node), actions.axes(node)
    dim = call["dim"] % len(result)
    dims = [d if d < dim else d + 1 for d in range(len(result) - 1)]
    common: Action | None = None
    for operand in call["tensors"]:
        axes = actions.axes(operand)
        old, new = actions.cells(axes), actions.cells(result)
        if len(old) != len(new):
            actions.pin_all(node)
            return NOTHING
        each = transfer(actions, actions.of(operand), list(zip(old, new, strict=True)), dims)
        common = each if common is None else alike(actions, common, each)
    return common or NOTHING


def alike(actions: Actions, one: Action, other: Action) -> Action:
    """Demands that two values of one form transform alike, part by part."""

    def same(system: System, first: Field, second: Field) -> Field:
        for key in {*first, *second}:
            if difference := add(first.get(key, {}), second.get(key, {}), -1):
                system.require(difference)
        return first

    return Action(
        same(actions.magnitudes, one.magnitude, other.magnitude),
        same(actions.signs, one.sign, other.sign),
        same(actions.shifts, one.shift, other.shift),
        merge_origins(one.origins, other.origins),
    )


# --- cutting ------------------------------------------------------------------------------------


def _cut_axes(trace: Tracing, node: Node) -> list[Value]:
    """Split, chunk and their kin: parts of known sizes along one dimension."""
    axes, dim = trace.axes(node.args[0]), arguments(node).get("dim", 0)
    dim %= len(axes)
    sizes = [int(part.shape[dim]) for part in node.meta["val"]]
    parts = _parts(axes[dim], sizes, path_of(node))
    return [[*axes[:dim], part, *axes[dim + 1 :]] for part in parts]


def _parts(axis: Axis, sizes: list[int], reason: str) -> list[Axis]:
    if len(sizes) > 1 and _is_dealt_out(axis):
        fix(axis, f"{reason}: of inputs of other sizes, it cuts elsewhere")
        return [fixed(size, reason) for size in sizes]
    if _are_too_many(axis, sizes):
        fix(axis, f"{reason}: into more than {MOST} parts")
        return [fixed(size, reason) for size in sizes]
    pieces = cut(axis, sizes, reason) if len(sizes) > 1 else [axis]
    return pieces if pieces is not None else [fixed(size, reason) for size in sizes]


def _are_too_many(axis: Axis, sizes: list[int]) -> bool:
    """Whether there would be more parts than are kept apart, as cost grows with their pairs."""
    ends = set(itertools.accumulate(size_of(term) for term in terms(axis)))
    new = set(itertools.accumulate(sizes)) - ends
    return bool(new) and len(ends | new) > MOST


def _is_dealt_out(axis: Axis) -> bool:
    """Whether the dimension merges an input's indices with others, as after flatten."""
    factors = [factor for factor in axis if factor.size > 1]
    return len(factors) > 1 and any("input" in atom.roles for atom in atoms(axis))


def cut_evenly(axis: Axis, count: int, reason: str) -> list[Axis]:
    """Consecutive parts of equal size."""
    return _parts(axis, [size_of(axis) // count] * count, reason)


def _cut(actions: Actions, node: Node) -> list[Action]:
    linear_moved(actions, node)
    dim = arguments(node).get("dim", 0) % len(actions.axes(node.args[0]))
    results, start = [], 0
    for axes in actions.trace.values[node]:
        size = size_of(axes[dim])
        results.append(piece(actions, node.args[0], axes, dim, start, size))
        start += size
    return results


def piece(
    actions: Actions, operand: object, after: Value, dim: int, start: int, size: int
) -> Action:
    """Consecutive indices of one dimension: the terms that they cover keep their actions.

    Where they begin or end within a term, what varies along the dimension may not move.
    """
    before = actions.axes(operand)
    spans = choices(actions, before, dim)
    covered = [
        n for n, (at, length) in enumerate(spans) if at < start + size and start < at + length
    ]
    if not covered:
        return NOTHING
    whole = spans[covered[0]][0] == start and sum(spans[covered[-1]]) == start + size
    rank = len(before)
    if whole and len(choices(actions, after, dim)) == len(covered):
        first = covered[0]
        pairs = matched(
            actions, before, after, range(rank), dim,
            lambda n: n - first if n in covered else None,
        )  # fmt: skip
        return transfer(actions, actions.of(operand), pairs, range(rank))
    dims: list[int | None] = [None if d == dim else d for d in range(rank)]
    by_rest = _rest(actions, after, dim)
    pairs = []
    for cell in actions.cells(before):
        chosen = dict(cell.key)
        if chosen.pop(dim, covered[0]) in covered:
            pairs += [(cell, new) for new in by_rest.get(tuple(sorted(chosen.items())), [])]
    return transfer(actions, actions.of(operand), pairs, dims)


def _rest(actions: Actions, axes: Value, dim: int) -> dict[Any, list[Cell]]:
    """Parts by what they choose along other dimensions."""
    groups: dict[Any, list[Cell]] = {}
    for cell in actions.cells(axes):
        groups.setdefault(tuple(pair for pair in cell.key if pair[0] != dim), []).append(cell)
    return groups


def _unbind_axes(trace: Tracing, node: Node) -> list[Value]:
    axes, dim = trace.axes(node.args[0]), arguments(node)["dim"]
    dim %= len(axes)
    return unstack(axes, dim, "unbinding tells positions apart")


def _unbind(actions: Actions, node: Node) -> list[Action]:
    linear_moved(actions, node)
    dim = arguments(node)["dim"] % len(actions.axes(node.args[0]))
    values = actions.trace.values[node]
    return [taken(actions, node.args[0], axes, dim, n) for n, axes in enumerate(values)]


def _select_axes(trace: Tracing, node: Node) -> Value:
    axes, call = trace.axes(node.args[0]), arguments(node)
    return unstack(axes, call["dim"] % len(axes), "selecting tells positions apart")[call["index"]]


def _select(actions: Actions, node: Node) -> Action:
    linear_moved(actions, node)
    call, axes = arguments(node), actions.axes(node.args[0])
    dim = call["dim"] % len(axes)
    index = call["index"] % size_of(axes[dim])
    return taken(actions, node.args[0], actions.axes(node), dim, index)


def taken(actions: Actions, operand: object, after: Value, dim: int, index: int) -> Action:
    """One index of a dimension: the part it lies in; what varies along the dimension is gone."""
    before = actions.axes(operand)
    spans = choices(actions, before, dim)
    choice = next(n for n, (at, length) in enumerate(spans) if at <= index < at + length)
    rank = len(before)
    dims: list[int | None] = [p if p < dim else None if p == dim else p - 1 for p in range(rank)]
    having = by_choices(actions.cells(after))
    pairs = []
    for cell in actions.cells(before):
        if dict(cell.key).get(dim, 0) == choice:
            key = renumbered(cell, dims, dim, None)
            pairs += [(cell, new) for new in having(key)]
    return transfer(actions, actions.of(operand), pairs, dims, removed=[dim])


def _slice_axes(trace: Tracing, node: Node) -> Value:
    call = arguments(node)
    axes, dim = list(trace.axes(node.args[0])), call["dim"]
    dim %= len(axes)
    before, after = size_of(axes[dim]), shape_of(node)[dim]
    start = start_of(call, before)
    if after == before:
        return axes
    if not after:
        axes[dim] = fixed(0, "an empty slice")
        return axes
    if call.get("step", 1) != 1:
        fix(axes[dim], "slicing with a step tells positions apart")
        axes[dim] = fixed(after, "slicing with a step")
        return axes
    axes[dim] = _middle(axes[dim], start, after, path_of(node))
    return axes


def _middle(axis: Axis, start: int, size: int, reason: str) -> Axis:
    sizes = [start, size, size_of(axis) - start - size]
    parts = _parts(axis, [each for each in sizes if each], reason)
    return parts[1 if start else 0]


def _slice(actions: Actions, node: Node) -> Action:
    linear_moved(actions, node)
    call, before = arguments(node), actions.axes(node.args[0])
    dim = call["dim"] % len(before)
    start, size = start_of(call, size_of(before[dim])), size_of(actions.axes(node)[dim])
    if call.get("step", 1) != 1:
        size = (size - 1) * call["step"] + 1 if size else 0
    return piece(actions, node.args[0], actions.axes(node), dim, start, size)


def start_of(call: Mapping[str, Any], size: int) -> int:
    """Where a slice starts, negative numbers counted from the end."""
    start = call["start"] or 0
    return int(min(max(start + (size if start < 0 else 0), 0), size))


def _expand_axes(trace: Tracing, node: Node) -> Value:
    axes, shape = trace.axes(node.args[0]), shape_of(node)
    new = len(shape) - len(axes)
    # Copies are alike, so a repeated dimension may be permuted.
    return [
        axes[dim - new] if dim >= new and size_of(axes[dim - new]) == size else (Atom(size),)
        for dim, size in enumerate(shape)
    ]


def _expanded(actions: Actions, node: Node) -> Action:
    """Copies side by side; of a second operand, only the shape is taken."""
    actions.only_shape(*(o for o in node.all_input_nodes if o is not node.args[0]))
    return moved(actions, node)


# --- writing into parts -------------------------------------------------------------------------


def _put_axes(trace: Tracing, node: Node) -> Value:
    """``slice_scatter``: a slice of the first operand is replaced by the second."""
    call = arguments(node)
    axes, source = list(trace.axes(node.args[0])), trace.axes(node.args[1])
    dim = call["dim"] % len(axes)
    size, start = size_of(source[dim]), start_of(call, size_of(axes[dim]))
    for d, axis in enumerate(axes):
        if d != dim and size_of(axis) == size_of(source[d]):
            unify(axis, source[d], path_of(node))
    if call.get("step", 1) != 1:
        for axis in (axes[dim], source[dim]):
            fix(axis, "writing with a step tells positions apart")
    elif size == size_of(axes[dim]):
        unify(axes[dim], source[dim], path_of(node))
    elif size:
        unify(_middle(axes[dim], start, size, path_of(node)), source[dim], path_of(node))
    return axes


def _put(actions: Actions, node: Node) -> Action:
    """The parts that are overwritten have the actions of what is written."""
    linear_moved(actions, node)
    call, after = arguments(node), actions.axes(node)
    dim, rank = call["dim"] % len(after), len(after)
    written = actions.axes(node.args[1])
    size, start = size_of(written[dim]), start_of(call, size_of(after[dim]))
    spans = choices(actions, after, dim)
    inside = [
        n for n, (at, length) in enumerate(spans) if start <= at and at + length <= start + size
    ]
    touched = [
        n for n, (at, length) in enumerate(spans) if at < start + size and start < at + length
    ]
    step = call.get("step", 1)
    if step != 1 or inside != touched or len(choices(actions, written, dim)) != len(inside):
        actions.pin_all(node)
        return NOTHING
    keep = [n for n in range(len(spans)) if n not in inside]
    parts = []
    if keep:
        base = matched(
            actions, actions.axes(node.args[0]), after, range(rank), dim,
            lambda n: n if n in keep else None,
        )  # fmt: skip
        parts.append(transfer(actions, actions.of(node.args[0]), base, range(rank)))
    first = inside[0] if inside else 0
    new = matched(actions, written, after, range(rank), dim, lambda n: n + first)
    parts.append(transfer(actions, actions.of(node.args[1]), new, range(rank)))
    return _together(parts)


def _put_one_axes(trace: Tracing, node: Node) -> Value:
    """``select_scatter``: one index of a dimension is replaced."""
    call = arguments(node)
    axes, source = list(trace.axes(node.args[0])), trace.axes(node.args[1])
    dim = call["dim"] % len(axes)
    fix(axes[dim], "writing at an index tells positions apart")
    for axis, other in zip(axes[:dim] + axes[dim + 1 :], source, strict=True):
        unify(axis, other, path_of(node))
    return axes


def _put_one(actions: Actions, node: Node) -> Action:
    """What is written and what stays must transform alike: one index is no part of its own."""
    linear_moved(actions, node)
    call, after = arguments(node), actions.axes(node)
    dim, rank = call["dim"] % len(after), len(after)
    cells = actions.cells(after)
    base, written = node.args[0], node.args[1]
    dims = [d if d < dim else d + 1 for d in range(rank - 1)]
    old = actions.cells(actions.axes(written))
    if len(cells) != len(old):
        actions.pin_all(node)
        return NOTHING
    new = transfer(actions, actions.of(written), list(zip(old, cells, strict=True)), dims)
    if is_zero(base) and size_of(after[dim]) == 1:
        return new
    rest: list[int | None] = [None if d == dim else d for d in range(rank)]
    same = list(zip(actions.cells(actions.axes(base)), cells, strict=True))
    kept = transfer(actions, actions.of(base), same, rest)
    if is_zero(base):
        actions.zero(actions.shifts, new.shift)
        return new
    return alike(actions, kept, new)


_CUT = "permutations within every part"
_OTHERS = "permutations of the other dimensions"
_CAT = Rule(_cat_axes, _cat, "permutations and scales of every part", recorded=True)
RULES = {
    **dict.fromkeys(("cat", "concat", "concatenate"), _CAT),
    "stack": Rule(_stack_axes, _stack, "permutations and scales that all values share"),
    **dict.fromkeys(
        ("split", "split_with_sizes", "chunk", "tensor_split", "split_copy",
         "split_with_sizes_copy", "unsafe_split", "unsafe_chunk"),
        Rule(
            _cut_axes,
            _cut,
            _CUT,
            whatever=("split_size", "split_sizes", "chunks", "sections", "indices"),
        ),
    ),
    **dict.fromkeys(("unbind", "unbind_copy"), Rule(_unbind_axes, _unbind, _OTHERS)),
    **dict.fromkeys(("select", "select_copy"), Rule(_select_axes, _select, _OTHERS)),
    **dict.fromkeys(
        ("slice", "slice_copy"),
        Rule(
            _slice_axes, _slice, "permutations within and outside the slice", whatever=("end",)
        ),
    ),
    **dict.fromkeys(
        ("expand", "expand_as", "expand_copy", "broadcast_to"),
        Rule(_expand_axes, _expanded, "everything; copies may be permuted"),
    ),
    "slice_scatter": Rule(
        _put_axes, _put, "permutations within and outside the slice", whatever=("end",)
    ),
    "select_scatter": Rule(_put_one_axes, _put_one, _OTHERS, whatever=("index",)),
}  # fmt: skip
