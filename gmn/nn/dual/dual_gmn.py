"""DualGMN: product messages on channels that transform like the neurons, and inversely."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from gmn import features
from gmn.arguments import require_type, require_whole
from gmn.canonical import without_shifts
from gmn.features import Descriptions, SpecDescriptions, require_reading
from gmn.graph import ParameterGraph
from gmn.nn.dual.editing import Editor
from gmn.nn.dual.pairing import Pairing, pairs_of
from gmn.nn.dual.plan import RANKS, Codes, Plan, Raised, Step, plan_of
from gmn.nn.dual.probes import Listening, Probes
from gmn.nn.dual.slots import Port
from gmn.nn.dual.stream import Blocks, blocks_of
from gmn.nn.heads import Head, NodeReadout, States, readout_of
from gmn.nn.metanetwork import Metanetwork
from gmn.nn.passing.groups import groups_of
from gmn.nn.recompute import run
from gmn.spec import EdgeSet
from gmn.symmetry import KINDS


class DualGMN(Metanetwork):
    """A metanetwork invariant to every symmetry of its spec, at the cost of matrix products.

    Every node set carries, for each unit of its neurons, channels ``x`` that transform like the
    neurons and ``y`` that transform inversely (:mod:`gmn.nn.dual.slots`). One layer is::

        forward    m_j = Σ_i W_ji (x_i + m_i) + b_j a       in the order of the network
        backward   n_i = Σ_j W_ji (y_j + n_j)               against it
        mixing     x_j ← P [x_j, m_j],  y_j ← Q [y_j, n_j]
        invariant  z_j = (U x_j) ⊙ (V y_j),  on heads averaged over their units
        update     h_j ← h_j + φ(h_j, z_j, mean of j's head, pairing in it, summary)
                   x_j, y_j ← gates of h_j

    so messages are the network's own matrix products. Pairing tells which queries go with which
    values (:mod:`gmn.nn.dual.pairing`). Where neurons have no scales (after GELU, at
    inputs and outputs) ``x`` and ``y`` are read and written by ``h`` freely. Translations and
    phases are taken out first (:func:`gmn.canonical.without_shifts`).

    Values may have any floating-point type; they are read in the metanetwork's. Without gradients
    (``torch.no_grad``) large blocks stay where they lie, in memory or in a mapped file, and are
    read piece by piece (:mod:`gmn.nn.dual.stream`), so networks of a billion parameters pass.

    Args:
        hidden: channels of ``h``, a multiple of 8; ``x`` and ``y`` have half as many.
        depth: number of layers.
        head: what to answer with.
        probes: inputs to put to the networks; None to read weights alone.
        sweeps: whether messages of one layer cross the whole network, in its order, instead of one
            step each.
        recompute: whether layers are computed again in the backward pass instead of kept.
        descriptions: how it is told what nodes and edge sets are; None for
            :class:`gmn.features.SpecDescriptions`.

    Raises:
        ValueError: if ``hidden`` is no multiple of 8.
    """

    symmetries = KINDS
    learning_rate = 3e-3

    def __init__(
        self,
        hidden: int = 64,
        depth: int = 4,
        head: Head | None = None,
        probes: Probes | None = None,
        sweeps: bool = True,
        recompute: bool = False,
        descriptions: Descriptions | None = None,
    ) -> None:
        require_whole("hidden", hidden, 1)
        require_whole("depth", depth, 1)
        require_reading(None, descriptions)
        if probes is not None:
            require_type("probes", probes, Probes, "gmn.nn.Probes, or None")
        if hidden % (2 * RANKS):
            raise ValueError(f"{hidden} channels; DualGMN takes a multiple of {2 * RANKS}")
        super().__init__(head)
        self.recompute = recompute
        self.probes = probes
        self.listening = None
        described = SpecDescriptions() if descriptions is None else descriptions
        if probes is not None:
            self.listening = Listening(hidden, probes.count, described)
        self.encoder = _Encoder(hidden, depth, described)
        # Nobody reads the channels after the last layer, but an editor.
        self.layers = nn.ModuleList(
            _Layer(hidden, sweeps, last=not self.copies and number == depth - 1)
            for number in range(depth)
        )
        self.editors = nn.ModuleList(Editor(hidden, described) for _ in range(self.copies))
        self.readout = readout_of(head, lambda outputs: NodeReadout(hidden, outputs))

    @torch.compiler.disable  # slower, or minutes for what it saves: docs/metanetworks.md
    def forward(self, graph: ParameterGraph) -> Tensor | ParameterGraph:
        """Reads B networks; the answer has shape (B, outputs), or is a graph of edited networks."""
        plan = plan_of(graph.spec, graph.device)
        blocks = blocks_of(graph, self.encoder.summary.dtype)
        *channels, summary = self._states(graph, plan, blocks)
        if self.readout is not None:
            return self.readout(States(channels[-1], summary), graph)
        edited = [editor(graph, plan, blocks, tuple(channels)) for editor in self.editors]
        return ParameterGraph.cat(edited) if len(edited) > 1 else edited[0]

    def embed(self, graph: ParameterGraph) -> Tensor:
        """States of all neurons that move with permutations and that nothing else changes.

        Shape (B, N, hidden), in the order of the spec's node sets.
        """
        plan = plan_of(graph.spec, graph.device)
        blocks = blocks_of(graph, self.encoder.summary.dtype)
        return self._states(graph, plan, blocks)[2]

    def _states(
        self, graph: ParameterGraph, plan: Plan, blocks: Blocks
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Channels x and y, states of neurons and the summary after all layers."""
        state = self.encoder(graph, plan)
        if self.probes is not None and self.listening is not None:
            whole = without_shifts(graph.to(dtype=self.encoder.summary.dtype))
            state = self.listening(plan, self.probes(whole, plan), *state)
        for layer, codes in zip(self.layers, self.encoder.codes(graph, plan), strict=True):
            state = run(layer, self.recompute, plan, blocks, codes, *state)
        return state


class _Encoder(nn.Module):
    """First states from descriptions, and the codes of edges for every layer."""

    def __init__(self, hidden: int, depth: int, descriptions: Descriptions) -> None:
        super().__init__()
        self.depth, self.channels, self.descriptions = depth, hidden // 2, descriptions
        self.nodes = _mlp(descriptions.node_channels, hidden)
        self.free = nn.Linear(hidden, hidden)
        each = 2 * RANKS + self.channels
        self.edges = _mlp(descriptions.edge_channels + features.TAP_FEATURES, hidden, depth * each)
        self.summary = nn.Parameter(torch.zeros(hidden))

    def forward(self, graph: ParameterGraph, plan: Plan) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Channels x, y (B, rows, d/2), h (B, N, d) and the summary (B, d)."""
        described = self.descriptions.nodes(plan.spec).to(self.summary)
        h = self.nodes(described).expand(len(graph), -1, -1)
        x, y = (self.free(plan.to_rows(h)) * plan.free.to(h)).chunk(2, dim=-1)
        return x, y, h, self.summary.expand(len(graph), -1)

    def codes(self, graph: ParameterGraph, plan: Plan) -> list[dict[str, Tensor]]:
        """By layer and edge set: how it weighs taps (taps, 2 ranks), and what a bias adds."""
        layers: list[dict[str, Tensor]] = [{} for _ in range(self.depth)]
        about = self.descriptions.edges(plan.spec).to(self.summary)
        for edges, description in zip(plan.spec.edge_sets, about, strict=True):
            parts = self.edges(features.with_taps(description, edges)).chunk(self.depth, 1)
            for layer, code in zip(layers, parts, strict=True):
                layer[edges.name] = code
        return layers


class _Layer(nn.Module):
    """Messages forward and backward, invariants, and the update of all channels."""

    def __init__(self, hidden: int, sweeps: bool, last: bool) -> None:
        super().__init__()
        self.sweeps = sweeps
        channels = hidden // 2
        self.keep_x, self.keep_y, self.take_x, self.take_y = (
            nn.Linear(channels, channels, bias=False) for _ in range(4)
        )
        self.product_x, self.product_y = (
            nn.Linear(channels, channels, bias=False) for _ in range(2)
        )
        self.product = nn.Linear(channels, hidden, bias=False)
        self.linear = nn.Linear(hidden, hidden)
        self.even = nn.Linear(hidden, hidden, bias=False)
        self.even_out = nn.Linear(channels, hidden)
        self.normal = nn.LayerNorm(hidden)
        self.own, self.group, self.whole = (nn.Linear(hidden, hidden) for _ in range(3))
        self.pairing = Pairing(hidden, channels)
        self.out = nn.Linear(hidden, hidden)
        self.gates = None if last else nn.Linear(hidden, hidden)
        self.free = None if last else nn.Linear(hidden, hidden)
        self.fact = nn.Linear(channels, hidden, bias=False)
        if self.gates is not None:
            nn.init.constant_(self.gates.bias, 2.0)  # open at first
        self.summary = nn.Sequential(
            nn.LayerNorm(2 * hidden), nn.Linear(2 * hidden, hidden), nn.SiLU(),
            nn.Linear(hidden, hidden),
        )  # fmt: skip

    def forward(
        self,
        plan: Plan,
        blocks: Blocks,
        codes: Codes,
        x: Tensor,
        y: Tensor,
        h: Tensor,
        summary: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Shapes as those of the encoder."""
        into_x, into_y = self._messages(plan, blocks, codes, x, y)
        x = self.keep_x(x) + self.take_x(into_x)
        y = self.keep_y(y) + self.take_y(into_y)
        seen = plan.to_nodes(self._invariants(plan, x, y))
        for edges, (first, last) in plan.facts:
            values = blocks[edges.name].reshape(len(x), last - first, edges.num_taps)
            values = _compressed(edges, values)
            from_facts = self.fact(values @ codes[edges.name][:, 2 * RANKS :])
            seen = seen + nn.functional.pad(from_facts, (0, 0, first, h.shape[1] - last))
        normal = self.normal(h)
        update = self.own(normal) + self.whole(summary).unsqueeze(1) + seen
        if groups := groups_of(plan.spec, h.device, h.dtype):
            update = update + self.group(groups.means(normal))
        if pairs := pairs_of(plan.spec, h.device):
            update = update + self.pairing(pairs, seen)
        h = h + self.out(nn.functional.silu(update))
        summary = summary + self.summary(torch.cat([summary, h.mean(dim=1)], dim=-1))
        if self.gates is None or self.free is None:
            return x, y, h, summary
        at_rows = plan.level(plan.to_rows(h))
        gate_x, gate_y = self.gates(at_rows).sigmoid().chunk(2, dim=-1)
        free_x, free_y = (self.free(at_rows) * plan.free.to(h)).chunk(2, dim=-1)
        return x * gate_x + free_x, y * gate_y + free_y, h, summary

    def _invariants(self, plan: Plan, x: Tensor, y: Tensor) -> Tensor:
        """What no symmetry changes: shape (B, rows, d)."""
        products = plan.level(self.product_x(x) * self.product_y(y))
        found = self.product(_Soften.apply(products))
        free, signed = plan.free.to(x), plan.signed.to(x)
        unit = torch.cat([_unit(x, free, signed), _unit(y, free, signed)], dim=-1)
        found = found + self.linear(unit) * plan.linear.to(x)
        if plan.has_even:
            one, other = self.even(unit).chunk(2, dim=-1)
            found = found + self.even_out(one * other) * plan.even.to(x)
        return found

    def _messages(
        self,
        plan: Plan,
        blocks: Blocks,
        codes: Codes,
        x: Tensor,
        y: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Along the network for x, against it for y; in a sweep, each sees what came before."""
        values = {False: plan.split(x), True: plan.split(y)}
        found: dict[Port, Tensor] = {}

        def read(port: Port) -> Tensor:
            base = values[port.dual][port.slot]
            return base + found[port] if self.sweeps and port in found else base

        def write(port: Port, message: Tensor) -> None:
            found[port] = found[port] + message if port in found else message

        for entry in plan.slots.entries:
            code = codes[entry.edges.name][:, 2 * RANKS :]
            rows = values[False][entry.port.slot].shape[1]
            added = blocks[entry.edges.name].reshape(len(x), rows, entry.edges.num_taps)
            if plan.slots.slots[entry.port.slot].kind == "free":
                added = _compressed(entry.edges, added)
            write(entry.port, added @ code)
        raised: dict[Step, Tensor] = {}
        for step in plan.steps:
            if isinstance(step, Raised):
                raised[step] = read(step.source)
                write(step.target, step.ahead(raised[step]))
            else:
                write(step.target, step.ahead(read(step.source), blocks, codes))
        for step in reversed(plan.steps):
            if isinstance(step, Raised):
                message = step.back(read(step.target.inverse()), raised[step])
                write(step.source.inverse(), message)
                continue
            write(step.source.inverse(), step.back(read(step.target.inverse()), blocks, codes))
        return tuple(  # type: ignore[return-value]
            torch.cat(
                [
                    found.get(Port(slot, dual), torch.zeros_like(value))
                    for slot, value in enumerate(values[dual])
                ],
                dim=1,
            )
            for dual in (False, True)
        )


class _Soften(torch.autograd.Function):
    """``p / √(1 + |p|)``: products of many weights at a comparable size; keeps ``p`` alone."""

    @staticmethod
    def forward(context: Any, products: Tensor) -> Tensor:
        context.save_for_backward(products)
        return products * torch.rsqrt(1 + products.abs())

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        (products,) = context.saved_tensors
        size = 1 + products.abs()
        return gradients[0] * (1 + size) / 2 * size.pow(-1.5)


def _compressed(edges: EdgeSet, values: Tensor) -> Tensor:
    """Numbers that no scale acts on; constants may be of any size (places in a table)."""
    return values.asinh() if edges.kind == "constant" else values


def _unit(channels: Tensor, free: Tensor, signed: Tensor) -> Tensor:
    """Channels over their length; where no scale acts, a function that keeps how long they are."""
    size = torch.linalg.vector_norm(channels, dim=-1, keepdim=True)
    length = size + free
    unit = channels / torch.where(length == 0, torch.ones_like(length), length)
    return unit * (1 + signed * size / (1 + size))


def _mlp(inputs: int, hidden: int, outputs: int | None = None) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.SiLU(), nn.Linear(hidden, outputs or hidden))
