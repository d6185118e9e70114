"""The messages of one layer: along the network for ``x``, against it for ``y``."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

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

    def mixed(self, codes: Tensor) -> dict[str, tuple[Tensor, ...]]:
        """Small kernels with their taps mixed by a layer's codes, along and against the network."""
        found = {}
        for name, matrix in self.matrices.items():
            first, last = self.plan.taps[name]
            if last - first > 1 and math.prod(matrix.shape[1:]) <= SMALL:
                found[name] = mix(matrix, codes[first:last, : 2 * RANKS]).chunk(2)
        return found

    def multiply(
        self,
        step: Product,
        along: bool,
        mixed: Mapping[str, tuple[Tensor, ...]],
        code: Tensor,
        channels: Tensor,
        total: Tensor,
    ) -> Tensor:
        """Adds the messages of a block to a total, in either direction."""
        contraction, name = step.contraction, step.edges.name
        if name in mixed:
            return contraction.mixed(mixed[name][not along], channels, total, along)
        if name in self.matrices:
            return contraction.add(self.matrices[name], code, channels, total, along)
        return contraction.stream(self.blocks.streams[name], code, channels, total, along)


def messages(
    reading: GraphReading, codes: Tensor, x: Tensor, y: Tensor, sweeps: bool
) -> tuple[Tensor, Tensor]:
    """What neurons receive; in a sweep, with their own channels, and passed on at once.

    Args:
        reading: B networks.
        codes: of all taps, shape (taps, 2 ranks + c): how each rank of channels counts in messages
            along the network and against it, and what a value adds to the channels of its neuron.
        x: channels that transform like the neurons, shape (B, rows, c).
        y: channels that transform inversely.
        sweeps: whether messages cross the whole network, in its order, instead of one step each.

    Returns:
        Messages to ``x`` and ``y``, added to them in a sweep.
    """
    plan = reading.plan
    channels = [list(plan.split(values)) for values in (x, y)]
    totals = [list(plan.split(values if sweeps else torch.zeros_like(values))) for values in (x, y)]
    added = plan.vectors.encoded(reading.vectors, codes[:, 2 * RANKS :])
    for vector, values in zip(plan.slots.vectors, added, strict=True):
        of_port = totals[vector.port.dual]
        of_port[vector.port.slot] = of_port[vector.port.slot] + values
    sources = totals if sweeps else channels
    mixed = reading.mixed(codes)
    powers: list[Tensor] = []
    for along in (True, False):
        weights, factors = _weights(plan, codes, along, x.shape[-1]), _gains(reading, codes, along)
        for step in plan.steps if along else reversed(plan.steps):
            source, target = step.source, step.target
            if not along:
                source, target = target.inverse(), source.inverse()
            value, total = sources[source.dual][source.slot], totals[target.dual][target.slot]
            if isinstance(step, Product):
                total = reading.multiply(step, along, mixed, next(weights), value, total)
            elif isinstance(step, DiagonalProduct):
                total = _plus_scaled(total, value, next(factors))
            elif not isinstance(step, PowerMap):
                total = total + (step.forward(value) if along else step.backward(value))
            elif along:
                powers.append(value)
                total = total + step.forward(value)
            else:
                total = total + step.backward(value, powers.pop())
            totals[target.dual][target.slot] = total
    return torch.cat(totals[False], dim=1), torch.cat(totals[True], dim=1)


def _weights(plan: Plan, codes: Tensor, along: bool, width: int) -> Iterator[Tensor]:
    """The codes (taps, c) of each product, in the order of the steps."""
    sizes = [step.edges.num_taps for step in plan.products]
    ranks = codes[: sum(sizes), _ranks(along)].unsqueeze(2)
    wide = ranks.expand(-1, -1, width // RANKS).reshape(-1, width)
    return iter(wide.split(sizes) if along else wide.split(sizes)[::-1])


def _gains(reading: GraphReading, codes: Tensor, along: bool) -> Iterator[Tensor]:
    """The factors (B, neurons, ranks) of each diagonal product, in the order of the steps."""
    factors = reading.plan.gains.encoded(reading.gains, codes[:, _ranks(along)])
    return iter(factors if along else factors[::-1])


def _ranks(along: bool) -> slice:
    return slice(RANKS) if along else slice(RANKS, 2 * RANKS)


def _plus_scaled(total: Tensor, channels: Tensor, factors: Tensor) -> Tensor:
    ranks = (RANKS, -1)
    scaled = total.unflatten(2, ranks).addcmul(channels.unflatten(2, ranks), factors.unsqueeze(3))
    return scaled.flatten(2)
