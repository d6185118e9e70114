"""ScaleGMN (Kalogeropoulos et al., NeurIPS 2024, arXiv 2406.10685)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gmn import features
from gmn.canonical import without_shifts
from gmn.graph import ParameterGraph
from gmn.nn.groups import groups_of
from gmn.nn.heads import Head, RoleReadout, States, readout_of
from gmn.nn.message_network import DEPTH_FEATURES, depth_codes, mlp
from gmn.nn.metanetwork import Metanetwork
from gmn.nn.recompute import run
from gmn.nn.scale_blocks import (
    EdgeUpdate,
    Kind,
    ReScaleEq,
    ScaleEq,
    ScaleInv,
    linear,
    open_at_first,
)
from gmn.nn.scale_edits import ScaleEditor
from gmn.nn.scaled_graph import ScaledGraph, Values, scaled_graph

State = tuple[Tensor, Tensor | None, Tensor]  # x, y and edges


class ScaleGMN(Metanetwork):
    """Message passing that commutes with the scales and signs of neurons.

    Features ``x`` of a neuron scale as it does (``q``), those of an edge from i to j as its weight
    (``q_j / q_i``). One layer, with the blocks of :mod:`gmn.nn.scale_blocks`::

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
    their neurons, both gated by invariants (:mod:`gmn.nn.scale_edits`).

    Deviations: codes of taps instead of padded kernels, descriptions instead of encodings by
    position in a fixed architecture, neurons pooled by role, neurons of one head read their mean.

    Source: the paper's sections 4 and 5, with the corrections above.

    Args:
        hidden: channels of all features.
        depth: number of layers.
        head: what to answer with.
        bidirectional: whether messages also run against the edges.
        recompute: whether layers are computed again in the backward pass instead of kept.

    Attributes:
        learning_rate: that of the paper.
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
    ) -> None:
        super().__init__(head)
        self.recompute = recompute
        self.encoder = _Encoder(hidden, bidirectional)
        self.layers = nn.ModuleList(
            _Layer(hidden, bidirectional, first=number == 0) for number in range(depth)
        )
        self.seen = _Invariants(hidden, bidirectional)
        self.readout = readout_of(head, lambda outputs: RoleReadout(hidden, outputs))
        self.editor = ScaleEditor(hidden, self.copies) if self.copies else None

    @torch.compiler.disable  # slower, or minutes for what it saves: docs/metanetworks.md
    def forward(self, graph: ParameterGraph) -> Tensor | ParameterGraph:
        """Reads B networks; the answer has shape (B, outputs), or is a graph of edited networks.

        Raises:
            UnsupportedArchitecture: if neurons with scales are not both written and read by
                weights; the message names the node set and what reads such architectures.
        """
        wiring = scaled_graph(graph.spec, graph.device)
        plain = without_shifts(graph)
        context, state = self.encoder(plain, wiring)
        for layer in self.layers:
            state = run(layer, self.recompute, wiring, context, *state)
        x, y, edges = state
        seen = self.seen(wiring, context, x, y)
        if self.readout is not None:
            return self.readout(States(wiring.to_nodes(seen).transpose(0, 1)), graph)
        assert self.editor is not None
        return self.editor(graph, plain, wiring, (x, edges, seen))


class _Encoder(nn.Module):
    """First features, linear in the parameters."""

    def __init__(self, hidden: int, bidirectional: bool) -> None:
        super().__init__()
        self.hidden, self.bidirectional = hidden, bidirectional
        self.described = mlp(features.NODE_FEATURES + DEPTH_FEATURES, hidden)
        self.factor, self.free = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden)
        self.free_dual = nn.Linear(hidden, hidden) if bidirectional else None
        last = nn.Linear(2 * hidden, 2 * hidden)
        nn.init.normal_(last.bias)  # codes of size 1: features are multiples of them
        described = features.EDGE_FEATURES + features.TAP_FEATURES
        self.codes = nn.Sequential(nn.Linear(described, 2 * hidden), nn.SiLU(), last)
        nn.init.ones_(self.factor.bias)
        self.ones = nn.Parameter(torch.randn(hidden))

    def forward(self, graph: ParameterGraph, wiring: ScaledGraph) -> tuple[Tensor, State]:
        """Invariant context (R, B, d); x and y (R, B, d), edges (E, B, d)."""
        spec, like = graph.spec, next(self.parameters())
        described = torch.cat([features.node_descriptions(spec), depth_codes(spec)], dim=1)
        nodes = self.described(described.to(like)).unsqueeze(1).expand(-1, len(graph), -1)
        for fact, place in wiring.facts:
            nodes = nodes.index_add(0, place, self._told(graph, fact)[0])
        context = nodes.index_select(0, wiring.node)
        x = torch.zeros_like(context)
        for entry, place in wiring.entries:
            x = x.index_add(0, place, self._told(graph, entry)[0])
        free = wiring.kind.free
        x = x * self.factor(context) + self.free(context) * free
        y = None if self.free_dual is None else self.free_dual(context) * free
        edges = [self._told(graph, weight)[1] for weight in wiring.weights]
        missing = len(wiring.source) - sum(len(part) for part in edges)
        ones = self.ones.expand(missing, len(graph), -1)
        return context, (x, y, torch.cat([*edges, ones]))

    def _told(self, graph: ParameterGraph, values: Values) -> tuple[Tensor, Tensor]:
        """Values weighed by codes of their taps, for nodes and for edges: (n, B, d) each."""
        like = next(self.parameters())
        number = graph.spec.edge_sets.index(values.edges)
        about = features.edge_descriptions(graph.spec)[number].to(like)
        places = features.tap_descriptions(values.edges).to(like)
        codes = self.codes(torch.cat([about.expand(len(places), -1), places], dim=1))
        node, edge = (values.of(graph) @ codes).chunk(2, dim=-1)
        return node, edge


