"""A network's own forward and backward pass on learned inputs, computed from its graph alone."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from gmn.features import Descriptions
from gmn.nn.dual.maps import PLACES, Maps, maps_of
from gmn.nn.dual.messages import GraphReading, Multiply, messages
from gmn.nn.dual.plan import DiagonalProduct, Plan, Product
from gmn.nn.dual.probes import ProbeEncoder, ProbeResponses
from gmn.nn.dual.slots import Port

WIDTH = 128  # of the functions that move inputs
SHARE = 4  # one of so many inputs is an image where there are maps: each is worth more, and work
LARGEST = 1e6  # outputs are cut there: squares of what they become would overflow


@dataclass(frozen=True)
class PassCodes:
    """Codes with which a sweep is the network's own pass: values count as they are.

    A neuron has a channel for every input and every place of its map.

    Attributes:
        maps: the maps.
        dtype: of the channels.
    """

    maps: Maps
    dtype: torch.dtype

    def vectors(self, reading: GraphReading) -> list[Tensor]:
        """Biases, and means with the sign with which networks take them away: (B, neurons, 1)."""
        plan = reading.plan
        values = plan.vectors.encoded(reading.vectors, plan.tap_shares.to(self.dtype))
        return [
            -value if item.edges.kind == "mean" else value
            for item, value in zip(plan.vectors.items, values, strict=True)
        ]

    def products(self, reading: GraphReading) -> Multiply:
        """Products with kernels as they are, at every place of a map."""
        counted: dict[str, list[Tensor]] = {}  # on the way, what each value counts in pooling

        def multiply(step: Product, along: bool, channels: Tensor, total: Tensor) -> Tensor:
            look = self.maps.looks[step.edges.name]
            if along:
                shares = counted[step.edges.name] = []
                for pool in look.pools:
                    channels, share = pool.with_shares(channels)
                    shares.append(share)
                seen = channels.unsqueeze(2) if look.window is None else look.window.look(channels)
                return _add_seen(reading, step, seen, total)
            seen = _back_seen(reading, step, channels, total)
            gradients = seen.squeeze(2) if look.window is None else look.window.back(seen)
            for pool, share in zip(look.pools[::-1], counted[step.edges.name][::-1], strict=True):
                gradients = pool.back(gradients, share)
            return total + gradients

        return multiply

    def gains(self, reading: GraphReading, along: bool) -> list[Tensor]:
        """Gains as they are, (B, neurons, 1); none between values and gradients."""
        plan = reading.plan
        factors = plan.gains.encoded(reading.gains, plan.tap_shares.to(self.dtype))
        steps = [step for step in plan.steps if isinstance(step, DiagonalProduct)]
        return [
            factor if step.source.dual == step.target.dual else torch.zeros_like(factor)
            for step, factor in zip(steps, factors, strict=True)
        ]


def _add_seen(reading: GraphReading, step: Product, seen: Tensor, total: Tensor) -> Tensor:
    """Adds what a product makes of what its kernel sees, (B, neurons, taps, c)."""
    contraction, name = step.contraction, step.edges.name
    if name in reading.matrices:
        return contraction.add_seen(reading.matrices[name], seen, total)
    stream = reading.blocks.streams[name]
    batch = len(stream.values)
    total, seen = total.expand(batch, -1, -1), seen.expand(batch, -1, -1, -1)
    for code, shown in zip(_each_tap(step, total), seen.unbind(2), strict=True):
        total = contraction.stream(stream, code, shown, total, True)
    return total


def _back_seen(reading: GraphReading, step: Product, channels: Tensor, total: Tensor) -> Tensor:
    """What each tap of a kernel gets, shape (B, neurons, taps, c), with the neurons of a total."""
    contraction, name = step.contraction, step.edges.name
    if name in reading.matrices:
        return contraction.back_seen(reading.matrices[name], step.edges.num_taps, channels)
    stream = reading.blocks.streams[name]
    none = channels.new_zeros(len(channels), total.shape[1], channels.shape[2])
    parts = [
        contraction.stream(stream, code, channels, none, False)
        for code in _each_tap(step, channels)
    ]
    return torch.stack(parts, dim=2)


def _each_tap(step: Product, channels: Tensor) -> Iterator[Tensor]:
    """For each tap the code (taps, c) of that tap alone."""
    for code in torch.eye(step.edges.num_taps).to(channels):
        yield code.unsqueeze(1).expand(-1, channels.shape[2])


class Passes(nn.Module):
    """Adds to the states what every neuron makes of learned inputs, and the gradients it gets.

    The inputs run forward through the network, learned cotangents of its outputs backward, each in
    a channel of its own, as :func:`gmn.nn.dual.messages.messages` with the neurons' own functions.
    For chains of layers, linear or convolutions of zero-padded maps, with pooling, these are the
    network's values and gradients on images of few places (:mod:`gmn.nn.dual.maps`). One input in
    four is an image, of which the states get the mean over places, and the sum of gradients.
    Attention gives the values as they are, and what the library does not understand passes
    unchanged.

    Args:
        hidden: channels of node states.
        count: number of inputs, and of cotangents.
        descriptions: describes neurons; inputs are functions of what it says.
    """

    def __init__(self, hidden: int, count: int, descriptions: Descriptions) -> None:
        super().__init__()
        self.descriptions = descriptions
        self.inputs = Spread(descriptions.node_channels + PLACES, count)
        self.cotangents = Spread(descriptions.node_channels, count)
        self.encoder = ProbeEncoder(hidden, count, descriptions)
        self.slopes = nn.Linear(count, hidden // 2, bias=False)

    def forward(
        self, reading: GraphReading, x: Tensor, y: Tensor, h: Tensor, summary: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Shapes as those of DualGMN's states."""
        answers, gradients = self.run(reading, len(x))
        x, y, h, summary = self.encoder(reading.plan, answers, x, y, h, summary)
        return x, y + self.slopes(gradients), h, summary

    def run(self, reading: GraphReading, batch: int) -> tuple[ProbeResponses, Tensor]:
        """Values of all neurons of B networks, and the gradients (B, rows, count) they get."""
        plan = reading.plan
        maps, rows = maps_of(plan), self._described(plan)
        ends = [self._ends(plan, maps, slot, rows[slot], batch) for slot in range(len(rows))]
        x, y = map(list, zip(*ends, strict=True))
        codes = PassCodes(maps, self.slopes.weight.dtype)
        x, y = messages(reading, codes, x, y, sweeps=True, active=True)
        hidden, output = [], []
        for slot, (of, values) in enumerate(zip(plan.slots.slots, x, strict=True)):
            if plan.is_free(of, "output"):
                values = values.clamp(-LARGEST, LARGEST)
                output.append((of.nodes, self._means(maps.places(slot), values)))
            else:
                act = plan.activations[slot]
                values = values if act is None else act(values)
                hidden.append((Port(slot, False), self._means(maps.places(slot), values)))
        places = map(maps.places, range(len(y)))
        slopes = [self._means(n, values) * n for n, values in zip(places, y, strict=True)]
        return ProbeResponses(tuple(hidden), tuple(output)), torch.cat(slopes, dim=1)

    def _images(self, plan: Plan, maps: Maps) -> int:
        """How many inputs run through networks with these maps."""
        count, slots = self.slopes.in_features, enumerate(plan.slots.slots)
        inner = (slot for slot, of in slots if not plan.is_free(of, "input"))
        return max(count // SHARE, 1) if max(map(maps.places, inner), default=1) > 1 else count

    def _means(self, places: int, values: Tensor) -> Tensor:
        """Over the places of a map: from (B, neurons, places * images) to (B, neurons, count)."""
        means = values.unflatten(2, (places, -1)).mean(2)
        return functional.pad(means, (0, self.slopes.in_features - means.shape[2]))

    def _described(self, plan: Plan) -> tuple[Tensor, ...]:
        described = self.descriptions.nodes(plan.spec).to(self.slopes.weight)
        return plan.split(plan.to_rows(described.unsqueeze(0)))

    def _ends(
        self, plan: Plan, maps: Maps, slot: int, described: Tensor, batch: int
    ) -> tuple[Tensor, Tensor]:
        """Learned inputs and cotangents of a slot, shape (B, neurons, places * count).

        Inputs have B = 1: all networks see the same.
        """
        places, images, of = maps.places(slot), self._images(plan, maps), plan.slots.slots[slot]
        x = y = described.new_zeros(1, described.shape[1], places * images)
        if plan.is_free(of, "output"):
            y = (self.cotangents(described)[..., :images] / places).repeat(1, 1, places)
        y = y.expand(batch, -1, -1)
        if not plan.is_free(of, "input"):
            return x.expand(batch, -1, -1), y
        pixels = functional.one_hot(maps.image(slot), PLACES).to(described) * (places > 1)
        ends = described.unsqueeze(2), pixels[None, None]
        shape = (*described.shape[:2], places, -1)
        values = self.inputs(torch.cat([end.expand(shape) for end in ends], dim=-1))
        return values[..., :images].flatten(2), y


class Spread(nn.Module):
    """Learned numbers for what is described: at first spread over [-1, 1], and fast to move.

    Args:
        described: size of a description.
        count: how many numbers.
    """

    directions: Tensor
    phases: Tensor

    def __init__(self, described: int, count: int) -> None:
        super().__init__()
        self.register_buffer("directions", torch.randn(described, count))
        self.register_buffer("phases", 2 * math.pi * torch.rand(count))
        last = nn.Linear(WIDTH, count, bias=False)
        nn.init.zeros_(last.weight)
        self.moves = nn.Sequential(nn.Linear(described, WIDTH), nn.SiLU(), last)

    def forward(self, described: Tensor) -> Tensor:
        """From (..., described) to (..., count)."""
        return (described @ self.directions + self.phases).sin() + self.moves(described)
