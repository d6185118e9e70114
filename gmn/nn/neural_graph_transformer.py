"""NG-T, the relational transformer of Neural Graphs (Kofinas et al., ICLR 2024)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gmn.graph import ParameterGraph
from gmn.nn.heads import Head, RoleReadout, States, readout_of
from gmn.nn.metanetwork import Metanetwork
from gmn.nn.neural_graph import (
    NeuralGraph,
    NeuralGraphEditor,
    NeuralGraphEncoder,
    group_means,
    mlp,
    neural_graph,
)
from gmn.nn.recompute import run


class NeuralGraphTransformer(Metanetwork):
    """Attention whose queries, keys and values read edges, along real edges only.

    One layer, with edge states e and node states x, for an edge from j to i::

        q_ij = Q x_i + Q' e_ij,   k_ij = K x_j + K' e_ij,   v_ij = (V x_j) ⊙ (S e_ij) + V' e_ij
        x_i ← norm(x_i + O Σ_j softmax_j(q_ij · k_ij / √width) v_ij),  then an MLP, likewise
        e_ij ← norm(e_ij + MLP(x_i, x_j, e_ij, e_ji))

    Source: Kofinas et al. (arXiv 2403.12143); relational attention of Diao and Loynd (2023).
    Deviations: a neuron attends to those it is connected to, in both directions, instead of to all
    pairs of neurons: the published code computes this mask without using it, from sums of edge
    features, where weights of zero look like absent edges. Encoders and readout are those of
    :class:`gmn.nn.NeuralGraphGNN`; neurons of one head read their mean.

    Equivariant to the permutations of the spec, not to its scalings.

    Args:
        hidden: channels of nodes.
        depth: number of layers.
        head: what to answer with.
        edge_hidden: channels of edges.
        attention: channels of queries, keys and values, over all heads.
        heads: number of attention heads.
        recompute: whether layers are computed again in the backward pass instead of kept.

    Attributes:
        learning_rate: that of the paper.

    Raises:
        ValueError: if the heads do not divide the attention's channels.
    """

    symmetries = ("permutations", "exchanges")
    learning_rate = 1e-3

    def __init__(
        self,
        hidden: int = 64,
        depth: int = 4,
        head: Head | None = None,
        edge_hidden: int = 32,
        attention: int = 128,
        heads: int = 8,
        recompute: bool = True,
    ) -> None:
        super().__init__(head)
        if attention % heads:
            raise ValueError(f"{heads} heads do not divide {attention} channels of attention")
        self.recompute = recompute
        self.encoder = NeuralGraphEncoder(hidden, edge_hidden)
        self.layers = nn.ModuleList(
            _Layer(
                hidden,
                edge_hidden,
                attention,
                heads,
                last=number == depth - 1 and not self.copies,
            )
            for number in range(depth)
        )
        self.readout = readout_of(head, lambda outputs: RoleReadout(hidden, outputs))
        self.editor = None
        if self.copies:
            self.editor = NeuralGraphEditor(hidden, edge_hidden, self.copies)

    @torch.compiler.disable  # slower, or minutes for what it saves: docs/metanetworks.md
    def forward(self, graph: ParameterGraph) -> Tensor | ParameterGraph:
        """Reads B networks; the answer has shape (B, outputs), or is a graph of edited networks."""
        wiring = neural_graph(graph.spec, graph.device, reverse=True)
        nodes, edges = self.encoder(graph, wiring)
        for layer in self.layers:
            nodes, edges = run(layer, self.recompute, wiring, nodes, edges)
        if self.readout is not None:
            return self.readout(States(nodes.transpose(0, 1)), graph)
        assert self.editor is not None
        return self.editor(graph, wiring, nodes, edges)


class _Layer(nn.Module):
    """Attention, and the updates of nodes and edges; norms after the residual connections."""

    def __init__(
        self, hidden: int, edge_hidden: int, attention: int, heads: int, last: bool
    ) -> None:
        super().__init__()
        self.heads = heads
        self.target = nn.Linear(hidden, attention)  # queries
        self.source = nn.Linear(hidden, 2 * attention)  # keys, values
        self.edge = nn.Linear(edge_hidden, 4 * attention)  # queries, keys, values, their scale
        self.out = nn.Linear(attention, hidden)
        self.group = nn.Linear(hidden, hidden, bias=False)
        self.normal, self.normal_mlp = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.mlp = mlp(hidden, hidden)
        self.edges = None if last else _EdgeUpdate(hidden, edge_hidden)

    def forward(self, wiring: NeuralGraph, nodes: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
        """Updates nodes (N, B, hidden) and edges (E, B, edge_hidden)."""
        at = wiring.edges
        query, key, value, scale = self.edge(edges).chunk(4, dim=-1)
        seen_key, seen_value = self.source(nodes).index_select(0, at.source).chunk(2, dim=-1)
        query = query + self.target(nodes).index_select(0, at.target)
        value = torch.addcmul(value, seen_value, scale)
        scores = self._by_head(query * (key + seen_key)).sum(dim=-1)
        scores = scores / (query.shape[-1] // self.heads) ** 0.5
        parts = [
            (part.softmax(dim=1).unsqueeze(-1) * values).sum(dim=1).flatten(2)
            for part, values in zip(at.split(scores), at.split(self._by_head(value)), strict=True)
        ]
        update = self.out(at.gather(parts, value))
        if wiring.members.numel():
            update = update + self.group(group_means(nodes, wiring.members))
        nodes = self.normal(nodes + update)
        nodes = self.normal_mlp(nodes + self.mlp(nodes))
        return nodes, edges if self.edges is None else self.edges(wiring, nodes, edges)

    def _by_head(self, channels: Tensor) -> Tensor:
        return channels.unflatten(-1, (self.heads, -1))


class _EdgeUpdate(nn.Module):
    """``norm(e_ij + MLP(x_i, x_j, e_ij, e_ji))``."""

    def __init__(self, hidden: int, edge_hidden: int) -> None:
        super().__init__()
        self.target = nn.Linear(hidden, edge_hidden)
        self.source = nn.Linear(hidden, edge_hidden, bias=False)
        self.edge = nn.Linear(edge_hidden, edge_hidden, bias=False)
        self.turned = nn.Linear(edge_hidden, edge_hidden, bias=False)
        self.out = nn.Linear(edge_hidden, edge_hidden)
        self.normal = nn.LayerNorm(edge_hidden)

    def forward(self, wiring: NeuralGraph, nodes: Tensor, edges: Tensor) -> Tensor:
        """New edge states of shape (E, B, edge_hidden)."""
        at = wiring.edges
        total = self.edge(edges) + self.turned(edges).index_select(0, wiring.turned)
        total = total + self.source(nodes).index_select(0, at.source)
        total = total + self.target(nodes).index_select(0, at.target)
        return self.normal(edges + self.out(nn.functional.silu(total)))
