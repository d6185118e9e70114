"""Operations that pick entries by number: the dimensions they pick along keep their order."""

from __future__ import annotations

from torch.fx import Node

from ..axes import Axis, fix, fixed
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


def _repeat_axes(trace: Tracing, node: Node) -> Value:
    axes, shape = trace.axes(node.args[0]), shape_of(node)
    new = len(shape) - len(axes)
    result: Value = []
    for place, size in enumerate(shape):
        old: Axis = axes[place - new] if place >= new else ()
        if place >= new and arguments(node)["repeats"][place] == 1:
            result.append(old)
        else:
            fix(old, _REASON)
            result.append(fixed(size, _REASON))
    return result


def _kept_units(trace: Tracing, node: Node) -> Unit:
    """Scales of dimensions that nothing is picked from pass through."""
    result = trace.axes(node)
    return trace.balance.restrict(trace.balance.merge(trace.unit(node.args[0])), atoms_of(*result))


def _argument_units(trace: Tracing, node: Node) -> Unit:
    trace.balance.fix(trace.unit(node.args[0]))
    return ONE


_PERMITS = "permutations and scales of the other dimensions"
RULES = {
    "index": Rule(_index_axes, _kept_units, _PERMITS, recorded=True),
    "index_select": Rule(_along_axes, _kept_units, _PERMITS, recorded=True),
    "gather": Rule(_gather_axes, _argument_units, "nothing", recorded=True),
    "repeat": Rule(_repeat_axes, _kept_units, _PERMITS),
    **dict.fromkeys(
        ("cumsum", "cumprod", "diff"),
        Rule(_along_axes, _argument_units, "permutations of the other dimensions", recorded=True),
    ),
}
