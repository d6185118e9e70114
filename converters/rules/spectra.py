"""Rules of complex numbers and Fourier transforms."""

from __future__ import annotations

from typing import Any

from torch.fx import Node

from ..inference.actions import Action, Actions
from ..inference.axes import fix, fixed
from ..inference.frames import Frame
from ..inference.primitives import broadcast, linear_moved, linear_summed, total
from ..inference.tracing import Rule, Tracing, Value, arguments, name_of, shape_of
from .pointwise import broadcast_axes, fixed_all, moved, same_axes, unary

_ORDER = "frequencies and positions keep their order"


def _transformed(node: Node, rank: int) -> list[int]:
    """The dimensions that a transform mixes."""
    call = arguments(node)
    if "dim" not in call:
        return [rank - 1]
    dims = call["dim"]
    if dims is None:
        count = len(call["s"]) if call.get("s") is not None else rank
        return list(range(rank - count, rank))
    listed = dims if isinstance(dims, (list, tuple)) else [dims]
    return [dim % rank for dim in listed]


def _transform_axes(trace: Tracing, node: Node) -> Value:
    axes, shape = list(trace.axes(node.args[0])), shape_of(node)
    for dim in _transformed(node, len(axes)):
        fix(axes[dim], _ORDER)
        axes[dim] = fixed(shape[dim], _ORDER)
    return axes


def _transform(actions: Actions, node: Node) -> Action:
    """Linear, and alike along all other dimensions; what is added turns up at one frequency."""
    value = node.args[0]
    rank = len(actions.axes(value))
    gone = set(_transformed(node, rank))
    labels: list[int | None] = [None if dim in gone else dim for dim in range(rank)]
    actions.zero(actions.shifts, actions.of(value).shift)
    frame = Frame(actions, node, [(value, labels)], labels)
    taken = frame.take(0)
    actions.linear[node] = frame.atoms_at([label for label in labels if label is not None])
    return frame.give(Action(taken.magnitude, taken.sign, {}, taken.origins))


def _pairs_axes(trace: Tracing, node: Node) -> Value:
    """``view_as_real``: real and imaginary parts along a last dimension."""
    return [*trace.axes(node.args[0]), fixed(2, "real and imaginary parts")]


def _unpaired_axes(trace: Tracing, node: Node) -> Value:
    axes = list(trace.axes(node.args[0]))
    fix(axes[-1], "real and imaginary parts")
    return axes[:-1]


def _paired(actions: Actions, node: Node) -> Action:
    """Both parts of a number move alike, but for shifts, which are real."""
    value, after = node.args[0], actions.axes(node)
    actions.zero(actions.shifts, actions.of(value).shift)
    linear_moved(actions, node)
    before = actions.axes(value)
    labels: list[Any] = list(range(min(len(before), len(after))))
    more = [None] if len(before) != len(after) else []
    left, right = (labels + more, labels) if len(before) > len(after) else (labels, labels + more)
    frame = Frame(actions, node, [(value, left)], right)
    return frame.give(frame.take(0))


def _part(actions: Actions, node: Node) -> Action:
    """The real part of shifted numbers is shifted, the imaginary one is not."""
    if name_of(node) != "real":
        actions.zero(actions.shifts, actions.of(node.args[0]).shift)
    return moved(actions, node)


def _complex(actions: Actions, node: Node) -> Action:
    """A number from its two parts, which share their scales."""
    operands = [value for value in node.args[:2] if isinstance(value, Node)]
    for operand in operands:
        actions.zero(actions.shifts, actions.of(operand).shift)
    linear_summed(actions, node, operands)
    frame = broadcast(actions, node, operands)
    return frame.give(total(frame, range(len(operands)), [1] * len(operands)))


def _polar(actions: Actions, node: Node) -> Action:
    """Absolute values keep any scale; angles have none."""
    actions.pin(node.args[1])
    frame = broadcast(actions, node, list(node.args[:2]))
    taken = frame.take(0)
    actions.zero(actions.shifts, taken.shift)
    return frame.give(Action(taken.magnitude, taken.sign, {}, taken.origins))


_TRANSFORM = Rule(
    _transform_axes,
    _transform,
    "permutations and any scale of the other dimensions",
    recorded=True,
    whatever=("n", "s", "norm"),
)
RULES = {
    **{
        f"fft_{direction}{kind}fft{dims}": _TRANSFORM
        for direction in ("", "i")
        for kind in ("", "r")
        for dims in ("", "2", "n")
    },
    **dict.fromkeys(("fft_hfft", "fft_ihfft"), _TRANSFORM),
    **dict.fromkeys(("fft_fftshift", "fft_ifftshift"), _TRANSFORM),
    "view_as_real": Rule(_pairs_axes, _paired, "everything; pairs of parts keep their order"),
    "view_as_complex": Rule(_unpaired_axes, _paired, "everything; pairs of parts keep their order"),
    **dict.fromkeys(
        ("real", "imag", "conj", "_conj", "_conj_physical", "conj_physical"),
        Rule(same_axes, _part, "everything"),
    ),
    "complex": Rule(broadcast_axes, _complex, "permutations and scales that both parts share"),
    "polar": Rule(broadcast_axes, _polar, "permutations both share; scales of absolute values"),
    "angle": Rule(same_axes, unary(0, "pin"), "any permutation; positive scales", recorded=True),
    "sgn": Rule(same_axes, unary(0, "keep"), "any permutation; any scale", recorded=True),
    **dict.fromkeys(
        ("xlogy", "logaddexp", "logaddexp2", "heaviside", "copysign"),
        Rule(
            broadcast_axes,
            fixed_all,
            "permutations that all operands share",
            recorded=True,
            whatever=("self", "other"),
        ),
    ),
}
