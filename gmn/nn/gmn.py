"""GMN, the graph metanetwork of Lim et al. (ICLR 2024, arXiv 2312.04501)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from gmn import features
from gmn.features import (
    Descriptions,
    FanIn,
    SpecDescriptions,
    ValueFeatures,
    require_reading,
)
from gmn.foundation.arguments import require_one_of, require_whole
from gmn.graph import ParameterGraph
from gmn.nn.dense import DenseExecutor, EdgeMaps
from gmn.nn.edge_edits import EdgeReadout, Edits, editable
from gmn.nn.heads import Head, InvariantReadout, States, readout_of
from gmn.nn.metanetwork import Metanetwork
from gmn.nn.passing.groups import Groups, groups_of
from gmn.nn.running import run, uncompiled

if TYPE_CHECKING:
    from gmn.nn.sparse import SparseExecutor

Executor = Literal["dense", "sparse"]
EXECUTORS: tuple[Executor, ...] = ("dense", "sparse")


class GMN(Metanetwork):
    """Message passing on parameter graphs with node, edge and global states.

    Every layer computes, with MLPs φ (section 2.2 of the paper)::

        v_i ← φ_v(v_i, Σ_j φ_m(v_i, v_j, e_ij, u), u)
        e_ij ← φ_e(v_i, v_j, e_ij, u)
        u ← φ_u(u, mean_i v_i, mean_ij e_ij)

    with residual connections. Messages run along both directions of every edge, with weights of
    their own, and are averaged within each edge set. A kernel is one edge whose initial state is
    the sum over its taps of value times a learned code of the tap's position, instead of one
    parallel edge per tap; biases and normalisation parameters are loops instead of edges from extra
    nodes.
    Neurons of one head (or group of channels) read their mean, without which queries could not be
    matched with values; parallel edges are told apart by their route. In the paper's graph of
    attention, queries, keys and values can be exchanged, and heads are invisible.

    It needs no spec: one module reads every architecture. Equivariant to the permutations of the
    spec, not to its scalings.

    Edits are read out from the states of edges, loops included.

    Args:
        hidden: channels of all states.
        depth: number of layers.
        head: the number of outputs, a head, or a module of your own; one output if None.
        executor: ``"dense"`` runs on blocks of edges, ``"sparse"`` on PyG's message passing; both
            give the same numbers from the same parameters.
        features: encodes the values of edges; None for :class:`gmn.features.FanIn`.
        recompute: whether layers are computed again in the backward pass instead of kept; off,
            since the dense executor keeps little.
        descriptions: describes nodes and edge sets to the model; None for
            :class:`gmn.features.SpecDescriptions`.

    Attributes:
        executor: may be changed at any time.
        learning_rate: a good peak for :func:`gmn.train.train`.
    """

    symmetries = ("permutations", "exchanges")
    learning_rate = 5e-3

    def __init__(
        self,
        hidden: int = 64,
        depth: int = 4,
        head: Head | None = None,
        executor: Executor = "dense",
        features: ValueFeatures | None = None,
        recompute: bool = False,
        descriptions: Descriptions | None = None,
    ) -> None:
        super().__init__(head)
        require_whole("hidden", hidden, 1)
        require_whole("depth", depth, 0)
        require_one_of("executor", executor, EXECUTORS)
        require_reading(features, descriptions)
        self.executor = executor
        self.recompute = recompute
        described = SpecDescriptions() if descriptions is None else descriptions
        self.encoder = Encoder(hidden, FanIn() if features is None else features, described)
        self.layers = nn.ModuleList(GMNLayer(hidden) for _ in range(depth))
        self.head = readout_of(head, lambda outputs: InvariantReadout(hidden, outputs))
        self.changes, self.edits = None, None
        if self.copies:
            self.changes = EdgeReadout(hidden, self.copies, described)
            self.edits = Edits(self.copies)

    @uncompiled  # slower, or minutes for what it saves: docs/metanetworks.md
    def forward(self, graph: ParameterGraph) -> Tensor | ParameterGraph:
        """Reads B networks; the answer has shape (B, outputs), or is a graph of edited networks."""
        spec, device, dtype = graph.spec, graph.device, graph.dtype
        executor: DenseExecutor | SparseExecutor = DenseExecutor(spec)
        if self.executor == "sparse":
            from gmn.nn.sparse import sparse_executor  # PyG takes longer to import than torch

            executor = sparse_executor(spec, device, dtype)
        groups = groups_of(spec, device, dtype)
        nodes, edges, state = self.encoder(graph)
        states = executor.arrange(edges)
        for layer in self.layers:
            nodes, states, state = run(
                layer, self.recompute, executor, groups, nodes, states, state
            )
        if self.head is not None:
            return self.head(States(nodes, state, executor.restore(states, len(graph))), graph)
        assert self.changes is not None
        assert self.edits is not None
        states_of = dict(zip(spec.edge_sets, executor.divide(states, len(graph)), strict=True))
        changes = {e.name: self.changes(spec, e, states_of[e]) for e in editable(spec)}
        return self.edits(graph, changes)


class Encoder(nn.Module):
    """Initial states from values and descriptions."""

    def __init__(self, hidden: int, values: ValueFeatures, descriptions: Descriptions) -> None:
        super().__init__()
        self.hidden = hidden
        self.values, self.descriptions = values, descriptions
        self.nodes = _mlp(descriptions.node_channels, hidden)
        self.edges = _mlp(descriptions.edge_channels, hidden)
        codes = hidden * values.channels
        self.taps = _mlp(descriptions.edge_channels + features.TAP_FEATURES, codes)
        self.state = nn.Parameter(torch.randn(hidden) / hidden**0.5)

    def forward(self, graph: ParameterGraph) -> tuple[Tensor, list[Tensor], Tensor]:
        """States of nodes (B, N, d), of each edge set (B, pairs, d), and of networks (B, d)."""
        spec, batch = graph.spec, len(graph)
        like = self.state
        descriptions = self.descriptions.edges(spec).to(like)
        shifts = self.edges(descriptions)
        blocks = []
        for edges, description, shift in zip(spec.edge_sets, descriptions, shifts, strict=True):
            codes = self.taps(features.with_taps(description, edges)).view(-1, self.hidden)
            values = self.values(graph, edges).flatten(2)  # (B, pairs, taps * channels)
            blocks.append(values @ codes / edges.num_taps**0.5 + shift)
        nodes = self.nodes(self.descriptions.nodes(spec).to(like))
        return (
            nodes.expand(batch, -1, -1),
            blocks,
            self.state.expand(batch, -1),
        )


class GMNLayer(nn.Module):
    """One round of messages, and the updates of nodes, edges and global state."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
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
        self,
        run: DenseExecutor | SparseExecutor,
        groups: Groups,
        nodes: Tensor,
        edges: Tensor,
        state: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Updates states of nodes (B, N, d), edges (as arranged) and networks (B, d)."""
        x = self.normal_nodes(nodes)
        shift = self.from_state(state) + self.from_edge(self.normal_edges.bias)
        target = self.from_target(x) + shift.unsqueeze(1)
        outputs = run.edge_step(self.from_source(x), target, edges, self._maps())
        into = self.forward_out(outputs.into)
        if groups:
            into = into + groups.means(x) @ self.group_out
        inputs = [x, into, self.backward_out(outputs.out)]
        summary = state.unsqueeze(1).expand_as(nodes)
        nodes = nodes + self.node_update(torch.cat([*inputs, summary], dim=-1))
        means = [state, nodes.mean(dim=1), outputs.mean]
        return nodes, outputs.edges, state + self.state_update(torch.cat(means, dim=-1))

    def _maps(self) -> EdgeMaps:
        """The maps applied to every edge, with the norm's gain folded in; its shift is a bias."""
        read = self.from_edge.weight * self.normal_edges.weight
        return EdgeMaps(read, self.edge_out.weight, self.edge_out.bias)


def _mlp(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, outputs), nn.ReLU(), nn.Linear(outputs, outputs))
