"""Common symmetries that are easily missed, and modules that end in obscure errors."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

from .case import IMAGES, Linear, Net, P, S, V, between, case, network, neurons, nodes
from .laws import law

# fmt: off

# Symmetries that are there and common.
MISSED = "missed"
BOTH = neurons("permutation positive")


def cast(layer: nn.Module, x: Tensor) -> Tensor:
    with torch.autocast("cpu", enabled=False):
        return layer(x)


def graded(layer: nn.Module, x: Tensor) -> Tensor:
    with torch.enable_grad():
        return layer(x)


case(MISSED, "x @ W.T", V,
     lambda: Net(lambda m, x: torch.relu(x @ m.w.T + m.b) @ m.u.mT, w=P(8, 5), b=P(8), u=P(3, 8)),
     law("w 0, b 0, u 1 -1", "permutation positive"))
case(MISSED, "weights of a flat vector", V,
     lambda: Net(lambda m, x: F.linear(torch.relu(F.linear(x, m.p[:40].view(8, 5))),
     m.p[40:].view(3, 8)), p=P(64)),
     law("p[0:40] 0 as 8x5, p[40:64] 1 -1 as 3x8", "permutation positive"))
case(MISSED, "einsum, letters in another order", V,
     lambda: Net(lambda m, x: torch.einsum("ho,bh->bo", m.u,
     torch.tanh(torch.einsum("hi,bi->bh", m.w, x))), w=P(6, 5), u=P(6, 3)),
     law("w 0, u 0", "permutation sign"))
case(MISSED, "experts by bmm", V,
     lambda: Net(lambda m, x: torch.bmm(torch.relu(torch.bmm(x.expand(4, -1, -1), m.w)),
     m.u).sum(0), w=P(4, 5, 6), u=P(4, 6, 3)), law("w 0, u 0", "permutation"),
     law("w 2, u 1 -1", "permutation positive"))
case(MISSED, "gated experts", V,
     lambda: Net(lambda m, x: torch.einsum("beh,eho->bo",
     torch.einsum("bi,eih->beh", x, m.g).sigmoid() * torch.einsum("bi,eih->beh", x, m.w), m.u),
     g=P(4, 5, 6), w=P(4, 5, 6), u=P(4, 6, 3)), law("w 2, u 1 -1", "positive sign"),
     law("g 2, w 2, u 1", "permutation"), law("g 0, w 0, u 0", "permutation"))
case(MISSED, "LoRA by mT", V,
     network(lambda m, x: m.o(torch.relu(m.a(x) + x @ m.A.mT @ m.B.mT)), A=lambda: P(2, 5),
     B=lambda: P(8, 2)), law("A 0, B 1 -1", "general"))
case(MISSED, "ReLU squared by power", V, between(lambda h: torch.relu(h) ** 2),
     neurons("permutation"), neurons("positive", -2))
case(MISSED, "ReLU squared by square", V, between(lambda h: F.relu(h).square()),
     neurons("permutation"), neurons("positive", -2))
case(MISSED, "square", V, between(lambda h: h.square()), neurons("permutation"),
     law("a.weight 0, a.bias 0", "sign"), neurons("positive", -2))
case(MISSED, "ReLU by clamp", V, between(lambda h: h.clamp(min=0)), BOTH)
case(MISSED, "ReLU by where", V, between(lambda h: torch.where(h < 0, torch.zeros_like(h), h)),
     BOTH)
case(MISSED, "ReLU by a mask", V, between(lambda h: h * (h > 0)), BOTH)
case(MISSED, "leaky ReLU by maximum", V, between(lambda h: torch.maximum(h, 0.2 * h)), BOTH)
case(MISSED, "masked_fill", V, between(lambda h: h.masked_fill(h <= 0, 0)), BOTH)
case(MISSED, "written into new_zeros", V,
     network(lambda m, x: (lambda z: (z.__setitem__((slice(None), slice(None)),
     torch.relu(m.a(x))), m.o(z))[1])(x.new_zeros(len(x), 8))), BOTH)
case(MISSED, "repeat of units", V,
     lambda: Net(lambda m, x: m.o(torch.relu(m.a(x)).repeat(1, 2)), a=Linear(5, 8),
     o=Linear(16, 3)), law("a.weight 0, a.bias 0, o.weight 2 -1 as 3x2x8",
     "permutation positive"))
case(MISSED, "gated halves by narrow", V,
     lambda: Net(lambda m, x: m.o(torch.sigmoid(m.a(x).narrow(1, 0, 8)) * m.a(x).narrow(1, 8, 8)),
     a=Linear(5, 16), o=Linear(8, 3)),
     law("a.weight 1 as 2x8x5, a.bias 1 as 2x8, o.weight 1", "permutation"),
     law("a.weight[8:16] 0, a.bias[8:16] 0, o.weight 1 -1", "positive sign"))
case(MISSED, "channel_shuffle", IMAGES,
     lambda: Net(lambda m, x: m.o(F.channel_shuffle(torch.relu(m.a(x)), 2)), a=nn.Conv2d(3, 4, 1),
     o=nn.Conv2d(4, 2, 1)),
     law("a.weight 0 as 2x2x3x1x1, a.bias 0 as 2x2, o.weight 2 as 2x2x2x1x1", "permutation"))
case(MISSED, "pixel_unshuffle", IMAGES,
     lambda: Net(lambda m, x: m.o(F.pixel_unshuffle(F.relu(m.a(x)), 2)),
     a=nn.Conv2d(3, 4, 3, padding=1), o=nn.Conv2d(16, 2, 1)),
     law("a.weight 0, a.bias 0, o.weight 1 -1 as 2x4x4x1x1", "permutation positive"))
case(MISSED, "scatter_add of messages", nodes(5),
     lambda: Net(lambda m, x, e: (lambda h: m.o(torch.zeros_like(h).scatter_add(0,
     e[1][:, None].expand(-1, 8), h[e[0]])))(torch.relu(m.a(x))), a=Linear(5, 8), o=Linear(8, 3)),
     BOTH)
case(MISSED, "index_add of messages", nodes(5),
     lambda: Net(lambda m, x, e: (lambda h: m.o(h.index_add(0, e[1],
     h.index_select(0, e[0]))))(torch.relu(m.a(x))), a=Linear(5, 8), o=Linear(8, 3)), BOTH)
case(MISSED, "autocast around a layer", V, network(lambda m, x: m.o(torch.relu(cast(m.a, x)))),
     BOTH)
case(MISSED, "layer under enable_grad", V, network(lambda m, x: m.o(torch.relu(graded(m.a, x)))),
     BOTH)
case(MISSED, "root mean square by hand", V,
     between(lambda h: h * torch.rsqrt(h.pow(2).mean(-1, keepdim=True) + 1e-06)),
     neurons("permutation sign"))
case(MISSED, "normalize", V, between(lambda h: F.normalize(h, dim=-1)),
     neurons("permutation sign"))
case(MISSED, "cosine logits", V,
     lambda: Net(lambda m, x: 8 * F.normalize(m.a(x), dim=-1) @ F.normalize(m.w, dim=-1).t(),
     a=Linear(5, 8), w=P(3, 8)), law("a.weight 0, a.bias 0, w 1", "permutation sign"))
case(MISSED, "spectral_norm", V,
     lambda: Net(lambda m, x: m.o(torch.relu(m.a(x))),
     a=parametrizations.spectral_norm(Linear(5, 8)), o=Linear(8, 3)),
     law("a.parametrizations.weight.original 0, a.parametrizations.weight.0._u 0, "
     "a.bias 0, o.weight 1", "permutation"))
case(MISSED, "weight_norm", V,
     lambda: Net(lambda m, x: m.o(torch.relu(m.a(x))),
     a=parametrizations.weight_norm(Linear(5, 8)), o=Linear(8, 3)),
     law("a.parametrizations.weight.original0 0, a.bias 0, o.weight 1 -1", "positive"),
     law("a.parametrizations.weight.original1 0", "positive"))
case(MISSED, "branches of a list", V,
     lambda: Net(lambda m, x: sum(m.o[k](torch.tanh(m.b[k](x))) for k in range(2)),
     b=nn.ModuleList(Linear(5, 4) for _ in range(2)),
     o=nn.ModuleList(Linear(4, 3) for _ in range(2))),
     law("b.0.weight 0, b.0.bias 0, o.0.weight 1", "permutation sign"))
case(MISSED, "trade of two output biases", V,
     lambda: Net(lambda m, x: m.o(torch.relu(m.a(x))) + m.p(torch.tanh(m.a(x))), a=Linear(5, 8),
     o=Linear(8, 3), p=Linear(8, 3)), law("o.bias 0, p.bias 0 -1", "shift"),
     law("a.weight 0, a.bias 0, o.weight 1, p.weight 1", "permutation"))
case(MISSED, "hand-written memory cell", S,
     lambda: Net(lambda m, x: (lambda i, g, r: m.o(torch.sigmoid(r) * torch.tanh((torch.sigmoid(i)
     * torch.tanh(g)).cumsum(1))))(*m.a(x).chunk(3, -1)), a=Linear(8, 18), o=Linear(6, 3)),
     law("a.weight[6:12] 0, a.bias[6:12] 0, o.weight 1", "sign"),
     law("a.weight 1 as 3x6x8, a.bias 1 as 3x6, o.weight 1", "permutation"))
case(MISSED, "linear layers in a row", V,
     lambda: Net(lambda m, x: x @ m.u.t() @ m.w.t(), u=P(4, 5), w=P(3, 4)),
     law("u 0, w 1 -1", "general"))
case(MISSED, "lerp of two layers", V,
     network(lambda m, x: m.o(torch.relu(torch.lerp(m.a(x), m.b(x), 0.3))),
     b=lambda: Linear(5, 8)),
     law("a.weight 0, a.bias 0, b.weight 0, b.bias 0, o.weight 1 -1", "permutation positive"))
case(MISSED, "tensordot", V,
     network(lambda m, x: torch.tensordot(torch.relu(m.a(x)), m.u, dims=1), u=lambda: P(8, 3)),
     law("a.weight 0, a.bias 0, u 0 -1", "permutation positive"))


# Errors that name nothing.
CRASH = "crash"
case(CRASH, "einsum of a size of 1", V,
     network(lambda m, x: m.o(torch.einsum("bh,bh->bh", torch.relu(m.a(x)), m.g(x))),
     g=lambda: Linear(5, 1)), BOTH)
case(CRASH, "einsum over a size of 1", V,
     network(lambda m, x: m.o(torch.einsum("bh,kh->bh", torch.relu(m.a(x)), m.g)),
     g=lambda: P(2, 1)), BOTH)
case(CRASH, "weight_norm over everything", V,
     lambda: Net(lambda m, x: m.o(torch.relu(m.a(x))),
     a=parametrizations.weight_norm(Linear(5, 8), dim=None), o=Linear(8, 3)),
     law("a.parametrizations.weight.original1 0, a.bias 0, o.weight 1", "permutation"))
case(CRASH, "weight_norm of columns", V,
     lambda: Net(lambda m, x: m.o(torch.relu(m.a(x))),
     a=parametrizations.weight_norm(Linear(5, 8), dim=1), o=Linear(8, 3)),
     law("a.parametrizations.weight.original1 0, a.bias 0, o.weight 1", "permutation"))
case(CRASH, "rows by a mask", V, network(lambda m, x: m.o(torch.relu(m.a(x)))[x[:, 0] > 0].sum()),
     may_refuse=True)
case(CRASH, "nonzero", V,
     network(lambda m, x: m.o(torch.relu(m.a(x)))[(x[:, 0] > 0).nonzero()[:, 0]].sum()),
     may_refuse=True)
case(CRASH, "branch on a value", V,
     network(lambda m, x: m.o(m.a(x)) if x.sum() > 0 else m.o(-m.a(x))), may_refuse=True)
case(CRASH, "lazy layer", V,
     lambda: nn.Sequential(nn.LazyLinear(8), nn.ReLU(), Linear(8, 3)).eval(), may_refuse=True)
case(CRASH, "codes of a parameter's view", V,
     network(lambda m, x: m.c[(m.a(x).unsqueeze(1) - m.c).square().sum(-1).argmin(-1)],
     c=lambda: P(4, 8)), may_refuse=False)
case(CRASH, "parameter of no entries", V,
     network(lambda m, x: m.o(torch.relu(m.a(x))) + m.z.sum(), z=lambda: P(0, 4)), BOTH)
case(CRASH, "scalar parameter", V,
     network(lambda m, x: m.o(torch.relu(m.a(x))) * m.z, z=lambda: P()), BOTH)
case(CRASH, "unique", V,
     network(lambda m, x: m.o(torch.relu(m.a(x))) + torch.unique(x.round()).sum()),
     may_refuse=True)
