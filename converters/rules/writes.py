"""Rules of operations that overwrite a value, in their functional forms."""

from __future__ import annotations

from torch.fx import Node

from ..inference.actions import NOTHING, Action, Actions
from ..inference.axes import size_of, unify
from ..inference.primitives import broadcast, linear_moved
from ..inference.tracing import Rule, Tracing, Value, arguments, path_of
from .pointwise import same_axes


def _copy_axes(trace: Tracing, node: Node) -> Value:
    """The value takes the entries of another one, broadcast to its shape."""
    call = arguments(node)
    part, source = list(trace.axes(call["self"])), trace.axes(call["src"])
    for axis, other in zip(reversed(part), reversed(source), strict=False):
        if size_of(axis) == size_of(other):
            unify(axis, other, path_of(node))
    return part


def _copy(actions: Actions, node: Node) -> Action:
    linear_moved(actions, node)
    actions.only_shape(arguments(node)["self"])
    frame = broadcast(actions, node, [arguments(node)["src"]])
    return frame.give(frame.take(0))


def _fill(actions: Actions, node: Node) -> Action:
    """All entries are one number now, which moves as its value does."""
    linear_moved(actions, node)
    value = arguments(node).get("value")
    actions.only_shape(*(o for o in node.all_input_nodes if o is not value))
    if not isinstance(value, Node):
        return NOTHING
    frame = broadcast(actions, node, [value])
    return frame.give(frame.take(0))


RULES = {
    "copy": Rule(_copy_axes, _copy, "permutations and scales of what is written"),
    "fill": Rule(same_axes, _fill, "everything: no entry is left"),
    "zero": Rule(same_axes, _fill, "everything: no entry is left"),
}
