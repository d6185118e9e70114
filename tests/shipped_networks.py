"""The modules that the networks of :mod:`gmn.testing` are traced from.

After a change of these or of what tracing finds: ``python -m tests.shipped_networks``.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import torch
from torch import Tensor, nn

import converters
from gmn.testing import networks

Build = Callable[[], nn.Module]


class Attention(nn.Module):
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


class Residual(nn.Module):
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


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.GRU(3, 4, batch_first=True), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.cell(x)[0][:, -1])


class Tied(nn.Module):
    """An autoencoder whose decoder is the encoder, transposed."""

    def __init__(self) -> None:
        super().__init__()
        self.encode, self.shift = nn.Linear(4, 5), nn.Parameter(torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.encode(x)) @ self.encode.weight + self.shift


def mlp(activation: nn.Module) -> nn.Module:
    return nn.Sequential(
        nn.Linear(3, 5), activation, nn.Linear(5, 4), activation, nn.Linear(4, 2)
    )  # fmt: skip


def convolutions(
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


MODULES: dict[str, tuple[Build, tuple[int, ...]]] = {
    "perceptron": (lambda: mlp(nn.ReLU()), (5, 3)),
    "perceptron-tanh": (lambda: mlp(nn.Tanh()), (5, 3)),
    "convolutions": (convolutions, (2, 2, 9, 9)),
    "residual-block": (Residual, (2, 2, 5, 5)),
    "gated-attention": (Attention, (2, 4, 6)),
    "gru": (Recurrent, (2, 4, 3)),
    "autoencoder": (Tied, (5, 4)),
}
"""By name, what builds a module and the shape of its input."""

OPERATIONS: dict[str, Build] = {
    "stride": lambda: convolutions(stride=2),
    "padding": lambda: convolutions(padding=1),
    "dilation": lambda: convolutions(dilation=2),
    "tanh": lambda: convolutions(activation=nn.Tanh()),
    "leaky-relu": lambda: convolutions(activation=nn.LeakyReLU(0.3)),
}
"""The convolutions with another operation each."""


def document(build: Build, shape: tuple[int, ...]) -> object:
    with torch.random.fork_rng():
        spec = converters.trace(build().double(), (torch.randn(shape, dtype=torch.float64),))
    return json.loads(spec.to_json())


def documents() -> dict[str, dict[str, object]]:
    """What the file holds."""
    shape = MODULES["convolutions"][1]
    return {
        "networks": {name: document(*module) for name, module in MODULES.items()},
        "operations": {name: document(build, shape) for name, build in OPERATIONS.items()},
    }


if __name__ == "__main__":
    networks.FILE.write_text(json.dumps(documents(), separators=(",", ":")) + "\n")
