"""Slots: node sets with the unit (scale, sign, basis) that their values carry.

The values that pass a node set carry units (as in dimensional analysis), and may carry another
one after a normalisation than before. A *slot* is a node set together with one such unit. Channels
``x`` of a slot transform like the values, channels ``y`` inversely, so that products of both do
not transform at all. An edge set maps the slot that it reads to the slot that it writes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import torch
from torch import Tensor

from gmn.errors import UnsupportedArchitecture
from gmn.spec import EdgeSet, Gauge, GraphSpec, NodeSet, Scaling, ScalingTerm

# Powers of the scales of a spec, by name; sorted, without zeros. Signs count modulo 2.
Unit = tuple[tuple[str, float], ...]
Kind = Literal["free", "positive", "sign", "both", "general", "orthogonal"]
InvariantPart = Literal["size", "sign", "nothing"]


@dataclass(frozen=True)
class Slot:
    """Neurons that carry one unit.

    Attributes:
        nodes: name of the node set.
        kind: which group acts: none, positive scales, signs, both, or changes of basis.
        basis: position in the node set's axes of the one that a change of basis mixes.
    """

    nodes: str
    kind: Kind
    basis: int | None = None


@dataclass(frozen=True)
class Port:
    """Channels of a slot: ``x``, or ``y`` if ``dual``."""

    slot: int
    dual: bool

    def inverse(self) -> Port:
        """The channels that transform inversely."""
        return Port(self.slot, not self.dual)


@dataclass(frozen=True)
class Map:
    """An edge set that takes values from one slot to another."""

    edges: EdgeSet
    source: Port
    target: Port


@dataclass(frozen=True)
class SlotVector:
    """A diagonal edge set whose values transform like those of a slot: a bias, or a constant."""

    edges: EdgeSet
    port: Port


@dataclass(frozen=True)
class Gain:
    """A diagonal edge set that multiplies the values of one slot into another.

    Attributes:
        offset: for a variance, the constant added before its inverse root is taken; else None.
    """

    edges: EdgeSet
    source: Port
    target: Port
    offset: float | None


@dataclass(frozen=True)
class Share:
    """Two slots of one unit; the neurons of ``wide`` have further axes (the queries of a key)."""

    wide: int
    narrow: int


@dataclass(frozen=True)
class Power:
    """Two slots of the same neurons: the unit of ``target`` is a power of that of ``source``.

    Attributes:
        exponent: which power, at least 1; or 0, where only signs are left (a direction).
        absolute: whether signs act on the source only (the absolute value, even powers).
    """

    source: int
    target: int
    exponent: float
    absolute: bool


@dataclass(frozen=True)
class Slots:
    """All slots of a spec and how its edge sets connect them.

    Attributes:
        links: further slots of one unit: the neurons of each have axes that the other's have not,
            and the axes of the unit's scales in common.
        powers: slots whose units are powers of each other.
        invariant_edges: diagonal edge sets that no symmetry changes (slopes, unscaled gains).
        unfactored: by name, edge sets whose scales are not products of one scale of each end, and
            which part of their values is invariant.
    """

    slots: tuple[Slot, ...]
    maps: tuple[Map, ...]
    vectors: tuple[SlotVector, ...]
    gains: tuple[Gain, ...]
    shares: tuple[Share, ...]
    links: tuple[Share, ...]
    powers: tuple[Power, ...]
    invariant_edges: tuple[EdgeSet, ...]
    unfactored: Mapping[str, InvariantPart]


ADDED = ("bias", "shift", "mean")


@lru_cache(maxsize=64)
def slots_of(spec: GraphSpec) -> Slots:
    """Finds the slots of a spec, without phases and translations: these are taken out before.

    The slots of a node set are the units of the edges that enter or leave it.
    """
    return _sorted(spec, _SlotFinder(spec).find())


def _sorted(spec: GraphSpec, slots: Slots) -> Slots:
    """The same with slots in the order of the spec's node sets."""
    position = {nodes.name: index for index, nodes in enumerate(spec.node_sets)}
    order = sorted(range(len(slots.slots)), key=lambda slot: position[slots.slots[slot].nodes])
    index = {old: new for new, old in enumerate(order)}

    def at(port: Port) -> Port:
        return Port(index[port.slot], port.dual)

    return Slots(
        tuple(slots.slots[old] for old in order),
        tuple(Map(m.edges, at(m.source), at(m.target)) for m in slots.maps),
        tuple(SlotVector(e.edges, at(e.port)) for e in slots.vectors),
        tuple(Gain(g.edges, at(g.source), at(g.target), g.offset) for g in slots.gains),
        tuple(Share(index[s.wide], index[s.narrow]) for s in slots.shares),
        tuple(Share(index[s.wide], index[s.narrow]) for s in slots.links),
        tuple(replace(p, source=index[p.source], target=index[p.target]) for p in slots.powers),
        slots.invariant_edges,
        slots.unfactored,
    )


