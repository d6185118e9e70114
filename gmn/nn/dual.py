"""DualGMN: product messages on channels that transform like the neurons, and inversely."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gmn import features
from gmn.canonical import without_shifts
from gmn.graph import ParameterGraph
from gmn.nn.heads import InvariantHead, NodeReadout
from gmn.nn.slots import Map, Port, Slots, slots_of
from gmn.spec import EdgeSet, GraphSpec
from gmn.topology import memberships, tap_order

Blocks = dict[str, Tensor]  # by edge set
RANKS = 4  # independent ways in which a message weighs the taps of a kernel


class DualGMN(nn.Module):
    """A metanetwork invariant to every symmetry of its spec, at the cost of matrix products.

    Every node set carries, for each unit of its neurons, channels ``x`` that transform like the
    neurons and ``y`` that transform inversely (:mod:`gmn.nn.slots`). One layer is::

        forward    m_j = Σ_i W_ji (x_i + m_i) + b_j a       in the order of the network
        backward   n_i = Σ_j W_ji (y_j + n_j)               against it
        mixing     x_j ← P [x_j, m_j],  y_j ← Q [y_j, n_j]
        invariant  z_j = (U x_j) ⊙ (V y_j),  on heads averaged over their units
        update     h_j ← h_j + φ(h_j, z_j, mean of j's head, summary)
                   x_j, y_j ← gates of h_j

    so messages are the network's own matrix products. Where neurons have no scales (after GELU, at
    inputs and outputs) ``x`` and ``y`` are read and written by ``h`` freely. Translations and
    phases are taken out first (:func:`gmn.canonical.without_shifts`).

    Args:
        hidden: channels of ``h``; ``x`` and ``y`` have half as many.
        depth: number of layers.
        head: what to answer with.
        recompute: whether layers are computed again in the backward pass instead of kept.
    """

    learning_rate = 3e-3

    def __init__(
        self,
        hidden: int = 64,
        depth: int = 4,
        head: InvariantHead | None = None,
        recompute: bool = False,
    ) -> None:
        super().__init__()
        self.recompute = recompute
        self.encoder = _Encoder(hidden, depth)
        self.layers = nn.ModuleList(_Layer(hidden) for _ in range(depth))
        self.readout = NodeReadout(hidden, (InvariantHead() if head is None else head).outputs)

    def forward(self, graph: ParameterGraph) -> Tensor:
        """Reads B networks; the answer has shape (B, outputs)."""
        graph = without_shifts(graph)
        plan = plan_of(graph.spec, graph.device)
        blocks = _blocks(graph, plan)
        state = self.encoder(graph, plan)
        for layer, codes in zip(self.layers, self.encoder.codes(graph, plan), strict=True):
            if self.recompute and torch.is_grad_enabled():
                state = checkpoint(layer, plan, blocks, codes, *state, use_reentrant=False)
            else:
                state = layer(plan, blocks, codes, *state)
        _, _, h, summary = state
        return self.readout(graph.spec, h, summary)


class _Encoder(nn.Module):
    """First states from descriptions, and the codes of edges for every layer."""

    def __init__(self, hidden: int, depth: int) -> None:
        super().__init__()
        self.depth, self.channels = depth, hidden // 2
        self.nodes = _mlp(features.NODE_FEATURES, hidden)
        self.free = nn.Linear(hidden, hidden)
        each = 2 * RANKS + self.channels
        self.edges = _mlp(features.EDGE_FEATURES + features.TAP_FEATURES, hidden, depth * each)
        self.summary = nn.Parameter(torch.zeros(hidden))

    def forward(self, graph: ParameterGraph, plan: Plan) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Channels x, y (B, rows, d/2), h (B, N, d) and the summary (B, d)."""
        described = features.node_descriptions(plan.spec).to(self.summary)
        h = self.nodes(described).expand(len(graph), -1, -1)
        x, y = (self.free(plan.to_rows(h)) * plan.free.to(h)).chunk(2, dim=-1)
        return x, y, h, self.summary.expand(len(graph), -1)

    def codes(self, graph: ParameterGraph, plan: Plan) -> list[dict[str, Tensor]]:
        """By layer and edge set: how it weighs taps (taps, 2 ranks), and what a bias adds."""
        about = features.edge_descriptions(plan.spec).to(self.summary)
        layers: list[dict[str, Tensor]] = [{} for _ in range(self.depth)]
        for edges, description in zip(plan.spec.edge_sets, about, strict=True):
            places = features.tap_descriptions(edges).to(self.summary)
            given = torch.cat([description.expand(len(places), -1), places], dim=1)
            for layer, code in zip(layers, self.edges(given).chunk(self.depth, 1), strict=True):
                layer[edges.name] = code
        return layers


