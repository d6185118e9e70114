"""Claims that a module disproves are given up, with a warning, and nothing else is."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import converters
import gmn
from converters.proof.experiment import tried
from gmn.spec import GraphSpec
from tests.cases import mlp
from tests.converters.claims import (
    FALSE_SCALE,
    with_axis,
    with_false_basis,
    with_false_scale,
    with_false_shift,
)

POINTS = (torch.zeros(4, 3),)


def claims(spec: GraphSpec) -> set[str]:
    return set(spec.symmetries.names)


def doubted(model: nn.Module, inputs: tuple[Tensor, ...], spec: GraphSpec) -> GraphSpec:
    """The spec after the experiment, which must warn."""
    with pytest.warns(converters.FalseSymmetryWarning) as seen:
        result = tried(model, inputs, spec)
    assert len(seen) == 1
    return result


def test_what_is_true_stays_and_is_named() -> None:
    spec = converters.trace(mlp(nn.ReLU()), POINTS)
    assert set(spec.tried) == claims(spec) == {"0", "2", "0.scale", "2.scale"}
    assert not spec.untried
    assert str(spec).endswith("tried: all of 4 symmetries on random weights")


@pytest.mark.parametrize(
    "falsified",
    [
        lambda spec: with_false_scale(spec, "2.weight"),
        lambda spec: with_false_shift(spec, "2.bias"),
        lambda spec: with_axis(spec, "input", True),
        lambda spec: with_axis(spec, "4", True),
    ],
    ids=["scale", "shift", "inputs", "outputs"],
)
def test_a_false_claim_is_given_up_and_named(falsified: Callable[[GraphSpec], GraphSpec]) -> None:
    model = mlp(nn.Tanh())
    spec = converters.trace(model, POINTS)
    wrong = falsified(spec)
    (name,) = claims(wrong) - claims(spec)
    with pytest.warns(
        converters.FalseSymmetryWarning, match=rf" {name} is none: .* linear"
    ) as seen:
        right = tried(model, POINTS, wrong)
    assert len(seen) == 1
    assert claims(right) == set(right.tried) == claims(spec)
    assert right.symmetries == spec.symmetries


def test_a_zero_at_the_end_of_a_branch_hides_nothing() -> None:
    model = mlp(nn.Tanh())
    spec = converters.trace(model, POINTS)
    for parameter in model[4].parameters():
        nn.init.zeros_(parameter)
    assert claims(doubted(model, POINTS, with_false_scale(spec, "0.weight"))) == claims(spec)


def test_a_gain_of_one_hides_nothing() -> None:
    """Adding one number to all inputs of a LayerNorm's reader is undone only at the first gain."""
    model = nn.Sequential(nn.Linear(3, 6), nn.LayerNorm(6), nn.Linear(6, 2))
    spec = converters.trace(model, POINTS)
    assert claims(doubted(model, POINTS, with_false_shift(spec, "1.weight"))) == claims(spec)


class Positions(nn.Module):
    """A bias per position, which one position alone cannot tell from a bias of all."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 6), nn.Linear(6, 2)
        self.places = nn.Parameter(torch.zeros(5, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.tanh(self.first(x + self.places)).mean(1))


def test_examples_of_size_one_hide_nothing() -> None:
    model = Positions()
    spec = converters.trace(model, (torch.zeros(2, 5, 3),))
    places = next(e for e in spec.edge_sets if e.parameter == "places").dims[0].axis
    assert places is not None
    wrong = with_axis(spec, places, True)
    right = doubted(model, (torch.zeros(1, 1, 3),), wrong)
    assert places not in claims(right)
    assert {"first"} <= claims(right)


class Batched(nn.Module):
    """Divides by the largest output of the batch: with one example, outputs are one."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 6), nn.Linear(6, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.last(torch.tanh(self.first(x)))
        return y / y.abs().amax(0, keepdim=True)


def test_a_batch_of_one_hides_nothing() -> None:
    model = Batched()
    inputs = (torch.ones(1, 3),)
    spec = converters.trace(model, inputs)
    assert claims(doubted(model, inputs, with_false_scale(spec, "first.weight"))) == claims(spec)


def tied_by_a_view() -> nn.Module:
    encoder, decoder = nn.Linear(4, 6), nn.Linear(6, 4)
    decoder.weight.data = encoder.weight.data.t()
    return nn.Sequential(encoder, nn.ReLU(), decoder)


def test_entries_that_share_storage_move_together_or_not_at_all() -> None:
    apart = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 4))
    inputs = (torch.zeros(2, 4),)
    spec = converters.trace(apart, inputs)
    assert claims(spec) == {"0", "0.scale"}
    assert claims(doubted(tied_by_a_view(), inputs, spec)) == {"0"}