class _SlotFinder:
    def __init__(self, spec: GraphSpec) -> None:
        self._spec = spec
        self._slot_index: dict[tuple[str, Unit], int] = {}
        self._slots: list[Slot] = []
        self._even = {s.name for s in spec.scalings if s.domain == "sign"}
        self._even |= {g.name for g in spec.gauges if g.group == "orthogonal"}
        acting: list[Scaling | Gauge] = [s for s in spec.scalings if s.domain != "phase"]
        acting += spec.gauges
        self._axes = {symmetry.name: set(symmetry.axes) for symmetry in acting}
        self._bases = {gauge.name for gauge in spec.gauges}
        self._terms: dict[str, list[tuple[str, ScalingTerm]]] = {}
        self._carriers = {
            symmetry.name: carriers
            for symmetry in acting
            if not symmetry.axes and (carriers := _carriers(spec, symmetry)) is not None
        }
        self._offsets: dict[str, float] = {}
        self._unfactored: dict[str, InvariantPart] = {}
        for symmetry in acting:
            for term in symmetry.terms:
                if not self._has_end(term):
                    self._set_unfactored(symmetry, term.edge_set)
                    continue
                terms = self._terms.setdefault(term.edge_set, [])
                terms.append((symmetry.name, term))
                self._offsets[term.edge_set] = term.offset

    def find(self) -> Slots:
        for nodes in self._spec.node_sets:
            if nodes.role != "hidden":
                self._slot(nodes.name, ())
        maps, vectors = [], []
        for edges in self._spec.edge_sets:
            units = self._units(edges)
            if edges.diagonal and _adds(edges):
                vectors.append(SlotVector(edges, self._port(edges.target, units["both"])))
            elif not edges.diagonal:
                source = self._port(edges.source, _power(units["source"], -1))
                maps.append(Map(edges, source, self._port(edges.target, units["target"])))
        for nodes in self._spec.node_sets:
            if not any(name == nodes.name for name, _ in self._slot_index):
                self._slot(nodes.name, ())
        variances_first = sorted(self._spec.edge_sets, key=lambda edges: edges.kind != "variance")
        gains = [gain for edges in variances_first for gain in self._gains(edges)]
        vectors += self._remaining_vectors({gain.edges for gain in gains})
        self._add_powers()
        slots = tuple(self._slots)
        invariant_edges = tuple(e for e in self._spec.edge_sets if self._is_invariant(e))
        shares = tuple(self._shares())
        links, powers = tuple(self._links(shares)), tuple(self._powers())
        owners = {edges.name: edges.tied_to or edges.name for edges in self._spec.edge_sets}
        unfactored = {
            n: self._unfactored[owner] for n, owner in owners.items() if owner in self._unfactored
        }
        return Slots(
            slots,
            tuple(maps),
            tuple(vectors),
            tuple(gains),
            shares,
            links,
            powers,
            invariant_edges,
            unfactored,
        )

    def _has_end(self, term: ScalingTerm) -> bool:
        """Whether a scale belongs to the neurons of one end, each of which has one."""
        edges = self._spec.edge_set(term.edge_set)
        if edges.diagonal:
            return True
        scaled_dims = [edges.dims[dim] for dim in term.dims]
        if {"target", "source"} <= {dim.port for dim in scaled_dims}:
            return False
        indexed = [(dim.axis, dim.port) for dim in edges.dims]
        return all(indexed.count((dim.axis, dim.port)) == 1 for dim in scaled_dims)

    def _set_unfactored(self, symmetry: Scaling | Gauge, name: str) -> None:
        if isinstance(symmetry, Gauge):
            raise UnsupportedArchitecture(
                f"node set {self._spec.edge_set(name).source}: the change of basis "
                f"{symmetry.name} acts on several dimensions of {name} at once. DualGMN and "
                "ScaleGMN assume that it acts on the neurons of one end. GMN, NeuralGraphGNN and "
                "NeuralGraphTransformer read this architecture without its changes of basis"
            )
        invariant: InvariantPart = "size" if symmetry.domain == "sign" else "sign"
        self._unfactored[name] = (
            invariant if self._unfactored.get(name, invariant) == invariant else "nothing"
        )

    def _is_invariant(self, edges: EdgeSet) -> bool:
        return edges.diagonal and not _adds(edges) and not self._units(edges)["both"]

    def _units(self, edges: EdgeSet) -> dict[str, Unit]:
        """The unit of each end of an edge set; of a diagonal one, all of it under ``both``."""
        result: dict[str, dict[str, float]] = {"target": {}, "source": {}, "both": {}}
        for name, term in self._terms.get(edges.tied_to or edges.name, ()):
            if edges.diagonal or name not in self._carriers:
                end = "both" if edges.diagonal else self._end(edges, term)
                result[end][name] = result[end].get(name, 0.0) + term.exponent
        for name, carriers in () if edges.diagonal else self._carriers.items():
            result["source"][name] = float(edges.source in carriers)
            result["target"][name] = float(edges.target in carriers)
        part = self._unfactored.get(edges.tied_to or edges.name)
        return {end: self._clean(self._left(powers, part)) for end, powers in result.items()}

    def _left(self, powers: Mapping[str, float], part: InvariantPart | None) -> Mapping[str, float]:
        """The powers that a block carries of which a part is read: sizes have no signs."""
        if part is None:
            return powers
        even = {"size": False, "sign": True}.get(part)  # which are left; "nothing" has none
        return {name: power for name, power in powers.items() if (name in self._even) == even}

    def _end(self, edges: EdgeSet, term: ScalingTerm) -> str:
        """The end of the edges that a term scales; a tied block may have its ends exchanged."""
        first = self._spec.edge_set(edges.tied_to or edges.name).dims
        ports = {first[dim].port for dim in term.dims} - {"both"} or {term.port}
        end = "source" if "source" in ports else "target"
        transposed = [dim.port for dim in edges.dims] != [dim.port for dim in first]
        return {"target": "source", "source": "target"}[end] if transposed else end

    def _clean(self, powers: Mapping[str, float]) -> Unit:
        reduced = {n: p % 2 if n in self._even else p for n, p in powers.items()}
        return tuple(sorted((name, power) for name, power in reduced.items() if power))

    def _port(self, nodes: str, unit: Unit) -> Port:
        directed = [power for name, power in unit if name not in self._even]
        dual = bool(directed) and directed[0] < 0
        return Port(self._slot(nodes, self._clean(dict(_power(unit, -1 if dual else 1)))), dual)

    def _slot(self, nodes: str, unit: Unit) -> int:
        if (nodes, unit) not in self._slot_index:
            self._slot_index[nodes, unit] = len(self._slots)
            self._slots.append(self._describe(self._spec.node_set(nodes), unit))
        return self._slot_index[nodes, unit]

    def _describe(self, nodes: NodeSet, unit: Unit) -> Slot:
        for gauge in self._spec.gauges:
            if any(name == gauge.name for name, _ in unit):
                if gauge.axes[-1] not in nodes.axes:
                    raise UnsupportedArchitecture(
                        f"node set {nodes.name}: the change of basis {gauge.name} mixes "
                        f"{gauge.axes[-1]}, which does not index its neurons, as DualGMN and "
                        "ScaleGMN assume. GMN, NeuralGraphGNN and NeuralGraphTransformer read this "
                        "architecture without its changes of basis"
                    )
                return Slot(nodes.name, gauge.group, nodes.axes.index(gauge.axes[-1]))
        signs = any(name in self._even for name, _ in unit)
        scales = any(name not in self._even for name, _ in unit)
        kind: Kind = "both" if signs and scales else "sign" if signs else "free"
        return Slot(nodes.name, "positive" if scales and not signs else kind)

    def _gains(self, edges: EdgeSet) -> Iterator[Gain]:
        """Multiplication by a diagonal block, from every slot whose result has a slot, too."""
        if not edges.diagonal or _adds(edges):
            return
        unit, offset = self._units(edges)["both"], None
        if edges.kind == "variance":
            unit, offset = _power(unit, -0.5), self._offsets.get(edges.name, 0.0)
        known: set[tuple[Port, Port]] = set()
        for (nodes, own_unit), slot in list(self._slot_index.items()):
            for dual in (False, True) if self._can_multiply(edges, nodes, unit, own_unit) else ():
                if dual and self._is_even(own_unit):
                    continue
                total = self._clean(_product(_power(own_unit, -1 if dual else 1), unit))
                if offset is not None and len(total) < len(own_unit):
                    self._port(nodes, total)  # between a variance and the gain after it
                source, target = Port(slot, dual), self._find_port(nodes, total)
                if target is None or (target.dual and self._is_even(own_unit)):
                    continue
                if (target.inverse(), source.inverse()) not in known:
                    known.add((source, target))
                    yield Gain(edges, source, target, offset)

    def _can_multiply(self, edges: EdgeSet, nodes: str, unit: Unit, own_unit: Unit) -> bool:
        """Whether a block may multiply these neurons: its own, or those that it is broadcast to."""
        if nodes == edges.target:
            return bool(unit) or not own_unit
        block, wide = self._spec.node_set(edges.target), self._spec.node_set(nodes)
        return bool(unit) and (block.size == 1 or set(block.axes) < set(wide.axes))

    def _find_port(self, nodes: str, unit: Unit) -> Port | None:
        for dual in (False, True):
            slot = self._slot_index.get((nodes, self._clean(dict(_power(unit, -1 if dual else 1)))))
            if slot is not None:
                return Port(slot, dual)
        return None

    def _is_even(self, unit: Unit) -> bool:
        return all(name in self._even for name, _ in unit)

    def _shares(self) -> Iterator[Share]:
        """Slots of one unit whose neurons differ by some axes: keys that several queries read."""
        for (first_name, unit), wide in self._slot_index.items():
            for (second_name, second_unit), narrow in self._slot_index.items():
                first, second = self._spec.node_set(first_name), self._spec.node_set(second_name)
                inside = set(second.axes) < set(first.axes)
                if unit == second_unit and inside and first.role == second.role == "hidden":
                    yield Share(wide, narrow)

    def _links(self, shares: Sequence[Share]) -> Iterator[Share]:
        """A chain of the slots of each unit, where nothing else connects them."""
        known = {pair for s in shares for pair in ((s.wide, s.narrow), (s.narrow, s.wide))}
        last: dict[Unit, int] = {}
        for nodes in self._spec.node_sets:
            for (name, unit), slot in self._slot_index.items():
                if name != nodes.name or not unit or not self._has_unit_axes(nodes, unit):
                    continue
                if unit in last and (last[unit], slot) not in known:
                    yield Share(last[unit], slot)
                last[unit] = slot

    def _has_unit_axes(self, nodes: NodeSet, unit: Unit) -> bool:
        """Whether the node set has all axes that index the unit's scales."""
        axes = set().union(*(self._axes[name] for name, _ in unit))
        distinct = len(set(nodes.axes)) == len(nodes.axes)
        return distinct and nodes.size > 0 and axes <= set(nodes.axes)

    def _remaining_vectors(self, known: Collection[EdgeSet]) -> Iterator[SlotVector]:
        """Diagonal blocks that multiply nothing: their values transform like those of a slot."""
        for edges in self._spec.edge_sets:
            unit = self._units(edges)["both"]
            scaled = bool(unit) and not self._offsets.get(edges.tied_to or edges.name)
            if edges.diagonal and scaled and not _adds(edges) and edges not in known:
                yield SlotVector(edges, self._port(edges.target, unit))

    def _add_powers(self) -> None:
        """Makes slots where only other neurons carry a power of a unit."""
        units = {unit for _, unit in self._slot_index}
        for name, unit in list(self._slot_index):
            nodes = self._spec.node_set(name)
            for other in units:
                if self._exponent(unit, other) is not None and self._has_unit_axes(nodes, other):
                    self._slot(name, other)

    def _powers(self) -> Iterator[Power]:
        for (name, unit), source in self._slot_index.items():
            for (same, other), target in self._slot_index.items():
                exponent = self._exponent(unit, other) if name == same else None
                if exponent is not None:
                    absolute = self._signs(unit) != self._signs(other)
                    yield Power(source, target, exponent, absolute)

    def _exponent(self, unit: Unit, other: Unit) -> float | None:
        """The power, at least 1 or 0, of ``unit`` that is ``other``; None if there is none."""
        one, two = self._scales(unit), self._scales(other)
        mixed = any(name in self._bases for name, _ in (*unit, *other))
        if unit == other or not one or mixed or self._signs(other) not in ((), self._signs(unit)):
            return None
        if not two:
            return 0.0 if self._signs(other) else None
        if one.keys() != two.keys():
            return None
        ratios = {two[name] / one[name] for name in one}
        return ratios.pop() if len(ratios) == 1 and min(ratios) >= 1 else None

    def _scales(self, unit: Unit) -> dict[str, float]:
        return {name: power for name, power in unit if name not in self._even}

    def _signs(self, unit: Unit) -> Unit:
        return tuple(item for item in unit if item[0] in self._even)


