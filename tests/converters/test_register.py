"""Users' rules."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import converters
from converters import rules
from converters.rules.pointwise import fixed_unit, same_axes, same_unit


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
