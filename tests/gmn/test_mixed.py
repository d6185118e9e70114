"""Batches of several architectures."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import gmn
from gmn.nn import GMN, InvariantHead, read_all
from tests.traced import BY_NAME, graph_of


def test_answers_come_in_order_from_one_pass_per_architecture() -> None:
    torch.manual_seed(0)
    net, passes = GMN(8, 2, InvariantHead(3)).double(), []

    def counted(graph: gmn.ParameterGraph) -> Tensor:
        passes.append(len(graph))
        return net(graph)

    mlps, cnns = (graph_of(BY_NAME[name], networks=4) for name in ("mlp-relu", "cnn"))
    graphs = [mlps[:1], cnns[0], mlps[2:], cnns[1:3]]
    found = read_all(counted, graphs)
    torch.testing.assert_close(found, torch.cat([net(graph) for graph in graphs]))
    assert sorted(passes) == [3, 3]


def test_gradients_reach_the_net() -> None:
    net = GMN(8, 1).double()
    graphs = [graph_of(BY_NAME[name]) for name in ("mlp-relu", "cnn")]
    read_all(net, graphs).sum().backward()
    assert net.encoder.state.grad is not None


def test_no_graphs_are_refused() -> None:
    with pytest.raises(ValueError, match="no graphs to read"):
        read_all(GMN(), [])
