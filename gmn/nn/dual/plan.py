"""The contractions of a spec: which products carry messages, and in which order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor

from gmn.nn.dual.slots import Map, Port, Slots, slots_of
from gmn.nn.dual.stream import Blocks, Contraction
from gmn.spec import EdgeSet, GraphSpec, NodeSet

Codes = dict[str, Tensor]  # by edge set
RANKS = 4  # independent ways in which a message weighs the taps of a kernel


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

    def ahead(self, channels: Tensor, blocks: Blocks, codes: Codes) -> Tensor:
        """From (B, source neurons, c) to (B, target neurons, c)."""
        code = codes[self.edges.name][:, :RANKS]
        contract = Contraction(*self.letters, self.sizes)
        return contract(blocks, self.edges.name, code, channels)

    def back(self, channels: Tensor, blocks: Blocks, codes: Codes) -> Tensor:
        """From (B, target neurons, c) to (B, source neurons, c), along the adjoint."""
        block, source, target = self.letters
        code = codes[self.edges.name][:, RANKS : 2 * RANKS]
        contract = Contraction(block, target, source, self.sizes[::-1])
        return contract(blocks, self.edges.name, code, channels)

    def outer(self, targets: Tensor, sources: Tensor, code: Tensor) -> Tensor:
        """Products of the channels of both ends, a block of shape (B, *pair dims, taps).

        Dimensions that number neither end have size 1.


        Args:
            targets: shape (B, target neurons, c).
            sources: shape (B, source neurons, c).
            code: shape (taps, ranks), how each rank of channels counts at each tap.
        """
        block, source, target = self.letters
        batch, width = len(targets), targets.shape[-1]
        ends = [
            channels.reshape(batch, *shape, RANKS, width // RANKS)
            for channels, shape in zip((targets, sources), self.sizes[::-1], strict=True)
        ]
        own = "".join(letter for letter in block if letter in source + target)
        found = torch.einsum(f"b{target}rc,b{source}rc->b{own}r", *ends)
        for place, letter in enumerate(block, start=1):
            found = found if letter in own else found.unsqueeze(place)
        return found @ code.T

    def spread(self, targets: Tensor, sources: Tensor) -> Tensor:
        """Sums of a number of each end, (B, target neurons) and (B, source neurons), per pair."""
        block, source, target = self.letters
        size = dict(zip(source + target, (*self.sizes[0], *self.sizes[1]), strict=False))
        both = []
        for numbers, letters in ((targets, target), (sources, source)):
            found = numbers.reshape(len(numbers), *(size[letter] for letter in letters))
            order = sorted(range(len(letters)), key=lambda place: block.index(letters[place]))
            found = found.permute(0, *(1 + place for place in order))
            shape = [size[letter] if letter in letters else 1 for letter in block]
            both.append(found.reshape(len(numbers), *shape))
        return both[0] + both[1]


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

    def ahead(self, channels: Tensor, blocks: Blocks, codes: Codes) -> Tensor:
        """Both (B, neurons, c)."""
        return self._times(channels, blocks, codes[self.edges.name][:, :RANKS])

    def back(self, channels: Tensor, blocks: Blocks, codes: Codes) -> Tensor:
        """Both (B, neurons, c)."""
        return self._times(channels, blocks, codes[self.edges.name][:, RANKS : 2 * RANKS])

    def _times(self, channels: Tensor, blocks: Blocks, code: Tensor) -> Tensor:
        batch, rows, width = channels.shape
        values = blocks[self.edges.name].flatten(1, -2)
        values = values if self.index is None else values[:, self.index]
        values = values if self.offset is None else (values + self.offset).rsqrt()
        split = channels.reshape(batch, rows, RANKS, width // RANKS)
        return (split * (values @ code).unsqueeze(-1)).reshape(batch, rows, width)


@dataclass(frozen=True)
class Shared:
    """Neurons of which each set may have axes of its own: means over those, and copies along them.

    Attributes:
        ends: axes and shape of the source's neurons, and of the target's.
    """

    source: Port
    target: Port
    ends: tuple[NodeSet, NodeSet]

    def ahead(self, channels: Tensor, blocks: Blocks, codes: Codes) -> Tensor:
        """From (B, source neurons, c) to (B, target neurons, c)."""
        return _spread(channels, *self.ends)

    def back(self, channels: Tensor, blocks: Blocks, codes: Codes) -> Tensor:
        """From (B, target neurons, c) to (B, source neurons, c)."""
        return _spread(channels, *self.ends[::-1])


@dataclass(frozen=True)
class Raised:
    """Channels to a power, where the units of two slots of the same neurons are powers.

    Attributes:
        exponent: at least 1; or 0 for channels over their length.
        absolute: whether the sign is lost.
    """

    source: Port
    target: Port
    exponent: float
    absolute: bool

    def ahead(self, channels: Tensor) -> Tensor:
        """From ``x`` to ``|x|^p``, or to that with the sign of ``x``."""
        if self.exponent == 0:
            return channels / _length(channels)
        other = channels.abs() if self.absolute else channels
        return other if self.exponent == 1 else other * channels.abs().pow(self.exponent - 1)

    def back(self, channels: Tensor, at: Tensor) -> Tensor:
        """What the target's inverse channels say of the source's: times the derivative at ``x``."""
        if self.exponent == 0:
            return channels / _length(at)
        slope = at.sign() if self.absolute else torch.ones_like(at)
        if self.exponent != 1:
            slope = slope * at.abs().pow(self.exponent - 1)
        return channels * slope


Step = Product | Scaled | Shared | Raised


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
    """

    spec: GraphSpec
    slots: Slots
    steps: tuple[Step, ...]
    rows: Tensor
    sizes: tuple[int, ...]
    levels: tuple[tuple[int, tuple[int, int, int]], ...]
    facts: tuple[tuple[EdgeSet, tuple[int, int]], ...]

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

    def span(self, nodes: str) -> tuple[int, int]:
        """The first neuron of a node set, and the first after it."""
        return self._spans[nodes]

    @cached_property
    def _spans(self) -> dict[str, tuple[int, int]]:
        spans, start = {}, 0
        for nodes in self.spec.node_sets:
            spans[nodes.name], start = (start, start + nodes.size), start + nodes.size
        return spans

    def span_of(self, port: Port) -> tuple[int, int]:
        """The same of the neurons of a port."""
        return self.span(self.slots.slots[port.slot].nodes)

    @cached_property
    def readers(self) -> dict[str, Port]:
        """By edge set, the channels that what it reads transforms like."""
        return {item.edges.name: item.source for item in self.slots.maps}

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
    def signed(self) -> Tensor:
        """(R, 1) ones where only signs act, so that the length of channels is invariant."""
        return self._mask("sign")

    @cached_property
    def even(self) -> Tensor:
        """(R, 1) ones where products of two of them are."""
        return self._mask("sign", "both")

    @cached_property
    def has_even(self) -> bool:
        """Whether there are such rows."""
        return bool(self.even.any())

    def _mask(self, *kinds: str) -> Tensor:
        kept = [slot.kind in kinds for slot in self.slots.slots]
        flags = torch.tensor(kept, dtype=torch.float32)
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
    for share in (*slots.shares, *slots.links):
        both = (share.wide, share.narrow)
        wide, narrow = (spec.node_set(slots.slots[slot].nodes) for slot in both)
        time = max(written.get(slot, 0) for slot in both)
        for dual in (False, True):
            ports = Port(share.wide, dual), Port(share.narrow, dual)
            timed.append((time + 0.5, Shared(*ports, (wide, narrow))))
    for power in slots.powers:
        ends = Port(power.source, False), Port(power.target, False)
        time = written.get(power.source, 0) + 0.4
        timed.append((time, Raised(*ends, power.exponent, power.absolute)))
    return [step for _, step in sorted(timed, key=lambda item: item[0])]


