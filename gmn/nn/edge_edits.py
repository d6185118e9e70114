"""Edited networks: changes of parameters from states of edges, and networks with changes added."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gmn import features
from gmn.canonical.layout import along
from gmn.canonical.shifts import Passing, following
from gmn.features import Descriptions
from gmn.graph import ParameterGraph
from gmn.graph.draft import Draft
from gmn.graph.topology import tap_order
from gmn.spec import EdgeSet, GraphSpec


def editable(spec: GraphSpec) -> list[EdgeSet]:
    """The edge sets that hold parameters, each parameter once; running statistics stay."""
    return [e for e in spec.edge_sets if e.tied_to is None and spec.is_parameter(e)]


class Edits(nn.Module):
    """Adds changes to networks, at first a hundredth of them: ``θ + γ Δ`` with a learned γ.

    Args:
        copies: k, edits per network.

    Source: NFN (Zhou et al., 2023, section 4.2) and GMN (Lim et al., 2024); several edits per
    network as in the output capacity expansion of arXiv 2602.01083.
    """

    def __init__(self, copies: int) -> None:
        super().__init__()
        self.size = nn.Parameter(torch.full((copies,), 0.01))

    def forward(
        self,
        graph: ParameterGraph,
        changes: Mapping[str, Tensor],
        signs: Mapping[str, Tensor] | None = None,
        passed: Passing | None = None,
    ) -> ParameterGraph:
        """The k edits of B networks: the first of all networks, then the second, and so on.

        Args:
            graph: B networks.
            changes: by name of edge set, shape (B, pairs, taps, k).
            signs: factors of changes, which broadcast to the blocks (B, *shape) of the edge sets;
                None for none. See :func:`gmn.canonical.shifts.flips`.
            passed: translations that pass weights, whose images change with them; None for none.
                See :func:`gmn.canonical.shifts.passing`.
        """
        spec, copies = graph.spec, len(self.size)
        repeated_graph = ParameterGraph.cat([graph] * copies) if copies > 1 else graph
        draft = Draft(spec, repeated_graph.values)
        repeated = {
            name: [(term, torch.cat([before] * copies)) for term, before in terms]
            for name, terms in (passed or {}).items()
        }
        for name, change in changes.items():
            edges = spec.edge_set(name)
            block = _as_block((change * self.size).movedim(-1, 0), edges)
            if signs is not None and name in signs:
                block = block * signs[name]
            draft.block(edges).add_(block.flatten(0, 1))
            for term, added in following(name, block.flatten(0, 1), repeated):
                target = draft.block(term.edge_set)
                target.add_(along(added, term.dims, target))
        return repeated_graph.replace(draft.changed())


def _as_block(change: Tensor, edges: EdgeSet) -> Tensor:
    """From (k, B, pairs, taps) to (k, B, *edges.shape)."""
    order = tap_order(edges)
    sizes = [edges.shape[dim] for dim in order]
    inverse = [0, 1, *(2 + order.index(dim) for dim in range(len(order)))]
    return change.reshape(*change.shape[:2], *sizes).permute(inverse)


class TapCodes(nn.Module):
    """Sums over channels with codes of tap positions: the reverse of the encoder of values.

    Args:
        width: channels of the inputs.
        copies: k, edits per network.
        descriptions: describes edge sets.
    """

    def __init__(self, width: int, copies: int, descriptions: Descriptions) -> None:
        super().__init__()
        self.copies, self.descriptions = copies, descriptions
        inputs = descriptions.edge_channels + features.TAP_FEATURES
        last = nn.Linear(width, width * copies)
        nn.init.normal_(last.bias)  # codes of size 1: changes are sums weighed by them
        self.net = nn.Sequential(nn.Linear(inputs, width), nn.SiLU(), last)

    def forward(self, spec: GraphSpec, edges: EdgeSet, channels: Tensor) -> Tensor:
        """From channels (..., pairs, width) to changes (..., pairs, taps, k)."""
        width = channels.shape[-1]
        description = self.descriptions.edges(spec)[spec.edge_sets.index(edges)].to(channels)
        codes = self.net(features.with_taps(description, edges)).unflatten(1, (width, self.copies))
        result = channels @ codes.transpose(0, 1).flatten(1) / width**0.5
        return result.unflatten(-1, (edges.num_taps, self.copies))


class EdgeReadout(nn.Module):
    """Changes of the values of edges from the states of these edges, each edge by itself.

    Weights change by amounts that are comparable across widths: over the root of their fan-in.

    Args:
        width: channels of the states.
        copies: k, edits per network.
        descriptions: describes edge sets.
    """

    def __init__(self, width: int, copies: int, descriptions: Descriptions) -> None:
        super().__init__()
        self.hidden = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU())
        self.codes = TapCodes(width, copies, descriptions)

    def forward(self, spec: GraphSpec, edges: EdgeSet, states: Tensor) -> Tensor:
        """From states (B, pairs, width) to changes (B, pairs, taps, k)."""
        change = self.codes(spec, edges, self.hidden(states))
        return change / math.sqrt(features.fan_in(edges)) if edges.kind == "weight" else change
