"""GMN as its equations are written, and as message passing is usually coded.

Every edge gathers the states of both its ends and of the network, concatenates them with its own
and puts them through each MLP whole; messages are scattered to the nodes. Same parameters and same
numbers as :class:`gmn.nn.GMN`: the slow, obvious reference of both its executors.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gmn.graph import ParameterGraph
from gmn.nn import GMN, States
from gmn.nn.gmn import GMNLayer
from gmn.nn.passing.groups import Groups, groups_of
from gmn.nn.sparse import EdgeIndex, edge_index


class GatheredGMN(nn.Module):
    """Runs a GMN edge by edge.

    Args:
        model: whose parameters it uses.
    """

    def __init__(self, model: GMN) -> None:
        super().__init__()
        self.model = model

    def forward(self, graph: ParameterGraph) -> Tensor:
        """Reads B networks; the answer has shape (B, outputs)."""
        groups = groups_of(graph.spec, graph.device, graph.dtype)
        index = edge_index(graph.spec, graph.device, graph.dtype)
        nodes, blocks, state = self.model.encoder(graph)
        edges = torch.cat(blocks, dim=1)[:, index.order]
        for layer in self.model.layers:
            assert isinstance(layer, GMNLayer)
            nodes, edges, state = round_of(layer, index, groups, nodes, edges, state)
        return self.model.head(States(nodes, state, edges), graph)


def round_of(
    layer: GMNLayer, index: EdgeIndex, groups: Groups, nodes: Tensor, edges: Tensor, state: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """One layer: states of nodes (B, N, d), edges (B, P, d) sorted by target, networks (B, d)."""
    source, target = index.edge_index
    x, e = layer.normal_nodes(nodes), layer.normal_edges(edges)
    whole = state.unsqueeze(1).expand_as(edges)
    given = torch.cat([x[:, source], x[:, target], e, whole], dim=-1)
    maps = (layer.from_source, layer.from_target, layer.from_edge, layer.from_state)
    first = torch.cat([linear.weight for linear in maps], dim=1).chunk(3)
    biases = layer.from_source.bias.chunk(3)
    ahead, back, update = (
        torch.relu(nn.functional.linear(given, weight, bias))
        for weight, bias in zip(first, biases, strict=True)
    )
    into = scattered(ahead, layer.forward_out, target, index.share, nodes)
    if groups:
        into = into + groups.means(x) @ layer.group_out
    out = scattered(back, layer.backward_out, source, index.share, nodes)
    summary = state.unsqueeze(1).expand_as(nodes)
    nodes = nodes + layer.node_update(torch.cat([x, into, out, summary], dim=-1))
    edges = edges + layer.edge_out(update)
    means = torch.cat([state, nodes.mean(dim=1), edges.mean(dim=1)], dim=-1)
    return nodes, edges, state + layer.state_update(means)


def scattered(
    hidden: Tensor, last: nn.Linear, index: Tensor, share: Tensor, nodes: Tensor
) -> Tensor:
    """Messages from their hidden layers, averaged at the nodes they reach: (B, N, d)."""
    messages = nn.functional.linear(hidden, last.weight) * share
    return torch.zeros_like(nodes).index_add(1, index, messages) + last.bias
