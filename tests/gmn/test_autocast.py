"""Mixed precision: every installed net runs under bfloat16 autocast, near float32."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gmn import registry
from gmn.nn import GMN, InvariantHead
from gmn.testing import relative_error
from tests.traced import BY_NAME, graph_of


def modules(name: str) -> nn.Module | None:
    torch.manual_seed(0)
    if name == "gmn-sparse":
        return GMN(24, 3, InvariantHead(4), executor="sparse")
    model = registry.find(name)(graph_of(BY_NAME["cnn"]).spec, 4)
    return model if isinstance(model, nn.Module) else None


@pytest.mark.parametrize("name", ["gmn-sparse", *registry.names()])
def test_bfloat16_is_near_float32(name: str) -> None:
    model = modules(name)
    if model is None:
        pytest.skip("an estimator has no autocast")
    graph = graph_of(BY_NAME["cnn"], networks=6).to(dtype=torch.float32)
    answers, gradients = [], []
    for mixed in (False, True):
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            answer = model(graph)
        answer.float().square().sum().backward()
        answers.append(answer.detach().float())
        gradients.append(
            torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        )
    assert answers[1].isfinite().all()
    assert gradients[1].isfinite().all()
    assert 0 < relative_error(answers[1], answers[0]) < 0.05
    assert torch.cosine_similarity(*gradients, dim=0) > 0.95
