"""Rules of normalisation layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch.fx import Node

from ..inference.actions import Action, Actions, Label, merge_origins
from ..inference.axes import Axis, atoms, regroup, size_of, unify
from ..inference.equations import add
from ..inference.frames import Frame, Member, join
from ..inference.primitives import (
    added,
    equate,
    find_diagonal,
    forgetting,
    outside,
    reshaped,
    summed,
    times,
    times_values,
    total,
)
from ..inference.tracing import Rule, Tracing, Value, arguments, name_of, path_of

_KINDS = {
    "weight": "gain",
    "bias": "shift",
    "running_mean": "mean",
    "running_var": "variance",
}


def _batch_norm_axes(trace: Tracing, node: Node) -> Value:
    call = arguments(node)
    features = trace.axes(call["input"])
    for name in _KINDS:
        if call[name] is not None:
            unify(trace.axes(call[name])[0], features[1], path_of(node))
    if _by_batch(call):
        for dim, axis in enumerate(features):
            trace.mix(features, atoms(axis) if dim != 1 else ())
    return list(features)


def _by_batch(call: Mapping[str, Any]) -> bool:
    """Whether the statistics are those of the batch, not of the past."""
    return bool(call.get("training")) or call["running_mean"] is None


def _weight_norm_axes(trace: Tracing, node: Node) -> Value:
    """``g v / ‖v‖``, the norm taken over all dimensions but one, or over all."""
    call = arguments(node)
    direction, length = trace.axes(call["v"]), trace.axes(call["g"])
    dim = call["dim"]
    if 0 <= dim < len(length) and len(length) == len(direction):
        unify(length[dim], direction[dim], path_of(node))
    return list(direction)


def _affine_axes(trace: Tracing, node: Node, axes: Value, weight: object, bias: object) -> None:
    """Joins gain and shift with the last of ``axes``."""
    for operand in (weight, bias):
        if operand is not None:
            own = trace.axes(operand)
            for first, second in zip(own, axes[-len(own) :], strict=True):
                unify(first, second, path_of(node))


def _normalise(trace: Tracing, features: Value, over: Sequence[Axis]) -> None:
    trace.mix(features, (atom for axis in over for atom in atoms(axis)))


def _last_axes(trace: Tracing, node: Node) -> Value:
    call = arguments(node)
    features = trace.axes(call["input"])
    _normalise(trace, features, features[-len(call["normalized_shape"]) :])
    _affine_axes(trace, node, features, call["weight"], call.get("bias"))
    return list(features)


def _group_norm_axes(trace: Tracing, node: Node) -> Value:
    call = arguments(node)
    features, groups = trace.axes(call["input"]), call["num_groups"]
    size = size_of(features[1])
    _, members = regroup([features[1]], (groups, size // groups), path_of(node))
    _normalise(trace, features, [members, *features[2:]])
    _affine_axes(trace, node, [features[1]], call["weight"], call["bias"])
    return list(features)


def _instance_norm_axes(trace: Tracing, node: Node) -> Value:
    call = arguments(node)
    features = trace.axes(call["input"])
    for name in ("running_mean", "running_var"):
        if call[name] is not None:
            unify(trace.axes(call[name])[0], features[1], path_of(node))
    if call["use_input_stats"]:
        _normalise(trace, features, features[2:])
    _affine_axes(trace, node, [features[1]], call["weight"], call["bias"])
    return list(features)


# --- how results transform ----------------------------------------------------------------------


def _features(actions: Actions, node: Node) -> Frame:
    """The input, then all that there is of gain, shift and statistics, along the channels."""
    call = arguments(node)
    rank = len(actions.axes(call["input"]))
    members: list[Any] = [(call["input"], range(rank))]
    members += [(call[name], [1]) for name in _KINDS if call.get(name) is not None]
    return Frame(actions, node, members, range(rank))


def _positions(call: Mapping[str, Any]) -> dict[str, int]:
    """Which member of the frame is which operand."""
    names = [name for name in _KINDS if call.get(name) is not None]
    return {name: index + 1 for index, name in enumerate(names)}


def affine(frame: Frame, value: Action, gain: int | None, shift: int | None) -> Action:
    """``γ v + β`` for a normalised value: units multiply, those of the shift are the result's."""
    actions = frame.actions
    if gain is not None:
        factor = frame.take(gain)
        find_diagonal(frame, gain, "gain", factor)
        mixed = times_values(frame, 0, factor.shift)
        value = Action(
            join(value.magnitude, factor.magnitude, lambda a, b: add(a, b)),
            join(value.sign, factor.sign, lambda a, b: add(a, b)),
            mixed,
            value.origins,
        )
    if shift is not None:
        value = added(actions, value, total(frame, [shift], [1], "shift"))
    return value