def _length(channels: Tensor) -> Tensor:
    """Along the last dimension; infinite where it is 0."""
    length = torch.linalg.vector_norm(channels, dim=-1, keepdim=True)
    return torch.where(length == 0, torch.inf, length)


def _spread(channels: Tensor, source: NodeSet, target: NodeSet) -> Tensor:
    """Means over the axes that only the source has, copied along those that only the target has."""
    batch, width = len(channels), channels.shape[-1]
    means = channels.reshape(batch, *source.shape, width)
    kept = [axis for axis in source.axes if axis in target.axes]
    if len(kept) < len(source.axes):
        means = means.mean([1 + p for p, a in enumerate(source.axes) if a not in target.axes])
    order = [1 + kept.index(axis) for axis in target.axes if axis in kept]
    sizes = zip(target.axes, target.shape, strict=True)
    shape = [size if axis in kept else 1 for axis, size in sizes]
    copies = means.permute(0, *order, -1).reshape(batch, *shape, width)
    return copies.expand(batch, *target.shape, width).reshape(batch, -1, width)


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
    pair_dims = [dim for dim in item.edges.dims if dim.port != "tap"]
    block = "".join(chr(ord("A") + number) for number in range(len(pair_dims)))
    # Where an axis stands twice at an end, the last dimension numbers its neurons.
    letters: dict[tuple[str | None, str], str] = {
        (dim.axis, dim.port): letter for dim, letter in zip(pair_dims, block, strict=True)
    }
    source, target = spec.node_set(item.edges.source), spec.node_set(item.edges.target)

    def of(axes: Sequence[str], end: str) -> str:
        return "".join(letters.get((axis, end)) or letters[axis, "both"] for axis in axes)

    return Product(
        item.source,
        item.target,
        item.edges,
        (block, of(source.axes, "source"), of(target.axes, "target")),
        (source.shape, target.shape),
    )
