"""ParameterGraph: the weights of B networks of one architecture, laid out by their GraphSpec."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gmn.errors import ArgumentError, DataError
from gmn.foundation.arguments import require_several, require_type
from gmn.graph.choosing import chosen, require_network
from gmn.graph.draft import Draft
from gmn.graph.topology import pair_index, tap_order, tap_positions, view_block
from gmn.graph.values import (
    as_floating,
    is_eight_bit,
    is_finite,
    like,
    require_tensors,
    with_blocks,
    without_blocks,
)
from gmn.spec import EdgeSet, GraphSpec, StateEntry

if TYPE_CHECKING:
    import networkx
    from torch_geometric.data import Batch, Data

StateDict = Mapping[str, Tensor]


class StateDictError(DataError, ValueError):
    """A state dict does not belong to the spec, or holds values that cannot be used."""


class ParameterGraph:
    """B networks of one architecture: a spec and one stacked tensor per state-dict entry.

    Edges are the parameters; which neurons they join comes from the spec, never from the values,
    so a weight of zero is still an edge. Indexing selects networks: ``graph[3]`` and ``graph[:8]``
    are graphs again.

    Attributes:
        spec: the architecture.
        rows: what is known of each network beside its weights, such as its row of labels in a zoo:
            B dictionaries; None if nothing is. They go along with selected and changed networks.
    """

    rows: Sequence[Mapping[str, Any]] | None = None

    def __init__(
        self,
        spec: GraphSpec,
        values: Mapping[str, Tensor],
        rows: Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        """Wraps stacked tensors without copying them.

        Args:
            spec: the architecture.
            values: one tensor of shape (B, *entry shape) for every untied entry of the state dict.
            rows: one mapping per network, see the attribute; None for none.

        Raises:
            StateDictError: if entries are missing or unexpected, or shapes or types do not fit.
            ValueError: if there are not as many rows as networks.
        """
        require_type("spec", spec, GraphSpec, "a gmn.GraphSpec, such as converters.trace returns")
        require_tensors("values", values)
        primary = [entry for entry in spec.entries if entry.tied_to is None]
        _check_names({e.name for e in spec.entries}, {e.name for e in primary}, values.keys(), "")
        sizes = {values[entry.name].shape[:1] for entry in primary}
        if len(sizes) > 1:
            raise StateDictError(f"the entries hold different numbers of networks: {sizes}")
        for entry in primary:
            _check_entry(entry, values[entry.name].shape[1:], values[entry.name].dtype, "")
        self.spec = spec
        self._values = {e.name: values[e.tied_to or e.name] for e in spec.entries}
        self.rows = rows
        if rows is not None and len(rows) != len(self):
            raise ValueError(f"{len(rows)} rows for {len(self)} networks")

    @property
    def values(self) -> dict[str, Tensor]:
        """Stacked tensors of shape (B, *entry shape) by state-dict key.

        Tied entries are the same tensor.
        """
        return self._values

    @classmethod
    def from_state_dicts(cls, spec: GraphSpec, states: Sequence[StateDict]) -> ParameterGraph:
        """Stacks the state dicts of networks that all have the architecture ``spec``.

        A single state dict is wrapped without copying, so weights that are memory-mapped from a
        file stay so. All values on the graph are read once, to refuse NaN and infinity; a constant
        may hold minus infinity (a mask). Buffers that are no edges may hold anything.

        Args:
            spec: the architecture, traced once.
            states: one state dict per network; all values on the graph finite.

        Raises:
            StateDictError: if a state dict has missing or extra keys, other shapes, integer
                parameters, tensors without values (meta device), NaN or infinite values, or tied
                entries that differ; the message names the network and the key.
        """
        require_type("spec", spec, GraphSpec, "a gmn.GraphSpec, such as converters.trace returns")
        require_several("states", states, "state dicts, such as [model.state_dict()]")
        states = list(states)
        for state in states:
            require_tensors("a state dict", state)
        if not states:
            raise StateDictError("no state dicts: a graph holds at least one network")
        for index, state in enumerate(states):
            _check_state(spec, state, f"network {index}: ")
        values = {}
        for entry in spec.entries:
            if entry.tied_to is None:
                values[entry.name] = _stack([state[entry.name] for state in states], entry.name)
        graph = cls(spec, values)
        for name in dict.fromkeys(edges.parameter for edges in spec.edge_sets):
            _check_finite(graph.numbers(name), name)
        return graph

    @classmethod
    def cat(cls, graphs: Sequence[ParameterGraph]) -> ParameterGraph:
        """Joins graphs of one architecture into one batch.

        Raises:
            ValueError: if there are none, or their specs differ.
        """
        require_several("graphs", graphs, "graphs")
        for graph in graphs:
            require_type("a graph of cat", graph, ParameterGraph, "gmn.ParameterGraphs")
        if len({graph.spec for graph in graphs}) != 1:
            raise ValueError("cat needs at least one graph, all of one spec")
        spec = graphs[0].spec
        names = [entry.name for entry in spec.entries if entry.tied_to is None]
        known = [graph.rows for graph in graphs if graph.rows is not None]
        rows = [row for rows in known for row in rows] if len(known) == len(graphs) else None
        return cls(spec, {n: torch.cat([g.values[n] for g in graphs]) for n in names}, rows)

    def __len__(self) -> int:
        """Number of networks."""
        return len(next(iter(self.values.values()))) if self.values else 0

    def __getitem__(self, index: int | slice | Tensor | Sequence[int]) -> ParameterGraph:
        """The networks at ``index`` (int, slice, index tensor or mask) as a graph.

        Raises:
            IndexError: if there is no network of a number.
            ArgumentError: if the index is of another kind, or a mask of another length.
        """
        some, rows = chosen(index, len(self)), self.rows
        if rows is not None:
            rows = [rows[number] for number in torch.arange(len(rows))[some].tolist()]
        return self._map(lambda value: value[some], rows)

    def __iter__(self) -> Iterable[ParameterGraph]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return (
            f"ParameterGraph({len(self)} networks of {self.spec.num_parameters:,} parameters, "
            f"{self.dtype}, {self.device})"
        )

    def _map(
        self, function: Callable[[Tensor], Tensor], rows: Sequence[Mapping[str, Any]] | None
    ) -> ParameterGraph:
        names = [entry.name for entry in self.spec.entries if entry.tied_to is None]
        return ParameterGraph(self.spec, {n: function(self.values[n]) for n in names}, rows)

    @property
    def dtype(self) -> torch.dtype:
        """Type in which metanetworks read it: that of the first floating-point or complex entry.

        float32 if that has eight bits.
        """
        for value in self.values.values():
            if value.is_floating_point() or value.is_complex():
                return torch.float32 if is_eight_bit(value.dtype) else value.dtype.to_real()
        return torch.get_default_dtype()

    @property
    def device(self) -> torch.device:
        """Device of the values."""
        return next(iter(self.values.values()), torch.empty(0)).device

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> ParameterGraph:
        """Moves the values; ``dtype`` applies to floating-point and complex entries only.

        Complex entries become complex128 with float64, complex64 with any other type.
        """
        if isinstance(device, torch.dtype) or not isinstance(dtype, torch.dtype | None):
            raise ArgumentError(
                f"device is {device!r} and dtype {dtype!r}; give a type by name: "
                "to(dtype=torch.float64)"
            )
        double = torch.complex128 if dtype == torch.float64 else torch.complex64

        def moved(value: Tensor) -> Tensor:
            if dtype is None:
                return value.to(device=device)
            if value.is_complex():
                return value.to(device=device, dtype=double)
            return value.to(device=device, dtype=dtype if value.is_floating_point() else None)

        return self._map(moved, self.rows)

    def to_state_dict(self, network: int = 0) -> dict[str, Tensor]:
        """The state dict of one network: keys, order, types and bits as they came in."""
        network = require_network(network, len(self))
        tensors = {id(value): value[network] for value in self.values.values()}
        return {name: tensors[id(value)] for name, value in self.values.items()}

    def numbers(self, name: str) -> Tensor:
        """An entry as metanetworks read it: real floating-point numbers, masks as zeros and ones.

        Shape (B, *entry shape), of complex entries (B, *entry shape, 2); the values themselves
        where these are floating-point numbers.
        """
        self.spec.entry(name)  # which names those that are alike if there is none
        values = as_floating(self.values[name], self.dtype)
        return without_blocks(values) if name in self.spec.constants else values

    def _edge_set(self, edges: EdgeSet | str) -> EdgeSet:
        require_type("edges", edges, (EdgeSet, str), "an edge set of the spec, or its name")
        return self.spec.edge_set(edges) if isinstance(edges, str) else edges

    def block(self, edges: EdgeSet | str) -> Tensor:
        """The numbers of an edge set, by itself or by its name: shape (B, *edges.shape).

        A view of the values where these are floating-point numbers. Integers and truth values are
        converted, masks of minus infinity are 1 where they block and 0 elsewhere, and complex
        numbers are pairs.

        Raises:
            KeyError: if there is no edge set of this name.
        """
        edges = self._edge_set(edges)
        return view_block(self.numbers(edges.parameter), edges)

    def pairs(self, edges: EdgeSet | str) -> Tensor:
        """The values of an edge set, by itself or by its name: shape (B, pairs, taps).

        Pairs are in the order of :func:`gmn.graph.topology.pair_index`.

        Raises:
            KeyError: if there is no edge set of this name.
        """
        edges = self._edge_set(edges)
        order = [0, *(1 + position for position in tap_order(edges))]
        return self.block(edges).permute(order).reshape(len(self), edges.num_pairs, edges.num_taps)

    def replace(self, values: Mapping[str, Tensor]) -> ParameterGraph:
        """A graph with some entries replaced by stacked tensors of the same shape.

        Raises:
            KeyError: if there is no entry of a name.
            StateDictError: if a tensor has another shape or kind of numbers.
        """
        require_tensors("values", values)
        for name in values:
            self.spec.entry(name)
        names = [entry.name for entry in self.spec.entries if entry.tied_to is None]
        fresh = {n: values.get(n, self.values[n]) for n in names}
        rows = self.rows
        if rows is not None and fresh and len(next(iter(fresh.values()))) != len(rows):
            rows = None  # k edits of each network: other networks
        return ParameterGraph(self.spec, fresh, rows)

    def replace_pairs(self, values: Mapping[str, Tensor]) -> ParameterGraph:
        """A graph with some edge sets replaced; the inverse of :meth:`pairs`.

        Args:
            values: by edge-set name, tensors of shape (B, pairs, taps).

        Raises:
            KeyError: if there is no edge set of a name.
            ArgumentError: if a tensor has another shape.
        """
        require_tensors("values", values)
        for name, value in values.items():
            edges = self.spec.edge_set(name)
            wanted = (len(self), edges.num_pairs, edges.num_taps)
            if tuple(value.shape) != wanted:
                raise ArgumentError(f"{name} has shape {tuple(value.shape)}, not {wanted}")
        parameters = {self.spec.edge_set(name).parameter for name in values}
        draft = Draft(self.spec, {name: self.numbers(name) for name in parameters})
        for name, value in values.items():
            edges = self.spec.edge_set(name)
            order = tap_order(edges)
            shape = [edges.shape[position] for position in order]
            inverse = [0, *(1 + order.index(position) for position in range(len(order)))]
            draft.block(edges).copy_(value.reshape(len(self), *shape).permute(inverse))
        written = {name: self._written(name, new) for name, new in draft.changed().items()}
        return self.replace(written)

    def _written(self, name: str, numbers: Tensor) -> Tensor:
        """Undoes :meth:`numbers`."""
        old = self.values[name]
        return like(with_blocks(numbers, old) if name in self.spec.constants else numbers, old)

    def to_pyg(self, target: str | None = None) -> Batch:
        """The networks as a PyG ``Batch`` with one edge per parameter; see :func:`gmn.pyg.to_pyg`.

        Args:
            target: a number in :attr:`rows` that becomes ``y``.
        """
        return _pyg().to_pyg(self, target)

    @staticmethod
    def from_pyg(data: Data | Batch) -> ParameterGraph | list[ParameterGraph]:
        """The inverse of :meth:`to_pyg`; see :func:`gmn.pyg.from_pyg`."""
        return _pyg().from_pyg(data)

    def to_networkx(self, network: int = 0) -> networkx.MultiDiGraph:
        """One network as a multigraph: a node per neuron, an edge per parameter element.

        Nodes are pairs (node-set name, number) with attribute ``role``; edges have ``weight``,
        ``edge_set`` and ``tap``.
        """
        import networkx

        network = require_network(network, len(self))
        result = networkx.MultiDiGraph()
        for nodes in self.spec.node_sets:
            result.add_nodes_from(((nodes.name, i) for i in range(nodes.size)), role=nodes.role)
        for edges in self.spec.edge_sets:
            values = self.pairs(edges)[network].tolist()
            taps = [tuple(position) for position in tap_positions(edges).tolist()]
            for (source, target), row in zip(
                pair_index(self.spec, edges).T.tolist(), values, strict=True
            ):
                for tap, weight in zip(taps, row, strict=True):
                    result.add_edge(
                        (edges.source, source),
                        (edges.target, target),
                        weight=weight,
                        edge_set=edges.name,
                        tap=tap,
                    )
        return result


def _pyg() -> Any:
    return import_module("gmn.pyg")  # which imports this module, and PyG


def _stack(tensors: list[Tensor], name: str) -> Tensor:
    if len({(tensor.dtype, tensor.device) for tensor in tensors}) > 1:
        raise StateDictError(f"{name}: the networks differ in dtype or device; convert them first")
    return tensors[0].unsqueeze(0) if len(tensors) == 1 else torch.stack(tensors)


def _check_state(spec: GraphSpec, state: StateDict, who: str) -> None:
    names = {entry.name for entry in spec.entries}
    _check_names(names, names, state.keys(), who)
    for entry in spec.entries:
        tensor = state[entry.name]
        _check_entry(entry, tensor.shape, tensor.dtype, who)
        if tensor.layout != torch.strided:
            raise StateDictError(f"{who}{entry.name} is {tensor.layout}; call to_dense() first")
        if tensor.is_meta:
            raise StateDictError(
                f"{who}{entry.name} is on the meta device, which holds no values; load a "
                "checkpoint and pass its state dict"
            )
        if entry.tied_to is not None and not _same(tensor, state[entry.tied_to]):
            raise StateDictError(
                f"{who}{entry.name} is tied to {entry.tied_to} in this spec, but their values "
                "differ; trace a module that does not tie them"
            )


def _same(first: Tensor, second: Tensor) -> bool:
    return first.data_ptr() == second.data_ptr() or torch.equal(first, second)


def _check_names(known: set[str], needed: set[str], found: Iterable[str], who: str) -> None:
    found = set(found)
    missing, extra = needed - found, found - known
    if missing or extra:
        parts = [
            f"{word} {', '.join(sorted(names)[:5])}{', ...' if len(names) > 5 else ''}"
            for word, names in (("missing", missing), ("unexpected", extra))
            if names
        ]
        raise StateDictError(f"{who}not a state dict of this architecture: {'; '.join(parts)}")


def _check_entry(entry: StateEntry, shape: Sequence[int], dtype: torch.dtype, who: str) -> None:
    if tuple(shape) != entry.shape:
        raise StateDictError(
            f"{who}{entry.name} has shape {tuple(shape)}, this architecture needs {entry.shape}"
        )
    if (dtype.is_floating_point, dtype.is_complex) != (entry.floating, entry.complex):
        wanted = "floating-point" if entry.floating else "integer or boolean"
        wanted = "complex" if entry.complex else wanted
        raise StateDictError(f"{who}{entry.name} is {dtype}, this architecture needs {wanted}")


def _check_finite(values: Tensor, name: str) -> None:
    if is_finite(values):
        return
    broken = [number for number, value in enumerate(values) if not is_finite(value)]
    raise StateDictError(
        f"{name} has NaN or infinite values in network {', '.join(map(str, broken[:5]))}"
        f"{f' and {len(broken) - 5} more' if len(broken) > 5 else ''}"
    )
