"""Values: joined, written in place, picked by indices, normalised over the batch, random."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .case import (
    ALONE,
    GAIN,
    N8,
    Linear,
    Net,
    Norm,
    P,
    S,
    V,
    attention,
    between,
    case,
    network,
    neurons,
    normed,
    qkvo,
)
from .laws import law

# fmt: off

# What cancels over a dimension has to reach all of it.
JOINED = "shift through cat"


def attending(
    keys: Callable[[nn.Module, Tensor], Tensor],
    values: Callable[[nn.Module, Tensor], Tensor],
    **more: Callable[[], object],
) -> Callable[[], Net]:
    return lambda: Net(
        lambda m, x: m.o(attention(m.q(x), keys(m, x), values(m, x))),
        **qkvo(),
        **{name: part() for name, part in more.items()},
    )


def first(m: nn.Module, token: Tensor, rest: Tensor) -> Tensor:
    return torch.cat([token.expand(len(rest), -1, -1), rest], 1)


case(JOINED, "null key", S,
     attending(lambda m, x: F.pad(m.k(x), (0, 0, 1, 0)),
     lambda m, x: F.pad(m.v(x), (0, 0, 1, 0))),
     law("q.weight 0, q.bias 0, k.weight 0 -1, k.bias 0 -1", "general"), ALONE)
case(JOINED, "learned keys behind", S,
     attending(lambda m, x: torch.cat([m.k(x), m.r.expand(len(x), -1, -1)], 1),
     lambda m, x: torch.cat([m.v(x), m.s.expand(len(x), -1, -1)], 1), r=lambda: P(1, 2, 8),
     s=lambda: P(1, 2, 8)), law("q.weight 0, q.bias 0, k.weight 0 -1, k.bias 0 -1, r 2 -1",
     "general"), law("v.weight 0, v.bias 0, s 2, o.weight 1 -1", "general"))
case(JOINED, "two streams attended together", S,
     attending(lambda m, x: torch.cat([m.k(x), m.r(x[:, :2])], 1),
     lambda m, x: torch.cat([m.v(x), m.s(x[:, :2])], 1), r=lambda: Linear(8, 8),
     s=lambda: Linear(8, 8)),
     law("q.weight 0, q.bias 0, k.weight 0 -1, k.bias 0 -1, r.weight 0 -1, r.bias 0 -1",
     "general"), law("v.weight 0, v.bias 0, s.weight 0, s.bias 0, o.weight 1 -1", "general"))
case(JOINED, "class token before attention", S,
     lambda: Net(lambda m, x: (lambda t: m.o(attention(m.q(t), m.k(t), m.v(t))))(first(m, m.c,
     x)), c=P(1, 1, 8), **qkvo()),
     law("q.weight 0, q.bias 0, k.weight 0 -1, k.bias 0 -1", "general"), ALONE)
case(JOINED, "registers before packed attention", S,
     lambda: Net(lambda m, x: (lambda t: m.m(t, t, t, need_weights=False)[0])(first(m, m.r, x)),
     r=P(1, 3, 8), m=nn.MultiheadAttention(8, 2, batch_first=True)),
     law("m.in_proj_weight[0:8] 1 as 2x4x8, m.in_proj_bias[0:8] 1 as 2x4, "
     "m.in_proj_weight[8:16] 1 -1 as 2x4x8, m.in_proj_bias[8:16] 1 -1 as 2x4", "general"),
     law("m.in_proj_weight[16:24] 1 as 2x4x8, m.in_proj_bias[16:24] 1 as 2x4, "
     "m.out_proj.weight 2 -1 as 8x2x4", "general"))
case(JOINED, "add_bias_kv", S,
     lambda: Net(lambda m, x: m.m(x, x, x, need_weights=False)[0],
     m=nn.MultiheadAttention(8, 2, batch_first=True, add_bias_kv=True)),
     law("m.in_proj_weight 1 as 3x2x4x8, m.in_proj_bias 1 as 3x2x4, "
     "m.bias_k 2 as 1x1x2x4, m.bias_v 2 as 1x1x2x4, m.out_proj.weight 1 as 8x2x4", "permutation"))
case(JOINED, "a zero beside the logits", V,
     network(lambda m, x: m.o(F.pad(m.a(x), (0, 1)).softmax(-1)[:, :8])), neurons("permutation"))
case(JOINED, "sink logit", V,
     network(lambda m, x: m.o(torch.cat([m.a(x), m.s.expand(len(x), 1)], -1).softmax(-1)[:, :8]),
     s=lambda: P(1)), neurons("permutation"))
case(JOINED, "LayerNorm over layer and input", V,
     lambda: Net(lambda m, x: m.o(m.n(torch.cat([m.a(x), x[:, :3]], -1))), a=Linear(5, 6),
     n=Norm(9), o=Linear(9, 3)))
case(JOINED, "LayerNorm over two layers", V,
     lambda: Net(lambda m, x: m.o(F.layer_norm(torch.cat([m.a(x), m.b(x)], -1), (9,))),
     a=Linear(5, 6), b=Linear(5, 3), o=Linear(9, 3)), law("a.bias, b.bias", "shift"))
case(JOINED, "softmax over layer and constant", V,
     network(lambda m, x: m.o(torch.cat([m.a(x)[:, :7], torch.ones(len(x), 1)], -1).softmax(-1))))
case(JOINED, "mean of class and tokens", S,
     lambda: Net(lambda m, x: m.o(torch.relu(first(m, m.c, m.a(x))).mean(1)), c=P(1, 1, 6),
     a=Linear(8, 6), o=Linear(6, 3)),
     law("a.weight 0, a.bias 0, c 2, o.weight 1 -1", "permutation positive"))

# A write reaches all that shares the memory.
INPLACE = "in place by view"


def written(
    write: Callable[[nn.Module, Tensor], object], **more: Callable[[], object]
) -> Callable[[], Net]:
    """Something is written into the first layer's result before it is normalised."""

    def forward(m: nn.Module, x: Tensor) -> Tensor:
        h = m.a(x)
        write(m, h)
        return m.o(m.n(h))

    return network(forward, **N8, **more)


