"""Rules of operations that select entries by index, or copy them."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from torch.fx import Node

from ..inference.actions import NOTHING, Action, Actions, Labels
from ..inference.axes import Atom, Axis, atoms, fix, fixed, regroup, size_of, unify
from ..inference.frames import Frame
from ..inference.primitives import equate, forgetting, outside, reshaped
from ..inference.tracing import (
    Rule,
    Tracing,
    Value,
    arguments,
    is_read,
    name_of,
    path_of,
    shape_of,
)
from .pointwise import aligned, fixed_all, is_zero, pinned_all

_REASON = "picking entries by number tells positions apart"


def _index_axes(trace: Tracing, node: Node) -> Value:
    """``x[:, i, :, j]``: indexed dimensions are replaced by those of the index tensors."""
    axes, indices = trace.axes(node.args[0]), list(arguments(node)["indices"])
    picked = [dim for dim, index in enumerate(indices) if index is not None]
    for dim in picked:
        fix(axes[dim], _REASON)
        for axis in trace.axes(indices[dim]):
            fix(axis, _REASON)
    kept = [axis for dim, axis in enumerate(axes) if dim not in picked]
    new = len(shape_of(node)) - len(kept)
    together = picked == list(range(picked[0], picked[-1] + 1))
    start = picked[0] if together else 0
    sizes = shape_of(node)[start : start + new]
    masks = (torch.bool, torch.uint8)
    if any(indices[dim].meta["val"].dtype in masks for dim in picked):  # as many as hold
        new_axes = [fixed(size, _REASON) for size in sizes]
    else:
        new_axes = aligned([trace.axes(indices[dim]) for dim in picked], sizes, _REASON)
    return [*kept[:start], *new_axes, *kept[start:]]


def _dim(node: Node) -> int:
    dim = arguments(node).get("dim")
    return 0 if dim is None else int(dim)


def _selected_axes(trace: Tracing, node: Node) -> Value:
    """``index_select``: one dimension is replaced by that of the index."""
    call = arguments(node)
    axes, index = list(trace.axes(call["self"])), trace.axes(call["index"])
    dim = call["dim"] % max(len(axes), 1)
    if axes:
        fix(axes[dim], _REASON)
        axes[dim] = index[0] if index else fixed(1, _REASON)
    return axes


def _running_axes(trace: Tracing, node: Node) -> Value:
    """Running sums and differences; what is put before or behind has the same other dimensions."""
    call = arguments(node)
    axes = _along_axes(trace, node)
    dim = _dim(node) % len(axes)
    for name in ("prepend", "append"):
        end = call.get(name)
        for d, axis in enumerate(trace.axes(end)):
            if d == dim:
                fix(axis, _REASON)
            else:
                unify(axes[d], axis, path_of(node))
    return axes


def _along_axes(trace: Tracing, node: Node) -> Value:
    """Running sums and the like: one dimension keeps its order, and may change its size."""
    axes, shape = list(trace.axes(node.args[0])), shape_of(node)
    fix(axes[_dim(node)], _REASON)
    trace.mix(axes, atoms(axes[_dim(node)]))
    if shape_of(node.args[0]) != shape:  # type: ignore[arg-type]
        axes[_dim(node)] = fixed(shape[_dim(node)], _REASON)
    return axes


def _gather_axes(trace: Tracing, node: Node) -> Value:
    axes, shape = list(trace.axes(node.args[0])), shape_of(node)
    call = arguments(node)
    index = trace.axes(call.get("index", call.get("indices")))
    for dim in range(len(axes)):
        fix(axes[dim], _REASON)
        fix(index[dim], _REASON)
    return [fixed(size, _REASON) for size in shape]


def _shifted_axes(trace: Tracing, node: Node) -> Value:
    """Rolling and flipping: entries move along some dimensions."""
    axes, dims = list(trace.axes(node.args[0])), arguments(node)["dims"]
    for dim in dims or range(len(axes)):
        fix(axes[dim], _REASON)
        # Indices have other meanings after the move, so they are a new ordered set.
        axes[dim] = fixed(size_of(axes[dim]), _REASON)
    return axes


def _repeat_axes(trace: Tracing, node: Node) -> Value:
    """Copies of the whole, one after another: (copy, index). Copies are alike and may move."""
    call = arguments(node)
    axes, counts = (
        trace.axes(node.args[0]),
        list(call["repeats"] if "repeats" in call else call["dims"]),
    )
    counts = [1] * (len(axes) - len(counts)) + counts
    new = len(counts) - len(axes)
    old: Value = [*((),) * new, *axes]
    return [_copies(count) + axis for count, axis in zip(counts, old, strict=True)]


def _interleaved_axes(trace: Tracing, node: Node) -> Value | None:
    """Copies of every entry, side by side: (index, copy)."""
    call = arguments(node)
    axes, count = list(trace.axes(node.args[0])), call["repeats"]
    if not isinstance(count, int):
        return None
    if call["dim"] is None:
        axes = [tuple(factor for axis in axes for factor in axis)]
    dim = call["dim"] or 0
    axes[dim] = axes[dim] + _copies(count)
    return axes


def _copies(count: int) -> Axis:
    return (Atom(count),)


def _top_axes(trace: Tracing, node: Node) -> list[Value]:
    """The largest entries in order; permutations of the input pass unless indices are read."""
    axes = list(trace.axes(node.args[0]))
    dim = arguments(node)["dim"]
    trace.mix(axes, atoms(axes[dim]))
    if is_read(node, 1):
        fix(axes[dim], _REASON)
    axes[dim] = fixed(shape_of(node)[dim], _REASON)
    return [axes, axes]


def _fix_all(*axes: Axis) -> None:
    for axis in axes:
        fix(axis, _REASON)


def _index_add_axes(trace: Tracing, node: Node) -> Value:
    """Rows of a source are added at the rows that an index tensor names."""
    call = arguments(node)
    axes, source = list(trace.axes(call["self"])), trace.axes(call.get("source", call.get("src")))
    dim = call["dim"] % max(len(axes), 1)
    for d, axis in enumerate(axes):
        if d == dim:
            _fix_all(axis, source[d], *trace.axes(call["index"]))
        elif size_of(axis) == size_of(source[d]):
            unify(axis, source[d], path_of(node))
    return axes


def _scattered_axes(trace: Tracing, node: Node) -> Value:
    """Entries are written to, or added at, indices of one dimension from an index tensor."""
    call = arguments(node)
    axes, index = list(trace.axes(call["self"])), trace.axes(call["index"])
    source = trace.axes(call.get("src")) if isinstance(call.get("src"), Node) else None
    dim = call["dim"] % max(len(axes), 1)
    for d, axis in enumerate(axes):
        others = [a[d] for a in (index, source) if a is not None and len(a) > d]
        if d == dim or any(size_of(other) != size_of(axis) for other in others):
            _fix_all(axis, *others)
        else:
            for other in others:
                unify(axis, other, path_of(node))
    return axes


def _put_axes(trace: Tracing, node: Node) -> Value:
    """``index_put``: indexed dimensions keep their order, the others are those of the values."""
    call = arguments(node)
    axes, values = list(trace.axes(node.args[0])), trace.axes(call["values"])
    indices = list(call["indices"])
    picked = [dim for dim, index in enumerate(indices) if index is not None]
    for dim in picked:
        _fix_all(axes[dim], *trace.axes(indices[dim]))
    kept = [dim for dim in range(len(axes)) if dim not in picked]
    trailing = picked == list(range(len(picked)))
    if trailing:
        for dim, axis in zip(reversed(kept), reversed(values), strict=False):
            if size_of(axes[dim]) == size_of(axis):
                unify(axes[dim], axis, path_of(node))
            elif size_of(axis) > 1:
                _fix_all(axes[dim], axis)
        for axis in values[: max(len(values) - len(kept), 0)]:
            fix(axis, _REASON)
    else:
        _fix_all(*axes, *values)
    return axes


def _one_hot_axes(trace: Tracing, node: Node) -> Value:
    return [*trace.axes(node.args[0]), fixed(shape_of(node)[-1], _REASON)]


def _triangle_axes(trace: Tracing, node: Node) -> Value:
    axes = list(trace.axes(node.args[0]))
    _fix_all(*axes[-2:])
    return axes


def _diagonal_axes(trace: Tracing, node: Node) -> Value:
    call = arguments(node)
    axes = list(trace.axes(node.args[0]))
    one, other = call.get("dim1", 0) % len(axes), call.get("dim2", 1) % len(axes)
    rest = [axis for dim, axis in enumerate(axes) if dim not in (one, other)]
    if call.get("offset", 0) == 0 and size_of(axes[one]) == size_of(axes[other]):
        unify(axes[one], axes[other], path_of(node))
        return [*rest, axes[one]]
    _fix_all(axes[one], axes[other])
    return [*rest, fixed(shape_of(node)[-1], _REASON)]


def _all_ordered_axes(trace: Tracing, node: Node) -> Any:
    """The selection depends on all entries, so all axes are ordered."""
    for operand in node.all_input_nodes:
        _fix_all(*trace.axes(operand))
    meta = node.meta["val"]
    if isinstance(meta, (tuple, list)):
        return [[fixed(int(size), _REASON) for size in part.shape] for part in meta]
    return [fixed(int(size), _REASON) for size in meta.shape]


# --- how results transform ----------------------------------------------------------------------


def kept(actions: Actions, node: Node, picked: Collection[int], result: Labels) -> Action:
    """Dimensions that nothing is picked from pass; nothing may move along the others."""
    rank = len(actions.axes(node.args[0]))
    labels = [None if dim in picked else dim for dim in range(rank)]
    operands = [node.args[0]]
    for operand in node.all_input_nodes:
        if operand is not node.args[0]:
            actions.pin(operand)
    frame = Frame(actions, node, [(operands[0], labels)], result)
    taken = frame.take(0)
    return frame.give(taken)


def _index(actions: Actions, node: Node) -> Action:
    indices = list(arguments(node)["indices"])
    picked = [dim for dim, index in enumerate(indices) if index is not None]
    rank = len(actions.axes(node.args[0]))
    rest: list[int | None] = [dim for dim in range(rank) if dim not in picked]
    new = len(actions.axes(node)) - len(rest)
    together = picked == list(range(picked[0], picked[-1] + 1))
    start = picked[0] if together else 0
    return kept(actions, node, picked, [*rest[:start], *[None] * new, *rest[start:]])


def _along(actions: Actions, node: Node) -> Action:
    """Entries move along one dimension."""
    rank, dim = len(actions.axes(node)), _dim(node) % max(len(actions.axes(node)), 1)
    labels: list[int | None] = [None if d == dim else d for d in range(rank)]
    return kept(actions, node, [dim], labels)


def _shifted(actions: Actions, node: Node) -> Action:
    rank = len(actions.axes(node))
    picked = {dim % rank for dim in arguments(node)["dims"] or range(rank)}
    labels: list[int | None] = [None if d in picked else d for d in range(rank)]
    return kept(actions, node, picked, labels)


_NONLINEAR = ("cumprod", "logcumsumexp")


def _running(actions: Actions, node: Node) -> Action:
    """Running sums and differences: scales that are alike along the dimension pass."""
    call = arguments(node)
    ends = [end for name in ("prepend", "append") if (end := call.get(name)) is not None]
    if not all(is_zero(end) for end in ends) or name_of(node) in _NONLINEAR:
        return pinned_all(actions, node)
    actions.only_shape(*ends)
    rank, dim = len(actions.axes(node)), _dim(node)
    dim %= max(rank, 1)
    labels: list[int | None] = [None if d == dim else d for d in range(rank)]
    frame = Frame(actions, node, [(node.args[0], range(rank))], labels)
    taken = frame.take(0)
    if name_of(node) == "diff" and not ends:
        forgetting(frame, taken, [dim])
    else:
        actions.zero(actions.shifts, taken.shift)
    magnitude = outside(actions.magnitudes, taken.magnitude, {dim})
    sign = outside(actions.signs, taken.sign, {dim})
    actions.linear[node] = frame.atoms_at([label for label in labels if label is not None])
    return frame.give(Action(magnitude, sign, {}, {}))


def _copies_of(actions: Actions, node: Node) -> Action:
    """Copies stand beside one another: what is alike in all copies passes."""
    before, after = actions.axes(node.args[0]), actions.axes(node)
    call = arguments(node)
    if name_of(node) in ("repeat", "tile"):
        counts = list(call["repeats"] if "repeats" in call else call["dims"])
        counts = [1] * (len(before) - len(counts)) + counts
        split: Value = []
        labels: list[int | None] = []
        for d, count in enumerate(counts):
            own = d - (len(counts) - len(before))
            if count > 1:
                split.append(_dealt(after[d], count, node)[0])
                labels.append(None)
            if own >= 0:
                split.append(before[own])
                labels.append(own)
            elif count == 1:
                split.append(after[d])
                labels.append(None)
        frame = Frame(actions, node, [(node.args[0], range(len(before)))], labels, split)
        return reshaped(actions, frame.give(frame.take(0)), split, after)
    if not isinstance(call["repeats"], int) or call["dim"] is None:
        return pinned_all(actions, node)
    dim = call["dim"] % len(before)
    size = size_of(before[dim])
    copies = _dealt(after[dim], size, node)[1]
    split = [*after[:dim], before[dim], copies, *after[dim + 1 :]]
    order: list[int | None] = [*range(dim), dim, None, *range(dim + 1, len(before))]
    frame = Frame(actions, node, [(node.args[0], range(len(before)))], order, split)
    return reshaped(actions, frame.give(frame.take(0)), split, after)


def _dealt(axis: Axis, major: int, node: Node) -> list[Axis]:
    return regroup([axis], (major, size_of(axis) // major), path_of(node))


def _top(actions: Actions, node: Node) -> Any:
    """The largest entries: positive scales that all entries share pass, and shifts."""
    rank = len(actions.axes(node.args[0]))
    dim = arguments(node).get("dim")
    dim = (-1 if dim is None else dim) % max(rank, 1)
    axes = actions.trace.values[node][0]
    labels: list[int | None] = [None if d == dim else d for d in range(rank)]
    frame = Frame(actions, node, [(node.args[0], labels)], labels, axes)
    taken = frame.take(0)
    actions.zero(actions.signs, taken.sign)
    return [frame.give(Action(taken.magnitude, {}, taken.shift, taken.origins)), NOTHING]


def _index_add(actions: Actions, node: Node) -> Action:
    """What the sum and its terms share passes, along the dimensions that are not indexed."""
    call = arguments(node)
    base, source = call["self"], call.get("source", call.get("src"))
    rank, dim = len(actions.axes(node)), call["dim"] % max(len(actions.axes(node)), 1)
    labels: list[int | None] = [None if d == dim else d for d in range(rank)]
    for operand in node.all_input_nodes:
        if operand not in (base, source):
            actions.pin(operand)
    frame = Frame(actions, node, [(base, labels), (source, labels)], labels)
    ends = [frame.take(n) for n in range(2)]
    for end in ends:
        actions.zero(actions.shifts, end.shift)
    actions.linear[node] = frame.atoms_at([label for label in labels if label is not None])
    if is_zero(base):
        return frame.give(Action(ends[1].magnitude, ends[1].sign, {}, {}))
    magnitude = equate(actions.magnitudes, ends[0].magnitude, ends[1].magnitude)
    sign = equate(actions.signs, ends[0].sign, ends[1].sign)
    return frame.give(Action(magnitude, sign, {}, {}))


def _scattered(actions: Actions, node: Node) -> Action:
    call = arguments(node)
    if not isinstance(call.get("src"), Node) or call.get("reduce") not in (None, "sum"):
        return pinned_all(actions, node)
    return _index_add(actions, node)


_PERMITS = "permutations and scales of the other dimensions"
_COPIES = "everything; copies may be permuted"
_ORDER = "permutations of the other dimensions"
RULES = {
    "index": Rule(_index_axes, _index, _PERMITS, recorded=True),
    "index_select": Rule(_selected_axes, _along, _PERMITS, recorded=True),
    **dict.fromkeys(
        ("gather", "take_along_dim"),
        Rule(_gather_axes, pinned_all, "nothing", recorded=True, whatever=("dim",)),
    ),
    **dict.fromkeys(
        ("topk", "sort", "kthvalue", "mode", "median", "cummax", "cummin"),
        Rule(
            _top_axes,
            _top,
            f"{_ORDER}; positive scales",
            recorded=True,
            whatever=("k", "largest", "sorted", "descending"),
        ),
    ),
    **dict.fromkeys(
        ("roll", "flip"),
        Rule(_shifted_axes, _shifted, _PERMITS, recorded=True, whatever=("shifts",)),
    ),
    **dict.fromkeys(("repeat", "tile"), Rule(_repeat_axes, _copies_of, _COPIES)),
    "repeat_interleave": Rule(_interleaved_axes, _copies_of, _COPIES),
    **dict.fromkeys(
        ("cumsum", "cumprod", "logcumsumexp", "diff"),
        Rule(_running_axes, _running, _PERMITS, recorded=True, whatever=("n",)),
    ),
    **dict.fromkeys(
        ("index_add", "index_copy"),
        Rule(_index_add_axes, _index_add, _PERMITS, recorded=True, whatever=("alpha",)),
    ),
    **dict.fromkeys(
        ("scatter", "scatter_add", "scatter_reduce"),
        Rule(
            _scattered_axes,
            _scattered,
            _PERMITS,
            recorded=True,
            whatever=("value", "include_self"),
        ),
    ),
    **dict.fromkeys(
        ("index_put", "_unsafe_index_put"),
        Rule(_put_axes, pinned_all, _ORDER, recorded=True, whatever=("accumulate",)),
    ),
    "masked_scatter": Rule(_all_ordered_axes, pinned_all, "nothing", recorded=True),
    "one_hot": Rule(_one_hot_axes, pinned_all, _ORDER, whatever=("num_classes",)),
    **dict.fromkeys(
        ("tril", "triu"),
        Rule(_triangle_axes, fixed_all, _ORDER, recorded=True, whatever=("diagonal",)),
    ),
    **dict.fromkeys(("diagonal", "diagonal_copy"), Rule(_diagonal_axes, pinned_all, _ORDER)),
    **dict.fromkeys(
        ("argsort", "searchsorted", "bucketize"),
        Rule(
            _all_ordered_axes,
            pinned_all,
            "nothing",
            recorded=True,
            whatever=("dim", "descending", "right", "out_int32", "side"),
        ),
    ),
}
