"""Operations between feature maps and the windows that slide over them."""

from __future__ import annotations

from collections.abc import Sequence

from torch.fx import Node

from ..axes import Axis, fix, fixed, mark_position, regroup, size_of
from ..tracing import Rule, Tracing, Value, arguments, atoms_of, place_of, shape_of
from ..units import Unit
from .weights import feature_map

_REASON = "windows tell positions apart"


def _places(*axes: Axis) -> None:
    for axis in axes:
        fix(axis, _REASON)
        mark_position(axis)


def _unfold_axes(trace: Tracing, node: Node) -> Value:
    """``nn.Unfold``: (channels, height, width) to (channels · places in a window, windows)."""
    features, shape = trace.axes(node.args[0]), shape_of(node)
    inside = fixed(shape[-2] // size_of(features[-3]), _REASON)
    windows = fixed(shape[-1], _REASON)
    _places(*features[-2:], inside, windows)
    return [*features[:-3], features[-3] + inside, windows]


def _fold_axes(trace: Tracing, node: Node) -> Value:
    """``nn.Fold``: the way back, where windows that overlap are summed."""
    features, shape = trace.axes(node.args[0]), shape_of(node)
    sizes = (shape[-3], size_of(features[-2]) // shape[-3])
    channels, inside = regroup([features[-2]], sizes, place_of(node))
    _places(inside, features[-1])
    return [*features[:-2], channels, *feature_map(node, 2)]


def _slide_axes(trace: Tracing, node: Node) -> Value:
    """``Tensor.unfold``: one dimension to windows, and a last one inside each."""
    axes, dim = list(trace.axes(node.args[0])), arguments(node)["dimension"]
    shape = shape_of(node)
    windows, inside = fixed(shape[dim % len(axes)], _REASON), fixed(shape[-1], _REASON)
    _places(axes[dim], windows, inside)
    axes[dim] = windows
    return [*axes, inside]


def _unfold_units(trace: Tracing, node: Node) -> Unit:
    return _restricted(trace, node, trace.axes(node.args[0])[:-2])


def _fold_units(trace: Tracing, node: Node) -> Unit:
    return _restricted(trace, node, trace.axes(node)[:-2])


def _slide_units(trace: Tracing, node: Node) -> Unit:
    axes, dim = list(trace.axes(node.args[0])), arguments(node)["dimension"]
    del axes[dim]
    return _restricted(trace, node, axes)


def _restricted(trace: Tracing, node: Node, kept: Sequence[Axis]) -> Unit:
    return trace.balance.restrict(trace.balance.merge(trace.unit(node.args[0])), atoms_of(*kept))


_PERMITS = "permutations and scales of whole channels"
RULES = {
    "im2col": Rule(_unfold_axes, _unfold_units, _PERMITS, recorded=True),
    "col2im": Rule(_fold_axes, _fold_units, _PERMITS, recorded=True),
    "unfold": Rule(
        _slide_axes, _slide_units, "permutations and scales of the other dimensions", recorded=True
    ),
}
