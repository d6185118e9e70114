"""Pairs of networks of equal parameters that compute different functions, for no weight tells why.

They differ in operations without parameters, in constants beside the state dict, or in persistent
buffers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import converters
from gmn.errors import UnsupportedArchitecture
from gmn.graph import ParameterGraph
from gmn.nn import GMN, DualGMN, InvariantHead, NeuralGraphGNN, NeuralGraphTransformer, ScaleGMN
from gmn.testing import relative_error

Forward = Callable[["Net", Tensor], Tensor]
Change = Callable[[dict[str, Tensor]], dict[str, Tensor]]
TOKENS, WIDTH, COUNT = 4, 8, 2  # COUNT: heads of attention
MODELS: Mapping[str, Callable[..., nn.Module]] = {
    "GMN": GMN,
    "DualGMN": DualGMN,
    "NG-GNN": NeuralGraphGNN,
    "NG-T": NeuralGraphTransformer,
    "ScaleGMN": ScaleGMN,
}


class Net(nn.Module):
    """Named parts, and what is done with them."""

    def __init__(self, forward: Forward, **parts: nn.Module | Tensor) -> None:
        super().__init__()
        self._function = forward
        for name, part in parts.items():
            if isinstance(part, nn.Module):
                self.add_module(name, part)
            else:
                self.register_buffer(name, part.clone(), persistent=not name.startswith("fixed"))

    def forward(self, x: Tensor) -> Tensor:
        return self._function(self, x)


@dataclass(frozen=True)
class Pair:
    """Two networks that metanetworks have to tell apart.

    Attributes:
        name: what they differ in.
        one: builds the first; its weights serve both.
        other: builds the second.
        change: what of the state dict is different in the second; None for nothing.
    """

    name: str
    one: Callable[[], nn.Module]
    other: Callable[[], nn.Module]
    inputs: Callable[[], Tensor]
    change: Change | None = None

    def models(self) -> tuple[nn.Module, nn.Module]:
        """Both in evaluation mode, float64, with random weights and statistics."""
        torch.manual_seed(0)
        one = self.one().double().eval()
        with torch.no_grad():
            for parameter in one.parameters():
                parameter.copy_(0.7 * torch.randn_like(parameter))
        torch.manual_seed(0)
        other = self.other().double().eval()
        state = {name: value.clone() for name, value in one.state_dict().items()}
        other.load_state_dict(state if self.change is None else self.change(state))
        return one, other

    def graphs(self) -> tuple[ParameterGraph, ParameterGraph]:
        """The parameter graphs of both, traced once."""
        return _graphs(self)

    def difference(self) -> float:
        """How far the functions are apart on random inputs, relative to the first."""
        torch.manual_seed(2)
        x = self.inputs().double()
        with torch.no_grad():
            one, other = (model(x) for model in self.models())
        return float((one - other).abs().max() / one.abs().max())


@cache
def _graphs(pair: Pair) -> tuple[ParameterGraph, ParameterGraph]:
    torch.manual_seed(1)
    example = (pair.inputs().double(),)
    one, other = (converters.to_graph(model, example) for model in pair.models())
    return one, other


def vectors() -> Tensor:
    return torch.randn(3, 5)


def tokens() -> Tensor:
    return torch.randn(3, TOKENS, WIDTH)


def images() -> Tensor:
    return torch.randn(3, 2, 6, 6)


def layers(function: Callable[[Tensor], Tensor]) -> Callable[[], Net]:
    """Two linear layers with a function of hidden values between them."""
    return lambda: Net(
        lambda m, x: m.o(function(m.a(x))), a=nn.Linear(5, WIDTH), o=nn.Linear(WIDTH, 3)
    )


def convolutions(between: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(nn.Conv2d(2, 6, 3), between(), nn.ReLU(), nn.Conv2d(6, 3, 3))


def attention(
    weigh: Callable[[Tensor], Tensor],
    turn: Callable[[Net, Tensor], Tensor] = lambda m, x: x,
    **parts: Tensor,
) -> Callable[[], Net]:
    """Attention written by hand.

    Args:
        weigh: from products of queries and keys to weights of values.
        turn: what is done to queries and keys before.
        parts: further buffers.
    """

    def forward(m: Net, x: Tensor) -> Tensor:
        q, k, v = (part(x).unflatten(-1, (COUNT, -1)).transpose(1, 2) for part in (m.q, m.k, m.v))
        weights = weigh(turn(m, q) @ turn(m, k).transpose(-1, -2))
        return m.o((weights @ v).transpose(1, 2).flatten(2))

    def build() -> Net:
        linear = {name: nn.Linear(WIDTH, WIDTH) for name in "qkvo"}
        return Net(forward, **linear, **parts)

    return build


def softmax(scale: float = 0.5, mask: Tensor | None = None) -> Callable[[Tensor], Tensor]:
    def weigh(scores: Tensor) -> Tensor:
        scores = scores * scale
        if mask is not None:
            scores = scores.masked_fill(mask.to(scores.device) == 0, -torch.inf)
        return scores.softmax(-1)

    return weigh


EARLIER = torch.ones(TOKENS, TOKENS).tril()


def rotary(theta: float) -> Callable[[], Net]:
    """Attention with rotary positions from a table that is no entry of the state dict."""
    half = WIDTH // COUNT // 2
    table = theta ** (-torch.arange(half) / half)

    def turn(m: Net, x: Tensor) -> Tensor:
        angles = torch.arange(x.shape[-2]).to(x)[:, None] * m.fixed.to(x)
        angles = torch.cat([angles, angles], -1)
        swapped = torch.cat([-x[..., half:], x[..., :half]], -1)
        return x * angles.cos() + swapped * angles.sin()

    return attention(softmax(), turn, fixed=table)


def residual(forward: Forward) -> Callable[[], Net]:
    return lambda: Net(
        forward, a=nn.Linear(5, WIDTH), b=nn.Linear(WIDTH, WIDTH), o=nn.Linear(WIDTH, 3)
    )


def after(m: Net, x: Tensor) -> Tensor:
    h = m.a(x)
    return m.o(h + m.b(F.gelu(h)))


def before(m: Net, x: Tensor) -> Tensor:
    h = m.a(x)
    return m.o(F.gelu(h) + m.b(h))


def pooled(place: int) -> Callable[[], Net]:
    """A classifier of one token."""
    return lambda: Net(
        lambda m, x: m.o(F.gelu(m.a(x))[:, place]), a=nn.Linear(WIDTH, 6), o=nn.Linear(6, 3)
    )


def rms(h: Tensor, eps: float = 1e-6) -> Tensor:
    return F.rms_norm(h, h.shape[-1:], eps=eps)


def layer_norm(h: Tensor) -> Tensor:
    return F.layer_norm(h, h.shape[-1:])


def identity(h: Tensor) -> Tensor:
    return h


def by(numbers: list[float]) -> Callable[[Tensor], Tensor]:
    return lambda h: torch.tanh(h) * torch.tensor(numbers).to(h)


def picked(order: list[int]) -> Callable[[Tensor], Tensor]:
    return lambda h: torch.relu(h)[:, torch.tensor(order)]


# What operations without parameters and constants beside the state dict do.
COMPUTED = [
    Pair(
        "InstanceNorm2d, or none",
        convolutions(lambda: nn.InstanceNorm2d(6)),
        convolutions(nn.Identity),
        images,
    ),
    Pair(
        "epsilon of InstanceNorm2d",
        convolutions(lambda: nn.InstanceNorm2d(6)),
        convolutions(lambda: nn.InstanceNorm2d(6, eps=0.1)),
        images,
    ),
    Pair("RMSNorm without gain, or none", layers(rms), layers(identity), vectors),
    Pair("epsilon of RMSNorm", layers(rms), layers(lambda h: rms(h, 0.1)), vectors),
    Pair("LayerNorm, or RMSNorm", layers(layer_norm), layers(rms), vectors),
    Pair("scale of logits", attention(softmax(0.5)), attention(softmax(0.9)), tokens),
    Pair(
        "softmax, or sigmoid", attention(softmax()), attention(lambda s: (s / 2).sigmoid()), tokens
    ),
    Pair(
        "sigmoid, or ReLU",
        attention(lambda s: (s / 2).sigmoid()),
        attention(lambda s: (s / 2).relu()),
        tokens,
    ),
    Pair(
        "ReLU, or exponential",
        attention(lambda s: (s / 2).relu()),
        attention(lambda s: (s / 4).exp()),
        tokens,
    ),
    Pair("causal mask, or none", attention(softmax(mask=EARLIER)), attention(softmax()), tokens),
    Pair(
        "causal, or anti-causal mask",
        attention(softmax(mask=EARLIER)),
        attention(softmax(mask=EARLIER.T)),
        tokens,
    ),
    Pair("activation after the residual connection", residual(after), residual(before), vectors),
    Pair("first token, or last", pooled(0), pooled(-1), tokens),
    Pair("base of rotary positions", rotary(10_000.0), rotary(100.0), tokens),
    Pair(
        "neurons picked by constants",
        layers(picked([0, 1, 2, 3, 4, 5, 6, 6])),
        layers(picked([1, 1, 2, 3, 4, 5, 6, 7])),
        vectors,
    ),
    Pair("a factor", layers(by([2.0])), layers(by([3.0])), vectors),
]


def features(frequencies: Tensor) -> Callable[[], Net]:
    def forward(m: Net, x: Tensor) -> Tensor:
        angles = x @ m.table
        return m.o(torch.relu(m.a(torch.cat([angles.sin(), angles.cos()], -1))))

    return lambda: Net(forward, table=frequencies, a=nn.Linear(16, 6), o=nn.Linear(6, 2))


def masked(m: Net, x: Tensor) -> Tensor:
    return m.o(torch.relu(F.linear(x, m.a.weight * m.mask, m.a.bias)))


def gain(m: Net, x: Tensor) -> Tensor:
    return m.o(torch.relu(m.a(x) * m.gain))


def whole(m: Net, x: Tensor) -> Tensor:
    return torch.relu(m.a(x)) @ m.w.to(x.dtype)


def hidden(forward: Forward, **buffers: Tensor) -> Callable[[], Net]:
    return lambda: Net(forward, a=nn.Linear(5, WIDTH), o=nn.Linear(WIDTH, 3), **buffers)


def put(
    name: str, change: Callable[[Tensor], Tensor]
) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda state: {**state, name: change(state[name])}


def _with_buffer(
    name: str,
    build: Callable[[], nn.Module],
    inputs: Callable[[], Tensor],
    entry: str,
    change: Callable[[Tensor], Tensor],
) -> Pair:
    return Pair(name, build, build, inputs, put(entry, change))


# What persistent buffers hold.
BUFFERS = [
    _with_buffer(
        "Fourier features",
        features(torch.arange(40.0).view(5, 8).sin()),
        vectors,
        "table",
        lambda b: 0.9 * b,
    ),
    _with_buffer(
        "pruning mask",
        hidden(masked, mask=(torch.arange(40).view(WIDTH, 5) % 3 > 0).float()),
        vectors,
        "mask",
        lambda k: 1 - k,
    ),
    _with_buffer(
        "gains",
        hidden(gain, gain=torch.linspace(1, 2, WIDTH)),
        vectors,
        "gain",
        lambda g: g.flip(0),
    ),
    _with_buffer(
        "statistics of InstanceNorm",
        convolutions(lambda: nn.InstanceNorm2d(6, affine=True, track_running_stats=True)),
        images,
        "1.running_var",
        lambda v: 4 * v,
    ),
    _with_buffer(
        "int8 weights",
        hidden(whole, w=(torch.arange(24).view(WIDTH, 3) % 7 - 3).to(torch.int8)),
        vectors,
        "w",
        lambda w: -w,
    ),
]


def _other_values(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The value and output weights of both heads exchanged; queries and keys stay."""
    size = WIDTH // COUNT
    order = torch.arange(WIDTH).roll(size)
    moved = {name: state[name][order] for name in ("v.weight", "v.bias")}
    return {**state, **moved, "o.weight": state["o.weight"][:, order]}


