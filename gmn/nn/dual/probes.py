"""Probes: inputs that a metanetwork learns to put to the networks it reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gmn.arguments import require_type, require_whole
from gmn.errors import ArgumentError
from gmn.features import Descriptions
from gmn.graph import ParameterGraph
from gmn.graph.required import require_spec
from gmn.nn.dual.plan import Plan
from gmn.nn.dual.slots import Port
from gmn.program import DEFAULT, Observation, Program, ProgramError
from gmn.spec import GraphSpec

# Optimisers of Adam's kind move every parameter equally fast, but what makes a good question lies
# further away than what makes a good weight: probes move faster, by so many times the square root
# of the numbers in one probe (found on images of 196 numbers and coordinates of 2).
SPEED = 2.0


@dataclass(frozen=True)
class Answers:
    """What B networks made of k probes.

    Attributes:
        hidden: by port, the values (B, neurons, k) of its neurons, means over places; they
            transform like the channels of the port.
        output: by node set of the outputs, their values (B, neurons, k).
    """

    hidden: tuple[tuple[Port, Tensor], ...]
    output: tuple[tuple[str, Tensor], ...]


class Probes(nn.Module):
    """Learned inputs, and every neuron's answer to them.

    A network's forward pass on chosen inputs tells what its weights mean: the answers of hidden
    neurons transform like the neurons, those of outputs do not transform at all. Floating-point
    inputs are learned, integers (tokens) stay what they are. Probes fit every architecture with
    inputs of their shape.

    Args:
        initial: per input of the network, k values of the shape of the example it was traced with:
            (k, *shape). Trace with a batch of one, so that each probe has answers of its own.

    Attributes:
        count: k, the number of probes.

    Source: probing as in Herrmann et al. (2024) and Kahana et al. (ProbeGen, 2025), on
    every neuron instead of the outputs alone, and Neural Graphs' probe features (Kofinas et al.,
    2024) for any traced network.
    """

    def __init__(self, *initial: Tensor) -> None:
        super().__init__()
        for values in initial:
            require_type("an argument of Probes", values, Tensor, "tensors, one per input")
        if not all(values.dim() and len(values) for values in initial):
            raise ArgumentError("probes have shape (k, *shape of the example), with k at least 1")
        if not initial or len({len(values) for values in initial}) != 1:
            raise ValueError("probes need one tensor per input of the network, all of length k")
        self.count = len(initial[0])
        self.moves = nn.ParameterDict()
        for number, values in enumerate(initial):
            self.register_buffer(f"start{number}", values.clone())
            if values.is_floating_point():
                self.moves[str(number)] = nn.Parameter(torch.zeros_like(values))
        self._number = len(initial)

    @classmethod
    def like(cls, spec: GraphSpec, count: int) -> Probes:
        """Random probes for the networks of a spec: uniform in [-1, 1].

        Raises:
            ProgramError: if the spec has no program, or inputs that are not floating-point numbers.
        """
        require_spec("spec", spec)
        require_whole("count", count, 1)
        program = spec.program
        if program is None or any(given.dtype != DEFAULT for given in program.inputs):
            raise ProgramError(
                "random probes need a spec with a program that takes floating-point inputs; pass "
                "probes of your own to gmn.nn.Probes, or use a metanetwork without"
            )
        return cls(*(2 * torch.rand(count, *given.shape) - 1 for given in program.inputs))

    def inputs(self) -> list[Tensor]:
        """The probes as they are now, one tensor (k, *shape) per input of the network."""
        found = []
        for number in range(self._number):
            start: Tensor = getattr(self, f"start{number}")
            if start.is_floating_point():
                start = start + SPEED * start[0].numel() ** 0.5 * self.moves[str(number)]
            found.append(start)
        return found

    def forward(self, graph: ParameterGraph, plan: Plan) -> Answers:
        """Runs B networks on all probes.

        Raises:
            ProgramError: if the spec has no program, or takes inputs of another shape.
        """
        seen = self._seen(graph, program_of(graph.spec).observations)
        return Answers(
            hidden=tuple(
                (plan.readers[observation.reader], values)
                for observation, values in seen
                if observation.reader in plan.readers
            ),
            output=tuple((one.nodes, values) for one, values in seen if one.reader is None),
        )

    def answers(self, graph: ParameterGraph) -> list[Tensor]:
        """What B networks answer, and nothing of how: by output, shape (B, numbers, k).

        Raises:
            ProgramError: if the spec has no program, or takes inputs of another shape.
        """
        return [values for _, values in self._seen(graph, program_of(graph.spec).outputs)]

    def _seen(
        self, graph: ParameterGraph, observations: Sequence[Observation]
    ) -> list[tuple[Observation, Tensor]]:
        seen = program_of(graph.spec).observe(graph.values, self.inputs(), observations)
        return [(one, _per_neuron(values)) for one, values in zip(observations, seen, strict=True)]


def program_of(spec: GraphSpec) -> Program:
    """The program of a spec.

    Raises:
        ProgramError: if it has none.
    """
    if spec.program is None:
        raise ProgramError(
            "the spec has no program, so its networks cannot be run: trace the module again, "
            "or use a metanetwork without probes"
        )
    return spec.program


class Listening(nn.Module):
    """Takes answers to probes into the states of a metanetwork.

    Answers of hidden neurons join the channels that transform like them. Those of the outputs, as
    they are and as log-probabilities over the node set, become states of its neurons and one
    summary ``Σ_o (L a_o) ⊙ (D c_o)``, with ``c_o`` the description of output ``o``: any linear
    function of the whole table of answers, so that probing alone is a special case.

    Args:
        hidden: channels of node states; ``x`` and ``y`` have half as many.
        probes: number of probes.
        descriptions: what the outputs are.
    """

    def __init__(self, hidden: int, probes: int, descriptions: Descriptions) -> None:
        super().__init__()
        self.descriptions = descriptions
        self.channels = nn.Linear(probes, hidden // 2, bias=False)
        wide = 4 * hidden  # as many numbers as probing alone would read
        self.about = nn.Linear(descriptions.node_channels, wide)
        self.table = nn.Linear(2 * probes, wide)
        self.nodes = nn.Sequential(nn.SiLU(), nn.Linear(wide, hidden))
        self.summary = nn.Sequential(
            nn.LayerNorm(wide), nn.Linear(wide, wide), nn.SiLU(), nn.Linear(wide, hidden)
        )

    def forward(
        self, plan: Plan, answers: Answers, x: Tensor, y: Tensor, h: Tensor, summary: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Adds what was heard; shapes as those of DualGMN's states."""
        parts = {False: list(plan.split(x)), True: list(plan.split(y))}
        for port, values in answers.hidden:
            parts[port.dual][port.slot] = parts[port.dual][port.slot] + self.channels(values)
        about = self.about(self.descriptions.nodes(plan.spec).to(h))
        for nodes, values in answers.output:
            first, last = plan.span(nodes)
            heard = self.table(torch.cat([values, values.log_softmax(dim=1)], dim=-1))
            heard = heard * about[first:last]
            h = h + nn.functional.pad(self.nodes(heard), (0, 0, first, h.shape[1] - last))
            summary = summary + self.summary(heard.mean(dim=1))
        return torch.cat(parts[False], dim=1), torch.cat(parts[True], dim=1), h, summary


def _per_neuron(values: Tensor) -> Tensor:
    """From (B, k, places, neurons) to means over places (B, neurons, k)."""
    return values.mean(dim=2).transpose(1, 2)
