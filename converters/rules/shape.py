"""Operations that move or merge dimensions without touching entries."""

from __future__ import annotations

import torch
from torch.fx import Node

from ..axes import fix, fixed, mark_position, regroup
from ..tracing import Rule, Tracing, Value, arguments, atoms_of, place_of, shape_of
from ..units import Unit
from .linear import moved
from .pointwise import same_unit
from .weights import feature_map


def _view_axes(trace: Tracing, node: Node) -> Value:
    return regroup(trace.axes(node.args[0]), shape_of(node), place_of(node))


def _permute_axes(trace: Tracing, node: Node) -> Value:
    """All ways to reorder dimensions: the operation itself shows where each one goes."""
    axes = trace.axes(node.args[0])
    numbered = torch.empty(*range(1, len(axes) + 1), device="meta")
    moved = node.target(numbered, *node.args[1:], **node.kwargs)  # type: ignore[operator]
    return [axes[size - 1] for size in moved.shape]


def _pad_axes(trace: Tracing, node: Node) -> Value:
    before, after = trace.axes(node.args[0]), shape_of(node)
    result = list(before)
    amounts = arguments(node)["pad"]
    for pair in range(len(amounts) // 2):
        if amounts[2 * pair] or amounts[2 * pair + 1]:
            dim = len(before) - 1 - pair
            result[dim] = fixed(after[dim], "padding tells positions apart")
            fix(before[dim], "padding tells positions apart")
            for axis in (before[dim], result[dim]):
                mark_position(axis)
    return result


def _pad_units(trace: Tracing, node: Node) -> Unit:
    if arguments(node).get("value"):
        trace.balance.fix(trace.unit(node.args[0]))
    return trace.unit(node.args[0])


def _pixel_shuffle_axes(trace: Tracing, node: Node) -> Value:
    """(channels · r², h, w) to (channels, h · r, w · r)."""
    features, shape = trace.axes(node.args[0]), shape_of(node)
    factor = arguments(node)["upscale_factor"]
    sizes = (shape[-3], factor, factor)
    channels, *places = regroup([features[-3]], sizes, place_of(node))
    for axis in (*places, *features[-2:]):
        fix(axis, "pixels are positions")
        mark_position(axis)
    return [*features[:-3], channels, *feature_map(node, 2)]


def _pixel_shuffle_units(trace: Tracing, node: Node) -> Unit:
    axes = trace.axes(node)
    return trace.balance.restrict(trace.balance.merge(trace.unit(node.args[0])), atoms_of(*axes))


_VIEW = Rule(_view_axes, same_unit, "permutations of whole factors of the dimensions", linear=moved)
RULES = {
    **dict.fromkeys(
        (
            *("view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze"),
            *("view_as", "reshape_as"),
        ),
        _VIEW,
    ),
    **dict.fromkeys(
        ("permute", "transpose", "t", "mT", "numpy_T", "movedim", "swapaxes", "swapdims"),
        Rule(_permute_axes, same_unit, "everything", linear=moved),
    ),
    "pixel_shuffle": Rule(
        _pixel_shuffle_axes, _pixel_shuffle_units, "permutations of whole channels", recorded=True
    ),
    "pad": Rule(_pad_axes, _pad_units, "permutations of unpadded dimensions", recorded=True),
    "constant_pad_nd": Rule(
        _pad_axes, _pad_units, "permutations of unpadded dimensions", recorded=True
    ),
}
