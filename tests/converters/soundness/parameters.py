"""Parameters: read twice, computed with, multiplied by factors in sums, on shared memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .case import (
    N8,
    S5,
    Linear,
    Net,
    Norm,
    P,
    S,
    V,
    attention,
    case,
    drawn,
    heads,
    joined,
    network,
    neurons,
    normed,
    qkvo,
    tokens,
)
from .laws import law

# fmt: off

# A parameter is read a second time, by something that is no layer.
READ = "read elsewhere"
STREAM = law("e.weight 1, n.weight 0, n.bias 0, f.weight 0, f.weight 1, f.bias 0", "permutation")


def language_model(read: Callable[..., object]) -> Callable[[], Net]:
    """A residual network on an embedding, whose last states are read with the module at hand."""
    return lambda: Net(
        lambda m, i: read(m, m.n(m.e(i) + m.f(m.n(m.e(i))))),
        e=nn.Embedding(7, 6),
        n=Norm(6),
        f=Linear(6, 6),
    )


def watched(also: Callable[[nn.Module, Tensor], object]) -> Callable[[], Net]:
    """A layer before a norm, and something else that is done with its parameters."""
    return network(lambda m, x: also(m, m.o(m.n(m.a(x)))), **N8)


CONSTANT = law("a.bias", "shift")
COLUMNS = law("a.weight 1", "shift")
case(READ, "tied head by transpose(0, 1)", tokens(7, 4),
     language_model(lambda m, h: h @ m.e.weight.transpose(0, 1)), STREAM)
case(READ, "tied head by einsum", tokens(7, 4),
     language_model(lambda m, h: torch.einsum("btd,vd->btv", h, m.e.weight)), STREAM)
case(READ, "tied head by rows", tokens(7, 4), language_model(lambda m, h: h @ m.e.weight[1:6].T),
     STREAM)
case(READ, "tied head by distances", tokens(7, 4),
     language_model(lambda m, h: (h.unsqueeze(-2) - m.e.weight).square().sum(-1)), STREAM)
case(READ, "norm of the bias as output", V, watched(lambda m, y: (y, m.a.bias.norm())), normed(),
     COLUMNS)
case(READ, "sum of squares of the weight", V,
     watched(lambda m, y: (y, m.a.weight.square().sum())), normed(), CONSTANT)
case(READ, "mean of the bias", V, watched(lambda m, y: y + m.a.bias.mean()), normed(), COLUMNS)
case(READ, "bias as an output", V, watched(lambda m, y: (y, m.a.bias)), COLUMNS)
case(READ, "one entry of the bias", V, watched(lambda m, y: y + m.a.bias[0]), COLUMNS)
case(READ, "row of the weight", V, watched(lambda m, y: y + m.a.weight[2].sum()), CONSTANT)
case(READ, "reshaped weight", V, watched(lambda m, y: y + m.a.weight.reshape(-1)[:3]), CONSTANT)
case(READ, "sum of the weight of a ReLU", V,
     network(lambda m, x: (m.o(torch.relu(m.a(x))), m.a.weight.sum())), neurons("permutation"))
case(READ, "squares of the weight of tanh", V,
     network(lambda m, x: m.o(torch.tanh(m.a(x))) + m.a.weight.pow(2).mean()),
     neurons("permutation sign"))
case(READ, "phase of a sine read", V,
     network(lambda m, x: m.o(torch.sin(m.a(x))) + m.a.bias.abs().sum()),
     neurons("permutation sign"))
case(READ, "key bias read", S,
     lambda: Net(lambda m, x: (joined(attention(*(heads(f(x)) for f in (m.q, m.k, m.v)))),
     m.k.bias.sum()), **{k: v for k, v in qkvo().items() if k != "o"}))
case(READ, "positions read by the head", S5,
     lambda: Net(lambda m, x: torch.einsum("btd,sd->bts", m.n(x + m.p), m.p), p=P(5, 8),
     n=Norm(8)))
case(READ, "weight used forwards and back", V,
     lambda: Net(lambda m, x: torch.relu(x @ m.w) @ m.w.t(), w=P(5, 6)),
     law("w 1", "permutation"))

# A function of a parameter is not the parameter.
COMPUTED = "computed weight"


def weighed(
    weight: Callable[..., Tensor],
    act: Callable[[Tensor], Tensor] | None = None,
    **more: Callable[[], object],
) -> Callable[[], Net]:
    """The first layer's weight computed, then a LayerNorm or an activation."""

    def forward(m: nn.Module, x: Tensor) -> Tensor:
        h = F.linear(x, weight(m), m.a.bias)
        return m.o(m.n(h) if act is None else act(h))

    return network(forward, **(N8 if act is None else {}), **more)


case(COMPUTED, "tanh(W), LayerNorm", V, weighed(lambda m: m.a.weight.tanh()), CONSTANT, normed())
case(COMPUTED, "sigmoid(W), LayerNorm", V, weighed(lambda m: m.a.weight.sigmoid()), CONSTANT,
     normed())
