"""Modules that use one kind of operation each, as networks in the wild use them."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Written(nn.Module):
    """Hidden units written into parts of a larger value, which is read as a whole."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 6), nn.Linear(12, 2)

    def forward(self, x: Tensor) -> Tensor:
        whole = x.new_zeros(x.shape[0], 12)
        whole[:, 2:8] = torch.relu(self.first(x))
        whole[:, 8:11] = 1
        return self.last(torch.tanh(whole))


class Overwritten(nn.Module):
    """The first hidden units are set to zero by way of a view: these two are unlike the others."""

    def __init__(self, hidden: int = 7) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, hidden), nn.Linear(hidden, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        x[:, :2].zero_()
        return self.last(x)


class Shifted(nn.Module):
    """Tokens or units added to themselves rolled and flipped, which tells them apart."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.first, self.last, self.dim = nn.Linear(3, 6), nn.Linear(6, 2), dim

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        return self.last(torch.roll(x, 1, self.dim) + 2 * x.flip(self.dim) + x)


class Unread(nn.Module):
    """A hidden unit is looked at, as models do that want a shape, but what is found is not used."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        return self.last(x) * len(x[:, 0].exp())


class Picked(nn.Module):
    """Hidden units added to themselves in another order, which is picked by number."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(3, 4), nn.Linear(4, 5), nn.Linear(5, 2)
        self.register_buffer("order", torch.tensor([1, 2, 3, 0]))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        x = torch.relu(self.second(x + x.index_select(1, self.order)))
        return self.last(x + x[:, [4, 3, 0, 1, 2]])


class Repeated(nn.Module):
    """Copies of hidden units, of the whole and of every entry."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(3, 4), nn.Linear(12, 5), nn.Linear(10, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.second(torch.relu(self.first(x)).repeat(1, 3)))
        return self.last(x.repeat_interleave(2, dim=1))


class Bounded(nn.Module):
    """Bounds and exponents that are parameters, one for every channel; a norm over channels."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 5), nn.Linear(5, 2)
        self.bound = nn.Parameter(torch.linspace(0.1, 0.5, 5))
        self.exponent = nn.Parameter(torch.linspace(1.5, 3.0, 5))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.clamp(self.first(x), min=self.bound.abs()) ** self.exponent
        return self.last(F.normalize(1 - x, dim=-1))


class Fused(nn.Module):
    """An affine map of every channel in one operation."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 5), nn.Linear(5, 2)
        self.gain, self.shift = nn.Parameter(torch.ones(5)), nn.Parameter(torch.zeros(5))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(torch.addcmul(self.shift, self.gain, self.first(x))))


class Best(nn.Module):
    """The largest of some hidden units, in order: ranks are no neurons."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(3, 6), nn.Linear(3, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        weights = self.first(x).topk(5).values.softmax(-1)
        return self.last(self.second(x) * weights)


class Windows(nn.Module):
    """Channels folded into windows and back."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Conv2d(2, 4, 3), nn.Linear(36, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        x = F.fold(F.unfold(x, 2, stride=2) ** 2, (8, 8), 2, stride=2)
        x = self.second(F.unfold(x, 3, stride=2).transpose(1, 2))
        return self.last(x.unfold(1, 2, 1).mean((1, 3)))


class Sampled(nn.Module):
    """Channels read at places of a grid that is shifted."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(2, 5, 3), nn.Conv2d(5, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        side = torch.linspace(-0.9, 0.7, x.shape[-1], dtype=x.dtype, device=x.device)
        grid = torch.stack(torch.meshgrid(side, side, indexing="xy"), -1)
        x = F.grid_sample(x, grid.expand(x.shape[0], -1, -1, -1), align_corners=False)
        return self.last(x)


class WidthOne(nn.Module):
    """Convolutions over units as if they were places: one of width one does not tell them apart."""

    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 6), nn.Linear(6, 2)
        self.mix = nn.Conv1d(4, 3, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.mix(torch.relu(self.first(x)))).mean(1))


class Heads(nn.Module):
    """Heads in two concatenated parts, viewed together."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 8), nn.Linear(3, 12)
        self.gain, self.last = nn.Parameter(torch.rand(5, 1) + 0.5), nn.Linear(20, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.first(x), self.second(x)], -1).view(-1, 5, 4)
        return self.last(torch.sigmoid(x * self.gain).flatten(1))


class Offset(nn.Module):
    """A constant beside the state dict, added to hidden units."""

    constant: Tensor

    def __init__(self, constant: Tensor) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, len(constant)), nn.Linear(len(constant), 2)
        self.register_buffer("constant", constant, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.first(x) + self.constant))


class Remembering(nn.Module):
    """Keeps what it computed from its weights, as some attention layers do when not training."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 5), nn.Linear(5, 2)
        self.gain = nn.Parameter(torch.rand(5))
        self.memory: dict[str, Tensor] = {}

    def forward(self, x: Tensor) -> Tensor:
        if "gain" not in self.memory:
            self.memory["gain"] = torch.exp(self.gain)
        return self.last(torch.relu(self.first(x)) * self.memory["gain"])


class Places(nn.Module):
    """A number for every channel and place, before a softmax over places, and before a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(2, 4, 3, stride=3), nn.LayerNorm(36)
        self.scores = nn.Parameter(torch.randn(4, 3, 3))
        self.places, self.last = nn.Parameter(torch.randn(4, 3, 3)), nn.Linear(36, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = x * torch.softmax(x + self.scores, -1)
        return self.last(self.norm((x + self.places).flatten(1)))
