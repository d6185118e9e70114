"""Dimensions: gone, twice in one product, of size 1 in the example, joined on by differences."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .case import (
    ALONE,
    HEADS,
    VALUES,
    Linear,
    Net,
    P,
    S,
    V,
    attention,
    between,
    case,
    drawn,
    heads,
    joined,
    network,
    neurons,
    qkvo,
)
from .laws import law

# fmt: off

# A unit outlives the dimension that it belonged to.
REMOVED = "removed dimension"


def angles(z: Tensor, planes: int = 2) -> Tensor:
    return torch.arange(z.shape[-2])[:, None] * 10.0 ** -torch.arange(planes) + 0.3


def interleaved(z: Tensor) -> Tensor:
    even, odd = z.unflatten(-1, (-1, 2)).unbind(-1)
    t = angles(z)
    return torch.stack(
        [even * t.cos() - odd * t.sin(), even * t.sin() + odd * t.cos()], -1
    ).flatten(-2)


def halves(z: Tensor) -> Tensor:
    t = angles(z).repeat(1, 2)
    first, second = z.chunk(2, -1)
    return z * t.cos() + torch.cat([-second, first], -1) * t.sin()


def complex_view(z: Tensor) -> Tensor:
    turned = torch.view_as_complex(z.unflatten(-1, (-1, 2)).contiguous())
    t = angles(z)
    return torch.view_as_real(turned * torch.polar(torch.ones_like(t), t)).flatten(-2)


def partial(z: Tensor) -> Tensor:
    t = angles(z, 1).repeat(1, 2)
    turned, rest = z[..., :2], z[..., 2:]
    other = torch.stack([-turned[..., 1], turned[..., 0]], -1)
    return torch.cat([turned * t.cos() + other * t.sin(), rest], -1)


def rotary(rotate: Callable[[Tensor], Tensor]) -> Callable[[], Net]:
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        q, k, v = (heads(layer(x)) for layer in (m.q, m.k, m.v))
        return m.o(joined(attention(rotate(q), rotate(k), v)))

    return lambda: Net(forward, **qkvo())


for form in (interleaved, halves, complex_view, partial):
    case(REMOVED, f"rotary positions, {form.__name__}", S, rotary(form), HEADS, VALUES)


case(REMOVED, "neighbours multiplied", V,
     lambda: Net(lambda m, x: m.o(m.a(x)[:, ::2] * m.a(x)[:, 1::2]), a=Linear(5, 8),
     o=Linear(4, 3)))
case(REMOVED, "ratio of two units", V,
     network(lambda m, x: m.a(x)[:, 0] / (1 + m.a(x)[:, 1].square())))
case(REMOVED, "pairs by unbind", V,
     lambda: Net(lambda m, x: m.o(torch.mul(*m.a(x).view(-1, 4, 2).unbind(-1))), a=Linear(5, 8),
     o=Linear(4, 3)))
case(REMOVED, "determinant of four units", V,
     lambda: Net(lambda m, x: (lambda a, b, c, d: a * d - b * c)(*m.a(x).split(1, 1)),
     a=Linear(5, 4)))
case(REMOVED, "first unit gates all", V, between(lambda h: torch.tanh(h) * torch.tanh(h)[:, :1]))
case(REMOVED, "reversed product", V, between(lambda h: torch.tanh(h) * torch.tanh(h).flip(-1)))
case(REMOVED, "rolled product", V, between(lambda h: h * h.roll(1, -1)))
case(REMOVED, "ratio of a parameter's rows", V,
     lambda: Net(lambda m, x: x * m.p[0] / m.p[1].exp(), p=P(2, 5)))
case(REMOVED, "product of a parameter's columns", V,
     lambda: Net(lambda m, x: x @ m.p[:, 0] * (x @ m.p[:, 1]), p=P(5, 2)))
case(REMOVED, "padded with ones, multiplied", V,
     lambda: Net(lambda m, x: m.o(F.pad(m.a(x), (0, 2), value=1.0) * m.b(x)), a=Linear(5, 6),
     b=Linear(5, 8), o=Linear(8, 3)))
case(REMOVED, "squeezed unit", V,
     lambda: Net(lambda m, x: m.o(torch.relu(m.a(x)) * m.b(x).squeeze(-1)[:, None]),
     a=Linear(5, 8), b=Linear(5, 1), o=Linear(8, 3)), neurons("permutation positive"))
case(REMOVED, "last of two gates by index", V,
     lambda: Net(lambda m, x: m.o(torch.tanh(m.a(x))[:, [0, 2, 4, 6]] * torch.tanh(m.a(x))[:,
     [1, 3, 5, 7]]), a=Linear(5, 8), o=Linear(4, 3)))

# The same axis on both sides of a product: one basis for all rows.
GRAM = "gram product"
FIELDS = law("a.weight 1 as 4x6x5, a.bias 1 as 4x6", "orthogonal")


def pairwise(product: Callable[[Tensor], Tensor], size: int = 16) -> Callable[[], Net]:
    """Interactions of four fields of six units."""
    return lambda: Net(
        lambda m, x: m.o(product(m.a(x).view(-1, 4, 6)).flatten(1)),
        a=Linear(5, 24),
        o=Linear(size, 2),
    )


SWAPPED = law("a.weight 0 as 4x6x5, a.bias 0 as 4x6, o.weight 1 as 2x4x4, o.weight 2 as 2x4x4",
     "permutation")
case(GRAM, "einsum of fields", V, pairwise(lambda t: torch.einsum("bid,bjd->bij", t, t)), FIELDS,
     SWAPPED)
case(GRAM, "bmm of fields", V, pairwise(lambda t: torch.bmm(t, t.permute(0, 2, 1))), FIELDS,
     SWAPPED)
case(GRAM, "distances of fields", V, pairwise(lambda t: torch.cdist(t, t)),
     law("a.weight 1 as 4x6x5, a.bias 1 as 4x6", "permutation"))
case(GRAM, "cosines of fields", V,
     pairwise(lambda t: F.cosine_similarity(t.unsqueeze(1), t.unsqueeze(2), dim=-1)),
     law("a.weight 1 as 4x6x5, a.bias 1 as 4x6", "permutation"))
case(GRAM, "normalised by hand", V,
     pairwise(lambda t: t / t.norm(dim=-1, keepdim=True) @ (t / t.norm(dim=-1, keepdim=True)).mT),
     law("a.weight 1 as 4x6x5, a.bias 1 as 4x6", "permutation"))
case(GRAM, "pairs above the diagonal", V,
     pairwise(lambda t: (t @ t.mT)[:, *torch.triu_indices(4, 4, 1)], 6), FIELDS)
case(GRAM, "factorisation machine", V,
     pairwise(lambda t: t.sum(1).square().sum(1, keepdim=True) - t.square().sum((1, 2))[:, None],
     1), law("a.weight 1 as 4x6x5, a.bias 1 as 4x6", "permutation"))
case(GRAM, "covariance of units", S,
     lambda: Net(lambda m, x: m.o((m.a(x).tanh().mT @ m.a(x).tanh()).flatten(1)), a=Linear(8, 6),
     o=Linear(36, 3)), law("a.weight 0, a.bias 0, o.weight 1 as 3x6x6, o.weight 2 as 3x6x6",
     "permutation sign"))
case(GRAM, "Mahalanobis distance", V,
     lambda: Net(lambda m, x: (torch.relu(m.a(x)) @ (m.w @ m.w.t()) * torch.relu(m.a(x))).sum(-1),
     a=Linear(5, 8), w=P(8, 4)), law("a.weight 0, a.bias 0, w 0 -1", "permutation positive"),
     law("w 1", "orthogonal"))
case(GRAM, "WᵀW between layers", V,
     network(lambda m, x: m.o(torch.relu(m.a(x)) @ (m.w.t() @ m.w)), w=lambda: P(4, 8)),
     law("w 0", "orthogonal"), law("a.weight 0, a.bias 0, w 1, o.weight 1", "permutation"))
case(GRAM, "learned adjacency", drawn((2, 4, 5), (3, 4, 5)),
     lambda: Net(lambda m, x: m.o((m.e @ m.e.mT).softmax(-1) @ x), e=P(4, 6), o=Linear(5, 3)),
     law("e 1", "orthogonal"))
case(GRAM, "queries are keys", S,
     lambda: Net(lambda m, x: m.o(attention(m.q(x), m.q(x), m.v(x))), q=Linear(8, 6),
     v=Linear(8, 6), o=Linear(6, 3)), law("q.weight 0, q.bias 0", "orthogonal"),
     law("v.weight 0, v.bias 0, o.weight 1 -1", "general"))
case(GRAM, "tied linear autoencoder", V, lambda: Net(lambda m, x: x @ m.w @ m.w.t(), w=P(5, 3)),
     law("w 1", "orthogonal"))

# The example has a size of 1 where other inputs do not.
SIZE1 = "size-1 example"
case(SIZE1, "one token, positions", drawn((2, 1, 5), (3, 8, 5)),
     network(lambda m, x: m.o(torch.relu(m.a(x) + m.p).mean(1)), p=lambda: P(8, 8)),
     law("a.weight 0, a.bias 0, p 1, o.weight 1 -1", "permutation positive"))
case(SIZE1, "one token, gain of positions", drawn((2, 1, 5), (3, 8, 5)),
     network(lambda m, x: m.o((torch.relu(m.a(x)) * m.p).sum(1)), p=lambda: P(8, 1)),
     neurons("permutation positive"))
case(SIZE1, "one channel, maps of channels", drawn((2, 1, 6, 6), (3, 4, 6, 6)),
     lambda: Net(lambda m, x: m.o(torch.relu(x * m.g[:, None, None]).mean((2, 3))), g=P(4),
     o=Linear(4, 2)))
case(SIZE1, "one feature, gains", drawn((2, 1), (3, 8)),
     lambda: Net(lambda m, x: m.o(torch.relu(x * m.g + m.b)), g=P(8), b=P(8), o=Linear(8, 2)))
case(SIZE1, "one pixel, columns and rows", drawn((2, 3, 1, 1), (3, 3, 5, 5)),
     lambda: Net(lambda m, x: m.o(torch.relu(m.a(x + m.r + m.c)).mean((2, 3))), r=P(1, 5, 1),
     c=P(1, 1, 5), a=nn.Conv2d(3, 4, 1), o=Linear(4, 2)),
     law("a.weight 0, a.bias 0, o.weight 1 -1", "permutation positive"))
case(SIZE1, "one network of a batch, embeddings of rows", drawn((1, 5), (4, 5)),
     network(lambda m, x: m.o(torch.relu(m.a(x) * m.p)), p=lambda: P(4, 1)),
     neurons("permutation positive"))
case(SIZE1, "one token, positions before attention", drawn((2, 1, 8), (3, 6, 8)),
     lambda: Net(lambda m, x: (lambda h: m.o(attention(m.q(h), m.k(h), m.v(h))))(x + m.p),
     p=P(6, 8), **qkvo()), ALONE)
case(SIZE1, "one token, weights of positions", drawn((2, 1, 5), (3, 6, 5)),
     network(lambda m, x: m.o(torch.relu(m.a(x)) + m.p.softmax(0)), p=lambda: P(6, 1)))

# What is joined on by differences.
DIFF = "diff"
case(DIFF, "prepended zeros", S,
     lambda: Net(lambda m, x: m.o(torch.diff(torch.relu(m.a(x)), dim=1,
     prepend=torch.zeros(len(x), 1, 6))), a=Linear(8, 6), o=Linear(6, 3)),
     law("a.weight 0, a.bias 0, o.weight 1 -1", "permutation positive"))
case(DIFF, "prepended parameter", S,
     lambda: Net(lambda m, x: m.o(torch.diff(m.a(x), dim=1, prepend=m.p.expand(len(x), 1, 6))),
     a=Linear(8, 6), p=P(1, 1, 6), o=Linear(6, 3)))
case(DIFF, "appended ones", S,
     lambda: Net(lambda m, x: m.o(torch.diff(torch.relu(m.a(x)), dim=1,
     append=torch.ones(len(x), 1, 6))), a=Linear(8, 6), o=Linear(6, 3)))
case(DIFF, "along units", V,
     lambda: Net(lambda m, x: m.o(m.a(x).diff(dim=-1)), a=Linear(5, 9), o=Linear(8, 3)),
     law("a.bias", "shift"))
case(DIFF, "second differences", S,
     lambda: Net(lambda m, x: m.o(torch.relu(m.a(x)).diff(n=2, dim=1)), a=Linear(8, 6),
     o=Linear(6, 3)), law("a.weight 0, a.bias 0, o.weight 1 -1", "permutation positive"))
