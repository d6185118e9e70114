"""Weight autoencoder: any metanetwork as encoder, an MLP onto the parameters as decoder."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gmn.errors import UnsupportedArchitecture
from gmn.graph import ParameterGraph
from gmn.spec import GraphSpec, StateEntry
from gmn.stack import StackedGraph, stack

HIDDEN = 256


class Decoder(nn.Module):
    """Networks of one architecture from vectors.

    The parameters are ``start + spread * MLP(vector)``, with a learned ``start``. Begun at a
    trained network it computes something sensible from the first step on, and its units differ.

    Args:
        spec: the architecture.
        latent: length of the vectors.
        start: a state dict; None for zeros, to load weights into.
        spread: by entry, the standard deviation of its weights.

    Raises:
        UnsupportedArchitecture: if the architecture has running statistics, which no loss here
            keeps in their range.
    """

    def __init__(
        self,
        spec: GraphSpec,
        latent: int,
        start: Mapping[str, Tensor] | None = None,
        spread: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__()
        if others := [e.name for e in spec.edge_sets if not spec.is_parameter(e)]:
            raise UnsupportedArchitecture(
                f"{others[0]} is a running statistic or a constant; the decoder makes parameters "
                "only"
            )
        if pairs := [entry.name for entry in spec.entries if entry.complex]:
            raise UnsupportedArchitecture(f"{pairs[0]} is complex; the decoder makes real weights")
        self.spec = spec
        primary = [entry for entry in spec.entries if entry.tied_to is None]
        self.decoded = [entry for entry in primary if entry.parameter and entry.floating]
        self.kept = [entry for entry in primary if entry not in self.decoded]
        sizes = [math.prod(entry.shape) for entry in self.decoded]
        begin = [_begin(start, entry).flatten().float() for entry in self.decoded]
        widths = [(spread or {}).get(entry.name, 1.0) for entry in self.decoded]
        self.start = nn.Parameter(torch.cat(begin))
        self.spread: Tensor
        self.register_buffer("spread", torch.tensor(widths).repeat_interleave(torch.tensor(sizes)))
        for index, entry in enumerate(self.kept):
            self.register_buffer(f"kept{index}", _begin(start, entry))
        self.body = nn.Sequential(
            nn.Linear(latent, HIDDEN), nn.SiLU(), nn.Linear(HIDDEN, HIDDEN), nn.SiLU(),
            nn.Linear(HIDDEN, sum(sizes)),
        )  # fmt: skip

    def forward(self, vectors: Tensor) -> ParameterGraph:
        """From vectors (B, latent) to B networks."""
        flat = self.start + self.spread * self.body(vectors)
        parts = flat.split([math.prod(entry.shape) for entry in self.decoded], dim=1)
        values = {e.name: p.unflatten(1, e.shape) if e.shape else p.squeeze(1)
                  for e, p in zip(self.decoded, parts, strict=True)}  # fmt: skip
        for index, entry in enumerate(self.kept):
            one = self.get_buffer(f"kept{index}")
            values[entry.name] = one.expand(len(vectors), *one.shape)
        return ParameterGraph(self.spec, values)


def _begin(start: Mapping[str, Tensor] | None, entry: StateEntry) -> Tensor:
    if start is not None:
        return start[entry.name].clone()
    return torch.zeros(entry.shape, dtype=torch.float32 if entry.floating else torch.int64)


class Autoencoder(nn.Module):
    """Reconstructs networks from the vectors of an encoder.

    The answer is a stack of the reconstructions and of the originals
    (:class:`gmn.stack.StackedGraph`), so that a loss can compare their weights.

    Args:
        encoder: a metanetwork that answers with a vector.
        decoder: from vectors to networks.
    """

    def __init__(self, encoder: nn.Module, decoder: Decoder) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        self.learning_rate = float(getattr(encoder, "learning_rate", 1e-3))

    def forward(self, graph: ParameterGraph) -> StackedGraph:
        """From B networks to B reconstructions, with the originals.

        Raises:
            UnsupportedArchitecture: if they are not of the decoder's architecture.
        """
        if graph.spec != self.decoder.spec:
            raise UnsupportedArchitecture(
                "an autoencoder makes networks of one architecture, and these are of another"
            )
        return stack([self.decoder(self.encoder(graph)), graph])
