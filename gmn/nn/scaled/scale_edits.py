"""The edits of ScaleGMN: changes of parameters that scale, flip and move like the parameters."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from gmn.canonical.shifts import flips, passing
from gmn.features import Descriptions
from gmn.graph import ParameterGraph
from gmn.nn.edge_edits import Edits, TapCodes, editable
from gmn.nn.passing.message_network import own_nodes
from gmn.nn.scaled.scale_blocks import EdgeUpdate, linear, open_at_first
from gmn.nn.scaled.scaled_graph import ScaledGraph
from gmn.spec import EdgeSet


class ScaleEditor(nn.Module):
    """Changes that are linear in what scales like the parameter, gated by invariants.

    With the features of :class:`gmn.nn.ScaleGMN`, and sums over channels with codes of taps::

        weights and gains   ΔW_ij = Σ ((Γ e_ij) ⊙ φ(z_i, z_j))
        biases              Δb_i  = Σ ((Γ x_i) ⊙ ρ(z_i))
        values that no symmetry changes (slopes)   Σ φ(z_i)
        values of other diagonal blocks            w_i Σ φ(z_i)

    Args:
        hidden: channels of all features.
        copies: edits per network.
        descriptions: describes edge sets.

    Source: the equivariant form of Kalogeropoulos et al. (2024): edge and node updates of the last
    layer, mapped to one channel.
    """

    def __init__(self, hidden: int, copies: int, descriptions: Descriptions) -> None:
        super().__init__()
        self.update, self.of_edges = EdgeUpdate(hidden), TapCodes(hidden, copies, descriptions)
        self.of_x, self.gate = linear(hidden, hidden), nn.Linear(hidden, hidden)
        open_at_first(self.gate.bias)
        self.of_rows, self.of_facts = (TapCodes(hidden, copies, descriptions) for _ in range(2))
        self.edits = Edits(copies)

    def forward(
        self,
        graph: ParameterGraph,
        plain: ParameterGraph,
        wiring: ScaledGraph,
        states: tuple[Tensor, Sequence[Tensor], Tensor],
    ) -> ParameterGraph:
        """The edited networks.

        Args:
            graph: B networks.
            plain: the same networks without translations and phases.
            wiring: the scaled graph of their spec.
            states: x (B, R, d), edges (B, *block, d) and invariants z (B, R, d).
        """
        x, edges, invariants = states
        edges = self.update(wiring.forward, edges, invariants)
        rows = self.of_x(x) * self.gate(invariants)
        nodes = wiring.to_nodes(invariants)
        on_edges = self._on_edges(wiring, edges)
        on_rows = {values.edges: rows[:, index] for values, index in wiring.vectors}
        unscaled = {values.edges for values, _ in wiring.invariant_nodes}
        spec, changes = graph.spec, {}
        for part in editable(spec):
            if part in on_edges:
                changes[part.name] = self.of_edges(spec, part, on_edges[part])
            elif part in on_rows:
                changes[part.name] = self.of_rows(spec, part, on_rows[part])
            else:
                change = self.of_facts(spec, part, nodes[:, own_nodes(spec, part)])
                pairs = plain.pairs(part).unsqueeze(-1)
                changes[part.name] = change if part in unscaled else pairs * change
        return self.edits(graph, changes, flips(graph), passing(graph))

    def _on_edges(self, wiring: ScaledGraph, edges: list[Tensor]) -> dict[EdgeSet, Tensor]:
        """States (B, pairs, d) of edge sets; where several edges carry a value, their sum."""
        result: dict[EdgeSet, Tensor] = {}
        for values, states in zip(wiring.weights, edges, strict=True):
            if values is None or values.offset is not None:
                continue  # no parameters: shares, running variances
            part = states.flatten(1, -2) if states.dim() > 2 else states.unsqueeze(1)
            if values.index is not None:
                pairs = values.edges.size // values.edges.num_taps
                block = part.new_zeros(len(part), pairs, part.shape[-1])
                part = block.index_add(1, values.index, part)
            result[values.edges] = result[values.edges] + part if values.edges in result else part
        return result