def aliased(alias: Callable[[Tensor], Tensor]) -> Callable[[], Net]:
    """The first layer's result is multiplied in place after another name was given to it."""

    def forward(m: nn.Module, x: Tensor) -> Tensor:
        h = m.a(x)
        again = alias(h)
        h.mul_(m.g)
        return m.o(m.n(again))

    return network(forward, **N8, **GAIN)


SCALED = law("n.weight 0, n.bias 0, o.weight 1 -1", "positive sign")
case(INPLACE, "chunk, mul_", V, written(lambda m, h: h.chunk(2, -1)[1].mul_(3)), SCALED)
case(INPLACE, "select, add_", V, written(lambda m, h: h.select(1, 2).add_(h[:, 3])), SCALED)
case(INPLACE, "unit set to a parameter", V,
     written(lambda m, h: h[:, 0].copy_(m.s), s=lambda: P(1)), SCALED)
case(INPLACE, "every second unit zeroed", V, written(lambda m, h: h[:, ::2].zero_()), SCALED)
case(INPLACE, "flat view scaled", V, written(lambda m, h: h.view(-1, 2)[:, 1].mul_(2)), SCALED)
case(INPLACE, "unbind, mul_", V, written(lambda m, h: h.unbind(1)[3].mul_(h.unbind(1)[4])),
     SCALED)
case(INPLACE, "transposed, gain", V, written(lambda m, h: h.T.mul_(m.g[:, None]), **GAIN), SCALED)
case(INPLACE, "assigned to a slice", V,
     written(lambda m, h: h.__setitem__((slice(None), slice(0, 3)), torch.relu(h[:, 3:6]))),
     SCALED)
case(INPLACE, "squeezed view", V, written(lambda m, h: h.unsqueeze(0).squeeze(0)[:, 1:3].neg_()),
     SCALED)
case(INPLACE, "alias by unsqueeze and squeeze", V, aliased(lambda h: h.unsqueeze(1).squeeze(1)),
     SCALED)
case(INPLACE, "alias by a full slice", V, aliased(lambda h: h[:]), SCALED)
case(INPLACE, "alias by detach", V, aliased(lambda h: h.detach()), SCALED)
case(INPLACE, "alias by two transposes", V, aliased(lambda h: h.t().t()), SCALED)
case(INPLACE, "alias by flatten and view", V, aliased(lambda h: h.flatten().view(-1, 8)), SCALED)
case(INPLACE, "relu_ through a view", V,
     network(lambda m, x: (lambda h: (h.view(-1).relu_(), m.o(h))[1])(m.a(x))),
     neurons("permutation positive"))