class _Layer(nn.Module):
    """Messages forward and backward, invariants, and the update of all channels."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
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
        self.out = nn.Linear(hidden, hidden)
        self.gates, self.free = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden)
        self.fact = nn.Linear(channels, hidden, bias=False)
        nn.init.constant_(self.gates.bias, 2.0)  # open at first
        self.summary = nn.Sequential(
            nn.LayerNorm(2 * hidden), nn.Linear(2 * hidden, hidden), nn.SiLU(),
            nn.Linear(hidden, hidden),
        )  # fmt: skip

    def forward(
        self,
        plan: Plan,
        blocks: Blocks,
        codes: Blocks,
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
            values = blocks[edges.name].reshape(len(x), last - first, -1)
            told = self.fact(values @ codes[edges.name][:, 2 * RANKS :])
            seen = seen + nn.functional.pad(told, (0, 0, first, h.shape[1] - last))
        normal = self.normal(h)
        update = self.own(normal) + self.whole(summary).unsqueeze(1) + seen
        if plan.members.numel():
            update = update + self.group(_share_in_groups(plan, normal))
        h = h + self.out(nn.functional.silu(update))
        at_rows = plan.level(plan.to_rows(h))
        gate_x, gate_y = self.gates(at_rows).sigmoid().chunk(2, dim=-1)
        free_x, free_y = (self.free(at_rows) * plan.free.to(h)).chunk(2, dim=-1)
        summary = summary + self.summary(torch.cat([summary, h.mean(dim=1)], dim=-1))
        return x * gate_x + free_x, y * gate_y + free_y, h, summary

    def _invariants(self, plan: Plan, x: Tensor, y: Tensor) -> Tensor:
        """What no symmetry changes: shape (B, rows, d)."""
        products = plan.level(self.product_x(x) * self.product_y(y))
        found = self.product(_Soften.apply(products))
        free = plan.free.to(x)
        unit = torch.cat([_unit(x, free), _unit(y, free)], dim=-1)
        found = found + self.linear(unit) * plan.linear.to(x)
        if plan.has_even:
            one, other = self.even(unit).chunk(2, dim=-1)
            found = found + self.even_out(one * other) * plan.even.to(x)
        return found

    def _messages(
        self,
        plan: Plan,
        blocks: Blocks,
        codes: Blocks,
        x: Tensor,
        y: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """A sweep along the network for x, one against it for y; each sees what came before."""
        values = {False: plan.split(x), True: plan.split(y)}
        found: dict[Port, Tensor] = {}

        def read(port: Port) -> Tensor:
            base = values[port.dual][port.slot]
            return base + found[port] if port in found else base

        def write(port: Port, message: Tensor) -> None:
            found[port] = found[port] + message if port in found else message

        for entry in plan.slots.entries:
            code = codes[entry.edges.name][:, 2 * RANKS :]
            rows = len(values[False][entry.port.slot][0])
            write(entry.port, blocks[entry.edges.name].reshape(len(x), rows, -1) @ code)
        for step in plan.steps:
            write(step.target, step.ahead(read(step.source), blocks, codes))
        for step in reversed(plan.steps):
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


def _unit(channels: Tensor, free: Tensor) -> Tensor:
    """Channels over their length; where no scale acts, a function that keeps how long they are."""
    length = torch.linalg.vector_norm(channels, dim=-1, keepdim=True) + free
    return channels / torch.where(length == 0, torch.ones_like(length), length)


def _share_in_groups(plan: Plan, nodes: Tensor) -> Tensor:
    """The mean of every neuron's head or group, summed over its groups."""
    node, group = plan.members
    sizes = torch.bincount(group, minlength=1)
    groups = nodes.new_zeros(nodes.shape[0], len(sizes), nodes.shape[-1])
    share = (1 / sizes[group].to(nodes)).unsqueeze(1)
    means = groups.index_add(1, group, nodes[:, node] * share)
    return torch.zeros_like(nodes).index_add(1, node, means[:, group])


