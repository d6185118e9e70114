"""Networks with branches: some may trade places, some only look so."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

COUNT, WIDTH = 3, 4
Join = Callable[["Branched", list[Tensor], Tensor], Tensor]


class Branched(nn.Module):
    """Branches of one kind that read one input, what joins their results, and a last layer."""

    def __init__(self, make: Callable[[], nn.Module], join: Join, **others: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(make() for _ in range(COUNT))
        self.join = join
        self.others = nn.ModuleDict(others)
        self.last = nn.Linear(WIDTH, 2)

    def forward(self, x: Tensor) -> Tensor:
        joined = self.join(self, [branch(x) for branch in self.branches], x)
        return self.last(joined.flatten(2).mean(2) if joined.dim() > 2 else joined)


def mlp(activation: type[nn.Module] = nn.ReLU) -> nn.Module:
    return nn.Sequential(nn.Linear(WIDTH, 5), activation(), nn.Linear(5, WIDTH))


def convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(WIDTH, 2, 1),
        nn.ReLU(),
        nn.Conv2d(2, 2, 3, padding=1),
        nn.BatchNorm2d(2),
        nn.ReLU(),
        nn.Conv2d(2, WIDTH, 1),
        nn.BatchNorm2d(WIDTH),
    )


class Nested(nn.Module):
    """A branch with branches inside."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.ModuleList(mlp(nn.Tanh) for _ in range(2))
        self.out = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.relu(self.inner[0](x) + self.inner[1](x)))


def total(net: Branched, parts: list[Tensor], x: Tensor) -> Tensor:
    return sum(parts[1:], parts[0])


def from_zero(net: Branched, parts: list[Tensor], x: Tensor) -> Tensor:
    return torch.relu(sum(parts))  # type: ignore[arg-type]


def mean(net: Branched, parts: list[Tensor], x: Tensor) -> Tensor:
    return torch.stack(parts).mean(0)


def largest(net: Branched, parts: list[Tensor], x: Tensor) -> Tensor:
    return torch.stack(parts, dim=-1).max(-1).values


def product(net: Branched, parts: list[Tensor], x: Tensor) -> Tensor:
    return parts[0] * (parts[1] * parts[2])


def ensemble(net: Branched, parts: list[Tensor], x: Tensor) -> Tensor:
    return torch.stack([net.others["trunk"](part) for part in parts]).softmax(-1).mean(0)


def residual(net: Branched, parts: list[Tensor], x: Tensor) -> Tensor:
    trunk = net.others["trunk"](x)
    return torch.tanh(trunk + sum(branch(trunk) for branch in net.branches))


def joined_then_summed(net: Branched, parts: list[Tensor], x: Tensor) -> Tensor:
    return torch.cat([part[:, None] for part in parts], 1).sum(1)


def half_and_half(net: Branched, parts: list[Tensor], x: Tensor) -> Tensor:
    return torch.relu(0.5 * parts[0] + 0.5 * parts[1] + 0.5 * parts[2])


def accumulated(net: Branched, parts: list[Tensor], x: Tensor) -> Tensor:
    result = torch.zeros_like(parts[0])
    for part in parts:
        result += part
    return result.sigmoid()


def pairwise(net: Branched, parts: list[Tensor], x: Tensor) -> Tensor:
    first, second, third = parts
    return first * second + second * third + third * first


def gated(net: Branched, parts: list[Tensor], x: Tensor) -> Tensor:
    gate = net.others["router"](x).softmax(-1)
    return torch.stack([gate[:, k : k + 1] * part for k, part in enumerate(parts)]).sum(0)


def gated_in_another_order(net: Branched, parts: list[Tensor], x: Tensor) -> Tensor:
    gate = torch.sigmoid(net.others["router"](x))
    order = [2, 0, 1]
    gates = [gate[:, k : k + 1] for k in order]
    return gates[0] * parts[0] + gates[1] * parts[1] + gates[2] * parts[2]


@dataclass(frozen=True)
class Exchangeable:
    """A network with what is found in it.

    Attributes:
        name: what it shows.
        build: makes it.
        counts: the numbers of branches of its exchanges, largest first.
        example: makes an input.
    """

    name: str
    build: Callable[[], nn.Module]
    counts: tuple[int, ...]
    example: Callable[[], Tensor] = lambda: torch.randn(2, WIDTH)

    def model(self, seed: int = 0) -> nn.Module:
        """In evaluation mode, float64, with random statistics."""
        torch.manual_seed(seed)
        model = self.build().double().eval()
        for name, buffer in model.named_buffers():
            if buffer.is_floating_point():
                buffer.copy_(0.5 + torch.rand_like(buffer) if "var" in name else buffer)
        return model

    def inputs(self) -> tuple[Tensor]:
        torch.manual_seed(1)
        return (self.example().double(),)


def _images() -> Tensor:
    return torch.randn(2, WIDTH, 5, 5)


def _router() -> nn.Module:
    return nn.Linear(WIDTH, COUNT)


def _trunk() -> nn.Module:
    return nn.Linear(WIDTH, WIDTH)