case(INPLACE, "copied into zeros", V,
     network(lambda m, x: (lambda z: (z.copy_(torch.relu(m.a(x))), m.o(z))[1])(x.new_zeros(len(x),
     8))), neurons("permutation positive"))
case(INPLACE, "accumulated", V,
     network(lambda m, x: (lambda z: (z.add_(torch.relu(m.a(x))), z.add_(torch.relu(m.a(-x))),
     m.o(z))[2])(x.new_zeros(len(x), 8))), neurons("permutation positive"))

# Rows picked by computed numbers stand where their indices stood.
INDEX = "computed index"
TABLE = law("t 1, o.weight 1 -1", "permutation positive sign")


def looked_up(
    read: Callable[[nn.Module, Tensor], Tensor], rows: int = 8, width: int = 6
) -> Callable[[], Net]:
    """A table of `rows` rows, read at what the first layer's result says."""
    return lambda: Net(
        lambda m, x: m.o(read(m, m.a(x))), a=Linear(5, 8), t=P(rows, width), o=Linear(width, 3)
    )


CODES = law("a.weight 0, a.bias 0, t 0", "permutation")
case(INDEX, "table[argmax]", V, looked_up(lambda m, h: m.t[h.argmax(-1)]), TABLE)
case(INDEX, "embedding at argmin", V, looked_up(lambda m, h: F.embedding(h.argmin(-1), m.t)),
     TABLE)
case(INDEX, "index_select at max", V,
     looked_up(lambda m, h: m.t.index_select(0, h.max(-1).indices)), TABLE)
case(INDEX, "one_hot(argmax) @ table", V,
     looked_up(lambda m, h: F.one_hot(h.argmax(-1), 8).to(h.dtype) @ m.t), TABLE)
case(INDEX, "rows of topk", V, looked_up(lambda m, h: m.t[h.topk(3).indices].sum(1)), TABLE)
case(INDEX, "rows of topk, weighed", V,
     looked_up(lambda m, h: (lambda top: (m.t[top.indices] *
     top.values.softmax(-1).unsqueeze(-1)).sum(1))(h.topk(2))), TABLE)
case(INDEX, "bucketize", V,
     looked_up(lambda m, h: m.t[torch.bucketize(h[:, 0], torch.linspace(-1, 1, 7))]), TABLE)
case(INDEX, "searchsorted", V,
     looked_up(lambda m, h: m.t[torch.searchsorted(torch.linspace(-2, 2, 7), h.mean(-1))]), TABLE)
case(INDEX, "table[h > 0]", V, looked_up(lambda m, h: m.t[(h > 0).long()].sum(1), 2), TABLE)
case(INDEX, "argmax of every group", V,
     looked_up(lambda m, h: m.t[h.view(-1, 2, 4).argmax(-1)].sum(1), 4), TABLE)
case(INDEX, "argmax across groups", V,
     looked_up(lambda m, h: m.t[h.view(-1, 2, 4).argmax(1)].mean(1), 2), TABLE)
case(INDEX, "codes by max over the first of two axes", V,
     looked_up(lambda m, h: F.embedding(h.view(-1, 4, 2).max(1).indices, m.t).amax(1), 4),
     law("t 1, o.weight 1", "permutation"))
case(INDEX, "positions of signs, kept apart", V,
     lambda: Net(lambda m, x: m.o(m.t[(m.a(x) > 0).long()].flatten(1)), a=Linear(5, 3), t=P(2, 4),
     o=Linear(12, 2)), law("t 1, o.weight 2 -1 as 2x3x4", "permutation positive sign"))
case(INDEX, "gather by another layer", V,
     lambda: Net(lambda m, x: m.o(m.b(x).gather(1, m.a(x).argsort(-1))), a=Linear(5, 8),
     b=Linear(5, 8), o=Linear(8, 3)))
case(INDEX, "own largest entries", V,
     network(lambda m, x: m.o(torch.take_along_dim(m.a(x), m.a(x).argsort(-1), -1))))


def quantised(
    nearest: Callable[[Tensor, Tensor], Tensor], read: Callable[[Tensor, Tensor], Tensor]
) -> Callable[[], Net]:
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        h = m.a(x).view(-1, 2, 4)
        return m.o(read(m.c, nearest(h, m.c)).reshape(-1, 8))

    return network(forward, c=lambda: P(7, 4))


