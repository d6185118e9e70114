"""Operations on single entries: activations, sums and products."""

from __future__ import annotations

import math

from torch.fx import Node

from gmn.spec import Port

from ..axes import Axis, atoms, fixed, size_of, terms, unify
from ..tracing import Rule, Tracing, Value, arguments, is_inplace, name_of, place_of, shape_of
from ..units import ONE, Unit
from .linear import divided, moved, multiplied, summed


def same_axes(trace: Tracing, node: Node) -> Value:
    """The result ranges over what the first operand ranges over."""
    return list(trace.axes(node.args[0]))


def _softmax_axes(trace: Tracing, node: Node) -> Value:
    axes = trace.axes(node.args[0])
    trace.mix(axes, atoms(axes[arguments(node)["dim"]]))
    return list(axes)


def same_unit(trace: Tracing, node: Node) -> Unit:
    """The result has the first operand's unit (identity, homogeneous of degree one in ±s)."""
    return trace.unit(node.args[0])


def positive_unit(trace: Tracing, node: Node) -> Unit:
    """Homogeneous for positive scales: φ(sx) = s φ(x), s > 0."""
    unit = trace.unit(node.args[0])
    trace.balance.fix_sign(unit)
    return unit


def _cast_unit(trace: Tracing, node: Node) -> Unit:
    """A cast to another floating-point type keeps scales; one to integers does not."""
    if node.meta["val"].is_floating_point():
        return same_unit(trace, node)
    return fixed_unit(trace, node)


def odd_unit(trace: Tracing, node: Node) -> Unit:
    """Odd: φ(−x) = −φ(x)."""
    unit = trace.unit(node.args[0])
    trace.balance.fix_magnitude(unit)
    return unit


def even_unit(trace: Tracing, node: Node) -> Unit:
    """Even: φ(−x) = φ(x)."""
    unit = trace.unit(node.args[0])
    trace.balance.fix_magnitude(unit)
    return _in_place(trace, node, ONE)


def absolute_unit(trace: Tracing, node: Node) -> Unit:
    """Even, and homogeneous for positive scales."""
    return _in_place(trace, node, trace.unit(node.args[0]).magnitude)


def _wave_unit(trace: Tracing, node: Node) -> Unit:
    """Sine and cosine: besides odd or even, they change sign when half a period is added."""
    unit = odd_unit(trace, node) if name_of(node) == "sin" else even_unit(trace, node)
    bias, rate = _bias_before(trace, node)
    return unit if bias is None else unit * trace.parity(bias, math.pi / abs(rate))


def _bias_before(trace: Tracing, node: Node) -> tuple[str | None, float]:
    """The bias that shifts an operand and nothing else, and by how much per unit of it."""
    value, rate = node.args[0], 1.0
    while isinstance(value, Node) and len(value.users) == 1 and value.op == "call_function":
        if name_of(value) in ("mul", "div") and isinstance(value.args[1], (int, float)):
            factor = float(value.args[1]) or math.nan
            rate *= factor if name_of(value) == "mul" else 1 / factor
            value = value.args[0]
            continue
        named = [trace.parameter_name(operand) for operand in value.all_input_nodes]
        biases = [n for n in named if n and any(u.kind == "bias" for u in trace.uses_of(n))]
        alone = len(biases) == 1 and len(trace.uses_of(biases[0])) == 1
        known = alone and math.isfinite(rate) and len(terms(trace.parameters[biases[0]][0])) == 1
        return (biases[0] if known and name_of(value) in _SHIFTED else None), rate
    return None, rate


_SHIFTED = {"linear", "addmm", "bilinear", "conv1d", "conv2d", "conv3d"}


def _no_axes(trace: Tracing, node: Node) -> Value:
    return []


def no_unit(trace: Tracing, node: Node) -> Unit:
    """The result cannot be scaled."""
    return ONE


def fixed_unit(trace: Tracing, node: Node) -> Unit:
    """Commutes with no scale."""
    for operand in node.all_input_nodes:
        trace.balance.fix(trace.unit(operand))
    return ONE


def _in_place(trace: Tracing, node: Node, result: Unit) -> Unit:
    # Later readers may hold the overwritten operand, so both must carry one unit.
    if is_inplace(node):
        trace.balance.equal(result, trace.unit(node.args[0]))
    return result


def _hardtanh_unit(trace: Tracing, node: Node) -> Unit:
    call = arguments(node)
    symmetric = call["min_val"] == -call["max_val"]
    return odd_unit(trace, node) if symmetric else fixed_unit(trace, node)


def broadcast_axes(trace: Tracing, node: Node) -> Value:
    """Aligns the operands' axes from the right, as broadcasting does."""
    shape, reason = shape_of(node), place_of(node)
    operands = [trace.axes(operand) for operand in node.all_input_nodes]
    result: Value = []
    for position in range(len(shape)):
        from_right = len(shape) - position
        axes = [axes[-from_right] for axes in operands if len(axes) >= from_right]
        result.append(_join([a for a in axes if size_of(a) == shape[position]], shape, reason))
    for operand in node.all_input_nodes:
        kind = "gain" if _is_factor(node, operand) else "shift"
        ports = BOTH * len(trace.axes(operand))
        trace.use(operand, node, kind, ports)
    return result


def _is_factor(node: Node, operand: Node) -> bool:
    """Whether the operand multiplies or divides, rather than being added."""
    fused = name_of(node) in ("addcmul", "addcdiv") and operand is not node.args[0]
    return fused or name_of(node) in ("mul", "div")


