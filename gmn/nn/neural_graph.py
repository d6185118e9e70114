"""What Neural Graphs make of a network (Kofinas et al., ICLR 2024, arXiv 2403.12143).

Neurons are nodes, whose biases and other parameters of their own are node features; weights are
edges, a kernel is one edge with several numbers. Every edge also runs in reverse, and says so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn

from gmn import features
from gmn.graph import ParameterGraph
from gmn.nn.buckets import Buckets, buckets
from gmn.nn.edge_edits import EdgeReadout, Edits, editable
from gmn.spec import EdgeSet, GraphSpec
from gmn.topology import memberships, pair_index, topology

DEPTH_FEATURES = 8


@dataclass(frozen=True, eq=False)
class NeuralGraph:
    """The graph of a spec.

    Attributes:
        spec: the architecture.
        reverse: whether every edge also runs in reverse.
        edges: weights in their own direction, then those in reverse; sorted.
        turned: (E,) for every edge the one in the other direction; itself, if there is no other.
        members: (2, M) neuron and group (a head) that it belongs to.
    """

    spec: GraphSpec
    reverse: bool
    edges: Buckets
    turned: Tensor
    members: Tensor


def group_means(nodes: Tensor, members: Tensor) -> Tensor:
    """The mean of every neuron's groups, summed over them.

    Args:
        nodes: shape (N, B, d).
        members: (2, M) neuron and group, as of :func:`gmn.topology.memberships`; M > 0.

    Returns:
        Tensor of shape (N, B, d); zeros for neurons of no group.
    """
    node, group = members
    share = 1 / torch.bincount(group)[group].to(nodes).view(-1, 1, 1)
    groups = nodes.new_zeros(int(group.max()) + 1, *nodes.shape[1:])
    means = groups.index_add(0, group, nodes[node] * share)
    return torch.zeros_like(nodes).index_add(0, node, means[group])


@lru_cache(maxsize=64)
def neural_graph(spec: GraphSpec, device: torch.device, reverse: bool) -> NeuralGraph:
    """The graph of a spec; cached, so treat its tensors as read-only."""
    parts = topology(spec)
    diagonal = torch.tensor([edges.diagonal for edges in spec.edge_sets], dtype=torch.bool)
    source, target = parts.edge_index[:, ~diagonal[parts.edge_set]].to(device)
    count = len(source)
    turned = torch.arange(count, device=device)
    if reverse:
        source, target = torch.cat([source, target]), torch.cat([target, source])
        turned = torch.cat([turned + count, turned])
    edges = buckets(source, target, spec.num_nodes)
    place = edges.order.argsort()
    turned = place[turned[edges.order]]
    return NeuralGraph(spec, reverse, edges, turned, memberships(spec).to(device))


class NeuralGraphEncoder(nn.Module):
    """First states of nodes and edges.

    The paper learns one vector for every input and output neuron and one for every hidden layer;
    here they come from descriptions of role, place, depth and operations, so that one module reads
    every architecture, and kernels weigh their taps by codes of where they lie instead of being
    padded to the largest.

    Args:
        hidden: channels of nodes.
        edge_hidden: channels of edges.
    """

    def __init__(self, hidden: int, edge_hidden: int) -> None:
        super().__init__()
        self.hidden, self.edge_hidden = hidden, edge_hidden
        self.nodes = mlp(features.NODE_FEATURES + DEPTH_FEATURES, hidden)
        self.own = _Values(features.EDGE_FEATURES, hidden)
        self.edges = _Values(features.EDGE_FEATURES + 1, edge_hidden)

    def forward(self, graph: ParameterGraph, wiring: NeuralGraph) -> tuple[Tensor, Tensor]:
        """States of nodes (N, B, hidden) and of edges (E, B, edge_hidden)."""
        about = features.edge_descriptions(graph.spec).to(next(self.parameters()))
        own: list[tuple[EdgeSet, Tensor]] = []
        weights: list[tuple[EdgeSet, Tensor]] = []
        for edges, description in zip(graph.spec.edge_sets, about, strict=True):
            (own if edges.diagonal else weights).append((edges, description))
        return self._node_states(graph, own), self._edge_states(graph, wiring, weights)

    def _node_states(self, graph: ParameterGraph, own: list[tuple[EdgeSet, Tensor]]) -> Tensor:
        spec = graph.spec
        described = torch.cat([features.node_descriptions(spec), depth_codes(spec)], dim=1)
        nodes = self.nodes(described.to(next(self.parameters())))
        nodes = nodes.unsqueeze(1).expand(-1, len(graph), -1)
        for edges, description in own:
            row = own_nodes(spec, edges).to(graph.device)
            nodes = nodes.index_add(0, row, self.own(graph, edges, description))
        return nodes

    def _edge_states(
        self, graph: ParameterGraph, wiring: NeuralGraph, weights: list[tuple[EdgeSet, Tensor]]
    ) -> Tensor:
        like = next(self.parameters())
        states = [like.new_zeros(0, len(graph), self.edge_hidden)]
        for direction in (1.0, -1.0) if wiring.reverse else (1.0,):
            flag = like.new_tensor([direction])
            states += [self.edges(graph, e, torch.cat([d, flag])) for e, d in weights]
        return torch.cat(states).index_select(0, wiring.edges.order)


class _Values(nn.Module):
    """The values of an edge set, weighed by codes of their taps, and its description."""

    def __init__(self, described: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.codes = mlp(described + features.TAP_FEATURES, width * features.VALUE_FEATURES)
        self.shift = mlp(described, width)

    def forward(self, graph: ParameterGraph, edges: EdgeSet, description: Tensor) -> Tensor:
        """States of shape (pairs, B, width)."""
        places = features.tap_descriptions(edges).to(description)
        codes = self.codes(torch.cat([description.expand(len(places), -1), places], dim=1))
        codes = codes.view(-1, self.width) / len(places) ** 0.5
        values = features.value_features(graph, edges).flatten(2).transpose(0, 1)
        return values @ codes + self.shift(description)


class NeuralGraphEditor(nn.Module):
    """Edited networks: weights from the states of edges, biases and the like from those of nodes.

    Args:
        hidden: channels of nodes.
        edge_hidden: channels of edges.
        copies: edits per network.

    Source: Kofinas et al. (2024), appendix on equivariant tasks.
    """

    def __init__(self, hidden: int, edge_hidden: int, copies: int) -> None:
        super().__init__()
        self.own, self.edges = EdgeReadout(hidden, copies), EdgeReadout(edge_hidden, copies)
        self.edits = Edits(copies)

    def forward(
        self, graph: ParameterGraph, wiring: NeuralGraph, nodes: Tensor, edges: Tensor
    ) -> ParameterGraph:
        """Edits from states of nodes (N, B, hidden) and edges (E, B, edge_hidden)."""
        spec = graph.spec
        weights = [part for part in spec.edge_sets if not part.diagonal]
        counts = [part.size // part.num_taps for part in weights]
        ahead = wiring.edges.order.argsort()[: sum(counts)]
        states = edges.transpose(0, 1).index_select(1, ahead)
        found = dict(zip(weights, states.split(counts, dim=1), strict=True))
        nodes = nodes.transpose(0, 1)
        changes = {}
        for part in editable(spec):
            if part.diagonal:
                changes[part.name] = self.own(spec, part, nodes[:, own_nodes(spec, part)])
            else:
                changes[part.name] = self.edges(spec, part, found[part])
        return self.edits(graph, changes)


def own_nodes(spec: GraphSpec, edges: EdgeSet) -> Tensor:
    """The neuron, numbered through all node sets, of each pair of a diagonal edge set."""
    first = dict(zip((n.name for n in spec.node_sets), topology(spec).node_offset, strict=True))
    return first[edges.target] + pair_index(spec, edges)[1]


@lru_cache(maxsize=64)
def depth_codes(spec: GraphSpec) -> Tensor:
    """Smooth code of how many weights lie between the inputs and each neuron.

    Returns:
        Tensor of shape (N, DEPTH_FEATURES); cached, so treat it as read-only.
    """
    depth = {nodes.name: 0 for nodes in spec.node_sets}
    for edges in spec.edge_sets:
        if not edges.diagonal:
            depth[edges.target] = max(depth[edges.target], edges.depth)
    depths = torch.tensor([[depth[nodes.name]] for nodes in spec.node_sets], dtype=torch.float32)
    angles = depths * math.pi / 2 ** torch.arange(1, DEPTH_FEATURES // 2 + 1)
    codes = torch.cat([angles.sin(), angles.cos()], dim=1)
    return codes.repeat_interleave(torch.tensor([n.size for n in spec.node_sets]), dim=0)


def mlp(inputs: int, outputs: int) -> nn.Sequential:
    """Two linear layers with a SiLU between them."""
    return nn.Sequential(nn.Linear(inputs, outputs), nn.SiLU(), nn.Linear(outputs, outputs))
