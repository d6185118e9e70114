"""The graph that ScaleGMN runs on: neurons with the scales that act on them, and their edges.

A *row* is a neuron together with one unit of its values (:mod:`gmn.nn.dual.slots`); in chains every
neuron has one row. An edge takes the values of one row to another: a weight, a gain, the inverse
deviation of a batch norm, or 1 where neurons share their values (keys read by several queries).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from gmn.errors import UnsupportedArchitecture
from gmn.graph import ParameterGraph
from gmn.graph.topology import pair_index, topology
from gmn.nn.dual.slots import Gain, Port, Share, Slots, broadcast_index, slots_of
from gmn.nn.passing.groups import groups_of
from gmn.nn.passing.relations import End, Relation, Wiring, relations_of
from gmn.nn.scaled.scale_blocks import ScaleMasks
from gmn.spec import EdgeSet, GraphSpec, Translation


@dataclass(frozen=True, eq=False)
class Values:
    """How to read the values of an edge set.

    Attributes:
        edges: the edge set.
        index: (n,) the pairs of the block to read; None for all in order.
        offset: for a variance, the constant added before its inverse root is taken; else None.
    """

    edges: EdgeSet
    index: Tensor | None = None
    offset: float | None = None

    def of(self, graph: ParameterGraph) -> Tensor:
        """Shape (B, n, taps)."""
        values = graph.pairs(self.edges)
        values = values if self.index is None else values[:, self.index]
        return values if self.offset is None else (values + self.offset).rsqrt()


@dataclass(frozen=True, eq=False)
class ScaledGraph:
    """Rows, edges between them, and the values on both.

    Attributes:
        spec: the architecture.
        node: (R,) the neuron of each row.
        kind: the group that acts on each row.
        kinds: the same by port, all rows of which have one kind.
        forward: the relations between ports.
        backward: the same in reverse.
        weights: for each relation the values of its edges; None where they carry 1.
        vectors: values that transform like rows (biases), and the indices of those rows.
        invariant_nodes: values that no symmetry changes (slopes), and the indices of their neurons.
        aligned: whether rows are neurons.
    """

    spec: GraphSpec
    node: Tensor
    kind: ScaleMasks
    kinds: Mapping[str, ScaleMasks]
    forward: Wiring
    backward: Wiring
    weights: tuple[Values | None, ...]
    vectors: tuple[tuple[Values, Tensor], ...]
    invariant_nodes: tuple[tuple[Values, Tensor], ...]
    aligned: bool

    def to_nodes(self, rows: Tensor) -> Tensor:
        """Sums over the rows of each neuron: (B, R, d) to (B, N, d)."""
        if self.aligned:
            return rows
        nodes = rows.new_zeros(len(rows), self.spec.num_nodes, rows.shape[-1])
        return nodes.index_add(1, self.node, rows)


@lru_cache(maxsize=64)
def scaled_graph(spec: GraphSpec, device: torch.device, dtype: torch.dtype) -> ScaledGraph:
    """The graph of a spec; cached, so treat its tensors as read-only.

    Raises:
        UnsupportedArchitecture: if neurons with scales are not both written and read along edges.
    """
    return _Builder(spec, slots_of(spec), device, dtype).build()


@dataclass(frozen=True, eq=False)
class _Step:
    """Edges other than weights: a gain, or copies between neurons that share their values."""

    source: Port
    target: Port
    by: Gain | Share


class _Builder:
    def __init__(
        self, spec: GraphSpec, slots: Slots, device: torch.device, dtype: torch.dtype
    ) -> None:
        self._spec, self._slots, self._device, self._dtype = spec, slots, device, dtype
        self._maps = [(item, self._primal(item.source), self._primal(item.target))
                      for item in slots.maps]  # fmt: skip
        self._entries = [(vector.edges, self._primal(vector.port)) for vector in slots.vectors]
        self._steps = self._directed_steps()
        self._check()
        for name in slots.unfactored:
            raise _unsupported(spec.edge_set(name).target, "knows")
        for translation in spec.translations:
            if name := _joint_pivot(spec, translation):
                raise UnsupportedArchitecture(
                    f"{name}: {translation.name} moves the mean of the biases of branches to "
                    "another layer. What is left of them sums to zero up to rounding, which "
                    "ScaleGMN, for which all sizes are alike, takes for a number. DualGMN reads "
                    "this architecture with all its symmetries"
                )
        used = {port for _, *ends in self._maps for port in ends}
        used |= {port for step in self._steps for port in (step.source, step.target)}
        used |= {port for _, port in self._entries}
        touched = {port.slot for port in used}
        used |= {Port(n, False) for n in range(len(slots.slots)) if n not in touched}
        self._ports = sorted(used, key=lambda port: (port.slot, port.dual))
        self._first_node = dict(
            zip((n.name for n in spec.node_sets), topology(spec).node_offset, strict=True)
        )
        self._first_row: dict[Port, int] = {}
        rows = 0
        for port in self._ports:
            self._first_row[port] = rows
            rows += self._size(port)

    def build(self) -> ScaledGraph:
        node = torch.cat(
            [
                self._first_node[self._slots.slots[port.slot].nodes]
                + torch.arange(self._size(port))
                for port in self._ports
            ]
        )
        between = dict(zip(self._spec.edge_sets, relations_of(self._spec), strict=True))
        relations, weights = [], list[Values | None]()
        for item, source, target in self._maps:
            relation = between[item.edges]
            ends = self._at(relation.source, source), self._at(relation.target, target)
            relations.append(replace(relation, source=ends[0], target=ends[1]))
            weights.append(Values(item.edges))
        for step in self._steps:
            relations.append(self._between(step))
            weights.append(self._gain(step.by) if isinstance(step.by, Gain) else None)
        forward = self._wiring(relations)
        backward = self._wiring([relation.reversed() for relation in relations])
        return ScaledGraph(
            self._spec,
            node.to(self._device),
            self._kind_of(self._ports),
            {_label(port): self._kind_of([port]) for port in self._ports},
            forward,
            backward,
            tuple(weights),
            tuple((Values(e), self._rows(e, self._first_row[port])) for e, port in self._entries),
            tuple(
                (Values(e), self._rows(e, self._first_node[e.target]))
                for e in self._slots.invariant_edges
            ),
            torch.equal(node, torch.arange(self._spec.num_nodes)),
        )

    def _wiring(self, relations: list[Relation]) -> Wiring:
        sizes = {_label(port): self._size(port) for port in self._ports}
        groups = groups_of(self._spec, self._device, self._dtype)
        return Wiring(self._spec, tuple(relations), sizes, groups)

    def _at(self, end: End, port: Port) -> End:
        """The same end, at the rows of a port."""
        return replace(end, nodes=_label(port), first=self._first_row[port])

    def _primal(self, port: Port) -> Port:
        """The port itself; for slots that are their own inverse, the port that is not dual."""
        own_inverse = self._kind(port) in ("free", "sign", "orthogonal")
        return Port(port.slot, port.dual and not own_inverse)

    def _directed_steps(self) -> list[_Step]:
        """Gains and shares in the direction of the values: away from the targets of weights."""
        reached = {target for *_, target in self._maps} | {port for _, port in self._entries}
        remaining = [
            (
                _Step(self._primal(gain.source), self._primal(gain.target), gain),
                _Step(
                    self._primal(gain.target.inverse()),
                    self._primal(gain.source.inverse()),
                    gain,
                ),
            )
            for gain in self._slots.gains
        ] + [
            (_Step(Port(first, dual), Port(second, dual), share),)
            for share in self._slots.shares
            for dual in (False, True)
            for first, second in ((share.wide, share.narrow), (share.narrow, share.wide))
            if self._primal(Port(first, dual)).dual == dual
        ]
        steps: dict[tuple[Port, Port, str], _Step] = {}
        while ready := [(o, s) for o in remaining for s in o if s.source in reached]:
            options, step = ready[0]
            remaining.remove(options)
            name = step.by.edges.name if isinstance(step.by, Gain) else ""
            backwards = (
                self._primal(step.target.inverse()),
                self._primal(step.source.inverse()),
                name,
            )
            if name == "" or backwards not in steps:
                steps.setdefault((step.source, step.target, name), step)
            reached.add(step.target)
        return list(steps.values())

    def _check(self) -> None:
        """Checks that weights both write and read all values with a scale."""
        written = {target for *_, target in self._maps} | {port for _, port in self._entries}
        written |= {step.target for step in self._steps}
        read = {source for _, source, _ in self._maps}
        read |= {step.target for step in self._steps if self._kind(step.target) == "free"}
        while more := {s.source for s in self._steps if s.target in read} - read:
            read |= more
        for port in sorted(written | read, key=lambda port: (port.slot, port.dual)):
            if self._kind(port) != "free" and not (port in written and port in read):
                nodes = self._slots.slots[port.slot].nodes
                raise _unsupported(nodes, "reads" if port in written else "writes")

    def _kind(self, port: Port) -> str:
        return self._slots.slots[port.slot].kind

    def _size(self, port: Port) -> int:
        return self._spec.node_set(self._slots.slots[port.slot].nodes).size

    def _kind_of(self, ports: list[Port]) -> ScaleMasks:
        """The kind of each row of several ports, or the one kind of all rows of one port."""
        kinds = [self._kind(port) for port in ports]
        sizes = torch.tensor([self._size(port) if len(ports) > 1 else 1 for port in ports])

        def mask(*members: str) -> Tensor:
            flags = torch.tensor([kind in members for kind in kinds], dtype=torch.bool)
            return flags.repeat_interleave(sizes).view(-1, 1).to(self._device)

        even = mask("sign", "orthogonal", "both", "general")
        scaled = mask("positive", "both", "general")
        return ScaleMasks(scaled, even.to(torch.uint8), bool(scaled.any()), bool(even.any()))

    def _gain(self, gain: Gain) -> Values:
        wide = self._slots.slots[gain.source.slot].nodes
        neuron = broadcast_index(self._spec, gain.edges.target, wide)
        index = pair_index(self._spec, gain.edges)[1].argsort()[neuron]
        return Values(gain.edges, index.to(self._device), gain.offset)

    def _between(self, step: _Step) -> Relation:
        """From each row to itself, or between a narrow row and the wide ones that share it."""
        if isinstance(step.by, Gain):
            size = self._size(step.source)
            ends = (End("", 0, (size,), (0,), ()),) * 2
            shape: tuple[int, ...] = (size,)
            name = step.by.edges.name
        else:
            wide = self._spec.node_set(self._slots.slots[step.by.wide].nodes)
            narrow = self._spec.node_set(self._slots.slots[step.by.narrow].nodes)
            dims = tuple(wide.axes.index(axis) for axis in narrow.axes)
            other_dims = tuple(dim for dim in range(len(wide.axes)) if dim not in dims)
            wide_end = End("", 0, wide.shape, tuple(range(len(wide.axes))), ())
            narrow_end = End("", 0, narrow.shape, dims, other_dims)
            ends = (
                (narrow_end, wide_end)
                if step.source.slot == step.by.narrow
                else (wide_end, narrow_end)
            )
            shape, name = wide.shape, f"{narrow.name} shared by {wide.name}"
        source, target = self._at(ends[0], step.source), self._at(ends[1], step.target)
        return Relation(name, shape, source, target)

    def _rows(self, edges: EdgeSet, first: int) -> Tensor:
        return (first + pair_index(self._spec, edges)[1]).to(self._device)


def _label(port: Port) -> str:
    return f"{port.slot}{'*' if port.dual else ''}"


def _joint_pivot(spec: GraphSpec, translation: Translation) -> str:
    """The first of several exchanged edge sets whose mean one translation takes, if any."""
    terms = [term.edge_set for term in translation.terms if term.through is None]
    counts = Counter(spec.places.get(name, name) for name in terms)
    interchangeable = next((name for name in terms if counts[spec.places.get(name, name)] > 1), "")
    return interchangeable if len(terms) < len(translation.terms) else ""


def _unsupported(nodes: str, missing: str) -> UnsupportedArchitecture:
    return UnsupportedArchitecture(
        f"node set {nodes}: no weight {missing} the values that a scale of its neurons changes; "
        "they meet other neurons in a product (attention, a gate) or a normalisation, or share one "
        "scale. ScaleGMN assumes that the weights around each neuron undo its scale. DualGMN reads "
        "this architecture with all its symmetries; GMN, NeuralGraphGNN and NeuralGraphTransformer "
        "read it without its scales"
    )
