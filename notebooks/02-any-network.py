# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#       jupytext_version: 1.19.6
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Any network: convert it, read its symmetries, move along them
#
# What can be done to the weights of a network without changing what it computes? This notebook asks that of a ResNet,
# of a BERT and of a module of our own, reads the answers, and checks them by moving weights and watching the outputs.
# Nothing is downloaded: the weights are random. It takes about half a minute.

# %%
from pathlib import Path
from tempfile import mkdtemp

import matplotlib.pyplot as plt
import torch
from torch import nn
from transformers import BertConfig, BertModel, ResNetConfig, ResNetForImageClassification

import converters
import gmn
from gmn import symmetry
from gmn.draw import draw

torch.manual_seed(0)
torch.set_num_threads(1)

# %% [markdown]
# ## A ResNet
#
# `converters.trace` follows the module with `torch.export` and needs nothing but the module and example inputs.

# %%
resnet = ResNetForImageClassification(
    ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 12], depths=[2, 1], layer_type="basic", num_labels=5
    )
).eval()
image = (torch.randn(2, 3, 32, 32),)
spec = converters.trace(resnet, image)
print(f"{spec.num_parameters:,} parameters, {len(spec.node_sets)} node sets")
for nodes in spec.node_sets:
    print(f"{nodes.name:60s} {nodes.size:4d} {nodes.role}")

# %% [markdown]
# A stage of residual blocks is *one* node set: the skip connections force all its blocks to be permuted together. In
# the picture, arrows that lead back to an earlier box write to such a stream.

# %%
draw(spec)

# %% [markdown]
# Every claim is tried on the module itself, in double precision: one by one, and all together.

# %%
certificate = converters.verify(resnet, image, spec, trials=4)
print(certificate.ok, f"{certificate.max_error:.1e}", f"{len(certificate.errors)} symmetries")

# %% [markdown]
# ## A BERT
#
# Besides permutations and scales there are two further kinds here.
#
# * **Changes of basis.** Queries and keys meet in a product, so any invertible matrix may be put between them, one per
#   head; likewise between values and the output projection.
# * **Translations.** The bias of the keys adds the same number to all scores of a query, which the softmax takes away.
#   It may hold anything.

# %%
bert = BertModel(
    BertConfig(
        vocab_size=50,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=4,
        intermediate_size=48,
        initializer_range=0.3,
    )
).eval()
tokens = (torch.randint(0, 50, (2, 7)),)
bert_spec = converters.trace(bert, tokens)
for gauge in bert_spec.gauges:
    print("basis      ", gauge.name, gauge.group, gauge.shape)
for translation in bert_spec.translations:
    print("translation", translation.name, translation.shape)

# %%
draw(bert_spec)

# %% [markdown]
# ## A module of our own
#
# Attention with rotary positions and a gated unit, as in today's language models, written by hand.


# %%
class Block(nn.Module):
    def __init__(self, width=32, heads=4, length=7):
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(width, width, bias=False) for _ in range(4))
        self.gate, self.up = nn.Linear(width, 48), nn.Linear(width, 48)
        self.down, self.norm = nn.Linear(48, width), nn.RMSNorm(width)
        self.heads, size = heads, width // heads
        angle = torch.arange(length)[:, None] / 50 ** (torch.arange(0, size, 2) / size)
        self.register_buffer("cos", torch.cat([angle.cos()] * 2, -1))
        self.register_buffer("sin", torch.cat([angle.sin()] * 2, -1))

    def turn(self, x):
        first, second = x.chunk(2, -1)
        return x * self.cos + torch.cat([-second, first], -1) * self.sin

    def forward(self, x):
        y = self.norm(x)
        q, k, v = (
            f(y).unflatten(-1, (self.heads, -1)).transpose(1, 2) for f in (self.q, self.k, self.v)
        )
        y = nn.functional.scaled_dot_product_attention(
            self.turn(q), self.turn(k), v, is_causal=True
        )
        x = x + self.o(y.transpose(1, 2).flatten(2))
        return x + self.down(nn.functional.silu(self.gate(x)) * self.up(x))


