"""Operations that mix neurons through a weight tensor: linear maps and convolutions."""

from __future__ import annotations

from collections.abc import Sequence

from torch.fx import Node

from gmn.spec import Port

from ..axes import Axis, fix, fixed, mark_position, regroup, size_of, unify
from ..tracing import Rule, Tracing, Value, arguments, atoms_of, place_of, shape_of
from ..units import Unit
from .linear import mapped
from .pointwise import fixed_unit


def _linear_axes(trace: Tracing, node: Node) -> Value:
    call = arguments(node)
    features, weight = trace.axes(call["input"]), trace.axes(call["weight"])
    unify(features[-1], weight[-1], place_of(node))
    trace.contract(weight[-1])
    ports: tuple[Port, ...] = ("target", "source") if len(weight) == 2 else ("source",)
    trace.use(call["weight"], node, "weight", ports)
    if len(weight) == 1:
        return features[:-1]
    _bias_axes(trace, node, call["bias"], weight[0])
    return [*features[:-1], weight[0]]


def _addmm_axes(trace: Tracing, node: Node) -> Value | None:
    """``b + x @ W``, with a parameter matrix."""
    bias, features, matrix = node.args
    if not is_matrix(trace, matrix):
        return None
    weight = trace.axes(matrix)
    unify(trace.axes(features)[-1], weight[0], place_of(node))
    trace.contract(weight[0])
    trace.use(matrix, node, "weight", ("source", "target"))
    _bias_axes(trace, node, bias, weight[1])
    return [*trace.axes(features)[:-1], weight[1]]


def _addmm_units(trace: Tracing, node: Node) -> Unit:
    bias, features, matrix = node.args
    return _product_unit(trace, node, trace.unit(features), matrix, bias)


def is_matrix(trace: Tracing, value: object) -> bool:
    """Whether an operand is a parameter with two dimensions."""
    return trace.parameter_name(value) is not None and len(trace.axes(value)) == 2


def product_axes(trace: Tracing, node: Node) -> Value:
    """``x @ W`` with a parameter matrix."""
    features, weight = trace.axes(node.args[0]), trace.axes(node.args[1])
    unify(features[-1], weight[0], place_of(node))
    trace.contract(weight[0])
    trace.use(node.args[1], node, "weight", ("source", "target"))
    return [*features[:-1], weight[1]]


def _bias_axes(trace: Tracing, node: Node, bias: object, channels: Axis) -> None:
    if bias is not None:
        unify(trace.axes(bias)[0], channels, place_of(node))
        trace.use(bias, node, "bias", ("both",))


def _conv_axes(trace: Tracing, node: Node) -> Value:
    call = arguments(node)
    features, weight = trace.axes(call["input"]), trace.axes(call["weight"])
    spatial = len(weight) - 2
    channel = len(features) - spatial - 1
    places = _convolved(node, features[channel + 1 :], weight[2:])
    shared = _conv_channels(features[channel], weight, call["groups"], place_of(node))
    trace.contract(weight[1], [shared])
    steps = (1.0, 1.0, *(float(d) for d in call["dilation"]))
    taps: list[Port] = ["tap"] * spatial
    trace.use(call["weight"], node, "weight", ("target", "source", *taps), shared, steps)
    _bias_axes(trace, node, call["bias"], weight[0])
    return [*features[:channel], weight[0], *places]


def _convolved(node: Node, before: Sequence[Axis], kernel: Sequence[Axis]) -> list[Axis]:
    """Places of the result. Where the kernel has width one, they stay what they are."""
    padding = arguments(node)["padding"]
    amounts = [0] * len(kernel) if isinstance(padding, str) else list(padding)
    amounts = amounts * len(kernel) if len(amounts) == 1 else amounts
    after = feature_map(node, len(kernel))
    for dim, (axis, taps) in enumerate(zip(before, kernel, strict=True)):
        if size_of(taps) == 1 and size_of(axis) == size_of(after[dim]) and not amounts[dim]:
            after[dim] = axis
        else:
            fix(axis, "a convolution tells positions apart")
        fix(taps, "a convolution tells positions apart")
        mark_position((*axis, *taps))
    return after