def _carriers(spec: GraphSpec, symmetry: Scaling | Gauge) -> frozenset[str] | None:
    """The node sets whose values change where one sign of whole blocks does.

    From blocks that write the sign it passes all that lies before those that read it. An edge set
    changes sign if exactly one of its ends does, one that is added if its neurons do; inputs and
    outputs never change.

    Returns:
        None if no choice of node sets is true to all edge sets: values of one may carry the sign
        in one place and not in another.
    """
    if isinstance(symmetry, Gauge) or symmetry.domain != "sign":
        return None
    flipped = {term.edge_set for term in symmetry.terms if term.exponent % 2}
    signs: dict[str, tuple[str, bool]] = {}  # by node set, one it goes with, and whether opposite

    def root(name: str) -> tuple[str, bool]:
        opposite = False
        while name in signs:
            name, differs = signs[name]
            opposite ^= differs
        return name, opposite

    fixed = ""  # what never changes
    relations = [(n.name, fixed, False) for n in spec.node_sets if n.role in ("input", "output")]
    for edges in spec.edge_sets:
        flips = (edges.tied_to or edges.name) in flipped
        if not edges.diagonal:
            relations.append((edges.source, edges.target, flips))
        elif _adds(edges):
            relations.append((edges.target, fixed, flips))
        elif flips:
            return None
    for one, other, differs in relations:
        (first, opposite), (second, also) = root(one), root(other)
        if first != second:
            signs[first] = second, opposite ^ also ^ differs
        elif opposite ^ also != differs:
            return None
    still = root(fixed)
    roots = {nodes.name: root(nodes.name) for nodes in spec.node_sets}
    return frozenset(
        name
        for name, (first, opposite) in roots.items()
        if opposite != (first == still[0] and still[1])
    )