block, stream = Block(), (torch.randn(2, 7, 32),)
block_spec = converters.trace(block, stream)
print(block_spec)

# %% [markdown]
# Rotary positions tell the units of queries and keys apart: their axis is `fixed`, and of the change of basis only one
# scale per frequency plane is left. Values keep theirs. The linear branch of the gated unit (`up`) has a scale of its
# own, which `down` undoes; the other branch passes through SiLU and has none.
#
# ## Move along the group
#
# `symmetry.sample` draws a random element: permutations, scales, bases and shifts at once. `spread` says how far scales
# and bases go. The weights move a long way, the outputs stay. Noise of the same size changes them.

# %%
network = {name: value.double() for name, value in bert.state_dict().items()}
spreads, moved_by, along, noisy = [0.01, 0.03, 0.1, 0.3, 1.0], [], [], []
bert.double()


def outputs(state):
    with torch.no_grad():
        return torch.func.functional_call(bert, state, tokens).last_hidden_state


def distance(one, other):
    return float((one - other).norm() / other.norm())


def flat(state):
    return torch.cat([v.flatten() for v in state.values() if v.is_floating_point()])


for spread in spreads:
    generator = torch.Generator().manual_seed(0)
    element = symmetry.sample(bert_spec, generator, spread=spread)
    continuous = symmetry.Element(bert_spec, {}, element.scales, element.bases, element.shifts)
    signs = {name: scale.abs() for name, scale in continuous.scales.items()}
    turned = {n: torch.matrix_exp(spread * torch.randn_like(b)) for n, b in element.bases.items()}
    element = symmetry.Element(bert_spec, {}, signs, turned, element.shifts)
    moved = element.act(network)
    size = distance(flat(moved), flat(network))
    noise = {
        n: v + size * v.norm() * torch.randn_like(v) / v.numel() ** 0.5
        if v.is_floating_point()
        else v
        for n, v in network.items()
    }
    moved_by.append(size)
    along.append(distance(outputs(moved), outputs(network)))
    noisy.append(distance(outputs(noise), outputs(network)))

figure, axes = plt.subplots(figsize=(6, 3.5))
axes.loglog(moved_by, noisy, "o-", label="random noise")
axes.loglog(moved_by, along, "s-", label="along the group")
axes.set(
    xlabel="how far the weights moved (relative)", ylabel="how far the outputs moved (relative)"
)
axes.legend()
figure.tight_layout()

# %% [markdown]
# And what is *not* a symmetry is not claimed: exchange one unit of queries and keys between two heads, and the function
# is another one. Published attention graphs cannot see that.

# %%
order = torch.arange(32)
order[[0, 8]] = order[[8, 0]]  # heads have eight units
crossed = {
    name: value[order] if ".query." in name or ".key." in name else value
    for name, value in network.items()
}
print(f"outputs change by {distance(outputs(crossed), outputs(network)):.1e}")

# %% [markdown]
# ## From and to checkpoints
#
# A checkpoint is read as data; no code in it ever runs. The way back is exact, bit for bit.

# %%
path = Path(mkdtemp()) / "bert.pt"
torch.save({"state_dict": bert.state_dict(), "epoch": 3}, path)
graph = gmn.ParameterGraph.from_state_dicts(bert_spec, [converters.load_checkpoint(path)])
back = graph.to_state_dict()
print(graph, all(torch.equal(back[name], value) for name, value in bert.state_dict().items()))

# %% [markdown]
# ## What the tracer does not know
#
# An operation without a rule makes the axes it touches ordered, and is named. A rule is a line away; the certificate
# tells whether it is right.


# %%
class Bessel(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(3, 6), nn.Linear(6, 2)

    def forward(self, x):
        return self.last(torch.special.i1(self.first(x)))


point = (torch.randn(4, 3),)
print(converters.trace(Bessel(), point).unknown[0])

# %%
from converters.writing import odd, same_axes

converters.register(
    "special_i1", converters.Rule(same_axes, odd, "any permutation; signs")
)  # elementwise and odd
print(converters.verify(Bessel(), point))
