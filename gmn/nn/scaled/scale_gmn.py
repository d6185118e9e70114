"""ScaleGMN (Kalogeropoulos et al., NeurIPS 2024, arXiv 2406.10685)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gmn import features
from gmn.canonical import without_shifts
from gmn.features import Descriptions, SpecDescriptions, require_reading
from gmn.foundation.arguments import require_whole
from gmn.graph import ParameterGraph
from gmn.nn.heads import Head, RoleReadout, States, readout_of
from gmn.nn.metanetwork import Metanetwork
from gmn.nn.passing.message_network import DEPTH_FEATURES, depth_codes, mlp
from gmn.nn.passing.message_passing import propagate
from gmn.nn.passing.relations import Relation, Wiring
from gmn.nn.running import run, uncompiled
from gmn.nn.scaled.scale_blocks import (
    EdgeUpdate,
    ReScaleEq,
    ScaleEq,
    ScaleInv,
    ScaleMasks,
    linear,
    open_at_first,
)
from gmn.nn.scaled.scale_edits import ScaleEditor
from gmn.nn.scaled.scaled_graph import ScaledGraph, Values, scaled_graph

State = tuple[Tensor, Tensor | None, *tuple[Tensor, ...]]  # x, y and edges of each relation


class ScaleGMN(Metanetwork):
    """Message passing that commutes with the scales and signs of neurons.

    Features ``x`` of a neuron scale as it does (``q``), those of an edge from i to j as its weight
    (``q_j / q_i``). One layer, with the blocks of :mod:`gmn.nn.scaled.scale_blocks`::

        m_ij = ScaleEq(Γ_e e_ij ⊙ Γ_x x_i)
        x_j ← x_j + ScaleEq(x_j, Σ_i m_ij)
        e_ij ← (Γ e_ij) ⊙ φ(z_i, z_j),  z = ScaleInv(x)     (after every layer but the last)

    ``bidirectional`` adds messages against the edges. The paper lets these scale like ``1 / w``,
    which overflows (trained networks hold weights of 1e-15); the published code keeps ``w``, which
    breaks the law. Here every neuron has features ``y`` that scale inversely, as gradients do, and
    the same edge features carry them back without a reciprocal::

        m'_ij = ScaleEq(Γ'_e e_ij ⊙ Γ'_y y_j) ~ q_j / q_i · 1 / q_j
        y_i ← y_i + ScaleEq(y_i, Σ_j m'_ij)

    Both updates see invariant products ``(U x) ⊙ (V y)``. Where a scale is its own inverse (signs,
    no scale) each also reads the other's messages, which is the paper's form.

    Which group scales which neuron comes from the spec, whatever the activation, so nets of mixed
    activations, residual connections, batch norms and recurrences are read, too. Phases of sines
    and translations are taken out first (:func:`gmn.canonical.without_shifts`); of bases of linear
    layers only diagonal changes are known. So it is invariant to the permutations, scalings and
    translations of the spec, not to its changes of basis.

    Edits transform like the networks: weights change by states of their edges, biases by states of
    their neurons, both gated by invariants (:mod:`gmn.nn.scaled.scale_edits`).

    Deviations: codes of taps instead of padded kernels, descriptions instead of encodings by
    position in a fixed architecture, neurons pooled by role, neurons of one head read their mean.

    Source: the paper's sections 4 and 5, with the corrections above.

    Args:
        hidden: channels of all features.
        depth: number of layers.
        head: the number of outputs, a head, or a module of your own; one output if None.
        bidirectional: whether messages also run against the edges.
        recompute: whether layers are computed again in the backward pass instead of kept, which
            takes more time and a fraction of the memory.
        descriptions: describes nodes and edge sets to the model; None for
            :class:`gmn.features.SpecDescriptions`.

    Attributes:
        learning_rate: the learning rate of the paper.
    """

    symmetries = ("permutations", "exchanges", "scalings", "translations")
    learning_rate = 1e-3

    def __init__(
        self,
        hidden: int = 128,
        depth: int = 4,
        head: Head | None = None,
        bidirectional: bool = False,
        recompute: bool = True,
        descriptions: Descriptions | None = None,
    ) -> None:
        super().__init__(head)
        require_whole("hidden", hidden, 1)
        require_whole("depth", depth, 0)
        require_reading(None, descriptions)
        self.recompute = recompute
        described = SpecDescriptions() if descriptions is None else descriptions
        self.encoder = _ScaleEncoder(hidden, bidirectional, described)
        self.layers = nn.ModuleList(
            _ScaleLayer(hidden, bidirectional, first=index == 0) for index in range(depth)
        )
        self.seen = _Invariants(hidden, bidirectional)
        self.readout = readout_of(head, lambda outputs: RoleReadout(hidden, outputs))
        self.editor = ScaleEditor(hidden, self.copies, described) if self.copies else None

    @uncompiled  # slower, or minutes for what it saves: docs/metanetworks.md
    def forward(self, graph: ParameterGraph) -> Tensor | ParameterGraph:
        """Reads B networks; the answer has shape (B, outputs), or is a graph of edited networks.

        Raises:
            UnsupportedArchitecture: if neurons with scales are not both written and read by
                weights; the message names the node set and what reads such architectures.
        """
        dtype = next(self.parameters()).dtype
        wiring = scaled_graph(graph.spec, graph.device, dtype)
        plain = without_shifts(graph)
        context, state = self.encoder(plain, wiring)
        for layer in self.layers:
            state = run(layer, self.recompute, wiring, context, *state)
        x, y, *edges = state
        invariants = self.seen(wiring, context, x, y)
        if self.readout is not None:
            return self.readout(States(wiring.to_nodes(invariants)), graph)
        assert self.editor is not None
        return self.editor(graph, plain, wiring, (x, edges, invariants))


class _ScaleEncoder(nn.Module):
    """Initial features, linear in the parameters."""

    def __init__(self, hidden: int, bidirectional: bool, descriptions: Descriptions) -> None:
        super().__init__()
        self.hidden, self.bidirectional = hidden, bidirectional
        self.descriptions = descriptions
        self.described = mlp(descriptions.node_channels + DEPTH_FEATURES, hidden)
        self.factor, self.free = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden)
        self.free_dual = nn.Linear(hidden, hidden) if bidirectional else None
        last = nn.Linear(2 * hidden, 2 * hidden)
        nn.init.normal_(last.bias)  # codes of size 1: features are multiples of them
        inputs = descriptions.edge_channels + features.TAP_FEATURES
        self.codes = nn.Sequential(nn.Linear(inputs, 2 * hidden), nn.SiLU(), last)
        nn.init.ones_(self.factor.bias)
        self.ones = nn.Parameter(torch.randn(hidden))

    def forward(self, graph: ParameterGraph, wiring: ScaledGraph) -> tuple[Tensor, State]:
        """Invariant context (B, R, d); x and y likewise, and edges (B, *block, d)."""
        spec, like = graph.spec, next(self.parameters())
        inputs = [self.descriptions.nodes(spec).to(like), depth_codes(spec).to(like)]
        nodes = self.described(torch.cat(inputs, dim=1)).expand(len(graph), -1, -1)
        for values, index in wiring.invariant_nodes:
            nodes = nodes.index_add(1, index, self._encoded(graph, values, 0))
        context = nodes.index_select(1, wiring.node)
        x = torch.zeros_like(context)
        for values, index in wiring.vectors:
            x = x.index_add(1, index, self._encoded(graph, values, 0))
        free = wiring.kind.free
        x = x * self.factor(context) + self.free(context) * free
        y = None if self.free_dual is None else self.free_dual(context) * free
        edges = []
        for relation, weight in zip(wiring.forward.relations, wiring.weights, strict=True):
            states = self.ones if weight is None else self._encoded(graph, weight, 1)
            shape = (len(graph), *relation.shape, self.hidden)
            edges.append(states.expand(shape) if weight is None else states.reshape(shape))
        return context, (x, y, *edges)

    def _encoded(self, graph: ParameterGraph, values: Values, half: int) -> Tensor:
        """Values encoded by codes of their taps, for nodes (0) or for edges (1): (B, n, d)."""
        like = next(self.parameters())
        index = graph.spec.edge_sets.index(values.edges)
        description = self.descriptions.edges(graph.spec)[index].to(like)
        codes = self.codes(features.with_taps(description, values.edges))
        return values.of(graph) @ codes.chunk(2, dim=-1)[half]


class _Invariants(nn.Module):
    """Features of every row that no scale changes."""

    def __init__(self, hidden: int, bidirectional: bool) -> None:
        super().__init__()
        self.x = ScaleInv(hidden, hidden, extras=hidden)
        self.y = ScaleInv(hidden, hidden, extras=hidden) if bidirectional else None

    def forward(self, wiring: ScaledGraph, context: Tensor, x: Tensor, y: Tensor | None) -> Tensor:
        """All shapes (B, R, d)."""
        result = self.x(x, wiring.kind, context)
        return result if self.y is None else result + self.y(y, wiring.kind, context)


class _Update(nn.Module):
    """A residual ScaleEq; an ordinary network where no scale acts."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.linear = linear(inputs, hidden)
        self.gate = ScaleInv(inputs, 2 * hidden, extras=hidden)
        open_at_first(self.gate.out.bias[:hidden])

    def forward(self, x: Tensor, read: Tensor, kind: ScaleMasks, extras: Tensor) -> Tensor:
        """New features (B, R, d) from old ones and inputs (B, R, inputs)."""
        gate, free = self.gate(read, kind, extras).chunk(2, dim=-1)
        return x + self.linear(read) * gate + free * kind.free


class _Backward(nn.Module):
    """The modules of the bidirectional form: messages and update of y, and products with x."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.message, self.message_eq = ReScaleEq(hidden), ScaleEq(hidden, hidden)
        self.of_x = linear(3 * hidden, hidden)
        self.of_y = linear(3 * hidden, hidden)
        self.product = nn.Linear(hidden, hidden, bias=False)
        self.update = _Update(3 * hidden, hidden)

    def products(self, x: Tensor, y: Tensor) -> Tensor:
        """Invariant products of the inputs of x and y (B, R, 3 d): shape (B, R, d)."""
        return self.product(torch.asinh(self.of_x(x) * self.of_y(y)))


class _ScaleLayer(nn.Module):
    """The update of edges, messages, and the updates of neurons."""

    def __init__(self, hidden: int, bidirectional: bool, first: bool) -> None:
        super().__init__()
        self.seen = None if first else _Invariants(hidden, bidirectional)
        self.edges = None if first else EdgeUpdate(hidden)
        self.share = None if first else nn.Linear(hidden, hidden, bias=False)
        self.group = None if first else nn.Linear(hidden, hidden, bias=False)
        self.message, self.message_eq = ReScaleEq(hidden), ScaleEq(hidden, hidden)
        self.update = _Update((3 if bidirectional else 2) * hidden, hidden)
        self.back = _Backward(hidden) if bidirectional else None

    def forward(
        self, wiring: ScaledGraph, context: Tensor, x: Tensor, y: Tensor | None, *edges: Tensor
    ) -> State:
        """Shapes as those of the encoder."""
        extras = context
        if self.seen is not None and self.edges is not None:
            z = self.seen(wiring, context, x, y)
            edges = tuple(self.edges(wiring.forward, edges, z))
            extras = context + self._shared(wiring, z)
        kind = wiring.kind
        messages_x = _messages(wiring, wiring.forward, self.message, self.message_eq, x, edges)
        if self.back is None or y is None:
            return self.update(x, torch.cat([x, messages_x], dim=-1), kind, extras), y, *edges
        messages_y = _messages(
            wiring, wiring.backward, self.back.message, self.back.message_eq, y, edges
        )
        of_x = torch.cat([x, messages_x, messages_y * kind.own_dual], dim=-1)
        of_y = torch.cat([y, messages_y, messages_x * kind.own_dual], dim=-1)
        extras = extras + self.back.products(of_x, of_y)
        x = self.update(x, of_x, kind, extras)
        return x, self.back.update(y, of_y, kind, extras), *edges

    def _shared(self, wiring: ScaledGraph, z: Tensor) -> Tensor | float:
        """Messages between the rows of one neuron, and between the neurons of one head."""
        shared: Tensor | float = 0.0
        if self.share is not None and not wiring.aligned:
            shared = shared + self.share(wiring.to_nodes(z))
        groups = wiring.forward.groups
        if self.group is not None and groups:
            shared = shared + self.group(groups.means(wiring.to_nodes(z)))
        return shared if isinstance(shared, float) else shared.index_select(1, wiring.node)


def _messages(
    wiring: ScaledGraph,
    along: Wiring,
    rescale: ReScaleEq,
    message_eq: ScaleEq,
    x: Tensor,
    edges: Sequence[Tensor],
) -> Tensor:
    """Sums of ``ScaleEq(Γ_e e ⊙ Γ_x x)`` over the edges into each row: shape (B, R, d)."""

    def message(relation: Relation, source: Tensor, target: Tensor, edge: Tensor) -> Tensor:
        return message_eq(rescale(edge, source), wiring.kinds[relation.target.nodes])

    return propagate(along, message, rescale.node(x), x, edges, ("sum",), x.shape[-1])
