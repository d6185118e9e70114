"""Branches that may trade places: found where they may, and nowhere else."""

from __future__ import annotations

import copy
import itertools
import warnings
from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor, nn

import converters
import gmn
from converters.proof.experiment import tried
from gmn import symmetry
from gmn.spec import Exchange, SpecError
from gmn.testing import assert_same_function
from tests import branches
from tests.branches import Branched, Exchangeable, mlp
from tests.traced import one_in, slow_beyond

alike = pytest.mark.parametrize("case", slow_beyond(branches.ALIKE, branches.TYPICAL))
unlike = pytest.mark.parametrize("case", one_in(2, branches.UNLIKE, lambda case: case.name))


@cache
def spec_of(name: str) -> gmn.GraphSpec:
    case = next(case for case in (*branches.ALIKE, *branches.UNLIKE) if case.name == name)
    return converters.trace(case.model(), case.inputs())


def counts(spec: gmn.GraphSpec) -> tuple[int, ...]:
    return tuple(sorted((len(e.branches) for e in spec.exchanges), reverse=True))


@alike
def test_branches_that_may_trade_places_are_found(case: Exchangeable) -> None:
    spec = spec_of(case.name)
    assert counts(spec) == case.counts
    assert {exchange.name for exchange in spec.exchanges} <= set(spec.tried)
    assert str(len(spec.exchanges[0].branches)) in str(spec)


@unlike
def test_branches_that_differ_keep_their_places(case: Exchangeable) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", converters.FalseSymmetryWarning)
        assert counts(converters.trace(case.model(), case.inputs())) == ()


@alike
def test_sampled_elements_keep_the_function(case: Exchangeable) -> None:
    model, inputs = case.model(), case.inputs()
    spec, state = spec_of(case.name), model.state_dict()
    for seed, kinds in itertools.product(range(3), (None, ("exchanges",))):
        generator = torch.Generator().manual_seed(seed)
        element = symmetry.sample(spec, generator, symmetries=kinds)
        assert_same_function(model, state, element.act(state), inputs)


@alike
def test_half_an_exchange_changes_the_function(case: Exchangeable) -> None:
    model, inputs = case.model(), case.inputs()
    exchange = spec_of(case.name).exchanges[0]
    weights = [
        next(name for name in branch if "weight" in name and "router" not in name)
        for branch in exchange.branches
    ]
    state = model.state_dict()
    moved = dict(state)
    for name, other in zip(weights, weights[1:] + weights[:1], strict=True):
        moved[name] = state[other]
    with pytest.raises(AssertionError, match="different functions"):
        assert_same_function(model, state, moved, inputs)


@alike
def test_inverses_and_compositions(case: Exchangeable) -> None:
    spec, state = spec_of(case.name), case.model().state_dict()
    one, other = (symmetry.sample(spec, torch.Generator().manual_seed(n)) for n in (3, 4))
    both = one.after(other)
    moved = both.act(state)
    for name, value in one.act(other.act(state)).items():
        torch.testing.assert_close(moved[name], value)
    back = both.inverse().act(both.act(state))
    for name, value in state.items():
        torch.testing.assert_close(back[name], value, rtol=1e-10, atol=1e-10)


@alike
def test_descriptions_of_branches_agree(case: Exchangeable) -> None:
    spec = spec_of(case.name)
    for exchange in spec.exchanges:
        for column in zip(*exchange.branches, strict=True):
            edges = [spec.edge_set(name) for name in column]
            assert len({(e.context, e.route, e.depth, e.kind) for e in edges}) == 1
            ends = [spec.node_set(name) for e in edges for name in (e.target,)]
            assert len({(n.role, n.shape, n.operations) for n in ends}) == 1


def test_specs_with_exchanges_go_through_json() -> None:
    case = branches.ALIKE[0]
    spec = spec_of(case.name)
    again = gmn.GraphSpec.from_json(spec.to_json())
    assert again == spec
    assert again.exchanges == spec.exchanges
    assert "exchanges" not in replace(spec, exchanges=()).to_json()
    assert spec.fingerprint != replace(spec, exchanges=()).fingerprint


def test_only_the_branches_that_are_alike_trade_places() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ModuleList(mlp(a) for a in (nn.ReLU, nn.Tanh, nn.ReLU, nn.Tanh))

        def forward(self, x: Tensor) -> Tensor:
            first, *rest = (part(x) for part in self.parts)
            return torch.relu(first - rest[0] + rest[1] - rest[2])

    spec = converters.trace(Net().double(), (torch.randn(2, 4).double(),))
    numbers = [[b[0].split(".")[1] for b in exchange.branches] for exchange in spec.exchanges]
    assert sorted(numbers) == [["0", "2"], ["1", "3"]]


def test_what_is_added_and_what_is_subtracted_keep_their_places() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = mlp(), mlp()

        def forward(self, x: Tensor) -> Tensor:
            return self.one(x) - self.other(x)

    assert not converters.trace(Net().double(), (torch.randn(2, 4).double(),)).exchanges


def test_a_number_added_is_not_a_number_subtracted() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.other = mlp(), mlp()

        def forward(self, x: Tensor) -> Tensor:
            return self.one(x + 2) + self.other(x - 2)

    assert not converters.trace(Net().double(), (torch.randn(2, 4).double(),)).exchanges


