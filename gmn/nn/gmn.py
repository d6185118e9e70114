"""GMN, the graph metanetwork of Lim et al. (ICLR 2024, arXiv 2312.04501), executed sparsely."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch_geometric.nn import MessagePassing

from gmn import features
from gmn.graph import ParameterGraph
from gmn.nn.heads import InvariantHead
from gmn.nn.sparse import EdgeIndex, edge_index, sum_into_nodes


class GMN(nn.Module):
    """Message passing on parameter graphs with node, edge and global states.

    Every layer computes, with MLPs φ (section 2.2 of the paper)::

        v_i ← φ_v(v_i, Σ_j φ_m(v_i, v_j, e_ij, u), u)
        e_ij ← φ_e(v_i, v_j, e_ij, u)
        u ← φ_u(u, mean_i v_i, mean_ij e_ij)

    with residual connections. Messages run along both directions of every edge, with weights of
    their own, and are averaged within each edge set. A kernel is one edge whose initial state is
    the sum over its taps of value times a learned code of the tap's place, instead of one parallel
    edge per tap; biases and normalisation parameters are loops instead of edges from extra nodes.
    Neurons of one head (or group of channels) read their mean, or nothing would say which queries
    belong to which values; parallel edges are told apart by their route. In the paper's graph of
    attention, queries, keys and values can be exchanged, and heads are invisible.

    It needs no spec: one module reads every architecture. Equivariant to the permutations of the
    spec, not to its scalings.

    Args:
        hidden: channels of all states.
        depth: number of layers.
        head: what to answer with.

    Attributes:
        learning_rate: a good peak for :func:`gmn.train.train`.
    """

    learning_rate = 5e-3

    def __init__(self, hidden: int = 64, depth: int = 4, head: InvariantHead | None = None) -> None:
        super().__init__()
        self.encoder = Encoder(hidden)
        self.layers = nn.ModuleList(GMNLayer(hidden) for _ in range(depth))
        self.head = (InvariantHead() if head is None else head).build(hidden)

    def forward(self, graph: ParameterGraph) -> Tensor:
        """Reads B networks; the answer has shape (B, outputs)."""
        index = edge_index(graph.spec, graph.device, graph.dtype)
        nodes, edges, state = self.encoder(graph, index)
        for layer in self.layers:
            nodes, edges, state = layer(nodes, edges, state, index)
        return self.head(graph.spec, nodes, edges, state)


class Encoder(nn.Module):
    """Initial states from values and descriptions."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.nodes = _mlp(features.NODE_FEATURES, hidden)
        self.edges = _mlp(features.EDGE_FEATURES, hidden)
        codes = hidden * features.VALUE_FEATURES
        self.taps = _mlp(features.EDGE_FEATURES + features.TAP_FEATURES, codes)
        self.state = nn.Parameter(torch.randn(hidden) / hidden**0.5)

    def forward(self, graph: ParameterGraph, index: EdgeIndex) -> tuple[Tensor, Tensor, Tensor]:
        """States of nodes (B, N, d), edges (B, P, d) sorted by target, and networks (B, d)."""
        spec, batch = graph.spec, len(graph)
        like = self.state
        described = features.edge_descriptions(spec).to(like)
        shifts = self.edges(described)
        blocks = []
        for edges, about, shift in zip(spec.edge_sets, described, shifts, strict=True):
            places = features.tap_descriptions(edges).to(like)
            codes = self.taps(torch.cat([about.expand(len(places), -1), places], dim=1))
            codes = codes.view(len(places) * features.VALUE_FEATURES, self.hidden)
            values = features.value_features(graph, edges).flatten(2)  # (B, pairs, taps * 2)
            blocks.append(values @ codes / len(places) ** 0.5 + shift)
        nodes = self.nodes(features.node_descriptions(spec).to(like))
        return (
            nodes.expand(batch, -1, -1),
            torch.cat(blocks, dim=1)[:, index.order],
            self.state.expand(batch, -1),
        )


class GMNLayer(MessagePassing):
    """One round of messages, and the updates of nodes, edges and global state."""

    def __init__(self, hidden: int) -> None:
        super().__init__(node_dim=-2)
        self.normal_nodes, self.normal_edges = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        # First layers of φ_m (both directions) and φ_e, split by what they read: node parts are
        # computed once per node, not once per edge.
        self.from_source = nn.Linear(hidden, 3 * hidden)
        self.from_target = nn.Linear(hidden, 3 * hidden, bias=False)
        self.from_edge = nn.Linear(hidden, 3 * hidden, bias=False)
        self.from_state = nn.Linear(hidden, 3 * hidden, bias=False)
        # The last layer of φ_m is linear, so it is applied after the sum.
        self.forward_out = nn.Linear(hidden, hidden)
        self.backward_out = nn.Linear(hidden, hidden)
        self.node_update = _mlp(4 * hidden, hidden)
        self.edge_out = nn.Linear(hidden, hidden)
        self.state_update = _mlp(3 * hidden, hidden)
        self.group_out = nn.Parameter(torch.eye(hidden))

    def forward(
        self, nodes: Tensor, edges: Tensor, state: Tensor, index: EdgeIndex
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Updates states of nodes (B, N, d), edges (B, P, d) and networks (B, d)."""
        x, e = self.normal_nodes(nodes), self.normal_edges(edges)
        ahead, back, update = self.edge_updater(
            index.edge_index,
            source=self.from_source(x),
            target=self.from_target(x) + self.from_state(state).unsqueeze(1),
            edge=self.from_edge(e),
        )
        size = (nodes.shape[-2],) * 2
        into = self.propagate(
            index.edge_index, message=ahead * index.share, pointer=index.pointer, size=size
        )
        source = index.edge_index[0]
        out = back.new_zeros(nodes.shape).index_add(1, source, back * index.share)
        into = self.forward_out(into)
        if index.members.numel():
            into = into + index.share_in_groups(x) @ self.group_out
        gathered = [x, into, self.backward_out(out)]
        summary = state.unsqueeze(1).expand_as(nodes)
        nodes = nodes + self.node_update(torch.cat([*gathered, summary], dim=-1))
        edges = edges + self.edge_out(update)
        means = [state, nodes.mean(dim=1), edges.mean(dim=1)]
        return nodes, edges, state + self.state_update(torch.cat(means, dim=-1))

    def edge_update(self, source_j: Tensor, target_i: Tensor, edge: Tensor) -> tuple[Tensor, ...]:
        """Hidden layers of both messages and of the edge update, each (B, P, d)."""
        # In place: none of the three is needed for the backward pass.
        return source_j.add_(target_i).add_(edge).relu_().chunk(3, dim=-1)

    def message(self, message: Tensor) -> Tensor:
        """Messages are computed with the edge update."""
        return message

    def aggregate(self, inputs: Tensor, index: Tensor, pointer: Tensor) -> Tensor:
        """Sums messages by target."""
        return sum_into_nodes(inputs, index, pointer)


def _mlp(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, outputs), nn.ReLU(), nn.Linear(outputs, outputs))