def grouped() -> Net:
    """Attention with twice as many queries as keys and values, without biases."""

    def forward(m: Net, x: Tensor) -> Tensor:
        q = m.q(x).unflatten(-1, (COUNT, 2, -1)).movedim(1, 3)  # (B, keys, queries of each, T, d)
        k, v = (part(x).unflatten(-1, (COUNT, 1, -1)).movedim(1, 3) for part in (m.k, m.v))
        mixed = (q @ k.transpose(-1, -2)).softmax(-1) @ v
        return m.o(mixed.movedim(3, 1).flatten(2))

    sizes = {"q": (WIDTH, WIDTH), "k": (WIDTH, WIDTH // 2), "v": (WIDTH, WIDTH // 2)}
    parts = {name: nn.Linear(*size, bias=False) for name, size in sizes.items()}
    return Net(forward, **parts, o=nn.Linear(WIDTH, WIDTH))


def bilinear() -> Net:
    """A bilinear layer on two hidden layers."""
    parts = {"a": nn.Linear(5, 4), "b": nn.Linear(5, 3), "w": nn.Bilinear(4, 3, WIDTH)}
    return Net(
        lambda m, x: m.o(m.w(m.a(x).relu(), m.b(x).tanh()).relu()), **parts, o=nn.Linear(WIDTH, 3)
    )


def _turned(name: str, shape: tuple[int, ...], dim: int) -> Change:
    """The order of one dimension of a parameter, turned round."""

    def change(state: dict[str, Tensor]) -> dict[str, Tensor]:
        moved = state[name].reshape(shape).flip(dim).reshape(state[name].shape)
        return {**state, name: moved}

    return change


# Neurons that no edge joins, but an axis that they share.
HEADS = Pair(
    "queries of other values",
    attention(softmax()),
    attention(softmax()),
    tokens,
    _other_values,
)
SHARED = [
    HEADS,
    Pair(
        "queries of a group, elsewhere in the output",
        grouped,
        grouped,
        tokens,
        _turned("q.weight", (COUNT, 2, WIDTH // 4, WIDTH), 1),
    ),
    Pair("factors of other pairs", bilinear, bilinear, vectors, _turned("w.weight", (8, 4, 3), 1)),
]


@torch.no_grad()
def changes(pair: Pair) -> dict[str, float | None]:
    """By metanetwork, the relative change of its answer from one network of a pair to the other.

    None where it refuses such networks.
    """
    graphs, found = pair.graphs(), dict[str, float | None]()
    for name, model in MODELS.items():
        torch.manual_seed(0)
        net = model(head=InvariantHead(3)).double().eval()
        try:
            one, other = (net(graph) for graph in graphs)
        except UnsupportedArchitecture:
            found[name] = None
        else:
            found[name] = relative_error(other, one)
    return found
