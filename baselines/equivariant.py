"""The complete linear layer between features whose axes are permuted independently.

One construction serves every method of the family: NP and HNP differ only in which axes their
features have. Channels come last, so that mixing them is one matrix product.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch
from torch import Tensor, nn

Axes = tuple[str, ...]


@dataclass(frozen=True)
class Feature:
    """The form of one feature: a tensor of shape (B, *sizes of the axes, channels).

    Attributes:
        axes: names of the axes; the same name is the same permutation everywhere.
        channels: number of channels, which no permutation touches.

    Raises:
        ValueError: if an axis repeats; make the diagonal a feature of its own instead.
    """

    axes: Axes
    channels: int

    def __post_init__(self) -> None:
        if len(set(self.axes)) < len(self.axes):
            raise ValueError(f"a feature has the axes {self.axes}; they must be distinct")

    def has(self, kept: Axes) -> bool:
        """Whether all these axes are among the feature's."""
        return set(kept) <= set(self.axes)


class EquivariantLinear(nn.Module):
    r"""Every linear map that commutes with permutations of every axis, each exactly once.

    From input :math:`f` to output :math:`g` there is one map for each set :math:`S` of axes that
    both have: average :math:`f` over its axes outside :math:`S`, mix channels, repeat along the
    axes of :math:`g` outside :math:`S`. The average does not depend on the output, nor the mixing
    on where its result is repeated: so all maps with the same :math:`S` are one matrix product.

    Source: NP and HNP layers of Zhou et al. (arXiv 2302.14040); for general axes, the basis of
    Zhou et al. (arXiv 2402.05232), here for axes that are distinct within a feature.

    Args:
        inputs: forms of the input features.
        outputs: forms of the output features.
    """

    def __init__(self, inputs: Sequence[Feature], outputs: Sequence[Feature]) -> None:
        super().__init__()
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self._kept = _shared_axes(self.inputs, self.outputs)
        self.mix = nn.ModuleList(
            nn.Linear(
                sum(f.channels for f in self.inputs if f.has(kept)),
                sum(g.channels for g in self.outputs if g.has(kept)),
                bias=not kept,
            )
            for kept in self._kept
        )
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draws weights and biases from ±√(1 / n), n inputs in all terms of the output channel.

        Args:
            generator: source of randomness; torch's own if None.
        """
        with torch.no_grad():
            for kept, linear in self._mixes():
                receivers = [g for g in self.outputs if g.has(kept)]
                bounds = torch.cat(
                    [torch.full((g.channels,), self._fan_in(g) ** -0.5) for g in receivers]
                ).to(linear.weight)
                linear.weight.uniform_(-1, 1, generator=generator).mul_(bounds.unsqueeze(1))
                if not kept:
                    linear.bias.uniform_(-1, 1, generator=generator).mul_(bounds)

    def forward(
        self,
        features: Sequence[Tensor],  # shapes: (B, *sizes of the axes, channels)
    ) -> list[Tensor]:  # shapes: (B, *sizes of the axes, channels)
        """Maps the input features to the output features.

        Raises:
            ValueError: if an output has an axis that no input has, so that its size is unknown.
        """
        self._check_sizes_known()
        means = [
            _Means(f, value, self._kept) for f, value in zip(self.inputs, features, strict=True)
        ]
        terms: list[list[Tensor]] = [[] for _ in self.outputs]
        for kept, linear in self._mixes():
            parts = [mean.over_rest(kept) for mean in means if mean.feature.has(kept)]
            mixed = linear(parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1))
            receivers = [i for i, g in enumerate(self.outputs) if g.has(kept)]
            # The gradient of a split is a copy, even when there is only one part.
            widths = [self.outputs[i].channels for i in receivers]
            blocks = mixed.split(widths, dim=-1) if len(widths) > 1 else (mixed,)
            for i, block in zip(receivers, blocks, strict=True):
                terms[i].append(_align(block, kept, self.outputs[i].axes))
        return [_sum(own) for own in terms]

    def _mixes(self) -> Iterator[tuple[Axes, nn.Linear]]:
        for kept, linear in zip(self._kept, self.mix, strict=True):
            assert isinstance(linear, nn.Linear)
            yield kept, linear

    def _fan_in(self, output: Feature) -> int:
        return sum(linear.in_features for kept, linear in self._mixes() if output.has(kept))

    def _check_sizes_known(self) -> None:
        known = {axis for feature in self.inputs for axis in feature.axes}
        for feature in self.outputs:
            if missing := sorted(set(feature.axes) - known):
                raise ValueError(
                    f"no input has the axes {', '.join(missing)} of the output {feature}; "
                    "add an input that has them"
                )


def _shared_axes(inputs: Sequence[Feature], outputs: Sequence[Feature]) -> tuple[Axes, ...]:
    """Sets of axes that some input and some output both have, smallest first.

    Each is ordered as in the first input that has it, which then needs no transposition.
    """
    found: dict[frozenset[str], Axes] = {}
    for feature in inputs:
        for count in range(len(feature.axes) + 1):
            for kept in combinations(feature.axes, count):
                if any(g.has(kept) for g in outputs):
                    found.setdefault(frozenset(kept), kept)
    return tuple(sorted(found.values(), key=len))


class _Means:
    """Averages of one feature, each computed once, from the smallest that contains it."""

    def __init__(self, feature: Feature, value: Tensor, wanted: Sequence[Axes]) -> None:
        self.feature = feature
        self._known: dict[frozenset[str], tuple[Axes, Tensor]] = {
            frozenset(feature.axes): (feature.axes, value)
        }
        for kept in sorted(wanted, key=len, reverse=True):
            if feature.has(kept) and frozenset(kept) not in self._known:
                self._add(frozenset(kept))

    def _add(self, kept: frozenset[str]) -> None:
        larger = min((known for known in self._known if kept < known), key=len)
        axes, value = self._known[larger]
        dims = [1 + i for i, axis in enumerate(axes) if axis not in kept]
        count = math.prod(value.shape[dim] for dim in dims)
        # The gradient of a sum is an expanded view, that of a mean a full-size tensor.
        self._known[kept] = (tuple(a for a in axes if a in kept), value.sum(dims) / count)

    def over_rest(self, kept: Axes) -> Tensor:
        """The feature averaged over all other axes: shape (B, *sizes of ``kept``, channels)."""
        axes, value = self._known[frozenset(kept)]
        return _align(value, axes, kept)


def _align(value: Tensor, axes: Axes, wanted: Axes) -> Tensor:
    """A view with the dimensions in the order ``wanted``, of size one for axes it lacks."""
    if axes == wanted:
        return value
    ordered = [1 + axes.index(axis) for axis in wanted if axis in axes]
    value = value.permute(0, *ordered, value.dim() - 1)
    for place, axis in enumerate(wanted):
        if axis not in axes:
            value = value.unsqueeze(1 + place)
    return value


def _sum(terms: list[Tensor]) -> Tensor:
    """Sum of broadcastable terms in as few full-size tensors as possible: the result, and no more.

    Args:
        terms: from the smallest to the largest; the first broadcasts into all others.
    """
    if len(terms) < 3:
        return sum(terms[1:], terms[0])
    constant, small, *middle, largest = terms
    total = largest + (small + constant)
    for term in middle:
        total = _add(total, term)
    return total


def _add(total: Tensor, term: Tensor) -> Tensor:
    """Adds in place where the sum has the total's shape; ``total`` must be a fresh tensor."""
    if torch.broadcast_shapes(total.shape, term.shape) == total.shape:
        return total.add_(term)
    return total + term
