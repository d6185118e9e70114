"""Networks as clouds of neurons, in coordinates that no symmetry changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from gmn.canonical import canonical
from gmn.errors import ArgumentError
from gmn.foundation.arguments import require_callable, require_several, require_type
from gmn.graph import ParameterGraph
from gmn.graph.required import require_graph
from gmn.graph.topology import pair_index
from gmn.nn.dual.probes import program_of
from gmn.spec import EdgeSet, GraphSpec, NodeSet

LEVELS = 16
FIXED = "inputs and outputs"

# By node set that moves, the coordinates of its neurons: shape (B, neurons, d). What belongs to no
# such neuron is one more cloud, of one point.
Clouds: TypeAlias = dict[str, Tensor]


def weight_clouds(graph: ParameterGraph, *, gauged: bool = True) -> Clouds:
    """Clouds of neurons whose coordinates are their incoming and outgoing weights.

    Scales, signs, changes of basis and translations are taken out first
    (:func:`gmn.canonical.canonical`, which gives no gradients). Weights from and to neurons that
    keep their places (inputs, outputs) are coordinates one by one; of those from and to neurons
    that may move, the quantiles are, at 16 levels, times the square root of their number over 16.
    So a permutation of a layer permutes its cloud and leaves all others as they are, and layers may
    differ in width. Clouds go by node set, so it matters which of several branches is which. For
    one hidden layer the cloud is the network up to its symmetries; for more,
    quantiles forget which neuron of the next layer a weight belongs to.

    Args:
        graph: B networks.
        gauged: False to read the weights as they are; differentiable, and changed by scales.

    Returns:
        By node set, coordinates (B, neurons, d); under ``"inputs and outputs"`` the parameters
        that touch no hidden neuron, as one point.
    """
    require_graph("graph", graph)
    graph = _computable(graph)
    graph = canonical(graph) if gauged else graph
    spec = graph.spec
    clouds: Clouds = {}
    for nodes in spec.node_sets:
        if _moves(spec, nodes):
            parts = [_seen_from(graph, edges, nodes, end) for edges, end in _ends(spec, nodes)]
            if parts:
                clouds[nodes.name] = torch.cat(parts, dim=2)
    rest = [
        graph.pairs(edges).flatten(1)
        for edges in _parameters(spec)
        if not any(_moves(spec, spec.node_set(name)) for name in (edges.source, edges.target))
    ]
    if rest:
        clouds[FIXED] = torch.cat(rest, dim=1).unsqueeze(1)
    return clouds


def _computable(graph: ParameterGraph) -> ParameterGraph:
    """In single precision at least: distances of fewer bits would be those of rounding errors."""
    if all(v.itemsize >= 4 for v in graph.values.values() if v.is_floating_point()):
        return graph
    return graph.to(dtype=graph.dtype if graph.dtype.itemsize >= 4 else torch.float32)


def _moves(spec: GraphSpec, nodes: NodeSet) -> bool:
    return any(spec.axis(name).movable for name in nodes.axes)


def _parameters(spec: GraphSpec) -> list[EdgeSet]:
    return [edges for edges in spec.edge_sets if edges.tied_to is None]


def _ends(spec: GraphSpec, nodes: NodeSet) -> list[tuple[EdgeSet, str]]:
    """The edge sets that touch a node set, once for each end; diagonals once."""
    return [
        (edges, end)
        for edges in _parameters(spec)
        for end in ("target", "source")
        if getattr(edges, end) == nodes.name and not (edges.diagonal and end == "source")
    ]


def _seen_from(graph: ParameterGraph, edges: EdgeSet, nodes: NodeSet, end: str) -> Tensor:
    """The values at each neuron of a node set, shape (B, neurons, d)."""
    spec = graph.spec
    source, target = pair_index(spec, edges)
    own, other = (target, source) if end == "target" else (source, target)
    partner = spec.node_set(edges.source if end == "target" else edges.target)
    order = (own * (partner.size + 1) + other).argsort(stable=True).to(graph.device)
    values = graph.pairs(edges)[:, order]
    values = values.unflatten(1, (nodes.size, -1))
    count = values.shape[2]
    if count > 1 and _moves(spec, partner):
        levels = (torch.arange(LEVELS, device=graph.device) + 0.5) / LEVELS
        quantiles = _quantiles(values.sort(dim=2).values, levels.to(values))
        values = quantiles * (count / LEVELS) ** 0.5
    return values.flatten(2)


def _quantiles(values: Tensor, levels: Tensor) -> Tensor:
    """Sorted values along dimension 2 at levels in (0, 1), linear between the middles of steps."""
    position = (levels * values.shape[2] - 0.5).clamp(0, values.shape[2] - 1)
    below = position.floor().long()
    above = (below + 1).clamp(max=values.shape[2] - 1)
    share = (position - below).view(1, 1, -1, 1)
    return torch.lerp(values[:, :, below], values[:, :, above], share)


def probe_clouds(graph: ParameterGraph, inputs: Sequence[Tensor]) -> Clouds:
    """Clouds of neurons whose coordinates are their values on given inputs.

    Scales and signs are taken out first. Where values have further indices (pixels, tokens), the
    mean over them and the standard deviation are coordinates.

    Args:
        graph: B networks of a spec with a program.
        inputs: k values for each input of the networks, shape (k, *shape of the example).

    Returns:
        By node set, coordinates (B, neurons, d); the outputs as one point under ``"inputs and
        outputs"``.

    Raises:
        ProgramError: if the spec has no program, or takes inputs of another shape.
    """
    require_graph("graph", graph)
    require_several("inputs", inputs, "tensors, one for each input of the networks")
    for value in inputs:
        require_type("an input", value, Tensor, "tensors, one for each input of the networks")
    program, graph = program_of(graph.spec), _computable(graph)
    device, dtype = graph.device, graph.dtype
    given = [v.to(device, dtype if v.is_floating_point() else None) for v in inputs]
    observed = program.observe(canonical(graph).values, given)
    parts_of: dict[str, list[Tensor]] = {}
    for observation, values in zip(program.observations, observed, strict=True):
        hidden = _moves(graph.spec, graph.spec.node_set(observation.nodes))
        name = observation.nodes if hidden else FIXED
        if observation.reader is None and not hidden:
            parts_of.setdefault(name, []).append(values.flatten(1).unsqueeze(1))
        elif hidden:
            parts_of.setdefault(name, []).append(_over_places(values))
    return {name: torch.cat(parts, dim=2) for name, parts in parts_of.items()}


def _over_places(values: Tensor) -> Tensor:
    """From (B, k, places, neurons) to (B, neurons, k) or, of several places, (B, neurons, 2k)."""
    means = values.mean(dim=2)
    if values.shape[2] > 1:
        means = torch.cat([means, values.std(dim=2, correction=0)], dim=1)
    return means.mT


def embedding_clouds(graph: ParameterGraph, embed: Callable[[ParameterGraph], Tensor]) -> Clouds:
    """Clouds of neurons whose coordinates are the states that a metanetwork gives them.

    Args:
        graph: B networks.
        embed: gives states of all neurons, shape (B, N, d), in the order of the spec's node sets,
            that move with permutations and that other symmetries do not change, such as
            :meth:`gmn.nn.DualGMN.embed`.

    Returns:
        By node set that moves, coordinates (B, neurons, d); all other neurons one after the other
        as one point.
    """
    require_graph("graph", graph)
    require_callable("embed", embed, "one such as the method embed of a gmn.nn.DualGMN")
    states = embed(graph)
    if states.dim() != 3 or states.shape[:2] != (len(graph), graph.spec.num_nodes):
        raise ArgumentError(
            f"embed gives shape {tuple(states.shape)}; states of all neurons are "
            f"({len(graph)}, {graph.spec.num_nodes}, d)"
        )
    parts = states.split([nodes.size for nodes in graph.spec.node_sets], dim=1)
    clouds: Clouds = {}
    fixed = []
    for nodes, part in zip(graph.spec.node_sets, parts, strict=True):
        if _moves(graph.spec, nodes):
            clouds[nodes.name] = part
        else:
            fixed.append(part.flatten(1))
    if fixed:
        clouds[FIXED] = torch.cat(fixed, dim=1).unsqueeze(1)
    return clouds