CODEBOOK = law("a.weight 1 as 2x4x5, a.bias 1 as 2x4, c 1, o.weight 2 as 3x2x4", "permutation")
case(INDEX, "codebook by index_select", V,
     quantised(lambda h, c: (h.unsqueeze(-2) - c).square().sum(-1).argmin(-1),
     lambda c, i: c.index_select(0, i.flatten())), CODEBOOK)
case(INDEX, "codebook by embedding", V,
     quantised(lambda h, c: (h @ c.t()).argmax(-1), lambda c, i: F.embedding(i, c)), CODEBOOK)
case(INDEX, "codebook by cdist", V,
     quantised(lambda h, c: torch.cdist(h, c.expand(len(h), -1, -1)).argmin(-1),
     lambda c, i: c[i]), CODEBOOK)
SPARSE = law("e.weight 0, e.bias 0, d.weight 1", "permutation")


def sparse(keep: Callable[[Tensor], Tensor]) -> Callable[[], Net]:
    return lambda: Net(lambda m, x: m.d(keep(m.e(x))), e=Linear(5, 12), d=Linear(12, 5))


case(INDEX, "sparse autoencoder by threshold", V,
     sparse(lambda h: h * (h >= h.topk(3, -1).values.amin(-1, keepdim=True))), SPARSE)
case(INDEX, "sparse autoencoder by scatter", V,
     sparse(lambda h: (lambda top: torch.zeros_like(h).scatter(-1, top.indices,
     top.values))(h.topk(3, -1))))  # places picked and written along one axis: not found yet
case(INDEX, "expert picked by a router", V,
     lambda: Net(lambda m, x: m.o(torch.relu(torch.einsum("bi,bih->bh", x,
     m.w[m.r(x).argmax(-1)]))), r=Linear(5, 4), w=P(4, 5, 6), o=Linear(6, 3)))

# Normalisation by what is in the batch.
STATISTICS = "batch statistics"
case(STATISTICS, "batch_norm of the batch", V,
     between(lambda h: torch.relu(F.batch_norm(h, None, None, training=True))),
     neurons("permutation"))
case(STATISTICS, "batch_norm over positions", S,
     lambda: Net(lambda m, x: m.o(F.batch_norm(m.a(x), None, None, training=True)),
     a=Linear(8, 6), o=Linear(6, 2)))
case(STATISTICS, "instance_norm of groups", S,
     lambda: Net(lambda m, x: m.o(F.instance_norm(m.a(x).transpose(1, 2)).transpose(1, 2)),
     a=Linear(8, 6), o=Linear(6, 2)), law("a.weight 0, a.bias 0, o.weight 1", "permutation"))
case(STATISTICS, "standardised over the batch", V,
     between(lambda h: (h - h.mean(0)) / (h.var(0) + 0.1).sqrt()), neurons("permutation sign"))
case(STATISTICS, "BatchNorm without statistics", V,
     network(lambda m, x: m.o(torch.relu(m.n(m.a(x)))),
     n=lambda: nn.BatchNorm1d(8, track_running_stats=False)), normed())
case(STATISTICS, "pairs of units normalised together", V,
     between(lambda h: F.batch_norm(h.view(-1, 2), None, None, training=True).view(-1, 8)))
case(STATISTICS, "softmax over the batch", V, between(lambda h: h.softmax(0)),
     neurons("permutation"))

# Random numbers in the forward pass.
RANDOM = "random forward"
case(RANDOM, "dropout that stays on", V, between(lambda h: F.dropout(torch.relu(h), 0.5, True)),
     neurons("positive"), stochastic=True)
case(RANDOM, "alpha_dropout that stays on", V,
     between(lambda h: F.alpha_dropout(torch.relu(h), 0.5, True)), stochastic=True)
case(RANDOM, "feature_alpha_dropout", S,
     lambda: Net(lambda m, x: m.o(F.feature_alpha_dropout(torch.tanh(m.a(x)), 0.5, True)),
     a=Linear(8, 6), o=Linear(6, 3)), stochastic=True)
case(RANDOM, "noise added", V, between(lambda h: torch.relu(h + torch.randn_like(h))),
     stochastic=True)
case(RANDOM, "noise multiplied", V, between(lambda h: torch.relu(h) * torch.rand_like(h)),
     neurons("positive"), stochastic=True)
case(RANDOM, "dropout before attention", S,
     lambda: Net(lambda m, x: m.o(attention(m.q(x), m.k(x), F.dropout(m.v(x), 0.5, True))),
     **qkvo()), stochastic=True)
