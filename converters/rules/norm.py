"""Normalisation layers."""

from __future__ import annotations

from torch.fx import Node

from ..axes import unify
from ..tracing import Rule, Tracing, Value, arguments, place_of
from ..units import ONE, Unit

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
        trace.balance.equal(trace.unit(call["running_var"]), Unit((value**2).magnitude, {}))
        name = trace.parameter_name(call["running_var"])
        if name is not None:
            trace.offsets[name] = float(call["eps"])
    result = Unit({}, value.sign) * trace.unit(call["weight"])
    if call["bias"] is not None:
        trace.balance.equal(trace.unit(call["bias"]), result)
    return result


RULES = {
    "batch_norm": Rule(
        _batch_norm_axes,
        _batch_norm_units,
        "permutations of channels; any scale before it, with its statistics; its own gain's scale",
    ),
}

# Buffers in these arguments are statistics of the features and move with them.
STATISTICS = {"batch_norm": ("running_mean", "running_var")}
