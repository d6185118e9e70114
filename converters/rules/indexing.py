"""Operations that pick entries by number, or copy them: what is picked from keeps its order."""

from __future__ import annotations

from collections.abc import Sequence

from torch.fx import Node

from ..axes import Atom, Axis, atoms, fix, fixed, size_of
from ..tracing import Rule, Tracing, Value, arguments, atoms_of, shape_of
from ..units import ONE, Unit

_REASON = "picking entries by number tells positions apart"


def _index_axes(trace: Tracing, node: Node) -> Value:
    """``x[:, i, :, j]``: indexed dimensions are replaced by those of the index tensors."""
    axes, indices = trace.axes(node.args[0]), list(arguments(node)["indices"])
    picked = [place for place, index in enumerate(indices) if index is not None]
    for place in picked:
        fix(axes[place], _REASON)
    kept = [axis for place, axis in enumerate(axes) if place not in picked]
    new = len(shape_of(node)) - len(kept)
    together = picked == list(range(picked[0], picked[-1] + 1))
    start = picked[0] if together else 0
    sizes = shape_of(node)[start : start + new]
    return [*kept[:start], *(fixed(size, _REASON) for size in sizes), *kept[start:]]


def _dim(node: Node) -> int:
    dim = arguments(node).get("dim")
    return 0 if dim is None else int(dim)


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
    index = trace.axes(arguments(node)["index"])
    for place in range(len(axes)):
        fix(axes[place], _REASON)
        fix(index[place], _REASON)
    return [fixed(size, _REASON) for size in shape]


def _shifted_axes(trace: Tracing, node: Node) -> Value:
    """Rolling and flipping: entries change places along some dimensions."""
    axes, dims = list(trace.axes(node.args[0])), arguments(node)["dims"]
    for dim in dims or range(len(axes)):
        fix(axes[dim], _REASON)
        # New places: what an index stood for before is elsewhere now.
        axes[dim] = fixed(size_of(axes[dim]), _REASON)
    return axes


def _repeat_axes(trace: Tracing, node: Node) -> Value:
    """Copies of the whole, one after another: (copy, index). Copies are alike and may move."""
    axes, counts = trace.axes(node.args[0]), arguments(node)["repeats"]
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
    """The largest entries and their places: both say which entry of the dimension is meant."""
    axes = list(trace.axes(node.args[0]))
    dim = arguments(node)["dim"]
    fix(axes[dim], _REASON)
    axes[dim] = fixed(shape_of(node)[dim], _REASON)
    return [axes, axes]


def _kept_units(trace: Tracing, node: Node) -> Unit:
    """Scales of dimensions that nothing is picked from pass through.

    Which these are is told by the operation: the axes of the result may have been joined with those
    of the operand since.
    """
    axes, value = trace.axes(node.args[0]), trace.balance.merge(trace.unit(node.args[0]))
    picked = {dim % len(axes) for dim in _picked(node)}
    kept = (axis for dim, axis in enumerate(axes) if dim not in picked)
    return trace.balance.restrict(value, atoms_of(*kept))


def _picked(node: Node) -> Sequence[int]:
    call = arguments(node)
    if "indices" in call:
        return [place for place, index in enumerate(call["indices"]) if index is not None]
    if "dims" in call:
        return call["dims"] or range(len(shape_of(node)))
    return [_dim(node)]


def _copied_units(trace: Tracing, node: Node) -> Unit:
    return trace.balance.merge(trace.unit(node.args[0]))


def _argument_units(trace: Tracing, node: Node) -> Unit:
    trace.balance.fix(trace.unit(node.args[0]))
    return ONE


_PERMITS = "permutations and scales of the other dimensions"
_COPIES = "everything; copies may be permuted"
RULES = {
    "index": Rule(_index_axes, _kept_units, _PERMITS, recorded=True),
    "index_select": Rule(_along_axes, _kept_units, _PERMITS, recorded=True),
    "gather": Rule(_gather_axes, _argument_units, "nothing", recorded=True),
    "topk": Rule(_top_axes, _argument_units, "permutations of the other dimensions", recorded=True),
    **dict.fromkeys(("roll", "flip"), Rule(_shifted_axes, _kept_units, _PERMITS, recorded=True)),
    "repeat": Rule(_repeat_axes, _copied_units, _COPIES),
    "repeat_interleave": Rule(_interleaved_axes, _copied_units, _COPIES),
    **dict.fromkeys(
        ("cumsum", "cumprod", "diff"),
        Rule(_along_axes, _argument_units, "permutations of the other dimensions", recorded=True),
    ),
}
