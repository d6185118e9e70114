"""Converts parameter graphs to PyTorch Geometric data and back.

Attributes mean the same in every architecture, so that graphs of several mix in one ``DataLoader``.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gmn.errors import ArgumentError
from gmn.features import NODE_FEATURES, node_descriptions
from gmn.foundation.arguments import require_number, require_type
from gmn.graph import ParameterGraph
from gmn.graph.choosing import require_network
from gmn.graph.required import require_graph
from gmn.graph.topology import pair_index, tap_positions, topology
from gmn.spec import EdgeSet, GraphSpec

if TYPE_CHECKING:
    from torch_geometric.data import Batch, Data, HeteroData

ROLES = ("input", "hidden", "output", "ordered")
KINDS = ("weight", "bias", "gain", "shift", "mean", "variance", "slope", "constant")
FAMILIES = {  # of operations, by how their names begin; anything else is "other"
    "dense": ("linear", "matmul", "mm", "bmm", "addmm", "einsum"),
    "convolution": ("conv",),
    "normalisation": ("batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm"),
    "embedding": ("embedding", "read"),
    "recurrence": ("lstm", "gru", "rnn"),
    "bilinear": ("bilinear",),
    "other": ("",),
}
NODE_TYPES = len(ROLES)
EDGE_TYPES = (len(KINDS) + 1) * len(FAMILIES)


@dataclass(frozen=True)
class Origin:
    """What PyG data lack to restore the network: spec, other entries, types.

    Attributes:
        spec: the architecture.
        values: entries that edges do not hold as they are: integers, masks, buffers without edges.
        types: number types of the other entries, by name.
    """

    spec: GraphSpec
    values: dict[str, Tensor]
    types: dict[str, torch.dtype]


def edge_type(edges: EdgeSet) -> int:
    """The type of an edge set, below :data:`EDGE_TYPES`: its kind and the family of operation."""
    require_type("edges", edges, EdgeSet, "an edge set, such as graph.spec.edge_sets[0]")
    kind = KINDS.index(edges.kind) if edges.kind in KINDS else len(KINDS)
    family = next(
        index
        for index, begins in enumerate(FAMILIES.values())
        if edges.operation.name.startswith(begins)
    )
    return kind * len(FAMILIES) + family


def to_pyg(graph: ParameterGraph, target: str | None = None) -> Batch:
    """B networks as a ``Batch`` of B graphs with one edge per parameter element.

    Each graph has

    - ``x`` (N, :data:`gmn.features.NODE_FEATURES`): what the spec says about each neuron;
    - ``node_type`` (N,): its role, and ``node_set`` (N,): the number of its node set in the spec;
    - ``edge_index`` (2, E), ``edge_attr`` (E, 1): the parameters;
    - ``edge_type`` (E,): :func:`edge_type`, and ``edge_set`` (E,): the number in the spec;
    - ``tap`` (E, 3): coordinates of kernel places or pixels;
    - ``y`` (1,): the target, if one is named;
    - ``origin``: what :func:`from_pyg` needs to go back.

    Floating-point numbers have the type of the graph.

    Args:
        graph: the networks.
        target: a number in the graph's rows, such as a zoo's label ``"test_accuracy"``.

    Raises:
        KeyError: if the rows have no such number.
    """
    from torch_geometric.data import Batch, Data

    require_graph("graph", graph)
    if not len(graph):
        raise ArgumentError("graph holds no networks, and PyG no batch of none; select some")
    shared = {name: value.to(graph.device) for name, value in _structure(graph.spec).items()}
    shared["x"] = node_descriptions(graph.spec).to(graph.device, graph.dtype)
    sets = graph.spec.edge_sets
    values = torch.cat([graph.pairs(edges).flatten(1).to(graph.dtype) for edges in sets], dim=1)
    types, graphs = _types(graph), []
    for index, row in enumerate(values):
        label = {} if target is None else {"y": _label(graph, index, target)}
        data = Data(edge_attr=row.unsqueeze(1), **shared, **label)
        data.origin = _origin(graph, index, types)
        graphs.append(data)
    return Batch.from_data_list(graphs)


def _structure(spec: GraphSpec) -> dict[str, Tensor]:
    """What networks of an architecture share, edges in the order of the spec's edge sets."""
    parts = topology(spec)
    taps = torch.tensor([edges.num_taps for edges in spec.edge_sets])
    repeats = taps[parts.edge_set]
    positions = [tap_positions(e).repeat(e.num_pairs, 1) for e in spec.edge_sets]
    edge_set = parts.edge_set.repeat_interleave(repeats)
    edge_types = torch.tensor([edge_type(edges) for edges in spec.edge_sets])
    node_types = torch.tensor([ROLES.index(nodes.role) for nodes in spec.node_sets])
    return {
        "edge_index": parts.edge_index.repeat_interleave(repeats, dim=1),
        "edge_set": edge_set,
        "edge_type": edge_types[edge_set],
        "node_set": parts.node_set,
        "node_type": node_types[parts.node_set],
        "tap": torch.cat(positions),
    }


