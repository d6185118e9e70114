"""Laws of the permutation-equivariant nets in float32 and at weights that break published codes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from gmn.nn import GMN, InvariantHead, NeuralGraphGNN, NeuralGraphTransformer
from gmn.testing import assert_invariant
from tests.cases import Case
from tests.changes import every_damage
from tests.traced import BY_NAME, covering_cases, graph_of


def graph_metanetwork() -> nn.Module:
    return GMN(12, 2, InvariantHead(3))


def neural_graph_gnn() -> nn.Module:
    return NeuralGraphGNN(12, 2, InvariantHead(3), edge_hidden=8)


def neural_graph_transformer() -> nn.Module:
    return NeuralGraphTransformer(12, 2, InvariantHead(3), edge_hidden=8, attention=16, heads=2)


every_net = pytest.mark.parametrize(
    "build", [graph_metanetwork, neural_graph_gnn, neural_graph_transformer]
)


@every_net
@covering_cases
def test_single_precision(case: Case, build: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    graph = graph_of(case).to(dtype=torch.float32)
    assert_invariant(build(), graph, tolerance=1e-4, symmetries={"permutations"})


@every_net
@every_damage
@pytest.mark.parametrize("name", ["mlp-relu", "cnn", "batch-norm", "attention"])
def test_degenerate_weights(
    name: str, damage: Callable[[Tensor], Tensor], build: Callable[[], nn.Module]
) -> None:
    torch.manual_seed(0)
    graph, model = graph_of(BY_NAME[name]), build().double()
    weights = [e.parameter for e in graph.spec.edge_sets if e.kind == "weight"]
    values = {n: damage(graph.values[n]).requires_grad_() for n in weights}
    model(graph.replace(values)).square().sum().backward()
    gradients = [v.grad for v in values.values()]
    gradients += [p.grad for p in model.parameters() if p.grad is not None]
    assert all(g is not None and g.isfinite().all() for g in gradients)
    still = graph.replace({n: v.detach() for n, v in values.items()})
    assert_invariant(model, still, symmetries={"permutations"})
