"""Metrics of populations and the loss on sets of neurons."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import gmn
from gmn import symmetry
from gmn.transport import NetworkDistance, NeuronSetLoss, ZooMetrics, zoo_metrics
from gmn.transport.populations import metrics_of
from tests.traced import BY_NAME, graph_of, slow_but

MLP = BY_NAME["mlp-relu"]


def measured(generated: Tensor, reference: Tensor, training: Tensor) -> ZooMetrics:
    """Of points, whose distances are Euclidean."""
    return metrics_of(
        torch.cdist(generated, generated),
        torch.cdist(generated, reference),
        torch.cdist(reference, reference),
        torch.cdist(generated, training),
        torch.cdist(reference, training),
    )


def points(count: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 2, generator=generator, dtype=torch.float64)


def test_samples_of_one_distribution() -> None:
    found = measured(points(400, 0), points(400, 1), points(400, 2))
    assert abs(found.mmd) < 0.01
    assert found.accuracy == pytest.approx(0.5, abs=0.06)
    assert found.novelty == pytest.approx(1, abs=0.15)
    assert 0.4 < found.coverage < 0.8


def test_samples_far_away() -> None:
    found = measured(points(100, 0) + 10, points(100, 1), points(100, 2))
    assert found.mmd > 0.5
    assert found.accuracy == 1.0
    assert found.coverage < 0.05
    assert found.novelty > 10


def test_copies_of_the_training_set_are_not_new() -> None:
    training = points(100, 2)
    assert measured(training[:50], points(100, 1), training).novelty == 0.0
    assert measured(points(100, 1), points(100, 1), training).accuracy == 0.0


def test_one_network_again_and_again_covers_little() -> None:
    one = points(1, 0).expand(50, 2)
    assert measured(one, points(100, 1), points(100, 2)).coverage == 0.01


def moved(graph: gmn.ParameterGraph) -> gmn.ParameterGraph:
    chance = torch.Generator().manual_seed(0)
    return symmetry.sample(graph.spec, chance, scalings=False).act_on_graph(graph)


def test_populations_of_networks() -> None:
    graph = graph_of(MLP, networks=9)
    found = zoo_metrics(moved(graph[:3]), graph[3:6], graph[:3], NetworkDistance(lines=20))
    assert found.novelty < 1e-6
    with pytest.raises(ValueError, match="two"):
        zoo_metrics(graph[:1], graph[1:4], graph[4:])


@pytest.mark.parametrize("kind", ["sliced", "assignment", "tree"])
def test_the_loss_does_not_see_the_order_of_neurons(kind: str) -> None:
    graph = graph_of(MLP, networks=3)
    loss = NeuronSetLoss(kind)  # type: ignore[arg-type]
    assert float(loss(moved(graph), graph)) < 1e-12
    assert float(loss(graph, graph[[1, 2, 0]])) > 1e-3


@pytest.mark.parametrize("kind", slow_but(["sliced", "assignment", "tree"], ["sliced"]))
def test_the_loss_leads_to_the_network(kind: str) -> None:
    graph = graph_of(MLP, networks=2)
    start = {n: v.flip(0).clone().requires_grad_() for n, v in graph.values.items()}
    loss = NeuronSetLoss(kind, lines=32, generator=torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    optimiser = torch.optim.Adam(start.values(), lr=0.02)
    first = float(loss(graph.replace(start), graph).detach())
    for _ in range(150):
        optimiser.zero_grad()
        value = loss(graph.replace(start), graph)
        value.backward()
        optimiser.step()
    assert float(value.detach()) < 0.1 * first


def test_lines_are_new_at_every_call_if_asked_for() -> None:
    graph = graph_of(MLP, networks=2)
    fixed, fresh = NeuronSetLoss(), NeuronSetLoss(generator=torch.Generator().manual_seed(0))
    other = graph[[1, 0]]
    assert float(fixed(graph, other)) == float(fixed(graph, other))
    assert float(fresh(graph, other)) != float(fresh(graph, other))


def test_unknown_losses() -> None:
    with pytest.raises(ValueError, match="no loss is called"):
        NeuronSetLoss("chamfer")  # type: ignore[arg-type]
