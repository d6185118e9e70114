"""Forms of every operation in the table of rules, for the test that what rules claim is true."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

aten = torch.ops.aten


@dataclass(frozen=True)
class Form:
    """One call of an operation: see ``converters.testing.assert_sound``."""

    operation: Callable[..., Any]
    operands: list[Any]
    data: Collection[int] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)


def form(operation: Callable[..., Any], *operands: Any, data: Any = (), **kwargs: Any) -> Form:
    return Form(operation, list(operands), data, kwargs)


def r(*shape: int) -> Tensor:
    return torch.randn(shape)


def p(*shape: int) -> Tensor:
    """A positive operand."""
    return torch.rand(shape) + 0.5


def i(*shape: int, below: int = 3) -> Tensor:
    return torch.randint(below, shape)


def zeros() -> Tensor:
    return torch.zeros(4, 6, dtype=torch.float64)


def c(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.complex128)


def mask(*shape: int) -> Tensor:
    return torch.arange(int(torch.Size(shape).numel())).reshape(shape) % 3 == 0


def unary(name: str, *arguments: Any, **kwargs: Any) -> list[Form]:
    operation = getattr(aten, name, None) or getattr(torch, name, None) or getattr(F, name)
    return [form(operation, r(4, 6), *arguments, **kwargs)]


def _binary(operation: Any, **kwargs: Any) -> list[Form]:
    return [
        form(operation, r(4, 6), r(4, 6), **kwargs),
        form(operation, r(4, 6), r(6), **kwargs),
        form(operation, r(4, 1), r(3, 1, 6), **kwargs),
        form(operation, r(4, 6), r(6), data=[0], **kwargs),
        form(lambda x: operation(x, x, **kwargs), r(4, 6)),
        form(lambda x: operation(x, x.t(), **kwargs), r(5, 5)),
    ]


def _reduced(operation: Any, **kwargs: Any) -> list[Form]:
    return [
        form(operation, r(4, 6), 1, **kwargs),
        form(operation, r(4, 6, 3), -2, True, **kwargs),
        form(operation, r(4, 1, 3), 1, **kwargs),
        form(lambda x: operation(x.reshape(4, 2, 3), 1, **kwargs), r(4, 6)),
        form(lambda x, y: operation(torch.cat([x, y], 1), 1, **kwargs), r(4, 2), r(4, 3)),
        form(lambda x, y: operation(torch.cat([x, y], 1), 0, **kwargs), r(4, 2), r(4, 3)),
    ]


def _several(operation: Any, **kwargs: Any) -> list[Form]:
    return [
        *[form(operation, r(4, 6, 3), [0, -1], **kwargs)],
        *[form(operation, r(4, 6, 3), [-2], True, **kwargs)],
        *[form(operation, r(4, 1, 3), [1], **kwargs)],
        *[form(lambda x, y: operation(torch.cat([x, y], 1), [1], **kwargs), r(4, 2), r(4, 3))],
    ]


def _pool(name: str, spatial: int, adaptive: bool) -> list[Form]:
    size = (2, 3, *(6,) * spatial)
    operation = getattr(aten, name)
    if adaptive:
        return [
            form(operation, r(*size), [2] * spatial),
            form(operation, r(*size[1:]), [3] * spatial),
        ]
    return [
        form(operation, r(*size), [2] * spatial),
        form(operation, r(*size), [3] * spatial, [1] * spatial, [1] * spatial),
        form(operation, r(*size[1:]), [2] * spatial, [1] * spatial, [0] * spatial),
    ]


def _conv(operation: Any, spatial: int) -> list[Form]:
    places = (5,) * spatial
    k = (3,) * spatial
    return [
        form(operation, r(2, 4, *places), r(6, 4, *k), r(6)),
        form(operation, r(2, 4, *places), r(6, 4, *k), r(6), data=[0], padding=1, stride=2),
        form(operation, r(2, 4, *places), r(6, 2, *k), r(6), groups=2, dilation=2),
        form(operation, r(2, 4, *places), r(8, 1, *k), r(8), groups=4, padding="same"),
        form(operation, r(2, 4, *places), r(6, 4, *(1,) * spatial), None),
        form(operation, r(2, 4, *places), r(6, 4, *(1,) * spatial), r(6)),
        form(operation, r(4, *places), r(6, 4, *(2,) * spatial), r(6), data=[0]),
        form(lambda x, w: operation(x, w * w), r(2, 4, *places), r(6, 4, *k), data=[0]),
        form(operation, r(2, 1, *places), r(3, 1, *k), r(3)),
    ]


def _transposed(operation: Any, spatial: int) -> list[Form]:
    places, k = (4,) * spatial, (3,) * spatial
    return [
        form(operation, r(2, 4, *places), r(4, 6, *k), r(6)),
        form(operation, r(2, 4, *places), r(4, 6, *k), r(6), data=[0], stride=2, padding=1),
        form(operation, r(2, 4, *places), r(4, 3, *k), r(6), groups=2, output_padding=0),
        form(operation, r(4, *places), r(4, 6, *k), None),
        form(operation, r(2, 4, *places), r(4, 1, *k), r(4), groups=4),
    ]


def _dims(operation: Any) -> list[Form]:
    return [
        form(operation, r(4, 6), 1),
        form(operation, r(4, 6, 3), -2),
        form(operation, r(4, 6), 0),
    ]


def _recurrent(kind: Any, **more: Any) -> list[Form]:
    lstm = kind is nn.LSTM
    state = (r(2, 2, 4), r(2, 2, 4)) if lstm else r(2, 2, 4)
    return [
        form(kind(3, 4, **more), r(5, 2, 3)),
        form(kind(3, 4, 2, bias=False, batch_first=True, **more), r(2, 5, 3), data=[0]),
        form(kind(3, 4, bidirectional=True, **more), r(5, 2, 3)),
        form(kind(3, 4, bidirectional=True, num_layers=2, **more), r(5, 2, 3), data=[0]),
        form(kind(3, 4, num_layers=2, **more), r(5, 2, 3), state),
    ]


def _cell(kind: Any, **more: Any) -> list[Form]:
    lstm = kind is nn.LSTMCell
    state = (r(2, 4), r(2, 4)) if lstm else r(2, 4)
    return [
        form(kind(3, 4, **more), r(2, 3)),
        form(kind(3, 4, **more), r(2, 3), state),
        form(kind(3, 4, bias=False, **more), r(2, 3), state, data=[0]),
    ]


def _resized(name: str, spatial: int, corners: bool) -> list[Form]:
    operation = getattr(aten, name)
    more = [False] if corners else []
    size = (2, 3, *(4,) * spatial)
    return [
        form(operation, r(*size), [7] * spatial, *more),
        form(operation, r(*size), [2] * spatial, *([True] if corners else [])),
    ]


X = r(4, 6)
ODD = "tanh erf asinh atan sinh tan hardshrink softshrink round trunc erfinv asin atanh"
PLAIN = (
    "gelu silu sigmoid softplus elu celu selu mish hardswish hardsigmoid relu6 exp log log_sigmoid "
    "ceil floor exp2 log1p expm1 logit frac nan_to_num log2 log10 lgamma digamma i0 acos acosh "
    "erfc isnan isinf"
)

FORMS: dict[str, list[Form]] = {
    "linear": [
        form(F.linear, r(4, 6), r(5, 6), r(5)),
        form(F.linear, r(4, 2, 6), r(5, 6), data=[0]),
        form(F.linear, r(6), r(5, 6), r(5)),
        form(F.linear, r(4, 6), r(6)),
        form(F.linear, r(4, 6), r(1, 6), r(1)),
        form(F.linear, r(4, 6), r(5, 6), r(5), data=[1]),
        form(lambda x, w: F.linear(x, w, w[:, 0]), r(4, 6), r(5, 6), data=[0]),
        form(lambda x, w: F.linear(F.linear(x, w), w), r(4, 6), r(6, 6), data=[0]),
        form(lambda x, w: F.linear(x, w.view(5, 6)), r(4, 6), r(30), data=[0]),
        form(
            lambda x, a, b: F.linear(torch.cat([x, x], -1), torch.cat([a, b], 1)),
            r(4, 3),
            r(5, 3),
            r(5, 3),
            data=[0],
        ),
        form(
            lambda x, a, b: F.linear(x, torch.cat([a, b], 0)), r(4, 3), r(2, 3), r(5, 3), data=[0]
        ),
        form(
            lambda x, w, b: F.layer_norm(F.linear(x, w, b), (5,)), r(4, 6), r(5, 6), r(5), data=[0]
        ),
        form(lambda x, w, b: F.softmax(F.linear(x, w, b), -1), r(4, 6), r(5, 6), r(5), data=[0]),
    ],
    "bilinear": [
        form(F.bilinear, r(4, 3), r(4, 2), r(5, 3, 2), r(5)),
        form(F.bilinear, r(4, 3), r(4, 3), r(5, 3, 3), data=[0, 1]),
        form(lambda x, w: F.bilinear(x, x, w), r(4, 3), r(5, 3, 3)),
    ],
    "addmm": [
        form(torch.addmm, r(5), r(4, 6), r(6, 5)),
        form(torch.addmm, r(4, 5), r(4, 6), r(6, 5), beta=2, alpha=3),
        form(torch.addmm, r(1, 5), r(4, 6), r(6, 5), alpha=-2),
        form(torch.addmm, r(4, 5), r(4, 6), r(6, 5), beta=0),
        form(torch.addmm, r(4, 5), r(4, 6), r(6, 5), alpha=0),
        form(
            lambda x, w, b: F.softmax(torch.addmm(b, x, w, beta=2), 1),
            r(4, 6),
            r(6, 5),
            r(5),
            data=[0],
        ),
    ],
    **{f"conv{n}d": _conv(getattr(F, f"conv{n}d"), n)[: 9 if n < 3 else 4] for n in (1, 2, 3)},
    **{
        f"conv_transpose{n}d": _transposed(getattr(F, f"conv_transpose{n}d"), n)[
            : 5 if n < 3 else 3
        ]
        for n in (1, 2, 3)
    },
    "batch_norm": [
        form(F.batch_norm, r(4, 6, 2), r(6), p(6), r(6), r(6)),
        form(F.batch_norm, r(4, 6), r(6), p(6), eps=0.3),
        form(F.batch_norm, r(4, 6, 2), None, None, r(6), r(6), training=True),
        form(F.batch_norm, r(4, 6, 2), r(6), p(6), r(6), r(6), data=[0]),
        form(lambda x, m, v: F.batch_norm(x, m * m, v * v), r(4, 6), r(6), p(6)),
        form(lambda x, m, v: F.batch_norm(x, m, v) / v, r(4, 6), r(6), p(6)),
        form(
            lambda x, m, v: F.batch_norm(F.batch_norm(x, m, v, eps=1), m, v, eps=2),
            r(4, 6),
            r(6),
            p(6),
        ),
        form(lambda x, v: F.batch_norm(x, v, v), r(4, 6), p(6)),
    ],
    "_weight_norm": [
        form(aten._weight_norm, r(5, 6), r(5, 1), 0),
        form(aten._weight_norm, r(5, 6, 3), r(1, 6, 1), 1),
        form(aten._weight_norm, r(5, 6), r(), -1),
    ],
    "layer_norm": [
        form(F.layer_norm, r(4, 6), (6,)),
        form(F.layer_norm, r(4, 6), (6,), r(6), r(6)),
        form(F.layer_norm, r(4, 2, 3), (2, 3), r(2, 3), r(2, 3)),
        form(F.layer_norm, r(4, 6), (6,), r(6), eps=0.5),
        form(lambda x: F.layer_norm(x.view(4, 2, 3), (3,)), r(4, 6)),
        form(lambda x, y: F.layer_norm(torch.cat([x, y], 1), (6,)), r(4, 2), r(4, 4)),
        form(lambda x, y: F.layer_norm(torch.cat([x, y], 0), (6,)), r(2, 6), r(4, 6)),
        form(lambda x, w: F.layer_norm(x, (6,), w, w), r(4, 6), r(6)),
    ],
    "rms_norm": [
        form(F.rms_norm, r(4, 6), (6,)),
        form(F.rms_norm, r(4, 2, 3), (2, 3), r(2, 3)),
        form(F.rms_norm, r(4, 6), (6,), r(6), eps=0.5),
        form(lambda x, y: F.rms_norm(torch.cat([x, y], 1), (6,)), r(4, 2), r(4, 4)),
    ],
    "group_norm": [
        form(F.group_norm, r(4, 6, 3), 2, r(6), r(6)),
        form(F.group_norm, r(4, 6), 6),
        form(F.group_norm, r(4, 6, 2), 1, r(6), eps=0.5),
        form(F.group_norm, r(4, 6, 2), 3, r(6), r(6), data=[0]),
    ],
    "instance_norm": [
        form(F.instance_norm, r(4, 6, 3)),
        form(F.instance_norm, r(4, 6, 3), None, None, r(6), r(6)),
        form(F.instance_norm, r(4, 6, 3), r(6), p(6), r(6), r(6), use_input_stats=False),
        form(
            F.instance_norm,
            r(4, 6, 2, 3),
            r(6),
            p(6),
            r(6),
            r(6),
            use_input_stats=False,
            eps=0.2,
            data=[0],
        ),
    ],
    "relu": [*unary("relu"), form(lambda x: torch.relu(x.view(4, 2, 3)), r(4, 6))],
    "leaky_relu": [*unary("leaky_relu"), *unary("leaky_relu", 0.3), *unary("leaky_relu", -2.0)],
    **{name: unary(name) for name in ODD.split()},
    "hardshrink": unary("hardshrink", 0.3),
    "softshrink": unary("softshrink", 0.3),
    "sign": unary("sign"),
    "cosh": unary("cosh"),
    "sinc": unary("sinc"),
    **{
        name: [
            *unary(name),
            form(lambda x, w, b, f=f: f(F.linear(x, w, b)), r(4, 6), r(5, 6), r(5), data=[0]),
            form(lambda x, w, b, f=f: f(30 * F.linear(x, w, b)), r(4, 6), r(5, 6), r(5), data=[0]),
            form(lambda x, b, f=f: f(x + b) * f(2 * (x + b)), r(4, 6), r(6), data=[0]),
            form(lambda x, b, c, f=f: f(x + b - c), r(4, 6), r(6), r(6), data=[0]),
            form(lambda x, b, f=f: f(x * b + b), r(4, 6), r(6), data=[0]),
            form(lambda x, b, f=f: f(x + b[:3]) + f(x - b[3:]), r(4, 3), r(6), data=[0]),
            form(
                lambda x, w, b, f=f: f(torch.add(x @ w, b, alpha=3)),
                r(4, 6),
                r(6, 5),
                r(5),
                data=[0],
            ),
        ]
        for name, f in (("sin", torch.sin), ("cos", torch.cos))
    },
    **{name: unary(name) for name in PLAIN.split()},
    "softplus": unary("softplus", 2.0, 5.0),
    "elu": unary("elu", 0.3),
    "gelu": unary("gelu", approximate="tanh"),
    "abs": unary("abs"),
    "square": unary("square"),
    "sqrt": [form(torch.sqrt, p(4, 6))],
    "rsqrt": [form(torch.rsqrt, p(4, 6))],
    "reciprocal": unary("reciprocal"),
    "neg": unary("neg"),
    "hardtanh": [*unary("hardtanh"), *unary("hardtanh", -1.0, 2.0)],
    "threshold": [
        *unary("threshold", 0.0, 0.0),
        *unary("threshold", 0.5, 0.0),
        *unary("threshold", 0.0, 2.0),
    ],
    "pow": [
        *unary("pow", 2),
        *unary("pow", 3.0),
        *unary("pow", -1),
        *unary("pow", 0),
        form(torch.pow, p(4, 6), 0.5),
        form(torch.pow, p(4, 6), -1.5),
        form(torch.pow, 2.0, r(4, 6)),
        form(torch.pow, p(4, 6), r(6)),
        form(torch.pow, p(6), r(4, 6), data=[1]),
    ],
    "clamp": [
        *unary("clamp", 0.0),
        *unary("clamp", None, 0.0),
        *unary("clamp", -1.0, 1.0),
        *unary("clamp", 0.0, 1.0),
        form(torch.clamp, r(4, 6), r(6), r(6)),
        form(lambda x: torch.clamp(x, 0, 0), r(4, 6)),
        form(torch.clamp, r(4, 6), r(4, 6)),
    ],
    "clamp_min": [
        *unary("clamp_min", 0.0),
        *unary("clamp_min", 1.0),
        form(torch.clamp_min, r(4, 6), r(6)),
    ],
    "clamp_max": [
        *unary("clamp_max", 0.0),
        *unary("clamp_max", 1.0),
        form(torch.clamp_max, r(4, 6), r(6)),
    ],
    "add": [
        *_binary(torch.add),
        *_binary(torch.add, alpha=3),
        form(torch.add, r(4, 6), 0.0),
        form(torch.add, r(4, 6), 2.0),
        form(lambda x: 1 + x, r(4, 6)),
        form(lambda x: x + torch.zeros(4, 6), r(4, 6)),
        form(lambda x: torch.add(x, -x), r(4, 6)),
        form(lambda x, b, c: F.softmax(x + b + 2 * c, -1), r(4, 6), r(6), r(6), data=[0]),
        form(lambda x, y: torch.relu(x + torch.cat([y, y], 1)), r(4, 6), r(4, 3)),
    ],
    "sub": [
        *_binary(torch.sub),
        *_binary(torch.sub, alpha=0.5),
        form(torch.sub, r(4, 6), 2.0),
        form(lambda x: x - x.mean(1, keepdim=True), r(4, 6)),
        form(lambda x: torch.zeros(6) - x, r(4, 6)),
    ],
    "rsub": [
        form(torch.rsub, r(4, 6), 1.0),
        form(torch.rsub, r(4, 6), r(6), alpha=2),
        form(torch.rsub, r(4, 6), 0),
        form(torch.rsub, r(4, 6), 2, alpha=3),
    ],
    "mul": [
        *_binary(torch.mul),
        form(torch.mul, r(4, 6), 3.0),
        form(torch.mul, r(4, 6), 0.0),
        form(torch.mul, r(4, 6), -2),
        form(lambda x: 0.5 * x, r(4, 6)),
        form(lambda x, w: F.layer_norm(x * w, (6,)), r(4, 1), r(6)),
        form(lambda x, y: x * torch.cat([y, y], 1), r(4, 6), r(4, 3)),
    ],
    "div": [
        *_binary(torch.div),
        form(torch.div, r(4, 6), 3.0),
        form(lambda x: 2.0 / x, r(4, 6)),
        form(torch.div, r(4, 6), r(6), rounding_mode="floor"),
        form(torch.div, r(4, 6), 2, rounding_mode="trunc"),
    ],
    "addcmul": [
        form(torch.addcmul, r(4, 6), r(4, 6), r(6)),
        form(torch.addcmul, r(6), r(4, 1), r(6), value=-0.5),
        form(lambda x: torch.addcmul(x, x, x), r(4, 6)),
        form(torch.addcmul, r(4, 6), r(4, 6), r(6), value=0),
    ],
    "addcdiv": [
        form(torch.addcdiv, r(4, 6), r(4, 6), r(6)),
        form(torch.addcdiv, r(6), r(4, 1), r(6), value=2),
    ],
    "lerp": [
        form(torch.lerp, r(4, 6), r(4, 6), 0.3),
        form(torch.lerp, r(4, 6), r(6), r(6)),
        form(torch.lerp, r(4, 6), r(4, 6), mask(4, 6).float(), data=[2]),
    ],
    "maximum": _binary(torch.maximum),
    "minimum": _binary(torch.minimum)[:3],
    "fmax": _binary(torch.fmax)[:3],
    "fmin": _binary(torch.fmin)[:3],
    **{
        name: [
            form(getattr(torch, name), r(4, 6), r(6)),
            form(getattr(torch, name), r(4, 6), 0.0),
            form(getattr(torch, name), r(4, 6), 1.0),
            form(lambda x, n=name: getattr(torch, n)(x, x.amax(1, keepdim=True)), r(4, 6)),
            form(lambda x, n=name: getattr(torch, n)(torch.relu(x), x), r(4, 6)),
        ]
        for name in ("eq", "ne", "lt", "le", "gt", "ge")
    },
    **{
        name: [form(lambda x, y, n=name: getattr(torch, n)(x > 0, y > 0), r(4, 6), r(6))]
        for name in (
            "logical_and",
            "logical_or",
            "logical_xor",
            "bitwise_and",
            "bitwise_or",
            "bitwise_xor",
        )
    },
    **{
        name: [form(lambda x, n=name: getattr(torch, n)(x > 0), r(4, 6))]
        for name in ("logical_not", "bitwise_not")
    },
    **{
        name: [form(lambda x, y, n=name: getattr(aten, n)(x > 0, y > 0), r(4, 6), r(6))]
        for name in ("__and__", "__or__", "__xor__")
    },
    **{
        name: [
            form(getattr(torch, name), r(4, 6), r(6)),
            form(getattr(torch, name), r(4, 6), r(4, 1)),
        ]
        for name in ("remainder", "fmod", "floor_divide", "atan2", "hypot")
    },
    "isclose": [form(torch.isclose, r(4, 6), r(4, 6))],
    "softmax": [
        *[form(torch.softmax, r(4, 6), dim) for dim in (0, -1)],
        form(lambda x: torch.softmax(x.view(4, 2, 3), 1), r(4, 6)),
        form(lambda x, y: torch.softmax(torch.cat([x, y], 1), 1), r(4, 2), r(4, 3)),
        form(lambda x, y: torch.softmax(torch.cat([x, y], 1), 0), r(4, 2), r(4, 3)),
        form(lambda x, b: torch.softmax(x * b, -1), r(4, 1), r(6), data=[0]),
        form(torch.softmax, r(4, 1), 1),
        form(torch.softmax, r(4, 6), 1, dtype=torch.float64),
    ],
    "log_softmax": _dims(torch.log_softmax),
    "_softmax": [form(aten._softmax, r(4, 6), -1, False)],
    "_log_softmax": [form(aten._log_softmax, r(4, 6), 0, False)],
    **{f"avg_pool{n}d": _pool(f"avg_pool{n}d", n, False) for n in (1, 2, 3)},
    **{f"adaptive_avg_pool{n}d": _pool(f"adaptive_avg_pool{n}d", n, True) for n in (1, 2, 3)},
    **{f"max_pool{n}d": _pool(f"max_pool{n}d", n, False) for n in (1, 2, 3)},
    "max_pool1d_with_indices": _pool("max_pool1d_with_indices", 1, False),
    "max_pool2d_with_indices": _pool("max_pool2d_with_indices", 2, False),
    "max_pool3d_with_indices": _pool("max_pool3d_with_indices", 3, False)[:1],
    **{f"adaptive_max_pool{n}d": _pool(f"adaptive_max_pool{n}d", n, True) for n in (1, 2, 3)},
    **{f"upsample_nearest{n}d": _resized(f"upsample_nearest{n}d", n, False) for n in (1, 2, 3)},
    **{
        f"_upsample_nearest_exact{n}d": _resized(f"_upsample_nearest_exact{n}d", n, False)
        for n in (1, 2, 3)
    },
    "upsample_linear1d": _resized("upsample_linear1d", 1, True),
    "upsample_bilinear2d": _resized("upsample_bilinear2d", 2, True),
    "upsample_bicubic2d": _resized("upsample_bicubic2d", 2, True),
    "upsample_trilinear3d": _resized("upsample_trilinear3d", 3, True),
    "_upsample_bilinear2d_aa": _resized("_upsample_bilinear2d_aa", 2, True),
    "_upsample_bicubic2d_aa": _resized("_upsample_bicubic2d_aa", 2, True),
    "grid_sampler": [
        form(aten.grid_sampler, r(2, 3, 4, 4), torch.rand(2, 5, 5, 2) * 2 - 1, 0, 0, False),
        form(aten.grid_sampler, r(2, 3, 4, 4), r(2, 5, 5, 2), 1, 1, True, data=[1]),
    ],
    "grid_sampler_2d": [form(aten.grid_sampler_2d, r(2, 3, 4, 4), r(2, 5, 5, 2), 0, 0, False)],
    "grid_sampler_3d": [
        form(aten.grid_sampler_3d, r(2, 3, 4, 4, 4), r(2, 2, 2, 2, 3), 0, 0, False)
    ],
    "linalg_vector_norm": [
        form(torch.linalg.vector_norm, r(4, 6)),
        form(torch.linalg.vector_norm, r(4, 6), 1, 1),
        form(torch.linalg.vector_norm, r(4, 6, 3), float("inf"), (0, 2), True),
        form(torch.linalg.vector_norm, r(4, 6), 0, 1),
        form(torch.linalg.vector_norm, r(4, 6), -1, 1),
        form(lambda x, y: torch.linalg.vector_norm(torch.cat([x, y], 1), dim=1), r(4, 2), r(4, 3)),
        form(torch.linalg.vector_norm, r(4, 1), 2, 1),
    ],
    "norm": [
        form(aten.norm.ScalarOpt_dim, r(4, 6), 2, [1]),
        form(aten.norm.Scalar, r(4, 6)),
        form(aten.norm.ScalarOpt_dim, r(4, 6), 0, [1]),
        form(aten.norm.ScalarOpt_dim, r(4, 6), 3, [-1], True),
    ],
    "std": [
        *_several(torch.std)[::3],
        form(torch.std, r(4, 6)),
        form(torch.std, r(4, 6), 1, correction=0),
    ],
    "var": [*_several(torch.var)[1:2], form(torch.var, r(4, 6), unbiased=False)],
    "logsumexp": _several(torch.logsumexp),
    "any": [form(torch.any, r(4, 6), 1), form(torch.any, r(4, 6))],
    "all": [form(torch.all, r(4, 6), 1)],
    "count_nonzero": [form(torch.count_nonzero, r(4, 6), 1), form(torch.count_nonzero, r(4, 6))],
    "prod": [form(torch.prod, r(4, 6), 1), form(torch.prod, r(4, 6))],
    "nansum": _several(torch.nansum),
    "nanmean": _several(torch.nanmean),
    "argmax": [*_reduced(torch.argmax)[:3], form(torch.argmax, r(4, 6))],
    "argmin": _reduced(torch.argmin)[:3],
    "mean": [
        *_several(torch.mean),
        form(torch.mean, r(4, 6)),
        form(lambda x, w: (x @ w).mean(1), r(4, 6), r(6, 5), data=[0]),
    ],
    "sum": [
        *_several(torch.sum),
        form(torch.sum, r(4, 6)),
        *_reduced(torch.sum),
        form(lambda x, w: (x * w).sum(1), r(4, 6), r(6), data=[0]),
    ],
    "max": [*_reduced(torch.max), form(torch.max, r(4, 6)), form(torch.max, r(4, 6), r(6))],
    "min": [form(torch.min, r(4, 6)), form(torch.min, r(4, 6), -1)],
    "amax": [*_several(torch.amax), form(torch.amax, r(4, 6))],
    "amin": _several(torch.amin)[:2],
    "reshape": [
        form(torch.reshape, r(4, 6), (4, 2, 3)),
        form(torch.reshape, r(4, 2, 3), (8, 3)),
        form(torch.reshape, r(4, 6), (8, 3)),
        form(torch.reshape, r(4, 6), (-1,)),
        form(torch.reshape, r(4, 6), (4, 1, 6)),
        form(torch.reshape, r(4, 6), (3, 8)),
        form(lambda x, y: torch.cat([x, y], 1).reshape(4, 2, 3), r(4, 3), r(4, 3)),
        form(lambda x, y: torch.cat([x, y], 1).reshape(4, 3, 2), r(4, 2), r(4, 4)),
        form(lambda x, y: torch.cat([x, y], 1).reshape(4, 3, 2), r(4, 3), r(4, 3)),
        form(lambda x: x.reshape(4, 2, 3).transpose(1, 2).reshape(4, 6), r(4, 6)),
        form(lambda x: x.reshape(4, 2, 3).transpose(1, 2).reshape(4, 6) + x, r(4, 6)),
    ],
    "view_copy": [form(aten.view_copy, r(4, 6), [4, 2, 3])],
    "flatten": [form(torch.flatten, r(4, 2, 3), 1), form(torch.flatten, r(4, 2, 3), 0, 1)],
    "unflatten": [form(torch.unflatten, r(4, 6), 1, (2, 3))],
    "squeeze": [form(torch.squeeze, r(4, 1, 6)), form(torch.squeeze, r(4, 1, 6), 1)],
    "unsqueeze": [form(torch.unsqueeze, r(4, 6), 1), form(torch.unsqueeze, r(4, 6), -1)],
    "squeeze_copy": [form(aten.squeeze_copy, r(4, 1, 6))],
    "unsqueeze_copy": [form(aten.unsqueeze_copy, r(4, 6), 1)],
    "view_as": [form(lambda x, y: x.view_as(y), r(4, 6), r(8, 3))],
    "reshape_as": [form(lambda x, y: x.reshape_as(y), r(4, 6), r(4, 2, 3))],
    "ravel": [form(torch.ravel, r(4, 6))],
    "permute": [
        form(torch.permute, r(4, 6, 3), (2, 0, 1)),
        form(torch.permute, r(4, 6, 3), (-1, 0, 1)),
    ],
    "transpose": [
        form(torch.transpose, r(4, 6, 3), -1, 0),
        form(lambda x: x.transpose(0, 1) * x, r(5, 5)),
    ],
    "t": [form(torch.t, r(4, 6)), form(torch.t, r(4))],
    "adjoint": [form(torch.adjoint, r(4, 6))],
    "mH": [form(lambda x: x.mH, r(4, 6))],
    "matrix_H": [form(aten.matrix_H, r(4, 6))],
    "permute_copy": [form(aten.permute_copy, r(4, 6), [1, 0])],
    "transpose_copy": [form(aten.transpose_copy, r(4, 6), 0, 1)],
    "t_copy": [form(aten.t_copy, r(4, 6))],
    "pixel_shuffle": [form(torch.pixel_shuffle, r(2, 8, 3, 3), 2)],
    "pixel_unshuffle": [form(torch.pixel_unshuffle, r(2, 3, 4, 4), 2)],
    "channel_shuffle": [
        form(torch.channel_shuffle, r(2, 6, 3, 3), 2),
        form(torch.channel_shuffle, r(2, 6, 3, 3), 3),
    ],
    "native_channel_shuffle": [form(torch.native_channel_shuffle, r(2, 6, 3, 3), 2)],
    "pad": [
        form(F.pad, r(4, 6), (1, 0)),
        form(F.pad, r(4, 6), (0, 0, 1, 1), value=2.0),
        form(F.pad, r(2, 4, 6), (1, 1), mode="reflect"),
        form(F.pad, r(2, 4, 6), (1, 1), mode="circular"),
        form(F.pad, r(4, 6), (0, 0)),
        form(F.pad, r(4, 6), (-1, 0)),
        form(F.pad, r(4, 6), (0, 1), value=float("-inf")),
    ],
    "constant_pad_nd": [
        form(torch.constant_pad_nd, r(4, 6), [1, 2], 0.0),
        form(torch.constant_pad_nd, r(4, 6), [1, 2], 1.5),
    ],
    "cat": [
        form(lambda *x: torch.cat(x, 1), r(4, 6), r(4, 3)),
        form(lambda *x: torch.cat(x), r(4, 6), r(2, 6)),
        form(lambda x: torch.cat([x, x], -1), r(4, 6)),
        form(lambda x: torch.cat([x, x.t()], 0), r(5, 5)),
        form(lambda *x: torch.cat(x, 1), r(4, 6), r(4, 3), data=[1]),
        form(lambda x, y: torch.cat([torch.cat([x, y], 1), y], 1), r(4, 2), r(4, 3)),
        form(
            lambda x, y: torch.cat([torch.cat([x, y], 1), torch.cat([x, y], 1)], 0),
            r(4, 2),
            r(4, 3),
        ),
        form(
            lambda x, y: torch.relu(torch.cat([x, y], 1) + torch.cat([y, x], 1)), r(4, 2), r(4, 3)
        ),
        form(lambda x, y: torch.cat([x, y], 1), r(4, 1), r(4, 3)),
    ],
    "stack": [
        form(lambda *x: torch.stack(x, 1), r(4, 6), r(4, 6)),
        form(lambda x: torch.stack([x, x], -1), r(4, 6)),
        form(lambda *x: torch.stack(x), r(6), r(6)),
        form(
            lambda x, y: torch.stack([torch.cat([x, y], 1), torch.cat([x, y], 1)]), r(4, 2), r(4, 3)
        ),
    ],
    "split": [
        form(lambda x: torch.split(x, 2, 1), r(4, 6)),
        form(lambda x: torch.split(x, 4, -1), r(4, 6)),
        form(lambda x: torch.split(x, 3), r(6)),
        form(lambda x, y: torch.split(torch.cat([x, y], 1), 3, 1), r(4, 4), r(4, 2)),
        form(lambda x: torch.split(x.view(4, 6), 4, 1)[1], r(24)),
        form(lambda x: x.split(3, 1)[0] * x.split(3, 1)[1], r(4, 6)),
    ],
    "split_with_sizes": [form(lambda x: torch.split(x, [1, 2, 3], 1), r(4, 6))],
    "tensor_split": [
        form(lambda x: torch.tensor_split(x, 4, 1), r(4, 6)),
        form(lambda x: torch.tensor_split(x, [1, 4], 1), r(4, 6)),
    ],
    "split_copy": [form(lambda x: aten.split_copy(x, 2, 1), r(4, 6))],
    "split_with_sizes_copy": [form(lambda x: aten.split_with_sizes_copy(x, [2, 4], 1), r(4, 6))],
    "unbind": [
        form(torch.unbind, r(3, 6)),
        form(torch.unbind, r(4, 3), -1),
        form(lambda x: x.view(4, 2, 3).unbind(1), r(4, 6)),
        form(lambda x: [torch.relu(part) for part in x.view(2, 3, 4).unbind(0)], r(6, 4)),
        form(lambda x: x.view(2, 3).unbind(0)[0] * x.view(2, 3).unbind(0)[1], r(6)),
    ],
    "unbind_copy": [form(aten.unbind_copy, r(3, 6))],
    "select": [
        form(torch.select, r(4, 6), 1, 2),
        form(torch.select, r(4, 6), -1, -1),
        form(lambda x: x[:, 0] * x[:, 1], r(4, 6)),
        form(lambda x: x.view(2, 3, 4)[1], r(6, 4)),
        form(lambda x, y: torch.cat([x, y], 1)[:, 3], r(4, 2), r(4, 3)),
        form(lambda x, y: torch.cat([x, y], 1)[0], r(4, 2), r(4, 3)),
        form(lambda x: F.layer_norm(x[:, 1], (6,)), r(4, 3, 6)),
    ],
    "select_copy": [form(aten.select_copy, r(4, 6), 1, 2)],
    "slice": [
        form(lambda x: x[:, 1:4], r(4, 6)),
        form(lambda x: x[:, ::2], r(4, 6)),
        form(lambda x: x[-2:], r(4, 6)),
        form(lambda x: x[:, 4:] * x[:, :2], r(4, 6)),
        form(lambda x: x[:, 6:], r(4, 6)),
        form(lambda x, y: torch.cat([x, y], 1)[:, 1:4], r(4, 2), r(4, 3)),
        form(lambda x, y: torch.cat([x, y], 1)[:, 2:], r(4, 2), r(4, 3)),
        form(lambda x, y: torch.cat([x, y], 1)[:, ::3], r(4, 2), r(4, 3)),
        form(lambda x: x[:, :3] + x[:, 3:], r(4, 6)),
        form(lambda x: x[:, :4] + x[:, 2:], r(4, 6)),
    ],
    "slice_copy": [form(aten.slice_copy, r(4, 6), 1, 1, 4)],
    "expand": [form(lambda x: x.expand(4, 6), r(6)), form(lambda x: x.expand(4, -1, 3), r(6, 1))],
    "expand_as": [form(lambda x, y: x.expand_as(y), r(6), r(4, 6))],
    "expand_copy": [form(aten.expand_copy, r(1, 6), [4, 6])],
    "slice_scatter": [
        form(lambda x, y: torch.slice_scatter(x, y, 1, 2, 5), r(4, 6), r(4, 3)),
        form(lambda x, y: torch.slice_scatter(x, y, 1, 0, 6, 2), r(4, 6), r(4, 3)),
        form(lambda x, y: torch.slice_scatter(x, y, 0, 1), r(4, 6), r(3, 6)),
        form(lambda x: torch.slice_scatter(x, x[:, :3], 1, 3), r(4, 6)),
    ],
    "select_scatter": [
        form(lambda x, y: torch.select_scatter(x, y, 1, 2), r(4, 6), r(4)),
        form(lambda y: torch.select_scatter(torch.zeros(4, 6), y, 1, 2), r(4)),
        form(lambda x: torch.select_scatter(x, x[:, 0], 1, 1), r(4, 6)),
    ],
    "matmul": [
        form(torch.matmul, r(4, 6), r(6, 5)),
        form(torch.matmul, r(2, 4, 6), r(6, 5)),
        form(torch.matmul, r(2, 4, 6), r(2, 6, 5)),
        form(torch.matmul, r(1, 4, 6), r(3, 6, 5)),
        form(torch.matmul, r(6), r(6, 5)),
        form(torch.matmul, r(4, 6), r(6)),
        form(torch.matmul, r(6), r(6)),
        form(lambda x: x @ x.t(), r(4, 6)),
        form(lambda x: x @ x, r(5, 5)),
        form(lambda x: x.t() @ x, r(4, 6)),
        form(lambda x, w: torch.softmax(x @ w @ x.t(), -1), r(4, 6), r(6, 6)),
        form(lambda x, w: (x @ w).sum(0), r(4, 6), r(6, 5), data=[0]),
        form(lambda x: torch.softmax(x @ x.t(), -1) @ x, r(4, 6)),
        form(
            lambda q, k, v: torch.softmax(q @ k.transpose(1, 2), -1) @ v,
            r(2, 4, 6),
            r(2, 3, 6),
            r(2, 3, 5),
        ),
        form(lambda x, a, b: x @ torch.cat([a, b], 1), r(4, 6), r(6, 2), r(6, 3), data=[0]),
        form(lambda x, a, b: x @ torch.cat([a, b], 0), r(4, 6), r(2, 5), r(4, 5), data=[0]),
        form(torch.matmul, r(4, 1), r(1, 5)),
    ],
    "bmm": [
        form(torch.bmm, r(2, 4, 6), r(2, 6, 5)),
        form(lambda x: torch.bmm(x, x.transpose(1, 2)), r(2, 4, 6)),
    ],
    "mm": [form(torch.mm, r(4, 6), r(6, 5))],
    "mv": [form(torch.mv, r(4, 6), r(6))],
    "dot": [form(torch.dot, r(6), r(6)), form(lambda x: torch.dot(x, x), r(6))],
    "vdot": [form(torch.vdot, r(6), r(6))],
    "baddbmm": [
        form(torch.baddbmm, r(2, 4, 5), r(2, 4, 6), r(2, 6, 5)),
        form(torch.baddbmm, r(5), r(2, 4, 6), r(2, 6, 5), beta=2, alpha=0.5),
        form(torch.baddbmm, r(2, 4, 5), r(2, 4, 6), r(2, 6, 5), beta=0),
    ],
    "outer": [form(torch.outer, r(4), r(6)), form(lambda x: torch.outer(x, x), r(5))],
    "einsum": [
        form(lambda x, y: torch.einsum("ab,cb->ac", x, y), r(4, 6), r(5, 6)),
        form(lambda x, y: torch.einsum("bij,bjk->bik", x, y), r(2, 3, 4), r(2, 4, 5)),
        form(lambda x, y: torch.einsum("...i,oi->...o", x, y), r(2, 3, 4), r(5, 4)),
        form(lambda x: torch.einsum("ij->ji", x), r(4, 6)),
        form(lambda x: torch.einsum("ij->j", x), r(4, 6)),
        form(lambda x: torch.einsum("ii->i", x), r(5, 5)),
        form(lambda x: torch.einsum("bi,bj->bij", x, x), r(4, 6)),
        form(lambda x, y, z: torch.einsum("a,b,c->abc", x, y, z), r(2), r(3), r(4)),
        form(lambda x, y: torch.einsum("ab,ab", x, y), r(4, 6), r(4, 6)),
        form(lambda x, y: torch.einsum("ab,ab->ab", x, y), r(4, 6), r(1, 6)),
        form(lambda x, y: torch.einsum("ab,cd->ad", x, y), r(4, 6), r(5, 3)),
    ],
    "scaled_dot_product_attention": [
        form(F.scaled_dot_product_attention, r(2, 3, 5, 4), r(2, 3, 6, 4), r(2, 3, 6, 4)),
        form(
            F.scaled_dot_product_attention,
            r(2, 3, 5, 4),
            r(2, 3, 5, 4),
            r(2, 3, 5, 7),
            is_causal=True,
            scale=0.3,
        ),
        form(
            F.scaled_dot_product_attention,
            r(2, 4, 5, 4),
            r(2, 2, 5, 4),
            r(2, 2, 5, 4),
            enable_gqa=True,
        ),
        form(F.scaled_dot_product_attention, r(5, 4), r(6, 4), r(6, 3)),
        form(F.scaled_dot_product_attention, r(2, 5, 4), r(2, 6, 4), r(2, 6, 4), r(5, 6)),
        form(F.scaled_dot_product_attention, r(2, 5, 4), r(2, 6, 4), r(2, 6, 4), mask(5, 6)),
        form(lambda x: F.scaled_dot_product_attention(x, x, x), r(2, 5, 4)),
        form(
            lambda q, k, c, v, w: F.scaled_dot_product_attention(
                q, torch.cat([k, c], 1), torch.cat([v, w], 1)
            ),
            r(2, 5, 4),
            r(2, 6, 4),
            r(2, 1, 4),
            r(2, 6, 4),
            r(2, 1, 4),
        ),
        form(F.scaled_dot_product_attention, r(1, 3, 5, 4), r(2, 3, 6, 4), r(2, 3, 6, 4)),
    ],
    "cdist": [form(torch.cdist, r(4, 6), r(5, 6)), form(torch.cdist, r(4, 6), r(5, 6), 1.0)],
    "_cdist_forward": [form(aten._cdist_forward, r(4, 6), r(5, 6), 2.0, None)],
    "cosine_similarity": [
        form(F.cosine_similarity, r(4, 6), r(4, 6)),
        form(F.cosine_similarity, r(4, 6), r(1, 6), dim=-1),
    ],
    "pairwise_distance": [
        form(F.pairwise_distance, r(4, 6), r(4, 6)),
        form(F.pairwise_distance, r(4, 3, 6), r(4, 3, 6), keepdim=True),
    ],
    **{
        name: [form(lambda x, n=name: getattr(torch, n)(4, 6) + x, r(6))]
        for name in ("zeros", "ones")
    },
    "full": [form(lambda x: torch.full((4, 6), 2.0) * x, r(6))],
    **{
        name: [form(lambda x, n=name: getattr(torch, n)(x) + x, r(4, 6))]
        for name in ("zeros_like", "ones_like")
    },
    "full_like": [form(lambda x: torch.full_like(x, 3.0) * x, r(4, 6))],
    **{
        name: [form(lambda x, n=name: getattr(x, n)(4, 6) + x, r(4, 6))]
        for name in ("new_zeros", "new_ones")
    },
    "new_full": [form(lambda x: x.new_full((4, 6), 2.0) * x, r(4, 6))],
    "scalar_tensor": [form(lambda x: torch.scalar_tensor(2.0) * x, r(4, 6))],
    "arange": [form(lambda x: torch.arange(6) * x, r(4, 6))],
    "linspace": [form(lambda x: torch.linspace(0, 1, 6) * x, r(4, 6))],
    "eye": [form(lambda x: torch.eye(6) * x, r(6, 6))],
    "tril_indices": [form(lambda x: x[torch.tril_indices(4, 4)[0]], r(4, 6))],
    "triu_indices": [form(lambda x: x[torch.triu_indices(4, 4)[0]], r(4, 6))],
    "hann_window": [form(lambda x: torch.hann_window(6) * x, r(4, 6))],
    "meshgrid": [
        form(lambda *x: torch.meshgrid(*x, indexing="ij"), r(4), r(6)),
        form(lambda *x: torch.meshgrid(*x, indexing="xy"), r(4), r(6)),
    ],
    "embedding": [
        form(F.embedding, i(4, 5), r(3, 6)),
        form(F.embedding, i(4), r(3, 6), padding_idx=0),
        form(lambda i, w: F.layer_norm(F.embedding(i, w), (6,)), i(4, 5), r(3, 6)),
        form(lambda i, w: F.embedding(i, w) @ w.t(), i(4, 5), r(3, 6)),
        form(lambda i, a, b: F.embedding(i, torch.cat([a, b])), i(4, 5, below=5), r(3, 6), r(2, 6)),
    ],
    "masked_fill": [
        form(torch.masked_fill, r(4, 6), mask(4, 6), value)
        for value in (0.0, float("-inf"), 2.0, float("inf"))
    ]
    + [
        form(torch.masked_fill, r(4, 6), mask(6), r()),
        form(lambda x: x.masked_fill(x < 0, 0.0), r(4, 6)),
        form(
            lambda x: torch.softmax(x.masked_fill(torch.ones(4, 4).triu(1) > 0, float("-inf")), -1),
            r(4, 4),
        ),
        form(torch.masked_fill, r(6), mask(4, 6), 0.0),
    ],
    "where": [
        form(torch.where, mask(4, 6), r(4, 6), r(6)),
        form(lambda m, x: torch.where(m, x, 0.0), mask(4, 6), r(4, 6)),
        form(lambda m, x: torch.where(m, 1.0, x), mask(4, 6), r(4, 6)),
        form(lambda m, x: torch.where(m, x, torch.zeros(6)), mask(4, 6), r(4, 6)),
        form(lambda x: torch.where(x > 0, x, 0.1 * x), r(4, 6)),
        form(lambda x: torch.where(x > 0, x, -x), r(4, 6)),
        form(lambda x, y: torch.where(x > y, x, y), r(4, 6), r(6)),
        form(lambda m: torch.where(m, 1.0, 2.0), mask(4, 6)),
    ],
    "prelu": [
        form(F.prelu, r(4, 6), r(6)),
        form(F.prelu, r(4, 6, 3), r(1)),
        form(F.prelu, r(4, 6), r(6), data=[0]),
    ],
    "_prelu_kernel": [form(aten._prelu_kernel, r(4, 6, 3), r(1, 6, 1))],
    "glu": [
        form(F.glu, r(4, 6)),
        form(F.glu, r(6, 4), 0),
        form(lambda x, y: F.glu(torch.cat([x, y], 1), 1), r(4, 3), r(4, 3)),
        form(lambda x, y: F.glu(torch.cat([x, y], 1), 1), r(4, 2), r(4, 4)),
    ],
    "index": [
        form(lambda x: x[:, torch.tensor([0, 2, 2])], r(4, 6)),
        form(lambda x: x[torch.tensor([0, 1]), :, torch.tensor([0, 2])], r(4, 6, 3)),
        form(lambda x, n: x[n], r(4, 6), i(2, 5)),
        form(lambda x: x[x.argmax(0)], r(6, 6)),
        form(lambda x, w: w[x.argmax(1)], r(4, 6), r(6, 3)),
        form(lambda x: x[torch.tensor([True, False, True, True])], r(4, 6)),
    ],
    "index_select": [
        form(torch.index_select, r(4, 6), 1, i(5)),
        form(torch.index_select, r(4, 6), -2, i(5)),
        form(lambda x, w: torch.index_select(w, 0, x.argmax(1)), r(4, 6), r(6, 3)),
    ],
    "index_copy": [
        form(torch.index_copy, r(4, 6), 1, torch.tensor([0, 3]), r(4, 2)),
        form(torch.index_copy, r(4, 6), 0, torch.tensor([0, 3]), r(2, 6)),
    ],
    "gather": [
        form(torch.gather, r(4, 6), 1, i(4, 2)),
        form(lambda x: torch.gather(x, 1, x.argmax(1, keepdim=True)), r(4, 6)),
    ],
    "topk": [
        form(torch.topk, r(4, 6), 2),
        form(torch.topk, r(4, 6), 2, 0),
        form(torch.topk, r(4, 6), 3, -1, False),
        form(lambda x: torch.topk(x.view(4, 2, 3), 2, 1), r(4, 6)),
    ],
    "sort": [
        form(torch.sort, r(4, 6)),
        form(torch.sort, r(4, 6), 0, True),
        form(torch.sort, r(4, 6), dim=1, stable=True),
    ],
    "kthvalue": [form(torch.kthvalue, r(4, 6), 2), form(torch.kthvalue, r(4, 6), 2, 0, True)],
    "mode": [form(torch.mode, r(4, 6))],
    "median": [
        form(torch.median, r(4, 6)),
        form(torch.median, r(4, 6), 1),
        form(torch.median, r(4, 6), 0, True),
    ],
    "cummax": [form(torch.cummax, r(4, 6), 1)],
    "cummin": [form(torch.cummin, r(4, 6), 0)],
    "roll": [
        form(torch.roll, r(4, 6), 2, 1),
        form(torch.roll, r(4, 6), 2),
        form(lambda x: x.roll(1, 1) * x, r(4, 6)),
        form(torch.roll, r(4, 6), (1, 2), (0, 1)),
    ],
    "flip": [form(torch.flip, r(4, 6), (1,)), form(torch.flip, r(4, 6), (0, -1))],
    "repeat": [
        form(lambda x: x.repeat(2, 1), r(4, 6)),
        form(lambda x: x.repeat(3, 1, 2), r(4, 6)),
        form(lambda x: x.repeat(1, 2), r(4, 1)),
    ],
    "tile": [form(torch.tile, r(4, 6), (2,)), form(torch.tile, r(4, 6), (3, 1, 1))],
    "repeat_interleave": [
        form(torch.repeat_interleave, r(4, 6), 2, 1),
        form(torch.repeat_interleave, r(4, 6), 2),
        form(torch.repeat_interleave, r(4, 6), 3, -2),
    ],
    "cumsum": [*_dims(torch.cumsum), form(lambda x: torch.cumsum(x.view(4, 2, 3), 1), r(4, 6))],
    "cumprod": _dims(torch.cumprod),
    "diff": [
        form(torch.diff, r(4, 6)),
        form(torch.diff, r(4, 6), 2, 0),
        form(torch.diff, r(4, 6), prepend=r(4, 1)),
        form(torch.diff, r(4, 6), append=r(4, 2)),
    ],
    "index_add": [
        form(torch.index_add, r(4, 6), 0, i(3), r(3, 6)),
        form(torch.index_add, r(4, 6), 1, i(3), r(4, 3), alpha=2),
        form(lambda n, y: zeros().index_add(0, n, y), i(3), r(3, 6)),
        form(lambda n, y: (zeros() + 1).index_add(0, n, y), i(3), r(3, 6)),
    ],
    "scatter": [
        form(lambda x, n, y: torch.scatter(x, 1, n, y), r(4, 6), i(4, 2), r(4, 2)),
        form(lambda x, n: torch.scatter(x, 1, n, 2.0), r(4, 6), i(4, 2)),
    ],
    "scatter_add": [
        form(torch.scatter_add, r(4, 6), 1, i(4, 2), r(4, 2)),
        form(torch.scatter_add, r(4, 6), 0, i(2, 6), r(2, 6)),
        form(lambda n, y: zeros().scatter_add(0, n, y), i(2, 6), r(2, 6)),
        form(lambda n, y: zeros().scatter_add(0, n, y), i(2, 3), r(2, 6)),
    ],
    "scatter_reduce": [
        form(torch.scatter_reduce, r(4, 6), 1, i(4, 2), r(4, 2), kind)
        for kind in ("sum", "mean", "amax", "prod")
    ]
    + [
        form(
            lambda n, y: (zeros() + 1).scatter_reduce(0, n, y, "sum", include_self=False),
            i(2, 6),
            r(2, 6),
        )
    ],
    "index_put": [
        form(lambda x, y: torch.index_put(x, (torch.tensor([0, 2]),), y), r(4, 6), r(2, 6)),
        form(
            lambda x, y: torch.index_put(x, (torch.tensor([0, 2]),), y, accumulate=True),
            r(4, 6),
            r(6),
        ),
    ],
    "_unsafe_index_put": [
        form(lambda x, y: aten._unsafe_index_put(x, [torch.tensor([0, 2])], y), r(4, 6), r(2, 6))
    ],
    "one_hot": [
        form(lambda x: F.one_hot(x.argmax(1), 6), r(4, 6)),
        form(lambda n, w: F.one_hot(n, 3).to(w) @ w, i(4), r(3, 6)),
    ],
    "tril": [form(torch.tril, r(5, 5)), form(torch.tril, r(2, 4, 6), 1)],
    "triu": [form(torch.triu, r(5, 5))],
    "diagonal": [
        form(torch.diagonal, r(5, 5)),
        form(torch.diagonal, r(4, 5, 5), 1, 1, 2),
        form(torch.diagonal, r(4, 6)),
    ],
    "diagonal_copy": [form(aten.diagonal_copy, r(5, 5))],
    "argsort": [form(torch.argsort, r(4, 6), 1)],
    "searchsorted": [form(torch.searchsorted, torch.arange(6.0), r(4), data=[0])],
    "bucketize": [form(torch.bucketize, r(4), torch.arange(6.0), data=[1])],
    "lstm": [
        *_recurrent(nn.LSTM),
        form(nn.LSTM(3, 4, proj_size=2), r(5, 2, 3)),
        form(nn.LSTM(3, 4, proj_size=2, num_layers=2, bidirectional=True), r(5, 2, 3)),
    ],
    "gru": _recurrent(nn.GRU),
    "rnn_tanh": _recurrent(nn.RNN),
    "rnn_relu": _recurrent(nn.RNN, nonlinearity="relu"),
    "lstm_cell": _cell(nn.LSTMCell),
    "gru_cell": _cell(nn.GRUCell),
    "rnn_tanh_cell": _cell(nn.RNNCell),
    "rnn_relu_cell": _cell(nn.RNNCell, nonlinearity="relu"),
    "copy": [form(aten.copy, r(4, 6), r(6))],
    "fill": [form(aten.fill, r(4, 6), 2.0), form(aten.fill, r(4, 6), r())],
    "zero": [form(aten.zero, r(4, 6))],
    "im2col": [form(F.unfold, r(2, 3, 4, 4), 2), form(F.unfold, r(2, 3, 4, 4), 2, padding=1)],
    "col2im": [form(F.fold, r(2, 12, 9), (4, 4), 2)],
    "unfold": [
        form(lambda x: x.unfold(1, 3, 2), r(4, 7)),
        form(lambda x: x.unfold(0, 2, 1), r(4, 6)),
    ],
    "dropout": [
        form(lambda x: F.dropout(x, 0.5, False), r(4, 6)),
        form(lambda x: aten.dropout(x, 0.5, True), r(4, 6)),
    ],
    "feature_dropout": [form(lambda x: aten.feature_dropout(x, 0.5, True), r(4, 6, 3))],
    "alpha_dropout": [form(lambda x: aten.alpha_dropout(x, 0.5, True), r(4, 6))],
    "feature_alpha_dropout": [form(lambda x: aten.feature_alpha_dropout(x, 0.5, True), r(4, 6, 3))],
    "to": [
        form(lambda x: x.to(torch.float32), r(4, 6)),
        form(lambda x: x.to(torch.int64), r(4, 6)),
        form(lambda x: (x > 0).to(torch.float64), r(4, 6)),
    ],
    "type_as": [
        form(lambda x: x.type_as(torch.zeros(1, dtype=torch.float32)), r(4, 6)),
        form(lambda x, y: x.type_as(y), r(4, 6), i(3)),
    ],
    "tensordot": [
        form(torch.tensordot, r(4, 6), r(6, 5), 1),
        form(torch.tensordot, r(4, 6, 3), r(6, 4, 5), [[0, 1], [1, 0]]),
        form(lambda x: torch.tensordot(x, x, [[1], [1]]), r(4, 6)),
    ],
    "addmv": [
        form(torch.addmv, r(4), r(4, 6), r(6)),
        form(torch.addmv, r(4), r(4, 6), r(6), beta=2, alpha=-1),
        form(torch.addmv, r(4), r(4, 6), r(6), beta=0),
    ],
    "addr": [form(torch.addr, r(4, 6), r(4), r(6)), form(torch.addr, r(6), r(4), r(6), beta=3)],
    "aminmax": [form(lambda x: tuple(torch.aminmax(x, dim=1)), r(4, 6))],
    "std_mean": [form(torch.std_mean, r(4, 6), 1), form(torch.std_mean, r(4, 6))],
    "var_mean": [
        form(torch.var_mean, r(4, 6), 1, keepdim=True),
        form(torch.var_mean, r(4, 6), 0, correction=0),
    ],
    "logcumsumexp": [form(torch.logcumsumexp, r(4, 6), 1)],
    "logaddexp": [form(torch.logaddexp, r(4, 6), r(6))],
    "logaddexp2": [form(torch.logaddexp2, r(4, 6), r(6))],
    "xlogy": [form(torch.xlogy, r(4, 6), p(6)), form(torch.xlogy, r(4, 6), 2.0)],
    "copysign": [form(torch.copysign, r(4, 6), r(6)), form(torch.copysign, r(4, 6), -1.0)],
    "heaviside": [form(torch.heaviside, r(4, 6), r(6))],
    "masked_scatter": [form(torch.masked_scatter, r(4, 6), mask(4, 6), r(24))],
    "take_along_dim": [form(torch.take_along_dim, r(4, 6), i(4, 2), 1)],
    "complex": [form(torch.complex, r(4, 6), r(4, 6)), form(torch.complex, r(4, 6), r(6))],
    "polar": [form(torch.polar, p(4, 6), r(6))],
    "view_as_complex": [form(torch.view_as_complex, r(4, 6, 2))],
    "view_as_real": [form(torch.view_as_real, c(4, 6))],
    "real": [form(torch.real, c(4, 6))],
    "imag": [form(torch.imag, c(4, 6))],
    "angle": [form(torch.angle, c(4, 6)), form(torch.angle, r(4, 6))],
    "sgn": [form(torch.sgn, c(4, 6)), form(torch.sgn, r(4, 6))],
    **{
        name: [form(getattr(aten, name), c(4, 6))]
        for name in ("_conj", "_conj_physical", "conj", "conj_physical")
    },
    **{
        f"fft_{name}": [
            form(getattr(torch.fft, name), x(4, 6, 3), dim=1),
            form(getattr(torch.fft, name), x(4, 6), norm="ortho"),
            form(getattr(torch.fft, name), x(4, 6), 4),
        ]
        for name, x in (
            ("fft", lambda *size: c(*size)),
            ("ifft", lambda *size: c(*size)),
            ("hfft", lambda *size: c(*size)),
            ("irfft", lambda *size: c(*size)),
            ("rfft", lambda *size: r(*size)),
            ("ihfft", lambda *size: r(*size)),
        )
    },
    **{
        f"fft_{name}": [
            form(getattr(torch.fft, name), x(4, 6, 5)),
            form(getattr(torch.fft, name), x(4, 6, 5), dim=(0, 1)),
        ]
        for name, x in (
            ("fft2", lambda *size: c(*size)),
            ("ifft2", lambda *size: c(*size)),
            ("fftn", lambda *size: c(*size)),
            ("ifftn", lambda *size: c(*size)),
            ("irfft2", lambda *size: c(*size)),
            ("irfftn", lambda *size: c(*size)),
            ("rfft2", lambda *size: r(*size)),
            ("rfftn", lambda *size: r(*size)),
        )
    },
    **{
        name: [form(getattr(aten, name), r(4, 6), [1]), form(getattr(aten, name), r(4, 6))]
        for name in ("fft_fftshift", "fft_ifftshift")
    },
    "embedding_bag": [
        form(lambda n, w, f=mode: F.embedding_bag(n, w, mode=f), i(4, 5), r(3, 6))
        for mode in ("sum", "mean", "max")
    ],
}
