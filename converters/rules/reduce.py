"""Pooling and reductions."""

from __future__ import annotations

from torch.fx import Node

from ..axes import fix, fixed, mark_position, unify
from ..tracing import Rule, Tracing, Value, arguments, atoms_of, name_of, place_of
from ..units import Unit
from .linear import kept
from .pointwise import broadcast_axes, fixed_unit
from .weights import feature_map


def _spatial(node: Node) -> int:
    return int(name_of(node).removesuffix("_with_indices")[-2])


def _pool_axes(trace: Tracing, node: Node) -> Value | list[Value]:
    features, spatial = trace.axes(node.args[0]), _spatial(node)
    for axis in features[-spatial:]:
        fix(axis, "pooling tells positions apart")
        mark_position(axis)
    result = [*features[:-spatial], *feature_map(node, spatial)]
    return [result, result] if isinstance(node.meta["val"], tuple) else result


def _average_units(trace: Tracing, node: Node) -> Unit:
    kept = trace.axes(node.args[0])[: -_spatial(node)]
    return trace.balance.restrict(trace.unit(node.args[0]), atoms_of(*kept))


def _maximum_units(trace: Tracing, node: Node) -> Unit:
    unit = _average_units(trace, node)
    trace.balance.fix_sign(unit)
    return unit


def _reduced(trace: Tracing, node: Node) -> set[int]:
    rank = len(trace.axes(node.args[0]))
    dims = arguments(node).get("dim")
    listed = dims if isinstance(dims, (list, tuple)) else [] if dims is None else [dims]
    return {dim % rank for dim in listed} or set(range(rank))


def _reduction_axes(trace: Tracing, node: Node) -> Value:
    axes, reduced = trace.axes(node.args[0]), _reduced(trace, node)
    if arguments(node).get("keepdim"):
        return [fixed(1, "reduced") if i in reduced else a for i, a in enumerate(axes)]
    return [axis for i, axis in enumerate(axes) if i not in reduced]


def _reduction_units(trace: Tracing, node: Node) -> Unit:
    axes, reduced = trace.axes(node.args[0]), _reduced(trace, node)
    kept = [axis for i, axis in enumerate(axes) if i not in reduced]
    return trace.balance.restrict(trace.unit(node.args[0]), atoms_of(*kept))


def _norm_units(trace: Tracing, node: Node) -> Unit:
    """Norms take magnitudes out; counting the entries that are not zero is no norm."""
    call = arguments(node)
    if call.get("ord", call.get("p")) == 0:
        return fixed_unit(trace, node)
    return _reduction_units(trace, node).magnitude


def _extreme_axes(trace: Tracing, node: Node) -> Value | list[Value]:
    """``max`` and ``min``: of two values, of a whole value, or along a dimension."""
    if len(node.all_input_nodes) > 1:
        return broadcast_axes(trace, node)
    if not isinstance(node.meta["val"], tuple):
        return _reduction_axes(trace, node)
    result = _argument_axes(trace, node)  # the second result tells where the extremum was
    return [result, result]


def _extreme_units(trace: Tracing, node: Node) -> Unit:
    if len(node.all_input_nodes) > 1:
        first, second = (trace.unit(operand) for operand in node.args)
        trace.balance.equal(first, second)
        trace.balance.fix_sign(first)
        return first
    return _extremum_units(trace, node)


def _extremum_units(trace: Tracing, node: Node) -> Unit:
    unit = _reduction_units(trace, node)
    trace.balance.fix_sign(unit)
    return unit


def _length_units(trace: Tracing, node: Node) -> Unit:
    """``‖sx‖ = |s| ‖x‖``; the count of entries that are not 0 (order 0) is another thing."""
    if arguments(node)["ord"] == 0:
        return fixed_unit(trace, node)
    return _reduction_units(trace, node).magnitude


def _argument_axes(trace: Tracing, node: Node) -> Value:
    for place in _reduced(trace, node):
        fix(trace.axes(node.args[0])[place], "the place of the largest entry")
    return _reduction_axes(trace, node)


def _resize_axes(trace: Tracing, node: Node) -> Value:
    features = trace.axes(node.args[0])
    for axis in features[2:]:
        fix(axis, "resizing tells positions apart")
        mark_position(axis)
    return [*features[:2], *feature_map(node, len(features) - 2)]


def _sampled_axes(trace: Tracing, node: Node) -> Value:
    """``grid_sample``: every channel is read at the same places."""
    features, grid = trace.axes(node.args[0]), trace.axes(node.args[1])
    unify(features[0], grid[0], place_of(node))
    for axis in (*features[2:], *grid[1:]):
        fix(axis, "sampling tells positions apart")
        mark_position(axis)
    return [*features[:2], *feature_map(node, len(features) - 2)]


def _sampled_units(trace: Tracing, node: Node) -> Unit:
    trace.balance.fix(trace.unit(node.args[1]))
    return _resize_units(trace, node)


def _resize_units(trace: Tracing, node: Node) -> Unit:
    kept = trace.axes(node.args[0])[:2]
    return trace.balance.restrict(trace.unit(node.args[0]), atoms_of(*kept))


_CHANNELS = "permutations of channels"
_AVERAGE = Rule(
    _pool_axes, _average_units, f"{_CHANNELS}; any scale of them", recorded=True, linear=kept
)
_MAXIMUM = Rule(_pool_axes, _maximum_units, f"{_CHANNELS}; positive scales", recorded=True)
_SUM = Rule(
    _reduction_axes, _reduction_units, "any permutation; scales kept", recorded=True, linear=kept
)
_EXTREMUM = Rule(
    _reduction_axes, _extremum_units, "any permutation; positive scales kept", recorded=True
)
RULES = {
    **{f"{kind}avg_pool{n}d": _AVERAGE for kind in ("", "adaptive_") for n in (1, 2, 3)},
    **{f"{kind}max_pool{n}d": _MAXIMUM for kind in ("", "adaptive_") for n in (1, 2, 3)},
    **dict.fromkeys(
        [f"upsample_nearest{n}d" for n in (1, 2, 3)]
        + [
            "upsample_linear1d",
            "upsample_bilinear2d",
            "upsample_bicubic2d",
            "upsample_trilinear3d",
        ],
        Rule(
            _resize_axes,
            _resize_units,
            f"{_CHANNELS}; any scale of them",
            recorded=True,
            linear=kept,
        ),
    ),
    **dict.fromkeys(
        ("grid_sampler", "grid_sampler_2d", "grid_sampler_3d"),
        Rule(_sampled_axes, _sampled_units, f"{_CHANNELS}; any scale of them", recorded=True),
    ),
    **dict.fromkeys(
        ("linalg_vector_norm", "norm"),
        Rule(_reduction_axes, _norm_units, "any permutation; magnitudes kept", recorded=True),
    ),
    **dict.fromkeys(
        ("std", "var", "logsumexp"),
        Rule(_reduction_axes, fixed_unit, "any permutation", recorded=True),
    ),
    "argmax": Rule(_argument_axes, fixed_unit, "permutations of the other dimensions"),
    "argmin": Rule(_argument_axes, fixed_unit, "permutations of the other dimensions"),
    "mean": _SUM,
    "sum": _SUM,
    **dict.fromkeys(
        ("max", "min"),
        Rule(_extreme_axes, _extreme_units, "any permutation; positive scales", recorded=True),
    ),
    "linalg_vector_norm": Rule(
        _reduction_axes, _length_units, "any permutation; any scale kept", recorded=True
    ),
    "amax": _EXTREMUM,
    "amin": _EXTREMUM,
}
