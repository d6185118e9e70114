"""Probes: learned inputs on which a metanetwork runs the networks it reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gmn.errors import ArgumentError
from gmn.features import Descriptions
from gmn.foundation.arguments import require_type, require_whole
from gmn.graph import ParameterGraph
from gmn.graph.required import require_spec
from gmn.nn.dual.plan import Plan
from gmn.nn.dual.slots import Port
from gmn.spec import GraphSpec
from gmn.spec.program import DEFAULT, Observation, Program, ProgramError

# Adam moves every parameter equally fast, but good probes are further from their initial values
# than good weights are. So probes move faster, by this factor times the square root of the size of
# one probe (tuned on images of 196 pixels and on coordinates of 2 dimensions).
SPEED = 2.0


@dataclass(frozen=True)
class ProbeResponses:
    """Activations and outputs of B networks for k probes.

    Attributes:
        hidden: by port, the values (B, neurons, k) of its neurons, means over positions; they
            transform like the channels of the port.
        output: by node set of the outputs, their values (B, neurons, k).
    """

    hidden: tuple[tuple[Port, Tensor], ...]
    output: tuple[tuple[str, Tensor], ...]


class Probes(nn.Module):
    """Learned inputs, and the values of every neuron for them.

    A forward pass on chosen inputs shows what the weights compute: values of hidden neurons
    transform like the neurons, outputs are invariant. Floating-point inputs are learned, integers
    (tokens) stay what they are. Probes fit every architecture with inputs of their shape.

    Args:
        initial: for each input of the network, its initial values for k probes, shape (k, *shape)
            with the shape of the example that the network was traced with. Trace with a batch of
            one, so that each probe has outputs of its own.

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
        for index, values in enumerate(initial):
            self.register_buffer(f"start{index}", values.clone())
            if values.is_floating_point():
                self.moves[str(index)] = nn.Parameter(torch.zeros_like(values))
        self._num_inputs = len(initial)

    @classmethod
    def like(cls, spec: GraphSpec, count: int) -> Probes:
        """Random probes for the networks of a spec: uniform in [-1, 1].

        Raises:
            ProgramError: if the spec has no program, or inputs that are not floating-point numbers.
        """
        require_spec("spec", spec)
        require_whole("count", count, 1)
        program = spec.program
        if program is None or any(example.dtype != DEFAULT for example in program.inputs):
            raise ProgramError(
                "random probes need a spec with a program that takes floating-point inputs; pass "
                "probes of your own to gmn.nn.Probes, or use a metanetwork without"
            )
        return cls(*(2 * torch.rand(count, *example.shape) - 1 for example in program.inputs))

    def inputs(self) -> list[Tensor]:
        """The probes as they are now, one tensor (k, *shape) per input of the network."""
        probes = []
        for index in range(self._num_inputs):
            start: Tensor = getattr(self, f"start{index}")
            if start.is_floating_point():
                start = start + SPEED * start[0].numel() ** 0.5 * self.moves[str(index)]
            probes.append(start)
        return probes

    def forward(self, graph: ParameterGraph, plan: Plan) -> ProbeResponses:
        """Runs B networks on all probes.

        Raises:
            ProgramError: if the spec has no program, or takes inputs of another shape.
        """
        observed = self._observed(graph, program_of(graph.spec).observations)
        return ProbeResponses(
            hidden=tuple(
                (plan.readers[observation.reader], values)
                for observation, values in observed
                if observation.reader in plan.readers
            ),
            output=tuple(
                (observation.nodes, values)
                for observation, values in observed
                if observation.reader is None
            ),
        )

    def answers(self, graph: ParameterGraph) -> list[Tensor]:
        """The outputs of B networks for all probes: for each output, shape (B, values, k).

        Raises:
            ProgramError: if the spec has no program, or takes inputs of another shape.
        """
        return [values for _, values in self._observed(graph, program_of(graph.spec).outputs)]

    def _observed(
        self, graph: ParameterGraph, observations: Sequence[Observation]
    ) -> list[tuple[Observation, Tensor]]:
        observed = program_of(graph.spec).observe(graph.values, self.inputs(), observations)
        return [
            (observation, _per_neuron(values))
            for observation, values in zip(observations, observed, strict=True)
        ]


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


class ProbeEncoder(nn.Module):
    """Adds responses to probes to the states of a metanetwork.

    Values of hidden neurons are added to the channels that transform like them. Outputs ``a_o``, as
    they are and as log-probabilities over the node set, become states of its neurons and one
    summary ``Σ_o (L a_o) ⊙ (D c_o)``, with ``c_o`` the description of output ``o``: any linear
    function of all outputs, so that probing alone is a special case.

    Args:
        hidden: channels of node states; ``x`` and ``y`` have half as many.
        probes: number of probes.
        descriptions: describes the neurons of outputs.
    """

    def __init__(self, hidden: int, probes: int, descriptions: Descriptions) -> None:
        super().__init__()
        self.descriptions = descriptions
        self.channels = nn.Linear(probes, hidden // 2, bias=False)
        wide = 4 * hidden  # as wide as a model that reads probes alone
        self.about = nn.Linear(descriptions.node_channels, wide)
        self.table = nn.Linear(2 * probes, wide)
        self.nodes = nn.Sequential(nn.SiLU(), nn.Linear(wide, hidden))
        self.summary = nn.Sequential(
            nn.LayerNorm(wide), nn.Linear(wide, wide), nn.SiLU(), nn.Linear(wide, hidden)
        )

    def forward(
        self, plan: Plan, answers: ProbeResponses, x: Tensor, y: Tensor, h: Tensor, summary: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Adds the responses; shapes as those of DualGMN's states."""
        parts = {False: list(plan.split(x)), True: list(plan.split(y))}
        for port, values in answers.hidden:
            parts[port.dual][port.slot] = parts[port.dual][port.slot] + self.channels(values)
        descriptions = self.about(self.descriptions.nodes(plan.spec).to(h))
        for nodes, values in answers.output:
            first, last = plan.span(nodes)
            embedded = self.table(torch.cat([values, values.log_softmax(dim=1)], dim=-1))
            embedded = embedded * descriptions[first:last]
            h = h + nn.functional.pad(self.nodes(embedded), (0, 0, first, h.shape[1] - last))
            summary = summary + self.summary(embedded.mean(dim=1))
        return torch.cat(parts[False], dim=1), torch.cat(parts[True], dim=1), h, summary


def _per_neuron(values: Tensor) -> Tensor:
    """From (B, k, positions, neurons) to means over positions (B, neurons, k)."""
    return values.mean(dim=2).transpose(1, 2)
