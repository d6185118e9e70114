"""DualGMN: product messages on channels that transform like the neurons, and inversely."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from gmn import features
from gmn.canonical import without_shifts
from gmn.errors import ArgumentError
from gmn.features import Descriptions, SpecDescriptions, require_reading
from gmn.foundation.arguments import require_several, require_type, require_whole
from gmn.graph import ParameterGraph
from gmn.nn.dual.editing import Editor
from gmn.nn.dual.messages import GraphReading, RankCodes, messages
from gmn.nn.dual.pairing import Pairing, pairs_of
from gmn.nn.dual.passes import Passes
from gmn.nn.dual.plan import RANKS, Plan, plan_of
from gmn.nn.dual.probes import ProbeEncoder, Probes
from gmn.nn.dual.statistics import StatisticsEncoder
from gmn.nn.dual.stream import Blocks, blocks_of
from gmn.nn.heads import Head, NodeReadout, States, readout_of
from gmn.nn.metanetwork import Metanetwork
from gmn.nn.passing.groups import groups_of
from gmn.nn.running import run, uncompiled
from gmn.symmetry import KINDS

FAINT = 0.1


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

    Values may have any floating-point type; they are read in the metanetwork's. Where they need no
    gradient themselves, large blocks are not converted as a whole but read piece by piece, from
    memory or from a mapped file (:mod:`gmn.nn.dual.stream`): it reads networks of a billion
    parameters, and learns from them.

    Args:
        hidden: channels of ``h``, a multiple of 8; ``x`` and ``y`` have half as many.
        depth: number of layers.
        head: the number of outputs, a head, or a module of your own; one output if None.
        probes: learned inputs on which the networks are run; None to read weights alone.
        sweeps: whether messages of one layer cross the whole network, in its order, instead of one
            step each.
        recompute: whether layers are computed again in the backward pass instead of kept, which
            takes more time and a fraction of the memory.
        descriptions: describes nodes and edge sets to the model; None for
            :class:`gmn.features.SpecDescriptions`.
        passes: number of learned inputs for which the networks' own forward and backward passes
            are computed from their graphs, without a program (:mod:`gmn.nn.dual.passes`); 0 for
            none.
        symmetries: what answers do not change under, of :data:`gmn.symmetry.KINDS`; permutations
            and exchanges among them. All of them for questions about the networks' function. What
            is left out is seen: statistics of the weights as training left them join the summary
            (:mod:`gmn.nn.dual.statistics`), for questions about the training, such as its
            learning rate. :meth:`prepare` has to see the population first.

    Raises:
        ValueError: if ``hidden`` is no multiple of 8, or no symmetries are called so.
    """

    symmetries: Collection[str] = KINDS
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
        passes: int = 0,
        symmetries: Collection[str] = KINDS,
    ) -> None:
        require_whole("hidden", hidden, 1)
        require_whole("depth", depth, 1)
        require_whole("passes", passes, 0)
        require_reading(None, descriptions)
        require_symmetries(symmetries)
        if probes is not None:
            require_type("probes", probes, Probes, "gmn.nn.Probes, or None")
        if hidden % (2 * RANKS):
            raise ValueError(f"{hidden} channels; DualGMN takes a multiple of {2 * RANKS}")
        super().__init__(head)
        self.recompute = recompute
        self.symmetries = tuple(kind for kind in KINDS if kind in symmetries)
        self.probes = probes
        self.listening = None
        described = SpecDescriptions() if descriptions is None else descriptions
        if probes is not None:
            self.listening = ProbeEncoder(hidden, probes.count, described, probes.backward)
        self.passes = Passes(hidden, passes, described) if passes else None
        self.statistics = None
        if self.symmetries != KINDS:
            self.statistics = StatisticsEncoder(hidden, described, self.symmetries)
        self.encoder = _DualEncoder(hidden, depth, described)
        # Only an editor reads the channels after the last layer.
        self.layers = nn.ModuleList(
            _DualLayer(hidden, sweeps, index == 0, last=not self.copies and index == depth - 1)
            for index in range(depth)
        )
        self.editors = nn.ModuleList(Editor(hidden, described) for _ in range(self.copies))
        self.readout = readout_of(head, lambda outputs: NodeReadout(hidden, outputs))

    @uncompiled  # slower, or minutes for what it saves: docs/metanetworks.md
    def forward(self, graph: ParameterGraph) -> Tensor | ParameterGraph:
        """Reads B networks; the answer has shape (B, outputs), or is a graph of edited networks."""
        plan = plan_of(graph.spec, graph.device)
        blocks = blocks_of(graph, self.encoder.summary.dtype)
        *channels, summary = self._states(graph, plan, blocks)
        if self.readout is not None:
            return self.readout(States(channels[-1], summary), graph)
        edited = [editor(graph, plan, blocks, tuple(channels)) for editor in self.editors]
        return ParameterGraph.cat(edited) if len(edited) > 1 else edited[0]

    def prepare(self, graphs: Iterable[ParameterGraph]) -> None:
        """Finds out what statistics are usual in a population, where the model reads any."""
        if self.statistics is not None:
            self.statistics.prepare(graphs)

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
        if self.statistics is not None:
            state = (*state[:2], *self.statistics(graph, plan, *state[2:]))
        reading = GraphReading.of(plan, blocks)
        if self.passes is not None:
            state = self.passes(reading, *state)
        if self.probes is not None and self.listening is not None:
            centred = without_shifts(graph.to(dtype=self.encoder.summary.dtype))
            state = self.listening(plan, self.probes(centred, plan), *state)
        for layer, codes in zip(self.layers, self.encoder.codes(plan), strict=True):
            state = run(layer, self.recompute, reading, codes, *state)
        return state


