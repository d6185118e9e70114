"""ProbeNet: reads the outputs of networks for learned inputs, and no weights."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gmn.foundation.arguments import require_type, require_whole
from gmn.graph import ParameterGraph
from gmn.nn.dual.probes import Probes
from gmn.nn.metanetwork import Metanetwork
from gmn.symmetry import KINDS


class ProbeNet(Metanetwork):
    """An MLP on the outputs of networks for learned inputs.

    A simple reference for metanetworks that read weights: it sees outputs alone, so it is invariant
    to everything that keeps the function. It reads all architectures with inputs and outputs of the
    same shape.

    Args:
        probes: the inputs to learn, such as ``Probes.like(spec, count=64)``.
        answers: numbers that one network gives to one probe.
        outputs: number of outputs.
        hidden: width of the MLP's hidden layers.

    Source: probing with learned inputs as in Herrmann et al. (2024) and Kahana et al. (2025).
    """

    symmetries = KINDS
    learning_rate = 3e-3

    def __init__(self, probes: Probes, answers: int, outputs: int = 1, hidden: int = 256) -> None:
        super().__init__()
        require_type("probes", probes, Probes, "such as gmn.nn.Probes.like(spec, count=64)")
        for name, count in (("answers", answers), ("outputs", outputs), ("hidden", hidden)):
            require_whole(name, count, 1)
        self.probes = probes
        self.net = nn.Sequential(
            nn.Linear(probes.count * answers, hidden), nn.SiLU(),
            nn.Linear(hidden, hidden), nn.SiLU(),
            nn.Linear(hidden, outputs),
        )  # fmt: skip

    def forward(self, graph: ParameterGraph) -> Tensor:
        """Reads B networks; the output has shape (B, outputs)."""
        answers = self.probes.answers(graph)
        return self.net(torch.cat([values.flatten(1) for values in answers], dim=1))