def broadcast_index(spec: GraphSpec, narrow: str, wide: str) -> Tensor:
    """For every neuron of one node set, the neuron of another that has some of its axes.

    Args:
        spec: the architecture.
        narrow: the node set of fewer axes.
        wide: the node set of more axes.

    Returns:
        Indices of neurons of ``narrow``, int64, shape (neurons of ``wide``,).
    """
    source, target = spec.node_set(narrow), spec.node_set(wide)
    grids = torch.meshgrid(*map(torch.arange, target.shape), indexing="ij")
    coordinates = dict(zip(target.axes, grids, strict=True))
    index = torch.zeros(target.shape, dtype=torch.long)
    for axis, size in zip(source.axes, source.shape, strict=True):
        index = index * size + coordinates.get(axis, torch.tensor(0))
    return index.flatten()


def _adds(edges: EdgeSet) -> bool:
    """Whether the values of a diagonal edge set are added, rather than multiplied by."""
    return edges.kind in ADDED or edges.operation.name in ("read", "unused")


def _product(one: Unit, other: Unit) -> dict[str, float]:
    return {n: dict(one).get(n, 0.0) + dict(other).get(n, 0.0) for n, _ in (*one, *other)}


def _power(unit: Unit, exponent: float) -> Unit:
    return tuple((name, power * exponent) for name, power in unit)