def _label(graph: ParameterGraph, index: int, target: str) -> Tensor:
    value = None if graph.rows is None else graph.rows[index].get(target)
    if value is None:
        raise KeyError(
            f"network {index} has no {target!r}: zoo[...] gives graphs with their rows of labels"
        )
    require_number(f"{target} of network {index}", value)
    return torch.tensor([value], dtype=graph.dtype, device=graph.device)


def _types(graph: ParameterGraph) -> dict[str, torch.dtype]:
    """Types of the entries that edges hold as they are."""
    held = {edges.parameter for edges in graph.spec.edge_sets} - graph.spec.constants
    entries = [e.name for e in graph.spec.entries if e.tied_to is None and e.name in held]
    kinds = {name: graph.values[name].dtype for name in entries}
    return {name: kind for name, kind in kinds.items() if kind.is_floating_point}


def _origin(graph: ParameterGraph, index: int, types: dict[str, torch.dtype]) -> Origin:
    others = [e.name for e in graph.spec.entries if e.tied_to is None and e.name not in types]
    return Origin(graph.spec, {name: graph.values[name][index] for name in others}, types)


def from_pyg(data: Data | Batch) -> ParameterGraph | list[ParameterGraph]:
    """The networks of data that :func:`to_pyg` made, with the parameters of its ``edge_attr``.

    Of a parameter that several edges hold (a tied weight) the first one counts.

    Args:
        data: one graph, or a batch, of networks of one architecture or of several.

    Returns:
        A graph; of several architectures a list of graphs, in the order of their first networks.

    Raises:
        ValueError: if the data was not made by :func:`to_pyg`, or its edges were changed.
    """
    from torch_geometric.data import Batch

    kinds: dict[GraphSpec, list[ParameterGraph]] = defaultdict(list)
    for one in data.to_data_list() if isinstance(data, Batch) else [data]:
        graph = _restored(one)
        kinds[graph.spec].append(graph)
    result = [ParameterGraph.cat(graphs) for graphs in kinds.values()]
    return result if len(result) > 1 else result[0]


def _restored(data: Data) -> ParameterGraph:
    origin = getattr(data, "origin", None)
    if not isinstance(origin, Origin):
        raise ValueError("this data has no origin: it was not made by ParameterGraph.to_pyg")
    spec, values = origin.spec, data.edge_attr[:, 0]
    sizes = [edges.size for edges in spec.edge_sets]
    if len(values) != sum(sizes):
        raise ValueError(f"{len(values)} edges, but this architecture has {sum(sizes)}")
    shapes = {entry.name: entry.shape for entry in spec.entries}
    blank = {
        name: values.new_empty((1, *shapes[name]), dtype=kind)
        for name, kind in origin.types.items()
    }
    graph = ParameterGraph(spec, blank | {n: v.unsqueeze(0) for n, v in origin.values.items()})
    parts = zip(spec.edge_sets, values.split(sizes), strict=True)
    return graph.replace_pairs(
        {
            edges.name: part.view(1, edges.num_pairs, edges.num_taps)
            for edges, part in parts
            if edges.tied_to is None and edges.parameter in origin.types
        }
    )


def to_hetero(graph: ParameterGraph, network: int = 0) -> HeteroData:
    """One network as ``HeteroData``: a node type per node set, an edge type per edge set.

    Nodes have ``x``, edges ``edge_index`` (2, E), ``edge_attr`` (E, 1) and ``tap`` (E, 3).
    """
    require_graph("graph", graph)
    from torch_geometric.data import HeteroData

    spec, data, network = graph.spec, HeteroData(), require_network(network, len(graph))
    described = node_descriptions(spec).to(graph.device, graph.dtype)
    for nodes, x in zip(
        spec.node_sets, described.split([n.size for n in spec.node_sets]), strict=True
    ):
        data[nodes.name].x = x
    for edges in spec.edge_sets:
        store = data[edges.source, edges.name, edges.target]
        ends = pair_index(spec, edges).repeat_interleave(edges.num_taps, dim=1)
        store.edge_index = ends.to(graph.device)
        store.edge_attr = graph.pairs(edges)[network].reshape(-1, 1).to(graph.dtype)
        store.tap = tap_positions(edges).repeat(edges.num_pairs, 1).to(graph.device)
    return data


__all__ = [
    "EDGE_TYPES",
    "NODE_FEATURES",
    "NODE_TYPES",
    "edge_type",
    "from_pyg",
    "to_hetero",
    "to_pyg",
]
