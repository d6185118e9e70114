"""Entries that are no floating-point parameters, and buffers that decide the function."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import prune

from .case import GAIN, IMAGES, S5, Linear, Net, P, V, case, drawn, fixed, network, neurons
from .laws import law

# fmt: off

# Entries that are no floating-point numbers.
NUMBERS = "not floating-point"


def whole(*shape: int) -> nn.Parameter:
    return fixed(torch.randint(-5, 6, shape).to(torch.int8))


case(NUMBERS, "int8 weight with scales", V,
     network(lambda m, x: m.o(torch.relu(F.linear(x, m.w.to(x.dtype) * m.s))),
     w=lambda: whole(8, 5), s=lambda: P(8, 1)), sees={"w": torch.neg})
case(NUMBERS, "int8 weight between layers", V,
     network(lambda m, x: m.o(F.linear(torch.relu(m.a(x)), m.w.to(x.dtype))),
     w=lambda: whole(8, 8)), sees={"w": torch.neg})
case(NUMBERS, "uint8 table with an offset", V,
     network(lambda m, x: m.o(torch.relu(m.a(x)) * (m.w.to(x.dtype) - 128) / 64),
     w=lambda: fixed(torch.randint(0, 255, (8,), dtype=torch.uint8))),
     sees={"w": lambda w: w.flip(0)})
case(NUMBERS, "boolean mask of inputs", V,
     network(lambda m, x: m.o(torch.relu(m.a(x * m.w))), w=lambda: torch.arange(5) % 2 == 0),
     neurons("permutation positive"), sees={"w": torch.logical_not})
case(NUMBERS, "boolean mask of weights", V,
     network(lambda m, x: m.o(torch.relu(F.linear(x, m.a.weight.masked_fill(m.w, 0), m.a.bias))),
     w=lambda: torch.rand(8, 5) > 0.6), sees={"w": torch.logical_not})
case(NUMBERS, "order of neurons in a buffer", V,
     network(lambda m, x: m.o(torch.relu(m.a(x))[:, m.i]), i=lambda: torch.randperm(8)),
     sees={"i": lambda i: i.roll(1)})


def complexes(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.complex(torch.randn(shape), torch.randn(shape)))


TRIPLE = {"w": lambda w: 3 * w}
case(NUMBERS, "complex weight, absolute", V,
     lambda: Net(lambda m, x: m.o(F.linear(x.to(m.w.dtype), m.w).abs()), w=complexes(6, 5),
     o=Linear(6, 2)), sees=TRIPLE, may_refuse=True)
case(NUMBERS, "complex gain of neurons", V,
     network(lambda m, x: m.o((m.a(x) * m.w).real), w=lambda: complexes(8)), sees=TRIPLE,
     may_refuse=True)
case(NUMBERS, "complex weight by parts", V,
     network(lambda m, x: m.o(torch.relu(m.a(x)) @ torch.view_as_real(m.w).flatten(1)),
     w=lambda: complexes(8, 4)), sees=TRIPLE, may_refuse=True)
case(NUMBERS, "filter in frequencies", drawn((2, 10), (3, 10)),
     lambda: Net(lambda m, x: m.o(torch.fft.irfft(torch.fft.rfft(x) * m.w, n=10)), w=complexes(6),
     o=Linear(10, 2)), sees=TRIPLE, may_refuse=True)
case(NUMBERS, "complex state space", drawn((2, 6), (3, 6)),
     lambda: Net(lambda m, x: (m.c * torch.exp(m.w[:,
     None] * torch.arange(6)).mT).real.sum(-1) * x, w=complexes(4), c=complexes(4)),
     may_refuse=True)
for eight in (torch.float8_e4m3fn, torch.float8_e5m2):
    case(
        NUMBERS,
        f"{eight} weight".removeprefix("torch."),
        V,
        network(
            lambda m, x: m.o(torch.relu(F.linear(x, m.w.to(x.dtype)))),
            w=lambda eight=eight: fixed(torch.randn(8, 5).to(eight)),
        ),
        may_refuse=True,
    )

# The function depends on numbers that are no parameters.
BUFFERS = "unseen buffer"
case(BUFFERS, "random features, cosine", V,
     lambda: Net(lambda m, x: m.o(torch.cos(x @ m.B + m.c)), B=torch.randn(5, 8), c=torch.rand(8),
     o=Linear(8, 2)), law("B 1, c 0, o.weight 1", "permutation"), sees={"B": lambda b: 0.9 * b})
case(BUFFERS, "random features, sine and cosine", V,
     lambda: Net(lambda m, x: m.o(torch.cat([(x @ m.B.t()).sin(), (x @ m.B.t()).cos()], -1)),
     B=torch.randn(8, 5), o=Linear(16, 2)), law("B 0, o.weight 2 as 2x2x8", "permutation"),
     sees={"B": lambda b: b.flip(1)})
case(BUFFERS, "mask of weights", V,
     network(lambda m, x: m.o(torch.relu(F.linear(x, m.a.weight * m.k, m.a.bias))),
     k=lambda: (torch.rand(8, 5) > 0.5).double()),
     law("a.weight 0, k 0, a.bias 0, o.weight 1", "permutation"), neurons("positive"),
     sees={"k": lambda k: 1 - k})
case(BUFFERS, "pruned rows", V,
     lambda: Net(lambda m, x: m.o(torch.relu(m.a(x))),
     a=prune.ln_structured(Linear(5, 8), "weight", 0.5, 2, 0), o=Linear(8, 3)),
     law("a.weight_orig 0, a.weight_mask 0, a.bias 0, o.weight 1", "permutation"),
     sees={"a.weight_mask": lambda k: 1 - k})
case(BUFFERS, "gain behind a layer", V,
     network(lambda m, x: m.o(torch.tanh(m.a(x)) * m.g), **GAIN),
     law("a.weight 0, a.bias 0, g 0, o.weight 1", "permutation"), neurons("sign"),
     sees={"g": lambda g: g.flip(0)})
case(BUFFERS, "offsets of neurons", V,
     network(lambda m, x: m.o(torch.relu(m.a(x) - m.g)), **GAIN),
     law("a.weight 0, a.bias 0, g 0, o.weight 1", "permutation"), sees={"g": lambda g: -g})
case(BUFFERS, "centres of radial functions", V,
     lambda: Net(lambda m, x: m.o(torch.exp(-(m.a(x).unsqueeze(-1) - m.c).square()).flatten(1)),
     a=Linear(5, 4), c=torch.linspace(-1, 1, 3), o=Linear(12, 2)),
     law("a.weight 0, a.bias 0, o.weight 1 as 2x4x3", "permutation"), sees={"c": lambda c: 2 * c})
case(BUFFERS, "grid of splines for every input", V,
     lambda: Net(lambda m, x: torch.einsum("big,oig->bo",
     torch.relu(1 - (x.unsqueeze(-1) - m.c).abs()), m.w), c=torch.linspace(-2, 2, 6).repeat(5, 1),
     w=P(3, 5, 6)), sees={"c": lambda c: 0.7 * c})
case(BUFFERS, "position table", S5,
     lambda: Net(lambda m, x: m.o(torch.relu(m.a(x) + m.p)), a=Linear(8, 6), p=torch.randn(5, 6),
     o=Linear(6, 3)), law("a.weight 0, a.bias 0, p 1, o.weight 1", "permutation"),
     sees={"p": lambda p: p.flip(0)})
case(BUFFERS, "frequencies of positions", S5,
     lambda: Net(lambda m, x: m.o(torch.relu(m.a(x)) * torch.cos(torch.arange(5.0)[:,
     None] * m.f)), a=Linear(8, 6), f=torch.rand(6), o=Linear(6, 3)),
     law("a.weight 0, a.bias 0, f 0, o.weight 1", "permutation"), sees={"f": lambda f: 2 * f})
case(BUFFERS, "statistics without affine", V,
     network(lambda m, x: m.o(torch.relu(m.n(m.a(x)))),
     n=lambda: nn.BatchNorm1d(8, affine=False)),
     law("a.weight 0, a.bias 0, n.running_mean 0, n.running_var 0, o.weight 1", "permutation"),
     sees={"n.running_mean": lambda v: v + 1})
case(BUFFERS, "statistics of InstanceNorm", IMAGES,
     lambda: Net(lambda m, x: m.o(F.gelu(m.n(m.a(x)))), a=nn.Conv2d(3, 6, 3),
     n=nn.InstanceNorm2d(6, track_running_stats=True), o=nn.Conv2d(6, 2, 3)),
     law("a.weight 0, a.bias 0, n.running_mean 0, n.running_var 0, o.weight 1", "permutation"),
     sees={"n.running_var": lambda v: 4 * v})
