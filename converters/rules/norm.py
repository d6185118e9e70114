"""Normalisation layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.fx import Node

from ..axes import Axis, atoms, regroup, size_of, unify
from ..tracing import Rule, Tracing, Value, arguments, atoms_of, place_of
from ..units import ONE, Unit
from .pointwise import BOTH, fixed_unit

_KINDS = {
    "weight": "gain",
    "bias": "shift",
    "running_mean": "mean",
    "running_var": "variance",
}


def _batch_norm_axes(trace: Tracing, node: Node) -> Value:
    call = arguments(node)
    features = trace.axes(call["input"])
    for name, kind in _KINDS.items():
        if call[name] is not None:
            unify(trace.axes(call[name])[0], features[1], place_of(node))
            trace.use(call[name], node, kind, ("both",))
    return list(features)


def _batch_norm_units(trace: Tracing, node: Node) -> Unit:
    """``γ (x − μ)/√(σ² + ε) + β``: a fresh magnitude, the sign of γ times that of x."""
    call = arguments(node)
    value = trace.unit(call["input"])
    if call["running_mean"] is None or call["running_var"] is None:
        trace.balance.fix(value)
        value = ONE
    else:
        trace.balance.equal(trace.unit(call["running_mean"]), value)
        trace.balance.equal(trace.unit(call["running_var"]), (value**2).magnitude)
        name = trace.parameter_name(call["running_var"])
        if name is not None:
            trace.offsets[name] = float(call["eps"])
    result = value.sign * trace.unit(call["weight"])
    if call["bias"] is not None:
        trace.balance.equal(trace.unit(call["bias"]), result)
    return result


def _weight_norm_axes(trace: Tracing, node: Node) -> Value:
    """``g v / ‖v‖``, the norm taken over all dimensions but one."""
    call = arguments(node)
    direction, length = trace.axes(call["v"]), trace.axes(call["g"])
    dim = call["dim"]
    unify(length[dim], direction[dim], place_of(node))
    return direction


def _affine_axes(trace: Tracing, node: Node, axes: Value, weight: object, bias: object) -> None:
    """Joins gain and shift with the last of ``axes``."""
    for operand, kind in ((weight, "gain"), (bias, "shift")):
        if operand is not None:
            own = trace.axes(operand)
            for first, second in zip(own, axes[-len(own) :], strict=True):
                unify(first, second, place_of(node))
            trace.use(operand, node, kind, BOTH * len(own))


def _normalise(trace: Tracing, features: Value, over: Sequence[Axis]) -> None:
    trace.mix(features, (atom for axis in over for atom in atoms(axis)))


def _last_axes(trace: Tracing, node: Node) -> Value:
    call = arguments(node)
    features = trace.axes(call["input"])
    _normalise(trace, features, features[-len(call["normalized_shape"]) :])
    _affine_axes(trace, node, features, call["weight"], call.get("bias"))
    return list(features)


def _affine_unit(trace: Tracing, call: dict[str, Any], value: Unit) -> Unit:
    result = value * (ONE if call["weight"] is None else trace.unit(call["weight"]))
    if call.get("bias") is not None:
        trace.balance.equal(trace.unit(call["bias"]), result)
    return result


def _layer_norm_units(trace: Tracing, node: Node) -> Unit:
    """Centring and epsilon leave only a common sign of all normalised entries."""
    call = arguments(node)
    axes, count = trace.axes(call["input"]), len(call["normalized_shape"])
    value = trace.balance.restrict(trace.unit(call["input"]), atoms_of(*axes[:-count]))
    value = trace.balance.merge(value)
    trace.balance.fix_magnitude(value)
    return _affine_unit(trace, call, value.sign)


def _rms_norm_units(trace: Tracing, node: Node) -> Unit:
    """Without centring, every entry has a sign of its own."""
    call = arguments(node)
    value = trace.unit(call["input"])
    trace.balance.fix_magnitude(value)
    return _affine_unit(trace, call, value.sign)


def _group_norm_axes(trace: Tracing, node: Node) -> Value:
    call = arguments(node)
    features, groups = trace.axes(call["input"]), call["num_groups"]
    size = size_of(features[1])
    _, members = regroup([features[1]], (groups, size // groups), place_of(node))
    _normalise(trace, features, [members, *features[2:]])
    _affine_axes(trace, node, [features[1]], call["weight"], call["bias"])
    return list(features)


def _group_norm_units(trace: Tracing, node: Node) -> Unit:
    call = arguments(node)
    trace.balance.fix(trace.unit(call["input"]))
    return _affine_unit(trace, call, ONE)


def _instance_norm_axes(trace: Tracing, node: Node) -> Value | None:
    call = arguments(node)
    if call["running_mean"] is not None:
        return None
    features = trace.axes(call["input"])
    _normalise(trace, features, features[2:])
    _affine_axes(trace, node, [features[1]], call["weight"], call["bias"])
    return list(features)


def _instance_norm_units(trace: Tracing, node: Node) -> Unit:
    call = arguments(node)
    if call["running_mean"] is not None:
        return fixed_unit(trace, node)
    axes = trace.axes(call["input"])
    value = trace.balance.restrict(trace.unit(call["input"]), atoms_of(*axes[:2]))
    trace.balance.fix_magnitude(value)
    return _affine_unit(trace, call, value.sign)


RULES = {
    "batch_norm": Rule(
        _batch_norm_axes,
        _batch_norm_units,
        "permutations of channels; any scale before it, with its statistics; its own gain's scale",
    ),
    "_weight_norm": Rule(_weight_norm_axes, fixed_unit, "permutations of all dimensions"),
    "layer_norm": Rule(
        _last_axes,
        _layer_norm_units,
        "permutations of normalised dimensions; a common sign; its gain's scale",
    ),
    "rms_norm": Rule(
        _last_axes,
        _rms_norm_units,
        "permutations of normalised dimensions; signs; its gain's scale",
    ),
    "group_norm": Rule(
        _group_norm_axes,
        _group_norm_units,
        "permutations of groups, and within them; its gain's scale",
    ),
    "instance_norm": Rule(
        _instance_norm_axes,
        _instance_norm_units,
        "permutations of channels; signs; its gain's scale",
    ),
}

# Buffers in these arguments are statistics of the features and move with them.
STATISTICS = {"batch_norm": ("running_mean", "running_var")}
