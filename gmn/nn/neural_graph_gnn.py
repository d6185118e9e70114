"""NG-GNN, the message-passing network of Neural Graphs (Kofinas et al., ICLR 2024)."""

from __future__ import annotations

import math

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
    neural_graph,
)
from gmn.nn.recompute import run

AGGREGATORS = 4
# What PNA divides the logarithm of degrees by: the paper takes the mean over each training set,
# which the linear map that follows can undo. One number serves every architecture.
USUAL_LOG_DEGREE = math.log(17)


class NeuralGraphGNN(Metanetwork):
    """Principal neighbourhood aggregation with messages that edges modulate (FiLM).

    One layer, with edge states e and node states x, for an edge from j to i::

        (s, t) = linear(e_ij),   m_ij = s ⊙ MLP(x_i, x_j) + t
        a_i = [mean, min, max, standard deviation of m_ij over j],  amplified and not
        x_i ← x_i + SiLU(norm(linear(x_i, a_i, log(degree + 1) a_i / δ)))
        e_ij ← W SiLU(W_e e_ij + W_s x_i + W_t x_j)         (in the last layer for edits only)

    Source: Kofinas et al. (arXiv 2403.12143), section 3 and appendix; PNA of Corso et al. (2020).
    Deviations: descriptions and tap codes instead of embeddings by position in a fixed
    architecture and of padded kernels (:mod:`gmn.nn.neural_graph`); δ is a constant instead of one
    per data set; neurons of one head read their mean; means by role instead of
    the last layer's nodes side by side. Residual connections are shared node sets, not edges.

    Equivariant to the permutations of the spec, not to its scalings.

    Args:
        hidden: channels of nodes.
        depth: number of layers.
        head: what to answer with.
        edge_hidden: channels of edges.
        reverse: whether messages also run against the edges (the paper: yes for implicit neural
            representations, no for convolutional networks).
        recompute: whether layers are computed again in the backward pass instead of kept.

    Attributes:
        learning_rate: that of the paper.
    """

    symmetries = ("permutations", "exchanges")
    learning_rate = 1e-3

    def __init__(
        self,
        hidden: int = 64,
        depth: int = 4,
        head: Head | None = None,
        edge_hidden: int = 32,
        reverse: bool = True,
        recompute: bool = True,
    ) -> None:
        super().__init__(head)
        self.reverse, self.recompute = reverse, recompute
        self.encoder = NeuralGraphEncoder(hidden, edge_hidden)
        self.layers = nn.ModuleList(
            _Layer(hidden, edge_hidden, last=number == depth - 1 and not self.copies)
            for number in range(depth)
        )
        self.readout = readout_of(head, lambda outputs: RoleReadout(hidden, outputs))
        self.editor = None
        if self.copies:
            self.editor = NeuralGraphEditor(hidden, edge_hidden, self.copies)

    @torch.compiler.disable  # slower, or minutes for what it saves: docs/metanetworks.md
    def forward(self, graph: ParameterGraph) -> Tensor | ParameterGraph:
        """Reads B networks; the answer has shape (B, outputs), or is a graph of edited networks."""
        wiring = neural_graph(graph.spec, graph.device, self.reverse)
        nodes, edges = self.encoder(graph, wiring)
        for layer in self.layers:
            nodes, edges = run(layer, self.recompute, wiring, nodes, edges)
        if self.readout is not None:
            return self.readout(States(nodes.transpose(0, 1)), graph)
        assert self.editor is not None
        return self.editor(graph, wiring, nodes, edges)


class _Layer(nn.Module):
    """Messages, their statistics at every node, and the updates of nodes and edges."""

    def __init__(self, hidden: int, edge_hidden: int, last: bool) -> None:
        super().__init__()
        self.film = nn.Linear(edge_hidden, 2 * hidden)
        # The first layer of the MLP reads both ends: its parts are computed once per node.
        self.from_source = nn.Linear(hidden, hidden)
        self.from_target = nn.Linear(hidden, hidden, bias=False)
        self.message = nn.Linear(hidden, hidden)
        self.update = nn.Linear((1 + 2 * AGGREGATORS) * hidden, hidden)
        self.group = nn.Linear(hidden, hidden, bias=False)
        self.normal = nn.LayerNorm(hidden)
        self.edges = None if last else _EdgeUpdate(hidden, edge_hidden)

    def forward(self, wiring: NeuralGraph, nodes: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
        """Updates nodes (N, B, hidden) and edges (E, B, edge_hidden)."""
        at = wiring.edges
        ends = self.from_source(nodes).index_select(0, at.source)
        ends = ends + self.from_target(nodes).index_select(0, at.target)
        scale, shift = self.film(edges).chunk(2, dim=-1)
        messages = torch.addcmul(shift, scale, self.message(nn.functional.silu(ends)))
        found = at.reduce(messages, _statistics, AGGREGATORS * nodes.shape[-1])
        amplified = found * ((at.degree + 1).to(found).log() / USUAL_LOG_DEGREE)
        update = self.update(torch.cat([nodes, found, amplified], dim=-1))
        if wiring.members.numel():
            update = update + self.group(group_means(nodes, wiring.members))
        nodes = nodes + nn.functional.silu(self.normal(update))
        return nodes, edges if self.edges is None else self.edges(wiring, nodes, edges)


def _statistics(messages: Tensor) -> Tensor:
    """Mean, minimum, maximum and deviation along dimension 1."""
    mean = messages.mean(dim=1)
    variance = (messages - mean.unsqueeze(1)).square().mean(dim=1)  # var_mean takes twice as long
    least, most = messages.min(dim=1).values, messages.max(dim=1).values
    return torch.cat([mean, least, most, (variance + 1e-5).sqrt()], dim=-1)


class _EdgeUpdate(nn.Module):
    """``W SiLU(W_e e_ij + W_s x_i + W_t x_j)``."""

    def __init__(self, hidden: int, edge_hidden: int) -> None:
        super().__init__()
        self.edge = nn.Linear(edge_hidden, edge_hidden)
        self.source = nn.Linear(hidden, edge_hidden, bias=False)
        self.target = nn.Linear(hidden, edge_hidden, bias=False)
        self.out = nn.Linear(edge_hidden, edge_hidden)

    def forward(self, wiring: NeuralGraph, nodes: Tensor, edges: Tensor) -> Tensor:
        """New edge states of shape (E, B, edge_hidden)."""
        at = wiring.edges
        total = self.edge(edges) + self.source(nodes).index_select(0, at.source)
        total = total + self.target(nodes).index_select(0, at.target)
        return self.out(nn.functional.silu(total))
