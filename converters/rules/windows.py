"""Rules of operations between feature maps and sliding windows: fold and unfold."""

from __future__ import annotations

from typing import Any

from torch.fx import Node

from ..inference.actions import Action, Actions
from ..inference.axes import Axis, fix, fixed, mark_position, regroup, size_of
from ..inference.frames import Frame, Member
from ..inference.primitives import reshaped
from ..inference.tracing import Rule, Tracing, Value, arguments, path_of, shape_of
from .weights import feature_map

_REASON = "windows tell positions apart"


def _places(*axes: Axis) -> None:
    for axis in axes:
        fix(axis, _REASON)
        mark_position(axis)


def _unfold_axes(trace: Tracing, node: Node) -> Value:
    """``nn.Unfold``: (channels, height, width) to (channels · positions in a window, windows)."""
    features, shape = trace.axes(node.args[0]), shape_of(node)
    inside = fixed(shape[-2] // size_of(features[-3]), _REASON)
    windows = fixed(shape[-1], _REASON)
    _places(*features[-2:], inside, windows)
    return [*features[:-3], features[-3] + inside, windows]


def _fold_axes(trace: Tracing, node: Node) -> Value:
    """``nn.Fold``: the inverse, where windows that overlap are summed."""
    features, shape = trace.axes(node.args[0]), shape_of(node)
    sizes = (shape[-3], size_of(features[-2]) // shape[-3])
    channels, inside = regroup([features[-2]], sizes, path_of(node))
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


def _unfold(actions: Actions, node: Node) -> Action:
    """Channels stay what they are; what else varies may not move."""
    value, after = node.args[0], actions.axes(node)
    before = actions.axes(value)
    actions.zero(actions.shifts, actions.of(value).shift)
    front: list[Any] = list(range(len(before) - 3))
    channels, inside = _dealt(after[-2], size_of(before[-3]), path_of(node))
    split = [*after[:-2], channels, inside, after[-1]]
    frame = Frame(
        actions, node, [(value, [*front, "c", None, None])], [*front, "c", None, None], split
    )
    return reshaped(actions, frame.give(frame.take(0)), split, after)


def _dealt(axis: Axis, major: int, reason: str) -> list[Axis]:
    return regroup([axis], (major, size_of(axis) // major), reason)


def _fold(actions: Actions, node: Node) -> Action:
    value, after = node.args[0], actions.axes(node)
    before = actions.axes(value)
    actions.zero(actions.shifts, actions.of(value).shift)
    front: list[Any] = list(range(len(before) - 2))
    channels, inside = _dealt(before[-2], size_of(after[-3]), path_of(node))
    split = [*before[:-2], channels, inside, before[-1]]
    action = reshaped(actions, actions.of(value), before, split)
    member = Member(value, [*front, "c", None, None], split, action)
    frame = Frame(actions, node, [member], [*front, "c", None, None])
    return frame.give(frame.take(0))


def _slide(actions: Actions, node: Node) -> Action:
    rank = len(actions.axes(node.args[0]))
    gone = arguments(node)["dimension"] % rank
    labels: list[Any] = [None if dim == gone else dim for dim in range(rank)]
    actions.zero(actions.shifts, actions.of(node.args[0]).shift)
    frame = Frame(actions, node, [(node.args[0], labels)], [*labels, None])
    return frame.give(frame.take(0))


_PERMITS = "permutations and scales of whole channels"
_WINDOWS = ("kernel_size", "dilation", "padding", "stride")
RULES = {
    "im2col": Rule(_unfold_axes, _unfold, _PERMITS, recorded=True, whatever=_WINDOWS),
    "col2im": Rule(_fold_axes, _fold, _PERMITS, recorded=True, whatever=_WINDOWS),
    "unfold": Rule(
        _slide_axes,
        _slide,
        "permutations and scales of the other dimensions",
        recorded=True,
        whatever=("step",),
    ),
}