def require_symmetries(symmetries: Collection[str]) -> None:
    """Refuses what is no part of the group, or leaves out the order of neurons and branches.

    Raises:
        ArgumentError: then.
    """
    require_several("symmetries", symmetries, f"some of {', '.join(KINDS)}")
    if unknown := [kind for kind in symmetries if kind not in KINDS]:
        raise ArgumentError(f"no symmetries are called {unknown}; there are {', '.join(KINDS)}")
    if missing := [kind for kind in KINDS[:2] if kind not in symmetries]:
        raise ArgumentError(
            f"symmetries leaves out {' and '.join(missing)}, but DualGMN never sees an order of "
            f"neurons or branches; name {' and '.join(KINDS[:2])}"
        )


class _DualEncoder(nn.Module):
    """Initial states from descriptions, and the codes of edges for every layer."""

    def __init__(self, hidden: int, depth: int, descriptions: Descriptions) -> None:
        super().__init__()
        self.depth, self.channels, self.descriptions = depth, hidden // 2, descriptions
        self.nodes = _mlp(descriptions.node_channels, hidden)
        self.free = nn.Linear(hidden, hidden)
        code_size = 2 * RANKS + self.channels
        self.edges = _mlp(
            descriptions.edge_channels + features.TAP_FEATURES, hidden, depth * code_size
        )
        self.summary = nn.Parameter(torch.zeros(hidden))

    def forward(self, graph: ParameterGraph, plan: Plan) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Channels x, y (B, rows, d/2), h (B, N, d) and the summary (B, d)."""
        described = self.descriptions.nodes(plan.spec).to(self.summary)
        h = self.nodes(described).unsqueeze(0)
        x, y = (self.free(plan.to_rows(h)) * plan.free.to(h)).chunk(2, dim=-1)
        x, y = (values.expand(len(graph), -1, -1).contiguous() for values in (x, y))
        return x, y, h.expand(len(graph), -1, -1), self.summary.expand(len(graph), -1)

    def codes(self, plan: Plan) -> tuple[Tensor, ...]:
        """By layer, codes of all taps (taps, 2 ranks + d/2); see :func:`messages`."""
        described = self.descriptions.edges(plan.spec).to(self.summary)[plan.tap_owners]
        taps = plan.tap_descriptions.to(self.summary)
        return self.edges(torch.cat([described, taps], dim=1)).chunk(self.depth, dim=1)


class _DualLayer(nn.Module):
    """Messages forward and backward, invariants, and the update of all channels."""

    def __init__(self, hidden: int, sweeps: bool, first: bool, last: bool) -> None:
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
        to_summary = nn.Linear(hidden, hidden)
        self.summary = nn.Sequential(
            nn.LayerNorm(2 * hidden), nn.Linear(2 * hidden, hidden), nn.SiLU(), to_summary
        )
        if not first:  # so that it disturbs little at first what the layers before have read
            with torch.no_grad():
                for added in (self.out, to_summary):
                    added.weight.mul_(FAINT)
                    added.bias.mul_(FAINT)

    def forward(
        self,
        reading: GraphReading,
        codes: Tensor,
        x: Tensor,
        y: Tensor,
        h: Tensor,
        summary: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Shapes as those of the encoder."""
        plan = reading.plan
        ranks, ends = RankCodes(codes, x.shape[-1]), (plan.split(x), plan.split(y))
        to_x, to_y = (torch.cat(m, dim=1) for m in messages(reading, ranks, *ends, self.sweeps))
        x = self._mixed(x, to_x, self.keep_x, self.take_x)
        y = self._mixed(y, to_y, self.keep_y, self.take_y)
        invariants = plan.to_nodes(self._invariants(plan, x, y))
        if plan.invariants.items:
            encoded = plan.invariants.encoded(reading.invariants, codes[:, 2 * RANKS :])
            added = self.fact(torch.cat(encoded, dim=1)).to(invariants)
            invariants = invariants.index_add(1, plan.invariant_nodes, added)
        normal = self.normal(h)
        shared = self.whole(summary) + self.own.bias
        update = _plus(invariants + shared.unsqueeze(1), normal, self.own.weight)
        if groups := groups_of(plan.spec, h.device, h.dtype):
            update = update + self.group(groups.means(normal))
        if pairs := pairs_of(plan.spec, h.device):
            update = update + self.pairing(pairs, invariants)
        h = h + self.out(nn.functional.silu(update))
        summary = summary + self.summary(torch.cat([summary, h.mean(dim=1)], dim=-1))
        if self.gates is None or self.free is None:
            return x, y, h, summary
        rows = plan.basis_mean(plan.to_rows(h))
        gate_x, gate_y = self.gates(rows).sigmoid().chunk(2, dim=-1)
        x, y = x * gate_x, y * gate_y
        if free := plan.free_rows:
            free_x, free_y = self.free(free.select(rows)).chunk(2, dim=-1)
            x, y = free.add(x, free_x), free.add(y, free_y)
        return x, y, h, summary

    def _invariants(self, plan: Plan, x: Tensor, y: Tensor) -> Tensor:
        """Features that no symmetry changes: shape (B, rows, d)."""
        free, signed = plan.free.to(x), plan.signed.to(x) if plan.has_signs else None
        units = _Unit.apply(x, free, signed), _Unit.apply(y, free, signed)
        products = plan.basis_mean(self.product_x(x) * self.product_y(y))
        result = self.product(_SoftRoot.apply(products))
        if rows := plan.linear_rows:
            result = rows.add(result, _of_both(self.linear, *map(rows.select, units)))
        if rows := plan.even_rows:
            first, second = _of_both(self.even, *map(rows.select, units)).chunk(2, dim=-1)
            result = rows.add(result, self.even_out(first * second))
        return result

    def _mixed(
        self, channels: Tensor, received: Tensor, keep: nn.Linear, take: nn.Linear
    ) -> Tensor:
        """Channels and messages mixed; in a sweep, the channels are part of what is received."""
        kept = keep.weight - take.weight if self.sweeps else keep.weight
        return _plus(nn.functional.linear(channels, kept), received, take.weight)


