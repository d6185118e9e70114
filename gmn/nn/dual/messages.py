"""The messages of one layer: along the network for ``x``, against it for ``y``."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from gmn.nn.dual.activations import Activation
from gmn.nn.dual.contraction import mix
from gmn.nn.dual.plan import RANKS, DiagonalProduct, Plan, PowerMap, Product
from gmn.nn.dual.stream import SMALL, Blocks


@dataclass(frozen=True, eq=False)
class GraphReading:
    """Values of B networks in the form in which all layers read them.

    Attributes:
        plan: the plan of their spec.
        blocks: their edge sets.
        matrices: by edge set, the matrices of blocks that are not streamed.
        gains: what :class:`gmn.nn.dual.diagonals.Diagonals` makes of the plan's gains.
        vectors: of vectors.
        invariants: of edge sets that no symmetry changes.
    """

    plan: Plan
    blocks: Blocks
    matrices: dict[str, Tensor]
    gains: list[Tensor]
    vectors: list[Tensor]
    invariants: list[Tensor]

    @classmethod
    def of(cls, plan: Plan, blocks: Blocks) -> GraphReading:
        """Reads blocks."""
        return cls(
            plan,
            blocks,
            {
                step.edges.name: step.contraction.matrix(blocks[step.edges.name])
                for step in plan.products
                if step.edges.name not in blocks.streams
            },
            plan.gains.values(blocks),
            plan.vectors.values(blocks),
            plan.invariants.values(blocks),
        )


# Of a step, whether along the network, channels that are read, and a total that is added to.
Multiply = Callable[[Product, bool, Tensor, Tensor], Tensor]


class Codes(Protocol):
    """How the values of networks count in messages."""

    def vectors(self, reading: GraphReading) -> list[Tensor]:
        """What each vector adds to its neurons, (B, neurons, c)."""

    def products(self, reading: GraphReading) -> Multiply:
        """Adds to a total (B, neurons, c) what a product makes of channels, in a direction."""

    def gains(self, reading: GraphReading, along: bool) -> list[Tensor]:
        """The factors (B, neurons, ranks or 1) of each diagonal product, in that order."""


@dataclass(frozen=True)
class RankCodes:
    """How the values of a layer count in its messages.

    Attributes:
        table: for all taps, shape (taps, 2 ranks + c): how each rank of channels counts in messages
            along the network and against it, and what a value adds to the channels of its neuron.
        width: c, number of channels.
    """

    table: Tensor
    width: int

    def vectors(self, reading: GraphReading) -> list[Tensor]:
        """What each vector adds to its neurons, (B, neurons, c)."""
        return reading.plan.vectors.encoded(reading.vectors, self.table[:, 2 * RANKS :])

    def products(self, reading: GraphReading) -> Multiply:
        """With taps that weigh the ranks of channels; those of small kernels are mixed first."""
        plan = reading.plan
        mixed = {
            name: mix(matrix, self.table[first:last, : 2 * RANKS]).chunk(2)
            for name, matrix in reading.matrices.items()
            for first, last in [plan.taps[name]]
            if last - first > 1 and math.prod(matrix.shape[1:]) <= SMALL
        }
        codes = self._weights(plan, True), self._weights(plan, False)

        def multiply(step: Product, along: bool, channels: Tensor, total: Tensor) -> Tensor:
            contraction, name = step.contraction, step.edges.name
            if name in mixed:
                return contraction.mixed(mixed[name][not along], channels, total, along)
            code = codes[not along][name]
            if name in reading.matrices:
                return contraction.add(reading.matrices[name], code, channels, total, along)
            stream = reading.blocks.streams[name]
            return contraction.stream(stream, code, channels, total, along)

        return multiply

    def _weights(self, plan: Plan, along: bool) -> dict[str, Tensor]:
        """The codes (taps, c) of each product."""
        sizes = [step.edges.num_taps for step in plan.products]
        ranks = self.table[: sum(sizes), _ranks(along)].unsqueeze(2)
        wide = ranks.expand(-1, -1, self.width // RANKS).reshape(-1, self.width).split(sizes)
        names = [step.edges.name for step in plan.products]
        return dict(zip(names, wide, strict=True))

    def gains(self, reading: GraphReading, along: bool) -> list[Tensor]:
        """The factors (B, neurons, ranks) of each diagonal product, in the order of the plan."""
        return reading.plan.gains.encoded(reading.gains, self.table[:, _ranks(along)])


def messages(
    reading: GraphReading,
    codes: Codes,
    x: Sequence[Tensor],
    y: Sequence[Tensor],
    sweeps: bool,
    active: bool = False,
) -> tuple[list[Tensor], list[Tensor]]:
    """What neurons receive; in a sweep, with their own channels, and passed on at once.

    Active channels pass, along the network, the function of the neuron that they leave, as far as
    its symmetries let them (:mod:`gmn.nn.dual.activations`), and are multiplied by its derivative
    against it. With codes of one that is the network's own forward and backward pass.

    Args:
        reading: B networks.
        codes: how values count.
        x: by slot, channels that transform like the neurons, shape (B, neurons, c).
        y: channels that transform inversely.
        sweeps: whether messages cross the whole network, in its order, instead of one step each.
        active: whether channels pass all functions of neurons, or normalisations alone, which keep
            sums along a deep network bounded.

    Returns:
        Messages to ``x`` and ``y``, added to them in a sweep.
    """
    plan, channels = reading.plan, (x, y)
    totals = [list(v) if sweeps else list(map(torch.zeros_like, v)) for v in channels]
    for vector, values in zip(plan.slots.vectors, codes.vectors(reading), strict=True):
        of_port = totals[vector.port.dual]
        of_port[vector.port.slot] = of_port[vector.port.slot] + values
    sources = totals if sweeps else channels
    multiply = codes.products(reading)
    passed: list[Tensor | None] = []  # slopes and powers on the way, for the way back
    for along in (True, False):
        order = slice(None, None, 1 if along else -1)
        factors = iter(codes.gains(reading, along)[order])
        for step in plan.steps[order]:
            source, target = step.source, step.target
            if not along:
                source, target = target.inverse(), source.inverse()
            value, total = sources[source.dual][source.slot], totals[target.dual][target.slot]
            if isinstance(step, Product | DiagonalProduct):
                if along:
                    slope = None
                    activation = _activation(plan, step)
                    if activation is not None and (active or activation.normalises):
                        value, slope = activation.with_slope(value)
                    passed.append(slope)
                elif (slope := passed.pop()) is not None:
                    before, total = total, torch.zeros_like(total)
                if isinstance(step, Product):
                    total = multiply(step, along, value, total)
                else:
                    total = _plus_scaled(total, value, next(factors))
                if not along and slope is not None:
                    total = torch.addcmul(before, total, slope)
            elif not isinstance(step, PowerMap):
                total = total + (step.forward(value) if along else step.backward(value))
            elif along:
                passed.append(value)
                total = total + step.forward(value)
            else:
                power = passed.pop()
                assert power is not None
                total = total + step.backward(value, power)
            totals[target.dual][target.slot] = total
    return totals[False], totals[True]


def _activation(plan: Plan, step: Product | DiagonalProduct) -> Activation | None:
    """What the network does to values before it multiplies them."""
    if step.source.dual:
        return None
    if isinstance(step, DiagonalProduct):
        return step.before
    return plan.activations[step.source.slot]


def _ranks(along: bool) -> slice:
    return slice(RANKS) if along else slice(RANKS, 2 * RANKS)


def _plus_scaled(total: Tensor, channels: Tensor, factors: Tensor) -> Tensor:
    ranks = (factors.shape[-1], -1)
    scaled = total.unflatten(2, ranks).addcmul(channels.unflatten(2, ranks), factors.unsqueeze(3))
    return scaled.flatten(2)
