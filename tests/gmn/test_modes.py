"""Every installed net runs under bfloat16 autocast, near float32, and under torch.compile."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gmn import registry
from gmn.nn import GMN, InvariantHead
from gmn.testing import relative_error
from tests.traced import graph_of, read_by, slow_but

AT_ONCE = ("gmn", "flat-mlp")  # others take 10 seconds each
ROUNDED = (
    *("gmn-sparse", "gmn", "dual-gmn", "ng-gnn", "nfn-hnp", "nft", "unf", "monomial-nfn"),
    *("magep-nfn", "transformer-nfn", "probe-net"),
)


def modules(name: str) -> nn.Module | None:
    torch.manual_seed(0)
    if name == "gmn-sparse":
        return GMN(24, 3, InvariantHead(4), executor="sparse")
    model = registry.find(name)(graph_of(read_by(name)).spec, 4)
    return model if isinstance(model, nn.Module) else None


@pytest.mark.parametrize("name", slow_but(["gmn-sparse", *registry.names()], ROUNDED))
def test_bfloat16_is_near_float32(name: str) -> None:
    model = modules(name)
    if model is None:
        pytest.skip("an estimator has no autocast")
    graph = graph_of(read_by(name), networks=6).to(dtype=torch.float32)
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
    loss = 0.1 if name == "magep-nfn" else 0.05  # products of many weights round as often
    assert 0 < relative_error(answers[1], answers[0]) < loss
    assert torch.cosine_similarity(*gradients, dim=0) > 0.95


# The compiler hides warnings of its own in a way that does not work where they are errors.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "name",
    [
        name if name in AT_ONCE else pytest.param(name, marks=pytest.mark.slow)
        for name in ("gmn-sparse", *registry.names())
    ],
)
def test_compiled_nets_give_the_same(name: str) -> None:
    model = modules(name)
    if model is None:
        pytest.skip("an estimator is not compiled")
    graph = graph_of(read_by(name), networks=3).to(dtype=torch.float32)
    compiled = torch.compile(model, backend="eager")
    compiled(graph).square().sum().backward()
    found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    answer = model(graph)
    answer.square().sum().backward()
    assert relative_error(compiled(graph), answer) <= 1e-5
    assert found.keys() == {n for n, p in model.named_parameters() if p.grad is not None}
    for n, parameter in model.named_parameters():
        if n in found:
            assert parameter.grad is not None
            torch.testing.assert_close(found[n], parameter.grad, rtol=1e-3, atol=1e-5)
