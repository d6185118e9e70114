"""Functions that command lines name."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Tokens(nn.Module):
    """A network of token ids."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.last = nn.Embedding(11, 4), nn.Linear(4, 2)

    def forward(self, ids: Tensor) -> Tensor:
        return self.last(torch.tanh(self.embed(ids)))


class Masked(Tokens):
    """The same with inputs by name alone."""

    def forward(self, *, ids: Tensor, mask: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(ids).masked_fill(~mask[..., None], 0)


def tokens() -> nn.Module:
    return Tokens()


def by_name() -> nn.Module:
    return Masked()


def with_names() -> tuple[nn.Module, dict[str, Tensor]]:
    return Masked(), {
        "ids": torch.zeros(2, 7, dtype=torch.long),
        "mask": torch.ones(2, 7, dtype=torch.bool),
    }


def needing(width: int, depth: int, *, bias: bool = True) -> nn.Module:
    return nn.Sequential(*(nn.Linear(width, width, bias=bias) for _ in range(depth)))


def wide() -> tuple[nn.Module, tuple[Tensor, ...]]:
    return nn.Linear(3, 700), (torch.zeros(1, 3),)
