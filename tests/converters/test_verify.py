"""The certificate sees false claims where weights, inputs or storage would hide them."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import prune

import converters
from converters.proof.running import Given, Runner, change
from tests.cases import mlp
from tests.converters.claims import FALSE_SCALE, with_axis, with_false_scale, with_false_shift

POINTS = (torch.zeros(4, 3),)


class Hidden(nn.Module):
    """One hidden layer, to be changed in one place by its descendants."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 6), nn.Linear(6, 2)

    def between(self, x: Tensor) -> Tensor:
        return torch.relu(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.between(self.first(x)))


SPEC = converters.trace(Hidden(), POINTS)


def test_a_zero_head_hides_nothing() -> None:
    model = mlp(nn.Tanh())
    wrong = with_false_scale(converters.trace(model, POINTS), "0.weight")
    nn.init.zeros_(model[4].weight)
    nn.init.zeros_(model[4].bias)
    certificate = converters.verify(model, POINTS, wrong, trials=1)
    assert not certificate.ok
    assert certificate.errors[FALSE_SCALE] > 1e-3
    assert max(error for name, error in certificate.errors.items() if name != FALSE_SCALE) < 1e-12
    assert str(certificate).count("not a symmetry") == 1


def test_the_first_gain_of_a_norm_hides_nothing() -> None:
    """Gains of one and biases of zero: a reader's columns may seem free to shift together."""
    model = nn.Sequential(nn.Linear(3, 6), nn.LayerNorm(6), nn.Linear(6, 2))
    wrong = with_false_shift(converters.trace(model, POINTS), "1.weight")
    assert converters.verify(model, POINTS, wrong, trials=1).errors["false.shift"] > 1e-3


class Relative(Hidden):
    """Outputs relative to the largest of the batch: a batch of one gives plus or minus one."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y / y.abs().amax(0, keepdim=True)


def test_a_batch_of_one_hides_nothing() -> None:
    inputs = (torch.ones(1, 3),)
    model = Relative()
    wrong = with_false_scale(converters.trace(model, inputs), "first.weight")
    assert converters.verify(model, inputs, wrong, trials=1).errors[FALSE_SCALE] > 1e-3


def test_shared_storage_is_shared_in_the_copy() -> None:
    apart = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 4))
    inputs = (torch.zeros(2, 4),)
    spec = converters.trace(apart, inputs)
    apart[2].weight.data = apart[0].weight.data.t()
    certificate = converters.verify(apart, inputs, spec, trials=1)
    assert certificate.errors["0"] < 1e-12
    assert certificate.errors["0.scale"] > 1e-3
    assert certificate.max_error > 1e-3


def test_one_number_in_several_places_is_kept_one() -> None:
    model = Hidden()
    model.last.bias = nn.Parameter(torch.zeros(1).expand(2))
    wrong = with_false_shift(SPEC, "last.bias")
    runner = Runner(model)
    state = dict(runner.own)
    state["last.bias"] = torch.tensor([1.0, 2.0], dtype=torch.float64)
    assert runner.disagreement(state) == 0.5
    assert not converters.verify(model, POINTS, wrong, trials=1).ok


class Dropped(Hidden):
    def between(self, x: Tensor) -> Tensor:
        return functional.dropout(torch.relu(x), 0.5, training=True)


def test_random_numbers_are_the_same_before_and_after() -> None:
    certificate = converters.verify(Dropped(), POINTS, SPEC, trials=2)
    assert certificate.ok
    assert certificate.random
    assert set(certificate.errors) == {"first.scale"}
    assert "draws random numbers" in str(certificate)
    assert not converters.verify(Dropped(), POINTS, with_false_scale(SPEC, "last.weight"), 1).ok
    assert not converters.verify(Hidden(), POINTS, SPEC, trials=1).random


def test_wrapped_modules_are_tried() -> None:
    wrapped = nn.DataParallel(Hidden())
    assert converters.verify(wrapped, POINTS, trials=2).ok
    assert set(converters.trace(wrapped, POINTS).tried) == {"module.first", "module.first.scale"}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("ran", [False, True], ids=["new", "run before"])
@pytest.mark.parametrize("change_of", ["weight_norm", "prune"])
def test_weights_that_hooks_compute_follow_the_state(change_of: str, ran: bool) -> None:
    model = Hidden()
    if change_of == "prune":
        prune.random_unstructured(model.first, "weight", 0.3)
    else:
        nn.utils.weight_norm(model.first)
    if ran:
        model(*POINTS)
    spec = converters.trace(model, POINTS)
    name = "first.weight_orig" if change_of == "prune" else "first.weight_v"
    assert converters.verify(model, POINTS, spec, trials=2).ok
    edges = next(e for e in spec.edge_sets if e.parameter == name)
    moved = with_false_scale(spec, edges.name, 1)
    assert converters.verify(model, POINTS, moved, trials=1).errors[FALSE_SCALE] > 1e-3


@dataclass
class Answer:
    logits: Tensor
    label: str


class Named(Hidden):
    """Inputs by name, an answer of named parts."""

    def forward(self, *, x: Tensor, scale: float = 1.0) -> Answer:  # type: ignore[override]
        return Answer(scale * super().forward(x), "a")


def test_inputs_by_name_and_answers_of_named_parts() -> None:
    kwargs = {"x": torch.zeros(4, 3), "scale": 2.0}
    certificate = converters.verify(Named(), (), SPEC, trials=2, example_kwargs=kwargs)
    assert certificate.ok
    assert converters.verify(Named(), (), trials=1, example_kwargs=kwargs).ok
    wrong = with_false_scale(SPEC, "last.weight")
    assert not converters.verify(Named(), (), wrong, trials=1, example_kwargs=kwargs).ok


class LeastNumber(Hidden):
    """Bounds by the least number of its type, as a float32 tensor; casts down on the way."""

    def between(self, x: Tensor) -> Tensor:
        least = torch.tensor(torch.finfo(x.dtype).min)
        return torch.relu(torch.max(x, least)).to(torch.bfloat16).float()


def test_casts_and_least_numbers_stay_wide() -> None:
    certificate = converters.verify(LeastNumber(), POINTS, SPEC, trials=2)
    assert certificate.ok
    assert certificate.tolerance == 1e-8


class Narrow(Hidden):
    """Knows float32 alone, as kernels for grouped products do."""

    def between(self, x: Tensor) -> Tensor:
        if x.dtype != torch.float32:
            raise RuntimeError("expected float32")
        return torch.relu(x)


def test_modules_that_refuse_float64_run_in_float32() -> None:
    certificate = converters.verify(Narrow(), POINTS, SPEC, trials=2)
    assert certificate.ok
    assert certificate.tolerance >= 1e-3
    wrong = with_false_scale(SPEC, "last.weight")
    assert converters.verify(Narrow(), POINTS, wrong, trials=1).errors[FALSE_SCALE] > 1e-2


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn], ids=str)
def test_narrow_weights_are_moved_in_double(dtype: torch.dtype) -> None:
    class Low(Hidden):
        def forward(self, x: Tensor) -> Tensor:
            layers = (self.first, self.last)
            weights = [(layer.weight.to(x.dtype), layer.bias) for layer in layers]
            (first, one), (last, two) = weights
            return functional.linear(torch.relu(functional.linear(x, first, one)), last, two)

    model = Low()
    for layer in (model.first, model.last):
        layer.weight = nn.Parameter(layer.weight.detach().to(dtype), requires_grad=False)
    certificate = converters.verify(model, POINTS, SPEC, trials=2)
    assert certificate.ok
    assert max(certificate.errors.values()) < 1e-12


class Waves(nn.Module):
    """Complex weights; only the size of what they give is read."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 3, dtype=torch.complex64))
        self.last = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(functional.linear(x.cfloat(), self.weight).abs())


