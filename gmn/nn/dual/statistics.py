"""What symmetries of the function hide and training leaves behind: statistics of the weights."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from gmn.canonical import canonical
from gmn.features import Descriptions
from gmn.graph import ParameterGraph
from gmn.graph.statistics import EDGE_STATISTICS, edge_statistics
from gmn.spec import EdgeSet, GraphSpec

CODES = 64
FREQUENCY = 3.0  # tells convolutions of one network apart, whose descriptions differ by a half
WIDTH = 256
FARTHEST = 6.0  # usual deviations; what lies further from what is usual counts as that far
FLOOR = 1e-3  # of a statistic's usual deviation, or 1e-4 of its size: what differs less is noise
RIDGE = 1e-8
# Hundreds of networks have as many statistics each: a third is left out at random, so that none
# is relied on alone (0.1 to 0.5 were tried on four questions).
LEFT_OUT = 0.3
SEEN_BY_NONE = frozenset({"permutations", "exchanges"})


class StatisticsEncoder(nn.Module):
    """Adds the statistics of all edge sets to the summary of each network.

    The statistics ``s_e`` of edge set ``e`` (:func:`gmn.graph.statistics.edge_statistics`) are
    standardised over the population by :meth:`prepare` and enter as ``Σ_e (L s_e) ⊙ (D c_e)``, with
    ``c_e`` a code of what the spec says of ``e``: any linear function of all of them, so that a
    model of layer statistics is a special case. They are those of the canonical form under the
    chosen symmetries; what the other symmetries move is seen.

    Args:
        hidden: channels of the summary.
        descriptions: describes edge sets.
        symmetries: what statistics must not change under, of :data:`gmn.symmetry.KINDS`.
            Permutations and exchanges never change them. Where it holds more than those, no
            gradient reaches the networks' values through statistics.
    """

    directions: Tensor
    phases: Tensor
    centres: Tensor
    scales: Tensor

    def __init__(
        self, hidden: int, descriptions: Descriptions, symmetries: Collection[str]
    ) -> None:
        super().__init__()
        self.descriptions = descriptions
        self.symmetries = frozenset(symmetries)
        channels = descriptions.edge_channels
        self.register_buffer("directions", FREQUENCY * torch.randn(channels, CODES))
        self.register_buffer("phases", 2 * math.pi * torch.rand(CODES))
        self.register_buffer("centres", torch.zeros(CODES, EDGE_STATISTICS))
        self.register_buffer("scales", torch.zeros(CODES, EDGE_STATISTICS))
        self.some = nn.Dropout(LEFT_OUT)
        self.statistics = nn.Linear(EDGE_STATISTICS, WIDTH, bias=False)
        self.about = nn.Linear(CODES, WIDTH)
        self.bias = nn.Parameter(torch.zeros(WIDTH))
        self.out = nn.Sequential(
            nn.LayerNorm(WIDTH), nn.SiLU(), nn.Dropout(LEFT_OUT), nn.Linear(WIDTH, hidden)
        )

    def forward(self, graph: ParameterGraph, summary: Tensor) -> Tensor:
        """Adds to summaries (B, hidden)."""
        codes = self._codes(graph.spec)
        found = self._found(graph).to(codes)
        usual = (found - codes @ self.centres) * (codes @ self.scales).exp()
        seen = self.statistics(self.some(usual.clamp(-FARTHEST, FARTHEST)))
        added: Tensor = self.out((seen * self.about(codes)).sum(dim=1) + self.bias)
        return summary + added

    @torch.no_grad()
    def prepare(self, graphs: Iterable[ParameterGraph]) -> None:
        """Finds out what is usual: mean and deviation of each statistic, as functions of codes.

        Of one architecture, these are its own mean and deviation for each edge set; of many, what
        fits them best (ridge regression on codes, weighed by networks).
        """
        moments: dict[GraphSpec, _Moments] = {}
        for graph in graphs:
            moments.setdefault(graph.spec, _Moments()).add(self._found(graph).double())
        if not moments:
            return
        codes = torch.cat([self._codes(spec).double() for spec in moments])
        each = [torch.full((len(_own(spec)),), part.count) for spec, part in moments.items()]
        counts = torch.cat(each).to(codes).unsqueeze(1)
        means = torch.cat([part.mean for part in moments.values()])
        deviations = torch.cat([part.deviation for part in moments.values()])
        typical = ((counts * deviations.square()).sum(dim=0) / counts.sum()).sqrt()
        size = means.abs().mean(dim=0)
        least = FLOOR * torch.maximum(typical, size / 10).clamp(min=FLOOR)
        scales = -torch.maximum(deviations, least).log()
        gram = codes.T @ (counts * codes)
        gram += RIDGE * gram.diagonal().mean() * torch.eye(CODES).to(gram)
        for buffer, wanted in ((self.centres, means), (self.scales, scales)):
            buffer.copy_(torch.linalg.solve(gram, codes.T @ (counts * wanted)))

    def _found(self, graph: ParameterGraph) -> Tensor:
        """Statistics of shape (B, edge sets, EDGE_STATISTICS)."""
        if chosen := self.symmetries - SEEN_BY_NONE:
            scales, known = "scalings" in chosen, graph.spec.symmetries
            bases = "gauges" in chosen and bool(known.gauges)
            phases = scales and any(scaling.domain == "phase" for scaling in known.scalings)
            graph = canonical(
                graph,
                shifts=phases or "translations" in chosen,
                scales=scales,
                bases=bases,
                signs=scales or bases,  # a principal direction has either sign
            )
        found = [edge_statistics(graph, edges) for edges in _own(graph.spec)]
        return torch.stack(found, dim=1)

    def _codes(self, spec: GraphSpec) -> Tensor:
        """Codes of shape (edge sets, CODES), almost at right angles if descriptions differ."""
        known = zip(self.descriptions.edges(spec), spec.edge_sets, strict=True)
        described = torch.stack([row for row, edges in known if edges.tied_to is None])
        return 2**0.5 * (described.to(self.phases) @ self.directions + self.phases).sin()


@dataclass
class _Moments:
    """Number, sum and sum of squares of statistics (networks, edge sets, statistics)."""

    count: int = 0
    sums: Tensor = field(default_factory=lambda: torch.zeros(2, 1, 1))

    def add(self, found: Tensor) -> None:
        own = torch.stack([found.sum(dim=0), found.square().sum(dim=0)])
        self.count, self.sums = self.count + len(found), self.sums.to(own) + own

    @property
    def mean(self) -> Tensor:
        return self.sums[0] / self.count

    @property
    def deviation(self) -> Tensor:
        return (self.sums[1] / self.count - self.mean.square()).clamp(min=0).sqrt()


def _own(spec: GraphSpec) -> list[EdgeSet]:
    return [edges for edges in spec.edge_sets if edges.tied_to is None]
