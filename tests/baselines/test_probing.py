"""Plain probing: the answers of networks, whatever computed them."""

from __future__ import annotations

import torch

from baselines import ProbeNet
from gmn.nn import Probes
from tests.traced import BY_NAME, graph_of


def test_probes_learn() -> None:
    graph = graph_of(BY_NAME["mlp-relu"])
    net = ProbeNet(Probes(torch.randn(4, 5, 3)), answers=2).double()
    net(graph).sum().backward()
    moves = net.probes.moves["0"]
    assert moves.grad is not None
    assert bool(moves.grad.any())
