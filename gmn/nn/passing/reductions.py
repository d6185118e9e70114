"""Reductions of messages at their targets: sum, mean, min, max, std and softmax, on blocks.

Edges into one neuron may belong to several blocks. Each block is reduced by itself to *partials*;
those of all blocks are then merged at the neurons.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from gmn.nn.passing.relations import End

Reduction: TypeAlias = Literal["sum", "mean", "min", "max", "std", "softmax"]
NAMES = get_args(Reduction)
EPSILON = 1e-5  # under the root of a standard deviation, whose gradient is infinite at 0


@dataclass(frozen=True, eq=False)
class Partial:
    """The messages of one block, partially reduced at their targets.

    Attributes:
        count: number of edges into each target.
        parts: by name, shapes (B, targets, channels).
    """

    count: int
    parts: dict[str, Tensor]


def partial(messages: Any, end: End, names: Sequence[Reduction]) -> dict[str, Tensor]:
    """Reduces the messages of one block, to :attr:`Partial.parts`.

    Args:
        messages: shape (B, *block, c); for "softmax" a pair of scores (B, *block, heads) and
            values (B, *block, c), the channels of one head side by side.
        end: the targets.
        names: the reductions to prepare.
    """
    if "softmax" in names:
        scores, values = messages
        parts = _softmax(scores, values, end.reduced)
    else:
        parts = _statistics(messages, end.reduced, names)
    return {name: end.gather(part) for name, part in parts.items()}


def merge(partials: Sequence[Partial], names: Sequence[Reduction]) -> Tensor:
    """Merges the partials of all blocks into a node set: (B, targets, len(names) * c)."""
    return torch.cat([_MERGE[name](partials) for name in names], dim=-1)


def _statistics(
    messages: Tensor, dims: tuple[int, ...], names: Sequence[Reduction]
) -> dict[str, Tensor]:
    parts = {"min": "min", "max": "max", "std": "squares"}
    needed = tuple(part for name, part in parts.items() if name in names)
    if not dims:
        single = dict.fromkeys(("sum", *needed), messages)
        return single | ({"squares": torch.zeros_like(messages)} if "squares" in needed else {})
    if not needed:
        return {"sum": messages.sum(dims)}
    results = _Statistics.apply(messages, dims, needed)
    return dict(zip(("sum", *needed), results, strict=True))


class _Statistics(torch.autograd.Function):
    """Sum, minimum, maximum and sum of squared deviations; one gradient for all.

    Edges that share a minimum share its gradient, so that gradients are equivariant.
    """

    @staticmethod
    def forward(
        messages: Tensor, dims: tuple[int, ...], needed: tuple[str, ...]
    ) -> tuple[Tensor, ...]:
        results = {"sum": messages.sum(dims)}
        if "min" in needed:
            results["min"] = messages.amin(dims)
        if "max" in needed:
            results["max"] = messages.amax(dims)
        if "squares" in needed:
            deviations = messages - _mean_along(messages, results["sum"], dims)
            results["squares"] = deviations.square_().sum(dims)
        return tuple(results[name] for name in ("sum", *needed))

    @staticmethod
    def setup_context(context: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        messages, context.dims, context.needed = inputs
        context.save_for_backward(messages, *output)

    @staticmethod
    @once_differentiable
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        messages, total, *results = context.saved_tensors
        dims = context.dims
        into_sum, *others = (_unsqueezed(gradient, dims) for gradient in gradients)
        by_name = dict(zip(context.needed, others, strict=True))
        if "squares" in by_name:
            slope = 2 * by_name["squares"]
            shift = into_sum - slope * _mean_along(messages, total, dims)
            gradient = torch.addcmul(shift, messages, slope)
        else:
            gradient = into_sum.expand_as(messages).clone()
        for name, result in zip(context.needed, results, strict=True):
            if name in ("min", "max"):
                ties = (messages == _unsqueezed(result, dims)).to(messages.dtype)
                gradient.addcmul_(ties, by_name[name] / ties.sum(dims, keepdim=True))
        return gradient, None, None


def _mean_along(messages: Tensor, total: Tensor, dims: tuple[int, ...]) -> Tensor:
    """The mean over some dimensions, from the sum, with these dimensions kept."""
    return _unsqueezed(total, dims) * (total.numel() / max(messages.numel(), 1))


def _unsqueezed(reduced: Tensor, dims: tuple[int, ...]) -> Tensor:
    for dim in sorted(dims):
        reduced = reduced.unsqueeze(dim)
    return reduced


def _softmax(scores: Tensor, values: Tensor, dims: tuple[int, ...]) -> dict[str, Tensor]:
    """Weighted sums and sums of weights, with the largest score of each target set to 0."""
    if dims:
        largest = scores.detach().amax(dims, keepdim=True)
        weights = (scores - largest).exp()
        largest = largest.squeeze(dims)
    else:
        largest, weights = scores.detach(), (scores - scores.detach()).exp()
    by_head = values.unflatten(-1, (scores.shape[-1], -1))
    weighed = (weights.unsqueeze(-1) * by_head).flatten(-2)
    if dims:
        weighed, weights = weighed.sum(dims), weights.sum(dims)
    return {"largest": largest, "weights": weights, "weighed": weighed}


def _sum(partials: Sequence[Partial]) -> Tensor:
    return sum((p.parts["sum"] for p in partials[1:]), start=partials[0].parts["sum"])


def _mean(partials: Sequence[Partial]) -> Tensor:
    return _sum(partials) / sum(p.count for p in partials)


def _deviation(partials: Sequence[Partial]) -> Tensor:
    """From squared deviations from each block's own mean (Chan, Golub and LeVeque, 1979)."""
    squares = sum((p.parts["squares"] for p in partials[1:]), start=partials[0].parts["squares"])
    if len(partials) > 1:
        mean = _mean(partials)
        for p in partials:
            squares = squares + p.count * (p.parts["sum"] / p.count - mean).square()
    return (squares / sum(p.count for p in partials) + EPSILON).sqrt()


def _attention(partials: Sequence[Partial]) -> Tensor:
    largest = reduce(torch.maximum, (p.parts["largest"] for p in partials))
    weighed, weights = [], []
    for p in partials:
        scale = (p.parts["largest"] - largest).exp()
        weights.append(p.parts["weights"] * scale)
        by_head = p.parts["weighed"].unflatten(-1, (scale.shape[-1], -1))
        weighed.append(by_head * scale.unsqueeze(-1))
    total = torch.stack(weights).sum(dim=0).unsqueeze(-1)
    return (torch.stack(weighed).sum(dim=0) / total).flatten(-2)


_MERGE: dict[str, Callable[[Sequence[Partial]], Tensor]] = {
    "sum": _sum,
    "mean": _mean,
    "min": lambda partials: reduce(torch.minimum, (p.parts["min"] for p in partials)),
    "max": lambda partials: reduce(torch.maximum, (p.parts["max"] for p in partials)),
    "std": _deviation,
    "softmax": _attention,
}
