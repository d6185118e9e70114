"""Operations in forms that few networks use: whatever is claimed about them must hold.

Each was chosen because a rule that looks right could claim too much: values written through views,
axes whose structures do not match, one index set in two places of a value, entries put together
across an axis that the result still has.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import converters
from tests.traced import one_in


class Probe(nn.Module):
    """Six hidden units, something odd, and two more layers; a vector and a matrix of parameters."""

    def __init__(self, odd: Callable[[Probe, Tensor], Tensor], bias: bool) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 6, bias=bias), nn.Linear(6, 4)
        self.last, self.odd = nn.Linear(4, 2), odd
        self.p, self.w = nn.Parameter(torch.rand(6) + 0.5), nn.Parameter(torch.randn(6, 6))

    def forward(self, x: Tensor) -> Tensor:
        x = self.odd(self, torch.relu(self.first(x)))
        return self.last(torch.relu(self.second(x)))


def pairs(x: Tensor) -> Tensor:
    return x.view(-1, 2, 3)


def written(write: Callable[[Probe, Tensor], object]) -> Callable[[Probe, Tensor], Tensor]:
    """The value after something was written into a copy of it."""

    def odd(s: Probe, x: Tensor) -> Tensor:
        x = x.clone()
        write(s, x)
        return x

    return odd


def chunks(s: Probe, x: Tensor) -> None:
    first, second = x.chunk(2, 1)
    first.add_(1)
    second.mul_(first)


def each(s: Probe, x: Tensor) -> None:
    for number, part in enumerate(x.unbind(1)):
        part.add_(number)


def reader_before(s: Probe, x: Tensor) -> Tensor:
    """A value is read before and after a part of it is written."""
    whole = torch.zeros_like(x)
    part, before = whole[:, 2:], whole + 1
    part.copy_(x[:, :4])
    return whole * before + x


def filled(axis: int) -> Callable[[Probe, Tensor], Tensor]:
    """Copies of hidden units along one dimension or the other of a square."""

    def odd(s: Probe, x: Tensor) -> Tensor:
        square = x.new_zeros(x.shape[0], 6, 6)
        square[:] = x.unsqueeze(axis)
        return torch.sigmoid(square + s.w).sum(1)

    return odd


Odd = Callable[[Probe, Tensor], Tensor]
FORMS: dict[str, Odd] = {
    # Writing.
    "half onto half": written(lambda s, x: x[:, :3].copy_(x[:, 3:] * 2)),
    "a parameter onto a part": written(lambda s, x: x[:, 1:4].copy_(s.p[:3])),
    "a diagonal": written(lambda s, x: x.diagonal().fill_(0)),
    "one unit of a transposed view": written(lambda s, x: x.t()[2].fill_(1)),
    "one row of pairs": written(lambda s, x: pairs(x)[:, 1].fill_(7)),
    "a part of every pair": written(lambda s, x: pairs(x)[:, :, 1:].mul_(2)),
    "every second unit": written(lambda s, x: x[:, ::2].mul_(3)),
    "a sum onto a part": written(lambda s, x: x[:, :2].add_(x[:, 2:4])),
    "chunks": written(chunks),
    "every unit in its own way": written(each),
    "readers before and after": reader_before,
    "copies along rows": filled(1),
    "copies along columns": filled(2),
    "nothing": written(lambda s, x: x[:, 6:].fill_(1)),
    # Structures that do not match.
    "copies of the whole and of entries": lambda s, x: (
        (x.repeat(1, 2) + x.repeat_interleave(2, 1)).unflatten(1, (6, 2)).sum(2)
    ),
    "three by two after two by three": lambda s, x: (
        pairs(x).flatten(1).view(-1, 3, 2).transpose(1, 2).flatten(1) + x
    ),
    "pairs across a concatenation": lambda s, x: (
        torch.cat([x[:, :4], x[:, 4:]], 1).view(-1, 3, 2).transpose(1, 2).flatten(1) + x
    ),
    "concatenations cut at other places": lambda s, x: (
        torch.cat([x[:, :4], x[:, 4:]], 1) + torch.cat([x[:, 4:], x[:, :4]], 1)
    ),
    "transposed pairs": lambda s, x: pairs(x).transpose(1, 2).reshape(-1, 6) + x,
    "halves exchanged": lambda s, x: torch.cat([x[:, 3:], x[:, :3]], 1) + x,
    # One index set in two places.
    "an outer product": lambda s, x: (x[:, :, None] * x[:, None, :] * s.w).sum(2),
    "an outer product of matrices": lambda s, x: ((x[:, :, None] @ x[:, None]) * s.w).sum(1) * s.p,
    "an outer product by letters": lambda s, x: torch.relu(
        torch.einsum("bi,bj->bij", x, x) * s.w
    ).sum(1),
    "a grid": lambda s, x: (
        (torch.meshgrid(x[0], s.p, indexing="ij")[0] * s.w).sum(0, keepdim=True) * x
    ),
    "all products of pairs": lambda s, x: (pairs(x) @ pairs(x).transpose(1, 2) @ pairs(x)).flatten(
        1
    ),
    # Entries put together across an axis that stays.
    "softmax across pairs": lambda s, x: pairs(x).softmax(1).flatten(1),
    "sums so far across pairs": lambda s, x: torch.sigmoid(pairs(x).cumsum(1) + pairs(x)).flatten(
        1
    ),
    "norm across pairs": lambda s, x: F.normalize(pairs(x), dim=1).flatten(1),
    "layer norm across pairs": lambda s, x: (
        F.layer_norm(pairs(x).transpose(1, 2), (2,)).transpose(1, 2).flatten(1)
    ),
    "layer norm of all": lambda s, x: F.layer_norm(pairs(x), (2, 3)).flatten(1),
    "rms norm across pairs": lambda s, x: (
        F.rms_norm(pairs(x).transpose(1, 2), (2,)).transpose(1, 2).flatten(1)
    ),
    "instance norm across pairs": lambda s, x: (
        F.instance_norm(pairs(x).transpose(1, 2)).transpose(1, 2).flatten(1)
    ),
    "group norm": lambda s, x: F.group_norm(x[..., None], 3).flatten(1) + x,
    "a layer across pairs": lambda s, x: (
        pairs(x) + torch.relu(F.linear(pairs(x).transpose(1, 2), s.w[:2, :2])).transpose(1, 2)
    ).flatten(1),
    "a product across pairs": lambda s, x: (
        pairs(x) + torch.relu(torch.einsum("bct,dc->bdt", pairs(x), s.w[:2, :2]))
    ).flatten(1),
    "attention across pairs": lambda s, x: (
        pairs(x) + F.scaled_dot_product_attention(pairs(x), pairs(x), pairs(x))
    ).flatten(1),
    "pooling across units of a pair": lambda s, x: (
        pairs(x) + F.avg_pool1d(pairs(x), 3, 1, 1)
    ).flatten(1),
    "pooling across pairs": lambda s, x: (
        pairs(x) + F.avg_pool1d(pairs(x).transpose(1, 2), 3, 1, 1).transpose(1, 2)
    ).flatten(1),
    "pairs rolled": lambda s, x: pairs(x).roll(1, 1).reshape(-1, 6) + x,
    "all rolled": lambda s, x: x.roll(2) + x,
    "the largest of a pair": lambda s, x: (pairs(x).amax(1, keepdim=True) * pairs(x)).flatten(1),
    "the mean of a pair": lambda s, x: (pairs(x).mean(1, keepdim=True) + pairs(x)).flatten(1),
    # Operands that are easy to overlook.
    "an exponent": lambda s, x: x**s.p,
    "a base": lambda s, x: s.p**x,
    "a number as base": lambda s, x: 2.0**x,
    "a bound": lambda s, x: x.clamp(max=s.p),
    "a fused quotient": lambda s, x: torch.addcdiv(x, x, s.p),
    "how many are not zero": lambda s, x: (
        x * torch.linalg.vector_norm(x - 0.3, ord=0, dim=1, keepdim=True)
    ),
    "a norm of everything": lambda s, x: x * x.norm(),
    "deviations": lambda s, x: x / x.std(1, keepdim=True),
    "ranks": lambda s, x: x.topk(6, 1).values * x,
    "places to sample at": lambda s, x: F.grid_sample(
        x[None, None],
        torch.tanh(x)[None, :, :, None].expand(1, len(x), 6, 2),
        align_corners=False,
    )[0, 0],
    "heads of a concatenation": lambda s, x: (
        (torch.cat([x, x * s.p], 1).view(-1, 4, 3) * s.p[:3]).unflatten(1, (2, 2)).sum(1).flatten(1)
    ),
}


@pytest.mark.parametrize(
    "bias", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["bias", "no-bias"]
)
@pytest.mark.parametrize("name", one_in(9, FORMS))
def test_nothing_false_is_claimed(name: str, bias: bool) -> None:
    torch.manual_seed(0)
    model, inputs = Probe(FORMS[name], bias).double(), (torch.randn(5, 3).double(),)
    certificate = converters.verify(model, inputs, trials=1)
    assert certificate.errors
    assert certificate.ok, str(certificate)