def test_complex_weights_are_as_wide() -> None:
    runner = Runner(Waves())
    assert runner.own["weight"].dtype == torch.complex128
    outputs = runner.outputs(runner.own, Given(POINTS))
    assert [output.dtype for output in outputs] == [torch.float64]
    turn = torch.polar(torch.ones(6, 1).double(), torch.randn(6, 1).double())
    phase = {**runner.own, "weight": runner.own["weight"] * turn}
    given = Given((torch.randn(4, 3),))
    assert change(runner.outputs(phase, given), runner.outputs(runner.own, given)) < 1e-14


class Chosen(Hidden):
    """A number of the largest output, and the others masked."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        y = super().forward(x)
        best = y.argmax(-1)
        return best, y.masked_fill(y < y.amax(-1, keepdim=True), -torch.inf)


def test_whole_numbers_and_infinities_are_compared_exactly() -> None:
    assert converters.verify(Chosen(), POINTS, SPEC, trials=2).ok
    wrong = with_false_shift(SPEC, "last.bias")
    certificate = converters.verify(Chosen(), POINTS, wrong, trials=2)
    assert not certificate.ok
    assert json.loads(certificate.to_json())["errors"]["false.shift"] > 1e-3
    one, two = torch.tensor([1.0, torch.inf]), torch.tensor([1.0, -torch.inf])
    assert change([one], [one]) == 0
    assert change([two], [one]) == 1
    assert change([torch.tensor([1, 2])], [torch.tensor([1, 3])]) == 1


def test_small_outputs_do_not_hide_behind_large_ones() -> None:
    large, small = torch.tensor([1e3]), torch.tensor([1.0])
    assert change([large, small + 1e-3], [large, small]) == pytest.approx(1e-3, rel=1e-3)


def test_inputs_passed_twice_stay_one() -> None:
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    x = torch.zeros(2, 5, 8)
    assert converters.verify(attention, (x, x, x), trials=2).ok


def test_an_axis_within_one_that_a_block_lacks_is_no_symmetry() -> None:
    wrong = with_axis(SPEC, "first", True, ("input",))
    certificate = converters.verify(Hidden(), POINTS, wrong, trials=1)
    assert certificate.errors["first"] == 1.0


def test_the_module_is_left_as_it_is() -> None:
    model = Hidden().train()
    model.first.weight.grad = torch.ones(6, 3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(5)
    expected = torch.rand(())
    torch.manual_seed(5)
    converters.verify(model, POINTS, SPEC, trials=1, complete=True)
    assert torch.equal(torch.rand(()), expected)
    assert model.training
    assert model.first.weight.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