case(COMPUTED, "W³, LayerNorm", V, weighed(lambda m: m.a.weight ** 3), CONSTANT, normed())
case(COMPUTED, "standardised rows, LayerNorm", V,
     weighed(lambda m: (m.a.weight - m.a.weight.mean(1, keepdim=True)) / (m.a.weight.var(1,
     keepdim=True) + 1e-05).sqrt()), CONSTANT, normed())
case(COMPUTED, "centred rows, ReLU", V,
     weighed(lambda m: m.a.weight - m.a.weight.mean(1, keepdim=True), torch.relu),
     neurons("permutation positive"), law("a.weight 0", "shift"))
case(COMPUTED, "normalised rows, ReLU", V,
     weighed(lambda m: F.normalize(m.a.weight, dim=1), torch.relu), neurons("permutation"))
case(COMPUTED, "rows over their norm, ReLU", V,
     weighed(lambda m: m.a.weight / m.a.weight.norm(dim=1, keepdim=True), torch.relu),
     neurons("permutation"), law("a.weight 0", "positive"))
case(COMPUTED, "masked, ReLU", V,
     weighed(lambda m: m.a.weight * m.k, torch.relu, k=lambda: (torch.rand(8, 5) > 0.5).double()),
     law("a.weight 0, a.bias 0, o.weight 1 -1", "positive"))
case(COMPUTED, "masked by where, LayerNorm", V,
     weighed(lambda m: torch.where(m.k, m.a.weight, 0.0), k=lambda: torch.rand(8, 5) > 0.5),
     CONSTANT)
case(COMPUTED, "clamped, LayerNorm", V, weighed(lambda m: m.a.weight.clamp(-0.5, 0.5)), CONSTANT,
     normed())
case(COMPUTED, "absolute, ReLU", V, weighed(lambda m: m.a.weight.abs(), torch.relu),
     neurons("permutation positive"))
case(COMPUTED, "low-rank sum, LayerNorm", V,
     weighed(lambda m: m.a.weight + m.u @ m.v, u=lambda: P(8, 2), v=lambda: P(2, 5)), CONSTANT,
     law("u 1, v 0 -1", "general"))
case(COMPUTED, "outer product", V,
     weighed(lambda m: torch.outer(m.u, m.v), torch.tanh, u=lambda: P(8), v=lambda: P(5)),
     law("u 0, a.bias 0, o.weight 1", "permutation sign"))
case(COMPUTED, "negated bias, LayerNorm", V,
     network(lambda m, x: m.o(m.n(x @ m.a.weight.t() - m.a.bias)), **N8), normed(), CONSTANT)
case(COMPUTED, "bias twice, BatchNorm", V,
     network(lambda m, x: m.o(m.n(m.a(x) + m.a.bias)), n=lambda: nn.BatchNorm1d(8)),
     law("a.weight 0, a.bias 0, n.weight 0, n.bias 0, n.running_mean 0, "
     "n.running_var 0, o.weight 1", "permutation"))
case(COMPUTED, "exponential gain", V,
     network(lambda m, x: m.o(torch.relu(m.a(x)) * m.g.exp()), g=lambda: P(8)),
     law("a.weight 0, a.bias 0, g 0, o.weight 1", "permutation"), neurons("positive"))
case(COMPUTED, "positions times a gain, softmax", S5,
     lambda: Net(lambda m, x: m.o((x + m.p * m.g).softmax(-1)), p=P(5, 8), g=P(8),
     o=Linear(8, 3)), law("p 1, g 0 -1", "positive sign"))

# Factors within sums.
FACTORS = "alpha and beta"
NORM_STATISTICS = law("a.weight 0, a.bias 0, b.weight 0, b.bias 0, n.weight 0, n.bias 0, "
     "n.running_mean 0, n.running_var 0, o.weight 1", "permutation")


def mixed(
    mix: Callable[[Tensor, Tensor], Tensor], norm: type[nn.Module] = nn.BatchNorm1d
) -> Callable[[], Net]:
    return network(
        lambda m, x: m.o(torch.relu(m.n(mix(m.a(x), m.b(x))))),
        b=lambda: Linear(5, 8),
        n=lambda: norm(8),
    )


case(FACTORS, "sub(alpha), BatchNorm", V, mixed(lambda a, b: torch.sub(a, b, alpha=3)),
     NORM_STATISTICS)
case(FACTORS, "lerp, BatchNorm", V, mixed(lambda a, b: torch.lerp(a, b, 0.3)), NORM_STATISTICS)
case(FACTORS, "add_(alpha), BatchNorm", V, mixed(lambda a, b: a.add_(b, alpha=-0.5)),
     NORM_STATISTICS)
case(FACTORS, "add(alpha), LayerNorm", V, mixed(lambda a, b: torch.add(a, b, alpha=2), Norm))
case(FACTORS, "addcmul(value)", V,
     network(lambda m, x: m.o(torch.tanh(torch.addcmul(m.c, m.a(x), m.g, value=2))),
     c=lambda: P(8), g=lambda: P(8)),
     law("a.weight 0, a.bias 0, c 0, g 0, o.weight 1", "permutation"))
