"""Small networks that metanetworks are tested on, one for each kind of structure."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gmn.graph import ParameterGraph

if TYPE_CHECKING:
    from gmn.spec import GraphSpec

Build = Callable[[], nn.Module]


class _Attention(nn.Module):
    """Attention with a residual connection, a norm and a gated unit."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(6, 6) for _ in range(4))
        self.norm = nn.LayerNorm(6)
        self.gate, self.up, self.down = nn.Linear(6, 4), nn.Linear(6, 4), nn.Linear(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (m(x).unflatten(-1, (2, 3)).transpose(1, 2) for m in (self.q, self.k, self.v))
        mixed = nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = self.norm(x + self.out(mixed))
        return x + self.down(nn.functional.silu(self.gate(x)) * self.up(x))


class _Residual(nn.Module):
    """A block between a stem and a head, with batch norms."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(2, 4, 3, padding=1), nn.Linear(4, 3)
        self.inner, self.outer = nn.Conv2d(4, 5, 3, padding=1), nn.Conv2d(5, 4, 1, bias=False)
        self.inner_norm, self.outer_norm = nn.BatchNorm2d(5), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        y = self.outer_norm(self.outer(torch.relu(self.inner_norm(self.inner(x)))))
        return self.head(torch.relu(x + y).mean((2, 3)))


class _Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.GRU(3, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(x)[0][:, -1])


class _Tied(nn.Module):
    """An autoencoder whose decoder is the encoder, transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.shift = nn.Linear(4, 5), nn.Parameter(torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.encode(x)) @ self.encode.weight + self.shift


def _mlp(activation: nn.Module) -> nn.Module:
    return nn.Sequential(
        nn.Linear(3, 5), activation, nn.Linear(5, 4), activation, nn.Linear(4, 2)
    )  # fmt: skip


def _convolutions(
    stride: int = 1, padding: int = 0, dilation: int = 1, activation: nn.Module | None = None
) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, stride, padding, dilation),
        nn.ReLU() if activation is None else activation,
        nn.Conv2d(4, 4, 3, padding=1, groups=2),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 2),
    )


NETWORKS: dict[str, tuple[Build, tuple[int, ...]]] = {
    "perceptron": (lambda: _mlp(nn.ReLU()), (5, 3)),
    "perceptron-tanh": (lambda: _mlp(nn.Tanh()), (5, 3)),
    "convolutions": (_convolutions, (2, 2, 9, 9)),
    "residual-block": (_Residual, (2, 2, 5, 5)),
    "gated-attention": (_Attention, (2, 4, 6)),
    "gru": (_Recurrent, (2, 4, 3)),
    "autoencoder": (_Tied, (5, 4)),
}
"""By name, what builds a module and the shape of its input."""


@cache
def _spec(name: str) -> GraphSpec:
    return _traced(*NETWORKS[name])


def _traced(build: Build, shape: tuple[int, ...]) -> GraphSpec:
    import converters  # heavy, and above this layer: tests alone need it

    with torch.random.fork_rng():
        return converters.trace(build().double(), (torch.randn(shape, dtype=torch.float64),))


def _state(build: Build, seed: int) -> dict[str, Tensor]:
    """Random numbers everywhere, also where initialisation puts zeros or ones."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        state = build().double().state_dict()
        return {
            name: value.abs() + 0.1 * torch.rand_like(value)
            if name.endswith("running_var")
            else value + 0.2 * torch.randn_like(value)
            if value.is_floating_point()
            else value
            for name, value in state.items()
        }


def population(name: str, networks: int) -> ParameterGraph:
    """Random networks of one of :data:`NETWORKS`, float64."""
    states = [_state(NETWORKS[name][0], seed) for seed in range(networks)]
    return ParameterGraph.from_state_dicts(_spec(name), states)


def with_operations() -> Iterator[tuple[ParameterGraph, ParameterGraph]]:
    """Pairs of equal weights under convolutions that compute another function."""
    state = _state(_convolutions, 0)
    first = ParameterGraph.from_state_dicts(_spec("convolutions"), [state])
    others: list[Build] = [
        lambda: _convolutions(stride=2),
        lambda: _convolutions(padding=1),
        lambda: _convolutions(dilation=2),
        lambda: _convolutions(activation=nn.Tanh()),
        lambda: _convolutions(activation=nn.LeakyReLU(0.3)),
    ]
    for build in others:
        spec = _traced(build, NETWORKS["convolutions"][1])
        yield first, ParameterGraph.from_state_dicts(spec, [state])


def with_roles() -> tuple[ParameterGraph, dict[str, ParameterGraph]]:
    """Attention, and the same with weights that trade places."""
    graph = population("gated-attention", 2)
    pairs = (("q", "k"), ("q", "v"), ("k", "v"), ("gate", "up"))
    return graph, {f"{one} and {other}": _exchanged(graph, one, other) for one, other in pairs}


def _exchanged(graph: ParameterGraph, one: str, other: str) -> ParameterGraph:
    names = [(f"{one}.{part}", f"{other}.{part}") for part in ("weight", "bias")]
    fresh = {a: graph.values[b] for a, b in names} | {b: graph.values[a] for a, b in names}
    return graph.replace(fresh)
