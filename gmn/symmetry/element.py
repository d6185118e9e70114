"""Elements of the symmetry group of a spec, and how they act on weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gmn.errors import ArgumentError
from gmn.graph.draft import Draft
from gmn.graph.topology import view_block
from gmn.graph.values import computable
from gmn.spec import (
    Axis,
    Dim,
    EdgeSet,
    Exchange,
    Gauge,
    GraphSpec,
    Scaling,
    ScalingTerm,
    StateEntry,
    TranslationTerm,
)
from gmn.symmetry.carried import carried

if TYPE_CHECKING:
    from gmn.graph import ParameterGraph


@dataclass(frozen=True, repr=False)
class Element:
    """One transformation of the parameters that leaves the function unchanged.

    Attributes:
        spec: the architecture whose group it belongs to.
        permutations: by axis name, long tensors of shape (*sizes of ``within``, size).
        scales: by scaling name, tensors of the scaling's shape; float64, applied in the weights'
            own type.
        bases: by gauge name, float64 matrices of shape (*the gauge's shape, size of its last axis).
        shifts: by translation name, float64 tensors of the translation's shape.
        exchanges: by exchange name, for every branch the number of the one whose values it takes;
            one after the other, in the order of the spec.
        first: an element that acts before this one.
    """

    spec: GraphSpec
    permutations: Mapping[str, Tensor]
    scales: Mapping[str, Tensor]
    bases: Mapping[str, Tensor] = field(default_factory=dict)
    shifts: Mapping[str, Tensor] = field(default_factory=dict)
    exchanges: Mapping[str, Tensor] = field(default_factory=dict)
    first: Element | None = None

    def act(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The transformed state dict of one network; ``state`` is left as it is."""
        entries = [e for e in self.spec.entries if e.tied_to is None]
        self._require_state(state, entries)
        moved = self._act({e.name: state[e.name].unsqueeze(0) for e in entries})
        moved = {name: value.squeeze(0) for name, value in moved.items()}
        return {entry.name: moved[entry.tied_to or entry.name] for entry in self.spec.entries}

    def act_on_graph(self, graph: ParameterGraph) -> ParameterGraph:
        """The transformed graph; every network of the batch moves alike.

        Raises:
            ValueError: if the graph has another spec.
        """
        if getattr(graph, "spec", None) != self.spec:
            raise ValueError("this element belongs to the group of another spec")
        return graph.replace(self._act(graph.values))

    def _require_state(self, state: Mapping[str, Tensor], entries: list[StateEntry]) -> None:
        for entry in entries:
            value = state.get(entry.name) if isinstance(state, Mapping) else None
            if not isinstance(value, Tensor) or tuple(value.shape) != entry.shape:
                found = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else "no tensor"
                raise ArgumentError(
                    f"state has {found} for {entry.name}, not shape {entry.shape}: give a state "
                    "dict of this architecture"
                )

    def __repr__(self) -> str:
        parts = {
            "permutations": self.permutations,
            "exchanges": self.exchanges,
            "scales": self.scales,
            "bases": self.bases,
            "shifts": self.shifts,
        }
        counts = ", ".join(
            f"{len(elements)} {kind}" for kind, elements in parts.items() if elements
        )
        return f"Element({counts or 'identity'}{', after another' if self.first else ''})"

    def inverse(self) -> Element:
        """The element that undoes this one."""
        undone = self._inverse()
        for exchange in reversed(self.spec.exchanges):
            if exchange.name in self.exchanges:
                back = {exchange.name: self.exchanges[exchange.name].argsort()}
                undone = Element(self.spec, {}, {}, exchanges=back).after(undone)
        return undone if self.first is None else self.first.inverse().after(undone)

    def after(self, other: Element) -> Element:
        """The element that acts like another one and then like this one.

        Raises:
            ValueError: if the other belongs to another spec, or is no element.
        """
        if getattr(other, "spec", None) != self.spec:
            raise ArgumentError("other belongs to the group of another spec, or is no element")
        return replace(self, first=other if self.first is None else self.first.after(other))

    def _inverse(self) -> Element:
        """The element that undoes what this one does after exchanges."""
        moves = {name: _invert(self, self.spec.axis(name)) for name in self.permutations}
        scales = {}
        for scaling in self.spec.scalings:
            if scaling.name in self.scales:
                scales[scaling.name] = self._unscaled(scaling)
        bases = {
            gauge.name: self._moved(gauge).inverse()
            for gauge in self.spec.gauges
            if gauge.name in self.bases
        }
        shifts = {
            translation.name: -self._carried(self.shifts[translation.name], translation.terms[0])
            for translation in self.spec.translations
            if translation.name in self.shifts
        }
        return Element(self.spec, moves, scales, bases, shifts)

    def _unscaled(self, scaling: Scaling) -> Tensor:
        """The scales that undo those of a scaling."""
        scale = self.scales[scaling.name]
        if scaling.domain == "phase":
            term = next(term for term in scaling.terms if term.shift)
            return -(self._carried(scale * term.shift, term) / term.shift).round()
        dims = tuple(Dim(n, 0, "both", a) for a, n in zip(scaling.axes, scaling.shape, strict=True))
        index = self._gather_index(dims)
        return 1 / (scale[index] if index else scale)

    def _carried(self, shift: Tensor, term: TranslationTerm | ScalingTerm) -> Tensor:
        """Added numbers as they are after the other transformations, which are linear."""
        edges = self.spec.edge_set(term.edge_set)
        spread = _spread(shift, term.dims, edges)
        moved = self._move(spread.expand(1, *edges.shape), edges, linear=True)[0]
        others = [dim for dim in range(len(edges.dims)) if dim not in term.dims]
        return moved.permute(*term.dims, *others).reshape(*shift.shape, -1)[..., 0]

    def _moved(self, gauge: Gauge) -> Tensor:
        """The gauge's matrices in the new order of neurons."""
        *outer, inner = zip(gauge.axes, gauge.shape, strict=True)
        dims = (
            *(Dim(size, 0, "both", axis) for axis, size in outer),
            Dim(inner[1], 0, "target", inner[0]),
            Dim(inner[1], 0, "source", inner[0]),
        )
        index = self._gather_index(dims)
        return self.bases[gauge.name][index] if index else self.bases[gauge.name]

    def _act(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        values = values if self.first is None else self.first._act(values)
        for exchange in self.spec.exchanges:
            if exchange.name in self.exchanges:
                values = self._exchanged(values, exchange)
        draft = Draft(self.spec, values)
        for edges in self.spec.edge_sets:
            if edges.tied_to is None and self._moves(edges):
                old = view_block(computable(values[edges.parameter]), edges)
                draft.block(edges).copy_(self._move(self._shift(old, edges, values), edges))
        return {**values, **draft.changed()}

    def _exchanged(self, values: Mapping[str, Tensor], exchange: Exchange) -> dict[str, Tensor]:
        """The values after branches were exchanged."""
        draft = Draft(self.spec, values)
        for index, origin in enumerate(self.exchanges[exchange.name].tolist()):
            pairs = zip(exchange.branches[index], exchange.branches[origin], strict=True)
            for own, other in ((self.spec.edge_set(a), self.spec.edge_set(b)) for a, b in pairs):
                draft.block(own).copy_(view_block(values[other.parameter], other))
        return {**values, **draft.changed()}

    def _move(self, block: Tensor, edges: EdgeSet, linear: bool = False) -> Tensor:
        """Changes bases, scales and permutes; ``linear`` leaves out the offsets of scalings."""
        block = self._scale(self._turn(block, edges), edges, linear)
        index = self._gather_index(edges.dims)
        if index:
            indices: list[Tensor | slice] = [i.to(block.device) for i in index]
            block = block[(slice(None), *indices)]
        return block

    def _shift(self, block: Tensor, edges: EdgeSet, values: Mapping[str, Tensor]) -> Tensor:
        for shift, term in self._terms(edges):
            if term.through is not None:
                weight = self._between(self.spec.edge_set(term.through.edge_set), values)
                image = carried(weight, term.through, shift.unsqueeze(0))
                block = block + term.factor * _spread(image, term.dims, edges)
            else:
                block = block + (term.factor * _spread(shift, term.dims, edges)).to(block)
        for scaling in self.spec.scalings:
            for phase in scaling.terms:
                if scaling.name in self.scales and phase.edge_set == edges.name and phase.shift:
                    steps = _spread(self.scales[scaling.name], phase.dims, edges)
                    block = block + (steps * phase.shift).to(block)
        return block

    def _terms(self, edges: EdgeSet) -> Iterator[tuple[Tensor, TranslationTerm]]:
        """The shifts that an edge set follows."""
        for translation in self.spec.translations:
            for term in translation.terms:
                if translation.name in self.shifts and term.edge_set == edges.name:
                    yield self.shifts[translation.name], term

    def _between(self, edges: EdgeSet, values: Mapping[str, Tensor]) -> Tensor:
        """A weight that shifts pass: the mean of the weight before and after it is shifted."""
        block = view_block(computable(values[edges.parameter]), edges)
        for shift, term in self._terms(edges):
            if term.through is None:
                block = block + (term.factor * _spread(shift, term.dims, edges) / 2).to(block)
        return block

    def _moves(self, edges: EdgeSet) -> bool:
        permuted = any(dim.axis in self.permutations for dim in edges.dims)
        return permuted or any(
            term.edge_set == edges.name
            for symmetry in self.spec.symmetries.followed
            if symmetry.name in {**self.scales, **self.bases, **self.shifts}
            for term in symmetry.terms
        )

    def _turn(self, block: Tensor, edges: EdgeSet) -> Tensor:
        """Multiplies by the matrices of gauges along their dimension."""
        for gauge in self.spec.gauges:
            for term in gauge.terms:
                if gauge.name in self.bases and term.edge_set == edges.name:
                    matrix = self.bases[gauge.name]
                    matrix = matrix if term.exponent > 0 else matrix.inverse().mT
                    dims, ends = [1 + dim for dim in term.dims], range(len(term.dims))
                    block = block.movedim(dims, [*ends])
                    outer, rest = block.shape[: len(ends)], block.shape[len(ends) :]
                    turned = matrix.to(block) @ block.reshape(*outer, -1)
                    block = turned.reshape(*outer, *rest).movedim([*ends], dims)
        return block

    def _scale(self, block: Tensor, edges: EdgeSet, linear: bool) -> Tensor:
        for scaling in self.spec.scalings:
            for term in scaling.terms:
                if scaling.name in self.scales and term.edge_set == edges.name:
                    scale = self.scales[scaling.name]
                    if scaling.domain == "phase":
                        scale = 1 - 2 * (scale % 2)
                    factor = _spread(scale**term.exponent, term.dims, edges).to(block)
                    offset = 0.0 if linear else term.offset
                    block = (block + offset) * factor - offset
        return block

    def _gather_index(self, dims: tuple[Dim, ...]) -> tuple[Tensor, ...]:
        """Index tensors, one per dim, that read the old position of every new entry."""
        grids = [
            torch.arange(dim.size).view([-1 if i == k else 1 for i in range(len(dims))])
            for k, dim in enumerate(dims)
        ]
        index = []
        for position, dim in enumerate(dims):
            table = self.permutations.get(dim.axis) if dim.axis is not None else None
            if table is None or dim.axis is None:
                index.append(grids[position])
                continue
            within = self.spec.axis(dim.axis).within
            parents = [grids[_find(dims, dim, parent)] for parent in within]
            index.append(table[(*parents, grids[position])])
        return tuple(index)


def _spread(numbers: Tensor, dims: tuple[int, ...], edges: EdgeSet) -> Tensor:
    """Numbers of a symmetry in a block's dimensions, of size 1 where they do not vary.

    Dimensions before those of the symmetry stay in front.
    """
    front = numbers.dim() - len(dims)
    order = sorted(range(len(dims)), key=dims.__getitem__)
    shape = [dim.size if position in dims else 1 for position, dim in enumerate(edges.dims)]
    turned = numbers.permute([*range(front), *(front + position for position in order)])
    return turned.reshape(*numbers.shape[:front], *shape)


def _find(dims: tuple[Dim, ...], child: Dim, parent: str) -> int:
    """Position of the parent axis that belongs to the same end of the edge as ``child``."""
    candidates = [i for i, dim in enumerate(dims) if dim.axis == parent]
    for port in (child.port, "both"):
        for i in candidates:
            if dims[i].port == port:
                return i
    if not candidates:
        raise ValueError(f"axis {child.axis} moves within {parent}, which the block does not have")
    return candidates[0]


def _invert(element: Element, axis: Axis) -> Tensor:
    """Table of the inverse: ``T'[j] = argsort(T[i])``, where parents ``j`` came from ``i``."""
    table = element.permutations[axis.name]
    if axis.within:
        sizes = [element.spec.axis(name).size for name in axis.within]
        dims = tuple(Dim(n, 0, "both", a) for a, n in zip(axis.within, sizes, strict=True))
        origin = {
            name: _invert(element, element.spec.axis(name))
            for name in axis.within
            if name in element.permutations
        }
        parents = Element(element.spec, origin, {})._gather_index(dims)
        table = table[parents]
    return table.argsort(dim=-1)