case(FACTORS, "addmm(alpha, beta), LayerNorm", V,
     lambda: Net(lambda m, x: m.o(m.n(torch.addmm(m.b, x, m.w, beta=0.5, alpha=2))), b=P(8),
     w=P(5, 8), n=Norm(8), o=Linear(8, 3)),
     law("w 1, b 0, n.weight 0, n.bias 0, o.weight 1", "permutation"), law("b", "shift"),
     law("w 0", "shift"))
case(FACTORS, "addmm(beta=0)", V,
     network(lambda m, x: m.o(torch.relu(torch.addmm(m.b, x, m.w, beta=0))), w=lambda: P(5, 8),
     b=lambda: P(8)), law("w 1, o.weight 1 -1", "permutation positive"))
case(FACTORS, "baddbmm(beta), softmax", S,
     lambda: Net(lambda m, x: m.o(torch.baddbmm(m.b, x, m.w.expand(len(x), -1, -1),
     beta=3).softmax(-1)), b=P(1, 1, 6), w=P(1, 8, 6), o=Linear(6, 2)),
     law("b 2, w 2, o.weight 1", "permutation"), law("b", "shift"))

# Entries that share memory.
VIEWS = "tied by a view"


def transposed(
    make: Callable[[Linear, Linear], object], act: type[nn.Module] = nn.ReLU
) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        encoder, decoder = Linear(4, 6), Linear(6, 4)
        make(encoder, decoder)
        return nn.Sequential(encoder, act(), decoder).eval()

    return build


def tie(decoder: nn.Linear, weight: Tensor) -> None:
    decoder.weight = nn.Parameter(weight)


def share(decoder: nn.Linear, weight: Tensor) -> None:
    decoder.weight.data = weight


V4 = drawn((2, 4), (3, 4), (5, 4))
TIED = law("0.weight 0, 0.bias 0, 2.weight 1", "permutation")
case(VIEWS, "Parameter(weight.t())", V4, transposed(lambda e, d: tie(d, e.weight.t())), TIED)
case(VIEWS, "weight.data = weight.data.mT", V4,
     transposed(lambda e, d: share(d, e.weight.data.mT)), TIED)
case(VIEWS, "transposed, tanh", V4, transposed(lambda e, d: tie(d, e.weight.detach().T), nn.Tanh),
     law("0.weight 0, 0.bias 0, 2.weight 1", "permutation"))


def from_one(*cuts: tuple[int, int]) -> Callable[[], Net]:
    """Two layers and a read-out whose weights are rows of one tensor."""

    def build() -> Net:
        numbers = torch.randn(16, 5)
        layers = {name: Linear(5, 8) for name in "ab"}
        for layer, (start, stop) in zip(layers.values(), cuts, strict=True):
            layer.weight = nn.Parameter(numbers[start:stop])
        return Net(
            lambda m, x: m.o(torch.relu(m.a(x))) + m.p(torch.tanh(m.b(x))),
            **layers,
            o=Linear(8, 3),
            p=Linear(8, 3),
        )

    return build


case(VIEWS, "slices that overlap", V, from_one((0, 8), (3, 11)))
case(VIEWS, "slices that touch", V, from_one((0, 8), (8, 16)), neurons("permutation positive"),
     law("b.weight 0, b.bias 0, p.weight 1", "permutation sign"))
case(VIEWS, "one weight, two parameters", V, from_one((2, 10), (2, 10)))


def bias_in_weight() -> Net:
    numbers, layer = torch.randn(8, 6), Linear(5, 8)
    layer.weight, layer.bias = nn.Parameter(numbers[:, :5]), nn.Parameter(numbers[:, 5])
    return Net(lambda m, x: m.o(torch.relu(m.a(x))), a=layer, o=Linear(8, 3))


def bias_on_weight() -> Net:
    layer = Linear(5, 8)
    layer.bias = nn.Parameter(layer.weight.data[:, 0])
    return Net(lambda m, x: m.o(torch.relu(m.a(x))), a=layer, o=Linear(8, 3))


def convolution_as_layer() -> Net:
    conv, layer = nn.Conv1d(6, 6, 1, bias=False), Linear(6, 6, bias=False)
    layer.weight = nn.Parameter(conv.weight.data[:, :, 0])
    return Net(lambda m, x: m.c(torch.relu(m.a(x)).unsqueeze(-1)).squeeze(-1), c=conv, a=layer)


def gain_on_diagonal() -> Net:
    layer = Linear(8, 8, bias=False)
    return Net(
        lambda m, x: m.o(torch.relu(m.b(torch.relu(m.a(x)))) * m.g),
        a=Linear(5, 8),
        b=layer,
        g=nn.Parameter(layer.weight.data.diagonal()),
        o=Linear(8, 3),
    )


case(VIEWS, "bias beside the weight", V, bias_in_weight, neurons("permutation positive"))
case(VIEWS, "bias is a column of the weight", V, bias_on_weight)
case(VIEWS, "convolution and layer", drawn((2, 6), (3, 6)), convolution_as_layer)
case(VIEWS, "gain is a diagonal", V, gain_on_diagonal)