BOTH: tuple[Port, ...] = ("both",)


def _join(axes: list[Axis], shape: tuple[int, ...], reason: str) -> Axis:
    if not axes:
        return fixed(1, reason)
    for axis in axes[1:]:
        unify(axes[0], axis, reason)
    return axes[0]


def _sum_units(trace: Tracing, node: Node) -> Unit:
    first, second = node.args[0], node.args[1]
    trace.balance.equal(trace.unit(first), trace.unit(second))
    return trace.unit(first)


def _product_units(trace: Tracing, node: Node) -> Unit:
    return _in_place(trace, node, trace.unit(node.args[0]) * trace.unit(node.args[1]))


def _quotient_units(trace: Tracing, node: Node) -> Unit:
    if arguments(node).get("rounding_mode"):
        return fixed_unit(trace, node)
    return _in_place(trace, node, trace.unit(node.args[0]) / trace.unit(node.args[1]))


def _fused_units(trace: Tracing, node: Node) -> Unit:
    """A product or a quotient is added to the first operand."""
    added, first, second = (trace.unit(operand) for operand in node.args[:3])
    product = first / second if name_of(node) == "addcdiv" else first * second
    trace.balance.equal(added, product)
    return added


def _power_units(trace: Tracing, node: Node) -> Unit:
    exponent = node.args[1]
    if isinstance(exponent, int) or (isinstance(exponent, float) and exponent.is_integer()):
        return _in_place(trace, node, trace.unit(node.args[0]) ** int(exponent))
    return fixed_unit(trace, node)


def _activation(units, permits: str) -> Rule:  # type: ignore[no-untyped-def]
    return Rule(same_axes, units, permits, recorded=True)


_POSITIVE = _activation(positive_unit, "any permutation; positive scales")
_ODD = _activation(odd_unit, "any permutation; signs")
_EVEN = _activation(even_unit, "any permutation; signs, which it removes")
_PLAIN = _activation(fixed_unit, "any permutation")
_ARITHMETIC = "permutations that all operands share"

RULES = {
    **dict.fromkeys(("relu", "leaky_relu"), _POSITIVE),
    **dict.fromkeys(
        ("tanh", "erf", "softsign", "asinh", "atan", "sinh", "sign", "tan", "tanhshrink"),
        _ODD,
    ),
    "cosh": _EVEN,
    **dict.fromkeys(
        ("sin", "cos"),
        _activation(_wave_unit, "any permutation; signs; half periods, which change the sign"),
    ),
    **dict.fromkeys(
        (
            *("gelu", "silu", "sigmoid", "softplus", "elu", "celu", "selu", "mish", "hardswish"),
            *("hardsigmoid", "relu6", "exp", "log", "sqrt", "rsqrt", "log_sigmoid", "threshold"),
            *(
                "hardshrink",
                "softshrink",
                "ceil",
                "floor",
                "round",
                "log1p",
                "expm1",
                "trunc",
                "reciprocal",
                "logit",
                "bernoulli",
            ),
        ),
        _PLAIN,
    ),
    "abs": _activation(absolute_unit, "any permutation; positive scales; signs, which it removes"),
    "neg": Rule(same_axes, same_unit, "any permutation; any scale", recorded=True, linear=moved),
    "hardtanh": _activation(_hardtanh_unit, "any permutation; signs if its bounds are symmetric"),
    # Bounds and exponents may be tensors, one for every neuron.
    "pow": Rule(
        broadcast_axes, _power_units, f"{_ARITHMETIC}; scales, to an integer power", recorded=True
    ),
    **dict.fromkeys(
        ("clamp", "clamp_min", "clamp_max"),
        Rule(broadcast_axes, fixed_unit, _ARITHMETIC, recorded=True),
    ),
    **dict.fromkeys(
        ("add", "sub", "rsub"),
        Rule(
            broadcast_axes,
            _sum_units,
            f"{_ARITHMETIC}; scales they share",
            recorded=True,
            linear=summed,
        ),
    ),
    "mul": Rule(
        broadcast_axes,
        _product_units,
        f"{_ARITHMETIC}; products of scales",
        recorded=True,
        linear=multiplied,
    ),
    "div": Rule(
        broadcast_axes,
        _quotient_units,
        f"{_ARITHMETIC}; quotients of scales",
        recorded=True,
        linear=divided,
    ),
    "addcmul": Rule(
        broadcast_axes, _fused_units, f"{_ARITHMETIC}; products of scales", recorded=True
    ),
    "addcdiv": Rule(
        broadcast_axes, _fused_units, f"{_ARITHMETIC}; quotients of scales", recorded=True
    ),
    **dict.fromkeys(
        (
            "dropout",
            "feature_dropout",
            "alpha_dropout",
            "contiguous",
            "clone",
            "detach",
            "alias",
            "lift_fresh_copy",
            "identity",
        ),
        Rule(same_axes, same_unit, "everything", linear=moved),
    ),
    **dict.fromkeys(
        ("to", "type_as", "_to_copy"),
        Rule(same_axes, _cast_unit, "everything, between floating-point types", linear=moved),
    ),
    **dict.fromkeys(
        ("_assert_tensor_metadata", "_assert_scalar", "_assert_async", "sym_size"),
        Rule(_no_axes, no_unit, "everything; it only checks"),
    ),
    **dict.fromkeys(
        ("softmax", "log_softmax"),
        Rule(_softmax_axes, fixed_unit, "any permutation", recorded=True),
    ),
}
