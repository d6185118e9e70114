"""Probes: learned inputs on which a metanetwork runs the networks it reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

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
from gmn.spec.gradients import gradients
from gmn.spec.program import DEFAULT, Program, ProgramError

# Adam moves every parameter equally fast, but good probes are further from their initial values
# than good weights are. So probes move faster, by this factor times the square root of the size of
# one probe (tuned on images of 196 pixels and on coordinates of 2 dimensions).
SPEED = 2.0

# Of the values of the program's outputs, each (B, k, places, neurons), a loss (B, k).
Loss: TypeAlias = Callable[[list[Tensor]], Tensor]


@dataclass(frozen=True)
class ProbeResponses:
    """Activations and outputs of B networks for k probes.

    Attributes:
        hidden: by port, the values (B, neurons, k) of its neurons, means over positions; they
            transform like the channels of the port.
        output: by node set of the outputs, their values (B, neurons, k).
        slopes: by port, gradients (B, neurons, k) by the values of its inverse, sums over
            positions; they transform like the channels of the port.
    """

    hidden: tuple[tuple[Port, Tensor], ...]
    output: tuple[tuple[str, Tensor], ...]
    slopes: tuple[tuple[Port, Tensor], ...] = ()


class Learned(nn.Module):
    """Tensors for k probes that are learned, fast; integers stay what they are.

    Args:
        initial: the values at first, each of shape (k, *shape).
    """

    def __init__(self, *initial: Tensor) -> None:
        super().__init__()
        for values in initial:
            require_type(
                "an argument of Probes", values, Tensor, "tensors, one per input or output"
            )
        if not all(values.dim() and len(values) for values in initial):
            raise ArgumentError("probes have shape (k, *shape of the example), with k at least 1")
        self.moves = nn.ParameterDict()
        for index, values in enumerate(initial):
            self.register_buffer(f"start{index}", values.clone())
            if values.is_floating_point():
                self.moves[str(index)] = nn.Parameter(torch.zeros_like(values))
        self._number = len(initial)

    def now(self) -> list[Tensor]:
        """The tensors as they are now."""
        tensors = []
        for index in range(self._number):
            start: Tensor = getattr(self, f"start{index}")
            if start.is_floating_point():
                start = start + SPEED * start[0].numel() ** 0.5 * self.moves[str(index)]
            tensors.append(start)
        return tensors


class Probes(Learned):
    """Learned inputs, and the values of every neuron for them.

    A forward pass on chosen inputs shows what the weights compute: values of hidden neurons
    transform like the neurons, outputs are invariant. Floating-point inputs are learned, integers
    (tokens) stay what they are. Probes fit every architecture with inputs of their shape.

    A backward pass from the outputs shows what the neurons are good for: the gradients by their
    values, which transform inversely. It begins with learned cotangents of the outputs, or with a
    loss of yours, on learned inputs or, with ``requires_grad_(False)``, on given ones.

    Args:
        initial: for each input of the network, its initial values for k probes, shape (k, *shape)
            with the shape of the example that the network was traced with. Trace with a batch of
            one, so that each probe has outputs of its own.
        cotangents: for each output of the program, initial values for k probes, shape
            (k, places, neurons); or a function of the outputs (B, k, places, neurons) that gives
            the loss (B, k) to differentiate; None for no backward pass.

    Attributes:
        count: k, the number of probes.

    Source: probing as in Herrmann et al. (2024) and Kahana et al. (ProbeGen, 2025), on
    every neuron instead of the outputs alone, and Neural Graphs' probe features (Kofinas et al.,
    2024) for any traced network; gradients as in Gelberg et al. (GradMetaNet, 2025).
    """

    def __init__(self, *initial: Tensor, cotangents: Sequence[Tensor] | Loss | None = None) -> None:
        super().__init__(*initial)
        if cotangents is not None and not callable(cotangents):
            way_out = "tensors, one per output, or a loss; Probes.like(spec, k, True) makes tensors"
            require_type("cotangents", cotangents, (list, tuple), way_out)
        learned = () if cotangents is None or callable(cotangents) else tuple(cotangents)
        if not initial or len({len(values) for values in (*initial, *learned)}) != 1:
            raise ValueError(
                "probes need one tensor per input of the network, and cotangents one per output, "
                "all of length k"
            )
        self.count = len(initial[0])
        self.cotangents = Learned(*learned) if learned else None
        self._loss = cotangents if callable(cotangents) else None

    @property
    def backward(self) -> bool:
        """Whether they ask for gradients, too."""
        return self.cotangents is not None or self._loss is not None

    @classmethod
    def like(cls, spec: GraphSpec, count: int, cotangents: bool | Loss = False) -> Probes:
        """Random probes for the networks of a spec: uniform in [-1, 1].

        Args:
            spec: the architecture.
            count: how many.
            cotangents: True for a backward pass from random cotangents, or a loss of your own.

        Raises:
            ProgramError: if the spec has no program, or inputs that are not floating-point numbers.
        """
        require_spec("spec", spec)
        require_whole("count", count, 1)
        if not callable(cotangents):
            require_type("cotangents", cotangents, bool, "True, False or a loss")
        program = spec.program
        if program is None or any(example.dtype != DEFAULT for example in program.inputs):
            raise ProgramError(
                "random probes need a spec with a program that takes floating-point inputs; pass "
                "probes of your own to gmn.nn.Probes, or use a metanetwork without"
            )
        initial = [_uniform(count, *example.shape) for example in program.inputs]
        if callable(cotangents):
            return cls(*initial, cotangents=cotangents)
        outputs = [_uniform(count, *one.shape) for one in program.outputs] if cotangents else None
        return cls(*initial, cotangents=outputs)

    def inputs(self) -> list[Tensor]:
        """The probes as they are now, one tensor (k, *shape) per input of the network."""
        return self.now()

    def forward(self, graph: ParameterGraph, plan: Plan) -> ProbeResponses:
        """Runs B networks on all probes.

        Raises:
            ProgramError: if the spec has no program, or takes inputs of another shape.
        """
        program, slopes = program_of(graph.spec), None
        if self.backward:
            values, slopes = gradients(program, graph.values, self.inputs(), self._objective)
        else:
            values = program.observe(graph.values, self.inputs())
        hidden, output, inverse = [], [], []
        for index, one in enumerate(program.observations):
            if one.reader is None:
                output.append((one.nodes, _means(values[index])))
            elif port := plan.readers.get(one.reader):
                hidden.append((port, _means(values[index])))
                if slopes is not None:
                    inverse.append((port.inverse(), slopes[index].sum(dim=2).transpose(1, 2)))
        return ProbeResponses(tuple(hidden), tuple(output), tuple(inverse))

    def answers(self, graph: ParameterGraph) -> list[Tensor]:
        """The outputs of B networks for all probes: for each output, shape (B, values, k).

        Raises:
            ProgramError: if the spec has no program, or takes inputs of another shape.
        """
        program = program_of(graph.spec)
        outputs = program.observe(graph.values, self.inputs(), program.outputs)
        return [_means(value) for value in outputs]

    def _objective(self, outputs: list[Tensor]) -> Tensor:
        """What is differentiated: outputs times cotangents, or the loss, of B networks."""
        if not outputs:
            raise ProgramError("nothing to differentiate: the spec knows no outputs of the program")
        if self._loss is not None:
            losses = self._loss(outputs)
            expected = tuple(outputs[0].shape[:2])
            if tuple(losses.shape) != expected:
                raise ArgumentError(
                    f"the loss has shape {tuple(losses.shape)}; give one number per network and "
                    f"probe, {expected}"
                )
            return losses.sum()
        assert self.cotangents is not None
        cotangents = self.cotangents.now()
        given, taken = ([tuple(v.shape[-2:]) for v in side] for side in (cotangents, outputs))
        if given != taken:
            raise ProgramError(
                f"cotangents for outputs of (places, neurons) {given}; this network has outputs of "
                f"{taken}: give Probes cotangents of these shapes, or none"
            )
        total = cotangents[0].new_zeros(())
        for cotangent, output in zip(cotangents, outputs, strict=True):
            if output.is_floating_point():
                total = total + (cotangent.to(output) * output).sum()
        return total


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

    Values of hidden neurons, and gradients by them, are added to the channels that transform like
    them. Outputs ``a_o``, as
    they are and as log-probabilities over the node set, become states of its neurons and one
    summary ``Σ_o (L a_o) ⊙ (D c_o)``, with ``c_o`` the description of output ``o``: any linear
    function of all outputs, so that probing alone is a special case.

    Args:
        hidden: channels of node states; ``x`` and ``y`` have half as many.
        probes: number of probes.
        descriptions: describes the neurons of outputs.
        slopes: whether there are gradients among the responses.
    """

    def __init__(
        self, hidden: int, probes: int, descriptions: Descriptions, slopes: bool = False
    ) -> None:
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
        self.slopes = nn.Linear(probes, hidden // 2, bias=False) if slopes else None

    def forward(
        self, plan: Plan, answers: ProbeResponses, x: Tensor, y: Tensor, h: Tensor, summary: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Adds the responses; shapes as those of DualGMN's states."""
        parts = {False: list(plan.split(x)), True: list(plan.split(y))}
        for port, values in answers.hidden:
            parts[port.dual][port.slot] = parts[port.dual][port.slot] + self.channels(values)
        if self.slopes is not None:
            for port, values in answers.slopes:
                parts[port.dual][port.slot] = parts[port.dual][port.slot] + self.slopes(values)
        descriptions = self.about(self.descriptions.nodes(plan.spec).to(h))
        for nodes, values in answers.output:
            first, last = plan.span(nodes)
            embedded = self.table(torch.cat([values, values.log_softmax(dim=1)], dim=-1))
            embedded = embedded * descriptions[first:last]
            h = h + nn.functional.pad(self.nodes(embedded), (0, 0, first, h.shape[1] - last))
            summary = summary + self.summary(embedded.mean(dim=1))
        return torch.cat(parts[False], dim=1), torch.cat(parts[True], dim=1), h, summary


def _means(values: Tensor) -> Tensor:
    """From (B, k, places, neurons) to means over places (B, neurons, k)."""
    return values.mean(dim=2).transpose(1, 2)


def _uniform(*shape: int) -> Tensor:
    return 2 * torch.rand(shape) - 1
