"""The contractions of a spec: which products carry messages, and in which order."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import accumulate

import torch
from torch import Tensor

from gmn import features
from gmn.nn.dual.activations import Activation, activation_of
from gmn.nn.dual.contraction import Contraction
from gmn.nn.dual.diagonals import Diagonal, Diagonals
from gmn.nn.dual.slots import Map, Port, Slot, Slots, broadcast_index, slots_of
from gmn.spec import EdgeSet, GraphSpec, NodeSet
from gmn.spec.parts import Role

RANKS = 4  # independent weightings of the taps of a kernel in a message


@dataclass(frozen=True)
class Product:
    """A map as an einsum between its block and the channels of its source.

    Attributes:
        source: the port it reads.
        target: the port it writes.
        edges: its edge set.
        subscripts: einsum subscripts of the block, of source neurons and of target neurons.
        sizes: shapes of source and target node sets.
    """

    source: Port
    target: Port
    edges: EdgeSet
    subscripts: tuple[str, str, str]
    sizes: tuple[tuple[int, ...], tuple[int, ...]]

    @cached_property
    def contraction(self) -> Contraction:
        """The products with the block."""
        return Contraction(*self.subscripts, self.sizes)

    def outer(self, targets: Tensor, sources: Tensor, code: Tensor) -> Tensor:
        """Products of the channels of both ends, a block of shape (B, *pair dims, taps).

        Dimensions that index neither end have size 1.

        Args:
            targets: shape (B, target neurons, c).
            sources: shape (B, source neurons, c).
            code: shape (taps, ranks), how each rank of channels counts at each tap.
        """
        block, source, target = self.subscripts
        batch, width = len(targets), targets.shape[-1]
        ends = [
            channels.reshape(batch, *shape, RANKS, width // RANKS)
            for channels, shape in zip((targets, sources), self.sizes[::-1], strict=True)
        ]
        kept = "".join(letter for letter in block if letter in source + target)
        result = torch.einsum(f"b{target}rc,b{source}rc->b{kept}r", *ends)
        for dim, letter in enumerate(block, start=1):
            result = result if letter in kept else result.unsqueeze(dim)
        return result @ code.T

    def spread(self, targets: Tensor, sources: Tensor) -> Tensor:
        """Sums of a value of each end, (B, target neurons) and (B, source neurons), per pair."""
        block, source, target = self.subscripts
        size = dict(zip(source + target, (*self.sizes[0], *self.sizes[1]), strict=False))
        terms = []
        for values, subscripts in ((targets, target), (sources, source)):
            block_values = values.reshape(len(values), *(size[letter] for letter in subscripts))
            order = sorted(range(len(subscripts)), key=lambda dim: block.index(subscripts[dim]))
            block_values = block_values.permute(0, *(1 + dim for dim in order))
            shape = [size[letter] if letter in subscripts else 1 for letter in block]
            terms.append(block_values.reshape(len(values), *shape))
        return terms[0] + terms[1]


@dataclass(frozen=True, eq=False)
class DiagonalProduct:
    """Multiplication by a diagonal block.

    Attributes:
        offset: for a variance, the constant added before its inverse root is taken; else None.
        index: for every neuron, the neuron of the block's own node set; None if they are the same.
        before: what the network does to the values first: a layer normalisation.
    """

    source: Port
    target: Port
    edges: EdgeSet
    offset: float | None
    index: Tensor | None
    before: Activation | None = None


@dataclass(frozen=True)
class AxisBroadcast:
    """Averages over axes that only the source has, and broadcasts along those of the target.

    Attributes:
        ends: axes and shape of the source's neurons, and of the target's.
    """

    source: Port
    target: Port
    ends: tuple[NodeSet, NodeSet]

    def forward(self, channels: Tensor) -> Tensor:
        """From (B, source neurons, c) to (B, target neurons, c)."""
        return _spread(channels, *self.ends)

    def backward(self, channels: Tensor) -> Tensor:
        """From (B, target neurons, c) to (B, source neurons, c)."""
        return _spread(channels, *self.ends[::-1])


@dataclass(frozen=True)
class PowerMap:
    """Channels to a power, where the unit of one slot is a power of that of another.

    Attributes:
        exponent: at least 1; or 0 for channels divided by their length.
        absolute: whether the sign is lost.
    """

    source: Port
    target: Port
    exponent: float
    absolute: bool

    def forward(self, channels: Tensor) -> Tensor:
        """From ``x`` to ``|x|^p``, or to that with the sign of ``x``."""
        if self.exponent == 0:
            return channels / _length(channels)
        base = channels.abs() if self.absolute else channels
        return base if self.exponent == 1 else base * channels.abs().pow(self.exponent - 1)

    def backward(self, channels: Tensor, x: Tensor) -> Tensor:
        """The target's inverse channels times the derivative at ``x``."""
        if self.exponent == 0:
            return channels / _length(x)
        slope = x.sign() if self.absolute else torch.ones_like(x)
        if self.exponent != 1:
            slope = slope * x.abs().pow(self.exponent - 1)
        return channels * slope


