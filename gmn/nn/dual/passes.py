"""A network's own forward and backward pass on learned inputs, computed from its graph alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from gmn import features
from gmn.features import Descriptions
from gmn.nn.dual.messages import GraphReading, Multiply, messages
from gmn.nn.dual.plan import DiagonalProduct, Plan, Product
from gmn.nn.dual.probes import ProbeEncoder, ProbeResponses
from gmn.nn.dual.slots import Port

WIDTH = 128  # of the functions that move inputs
LARGEST = 1e6  # outputs are cut there: squares of what they become would overflow


@dataclass(frozen=True)
class PassCodes:
    """Codes with which a sweep is the network's own pass: values count as they are.

    A kernel sees at each tap the value of another channel, so that the channels of a neuron are
    its values at many places of a map. The first kernels see learned inputs.

    Attributes:
        inputs: by edge set that reads inputs through a kernel, what it sees, shape
            (neurons, taps, c).
        dtype: of the channels.
    """

    inputs: Mapping[str, Tensor]
    dtype: torch.dtype

    def vectors(self, reading: GraphReading) -> list[Tensor]:
        """Biases, and means with the sign with which networks take them away: (B, neurons, 1)."""
        plan = reading.plan
        values = plan.vectors.encoded(reading.vectors, plan.tap_shares.to(self.dtype))
        return [
            -value if item.edges.kind == "mean" else value
            for item, value in zip(plan.vectors.items, values, strict=True)
        ]

    def products(self, reading: GraphReading, width: int) -> Multiply:
        """Products with kernels as they are."""

        def multiply(step: Product, along: bool, channels: Tensor, total: Tensor) -> Tensor:
            contraction, name, taps = step.contraction, step.edges.name, step.edges.num_taps
            seen = self.inputs.get(name) if along else None
            if name not in reading.matrices:
                stream = reading.blocks.streams[name]
                for tap, shown in enumerate(_shown(channels, seen, taps, along)):
                    code = functional.one_hot(torch.tensor(tap), taps).to(shown)
                    code = code.unsqueeze(1).expand(taps, width)
                    total = contraction.stream(stream, code, shown, total, along)
                return total
            if seen is not None:
                return contraction.add_inputs(reading.matrices[name], seen, total)
            return contraction.add_patches(reading.matrices[name], taps, channels, total, along)

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


def _shown(channels: Tensor, seen: Tensor | None, taps: int, along: bool) -> Iterator[Tensor]:
    """What each tap of a kernel reads: inputs, or another channel; shape (B, neurons, c)."""
    for tap in range(taps):
        if seen is None:
            yield channels.roll(-tap if along else tap, dims=2)
        else:
            yield seen[:, tap].expand(len(channels), -1, -1)


class Passes(nn.Module):
    """Adds to the states what every neuron makes of learned inputs, and the gradients it gets.

    The inputs run forward through the network, learned cotangents of its outputs backward, each in
    a channel of its own, as :func:`gmn.nn.dual.messages.messages` with the neurons' own functions.
    For chains of linear layers these are the network's values and gradients; kernels see values of
    other channels instead of a map's, attention gives the values as they are, and what the library
    does not understand passes unchanged.

    Args:
        hidden: channels of node states.
        count: number of inputs, and of cotangents.
        descriptions: describes neurons; inputs are functions of what it says.
    """

    def __init__(self, hidden: int, count: int, descriptions: Descriptions) -> None:
        super().__init__()
        self.descriptions = descriptions
        self.inputs = Spread(descriptions.node_channels + features.TAP_FEATURES, count)
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
        described = self.descriptions.nodes(plan.spec).to(self.slopes.weight)
        rows = plan.to_rows(described.unsqueeze(0))
        inputs = self.inputs(functional.pad(rows, (0, features.TAP_FEATURES)))
        x = inputs * plan.free_inputs.to(inputs)
        y = self.cotangents(rows) * plan.free_outputs.to(inputs)
        x, y = x.expand(batch, -1, -1), y.expand(batch, -1, -1)
        codes = PassCodes(self._seen(plan, described), described.dtype)
        x, y = messages(reading, codes, x, y, sweeps=True, active=True)
        hidden, output = [], []
        for slot, (of, values) in enumerate(zip(plan.slots.slots, plan.split(x), strict=True)):
            if plan.is_free(of, "output"):
                output.append((of.nodes, values.clamp(-LARGEST, LARGEST)))
            else:
                act = plan.activations[slot]
                hidden.append((Port(slot, False), values if act is None else act(values)))
        return ProbeResponses(tuple(hidden), tuple(output)), y

    def _seen(self, plan: Plan, described: Tensor) -> dict[str, Tensor]:
        """What kernels see that read inputs: by edge set, shape (neurons, taps, count)."""
        seen = {}
        for step in plan.products:
            source = plan.slots.slots[step.source.slot]
            if step.edges.num_taps == 1 or step.source.dual or not plan.is_free(source, "input"):
                continue
            nodes = described[slice(*plan.span(source.nodes))]
            taps = features.tap_descriptions(step.edges).to(nodes)
            shape = (len(nodes), len(taps), -1)
            ends = nodes.unsqueeze(1).expand(shape), taps.unsqueeze(0).expand(shape)
            seen[step.edges.name] = self.inputs(torch.cat(ends, dim=-1))
        return seen


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
