"""NG-T, the relational transformer of Neural Graphs (Kofinas et al., ICLR 2024)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gmn.features import Descriptions, ValueFeatures
from gmn.foundation.arguments import require_whole
from gmn.nn.heads import EditHead, Head
from gmn.nn.passing.message_network import MessagePassingNetwork, mlp
from gmn.nn.passing.message_passing import MessagePassing
from gmn.nn.passing.relations import Wiring


class NeuralGraphTransformer(MessagePassingNetwork):
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
        head: the number of outputs, a head, or a module of your own; one output if None.
        edge_hidden: channels of edges.
        attention: channels of queries, keys and values, over all heads.
        heads: number of attention heads.
        features: encodes the values of parameters; None for :class:`gmn.features.FanIn`.
        recompute: whether layers are computed again in the backward pass instead of kept, which
            takes a third more time and a fraction of the memory.
        descriptions: describes nodes and edge sets to the model; None for
            :class:`gmn.features.SpecDescriptions`.

    Attributes:
        learning_rate: the learning rate of the paper.

    Raises:
        ValueError: if the heads do not divide the attention's channels.
    """

    learning_rate = 1e-3

    def __init__(
        self,
        hidden: int = 64,
        depth: int = 4,
        head: Head | None = None,
        edge_hidden: int = 32,
        attention: int = 128,
        heads: int = 8,
        features: ValueFeatures | None = None,
        recompute: bool = True,
        descriptions: Descriptions | None = None,
    ) -> None:
        for name, count in (("hidden", hidden), ("edge_hidden", edge_hidden)):
            require_whole(name, count, 1)
        require_whole("depth", depth, 0)
        require_whole("attention", attention, 1)
        require_whole("heads", heads, 1)
        if attention % heads:
            raise ValueError(f"{heads} heads do not divide {attention} channels of attention")
        # Only an editor reads the edges after the last layer.
        with_edges = isinstance(head, EditHead)
        layers = [
            _TransformerLayer(hidden, edge_hidden, attention, heads, with_edges or n < depth - 1)
            for n in range(depth)
        ]
        super().__init__(layers, hidden, edge_hidden, head, True, features, recompute, descriptions)


class _TransformerLayer(MessagePassing):
    """Attention, and the updates of nodes and edges; norms after the residual connections."""

    def __init__(
        self, hidden: int, edge_hidden: int, attention: int, heads: int, with_edges: bool
    ) -> None:
        super().__init__(hidden, "softmax", attention)
        self.heads = heads
        self.target = nn.Linear(hidden, attention)  # queries
        self.source = nn.Linear(hidden, 2 * attention)  # keys, values
        self.edge = nn.Linear(edge_hidden, 4 * attention)  # queries, keys, values, their scale
        self.out = nn.Linear(attention, hidden)
        self.normal, self.normal_mlp = nn.LayerNorm(hidden), nn.LayerNorm(hidden)
        self.mlp = mlp(hidden, hidden)
        self.edges = _TransformerEdgeUpdate(hidden, edge_hidden) if with_edges else None

    def project(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        return self.source(nodes), self.target(nodes)

    def message(self, source: Tensor, target: Tensor, edge: Tensor) -> tuple[Tensor, Tensor]:
        query, key, value, scale = self.edge(edge).chunk(4, dim=-1)
        source_key, source_value = source.chunk(2, dim=-1)
        products = (query + target) * (key + source_key)
        scores = products.unflatten(-1, (self.heads, -1)).sum(dim=-1)
        scores = scores / (query.shape[-1] // self.heads) ** 0.5
        return scores, torch.addcmul(value, source_value, scale)

    def edge_update(self, source: Tensor, target: Tensor, edge: Tensor, reverse: Tensor) -> Tensor:
        assert self.edges is not None
        return self.edges(source, target, edge, reverse)

    def forward(
        self, wiring: Wiring, nodes: Tensor, edges: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        update = self.out(self.propagate(wiring, *self.project(nodes), edges))
        if wiring.groups:
            update = update + self.group(wiring.groups.means(nodes))
        nodes = self.normal(nodes + update)
        nodes = self.normal_mlp(nodes + self.mlp(nodes))
        if self.edges is None:
            return nodes, edges
        ends = self.edges.source(nodes), self.edges.target(nodes)
        return nodes, self.edge_updater(wiring, *ends, edges, wiring.reverse_states(edges))


class _TransformerEdgeUpdate(nn.Module):
    """``norm(e_ij + MLP(x_i, x_j, e_ij, e_ji))``."""

    def __init__(self, hidden: int, edge_hidden: int) -> None:
        super().__init__()
        self.target = nn.Linear(hidden, edge_hidden)
        self.source = nn.Linear(hidden, edge_hidden, bias=False)
        self.edge = nn.Linear(edge_hidden, edge_hidden, bias=False)
        self.turned = nn.Linear(edge_hidden, edge_hidden, bias=False)
        self.out = nn.Linear(edge_hidden, edge_hidden)
        self.normal = nn.LayerNorm(edge_hidden)

    def forward(self, source: Tensor, target: Tensor, edge: Tensor, reverse: Tensor) -> Tensor:
        """New states of the edges of one relation, of the same shape."""
        total = self.edge(edge) + self.turned(reverse) + source + target
        return self.normal(edge + self.out(nn.functional.silu(total)))