Step = Product | DiagonalProduct | AxisBroadcast | PowerMap


@dataclass(frozen=True, eq=False)
class SomeRows:
    """Some of the rows of all slots.

    Attributes:
        index: which; None for all of them.
        count: how many.
    """

    index: Tensor | None
    count: int

    @classmethod
    def of(cls, mask: Tensor) -> SomeRows:
        """Those where a mask (R, 1) has ones."""
        index = mask.flatten().nonzero().flatten()
        return cls(None if len(index) == len(mask) else index, len(index))

    def __bool__(self) -> bool:
        """Whether there are any."""
        return self.count > 0

    def select(self, rows: Tensor) -> Tensor:
        """From all rows (B, R, c) to these."""
        return rows if self.index is None else rows.index_select(1, self.index)

    def add(self, total: Tensor, rows: Tensor) -> Tensor:
        """Adds to these rows of a total (B, R, c)."""
        if self.index is None:
            return total + rows
        return total.index_add(1, self.index, rows.to(total))


@dataclass(frozen=True, eq=False)
class Plan:
    """The contractions of a spec, computed once for all forward passes.

    Attributes:
        spec: the architecture.
        slots: its slots.
        steps: all maps that carry messages, in the order in which the network runs.
        rows: (R,) the node of each row; the slots' neurons follow one another.
        sizes: number of rows of each slot.
        basis_shapes: slots with a change of basis, and the shape (before, basis, after) of their
            neurons.
    """

    spec: GraphSpec
    slots: Slots
    steps: tuple[Step, ...]
    rows: Tensor
    sizes: tuple[int, ...]
    basis_shapes: tuple[tuple[int, tuple[int, int, int]], ...]

    def split(self, channels: Tensor) -> tuple[Tensor, ...]:
        """The channels of each slot."""
        return channels.split(self.sizes, dim=1)

    def to_rows(self, nodes: Tensor) -> Tensor:
        """Channels of nodes (B, N, c) at the rows of all slots (B, R, c)."""
        return nodes if self.aligned else nodes.index_select(1, self.rows)

    def to_nodes(self, rows: Tensor) -> Tensor:
        """Sums over the slots of each node."""
        if self.aligned:
            return rows
        count = self.spec.num_nodes
        return rows.new_zeros(len(rows), count, rows.shape[-1]).index_add(1, self.rows, rows)

    def span(self, nodes: str) -> tuple[int, int]:
        """The range of neurons of a node set: the first, and the first after it."""
        return self._spans[nodes]

    @cached_property
    def _spans(self) -> dict[str, tuple[int, int]]:
        spans, start = {}, 0
        for nodes in self.spec.node_sets:
            spans[nodes.name], start = (start, start + nodes.size), start + nodes.size
        return spans

    def span_of(self, port: Port) -> tuple[int, int]:
        """The range of neurons of a port."""
        return self.span(self.slots.slots[port.slot].nodes)

    @cached_property
    def products(self) -> tuple[Product, ...]:
        """The steps that are products with blocks, in order."""
        return tuple(step for step in self.steps if isinstance(step, Product))

    @cached_property
    def edges(self) -> tuple[EdgeSet, ...]:
        """All edge sets in the order in which a table of codes has their taps: products first."""
        products = [step.edges for step in self.products]
        names = {edges.name for edges in products}
        return *products, *(edges for edges in self.spec.edge_sets if edges.name not in names)

    @cached_property
    def taps(self) -> dict[str, tuple[int, int]]:
        """By edge set, the range of its taps in a table of codes."""
        ends = list(accumulate((edges.num_taps for edges in self.edges), initial=0))
        return {e.name: (ends[i], ends[i + 1]) for i, e in enumerate(self.edges)}

    @cached_property
    def tap_owners(self) -> Tensor:
        """(taps,) the position of each tap's edge set in the spec."""
        position = {edges.name: index for index, edges in enumerate(self.spec.edge_sets)}
        owners = torch.tensor([position[edges.name] for edges in self.edges], dtype=torch.long)
        counts = torch.tensor([edges.num_taps for edges in self.edges], dtype=torch.long)
        return owners.repeat_interleave(counts).to(self.rows.device)

    @cached_property
    def tap_descriptions(self) -> Tensor:
        """(taps, :data:`gmn.features.TAP_FEATURES`) where each tap lies in its kernel."""
        described = [features.tap_descriptions(edges) for edges in self.edges]
        return torch.cat(described).to(self.rows.device)

    @cached_property
    def tap_shares(self) -> Tensor:
        """(taps, 1) one over the number of taps of each tap's edge set."""
        counts = torch.tensor([edges.num_taps for edges in self.edges], dtype=torch.long)
        shares = counts.repeat_interleave(counts).double().reciprocal()
        return shares.unsqueeze(1).to(self.rows.device)

    @cached_property
    def gains(self) -> Diagonals:
        """The steps that are products with diagonal blocks, in order."""
        return self._diagonals(
            Diagonal(step.edges, step.index, step.offset)
            for step in self.steps
            if isinstance(step, DiagonalProduct)
        )

    @cached_property
    def vectors(self) -> Diagonals:
        """The slots' vectors."""
        return self._diagonals(
            Diagonal(edges, compressed=edges.kind == "constant" and self._is_free(port.slot))
            for edges, port in ((item.edges, item.port) for item in self.slots.vectors)
        )

    def _is_free(self, slot: int) -> bool:
        return self.slots.slots[slot].kind == "free"

    @cached_property
    def invariants(self) -> Diagonals:
        """Edge sets that no symmetry changes."""
        return self._diagonals(
            Diagonal(edges, compressed=edges.kind == "constant")
            for edges in self.slots.invariant_edges
        )

    @cached_property
    def invariant_nodes(self) -> Tensor:
        """The nodes of their neurons."""
        spans = [self.span(edges.target) for edges in self.slots.invariant_edges]
        return torch.cat([torch.arange(*span) for span in spans]).to(self.rows.device)

    def _diagonals(self, items: Iterable[Diagonal]) -> Diagonals:
        return Diagonals(self.spec, tuple(items), self.taps, self.rows.device)

    @cached_property
    def activations(self) -> tuple[Activation | None, ...]:
        """By slot, what its channels pass when they are read."""
        nodes = [self.spec.node_set(slot.nodes) for slot in self.slots.slots]
        return tuple(
            activation_of(of.operations, slot.kind, of.size)
            for of, slot in zip(nodes, self.slots.slots, strict=True)
        )

    @cached_property
    def readers(self) -> dict[str, Port]:
        """By edge set, the channels that transform like the values it reads."""
        return {item.edges.name: item.source for item in self.slots.maps}

    @cached_property
    def aligned(self) -> bool:
        """Whether every node set has one slot, in order."""
        return bool((self.rows.cpu() == torch.arange(len(self.rows))).all())

    def is_free(self, slot: Slot, role: Role) -> bool:
        """Whether neurons of a slot have a role, and no scale acts on them."""
        return slot.kind == "free" and self.spec.node_set(slot.nodes).role == role

    def is_unsized(self, port: Port) -> bool:
        """Whether no sizes change at a port, so that ``x`` and ``y`` transform alike."""
        return self.slots.slots[port.slot].kind in ("free", "sign", "orthogonal")

    @cached_property
    def free(self) -> Tensor:
        """(R, 1) ones in the rows of neurons that no scale acts on."""
        return self._mask("free")

    @cached_property
    def signed(self) -> Tensor:
        """(R, 1) ones where only signs act, so that the length of channels is invariant."""
        return self._mask("sign")

    @cached_property
    def has_signs(self) -> bool:
        """Whether there are such rows."""
        return bool(self.signed.any())

    @cached_property
    def free_rows(self) -> SomeRows:
        """The rows of neurons that no scale acts on."""
        return SomeRows.of(self.free)

    @cached_property
    def linear_rows(self) -> SomeRows:
        """The rows where channels of unit length are invariant."""
        return SomeRows.of(self._mask("free", "positive"))

    @cached_property
    def even_rows(self) -> SomeRows:
        """The rows where only products of two unit-length channels are invariant."""
        return SomeRows.of(self._mask("sign", "both"))

    def _mask(self, *kinds: str) -> Tensor:
        return self._rows_where([slot.kind in kinds for slot in self.slots.slots])

    def _rows_where(self, kept: Sequence[bool]) -> Tensor:
        flags = torch.tensor(kept, dtype=torch.float32)
        return flags.repeat_interleave(torch.tensor(self.sizes)).unsqueeze(1).to(self.rows.device)

    def basis_mean(self, channels: Tensor) -> Tensor:
        """Channels averaged over the neurons that a change of basis mixes."""
        if not self.basis_shapes:
            return channels
        parts = list(self.split(channels))
        for slot, shape in self.basis_shapes:
            part = parts[slot]
            grouped = part.reshape(len(part), *shape, -1)
            parts[slot] = grouped.mean(2, keepdim=True).expand_as(grouped).reshape(part.shape)
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
    basis_shapes = [
        (index, _around(nodes.shape, slot.basis))
        for index, (slot, nodes) in enumerate(zip(slots.slots, sets, strict=True))
        if slot.basis is not None
    ]
    return Plan(
        spec,
        slots,
        tuple(_steps(spec, slots)),
        torch.cat(rows).to(device),
        tuple(nodes.size for nodes in sets),
        tuple(basis_shapes),
    )