class _SoftRoot(torch.autograd.Function):
    """``p / √(1 + |p|)``: products of many weights at a comparable size; keeps ``p`` alone."""

    @staticmethod
    def forward(context: Any, products: Tensor) -> Tensor:
        context.save_for_backward(products)
        return products * torch.rsqrt(1 + products.abs())

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> Tensor:
        (products,) = context.saved_tensors
        root = torch.rsqrt(1 + products.abs())
        return gradients[0] * torch.addcmul(root, root * root, root).mul(0.5)


class _Unit(torch.autograd.Function):
    """Channels divided by their length; where no scale acts, a function that keeps the length.

    Keeps the channels alone.
    """

    @staticmethod
    def forward(context: Any, channels: Tensor, free: Tensor, signed: Tensor | None) -> Tensor:
        context.save_for_backward(channels, free, signed)
        return channels * _factor(_length(channels), free, signed)[0]

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        channels, free, signed = context.saved_tensors
        size = _length(channels)
        factor, inverse = _factor(size, free, signed)
        # The gradient of so short a channel would overflow on its way; it passes none.
        seen = size + free > torch.finfo(size.dtype).tiny ** (1 / 3)
        factor, inverse = factor * seen, inverse * seen
        # The derivative of the factor by the length, over the length.
        slope = factor if signed is None else factor - signed / (1 + size).square()
        slope = slope * inverse / torch.where(size == 0, torch.inf, size)
        along = (gradients[0] * channels).sum(dim=-1, keepdim=True) * slope
        return (gradients[0] * factor).addcmul(channels, along, value=-1), None, None


def _length(channels: Tensor) -> Tensor:
    return torch.linalg.vector_norm(channels, dim=-1, keepdim=True)


def _factor(size: Tensor, free: Tensor, signed: Tensor | None) -> tuple[Tensor, Tensor]:
    """What :class:`_Unit` multiplies by, and the inverse of the length (1 where it is 0)."""
    length = size + free
    inverse = (length + (length == 0)).reciprocal()
    return inverse if signed is None else inverse * (1 + signed * size / (1 + size)), inverse


def _plus(total: Tensor, channels: Tensor, weight: Tensor) -> Tensor:
    """A sum (..., d) plus channels (..., c) times a weight (d, c), in one product."""
    flat = torch.addmm(total.flatten(0, -2), channels.flatten(0, -2), weight.T)
    return flat.view(total.shape)


def _of_both(layer: nn.Linear, x: Tensor, y: Tensor) -> Tensor:
    """A linear layer of two halves of its input side by side, which are not copied for it."""
    of_x, of_y = layer.weight.chunk(2, dim=1)
    return _plus(nn.functional.linear(x, of_x, layer.bias), y, of_y)


def _mlp(inputs: int, hidden: int, outputs: int | None = None) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.SiLU(), nn.Linear(hidden, outputs or hidden))
