"""Rules of elementwise operations: activations, sums and products."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

from torch.fx import Node

from ..inference.actions import NOTHING, Action, Actions, merge_origins
from ..inference.axes import Axis, atoms, fix, fixed, size_of, unify
from ..inference.equations import Term, Unknown
from ..inference.frames import Frame
from ..inference.primitives import (
    Sign,
    added,
    broadcast,
    equate,
    exact,
    find_diagonal,
    forgetting,
    homogeneous,
    linear_moved,
    linear_product,
    linear_summed,
    pinned,
    product,
    times,
    total,
)
from ..inference.tracing import (
    Rule,
    Tracing,
    Value,
    arguments,
    atoms_of,
    first_arguments,
    name_of,
    path_of,
    shape_of,
)


def same_axes(trace: Tracing, node: Node) -> Value:
    """The result ranges over what the first operand ranges over."""
    return list(trace.axes(node.args[0]))


def no_axes(trace: Tracing, node: Node) -> Value:
    """The result is a number."""
    return []


def broadcast_axes(trace: Tracing, node: Node) -> Value:
    """Aligns the operands' axes from the right, as broadcasting does.

    A dimension of one index that comes from an input is stretched along an axis only because the
    example is so small; other inputs would number that axis, so it keeps its order.
    """
    operands = [trace.axes(operand) for operand in node.all_input_nodes]
    return aligned(operands, shape_of(node), path_of(node))


def aligned(operands: Sequence[Value], shape: Sequence[int], reason: str) -> Value:
    """The dimensions of a shape, each of all operands that have it, aligned from the right."""
    result: Value = []
    for position in range(len(shape)):
        from_right = len(shape) - position
        axes = [axes[-from_right] for axes in operands if len(axes) >= from_right]
        same = [axis for axis in axes if size_of(axis) == shape[position]]
        joined = _join(same, reason) if same else fixed(shape[position], reason)
        if shape[position] > 1 and any(_is_of_input(a) for a in axes if size_of(a) == 1):
            fix(joined, "the example has one index where other inputs may have several")
        result.append(joined)
    return result


def _is_of_input(axis: Axis) -> bool:
    return any(atom.example for atom in atoms(axis))


def _join(axes: list[Axis], reason: str) -> Axis:
    for axis in axes[1:]:
        unify(axes[0], axis, reason)
    return axes[0]


# --- activations --------------------------------------------------------------------------------


def unary(degree: Fraction | int | None, sign: Sign) -> Callable[[Actions, Node], Action]:
    """φ(sx) = s^degree φ(x) for positive s, and what a sign does; None if no scale passes."""

    def action(actions: Actions, node: Node) -> Action:
        frame = broadcast(actions, node, [node.args[0]])
        return frame.give(homogeneous(frame, degree=degree, sign=sign))

    return action


positive = unary(1, "pin")
odd = unary(None, "keep")
even = unary(None, "drop")
plain = unary(None, "pin")


def moved(actions: Actions, node: Node) -> Action:
    """The result is the first operand, entry by entry."""
    linear_moved(actions, node)
    frame = broadcast(actions, node, [node.args[0]])
    return frame.give(frame.take(0))


def nothing(actions: Actions, node: Node) -> Action:
    """The result depends on no entry of an operand, or holds no numbers that could move."""
    actions.only_shape(*node.all_input_nodes)
    return NOTHING


def pinned_all(actions: Actions, node: Node) -> Any:
    """Nothing that the operation reads may be scaled or shifted, whatever its form."""
    actions.pin_all(node)
    return NOTHING


def fixed_all(actions: Actions, node: Node) -> Action:
    """Nothing that the operation reads may be scaled or shifted."""
    operands = node.all_input_nodes
    values = actions.trace.values[node]
    if values and isinstance(values[0], list):
        actions.pin_all(node)
        return NOTHING
    if any(len(actions.axes(o)) > len(values) for o in operands):
        actions.pin_all(node)
        return NOTHING
    frame = broadcast(actions, node, operands)
    return frame.give(pinned(frame))


def _negated(actions: Actions, node: Node) -> Action:
    linear_moved(actions, node)
    frame = broadcast(actions, node, [node.args[0]])
    taken = frame.take(0)
    return frame.give(Action(taken.magnitude, taken.sign, times(taken.shift, -1), taken.origins))


def _cast(actions: Actions, node: Node) -> Any:
    """A cast to another floating-point type keeps scales; one to integers does not."""
    actions.only_shape(*(o for o in node.all_input_nodes if o is not node.args[0]))
    value = node.meta["val"]
    source = node.args[0].meta["val"] if isinstance(node.args[0], Node) else value
    numeric = value.is_floating_point() or value.is_complex() or value.dtype == source.dtype
    drops = source.is_complex() and not value.is_complex()
    return moved(actions, node) if numeric and not drops else plain(actions, node)


def _wave(actions: Actions, node: Node) -> Action:
    """Sine and cosine: besides odd or even, they change sign when half a period is added."""
    frame = broadcast(actions, node, [node.args[0]])
    taken = frame.take(0)
    actions.zero(actions.magnitudes, taken.magnitude)
    sign = dict(taken.sign) if name_of(node) == "sin" else {}
    parities = {}
    for key, terms in taken.shift.items():
        terms = actions.shifts.reduce(terms)
        if mixed := {t: c for t, c in terms.items() if t.mixed}:
            actions.shifts.require(mixed)
            terms = actions.shifts.reduce({t: c for t, c in terms.items() if not t.mixed})
        phase = _phase(actions, terms)
        if phase is None:
            actions.shifts.require(terms)
            continue
        parities[key] = {Term(phase[0], phase[1]): 1}
    if parities:
        for key in {*sign, *parities}:
            old, new = sign.get(key, {}), parities.get(key, {})
            sign[key] = {**old, **new}
    return frame.give(Action({}, sign, {}, taken.origins))


def _phase(actions: Actions, terms: Any) -> tuple[Unknown, Any] | None:
    """The parity that belongs to the shift of one bias, where nothing else is added.

    Of the shifts of a bias, which may depend on any of its places, the one that depends on all of
    them stands for the others.
    """
    exactly = list(terms)
    if not exactly:
        return None
    entries = {(t.unknown.entry, t.unknown.key) for t in exactly}
    largest = max(exactly, key=lambda t: len(t.unknown.slots))
    if len(entries) != 1 or len({terms[t] for t in exactly}) != 1:
        return None
    step = 1 / abs(Fraction(terms[largest]))
    for parity, (shift, known) in actions.phases.items():
        if shift is largest.unknown and known == step:
            return parity, largest.at
        if shift is largest.unknown:
            return None
    parity = Unknown(largest.unknown.entry, largest.unknown.key, largest.unknown.slots, phase=True)
    actions.signs.declare(parity)
    actions.phases[parity] = (largest.unknown, step)
    return parity, largest.at


def _hardtanh(actions: Actions, node: Node) -> Action:
    call = arguments(node)
    return (odd if call["min_val"] == -call["max_val"] else plain)(actions, node)


def _threshold(actions: Actions, node: Node) -> Action:
    call = arguments(node)
    return (positive if call["threshold"] == 0 == call["value"] else plain)(actions, node)


def _clamp(actions: Actions, node: Node) -> Action:
    """Bounds of 0 keep positive scales; those that lie symmetrically keep signs."""
    call = arguments(node)
    low, high = (call.get(name) for name in ("min", "max"))
    if isinstance(low, Node) or isinstance(high, Node):
        return fixed_all(actions, node)
    bounds: list[float] = [bound for bound in (low, high) if bound is not None]
    if all(bound == 0 for bound in bounds):
        return positive(actions, node)
    if len(bounds) == 2 and bounds[0] == -bounds[1]:
        return odd(actions, node)
    return plain(actions, node)


# --- arithmetic ---------------------------------------------------------------------------------


def _operands(node: Node) -> tuple[Any, Any, float]:
    """The two terms of a sum and the factor of the second; ``rsub`` swaps them."""
    call = arguments(node)
    factor = call.get("alpha", 1)
    first, second = first_arguments(node, 2)
    return first, second, factor


def _sum(actions: Actions, node: Node) -> Action:
    first, second, alpha = _operands(node)
    name = name_of(node)
    factors = {"add": (1, alpha), "sub": (1, -alpha), "rsub": (-alpha, 1)}[name]
    values = [(v, f) for v, f in zip((first, second), factors, strict=True) if isinstance(v, Node)]
    frame = broadcast(actions, node, [value for value, _ in values])
    if len(values) < 2:
        constant = second if isinstance(first, Node) else first
        taken = frame.take(0)
        if constant != 0:
            actions.zero(actions.magnitudes, taken.magnitude)
            actions.zero(actions.signs, taken.sign)
            taken = Action({}, {}, taken.shift, taken.origins)
        else:
            linear_moved(actions, node)
        shift = times(taken.shift, exact(values[0][1]))
        return frame.give(Action(taken.magnitude, taken.sign, shift, taken.origins))
    zeros = [n for n, (value, _) in enumerate(values) if is_zero(value)]
    if len(zeros) == 1:  # zero has every unit
        linear_moved(actions, node)
        taken = frame.take(1 - zeros[0])
        shift = times(taken.shift, exact(values[1 - zeros[0]][1]))
        return frame.give(Action(taken.magnitude, taken.sign, shift, taken.origins))
    linear_summed(actions, node, [value for value, _ in values])
    return frame.give(total(frame, range(len(values)), [factor for _, factor in values]))


ZEROS = ("zeros", "new_zeros", "zeros_like")


def is_zero(value: object) -> bool:
    """Whether a value is zero by construction."""
    while isinstance(value, Node) and value.op == "call_function":
        if name_of(value) in ZEROS:
            return True
        if name_of(value) in ("full", "full_like", "new_full"):
            return arguments(value)["fill_value"] == 0
        if name_of(value) not in ("expand", "view", "clone", "alias", "detach", "_to_copy", "to"):
            return False
        value = value.args[0]
    return False


def _product(actions: Actions, node: Node) -> Action:
    first, second = first_arguments(node, 2)
    if not (isinstance(first, Node) and isinstance(second, Node)):
        value, constant = (first, second) if isinstance(first, Node) else (second, first)
        linear_moved(actions, node)
        frame = broadcast(actions, node, [value])
        taken = frame.take(0)
        factor = exact(constant) if isinstance(constant, int | float) else 0
        if not factor:
            actions.zero(actions.shifts, taken.shift)
        shift = times(taken.shift, factor) if factor else {}
        return frame.give(Action(taken.magnitude, taken.sign, shift, taken.origins))
    return _of_two(actions, node, first, second, 1)


def _of_two(actions: Actions, node: Node, first: Node, second: Node, power: int) -> Action:
    linear_product(actions, node, first, second)
    frame = broadcast(actions, node, [first, second])
    result = product(frame, 0, 1, power)
    for operand in (0, 1):
        find_diagonal(frame, operand, "gain")
    return frame.give(result)


def _quotient(actions: Actions, node: Node) -> Action:
    first, second = first_arguments(node, 2)
    if arguments(node).get("rounding_mode"):
        return fixed_all(actions, node)
    if isinstance(first, Node) and isinstance(second, Node):
        result = _of_two(actions, node, first, second, -1)
        actions.linear[node] &= atoms_of(*actions.axes(first))
        return result
    if isinstance(first, Node):
        linear_moved(actions, node)
        frame = broadcast(actions, node, [first])
        taken = frame.take(0)
        factor = 1 / Fraction(exact(second)) if second and math.isfinite(second) else 0
        if not factor:
            actions.zero(actions.shifts, taken.shift)
        shift = times(taken.shift, factor) if factor else {}
        return frame.give(Action(taken.magnitude, taken.sign, shift, taken.origins))
    frame = broadcast(actions, node, [second])
    return frame.give(homogeneous(frame, degree=-1, sign="keep"))


def _fused(actions: Actions, node: Node) -> Action:
    """A product or a quotient, times a number, is added to the first operand."""
    base, first, second = first_arguments(node, 3)
    power = -1 if name_of(node) == "addcdiv" else 1
    frame = broadcast(actions, node, [base, first, second])
    inner = product(frame, 1, 2, power)
    for operand in (1, 2):
        find_diagonal(frame, operand, "gain")
    outer = total(frame, [0], [1])
    return frame.give(added(actions, outer, inner))


def _lerp(actions: Actions, node: Node) -> Action:
    """``a + w (b - a)``: what both ends have in common passes, if the weight does not move."""
    first, second, weight = first_arguments(node, 3)
    operands = [v for v in (first, second, weight) if isinstance(v, Node)]
    frame = broadcast(actions, node, operands)
    actions.pin(weight)
    ends = [frame.take(n) for n in range(2)]
    shift = equate(actions.shifts, ends[0].shift, ends[1].shift)
    whole = total(frame, [0, 1], [1, 1])
    return frame.give(Action(whole.magnitude, whole.sign, shift, whole.origins))


def _power(actions: Actions, node: Node) -> Action:
    base, exponent = first_arguments(node, 2)
    if isinstance(exponent, Node) or not isinstance(base, Node):
        return fixed_all(actions, node)
    whole = float(exponent).is_integer()
    sign: Sign = "pin" if not whole else "keep" if int(exponent) % 2 else "drop"
    if exponent == 0:
        return plain(actions, node)
    return unary(int(exponent) if whole else Fraction(repr(float(exponent))), sign)(actions, node)


def larger(actions: Actions, node: Node) -> Action:
    """The larger or smaller of two values that share positive scales and shifts."""
    frame = broadcast(actions, node, list(node.args[:2]))
    whole = total(frame, [0, 1], [1, 1])
    actions.zero(actions.signs, whole.sign)
    ends = [frame.take(n) for n in range(2)]
    shift = equate(actions.shifts, ends[0].shift, ends[1].shift)
    return frame.give(Action(whole.magnitude, {}, shift, whole.origins))


def compared(actions: Actions, node: Node) -> Action:
    """Comparisons: shared scales and equal shifts do not change which value is larger."""
    first, second = first_arguments(node, 2)
    operands = [v for v in (first, second) if isinstance(v, Node)]
    frame = broadcast(actions, node, operands)
    ends = [frame.take(n) for n in range(len(operands))]
    equality = name_of(node) in ("eq", "ne")
    for end in ends if not equality else []:
        actions.zero(actions.signs, end.sign)
    if len(ends) == 2:
        equate(actions.magnitudes, ends[0].magnitude, ends[1].magnitude)
        equate(actions.signs, ends[0].sign, ends[1].sign)
        equate(actions.shifts, ends[0].shift, ends[1].shift)
        return frame.give(Action(origins=_origins(frame)))
    constant = second if isinstance(first, Node) else first
    if constant != 0:
        return frame.give(pinned(frame))
    actions.zero(actions.shifts, ends[0].shift)
    return frame.give(Action(origins=_origins(frame)))


def _origins(frame: Frame) -> Any:
    return merge_origins(*(frame.origins(n) for n in range(len(frame.members))))


def _softmax_axes(trace: Tracing, node: Node) -> Value:
    axes = trace.axes(node.args[0])
    trace.mix(axes, atoms(axes[arguments(node)["dim"]]))
    return list(axes)


def _softmax(actions: Actions, node: Node) -> Action:
    """What is added to all entries alike is taken away; scales change it."""
    frame = broadcast(actions, node, [node.args[0]])
    taken = frame.take(0)
    actions.zero(actions.magnitudes, taken.magnitude)
    actions.zero(actions.signs, taken.sign)
    dim = arguments(node)["dim"] % len(actions.axes(node))
    return frame.give(forgetting(frame, Action({}, {}, taken.shift, taken.origins), [dim]))


def _dropped(actions: Actions, node: Node) -> Action:
    """Entries that are set to zero at random keep their scales, but not their basis or shift."""
    call = arguments(node)
    active = bool(call.get("train", call.get("training", False)))
    if not active or call.get("p") == 0:
        return moved(actions, node)
    if name_of(node) in ("alpha_dropout", "feature_alpha_dropout"):
        return plain(actions, node)
    return unary(1, "keep")(actions, node)


# Of functions that do the same to every entry.
_SHAPES = (
    *("negative_slope", "lambd", "alpha", "scale", "input_scale", "beta", "threshold", "value"),
    *("approximate", "min_val", "max_val", "eps", "nan", "posinf", "neginf", "decimals"),
)


def _activation(action: Any, permits: str) -> Rule:
    return Rule(same_axes, action, permits, recorded=True, whatever=_SHAPES)


_POSITIVE = _activation(positive, "any permutation; positive scales")
_ODD = _activation(odd, "any permutation; signs")
_EVEN = _activation(even, "any permutation; signs, which it removes")
_PLAIN = _activation(plain, "any permutation")
_ARITHMETIC = "permutations that all operands share"

RULES = {
    **dict.fromkeys(("relu", "leaky_relu"), _POSITIVE),
    **dict.fromkeys(
        (
            *("tanh", "erf", "softsign", "asinh", "atan", "sinh", "tan", "tanhshrink", "arctan"),
            *("hardshrink", "softshrink", "round", "trunc", "fix", "erfinv", "asin", "atanh"),
        ),
        _ODD,
    ),
    "sign": _activation(
        unary(0, "keep"), "any permutation; positive scales, which it removes; signs"
    ),
    "cosh": _EVEN,
    "sinc": _EVEN,
    **dict.fromkeys(
        ("sin", "cos"),
        _activation(_wave, "any permutation; signs; half periods, which change the sign"),
    ),
    **dict.fromkeys(
        (
            *("gelu", "silu", "sigmoid", "softplus", "elu", "celu", "selu", "mish", "hardswish"),
            *("hardsigmoid", "relu6", "exp", "log", "log_sigmoid", "ceil", "floor", "exp2"),
            *("log1p", "expm1", "logit", "bernoulli", "frac", "nan_to_num", "log2", "log10"),
            *(
                "lgamma",
                "digamma",
                "i0",
                "acos",
                "acosh",
                "erfc",
                "special_expm1",
                "isnan",
                "isinf",
            ),
        ),
        _PLAIN,
    ),
    "abs": _activation(
        unary(1, "drop"), "any permutation; positive scales; signs, which it removes"
    ),
    "square": _activation(unary(2, "drop"), "any permutation; scales, which it squares"),
    "sqrt": _activation(unary(Fraction(1, 2), "pin"), "any permutation; roots of positive scales"),
    "rsqrt": _activation(
        unary(Fraction(-1, 2), "pin"), "any permutation; inverse roots of positive scales"
    ),
    "reciprocal": _activation(unary(-1, "keep"), "any permutation; scales, which it inverts"),
    "neg": Rule(same_axes, _negated, "any permutation; any scale", recorded=True),
    "hardtanh": _activation(_hardtanh, "any permutation; signs if its bounds are symmetric"),
    "threshold": _activation(_threshold, "any permutation; positive scales if at 0"),
    # Bounds and exponents may be tensors, one for every neuron.
    "pow": Rule(broadcast_axes, _power, f"{_ARITHMETIC}; scales, to that power", recorded=True),
    **dict.fromkeys(
        ("clamp", "clamp_min", "clamp_max", "clip"),
        Rule(
            broadcast_axes,
            _clamp,
            f"{_ARITHMETIC}; positive scales at 0, signs if its bounds are symmetric",
            recorded=True,
        ),
    ),
    **dict.fromkeys(
        ("add", "sub", "rsub"),
        Rule(broadcast_axes, _sum, f"{_ARITHMETIC}; scales they share", recorded=True),
    ),
    "mul": Rule(broadcast_axes, _product, f"{_ARITHMETIC}; products of scales", recorded=True),
    **dict.fromkeys(
        ("div", "true_divide"),
        Rule(broadcast_axes, _quotient, f"{_ARITHMETIC}; quotients of scales", recorded=True),
    ),
    **{
        name: Rule(
            broadcast_axes, _fused, f"{_ARITHMETIC}; {passes}", recorded=True, whatever=("value",)
        )
        for name, passes in (("addcmul", "products of scales"), ("addcdiv", "quotients of scales"))
    },
    "lerp": Rule(broadcast_axes, _lerp, f"{_ARITHMETIC}; scales that both ends share"),
    **dict.fromkeys(
        ("maximum", "minimum", "fmax", "fmin"),
        Rule(broadcast_axes, larger, f"{_ARITHMETIC}; positive scales they share", recorded=True),
    ),
    **dict.fromkeys(
        ("eq", "ne", "lt", "le", "gt", "ge"),
        Rule(broadcast_axes, compared, f"{_ARITHMETIC}; positive scales they share", recorded=True),
    ),
    **dict.fromkeys(
        (
            *("logical_and", "logical_or", "logical_not", "logical_xor", "bitwise_and"),
            *("bitwise_or", "bitwise_not", "bitwise_xor", "__and__", "__or__", "__xor__"),
            *("remainder", "fmod", "floor_divide", "atan2", "hypot", "isclose"),
        ),
        Rule(
            broadcast_axes,
            fixed_all,
            _ARITHMETIC,
            recorded=True,
            whatever=("other", "self", "rtol", "atol", "equal_nan"),
        ),
    ),
    **dict.fromkeys(
        ("dropout", "native_dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout"),
        Rule(
            same_axes,
            _dropped,
            "everything; in training permutations and scales",
            whatever=("p",),
        ),
    ),
    **dict.fromkeys(
        (
            *(
                "contiguous",
                "clone",
                "detach",
                "alias",
                "lift_fresh_copy",
                "lift_fresh",
                "identity",
            ),
            *("positive", "detach_copy", "resolve_conj", "resolve_neg"),
        ),
        Rule(same_axes, moved, "everything"),
    ),
    **dict.fromkeys(
        ("to", "type_as", "_to_copy"),
        Rule(same_axes, _cast, "everything, between floating-point types", whatever=("dtype",)),
    ),
    **dict.fromkeys(
        ("_assert_tensor_metadata", "_assert_scalar", "_assert_async", "sym_size"),
        Rule(no_axes, nothing, "everything; it only checks", whatever=("dim",)),
    ),
    **dict.fromkeys(
        ("softmax", "log_softmax", "_softmax", "_log_softmax"),
        Rule(_softmax_axes, _softmax, "any permutation", recorded=True),
    ),
}
