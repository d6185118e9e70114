"""Plain probing: the answers of networks, whatever computed them."""

from __future__ import annotations

import torch

from baselines import ProbeNet
from baselines.presets import probe_net
from gmn.nn import Probes
from gmn.testing import assert_invariant, relative_error
from tests.traced import BY_NAME, chains, graph_of


@chains
def test_invariant_to_everything_that_keeps_the_function(case) -> None:  # type: ignore[no-untyped-def]
    graph = graph_of(case)
    torch.manual_seed(0)
    assert_invariant(probe_net(graph.spec, 3).double(), graph, scalings=True)


def test_other_functions_get_other_answers() -> None:
    graph = graph_of(BY_NAME["cnn"])
    torch.manual_seed(0)
    net = probe_net(graph.spec, 3).double()
    with torch.no_grad():
        for entry in graph.spec.entries:
            changed = graph.replace({entry.name: graph.values[entry.name] * 1.3})
            assert relative_error(net(changed), net(graph)) > 1e-8, entry.name


def test_probes_learn() -> None:
    graph = graph_of(BY_NAME["mlp-relu"])
    net = ProbeNet(Probes(torch.randn(4, 5, 3)), answers=2).double()
    net(graph).sum().backward()
    moves = net.probes.moves["0"]
    assert moves.grad is not None
    assert bool(moves.grad.any())