ALIKE = [
    Exchangeable("sum", lambda: Branched(mlp, total), (3,)),
    Exchangeable("sum from zero", lambda: Branched(mlp, from_zero), (3,)),
    Exchangeable("mean of a stack", lambda: Branched(mlp, mean), (3,)),
    Exchangeable("maximum of a stack", lambda: Branched(mlp, largest), (3,)),
    Exchangeable("product", lambda: Branched(mlp, product), (3,)),
    Exchangeable("sum of joined parts", lambda: Branched(mlp, joined_then_summed), (3,)),
    Exchangeable("equal shares", lambda: Branched(mlp, half_and_half), (3,)),
    Exchangeable("sum in place", lambda: Branched(mlp, accumulated), (3,)),
    Exchangeable("products of pairs", lambda: Branched(mlp, pairwise), (3,)),
    Exchangeable("tanh branches", lambda: Branched(lambda: mlp(nn.Tanh), from_zero), (3,)),
    Exchangeable("ensemble", lambda: Branched(mlp, ensemble, trunk=_trunk()), (3,)),
    Exchangeable("shared trunk", lambda: Branched(mlp, residual, trunk=_trunk()), (3,)),
    Exchangeable("branches in branches", lambda: Branched(Nested, mean), (3, 2, 2, 2)),
    Exchangeable("convolutions", lambda: Branched(convolutions, from_zero), (3,), _images),
    Exchangeable(
        "two after another",
        lambda: nn.Sequential(Branched(mlp, mean), nn.Linear(2, WIDTH), Branched(mlp, total)),
        (3, 3),
    ),
    Exchangeable("router", lambda: Branched(mlp, gated, router=_router()), (3,)),
    Exchangeable(
        "router in another order",
        lambda: Branched(mlp, gated_in_another_order, router=_router()),
        (3,),
    ),
]


# --- what only looks so -------------------------------------------------------------------------

TYPICAL = ("sum", "product", "shared trunk", "branches in branches", "convolutions", "router")
"""Some of each kind among them."""


def weighted(net: Branched, parts: list[Tensor], x: Tensor) -> Tensor:
    return 0.2 * parts[0] + 0.3 * parts[1] + 0.5 * parts[2]


def in_order(net: Branched, parts: list[Tensor], x: Tensor) -> Tensor:
    return net.others["reader"](torch.cat(parts, dim=1))


def one_activated(net: Branched, parts: list[Tensor], x: Tensor) -> Tensor:
    return parts[0] + torch.relu(parts[1]) + torch.tanh(parts[2])


def one_after_another(net: Branched, parts: list[Tensor], x: Tensor) -> Tensor:
    first, second, third = net.branches
    return third(second(first(x)))


def differently_used(net: Branched, parts: list[Tensor], x: Tensor) -> Tensor:
    return parts[0] + net.branches[1](torch.tanh(parts[1])) + parts[2].abs()


def powers(net: Branched, parts: list[Tensor], x: Tensor) -> Tensor:
    return parts[0] + parts[1] ** 2 + parts[2] ** 3


def shifted(net: Branched, parts: list[Tensor], x: Tensor) -> Tensor:
    return parts[0] * (parts[1] + 1) * (parts[2] - 1)


def constants(net: Branched, parts: list[Tensor], x: Tensor) -> Tensor:
    numbers = (torch.tensor([0.0, 1, 2, 3]), torch.tensor([3.0, 2, 1, 1]), torch.tensor(2.0))
    return torch.stack([torch.relu(p + n) for p, n in zip(parts, numbers, strict=True)]).sum(0)


def routed_wrongly(net: Branched, parts: list[Tensor], x: Tensor) -> Tensor:
    gate = net.others["router"](x).softmax(-1)
    joined = sum(gate[:, k, None] * part for k, part in enumerate(parts))
    return joined + gate[:, :1]


def dropped(net: Branched, parts: list[Tensor], x: Tensor) -> Tensor:
    return F.dropout(parts[0], 0.5, True) + F.dropout(parts[1], 0.5, True) + parts[2].abs()


def softmax_of_stack(net: Branched, parts: list[Tensor], x: Tensor) -> Tensor:
    return torch.stack(parts).softmax(0)[0]


def cumulative(net: Branched, parts: list[Tensor], x: Tensor) -> Tensor:
    return torch.stack(parts).cumsum(0).abs().mean(0)


def place_of_largest(net: Branched, parts: list[Tensor], x: Tensor) -> Tensor:
    return torch.stack(parts).argmax(0).double()


UNLIKE = [
    Exchangeable(join.__name__, lambda join=join: Branched(mlp, join), (), example)
    for join, example in (
        (weighted, Exchangeable.example),
        (one_activated, Exchangeable.example),
        (one_after_another, Exchangeable.example),
        (differently_used, Exchangeable.example),
        (powers, Exchangeable.example),
        (shifted, Exchangeable.example),
        (constants, Exchangeable.example),
        (dropped, Exchangeable.example),
        (softmax_of_stack, Exchangeable.example),
        (cumulative, Exchangeable.example),
        (place_of_largest, Exchangeable.example),
    )
] + [
    Exchangeable(
        "in order", lambda: Branched(mlp, in_order, reader=nn.Linear(COUNT * WIDTH, WIDTH)), ()
    ),
    Exchangeable("routed wrongly", lambda: Branched(mlp, routed_wrongly, router=_router()), ()),
]