def _batch_norm(actions: Actions, node: Node) -> Any:
    """``γ (x − μ)/√(σ² + ε) + β``: a fresh magnitude, the sign of γ times that of x.

    With the statistics of the batch, shifts per channel vanish; with those of the past, the running
    mean has to follow them, and the running variance the square of the scale.
    """
    call = arguments(node)
    frame, positions = _features(actions, node), _positions(call)
    value = frame.take(0)
    others = [d for d in range(len(actions.axes(call["input"]))) if d != 1]
    if _by_batch(call):
        for name in ("running_mean", "running_var"):
            actions.pin(call[name])
        actions.zero(actions.magnitudes, value.magnitude)
        outside(actions.signs, value.sign, set(others))
        forgetting(frame, value, others)
    else:
        _follow_statistics(frame, positions, call, value)
    result = affine(
        frame,
        Action({}, value.sign, {}, value.origins),
        positions.get("weight"),
        positions.get("bias"),
    )
    return frame.give(result)


def _follow_statistics(
    frame: Frame, positions: dict[str, int], call: Mapping[str, Any], value: Action
) -> None:
    """The running mean moves with the value, the running variance with its square."""
    actions = frame.actions
    mean, variance = (frame.take(positions[name]) for name in ("running_mean", "running_var"))
    equate(actions.magnitudes, value.magnitude, mean.magnitude)
    equate(actions.signs, value.sign, mean.sign)
    equate(actions.shifts, value.shift, mean.shift)
    equate(actions.magnitudes, times(value.magnitude, 2), variance.magnitude)
    actions.zero(actions.signs, variance.sign)
    actions.zero(actions.shifts, variance.shift)
    name = actions.trace.parameter_name(call["running_var"])
    if name is not None and _is_only_a_variance(actions, call["running_var"], call["eps"]):
        # σ² + ε scales by s² exactly if s² (σ² + ε) − ε is stored, so ε goes into the spec's term.
        actions.offsets[name] = float(call["eps"])
    elif call["eps"]:
        actions.zero(actions.magnitudes, variance.magnitude)
    for name in ("running_mean", "running_var"):
        find_diagonal(frame, positions[name], _KINDS[name])


def _is_only_a_variance(actions: Actions, value: Node, epsilon: float) -> bool:
    """Whether every reader of an entry adds the same epsilon to it first."""
    trace = actions.trace
    name = trace.parameter_name(value)
    readers = [n for n in value.graph.nodes if trace.parameter_name(n) == name and n.users]
    shares = name in trace.views or any(view.owner == name for view in trace.views.values())
    return (
        readers == [value]
        and not shares
        and all(_adds(user, value, epsilon) for user in value.users)
    )


def _adds(user: Node, value: Node, epsilon: float) -> bool:
    if name_of(user) not in ("batch_norm", "instance_norm"):
        return False
    call = arguments(user)
    reads = [name for name, operand in call.items() if operand is value]
    by_batch = call.get("training") or call.get("use_input_stats")
    return reads == ["running_var"] and call["eps"] == epsilon and not by_batch


def _weight_norm(actions: Actions, node: Node) -> Action:
    """``g v / ‖v‖``: rows of v keep their signs and lose their magnitudes; g scales the result."""
    call = arguments(node)
    direction, length, dim = call["v"], call["g"], call["dim"]
    rank = len(actions.axes(direction))
    per_row = 0 <= dim < rank and len(actions.axes(length)) == rank
    labels = [dim if n == dim else None for n in range(rank)] if per_row else []
    members: list[Any] = [(direction, range(rank))]
    members += [(length, labels if per_row else [None] * len(actions.axes(length)))]
    frame = Frame(actions, node, members, range(rank))
    gone = [d for d in range(rank) if not (per_row and d == dim)]
    value, factor = frame.take(0), frame.take(1)
    actions.zero(actions.shifts, value.shift)
    kept = summed(frame, Action(value.magnitude, {}, {}, {}), gone)
    magnitude = join(value.magnitude, kept.magnitude, lambda a, b: add(a, b, -1))
    mixed = times_values(frame, 0, factor.shift)
    return frame.give(
        Action(
            join(magnitude, factor.magnitude, lambda a, b: add(a, b)),
            join(value.sign, factor.sign, lambda a, b: add(a, b)),
            mixed,
            merge_origins(value.origins, factor.origins),
        )
    )


