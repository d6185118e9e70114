"""NG-GNN, the message-passing network of Neural Graphs (Kofinas et al., ICLR 2024)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from gmn.features import Descriptions, ValueFeatures
from gmn.foundation.arguments import require_whole
from gmn.nn.heads import EditHead, Head
from gmn.nn.passing.message_network import MessagePassingNetwork
from gmn.nn.passing.message_passing import MessagePassing
from gmn.nn.passing.reductions import Reduction
from gmn.nn.passing.relations import Wiring

AGGREGATORS: tuple[Reduction, ...] = ("mean", "min", "max", "std")
# The divisor δ of the logarithm of degrees in PNA: the paper takes the mean over each training set,
# but the linear map that follows can learn any factor, so one constant serves every architecture.
TYPICAL_LOG_DEGREE = math.log(17)


class NeuralGraphGNN(MessagePassingNetwork):
    """Principal neighbourhood aggregation with messages that edges modulate (FiLM).

    One layer, with edge states e and node states x, for an edge from j to i::

        (s, t) = linear(e_ij),   m_ij = s ⊙ MLP(x_i, x_j) + t
        a_i = [mean, min, max, standard deviation of m_ij over j],  amplified and not
        x_i ← x_i + SiLU(norm(linear(x_i, a_i, log(degree + 1) a_i / δ)))
        e_ij ← W SiLU(W_e e_ij + W_s x_i + W_t x_j)         (in the last layer for edits only)

    Source: Kofinas et al. (arXiv 2403.12143), section 3 and appendix; PNA of Corso et al. (2020).
    Deviations: descriptions and tap codes instead of embeddings by position in a fixed
    architecture and of padded kernels (:class:`gmn.nn.MessagePassingNetwork`); δ is a constant
    instead of one per data set; neurons of one head read their mean; means by role instead of the
    last layer's nodes side by side. Residual connections are shared node sets, not edges.

    Equivariant to the permutations of the spec, not to its scalings.

    Args:
        hidden: channels of nodes.
        depth: number of layers.
        head: the number of outputs, a head, or a module of your own; one output if None.
        edge_hidden: channels of edges.
        reverse: whether messages also run against the edges (the paper: yes for implicit neural
            representations, no for convolutional networks).
        features: encodes the values of parameters; None for :class:`gmn.features.FanIn`.
        recompute: whether layers are computed again in the backward pass instead of kept, which
            takes a third more time and a fraction of the memory.
        descriptions: describes nodes and edge sets to the model; None for
            :class:`gmn.features.SpecDescriptions`.

    Attributes:
        learning_rate: the learning rate of the paper.
    """

    learning_rate = 1e-3

    def __init__(
        self,
        hidden: int = 64,
        depth: int = 4,
        head: Head | None = None,
        edge_hidden: int = 32,
        reverse: bool = True,
        features: ValueFeatures | None = None,
        recompute: bool = True,
        descriptions: Descriptions | None = None,
    ) -> None:
        for name, count in (("hidden", hidden), ("edge_hidden", edge_hidden)):
            require_whole(name, count, 1)
        require_whole("depth", depth, 0)
        # Only an editor reads the edges after the last layer.
        with_edges = isinstance(head, EditHead)
        layers = [_GNNLayer(hidden, edge_hidden, with_edges or n < depth - 1) for n in range(depth)]
        super().__init__(
            layers, hidden, edge_hidden, head, reverse, features, recompute, descriptions
        )


class _GNNLayer(MessagePassing):
    """Messages, their statistics at every node, and the updates of nodes and edges."""

    def __init__(self, hidden: int, edge_hidden: int, with_edges: bool) -> None:
        super().__init__(hidden, AGGREGATORS)
        self.film = nn.Linear(edge_hidden, 2 * hidden)
        # The first layer of the MLP reads both ends: its parts are computed once per node.
        self.from_source = nn.Linear(hidden, hidden)
        self.from_target = nn.Linear(hidden, hidden, bias=False)
        self.to_message = nn.Linear(hidden, hidden)
        self.to_update = nn.Linear((1 + 2 * len(AGGREGATORS)) * hidden, hidden)
        self.normal = nn.LayerNorm(hidden)
        self.edges = _GNNEdgeUpdate(hidden, edge_hidden) if with_edges else None
        self.register_load_state_dict_pre_hook(_read_old_names)

    def project(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        return self.from_source(nodes), self.from_target(nodes)

    def message(self, source: Tensor, target: Tensor, edge: Tensor) -> Tensor:
        # Two products: the gradients of two halves of one would have to be put together.
        scale, shift = (
            nn.functional.linear(edge, weight, bias)
            for weight, bias in zip(self.film.weight.chunk(2), self.film.bias.chunk(2), strict=True)
        )
        return torch.addcmul(shift, scale, self.to_message(nn.functional.silu(source + target)))

    def edge_update(self, source: Tensor, target: Tensor, edge: Tensor) -> Tensor:
        assert self.edges is not None
        return self.edges(source, target, edge)

    def forward(
        self, wiring: Wiring, nodes: Tensor, edges: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        statistics = self.propagate(wiring, *self.project(nodes), edges)
        amplified = statistics * ((wiring.degree + 1).log() / TYPICAL_LOG_DEGREE)
        update = self.to_update(torch.cat([nodes, statistics, amplified], dim=-1))
        if wiring.groups:
            update = update + self.group(wiring.groups.means(nodes))
        nodes = nodes + nn.functional.silu(self.normal(update))
        if self.edges is None:
            return nodes, edges
        ends = self.edges.source(nodes), self.edges.target(nodes)
        return nodes, self.edge_updater(wiring, *ends, edges)


class _GNNEdgeUpdate(nn.Module):
    """``W SiLU(W_e e_ij + W_s x_i + W_t x_j)``."""

    def __init__(self, hidden: int, edge_hidden: int) -> None:
        super().__init__()
        self.edge = nn.Linear(edge_hidden, edge_hidden)
        self.source = nn.Linear(hidden, edge_hidden, bias=False)
        self.target = nn.Linear(hidden, edge_hidden, bias=False)
        self.out = nn.Linear(edge_hidden, edge_hidden)

    def forward(self, source: Tensor, target: Tensor, edge: Tensor) -> Tensor:
        """New states of the edges of one relation, of the same shape."""
        return self.out(nn.functional.silu(self.edge(edge) + source + target))


def _read_old_names(layer: nn.Module, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Reads states of version 0.1, where two modules had names that are methods now."""
    for name in ("message", "update"):
        for part in ("weight", "bias"):
            if (old := f"{prefix}{name}.{part}") in state:
                state[f"{prefix}to_{name}.{part}"] = state.pop(old)
