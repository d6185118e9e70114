"""Users' rules."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.fx import Node

import converters
from converters import leaves, rules
from converters.axes import unify
from converters.rules.pointwise import fixed_unit, same_axes, same_unit
from converters.tracing import Tracing, Value


class Special(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 6), nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.special.i0(self.first(x)))


@pytest.fixture
def clean_table(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("special_i0", "i0"):
        monkeypatch.delitem(rules.RULES, name, raising=False)


@pytest.mark.usefixtures("clean_table")
def test_a_rule_frees_an_axis(monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = Special(), (torch.randn(4, 3),)
    before = converters.trace(model, inputs)
    assert not before.symmetries.permutations
    name = before.unknown[0].split("aten.")[1].split(".")[0]
    monkeypatch.setitem(rules.RULES, name, converters.Rule(same_axes, fixed_unit, "any"))
    after = converters.trace(model, inputs)
    assert [axis.size for axis in after.symmetries.permutations] == [6]
    assert converters.verify(model, inputs).ok


@pytest.mark.usefixtures("clean_table")
def test_a_wrong_rule_fails_the_certificate(monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = Special(), (torch.randn(4, 3),)
    name = converters.trace(model, inputs).unknown[0].split("aten.")[1].split(".")[0]
    monkeypatch.setitem(rules.RULES, name, converters.Rule(same_axes, same_unit, "wrong"))
    certificate = converters.verify(model, inputs)
    assert not certificate.ok
    assert "not a symmetry" in str(certificate)


def test_register_adds_to_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "RULES", dict(rules.RULES))
    converters.register("my_operation", converters.Rule(same_axes, same_unit, "everything"))
    assert ("my_operation", "everything", "") in rules.table()


class Branching(nn.Module):
    """Control flow that depends on values: torch.export cannot follow it."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.rand(6) + 0.5)

    def forward(self, x: torch.Tensor, *, power: int = 1) -> dict[str, torch.Tensor]:
        y = torch.tanh(x) if x.sum() > 0 else torch.sigmoid(x)
        return {"result": y**power * self.gain}


class Holder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 6), nn.Linear(6, 2)
        self.branch = Branching()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.branch(self.first(x))["result"]
        return self.last(self.branch(x, power=2)["result"])


def _branching_axes(trace: Tracing, node: Node) -> list[Value]:
    features, gain = (trace.axes(operand) for operand in node.args[0])
    unify(features[-1], gain[0], "gain")
    trace.use(node.args[0][1], node, "gain", ("both",))
    return [features]


def test_a_module_with_a_rule_is_one_operation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leaves, "CLASSES", {})
    model, inputs = Holder(), (torch.randn(4, 3),)
    with pytest.raises(converters.TraceError, match=r"converters.register\(its class, rule\)"):
        converters.trace(model, inputs)
    name = leaves.name_of_class(Branching)
    monkeypatch.setitem(rules.RULES, name, rules.RULES["relu"])  # taken away again afterwards
    converters.register(Branching, converters.Rule(_branching_axes, fixed_unit, "permutations"))
    spec = converters.trace(model, inputs)
    assert [axis.size for axis in spec.symmetries.permutations] == [6]
    gains = [edges for edges in spec.edge_sets if edges.parameter == "branch.gain"]
    assert [edges.operation.name for edges in gains] == [name, name]  # called twice
    assert converters.verify(model, inputs, spec).ok
    assert "forward" not in vars(model.branch)
    assert converters.trace(model, inputs) == spec