def _mlp(inputs: int, hidden: int, outputs: int | None = None) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, hidden), nn.SiLU(), nn.Linear(hidden, outputs or hidden))


# --- the plan of a spec: which contractions to run ----------------------------------------------


@dataclass(frozen=True)
class Product:
    """A map as an einsum between its block and the channels of its source.

    Attributes:
        source: where it reads.
        target: where it writes.
        edges: its edge set.
        letters: those of the block, of source neurons and of target neurons.
        sizes: shapes of source and target node sets.
    """

    source: Port
    target: Port
    edges: EdgeSet
    letters: tuple[str, str, str]
    sizes: tuple[tuple[int, ...], tuple[int, ...]]

    def ahead(
        self, channels: Tensor, blocks: dict[str, Tensor], codes: dict[str, Tensor]
    ) -> Tensor:
        """From (B, source neurons, c) to (B, target neurons, c)."""
        block, source, target = self.letters
        code = codes[self.edges.name][:, :RANKS]
        return _contract(blocks[self.edges.name], code, channels, block, source, target, self.sizes)

    def back(self, channels: Tensor, blocks: Blocks, codes: Blocks) -> Tensor:
        """From (B, target neurons, c) to (B, source neurons, c), along the adjoint."""
        block, source, target = self.letters
        code = codes[self.edges.name][:, RANKS : 2 * RANKS]
        sizes = (self.sizes[1], self.sizes[0])
        return _contract(blocks[self.edges.name], code, channels, block, target, source, sizes)


