"""What symmetries of the function hide and training leaves behind: statistics of the weights."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor, nn

from gmn.canonical import canonical
from gmn.features import Descriptions
from gmn.graph import ParameterGraph
from gmn.graph.statistics import (
    EDGE_STATISTICS,
    NEURON_STATISTICS,
    edge_statistics,
    neuron_statistics,
)
from gmn.nn.dual.plan import Plan
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
NEVER_SEEN = frozenset({"permutations", "exchanges"})


class StatisticsEncoder(nn.Module):
    """Adds statistics of weights to the states: of edge sets to the summary, of neurons to theirs.

    The statistics ``s_e`` of edge set ``e`` (:func:`gmn.graph.statistics.edge_statistics`) are
    standardised over the population by :meth:`prepare` and enter as ``Σ_e (L s_e) ⊙ (D c_e)``, with
    ``c_e`` a code of what the spec says of ``e``: any linear function of all of them, so that a
    model of layer statistics is a special case. In the same way every neuron learns of the values
    that it takes and gives (:func:`gmn.graph.statistics.neuron_statistics`), by edge set. They are
    those of the canonical form under the chosen symmetries; what the other symmetries move is seen.

    Args:
        hidden: channels of the summary and of neurons.
        descriptions: describes edge sets.
        symmetries: what statistics must not change under, of :data:`gmn.symmetry.KINDS`.
            Permutations and exchanges never change them. Where it holds more than those, no
            gradient reaches the networks' values through statistics.
    """

    directions: Tensor
    phases: Tensor

    def __init__(
        self, hidden: int, descriptions: Descriptions, symmetries: Collection[str]
    ) -> None:
        super().__init__()
        self.descriptions, self.symmetries = descriptions, frozenset(symmetries)
        channels = descriptions.edge_channels
        self.register_buffer("directions", FREQUENCY * torch.randn(channels, CODES))
        self.register_buffer("phases", 2 * math.pi * torch.rand(CODES))
        self.usual = nn.ModuleList(
            _Standard(count) for count in (EDGE_STATISTICS, NEURON_STATISTICS, NEURON_STATISTICS)
        )
        self.some = nn.Dropout(LEFT_OUT)
        self.statistics = nn.Linear(EDGE_STATISTICS, WIDTH, bias=False)
        self.about = nn.Linear(CODES, WIDTH)
        self.bias = nn.Parameter(torch.zeros(WIDTH))
        self.ends = nn.ModuleList(
            nn.Linear(NEURON_STATISTICS, hidden, bias=False) for _ in range(2)
        )
        self.about_ends = nn.ModuleList(nn.Linear(CODES, hidden) for _ in range(2))
        self.out, self.out_neurons = (_gated(width, hidden) for width in (WIDTH, hidden))

    def forward(
        self, graph: ParameterGraph, plan: Plan, h: Tensor, summary: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Adds to states (B, N, hidden) of neurons and to summaries (B, hidden)."""
        codes, (found, neurons) = self._codes(graph.spec), self._found(graph)
        usual = self.some(self.usual[0](found.to(codes), codes))
        whole = (self.statistics(usual) * self.about(codes)).sum(dim=1) + self.bias
        added = torch.zeros_like(h)
        for code, edges, ends in zip(codes, _own(graph.spec), neurons, strict=True):
            for end, nodes in enumerate((edges.source, edges.target)):
                seen = self.ends[end](self.usual[1 + end](ends[end].to(codes), code))
                added[:, slice(*plan.span(nodes))] += seen * self.about_ends[end](code)
        return h + self.out_neurons(added), summary + self.out(whole)

    @torch.no_grad()
    def prepare(self, graphs: Iterable[ParameterGraph]) -> None:
        """Finds out what is usual: mean and deviation of each statistic, as functions of codes.

        Of one architecture, these are its own mean and deviation for each edge set; of many, what
        fits them best (ridge regression on codes, weighed by networks).
        """
        moments: dict[GraphSpec, list[_Moments]] = {}
        for graph in graphs:
            own = moments.setdefault(graph.spec, [_Moments() for _ in self.usual])
            found, neurons = self._found(graph)
            own[0].add(*found.unsqueeze(2).unbind(1))
            for end, known in enumerate(own[1:]):
                known.add(*(ends[end] for ends in neurons))
        if not moments:
            return
        codes = torch.cat([self._codes(spec).double() for spec in moments])
        counts = torch.cat(
            [codes.new_full((len(_own(spec)),), own[0].count) for spec, own in moments.items()]
        )
        for kind, usual in enumerate(self.usual):
            each = [own[kind] for own in moments.values()]
            means, deviations = (
                torch.cat([getattr(part, name) for part in each]).to(codes)
                for name in ("mean", "deviation")
            )
            cast(_Standard, usual).fit(codes, counts, means, deviations)

    def _found(self, graph: ParameterGraph) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Statistics of edge sets (B, edge sets, n), and of the neurons at both ends of each."""
        chosen, known = self.symmetries - NEVER_SEEN, graph.spec.symmetries
        scales = "scalings" in chosen
        bases = "gauges" in chosen and bool(known.gauges)
        phases = scales and any(scaling.domain == "phase" for scaling in known.scalings)
        shifts = phases or "translations" in chosen
        if chosen:
            graph = canonical(graph, shifts=shifts, scales=scales, bases=bases, signs=False)
        # Signs that cross in a matrix have no one choice, nor has the sign of a direction.
        sizes = scales or bases
        whole = [edge_statistics(graph, edges, sizes) for edges in _own(graph.spec)]
        neurons = [neuron_statistics(graph, edges, sizes) for edges in _own(graph.spec)]
        return torch.stack(whole, dim=1), neurons

    def _codes(self, spec: GraphSpec) -> Tensor:
        """Codes of shape (edge sets, CODES), almost at right angles if descriptions differ."""
        known = zip(self.descriptions.edges(spec), spec.edge_sets, strict=True)
        described = torch.stack([row for row, edges in known if edges.tied_to is None])
        return 2**0.5 * (described.to(self.phases) @ self.directions + self.phases).sin()


class _Standard(nn.Module):
    """Statistics in usual deviations from what is usual for such an edge set."""

    centres: Tensor
    scales: Tensor

    def __init__(self, count: int) -> None:
        super().__init__()
        self.register_buffer("centres", torch.zeros(CODES, count))
        self.register_buffer("scales", torch.zeros(CODES, count))

    def forward(self, found: Tensor, codes: Tensor) -> Tensor:
        """Statistics (..., count) of edge sets with codes (..., CODES)."""
        usual = (found - codes @ self.centres) * (codes @ self.scales).exp()
        return usual.clamp(-FARTHEST, FARTHEST)

    def fit(self, codes: Tensor, counts: Tensor, means: Tensor, deviations: Tensor) -> None:
        """To E edge sets: codes (E, CODES), networks (E,), mean and deviation (E, count)."""
        weights = counts.unsqueeze(1)
        typical = ((weights * deviations.square()).sum(dim=0) / weights.sum()).sqrt()
        size = means.abs().mean(dim=0)
        least = FLOOR * torch.maximum(typical, size / 10).clamp(min=FLOOR)
        scales = -torch.maximum(deviations, least).log()
        gram = codes.T @ (weights * codes)
        gram += RIDGE * gram.diagonal().mean() * torch.eye(CODES).to(gram)
        for buffer, wanted in ((self.centres, means), (self.scales, scales)):
            buffer.copy_(torch.linalg.solve(gram, codes.T @ (weights * wanted)))


@dataclass
class _Moments:
    """Number of networks, and sums of their statistics and of the squares."""

    count: int = 0
    sums: Tensor = field(default_factory=lambda: torch.zeros(2, 1, 1, dtype=torch.float64))

    def add(self, *found: Tensor) -> None:
        """Statistics of each edge set, shape (B, neurons, n); its neurons count as one."""
        own = torch.stack([_sums(values.double()) for values in found], dim=1)
        self.count, self.sums = self.count + len(found[0]), self.sums.to(own) + own

    @property
    def mean(self) -> Tensor:
        return self.sums[0] / self.count

    @property
    def deviation(self) -> Tensor:
        return (self.sums[1] / self.count - self.mean.square()).clamp(min=0).sqrt()


def _own(spec: GraphSpec) -> list[EdgeSet]:
    return [edges for edges in spec.edge_sets if edges.tied_to is None]


def _sums(found: Tensor) -> Tensor:
    """Sums over networks of means over neurons, of statistics and of their squares: (2, n)."""
    return torch.stack([found, found.square()]).mean(dim=2).sum(dim=1)


def _gated(width: int, hidden: int) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(width), nn.SiLU(), nn.Dropout(LEFT_OUT), nn.Linear(width, hidden)
    )
