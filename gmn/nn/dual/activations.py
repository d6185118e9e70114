"""What a neuron does to the value that it receives, as far as its symmetries let channels do it.

A network's values pass the functions that its spec records for their neurons. Channels that carry
the unit of a neuron may pass those that commute with the group that acts on it: positive scales
pass ReLU, signs odd functions, nothing passes a change of basis; where no scale acts, every
function of single values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from gmn.nn.dual.slots import Kind
from gmn.spec.parts import Operation

Function = Callable[[Tensor], Tensor]
# Operations that leave single values what they are, or average over positions, as attention does:
# padding, views, pooling, dropout, sums with another branch.
NEUTRAL = (
    *("cat", "col2im", "flip", "im2col", "mean", "pixel_shuffle", "roll", "unfold"),
    "scaled_dot_product_attention",
)
POOLING = ("pool1d", "pool2d", "pool3d")
POSITIVE = ("relu", "leaky_relu", "abs", "neg")  # commute with positive scales
SELU = 1.6732632423543772, 1.0507009873554805
# Commute with signs: of single neurons or, as layer normalisation does, of all at once.
ODD = ("tanh", "sin", "atan", "erf", "neg", "layer_norm")


@dataclass(frozen=True)
class Elementwise:
    """A function of single values with its derivative.

    Attributes:
        function: the function.
        slope: its derivative, as a function of the input.
        both: the two at once, where that is less work.
    """

    function: Function
    slope: Function
    both: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None

    def with_slope(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """The function and its derivative."""
        if self.both is not None:
            return self.both(values)
        return self.function(values), self.slope(values)


@dataclass(frozen=True)
class Activation:
    """A function of single values.

    Attributes:
        steps: its parts, in order.
        normalises: whether it is a normalisation and nothing else.
    """

    steps: tuple[Elementwise, ...]
    normalises: bool = False

    def __call__(self, values: Tensor) -> Tensor:
        """The function, elementwise."""
        for step in self.steps:
            values = step.function(values)
        return values

    def with_slope(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """The function, and its derivative, by the chain rule."""
        values, slope = self.steps[0].with_slope(values)
        for step in self.steps[1:]:
            values, factor = step.with_slope(values)
            slope = slope * factor
        return values, slope


def activation_of(
    operations: Sequence[Operation], kind: Kind, neurons: int = 0
) -> Activation | None:
    """The function that channels pass at neurons of a slot, as true as its kind allows.

    Args:
        operations: of the neurons, in execution order.
        kind: which group acts on the slot.
        neurons: how many there are: a layer normalisation is of all or of none.

    Returns:
        None if they pass nothing: where an operation is no function of single values, or unknown,
        or where the first of them does not commute with the group.
    """
    steps: list[Elementwise] = []
    last: Operation | None = None
    joined = False
    for operation in operations:
        if _is_neutral(operation):
            joined |= operation.name == "add"
            continue
        if joined and operation == last:
            continue  # a stream that passes ReLU after every block passes it once here
        if (step := _elementwise(operation, neurons)) is None:
            return None
        if not _commutes(operation, kind):
            break
        steps.append(step)
        last, joined = operation, False
    normalises = len(steps) == 1 and last is not None and last.name == "layer_norm"
    return Activation(tuple(steps), normalises) if steps else None


def _is_neutral(operation: Operation) -> bool:
    name, attributes = operation.name, dict(operation.attributes)
    return (
        name in NEUTRAL
        or name.endswith(POOLING)
        or name.startswith("upsample")
        or (name == "add" and "other" not in attributes)
    )


def _commutes(operation: Operation, kind: Kind) -> bool:
    if kind == "free":
        return True
    name, numbers = operation.name, dict(operation.attributes)
    factor = name in ("mul", "div")
    if kind == "positive":
        return factor or name in POSITIVE
    if kind == "sign":
        symmetric = numbers.get("min_val", (0.0,)) == tuple(-v for v in numbers.get("max_val", ()))
        return factor or name in ODD or (name == "hardtanh" and symmetric)
    return kind == "both" and factor


def _elementwise(operation: Operation, neurons: int) -> Elementwise | None:
    """The operation as a function of single values; None if it is none, or unknown."""
    numbers = {name: value for name, (value, *_) in operation.attributes}
    if operation.name == "layer_norm" and numbers.pop("normalized_shape", None) != neurons:
        return None
    if any(len(values) != 1 for _, values in operation.attributes):
        return None
    make = _FUNCTIONS.get(operation.name)
    try:
        return None if make is None else make(**numbers)
    except TypeError:  # attributes that this function does not have, or some are missing
        return None


def _times(factor: float) -> Elementwise:
    return Elementwise(lambda v: v * factor, lambda v: torch.full_like(v, factor))


def _between(low: float, high: float) -> Elementwise:
    return Elementwise(lambda v: v.clamp(low, high), lambda v: ((v > low) & (v < high)).to(v))


def _leaky(slope: float) -> Elementwise:
    return Elementwise(
        lambda v: functional.leaky_relu(v, slope), lambda v: (v > 0).to(v) * (1 - slope) + slope
    )


def _elu(alpha: float, scale: float, rate: float) -> Elementwise:
    def slope(values: Tensor) -> Tensor:
        bent = alpha * rate * (rate * values.clamp(max=0)).exp()
        return scale * torch.where(values > 0, torch.ones_like(values), bent)

    return Elementwise(
        lambda v: scale * (v.clamp(min=0) + alpha * torch.expm1(rate * v.clamp(max=0))), slope
    )


def _softplus(beta: float, threshold: float) -> Elementwise:
    return Elementwise(
        lambda v: functional.softplus(v, beta, threshold),
        lambda v: torch.where(v * beta > threshold, torch.ones_like(v), (v * beta).sigmoid()),
    )


def _shift(other: float, alpha: float = 1.0) -> Elementwise:
    return Elementwise(lambda v: v + alpha * other, torch.ones_like)


def _power(exponent: float) -> Elementwise:
    return Elementwise(lambda v: v.pow(exponent), lambda v: exponent * v.pow(exponent - 1))


def _layer_norm(eps: float) -> Elementwise:
    """Over the neurons; its slope is that of a scale that stays as it is."""

    def both(values: Tensor) -> tuple[Tensor, Tensor]:
        variance, mean = torch.var_mean(values, dim=1, keepdim=True, correction=0)
        scale = (variance + eps).rsqrt()
        # Gradients of gradients overflow in networks that have died.
        return (values - mean) * scale, scale.detach()

    return Elementwise(lambda v: both(v)[0], lambda v: both(v)[1].expand_as(v), both)


def _gelu_slope(values: Tensor) -> Tensor:
    bell = (-values.square() / 2).exp() / math.sqrt(2 * math.pi)
    return (1 + torch.erf(values / math.sqrt(2))) / 2 + values * bell


def _gelu_tanh_slope(values: Tensor) -> Tensor:
    rate, cube = math.sqrt(2 / math.pi), 0.044715
    bent = (rate * (values + cube * values.pow(3))).tanh()
    return (1 + bent + values * (1 - bent.square()) * rate * (1 + 3 * cube * values.square())) / 2


def _silu_slope(values: Tensor) -> Tensor:
    gate = values.sigmoid()
    return gate * (1 + values * (1 - gate))


def _mish_slope(values: Tensor) -> Tensor:
    bent = functional.softplus(values).tanh()
    return bent + values * (1 - bent.square()) * values.sigmoid()


_PLAIN: dict[str, tuple[Function, Function]] = {
    "relu": (torch.relu, lambda v: (v > 0).to(v)),
    "abs": (torch.abs, torch.sign),
    "neg": (torch.neg, lambda v: -torch.ones_like(v)),
    "square": (torch.square, lambda v: 2 * v),
    "exp": (torch.exp, torch.exp),
    "sin": (torch.sin, torch.cos),
    "cos": (torch.cos, lambda v: -v.sin()),
    "tanh": (torch.tanh, lambda v: 1 - v.tanh().square()),
    "sigmoid": (torch.sigmoid, lambda v: v.sigmoid() * (1 - v.sigmoid())),
    "log_sigmoid": (functional.logsigmoid, lambda v: (-v).sigmoid()),
    "atan": (torch.atan, lambda v: 1 / (1 + v.square())),
    "erf": (torch.erf, lambda v: 2 / math.sqrt(math.pi) * (-v.square()).exp()),
    "gelu": (functional.gelu, _gelu_slope),
    "gelu_tanh": (lambda v: functional.gelu(v, approximate="tanh"), _gelu_tanh_slope),
    "silu": (functional.silu, _silu_slope),
    "mish": (functional.mish, _mish_slope),
}
# Settings are the attributes that specs record, by name.
_FUNCTIONS: dict[str, Callable[..., Elementwise]] = {
    **{name: partial(Elementwise, *pair) for name, pair in _PLAIN.items()},
    "leaky_relu": lambda negative_slope: _leaky(negative_slope),
    "relu6": lambda: _between(0.0, 6.0),
    "hardtanh": lambda min_val, max_val: _between(min_val, max_val),
    "clamp": lambda min=-math.inf, max=math.inf: _between(min, max),
    "softplus": lambda beta, threshold: _softplus(beta, threshold),
    "elu": lambda alpha, scale, input_scale: _elu(alpha, scale, input_scale),
    "celu": lambda alpha: _elu(alpha, 1.0, 1 / alpha),
    "selu": lambda: _elu(*SELU, 1.0),
    "mul": lambda other: _times(other),
    "div": lambda other: _times(1 / other),
    "add": _shift,
    "sub": lambda other, alpha=1.0: _shift(-other, alpha),
    "pow": _power,
    "layer_norm": _layer_norm,
}