def _contract(
    values: Tensor,
    code: Tensor,
    channels: Tensor,
    block: str,
    source: str,
    target: str,
    sizes: tuple[tuple[int, ...], tuple[int, ...]],
) -> Tensor:
    """Sums over sources and taps; channels fall into ranks that weigh taps differently."""
    batch, width = len(channels), channels.shape[-1]
    split = channels.reshape(batch, *sizes[0], RANKS, width // RANKS)
    if values.shape[-1] == 1:
        weighed = (split * code[0].unsqueeze(-1)).reshape(batch, *sizes[0], width)
        result = torch.einsum(f"b{block},b{source}c->b{target}c", values[..., 0], weighed)
    else:
        mixed = torch.einsum(f"b{block}k,kr->br{block}", values, code)
        result = torch.einsum(f"br{block},b{source}rc->b{target}rc", mixed, split)
    return result.reshape(batch, -1, width)


@dataclass(frozen=True, eq=False)
class Scaled:
    """Multiplication by a diagonal block.

    Attributes:
        index: for every neuron, the neuron of the block's own node set; None if they are the same.
    """

    source: Port
    target: Port
    edges: EdgeSet
    offset: float | None
    index: Tensor | None

    def ahead(
        self, channels: Tensor, blocks: dict[str, Tensor], codes: dict[str, Tensor]
    ) -> Tensor:
        """Both (B, neurons, c)."""
        return self._times(channels, blocks, codes[self.edges.name][:, :RANKS])

    def back(self, channels: Tensor, blocks: Blocks, codes: Blocks) -> Tensor:
        """Both (B, neurons, c)."""
        return self._times(channels, blocks, codes[self.edges.name][:, RANKS : 2 * RANKS])

    def _times(self, channels: Tensor, blocks: dict[str, Tensor], code: Tensor) -> Tensor:
        batch, rows, width = channels.shape
        values = blocks[self.edges.name].flatten(1, -2)
        values = values if self.index is None else values[:, self.index]
        values = values if self.offset is None else (values + self.offset).rsqrt()
        split = channels.reshape(batch, rows, RANKS, width // RANKS)
        return (split * (values @ code).unsqueeze(-1)).reshape(batch, rows, width)


@dataclass(frozen=True)
class Shared:
    """Neurons that differ by some axes: a mean over those, or copies along them.

    Attributes:
        wide: shape of the source's neurons.
        kept: which of its axes the target has, in the target's order.
    """

    source: Port
    target: Port
    wide: tuple[int, ...]
    kept: tuple[int, ...]

    def ahead(
        self, channels: Tensor, blocks: dict[str, Tensor], codes: dict[str, Tensor]
    ) -> Tensor:
        """From (B, wide neurons, c) to the mean (B, narrow neurons, c)."""
        others = [place for place in range(len(self.wide)) if place not in self.kept]
        wide = channels.reshape(len(channels), *self.wide, -1)
        order = [0, *(1 + p for p in self.kept), *(1 + p for p in others), len(self.wide) + 1]
        moved = wide.permute(order).flatten(1 + len(self.kept), -2)
        return moved.mean(dim=-2).flatten(1, -2)

    def back(self, channels: Tensor, blocks: Blocks, codes: Blocks) -> Tensor:
        """From (B, narrow neurons, c) to copies (B, wide neurons, c)."""
        batch, width = len(channels), channels.shape[-1]
        narrow = channels.reshape(batch, *(self.wide[p] for p in self.kept), width)
        order = sorted(range(len(self.kept)), key=self.kept.__getitem__)
        shape = [size if p in self.kept else 1 for p, size in enumerate(self.wide)]
        spread = narrow.permute(0, *(1 + p for p in order), len(order) + 1)
        spread = spread.reshape(batch, *shape, width).expand(batch, *self.wide, width)
        return spread.reshape(batch, -1, width)


Step = Product | Scaled | Shared


@dataclass(frozen=True, eq=False)
class Plan:
    """What a forward pass looks up, once per spec.

    Attributes:
        spec: the architecture.
        slots: its slots.
        steps: products and the like, in the order in which the network runs.
        rows: (R,) the node of each row; the slots' neurons follow one another.
        sizes: number of rows of each slot.
        levels: rows of each slot with a basis, and the shape (before, basis, after) of its neurons.
        facts: edge sets that no symmetry changes, with the first and last node they belong to.
        members: neurons and the groups they belong to.
    """

    spec: GraphSpec
    slots: Slots
    steps: tuple[Step, ...]
    rows: Tensor
    sizes: tuple[int, ...]
    levels: tuple[tuple[int, tuple[int, int, int]], ...]
    facts: tuple[tuple[EdgeSet, tuple[int, int]], ...]
    members: Tensor

    def split(self, channels: Tensor) -> tuple[Tensor, ...]:
        """The channels of each slot."""
        return channels.split(self.sizes, dim=1)

    def to_rows(self, nodes: Tensor) -> Tensor:
        """Channels of nodes (B, N, c) at the rows of all slots (B, R, c)."""
        return nodes if self.aligned else nodes[:, self.rows]

    def to_nodes(self, rows: Tensor) -> Tensor:
        """Sums over the slots of each node."""
        if self.aligned:
            return rows
        count = self.spec.num_nodes
        return rows.new_zeros(len(rows), count, rows.shape[-1]).index_add(1, self.rows, rows)

    @cached_property
    def aligned(self) -> bool:
        """Whether every node set has one slot, in order."""
        return bool((self.rows.cpu() == torch.arange(len(self.rows))).all())

    @cached_property
    def free(self) -> Tensor:
        """(R, 1) ones in the rows of neurons that no scale acts on."""
        return self._mask("free")

    @cached_property
    def linear(self) -> Tensor:
        """(R, 1) ones where channels of unit length are invariant."""
        return self._mask("free", "positive")

    @cached_property
    def even(self) -> Tensor:
        """(R, 1) ones where products of two of them are."""
        return self._mask("sign", "both")

    @cached_property
    def has_even(self) -> bool:
        """Whether there are such rows."""
        return bool(self.even.any())

    def _mask(self, *kinds: str) -> Tensor:
        flags = torch.tensor([float(slot.kind in kinds) for slot in self.slots.slots])
        return flags.repeat_interleave(torch.tensor(self.sizes)).unsqueeze(1).to(self.rows.device)

    def level(self, channels: Tensor) -> Tensor:
        """Means over the units of a basis, in all their rows."""
        if not self.levels:
            return channels
        parts = list(self.split(channels))
        for slot, shape in self.levels:
            part = parts[slot]
            whole = part.reshape(len(part), *shape, -1)
            parts[slot] = whole.mean(2, keepdim=True).expand_as(whole).reshape(part.shape)
        return torch.cat(parts, dim=1)


@lru_cache(maxsize=64)
def plan_of(spec: GraphSpec, device: torch.device) -> Plan:
    """The plan of a spec; cached."""
    slots = slots_of(spec)
    start, first = 0, {}
    for nodes in spec.node_sets:
        first[nodes.name], start = start, start + nodes.size
    sets = [spec.node_set(slot.nodes) for slot in slots.slots]
    rows = [first[nodes.name] + torch.arange(nodes.size) for nodes in sets]
    levels = [
        (number, _around(nodes.shape, slot.basis))
        for number, (slot, nodes) in enumerate(zip(slots.slots, sets, strict=True))
        if slot.basis is not None
    ]
    return Plan(
        spec,
        slots,
        tuple(_steps(spec, slots)),
        torch.cat(rows).to(device),
        tuple(nodes.size for nodes in sets),
        tuple(levels),
        tuple(
            (e, (first[e.target], first[e.target] + spec.node_set(e.target).size))
            for e in slots.facts
        ),
        memberships(spec).to(device),
    )


def _around(shape: tuple[int, ...], place: int) -> tuple[int, int, int]:
    return math.prod(shape[:place]), shape[place], math.prod(shape[place + 1 :])


def _steps(spec: GraphSpec, slots: Slots) -> list[Step]:
    """Everything that carries messages, in the order in which the network runs."""
    timed: list[tuple[float, Step]] = []
    written: dict[int, float] = {}
    for item in slots.maps:
        timed.append((item.edges.depth, _product(spec, item)))
        written[item.target.slot] = max(item.edges.depth, written.get(item.target.slot, 0))
    for gain in slots.gains:
        late = 0.2 if gain.offset is not None else 0.3
        index = _broadcast(spec, gain.edges.target, slots.slots[gain.source.slot].nodes)
        step = Scaled(gain.source, gain.target, gain.edges, gain.offset, index)
        timed.append((gain.edges.depth + late, step))
    for share in slots.shares:
        wide = spec.node_set(slots.slots[share.wide].nodes)
        narrow = spec.node_set(slots.slots[share.narrow].nodes)
        kept = tuple(wide.axes.index(axis) for axis in narrow.axes)
        time = max(written.get(slot, 0) for slot in (share.wide, share.narrow))
        for dual in (False, True):
            ports = Port(share.wide, dual), Port(share.narrow, dual)
            timed.append((time + 0.5, Shared(*ports, wide.shape, kept)))
    return [step for _, step in sorted(timed, key=lambda item: item[0])]


def _broadcast(spec: GraphSpec, narrow: str, wide: str) -> Tensor | None:
    """For every neuron of a node set, the one of another set whose axes it has all."""
    if narrow == wide:
        return None
    axes = dict(zip(spec.node_set(wide).axes, spec.node_set(wide).shape, strict=True))
    grids = torch.meshgrid(*map(torch.arange, axes.values()), indexing="ij")
    place = dict(zip(axes, grids, strict=True))
    number = torch.zeros(tuple(axes.values()), dtype=torch.long)
    for axis, size in zip(spec.node_set(narrow).axes, spec.node_set(narrow).shape, strict=True):
        number = number * size + place.get(axis, torch.tensor(0))
    return number.flatten()


def _product(spec: GraphSpec, item: Map) -> Product:
    letters: dict[tuple[str | None, str], str] = {}
    for dim in item.edges.dims:
        if dim.port != "tap":
            letters.setdefault((dim.axis, dim.port), chr(ord("A") + len(letters)))
    source, target = spec.node_set(item.edges.source), spec.node_set(item.edges.target)

    def of(axes: Sequence[str], end: str) -> str:
        return "".join(letters.get((axis, end)) or letters[axis, "both"] for axis in axes)

    block = "".join(letters[d.axis, d.port] for d in item.edges.dims if d.port != "tap")
    return Product(
        item.source,
        item.target,
        item.edges,
        (block, of(source.axes, "source"), of(target.axes, "target")),
        (source.shape, target.shape),
    )


def _blocks(graph: ParameterGraph, plan: Plan) -> dict[str, Tensor]:
    """Edge sets with their taps last: shape (B, *pair dims, taps)."""
    result = {}
    for edges in plan.spec.edge_sets:
        block = graph.block(edges).permute([0, *(1 + place for place in tap_order(edges))])
        pairs = sum(dim.port != "tap" for dim in edges.dims)
        result[edges.name] = block.reshape(*block.shape[: 1 + pairs], edges.num_taps)
    return result
