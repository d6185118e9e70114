"""Users' rules."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.fx import Node

import converters
from converters import rules
from converters.exporting import leaves
from converters.inference.actions import Actions
from converters.testing import Law, assert_sound, first_difference
from converters.writing import (
    Action,
    Frame,
    Rule,
    Tracing,
    Value,
    moved,
    operands_of,
    pinned_all,
    plain,
    positive,
    same_axes,
    total,
    unify,
)


@torch.library.custom_op("her::relu", mutates_args=())
def her_relu(x: Tensor, shift: float = 0.0) -> Tensor:
    """Not what one would expect of this name."""
    return torch.sigmoid(x) + shift


@her_relu.register_fake
def _(x: Tensor, shift: float = 0.0) -> Tensor:
    return torch.empty_like(x)


class Special(nn.Module):
    def __init__(self, shift: float = 0.0) -> None:
        super().__init__()
        self.first, self.last, self.shift = nn.Linear(3, 6), nn.Linear(6, 2), shift

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.ops.her.relu(self.first(x), self.shift))


@pytest.fixture(autouse=True)
def own_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone after it."""
    before = dict(rules.RULES)
    monkeypatch.setattr(leaves, "CLASSES", dict(leaves.CLASSES))
    yield
    rules.RULES.clear()
    rules.RULES.update(before)


INPUTS = (torch.randn(4, 3),)


def test_an_operation_of_another_namespace_has_no_rule_of_its_namesake() -> None:
    spec = converters.trace(Special(), INPUTS)
    assert not spec.symmetries.permutations
    assert "her::relu has no rule" in spec.unknown[0] or "her.relu" in spec.unknown[0]


@pytest.mark.parametrize("operation", ["her::relu", torch.ops.her.relu, her_relu])
def test_a_rule_frees_an_axis(operation: object) -> None:
    converters.register(operation, Rule(same_axes, plain, "any permutation"))
    spec = converters.trace(Special(), INPUTS)
    assert [axis.size for axis in spec.symmetries.permutations] == [6]
    assert converters.verify(Special(), INPUTS).ok


def test_a_false_rule_fails_its_law_the_certificate_and_is_named() -> None:
    converters.register("her::relu", Rule(same_axes, positive, "wrong"))
    with pytest.raises(AssertionError, match=r"her::relu is false: under positive scales"):
        assert_sound(torch.ops.her.relu, [torch.randn(4, 6)])
    assert not converters.verify(Special(), INPUTS).ok
    assert first_difference(Special(), INPUTS) == "her::relu in model"
    with pytest.warns(converters.FalseSymmetryWarning, match=r"is that of her::relu in model"):
        converters.trace(Special(), INPUTS)


def test_an_argument_that_a_rule_does_not_mention_makes_axes_ordered() -> None:
    converters.register("her::relu", Rule(same_axes, plain, "any permutation"))
    spec = converters.trace(Special(shift=1.0), INPUTS)
    assert not spec.symmetries.permutations
    assert "her::relu with shift has no rule" in spec.unknown[0]
    converters.register("her::relu", Rule(same_axes, plain, "any permutation", whatever=("shift",)))
    assert converters.trace(Special(shift=1.0), INPUTS).symmetries.permutations


def test_an_operand_that_a_rule_does_not_mention_may_not_move() -> None:
    converters.register("add", Rule(same_axes, moved, "wrong: forgets the second operand"))
    freedom = Law.of(torch.add, [torch.randn(4, 6), torch.randn(4, 6)]).freedom
    assert {"operand_0"} == {name for found in freedom.values() for part in found for name in part}


@pytest.mark.parametrize("name", ["no_such_operation", "nobody::relu", "my_relu"])
def test_what_nothing_is_called_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"no operation is called {name}"):
        converters.register(name, rules.RULES["relu"])


def test_the_error_tells_the_name_that_was_meant() -> None:
    converters.register("aten::relu", rules.RULES["relu"])
    with pytest.raises(ValueError, match=r"did you mean aten::relu or her::relu"):
        converters.register("his::relu", rules.RULES["relu"])
    with pytest.raises(ValueError, match="is no operation"):
        converters.register(3, rules.RULES["relu"])


def test_synonyms_are_one_operation() -> None:
    rule = Rule(same_axes, pinned_all, "nothing")
    converters.register("multiply", rule)
    assert rules.RULES["mul"] is rule


class Branching(nn.Module):
    """Control flow that depends on values: torch.export cannot follow it."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.rand(6) + 0.5)

    def forward(self, x: Tensor, *, power: int = 1) -> dict[str, Tensor]:
        y = torch.tanh(x) if x.sum() > 0 else torch.sigmoid(x)
        return {"result": y**power * self.gain}


class Holder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 6), nn.Linear(6, 2)
        self.branch = Branching()

    def forward(self, x: Tensor) -> Tensor:
        x = self.branch(self.first(x))["result"]
        return self.last(self.branch(x, power=2)["result"])


def _branching_axes(trace: Tracing, node: Node) -> list[Value]:
    features, gain = (trace.axes(operand) for operand in operands_of(node))
    unify(features[-1], gain[0], "gain")
    return [list(features)]


def _branching_action(actions: Actions, node: Node) -> list[Action]:
    features, gain = operands_of(node)
    actions.pin(features)
    rank = len(actions.axes(features))
    result = actions.trace.values[node][0]
    frame = Frame(actions, node, [(gain, [rank - 1])], range(rank), result)
    scale = total(frame, [0], [1], "gain")
    actions.zero(actions.shifts, scale.shift)
    return [frame.give(Action(scale.magnitude, scale.sign))]


def test_a_module_with_a_rule_is_one_operation() -> None:
    model = Holder()
    with pytest.raises(converters.TraceError, match=r"converters.register\(its class, rule\)"):
        converters.trace(model, INPUTS)
    name = leaves.name_of_class(Branching)
    converters.register(Branching, Rule(_branching_axes, _branching_action, "permutations"))
    assert_sound(Branching(), [torch.randn(4, 6)])
    spec = converters.trace(model, INPUTS)
    assert [axis.size for axis in spec.symmetries.permutations] == [6]
    gains = [edges for edges in spec.edge_sets if edges.parameter == "branch.gain"]
    assert [edges.operation.name for edges in gains] == [name, name]  # called twice
    assert converters.verify(model, INPUTS, spec).ok
    assert "forward" not in vars(model.branch)
    assert converters.trace(model, INPUTS) == spec