def test_a_weight_that_is_shared_with_the_outside_holds_its_branch() -> None:
    model = Branched(mlp, branches.total, outside=nn.Linear(4, 5))
    model.others["outside"].weight = model.branches[0][0].weight
    model.join = lambda net, parts, x: sum(parts) + net.others["outside"](x)[:, :4].abs()
    spec = converters.trace(model.double(), (torch.randn(2, 4).double(),))
    assert [len(e.branches) for e in spec.exchanges] == [2]
    assert not any("branches.0" in name for b in spec.exchanges[0].branches for name in b)


def test_a_weight_that_all_branches_share_stays() -> None:
    model = Branched(mlp, branches.total)
    for branch in model.branches[1:]:
        branch[0].weight = model.branches[0][0].weight
    spec = converters.trace(model.double(), (torch.randn(2, 4).double(),))
    assert counts(spec) == (3,)
    assert not any("0.weight" in n and n.count(".0.") for n in spec.exchanges[0].branches[1])


def test_weights_tied_inside_branches_move_with_them() -> None:
    def tied() -> nn.Module:
        layer = nn.Linear(4, 4)
        return nn.Sequential(layer, nn.Tanh(), layer)

    model = Branched(tied, branches.from_zero).double()
    inputs = (torch.randn(2, 4).double(),)
    spec = converters.trace(model, inputs)
    assert counts(spec) == (3,)
    assert converters.verify(model, inputs, spec, trials=2).ok


def test_a_branch_that_is_read_twice_keeps_its_place() -> None:
    model = Branched(mlp, lambda net, parts, x: parts[0] + parts[0] + parts[1] + parts[2])
    spec = converters.trace(model.double(), (torch.randn(2, 4).double(),))
    assert [len(e.branches) for e in spec.exchanges] == [2]
    assert not any("branches.0" in name for b in spec.exchanges[0].branches for name in b)


def test_buffers_move_with_their_branch() -> None:
    class Masked(nn.Linear):
        def __init__(self) -> None:
            super().__init__(4, 4)
            self.register_buffer("mask", (torch.rand(4, 4) > 0.5).float())

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(x @ (self.mask * self.weight).T + self.bias)

    model = Branched(Masked, branches.mean).double()
    inputs = (torch.randn(2, 4).double(),)
    spec = converters.trace(model, inputs)
    assert counts(spec) == (3,)
    assert "branches.0.mask" in spec.exchanges[0].branches[0]


def test_other_numbers_beside_the_state_dict_hold_branches() -> None:
    class Fixed(nn.Linear):
        def __init__(self) -> None:
            super().__init__(4, 4)
            self.register_buffer("mask", (torch.rand(4, 4) > 0.5).float(), persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(x @ (self.mask * self.weight).T + self.bias)

    model = Branched(Fixed, branches.mean).double()
    inputs = (torch.randn(2, 4).double(),)
    assert not converters.trace(model, inputs).exchanges
    for branch in model.branches:
        branch.mask = model.branches[0].mask.clone()
    assert counts(converters.trace(model, inputs)) == (3,)


def test_random_numbers_hold_branches() -> None:
    class Noisy(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x + torch.randn_like(x))

    model = Branched(lambda: Noisy(4, 4), branches.from_zero).double()
    assert not converters.trace(model, (torch.randn(2, 4).double(),)).exchanges


def test_entries_that_overlap_with_others_stay() -> None:
    model = Branched(mlp, branches.total).double()
    weight = torch.randn(2, 5, 4).double()
    for number in range(2):
        model.branches[number][0].weight = nn.Parameter(weight[0, :, :])
    inputs = (torch.randn(2, 4).double(),)
    spec = converters.trace(model, inputs)
    assert converters.verify(model, inputs, spec, trials=2).ok


def test_a_false_exchange_is_given_up() -> None:
    model = branches.UNLIKE[0].model()
    inputs = branches.UNLIKE[0].inputs()
    spec = converters.trace(model, inputs)
    names = [[e.name for e in spec.edge_sets if f"branches.{k}." in e.name] for k in range(3)]
    wrong = replace(spec, exchanges=(Exchange("false", tuple(map(tuple, names))),))
    with pytest.warns(converters.FalseSymmetryWarning, match="exchange of branches false"):
        right = tried(model, inputs, wrong)
    assert not right.exchanges
    assert "false" not in right.tried
    assert not converters.verify(model, inputs, wrong, trials=1).ok


def test_tracing_on_the_meta_device_finds_the_same() -> None:
    case = branches.ALIKE[0]
    model = copy.deepcopy(case.model()).to("meta")
    inputs = (case.inputs()[0].to("meta"),)
    assert converters.trace(model, inputs).exchanges == (
        converters.trace(case.model(), case.inputs()).exchanges
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda b: (b[0],), "two or more"),
        (lambda b: (b[0], b[1][:-1]), "as many"),
        (lambda b: (b[0], b[0]), "move twice"),
        (lambda b: (b[0], b[1][::-1]), "differ in shape or type"),
        (lambda b: (("nothing",), b[1][:1]), "no edge set 'nothing'"),
    ],
)
def test_exchanges_that_make_no_sense_are_refused(change: object, said: str) -> None:
    case = branches.ALIKE[0]
    spec = spec_of(case.name)
    wrong = change(spec.exchanges[0].branches)  # type: ignore[operator]
    with pytest.raises(SpecError, match=said):
        replace(spec, exchanges=(Exchange("wrong", wrong),))