def _transposed_axes(trace: Tracing, node: Node) -> Value:
    """Transposed convolution: the weight is (inputs, outputs per group, *kernel)."""
    call = arguments(node)
    features, weight = trace.axes(call["input"]), trace.axes(call["weight"])
    spatial, groups = len(weight) - 2, call["groups"]
    channel = len(features) - spatial - 1
    for axis in (*features[channel + 1 :], *weight[2:]):
        fix(axis, "a convolution tells positions apart")
        mark_position(axis)
    unify(features[channel], weight[0], place_of(node))
    outputs: Axis = weight[1]
    shared: Axis = ()
    if groups > 1:
        shared, _ = regroup([weight[0]], (groups, size_of(weight[0]) // groups), place_of(node))
        outputs = (*shared, *weight[1])
    trace.contract(weight[0], [shared])
    steps = (1.0, 1.0, *(float(d) for d in call["dilation"]))
    taps: list[Port] = ["tap"] * spatial
    trace.use(call["weight"], node, "weight", ("source", "target", *taps), shared, steps)
    _bias_axes(trace, node, call["bias"], outputs)
    return [*features[:channel], outputs, *feature_map(node, spatial)]


def _conv_channels(channels: Axis, weight: Value, groups: int, place: str) -> Axis:
    """Joins input channels and weight; returns what both ends of a grouped kernel share."""
    if groups == 1:
        unify(channels, weight[1], place)
        return ()
    per_group = size_of(channels) // groups
    group, member = regroup([channels], (groups, per_group), place)
    rows, _ = regroup([weight[0]], (groups, size_of(weight[0]) // groups), place)
    unify(rows, group, place)
    if per_group > 1:
        unify(weight[1], member, place)
    return group


def feature_map(node: Node, spatial: int) -> list[Axis]:
    """Axes of the places of a new feature map."""
    axes = [fixed(size, "places of a feature map") for size in shape_of(node)[-spatial:]]
    for axis in axes:
        mark_position(axis)
    return axes


def _bilinear_axes(trace: Tracing, node: Node) -> Value:
    """``y_k = x' W_k z + b_k``: the weight's sources are pairs of neurons."""
    call = arguments(node)
    first, second, weight = (trace.axes(call[name]) for name in ("input1", "input2", "weight"))
    for axis, features in zip(weight[1:], (first, second), strict=True):
        unify(features[-1], axis, place_of(node))
        trace.contract(axis)
    for one, other in zip(first[:-1], second[:-1], strict=True):
        unify(one, other, place_of(node))
    trace.use(call["weight"], node, "weight", ("target", "source", "source"))
    _bias_axes(trace, node, call["bias"], weight[0])
    return [*first[:-1], weight[0]]


def _bilinear_units(trace: Tracing, node: Node) -> Unit:
    first, second, weight, bias = arguments(node).values()
    return _product_unit(trace, node, trace.unit(first) * trace.unit(second), weight, bias)


def contraction_units(trace: Tracing, node: Node) -> Unit:
    """``y = Wx + b``: [W] is [y] over [x], and [b] is [y]."""
    features, weight, *bias = node.args
    value, places = trace.unit(features), arguments(node).get("dilation", ())
    if places:
        value = trace.balance.restrict(value, atoms_of(*trace.axes(features)[: -len(places)]))
    return _product_unit(trace, node, value, weight, bias[0] if bias else None)


def _product_unit(trace: Tracing, node: Node, value: Unit, weight: object, bias: object) -> Unit:
    use = trace.find_use(node, weight)
    if use is None:
        return fixed_unit(trace, node)
    axes = trace.axes(weight)
    columns = [axis for axis, port in zip(axes, use.ports, strict=True) if port == "source"]
    inside, outside = trace.balance.split(value, atoms_of(*columns, use.shared))
    trace.balance.fix(inside * trace.end_scale(use, "source"))
    result = trace.balance.merge(outside)
    if "target" in use.ports:
        result = result * trace.end_scale(use, "target")
    if bias is not None:
        trace.balance.equal(trace.unit(bias), result)
    return result


_CONTRACTION = "permutations and scalings of the rows; those of the columns follow the input"
RULES = {
    "linear": Rule(_linear_axes, contraction_units, _CONTRACTION, linear=mapped),
    "bilinear": Rule(_bilinear_axes, _bilinear_units, _CONTRACTION, linear=mapped),
    "addmm": Rule(_addmm_axes, _addmm_units, _CONTRACTION, linear=mapped),
    **dict.fromkeys(
        ("conv1d", "conv2d", "conv3d"),
        Rule(_conv_axes, contraction_units, _CONTRACTION, linear=mapped),
    ),
    **dict.fromkeys(
        ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
        Rule(_transposed_axes, contraction_units, _CONTRACTION, linear=mapped),
    ),
}
