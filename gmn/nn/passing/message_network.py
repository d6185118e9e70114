"""A metanetwork of message-passing layers: encoder, layers, and readout or editor."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import lru_cache

import torch
from torch import Tensor, nn

from gmn import features
from gmn.errors import ArgumentError
from gmn.features import Descriptions, FanIn, SpecDescriptions, ValueFeatures, require_reading
from gmn.foundation.arguments import require_several, require_type, require_whole
from gmn.graph import ParameterGraph
from gmn.graph.topology import pair_index, topology
from gmn.nn.edge_edits import EdgeReadout, Edits, editable
from gmn.nn.heads import Head, RoleReadout, States, readout_of
from gmn.nn.metanetwork import Metanetwork
from gmn.nn.passing.message_passing import MessagePassing
from gmn.nn.passing.relations import Wiring, wiring_of
from gmn.nn.running import run, uncompiled
from gmn.spec import EdgeSet, GraphSpec

DEPTH_FEATURES = 8


class MessagePassingNetwork(Metanetwork):
    """A metanetwork of your own layers.

    Neurons are nodes, whose biases and other parameters of their own enter their initial states;
    weights are edges, a kernel is one edge. With ``reverse`` every edge also runs in reverse, with
    a state of its own that encodes the direction. One module reads every architecture, and it is
    equivariant to the permutations of the spec, not to its scalings.

    Args:
        layers: the layers, in order.
        hidden: channels of nodes.
        edge_hidden: channels of edges.
        head: the number of outputs, a head, or a module of your own; one output if None.
        reverse: whether messages also run against the network's direction.
        features: encodes the values of parameters; None for :class:`gmn.features.FanIn`.
        recompute: whether layers are computed again in the backward pass instead of kept, which
            takes a third more time and a fraction of the memory.
        descriptions: describes nodes and edge sets to the model; None for
            :class:`gmn.features.SpecDescriptions`.

    Source: the graph is that of Kofinas et al. (ICLR 2024, arXiv 2403.12143), section 3. They learn
    one vector for every input and output neuron and one for every hidden layer; here initial states
    come from descriptions of role, index, depth and operations, and kernels weigh their taps by
    codes of their positions instead of being padded to the largest.
    """

    symmetries = ("permutations", "exchanges")

    def __init__(
        self,
        layers: Iterable[MessagePassing],
        hidden: int = 64,
        edge_hidden: int = 32,
        head: Head | None = None,
        reverse: bool = True,
        features: ValueFeatures | None = None,
        recompute: bool = True,
        descriptions: Descriptions | None = None,
    ) -> None:
        super().__init__(head)
        require_whole("hidden", hidden, 1)
        require_whole("edge_hidden", edge_hidden, 1)
        require_reading(features, descriptions)
        self.reverse, self.recompute = reverse, recompute
        described = SpecDescriptions() if descriptions is None else descriptions
        values = FanIn() if features is None else features
        self.encoder = GraphEncoder(hidden, edge_hidden, values, described)
        self.layers = nn.ModuleList(_required(layers, hidden))
        self.readout = readout_of(head, lambda outputs: RoleReadout(hidden, outputs))
        self.editor = None
        if self.copies:
            self.editor = GraphEditor(hidden, edge_hidden, self.copies, described)

    @uncompiled  # slower, or minutes for what it saves: docs/metanetworks.md
    def forward(self, graph: ParameterGraph) -> Tensor | ParameterGraph:
        """Reads B networks; the answer has shape (B, outputs), or is a graph of edited networks."""
        dtype = next(self.parameters()).dtype
        wiring = wiring_of(graph.spec, graph.device, dtype, self.reverse)
        nodes, edges = self.encoder(graph, wiring)
        for layer in self.layers:
            nodes, *edges = run(_flat, self.recompute, layer, wiring, nodes, *edges)
        if self.readout is not None:
            return self.readout(States(nodes), graph)
        assert self.editor is not None
        return self.editor(graph, wiring, nodes, edges)


def _required(layers: Iterable[MessagePassing], hidden: int) -> Iterator[MessagePassing]:
    require_several("layers", layers, "layers, of classes derived from gmn.nn.MessagePassing")
    for layer in layers:
        require_type("a layer", layer, MessagePassing, "one derived from gmn.nn.MessagePassing")
        if layer.group.in_features != hidden:
            raise ArgumentError(
                f"a layer has hidden={layer.group.in_features}, its network hidden={hidden}; give "
                "both the same"
            )
        yield layer


def _flat(layer: nn.Module, wiring: Wiring, nodes: Tensor, *edges: Tensor) -> tuple[Tensor, ...]:
    """Runs a layer on tensors alone, whose memory :func:`gmn.nn.memory.saved_bytes` counts."""
    nodes, new = layer(wiring, nodes, list(edges))
    return nodes, *new


class GraphEncoder(nn.Module):
    """Initial states of nodes and edges.

    Args:
        hidden: channels of nodes.
        edge_hidden: channels of edges.
        values: encodes the values of parameters.
        descriptions: describes nodes and edge sets.
    """

    def __init__(
        self, hidden: int, edge_hidden: int, values: ValueFeatures, descriptions: Descriptions
    ) -> None:
        super().__init__()
        self.descriptions = descriptions
        self.nodes = mlp(descriptions.node_channels + DEPTH_FEATURES, hidden)
        self.own = _Values(descriptions.edge_channels, hidden, values)
        self.edges = _Values(descriptions.edge_channels + 1, edge_hidden, values)

    def forward(self, graph: ParameterGraph, wiring: Wiring) -> tuple[Tensor, list[Tensor]]:
        """States of nodes (B, N, hidden), and for each relation (B, *block, edge_hidden)."""
        spec, like = graph.spec, next(self.parameters())
        described = dict(zip(spec.edge_sets, self.descriptions.edges(spec).to(like), strict=True))
        edges = []
        for relation in wiring.relations:
            direction = like.new_tensor([-1.0 if relation.reverse else 1.0])
            edge_set = spec.edge_set(relation.name)
            states = self.edges(graph, edge_set, torch.cat([described[edge_set], direction]))
            edges.append(states.view(len(graph), *relation.shape, states.shape[-1]))
        return self._node_states(graph, described), edges

    def _node_states(self, graph: ParameterGraph, described: dict[EdgeSet, Tensor]) -> Tensor:
        spec, like = graph.spec, next(self.parameters())
        inputs = [self.descriptions.nodes(spec).to(like), depth_codes(spec).to(like)]
        nodes = self.nodes(torch.cat(inputs, dim=1)).expand(len(graph), -1, -1)
        for edges, description in described.items():
            if edges.diagonal:
                row = own_nodes(spec, edges).to(graph.device)
                nodes = nodes.index_add(1, row, self.own(graph, edges, description))
        return nodes


class _Values(nn.Module):
    """The values of an edge set, weighed by codes of their taps, and its description."""

    def __init__(self, description_channels: int, width: int, values: ValueFeatures) -> None:
        super().__init__()
        self.width, self.values = width, values
        self.codes = mlp(description_channels + features.TAP_FEATURES, width * values.channels)
        self.shift = mlp(description_channels, width)

    def forward(self, graph: ParameterGraph, edges: EdgeSet, description: Tensor) -> Tensor:
        """States of shape (B, pairs, width)."""
        codes = self.codes(features.with_taps(description, edges))
        codes = codes.view(-1, self.width) / edges.num_taps**0.5
        return self.values(graph, edges).flatten(2) @ codes + self.shift(description)


class GraphEditor(nn.Module):
    """Edited networks: weights from the states of edges, biases and the like from those of nodes.

    Args:
        hidden: channels of nodes.
        edge_hidden: channels of edges.
        copies: edits per network.
        descriptions: describes edge sets.

    Source: Kofinas et al. (2024), appendix on equivariant tasks.
    """

    def __init__(
        self, hidden: int, edge_hidden: int, copies: int, descriptions: Descriptions
    ) -> None:
        super().__init__()
        self.own = EdgeReadout(hidden, copies, descriptions)
        self.edges = EdgeReadout(edge_hidden, copies, descriptions)
        self.edits = Edits(copies)

    def forward(
        self, graph: ParameterGraph, wiring: Wiring, nodes: Tensor, edges: list[Tensor]
    ) -> ParameterGraph:
        """Edits from states of nodes (B, N, hidden) and of each relation's edges."""
        spec = graph.spec
        forward = {
            relation.name: states.flatten(1, -2) if relation.shape else states.unsqueeze(1)
            for relation, states in zip(wiring.relations, edges, strict=True)
            if not relation.reverse
        }
        changes = {}
        for part in editable(spec):
            if part.diagonal:
                changes[part.name] = self.own(spec, part, nodes[:, own_nodes(spec, part)])
            else:
                changes[part.name] = self.edges(spec, part, forward[part.name])
        return self.edits(graph, changes)


def own_nodes(spec: GraphSpec, edges: EdgeSet) -> Tensor:
    """The index, among all neurons, of the neuron of each pair of a diagonal edge set."""
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
