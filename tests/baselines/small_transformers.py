"""Small transformers of every kind that Transformer-NFN reads, and of some that it refuses."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

import converters
import gmn
from tests.traced import BY_NAME, graph_of


class Block(nn.Module):
    """Attention and a feed-forward network, in one of the usual arrangements."""

    def __init__(
        self,
        width: int,
        heads: int = 2,
        keys: int = 4,
        values: int = 4,
        hidden: int = 7,
        skip: bool = False,
        norm: str = "plain",
        bias: bool = False,
        after: bool = False,
    ) -> None:
        super().__init__()
        self.heads, self.skip, self.after = heads, skip, after
        self.q, self.k = (nn.Linear(width, heads * keys, bias=bias) for _ in range(2))
        self.v = nn.Linear(width, heads * values, bias=bias)
        self.o = nn.Linear(heads * values, width, bias=bias)
        self.fc1, self.fc2 = nn.Linear(width, hidden), nn.Linear(hidden, width)
        self.norm1, self.norm2 = (
            nn.Identity()
            if norm == "none"
            else nn.LayerNorm(width, elementwise_affine=norm == "affine")
            for _ in range(2)
        )

    def attention(self, x: Tensor) -> Tensor:
        q, k, v = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer in (self.q, self.k, self.v)
        )
        scores = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).softmax(-1)
        return self.o((scores @ v).transpose(1, 2).flatten(2))

    def feed_forward(self, x: Tensor) -> Tensor:
        return self.fc2(torch.relu(self.fc1(x)))

    def forward(self, x: Tensor) -> Tensor:
        if self.after:
            x = self.norm1(x + self.attention(x))
            return self.norm2(x + self.feed_forward(x))
        y = self.attention(self.norm1(x))
        x = x + y if self.skip else y
        y = self.feed_forward(self.norm2(x))
        return x + y if self.skip else y


class Small(nn.Module):
    """An embedding with fixed positions (its neurons may not move), blocks, a classifier."""

    def __init__(self, blocks: int = 2, width: int = 6, fixed: bool = True, **block) -> None:
        super().__init__()
        self.embed = nn.Linear(3, width)
        positions = torch.randn(5, width)
        self.fixed = fixed
        if fixed:
            self.register_buffer("positions", positions)
        else:
            self.positions = nn.Parameter(positions)
        self.blocks = nn.ModuleList(Block(width, **block) for _ in range(blocks))
        self.fc1, self.fc2 = nn.Linear(width, 5), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x) + self.positions
        for block in self.blocks:
            x = block(x)
        return self.fc2(torch.relu(self.fc1(x.mean(1))))


# The published population has neither skip connections nor gains; its attention has no biases.
KINDS = {
    "zoo": {},
    "one-block": {"blocks": 1, "keys": 3, "values": 5},
    "three-blocks-without-norms": {"blocks": 3, "norm": "none", "bias": True},
    "gains": {"norm": "affine", "bias": True},
    "one-head": {"heads": 1},
    "pre-norm": {"skip": True, "norm": "affine", "bias": True},
    "post-norm": {"after": True, "norm": "affine", "bias": True},
    "free-stream": {"skip": True, "norm": "affine", "bias": True, "fixed": False},
}
CASES = ("attention", "attention-packed", "attention-module", "transformer")


def model(kind: str, seed: int = 0) -> nn.Module:
    if kind in CASES:
        return BY_NAME[kind].model(seed)
    torch.manual_seed(seed)
    small = Small(**KINDS[kind]).double()
    with torch.no_grad():
        for parameter in small.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
        if small.fixed:
            torch.manual_seed(0)
            small.positions.normal_()
    return small


def inputs(kind: str) -> tuple[Tensor, ...]:
    if kind in CASES:
        return BY_NAME[kind].example()
    return (torch.randn(2, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)),)


@cache
def spec(kind: str) -> gmn.GraphSpec:
    return converters.trace(model(kind), inputs(kind))


def graph(kind: str, networks: int = 2) -> gmn.ParameterGraph:
    if kind in CASES:
        return graph_of(BY_NAME[kind], networks)
    states = [model(kind, seed).state_dict() for seed in range(networks)]
    return gmn.ParameterGraph.from_state_dicts(spec(kind), states)