class Dropped(nn.Module):
    """Dropout that evaluation does not switch off."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(functional.dropout(torch.relu(self.first(x)), 0.5, training=True))


def test_permutations_of_what_is_dropped_at_random_stay_untried() -> None:
    plain = nn.Sequential()
    plain.first, plain.relu, plain.last = nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 2)
    spec = converters.trace(plain, POINTS)
    right = tried(Dropped(), POINTS, spec)
    assert claims(right) == {"first", "first.scale"}
    assert right.tried == ("first.scale",)
    assert "tried: 1 of 2 symmetries on random weights; others not: " in str(right)
    wrong = with_false_scale(spec, "last.weight")
    assert claims(doubted(Dropped(), POINTS, wrong)) == claims(right)


def test_a_false_basis_leaves_its_diagonal_behind() -> None:
    model = mlp(nn.ReLU())
    spec = converters.trace(model, POINTS)
    wrong = with_false_basis(spec, "0.scale")
    right = doubted(model, POINTS, wrong)
    assert claims(right) == {"0", "2", "2.scale", "false.basis.positive"}
    assert converters.verify(model, POINTS, right, trials=2).ok


class Compared(nn.Module):
    """Units compete over heads, so one permutation of units goes for all heads."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x).view(-1, 2, 4).softmax(1).flatten(1))


def test_permutations_per_head_fall_back_on_one_for_all() -> None:
    spec = converters.trace(Compared(), POINTS)
    heads, units = (next(a.name for a in spec.axes if a.size == n and a.movable) for n in (2, 4))
    wrong = with_axis(spec, units, True, (heads,))
    right = doubted(Compared(), POINTS, wrong)
    assert right.axis(units) == spec.axis(units)
    assert right == spec


def test_several_false_claims_are_all_found() -> None:
    model = mlp(nn.GELU())
    spec = converters.trace(model, POINTS)
    wrong = with_false_shift(with_false_scale(with_axis(spec, "input", True), "0.weight"), "0.bias")
    with pytest.warns(converters.FalseSymmetryWarning) as seen:
        right = tried(model, POINTS, wrong)
    assert claims(right) == claims(spec)
    named = " ".join(str(warning.message) for warning in seen)
    assert all(name in named for name in ("input", FALSE_SCALE, "false.shift"))


def test_neurons_that_may_no_longer_move_are_ordered() -> None:
    model = nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 6), nn.LogSoftmax(-1))
    spec = converters.trace(model, POINTS)
    wrong = with_axis(spec, "2", True)
    wrong = gmn.GraphSpec.from_json(wrong.to_json().replace('"role":"output"', '"role":"hidden"'))
    assert doubted(model, POINTS, wrong).node_set("2").role == "ordered"


def test_the_module_and_the_random_numbers_are_left_alone() -> None:
    model = mlp(nn.ReLU()).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(3)
    random.seed(3)
    expected = (torch.rand(()).item(), random.random())
    torch.manual_seed(3)
    random.seed(3)
    first = converters.trace(model, POINTS)
    assert (torch.rand(()).item(), random.random()) == expected
    assert torch.get_default_dtype() == torch.float32
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert converters.trace(model, POINTS).tried == first.tried


@pytest.mark.parametrize(
    ("model", "inputs", "reason"),
    [
        (lambda: mlp(nn.ReLU()).to("meta"), POINTS, "weights on the meta device"),
        (lambda: Refusing(), POINTS, "Refusing does not run with random weights: too large"),
    ],
    ids=["meta", "refusing"],
)
def test_what_cannot_be_tried_says_why(
    model: Callable[[], nn.Module], inputs: tuple[Tensor, ...], reason: str
) -> None:
    untried = tried(model(), inputs, converters.trace(mlp(nn.ReLU()), inputs))
    assert untried.untried.startswith(reason)
    assert untried.tried == ()
    assert f"not tried: {reason}" in str(untried)


class Refusing(nn.Module):
    """Runs on nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        raise ValueError("too large")


def test_large_modules_are_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("converters.proof.experiment.LARGEST", 10)
    assert "more than 10 parameters" in converters.trace(mlp(nn.ReLU()), POINTS).untried


def test_the_experiment_can_be_left_out() -> None:
    spec = converters.trace(mlp(nn.ReLU()), POINTS, experiment=False)
    assert spec.tried == ()
    assert str(spec).endswith("not tried: the experiment was left out")


def test_experience_is_no_part_of_the_architecture() -> None:
    model = mlp(nn.ReLU())
    tried_one = converters.trace(model, POINTS)
    other = converters.trace(model, POINTS, experiment=False)
    assert tried_one == other
    assert tried_one.fingerprint == other.fingerprint
    assert hash(tried_one) == hash(other)
    assert gmn.GraphSpec.from_json(tried_one.to_json()).tried == tried_one.tried
    assert gmn.GraphSpec.from_json(other.to_json()).untried == other.untried


def test_texts_of_before_the_experiment_still_open() -> None:
    spec = converters.trace(mlp(nn.ReLU()), POINTS, experiment=False)
    text = spec.to_json().replace(',"untried":"the experiment was left out"', "")
    assert "tried" not in text
    old = gmn.GraphSpec.from_json(text)
    assert old == spec
    assert str(old).endswith("not tried")


def test_a_module_of_half_precision_is_held_in_double() -> None:
    model = mlp(nn.ReLU()).bfloat16()
    spec = converters.trace(model, (torch.zeros(4, 3, dtype=torch.bfloat16),))
    assert set(spec.tried) == claims(spec) != set()


def test_chaos_is_no_falsehood() -> None:
    """A deep network makes rounding large; what is true of it is not given up for that."""

    class Chaos(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            for _ in range(60):
                x = torch.sin(4 * self.layer(x))
            return x

    model = nn.Sequential(nn.Linear(3, 8), Chaos())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        converters.trace(model, POINTS)