def _last(actions: Actions, node: Node) -> tuple[Frame, list[int], int | None, int | None]:
    """The frame of a normalisation of the last dimensions; gain and shift, if there are any."""
    call = arguments(node)
    rank, count = len(actions.axes(call["input"])), len(call["normalized_shape"])
    over = list(range(rank - count, rank))
    members: list[Any] = [(call["input"], range(rank))]
    positions: list[int | None] = []
    for name in ("weight", "bias"):
        value = call.get(name)
        positions.append(len(members) if value is not None else None)
        if value is not None:
            members.append((value, over))
    return Frame(actions, node, members, range(rank)), over, positions[0], positions[1]


def _layer_norm(actions: Actions, node: Node) -> Action:
    """Centring and epsilon leave only a common sign of all normalised entries."""
    frame, over, gain, shift = _last(actions, node)
    value = frame.take(0)
    actions.zero(actions.magnitudes, value.magnitude)
    sign = outside(actions.signs, value.sign, set(over))
    forgetting(frame, value, over)
    return frame.give(affine(frame, Action({}, sign, {}, value.origins), gain, shift))


def _rms_norm(actions: Actions, node: Node) -> Action:
    """Without centring, every entry has a sign of its own."""
    frame, _, gain, shift = _last(actions, node)
    value = frame.take(0)
    actions.zero(actions.magnitudes, value.magnitude)
    actions.zero(actions.shifts, value.shift)
    return frame.give(affine(frame, Action({}, value.sign, {}, value.origins), gain, shift))


def _group_norm(actions: Actions, node: Node) -> Action:
    """All channels of a group are centred and normalised together: they share a sign."""
    call = arguments(node)
    features = actions.axes(call["input"])
    groups = call["num_groups"]
    sizes = (groups, size_of(features[1]) // groups)
    channels = regroup([features[1]], sizes, path_of(node))
    split = [features[0], *channels, *features[2:]]
    labels = ["b", "g", "m", *(f"p{n}" for n in range(len(features) - 2))]
    members = [Member(call["input"], labels, split, _dealt(actions, call["input"], split))]
    for name in ("weight", "bias"):
        if call[name] is not None:
            action = _dealt(actions, call[name], channels)
            members.append(Member(call[name], ["g", "m"], channels, action))
    frame, positions = Frame(actions, node, members, labels, split), _positions(call)
    value = frame.take(0)
    over = set[Label](labels) - {"b", "g"}
    actions.zero(actions.magnitudes, value.magnitude)
    sign = outside(actions.signs, value.sign, over)
    forgetting(frame, value, over)
    scaled = affine(
        frame, Action({}, sign, {}, value.origins), positions.get("weight"), positions.get("bias")
    )
    return reshaped(actions, frame.give(scaled), split, actions.axes(node))


def _dealt(actions: Actions, operand: object, axes: Value) -> Action:
    return reshaped(actions, actions.of(operand), actions.axes(operand), axes)


def _instance_norm(actions: Actions, node: Node) -> Action:
    """Every channel of every example by itself: a sign stays, shifts per channel vanish."""
    call = arguments(node)
    frame, positions = _features(actions, node), _positions(call)
    value = frame.take(0)
    over = list(range(2, len(actions.axes(call["input"]))))
    if call["use_input_stats"] or call["running_mean"] is None:
        for name in ("running_mean", "running_var"):
            actions.pin(call[name])
        actions.zero(actions.magnitudes, value.magnitude)
        sign = outside(actions.signs, value.sign, set(over))
        forgetting(frame, value, over)
    else:
        _follow_statistics(frame, positions, call, value)
        sign = value.sign
    return frame.give(
        affine(
            frame,
            Action({}, sign, {}, value.origins),
            positions.get("weight"),
            positions.get("bias"),
        )
    )


RULES = {
    "batch_norm": Rule(
        _batch_norm_axes,
        _batch_norm,
        "permutations of channels; any scale before it, with its statistics; its own gain's scale",
        recorded=True,
        whatever=("eps",),
    ),
    "_weight_norm": Rule(
        _weight_norm_axes, _weight_norm, "permutations of all dimensions; scales of rows"
    ),
    "layer_norm": Rule(
        _last_axes,
        _layer_norm,
        "permutations of normalised dimensions; a common sign; its gain's scale",
        recorded=True,
        whatever=("eps",),
    ),
    **dict.fromkeys(
        ("rms_norm", "_fused_rms_norm"),
        Rule(
            _last_axes,
            _rms_norm,
            "permutations of normalised dimensions; signs; its gain's scale",
            recorded=True,
            whatever=("eps",),
        ),
    ),
    "group_norm": Rule(
        _group_norm_axes,
        _group_norm,
        "permutations of groups, and within them; its gain's scale",
        recorded=True,
        whatever=("eps",),
    ),
    "instance_norm": Rule(
        _instance_norm_axes,
        _instance_norm,
        "permutations of channels; signs; its gain's scale",
        recorded=True,
        whatever=("eps",),
    ),
}