def _around(shape: tuple[int, ...], dim: int) -> tuple[int, int, int]:
    return math.prod(shape[:dim]), shape[dim], math.prod(shape[dim + 1 :])


def _steps(spec: GraphSpec, slots: Slots) -> list[Step]:
    """All maps that carry messages, in the order in which the network runs."""
    scheduled: list[tuple[float, Step]] = []
    write_times: dict[int, float] = {}
    for item in slots.maps:
        scheduled.append((item.edges.depth, _product(spec, item)))
        write_times[item.target.slot] = max(item.edges.depth, write_times.get(item.target.slot, 0))
    for gain in slots.gains:
        delay = 0.2 if gain.offset is not None else 0.3
        slot, target = slots.slots[gain.source.slot], gain.edges.target
        source = spec.node_set(slot.nodes)
        index = None if target == source.name else broadcast_index(spec, target, source.name)
        before = None
        if gain.edges.operation.name == "layer_norm":
            before = activation_of([gain.edges.operation], slot.kind, source.size)
        step = DiagonalProduct(gain.source, gain.target, gain.edges, gain.offset, index, before)
        scheduled.append((gain.edges.depth + delay, step))
    for share in (*slots.shares, *slots.links):
        slot_pair = (share.wide, share.narrow)
        wide, narrow = (spec.node_set(slots.slots[slot].nodes) for slot in slot_pair)
        time = max(write_times.get(slot, 0) for slot in slot_pair)
        for dual in (False, True):
            ports = Port(share.wide, dual), Port(share.narrow, dual)
            scheduled.append((time + 0.5, AxisBroadcast(*ports, (wide, narrow))))
    for power in slots.powers:
        ends = Port(power.source, False), Port(power.target, False)
        time = write_times.get(power.source, 0) + 0.4
        scheduled.append((time, PowerMap(*ends, power.exponent, power.absolute)))
    return [step for _, step in sorted(scheduled, key=lambda item: item[0])]


def _length(channels: Tensor) -> Tensor:
    """Length along the last dimension; infinite where it is 0."""
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


def _product(spec: GraphSpec, item: Map) -> Product:
    pair_dims = [dim for dim in item.edges.dims if dim.port != "tap"]
    block = "".join(chr(ord("A") + dim_index) for dim_index in range(len(pair_dims)))
    # Where an axis stands twice at an end, the last dimension indexes its neurons.
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