class _Invariants(nn.Module):
    """What no scale changes, of the features of every row."""

    def __init__(self, hidden: int, bidirectional: bool) -> None:
        super().__init__()
        self.x = ScaleInv(hidden, hidden, extras=hidden)
        self.y = ScaleInv(hidden, hidden, extras=hidden) if bidirectional else None

    def forward(self, wiring: ScaledGraph, context: Tensor, x: Tensor, y: Tensor | None) -> Tensor:
        """All shapes (R, B, d)."""
        found = self.x(x, wiring.kind, context)
        return found if self.y is None else found + self.y(y, wiring.kind, context)


class _Update(nn.Module):
    """A residual ScaleEq; an ordinary network where no scale acts."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.linear = linear(inputs, hidden)
        self.gate = ScaleInv(inputs, 2 * hidden, extras=hidden)
        open_at_first(self.gate.out.bias[:hidden])

    def forward(self, x: Tensor, read: Tensor, kind: Kind, extras: Tensor) -> Tensor:
        """New features (R, B, d) from old ones and all that is read (R, B, inputs)."""
        gate, free = self.gate(read, kind, extras).chunk(2, dim=-1)
        return x + self.linear(read) * gate + free * kind.free


class _Back(nn.Module):
    """What the bidirectional form adds: messages of y, its update, and what joins it with x."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.message, self.message_eq = ReScaleEq(hidden), ScaleEq(hidden, hidden)
        self.of_x = linear(3 * hidden, hidden)
        self.of_y = linear(3 * hidden, hidden)
        self.product = nn.Linear(hidden, hidden, bias=False)
        self.update = _Update(3 * hidden, hidden)

    def products(self, x: Tensor, y: Tensor) -> Tensor:
        """Invariants of all that x and y read (R, B, 3 d): shape (R, B, d)."""
        return self.product(torch.asinh(self.of_x(x) * self.of_y(y)))


class _Layer(nn.Module):
    """The update of edges, messages, and the updates of neurons."""

    def __init__(self, hidden: int, bidirectional: bool, first: bool) -> None:
        super().__init__()
        self.seen = None if first else _Invariants(hidden, bidirectional)
        self.edges = None if first else EdgeUpdate(hidden)
        self.share = None if first else nn.Linear(hidden, hidden, bias=False)
        self.group = None if first else nn.Linear(hidden, hidden, bias=False)
        self.message, self.message_eq = ReScaleEq(hidden), ScaleEq(hidden, hidden)
        self.update = _Update((3 if bidirectional else 2) * hidden, hidden)
        self.back = _Back(hidden) if bidirectional else None

    def forward(
        self, wiring: ScaledGraph, context: Tensor, x: Tensor, y: Tensor | None, edges: Tensor
    ) -> State:
        """Shapes as those of the encoder."""
        extras = context
        if self.seen is not None and self.edges is not None:
            z = self.seen(wiring, context, x, y)
            edges = self.edges(edges, z, wiring.source, wiring.target)
            extras = context + self._shared(wiring, z)
        kind, source, target = wiring.kind, wiring.source, wiring.target
        ahead = self.message_eq(self.message(edges, x, source), kind.at(target))
        ahead = torch.zeros_like(x).index_add(0, target, ahead)
        if self.back is None or y is None:
            return self.update(x, torch.cat([x, ahead], dim=-1), kind, extras), y, edges
        behind = self.back.message_eq(self.back.message(edges, y, target), kind.at(source))
        behind = torch.zeros_like(y).index_add(0, source, behind)
        of_x = torch.cat([x, ahead, behind * kind.own_dual], dim=-1)
        of_y = torch.cat([y, behind, ahead * kind.own_dual], dim=-1)
        extras = extras + self.back.products(of_x, of_y)
        x = self.update(x, of_x, kind, extras)
        return x, self.back.update(y, of_y, kind, extras), edges

    def _shared(self, wiring: ScaledGraph, z: Tensor) -> Tensor | float:
        """What the rows of one neuron, and the neurons of one head, tell each other."""
        told: Tensor | float = 0.0
        if self.share is not None and not wiring.aligned:
            told = told + self.share(wiring.to_nodes(z))
        groups = groups_of(wiring.spec, z.device, z.dtype)
        if self.group is not None and groups:
            means = groups.means(wiring.to_nodes(z).transpose(0, 1)).transpose(0, 1)
            told = told + self.group(means)
        return told if isinstance(told, float) else told.index_select(0, wiring.node)
