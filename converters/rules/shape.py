"""Rules of operations that move or merge dimensions: views, permutations, padding."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node

from ..inference.actions import NOTHING, Action, Actions
from ..inference.axes import Axis, Sum, atoms, fix, fixed, mark_position, regroup, size_of
from ..inference.frames import Frame, Member
from ..inference.primitives import choices, linear_moved, matched, reshaped, transfer
from ..inference.tracing import Rule, Tracing, Value, arguments, path_of, shape_of
from .weights import feature_map


def _view_axes(trace: Tracing, node: Node) -> Value:
    return regroup(trace.axes(node.args[0]), shape_of(node), path_of(node))


def _view(actions: Actions, node: Node) -> Action:
    """Only the shape of the result matters, and of a second operand, too."""
    linear_moved(actions, node)
    actions.only_shape(*node.all_input_nodes[1:])
    before = actions.axes(node.args[0])
    return reshaped(actions, actions.of(node.args[0]), before, actions.axes(node))


def _order(trace: Tracing, node: Node) -> list[int]:
    """For every dimension of the result, which one of the operand it is.

    The operation itself shows where each one goes.
    """
    axes = trace.axes(node.args[0])
    numbered = torch.empty(*range(2, len(axes) + 2), device="meta")
    others = dict(list(arguments(node).items())[1:])
    moved = node.target(numbered, **others)  # type: ignore[operator]
    return [size - 2 for size in moved.shape]


def _permute_axes(trace: Tracing, node: Node) -> Value:
    axes = trace.axes(node.args[0])
    return [axes[dim] for dim in _order(trace, node)]


def _permute(actions: Actions, node: Node) -> Action:
    linear_moved(actions, node)
    order = _order(actions.trace, node)
    frame = Frame(actions, node, [(node.args[0], range(len(order)))], order)
    return frame.give(frame.take(0))


def _pad_axes(trace: Tracing, node: Node) -> Value:
    """New entries stand before and behind those that were there: a concatenation of three.

    Along positions of a map, which are ordered anyway, the result has positions of its own.
    """
    before, after = trace.axes(node.args[0]), shape_of(node)
    result = list(before)
    for dim, (low, high) in _padded(node, len(before)).items():
        parts = [fixed(n, _PADDED) for n in (low, high) if n > 0]
        if _is_joined(node, before[dim], low, high):
            axes = [before[dim]]
            axes = [parts.pop(0), *axes] if low else axes
            result[dim] = (Sum((*axes, *parts)),)
            continue
        result[dim] = fixed(after[dim], _PADDED)
        fix(before[dim], _PADDED)
        for axis in (before[dim], result[dim]):
            mark_position(axis)
    return result


_PADDED = "padding tells positions apart"


def _is_joined(node: Node, axis: Axis, low: int, high: int) -> bool:
    constant = arguments(node).get("mode", "constant") == "constant"
    moves = any(not atom.fixed for atom in atoms(axis))
    return constant and moves and min(low, high) >= 0


def _padded(node: Node, rank: int) -> dict[int, tuple[int, int]]:
    """Dimensions that are padded, and how many entries come before and behind."""
    amounts = arguments(node)["pad"]
    pairs = {rank - 1 - n: (amounts[2 * n], amounts[2 * n + 1]) for n in range(len(amounts) // 2)}
    return {dim: pair for dim, pair in pairs.items() if pair != (0, 0)}


def _pad(actions: Actions, node: Node) -> Action:
    """New entries are zero, which has every unit, but shifts by nothing; or other numbers."""
    value, call = node.args[0], arguments(node)
    before, after = actions.axes(value), actions.axes(node)
    padded = _padded(node, len(before))
    if padded:
        actions.zero(actions.shifts, actions.of(value).shift)
    if call.get("value") or call.get("mode", "constant") != "constant":
        actions.zero(actions.magnitudes, actions.of(value).magnitude)
        actions.zero(actions.signs, actions.of(value).sign)
    linear_moved(actions, node)
    joined = [dim for dim, (low, high) in padded.items() if len(choices(actions, after, dim)) > 1]
    if len(joined) == 1 and len(padded) == 1:
        dim = joined[0]
        return _beside(actions, node, after, dim, padded[dim][0])
    labels = [None if dim in padded else dim for dim in range(len(before))]
    frame = Frame(actions, node, [(value, labels)], labels)
    return frame.give(frame.take(0))


def _beside(actions: Actions, node: Node, after: Value, dim: int, low: int) -> Action:
    """A value as the parts of a longer one that begin at an index; the others hold zeros."""
    value = node.args[0]
    before, spans = actions.axes(value), choices(actions, after, dim)
    lengths = [length for _, length in choices(actions, before, dim)]
    first = next((n for n, (at, _) in enumerate(spans) if at == low), len(spans))
    if [length for _, length in spans[first : first + len(lengths)]] != lengths:
        actions.pin_all(node)  # what reads the result takes it apart elsewhere
        return NOTHING
    rank = len(before)
    pairs = matched(actions, before, after, range(rank), dim, lambda n: first + n)
    return transfer(actions, actions.of(value), pairs, range(rank))


def _shuffled_axes(trace: Tracing, node: Node) -> Value:
    """(channels · r², h, w) to (channels, h · r, w · r)."""
    features, shape = trace.axes(node.args[0]), shape_of(node)
    factor = arguments(node)["upscale_factor"]
    sizes = (shape[-3], factor, factor)
    channels, *pixels = regroup([features[-3]], sizes, path_of(node))
    for axis in (*pixels, *features[-2:]):
        fix(axis, "pixels are positions")
        mark_position(axis)
    return [*features[:-3], channels, *feature_map(node, 2)]


def _unshuffled_axes(trace: Tracing, node: Node) -> Value:
    """(channels, h · r, w · r) to (channels · r², h, w)."""
    features = trace.axes(node.args[0])
    factor = arguments(node)["downscale_factor"]
    inside = fixed(factor * factor, "pixels are positions")
    for axis in (inside, *features[-2:]):
        fix(axis, "pixels are positions")
        mark_position(axis)
    return [*features[:-3], (*features[-3], *inside), *feature_map(node, 2)]


def _channel_shuffled_axes(trace: Tracing, node: Node) -> Value:
    """(groups · members) to (members · groups)."""
    features = list(trace.axes(node.args[0]))
    groups = arguments(node)["groups"]
    size = size_of(features[1])
    outer, inner = regroup([features[1]], (groups, size // groups), path_of(node))
    features[1] = (*inner, *outer)
    return features


def _of_channels(actions: Actions, node: Node) -> Action:
    """Channels are dealt out otherwise; what is the same at all pixels and members passes."""
    value, result = node.args[0], actions.axes(node)
    before = actions.axes(value)
    many, few = (before, result) if size_of(before[-3]) > size_of(result[-3]) else (result, before)
    sizes = (size_of(few[-3]), size_of(many[-3]) // size_of(few[-3]))
    channels: list[Axis] = regroup([many[-3]], sizes, path_of(node))
    split = [*many[:-3], *channels, *many[-2:]]
    front: list[Any] = list(range(len(before) - 3))
    action = actions.of(value)
    actions.zero(actions.shifts, action.shift)
    if many is before:
        member = Member(
            value, [*front, "c", None, None, None], split, reshaped(actions, action, before, split)
        )
        frame = Frame(actions, node, [member], [*front, "c", None, None])
        return frame.give(frame.take(0))
    frame = Frame(
        actions, node, [(value, [*front, "c", None, None])], [*front, "c", None, None, None], split
    )
    return reshaped(actions, frame.give(frame.take(0)), split, result)


def _channel_shuffled(actions: Actions, node: Node) -> Action:
    value, result = node.args[0], actions.axes(node)
    before, groups = actions.axes(value), arguments(node)["groups"]
    sizes = (groups, size_of(before[1]) // groups)
    outer, inner = regroup([before[1]], sizes, path_of(node))
    split = [before[0], outer, inner, *before[2:]]
    turned = [before[0], inner, outer, *before[2:]]
    rest = list(range(3, len(split)))
    member = Member(
        value, [0, 1, 2, *rest], split, reshaped(actions, actions.of(value), before, split)
    )
    frame = Frame(actions, node, [member], [0, 2, 1, *rest], turned)
    return reshaped(actions, frame.give(frame.take(0)), turned, result)


_VIEW = Rule(
    _view_axes,
    _view,
    "permutations of whole factors of the dimensions",
    whatever=("start_dim", "end_dim", "dim", "stride"),
)
_PAD = Rule(_pad_axes, _pad, "permutations of unpadded dimensions", recorded=True)
RULES = {
    **dict.fromkeys(
        (
            *("view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze"),
            *("view_as", "reshape_as", "view_copy", "squeeze_copy", "unsqueeze_copy", "ravel"),
            *("_reshape_alias", "_reshape_copy"),
        ),
        _VIEW,
    ),
    **dict.fromkeys(
        (
            *("permute", "transpose", "t", "mT", "numpy_T", "movedim", "swapaxes", "swapdims"),
            *("permute_copy", "transpose_copy", "t_copy", "moveaxis", "adjoint", "matrix_H", "mH"),
        ),
        Rule(_permute_axes, _permute, "everything"),
    ),
    "pixel_shuffle": Rule(
        _shuffled_axes, _of_channels, "permutations of whole channels", recorded=True
    ),
    "pixel_unshuffle": Rule(
        _unshuffled_axes, _of_channels, "permutations of whole channels", recorded=True
    ),
    **dict.fromkeys(
        ("channel_shuffle", "native_channel_shuffle"),
        Rule(_channel_shuffled_axes, _channel_shuffled, "permutations of groups and members"),
    ),
    **dict.fromkeys(("pad", "constant_pad_nd"), _PAD),
}
