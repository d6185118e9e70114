"""Rules of pooling and reductions."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch.fx import Node

from ..inference.actions import NOTHING, Action, Actions
from ..inference.axes import fix, fixed, mark_position, unify
from ..inference.frames import Frame
from ..inference.primitives import extremum, forgetting, homogeneous, pinned, summed, times
from ..inference.tracing import Rule, Tracing, Value, arguments, atoms_of, name_of, path_of
from .pointwise import broadcast_axes, larger, pinned_all
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


def _reduced(trace: Tracing, node: Node) -> set[int]:
    rank = len(trace.axes(node.args[0]))
    dims = arguments(node).get("dim")
    listed = dims if isinstance(dims, (list, tuple)) else [] if dims is None else [dims]
    return {dim % rank for dim in listed if rank} or set(range(rank))


def _reduction_axes(trace: Tracing, node: Node) -> Value:
    axes, reduced = trace.axes(node.args[0]), _reduced(trace, node)
    if arguments(node).get("keepdim"):
        return [fixed(1, "reduced") if i in reduced else a for i, a in enumerate(axes)]
    return [axis for i, axis in enumerate(axes) if i not in reduced]


def _extreme_axes(trace: Tracing, node: Node) -> Value | list[Value]:
    """``max`` and ``min``: of two values, of a whole value, or along a dimension."""
    if len(node.all_input_nodes) > 1:
        return broadcast_axes(trace, node)
    if not isinstance(node.meta["val"], tuple):
        return _reduction_axes(trace, node)
    result = _argument_axes(trace, node)  # the second result tells where the extremum was
    return [result, result]


def _argument_axes(trace: Tracing, node: Node) -> Value:
    for dim in _reduced(trace, node):
        fix(trace.axes(node.args[0])[dim], "the index of the largest entry")
    return _reduction_axes(trace, node)


def _resize_axes(trace: Tracing, node: Node) -> Value:
    features = trace.axes(node.args[0])
    for axis in features[2:]:
        fix(axis, "resizing tells positions apart")
        mark_position(axis)
    return [*features[:2], *feature_map(node, len(features) - 2)]


def _sampled_axes(trace: Tracing, node: Node) -> Value:
    """``grid_sample``: every channel is read at the same positions."""
    features, grid = trace.axes(node.args[0]), trace.axes(node.args[1])
    unify(features[0], grid[0], path_of(node))
    for axis in (*features[2:], *grid[1:]):
        fix(axis, "sampling tells positions apart")
        mark_position(axis)
    return [*features[:2], *feature_map(node, len(features) - 2)]


# --- how results transform ----------------------------------------------------------------------


def _per_channel(actions: Actions, node: Node, spatial: int, result: int) -> Frame:
    """The frame of an operation that mixes positions of a feature map, channel by channel."""
    rank = len(actions.axes(node.args[0]))
    front: list[int | None] = list(range(rank - spatial))
    after = _first(actions.trace.values[node])
    return Frame(
        actions,
        node,
        [(node.args[0], [*front, *[None] * spatial])],
        [*front, *[None] * result],
        after,
    )


def _first(values: Any) -> Value:
    result: Value = values[0] if values and isinstance(values[0], list) else values
    return result


def _pool(actions: Actions, node: Node) -> Any:
    """Averages keep any scale, maxima positive ones; padded borders break shifts.

    What is added to all positions alike is added to an average of positions alone.
    """
    frame = _per_channel(actions, node, _spatial(node), _spatial(node))
    maximum = "max" in name_of(node)
    if not maximum and _averages_places(node):
        result = frame.take(0)
    else:
        result = homogeneous(frame, degree=1, sign="pin" if maximum else "keep")
    given = frame.give(result)
    if not maximum:
        _linear_kept(actions, node)
    return [given, NOTHING] if isinstance(node.meta["val"], (tuple, list)) else given


def _averages_places(node: Node) -> bool:
    """Whether every window lies within the feature map."""
    if name_of(node).startswith("adaptive"):
        return True
    call = arguments(node)
    return (
        not any(call["padding"]) and not call["ceil_mode"] and call.get("divisor_override") is None
    )


def _linear_kept(actions: Actions, node: Node) -> None:
    kept = atoms_of(*actions.axes(node.args[0])) & atoms_of(*_first(actions.trace.values[node]))
    actions.linear[node] = kept


def _resize(actions: Actions, node: Node) -> Action:
    spatial = len(actions.axes(node.args[0])) - 2
    frame = _per_channel(actions, node, spatial, spatial)
    _linear_kept(actions, node)
    return frame.give(homogeneous(frame, degree=1, sign="keep"))


def _sampled(actions: Actions, node: Node) -> Action:
    actions.pin(node.args[1])
    return _resize(actions, node)


def reduction(actions: Actions, node: Node, axes: Value | None = None) -> tuple[Frame, set[int]]:
    """The frame of a reduction of the first operand, and the labels that go."""
    rank, reduced = len(actions.axes(node.args[0])), _reduced(actions.trace, node)
    keep = arguments(node).get("keepdim")
    result: list[int | None] = [
        None if dim in reduced else dim for dim in range(rank) if keep or dim not in reduced
    ]
    return Frame(actions, node, [(node.args[0], range(rank))], result, axes), reduced


def _sum(actions: Actions, node: Node) -> Action:
    frame, reduced = reduction(actions, node)
    _linear_kept(actions, node)
    actions.linear[node] -= frame.atoms_at(reduced)
    averages = name_of(node) == "mean"
    return frame.give(summed(frame, frame.take(0), reduced, counts=not averages))


def _length(actions: Actions, node: Node) -> Action:
    """``‖sx‖ = |s| ‖x‖``; the count of entries that are not 0 (order 0) is another thing."""
    call = arguments(node)
    frame, reduced = reduction(actions, node)
    if call.get("ord", call.get("p")) == 0:
        return frame.give(pinned(frame))
    actions.zero(actions.shifts, frame.take(0).shift)
    return frame.give(distances(frame, reduced, 1))


def distances(frame: Frame, labels: Collection[int], degree: int) -> Action:
    """Powers of magnitudes along dimensions, summed: signs are dropped before."""
    taken = frame.take(0)
    whole = Action(times(taken.magnitude, degree), {}, {}, taken.origins)
    return summed(frame, whole, labels)


def _variance(actions: Actions, node: Node) -> Action:
    """What is alike along the dimensions is subtracted before; a common sign is dropped."""
    frame, reduced = reduction(actions, node)
    taken = frame.take(0)
    forgetting(frame, taken, reduced)
    degree = 2 if name_of(node) == "var" else 1
    whole = Action(times(taken.magnitude, degree), taken.sign, {}, taken.origins)
    result = summed(frame, whole, reduced)
    return frame.give(Action(result.magnitude, {}, {}, result.origins))


def _logsumexp(actions: Actions, node: Node) -> Action:
    """What is added to all entries alike is added to the result."""
    frame, reduced = reduction(actions, node)
    taken = frame.take(0)
    actions.zero(actions.magnitudes, taken.magnitude)
    actions.zero(actions.signs, taken.sign)
    return frame.give(extremum(frame, reduced))


def _extreme(actions: Actions, node: Node) -> Any:
    if len(node.all_input_nodes) > 1:
        return larger(actions, node)
    axes = _first(actions.trace.values[node])
    frame, reduced = reduction(actions, node, axes)
    given = frame.give(extremum(frame, reduced))
    return [given, NOTHING] if isinstance(node.meta["val"], (tuple, list)) else given


def _argument(actions: Actions, node: Node) -> Action:
    """Which entry is largest: positive scales and shifts that all of them share do not matter."""
    frame, reduced = reduction(actions, node)
    extremum(frame, reduced)
    return NOTHING


def _product_of_all(actions: Actions, node: Node) -> Any:
    return pinned_all(actions, node)


def _both_axes(trace: Tracing, node: Node) -> list[Value]:
    """Two measures of one value."""
    result = _reduction_axes(trace, node)
    return [result, list(result)]


def _variance_and_mean(actions: Actions, node: Node) -> list[Action]:
    variance, mean = actions.trace.values[node]
    frame, reduced = reduction(actions, node, variance)
    taken = frame.take(0)
    forgetting(frame, taken, reduced)
    degree = 2 if name_of(node) == "var_mean" else 1
    whole = Action(times(taken.magnitude, degree), taken.sign, {}, taken.origins)
    spread = summed(frame, whole, reduced)
    centre, _ = reduction(actions, node, mean)
    average = summed(centre, centre.take(0), reduced, counts=False)
    return [frame.give(Action(spread.magnitude, {}, {}, spread.origins)), centre.give(average)]


def _extremes(actions: Actions, node: Node) -> list[Action]:
    results = []
    for axes in actions.trace.values[node]:
        frame, reduced = reduction(actions, node, axes)
        results.append(frame.give(extremum(frame, reduced)))
    return results


_CHANNELS = "permutations of channels"
_WINDOWS = (
    *("kernel_size", "stride", "padding", "dilation", "ceil_mode", "count_include_pad"),
    *("divisor_override",),
)
_SAMPLING = (
    *("align_corners", "scales", "scales_d", "scales_h", "scales_w", "scale_factors"),
    *("interpolation_mode", "padding_mode"),
)
_AVERAGE = Rule(
    _pool_axes, _pool, f"{_CHANNELS}; any scale of them", recorded=True, whatever=_WINDOWS
)
_MAXIMUM = Rule(
    _pool_axes, _pool, f"{_CHANNELS}; positive scales", recorded=True, whatever=_WINDOWS
)
_SUM = Rule(_reduction_axes, _sum, "any permutation; scales kept", recorded=True)
_EXTREMUM = Rule(_reduction_axes, _extreme, "any permutation; positive scales kept", recorded=True)
_LENGTH = Rule(_reduction_axes, _length, "any permutation; any scale kept", recorded=True)
_RESIZE = Rule(
    _resize_axes, _resize, f"{_CHANNELS}; any scale of them", recorded=True, whatever=_SAMPLING
)
_ARGUMENT = Rule(_argument_axes, _argument, "permutations of the other dimensions; positive scales")
RULES = {
    **{f"{kind}avg_pool{n}d": _AVERAGE for kind in ("", "adaptive_") for n in (1, 2, 3)},
    **{
        f"{kind}max_pool{n}d{more}": _MAXIMUM
        for kind in ("", "adaptive_")
        for n in (1, 2, 3)
        for more in ("", "_with_indices")
    },
    **dict.fromkeys(
        [f"upsample_nearest{n}d" for n in (1, 2, 3)]
        + [f"_upsample_nearest_exact{n}d" for n in (1, 2, 3)]
        + [
            "upsample_linear1d",
            "upsample_bilinear2d",
            "upsample_bicubic2d",
            "upsample_trilinear3d",
            "_upsample_bilinear2d_aa",
            "_upsample_bicubic2d_aa",
        ],
        _RESIZE,
    ),
    **dict.fromkeys(
        ("grid_sampler", "grid_sampler_2d", "grid_sampler_3d"),
        Rule(
            _sampled_axes,
            _sampled,
            f"{_CHANNELS}; any scale of them",
            recorded=True,
            whatever=_SAMPLING,
        ),
    ),
    **dict.fromkeys(("linalg_vector_norm", "norm"), _LENGTH),
    **dict.fromkeys(
        ("std", "var"),
        Rule(
            _reduction_axes,
            _variance,
            "any permutation; any scale kept",
            recorded=True,
            whatever=("correction", "unbiased"),
        ),
    ),
    **dict.fromkeys(
        ("var_mean", "std_mean"),
        Rule(
            _both_axes,
            _variance_and_mean,
            "any permutation; any scale kept",
            recorded=True,
            whatever=("correction", "unbiased"),
        ),
    ),
    "aminmax": Rule(_both_axes, _extremes, "any permutation; positive scales kept", recorded=True),
    "logsumexp": Rule(_reduction_axes, _logsumexp, "any permutation; shifts kept", recorded=True),
    **dict.fromkeys(
        ("any", "all", "count_nonzero", "prod", "nansum", "nanmean"),
        Rule(_reduction_axes, _product_of_all, "any permutation", recorded=True),
    ),
    **dict.fromkeys(("argmax", "argmin"), _ARGUMENT),
    "mean": _SUM,
    "sum": _SUM,
    **dict.fromkeys(
        ("max", "min"),
        Rule(_extreme_axes, _extreme, "any permutation; positive scales", recorded=True),
    ),
    "amax": _EXTREMUM,
    "amin": _EXTREMUM,
}
