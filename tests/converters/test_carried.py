"""What is added before a weight and taken back behind it: the weight carries it there."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import converters
from converters.proof.completeness import measure
from converters.proof.situations import as_given
from gmn import symmetry
from gmn.canonical import without_shifts
from gmn.graph import ParameterGraph
from gmn.spec import GraphSpec
from gmn.testing import assert_same_function
from tests.traced import BY_NAME, one_in, slow_but, spec_of


def _random(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    for value in model.parameters():
        value.data = 0.7 * torch.randn(value.shape, generator=generator, dtype=torch.float64)
    return model.to(torch.float64).eval()


def _proved(model: nn.Module, *inputs: Tensor) -> GraphSpec:
    """The spec of a module, after every claim of its rules was tried alone and with the others."""
    model = _random(model)
    inputs = tuple(x.double() if x.is_floating_point() else x for x in inputs)
    spec = converters.trace(model, inputs, experiment=False)
    certificate = converters.verify(model, inputs, spec, trials=2)
    assert certificate.ok, str(certificate)
    return spec


def _carried(spec: GraphSpec) -> dict[str, list[str]]:
    """By edge set whose numbers are free, those that a weight carries them to."""
    return {
        t.terms[0].edge_set: [
            f"{term.edge_set} by {term.through.edge_set}" for term in t.terms if term.through
        ]
        for t in spec.translations
        if any(term.through for term in t.terms)
    }


# --- attention ----------------------------------------------------------------------------------


class Heads(nn.Module):
    """Attention written by hand, or by the operation; values of fewer heads are repeated."""

    def __init__(self, weights: str = "softmax", groups: int = 4) -> None:
        super().__init__()
        self.q, self.o = nn.Linear(6, 8), nn.Linear(8, 5)
        self.k, self.v = (nn.Linear(6, 2 * groups) for _ in range(2))
        self.weights = weights

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (f(x).unflatten(-1, (-1, 2)).transpose(1, 2) for f in (self.q, self.k, self.v))
        if self.weights == "fused":
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        else:
            k, v = (value.repeat_interleave(4 // value.shape[1], 1) for value in (k, v))
            y = self.weighed(q @ k.mT) @ v
        return self.o(y.transpose(1, 2).flatten(2))

    def weighed(self, scores: Tensor) -> Tensor:
        if self.weights == "masked":
            above = torch.ones(scores.shape[-2:]).triu(1) > 0
            return scores.masked_fill(above, float("-inf")).softmax(-1)
        if self.weights == "queries":
            return scores.softmax(-2)
        if self.weights == "dropped":
            return F.dropout(scores.softmax(-1), 0.5, training=True)
        if self.weights == "scaled":
            return 2 * scores.softmax(-1)
        return {"softmax": scores.softmax(-1), "sigmoid": scores.sigmoid(), "linear": scores}[
            self.weights
        ]


TOKENS = torch.randn(2, 3, 6)


@pytest.mark.parametrize("groups", slow_but([4, 2], [2]))
@pytest.mark.parametrize("weights", ["softmax", "masked", "fused"])
def test_the_bias_of_values_moves_into_that_of_the_output(weights: str, groups: int) -> None:
    spec = _proved(Heads(weights, groups), TOKENS)
    assert _carried(spec) == {"v.bias": ["o.bias by o.weight"]}
    (translation,) = (t for t in spec.translations if t.terms[0].edge_set == "v.bias")
    assert translation.shape == (groups, 2)
    assert [term.factor for term in translation.terms] == [1, -1]


@pytest.mark.parametrize(
    "weights", one_in(2, ["sigmoid", "linear", "queries", "dropped", "scaled"])
)
def test_weights_that_sum_to_something_else_keep_the_bias_of_values(weights: str) -> None:
    assert _carried(_proved(Heads(weights), TOKENS)) == {}


class Module(nn.Module):
    def __init__(self, **options: bool) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True, **options)

    def forward(self, x: Tensor, other: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        other = self.norm(x if other is None else other)
        return self.attention(x, other, other, attn_mask=mask)[0]


def test_the_module_of_torch_trades_its_biases_and_takes_that_of_a_norm() -> None:
    x, other = torch.randn(2, 3, 8), torch.randn(2, 4, 8)
    hidden = torch.tensor([[False, True, True], [False, False, True], [False, False, False]])
    for inputs in ((x,), (x, other), (x, x.flip(1), hidden)):
        carried = _carried(_proved(Module(), *inputs))
        whole = ["attention.out_proj.bias by attention.out_proj.weight"]
        assert carried.pop("attention.in_proj_bias[2]") == whole
        (values,) = carried.pop("norm.bias")
        assert values == "attention.in_proj_bias[2] by attention.in_proj_weight[2]"
        assert not carried


@pytest.mark.parametrize("option", ["add_zero_attn", "add_bias_kv"])
def test_keys_without_values_of_their_own_keep_the_bias_of_values(option: str) -> None:
    carried = _carried(_proved(Module(**{option: True}), torch.randn(2, 3, 8)))
    assert "attention.in_proj_bias[2]" not in carried


def test_nothing_is_taken_back_where_the_output_has_no_bias() -> None:
    assert _carried(_proved(Module(bias=False), torch.randn(2, 3, 8))) == {}


# --- linear layers ------------------------------------------------------------------------------


class Between(nn.Module):
    """Two layers with something between them."""

    def __init__(self, between: nn.Module) -> None:
        super().__init__()
        self.first, self.between, self.second = nn.Linear(4, 6), between, nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.between(self.first(x)))


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1)


class Sum(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sum(1)


class Weighted(nn.Module):
    """A mean whose weights depend on the values."""

    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Linear(6, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return (self.score(x).softmax(1).mT @ x).squeeze(1)


POINTS = torch.randn(2, 3, 4)


@pytest.mark.parametrize(
    "between",
    [nn.Identity(), nn.Dropout(), Mean(), Weighted(), nn.Unflatten(-1, (2, 3)), nn.Hardtanh()],
)
def test_biases_of_two_layers_trade_unless_something_minds_a_shift(between: nn.Module) -> None:
    after = nn.Sequential(between, nn.Flatten(-2)) if isinstance(between, nn.Unflatten) else between
    passes = not isinstance(between, nn.Hardtanh)
    carried = _carried(_proved(Between(after), POINTS))
    assert carried == ({"first.bias": ["second.bias by second.weight"]} if passes else {})


@pytest.mark.parametrize("between", [Sum(), nn.ReLU(), nn.GELU(), nn.Softmax(-1), nn.Sigmoid()])
def test_the_first_bias_stays_where_something_minds_it(between: nn.Module) -> None:
    assert "first.bias" not in _carried(_proved(Between(between), POINTS))


@pytest.mark.parametrize("norm", [nn.LayerNorm(6), nn.BatchNorm1d(6)])
def test_the_shift_of_a_norm_moves_into_the_next_bias(norm: nn.Module) -> None:
    carried = _carried(_proved(Between(norm), POINTS[0]))
    assert carried == {"between.bias": ["second.bias by second.weight"]}


def test_one_number_may_pass_where_one_for_each_may_not() -> None:
    spec = _proved(Between(nn.BatchNorm1d(3)), POINTS)  # normalised by token
    (translation,) = (t for t in spec.translations if t.terms[0].edge_set == "between.bias")
    assert translation.shape == ()
    (through,) = (term.through for term in translation.terms if term.through)
    assert (through.source, through.target) == ((), (0,))


class Chain(nn.Module):
    def __init__(self, sizes: list[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(map(nn.Linear, sizes, sizes[1:]))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return torch.tanh(x)


def test_of_many_layers_every_bias_moves_into_the_next_one() -> None:
    model, x = _random(Chain([3, 4, 5, 4, 2])), torch.randn(5, 3).double()
    spec = _proved(model, x)
    assert _carried(spec) == {
        f"layers.{n}.bias": [f"layers.{n + 1}.bias by layers.{n + 1}.weight"] for n in range(3)
    }
    found = measure(model, as_given((x,), None), spec, torch.Generator().manual_seed(0))
    assert found.missed == 0


class Products(nn.Module):
    """Two layers, their second weight read in a number of ways."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.form = form
        self.w, self.u = nn.Parameter(torch.empty(4, 6)), nn.Parameter(torch.empty(6, 3))
        self.b, self.c = nn.Parameter(torch.empty(6)), nn.Parameter(torch.empty(3))

    def forward(self, x: Tensor) -> Tensor:
        x = x @ self.w + self.b
        if self.form == "addmm":
            return torch.addmm(self.c, x, self.u, beta=2, alpha=3)
        if self.form == "einsum":
            return torch.einsum("bi,io->bo", x, self.u) - 2 * self.c
        if self.form == "turned":
            return F.linear(x, self.u.t(), self.c)
        if self.form == "cut":
            return torch.cat([x @ self.u[:, :1], x @ self.u[:, 1:]], -1) + self.c
        return x @ {"squared": self.u * self.u, "halved": self.u / 2}[self.form] + self.c


@pytest.mark.parametrize(
    ("form", "factors"), [("addmm", {-1.5}), ("einsum", {0.5}), ("turned", {-1}), ("cut", {-1})]
)
def test_the_factor_is_that_of_the_program(form: str, factors: set[float]) -> None:
    (translation,) = _proved(Products(form), torch.randn(5, 4)).translations
    assert {term.factor for term in translation.terms if term.through} == factors


@pytest.mark.parametrize("form", ["squared", "halved"])
def test_only_entries_as_they_are_carry(form: str) -> None:
    assert _carried(_proved(Products(form), torch.randn(5, 4))) == {}


def test_experts_carry_one_by_one() -> None:
    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w, self.b = nn.Parameter(torch.empty(3, 4, 6)), nn.Parameter(torch.empty(3, 1, 6))
            self.u, self.c = nn.Parameter(torch.empty(3, 6, 2)), nn.Parameter(torch.empty(3, 1, 2))

        def forward(self, x: Tensor) -> Tensor:
            x = torch.baddbmm(self.b, x.expand(3, -1, -1), self.w)
            return torch.tanh(torch.baddbmm(self.c, x, self.u)).sum(0)

    (translation,) = _proved(Experts(), torch.randn(5, 4)).translations
    assert translation.shape == (3, 6)


def test_a_bias_that_is_read_twice_moves_only_if_both_readers_take_it_back() -> None:
    class Twice(Between):
        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x)), self.between(self.first(x))

    assert _carried(_proved(Twice(nn.Tanh()), POINTS)) == {}
    assert _carried(_proved(Twice(nn.Linear(6, 2)), POINTS)) == {
        "first.bias": ["between.bias by between.weight", "second.bias by second.weight"]
    }


def test_a_layer_after_itself_keeps_its_bias_and_a_shared_weight_carries() -> None:
    class Again(nn.Module):
        def __init__(self, share: str) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
            setattr(self.second, share, getattr(self.first, share))
            self.share = share

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x))

    assert _carried(_proved(Again("bias"), torch.randn(5, 4))) == {}
    shared = _carried(_proved(Again("weight"), torch.randn(5, 4)))
    assert shared == {"first.bias": ["second.bias by first.weight"]}


def test_a_residual_stream_of_linear_readers_hands_its_bias_on() -> None:
    assert set(_carried(spec_of("pre-activation"))["embed.bias"]) == {
        "up.bias by up.weight",
        "head.bias by head.weight",
    }


# --- convolutions -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("between", "passes"),
    [
        (nn.Conv2d(3, 3, 2, bias=False), True),
        (nn.Conv2d(3, 3, 1, stride=2, bias=False), True),
        (nn.Conv2d(3, 3, 3, padding=1, bias=False), False),
        (nn.Conv2d(3, 3, 3, padding="same", bias=False), False),
        (nn.ConvTranspose2d(3, 3, 2, bias=False), False),
        (nn.AvgPool2d(2), True),
        (nn.AdaptiveAvgPool2d(2), True),
        (nn.AvgPool2d(3, padding=1), False),
        (nn.Upsample(scale_factor=2), False),
    ],
)
def test_borders_keep_a_shift_from_passing(between: nn.Module, passes: bool) -> None:
    class Images(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.between = nn.Conv2d(2, 3, 3, padding=1), between
            self.second = nn.Conv2d(3, 4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(self.second(self.between(self.first(x))))

    carried = _carried(_proved(Images(), torch.randn(2, 2, 4, 4)))
    through_two = isinstance(between, nn.Conv2d)
    assert carried == (
        {"first.bias": ["second.bias by second.weight"]} if passes and not through_two else {}
    )


@pytest.mark.parametrize(
    ("second", "passes"),
    [
        (nn.Conv1d(4, 6, 2, groups=2, dilation=2), True),
        (nn.Conv1d(4, 6, 1), True),
        (nn.Conv1d(4, 6, 3, padding=1), False),
        (nn.ConvTranspose1d(4, 6, 2), False),
    ],
)
def test_a_kernel_that_sees_no_border_carries(second: nn.Module, passes: bool) -> None:
    model = nn.Sequential(nn.Conv1d(2, 4, 3), second, nn.Tanh())
    expected = {"0.bias": ["1.bias by 1.weight"]} if passes else {}
    assert _carried(_proved(model, torch.randn(2, 2, 8))) == expected


# --- elements and forms -------------------------------------------------------------------------

CARRYING = ["attention", "attention-grouped", "attention-module", "transformer", "mlp-identity"]


@pytest.mark.parametrize("name", CARRYING)
def test_whole_elements_keep_the_function_and_are_undone(name: str) -> None:
    case, spec = BY_NAME[name], spec_of(name)
    assert _carried(spec)
    state = case.model(1).state_dict()
    for seed in range(3):
        element = symmetry.sample(spec, torch.Generator().manual_seed(seed), spread=1.0)
        moved = element.act(state)
        assert_same_function(case.model(), state, moved, case.example())
        back = element.inverse().act(moved)
        for entry, value in state.items():
            torch.testing.assert_close(back[entry], value, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", CARRYING)
def test_the_form_is_the_same_along_orbits(name: str) -> None:
    case, spec = BY_NAME[name], spec_of(name)
    states = [case.model(seed).state_dict() for seed in range(2)]
    graph = ParameterGraph.from_state_dicts(spec, states)
    plain = without_shifts(graph)
    for start in _carried(spec):
        free = [t for t in spec.translations if t.terms[0].edge_set == start and t.shape]
        if free and free[0].terms[0].dims == tuple(range(len(spec.edge_set(start).dims))):
            assert plain.block(spec.edge_set(start)).abs().max() < 1e-12
    element = symmetry.sample(
        spec, torch.Generator().manual_seed(0), symmetries=["translations"], spread=1.0
    )
    for other in (without_shifts(element.act_on_graph(graph)), without_shifts(plain)):
        for entry, value in plain.values.items():
            torch.testing.assert_close(other.values[entry], value, rtol=1e-9, atol=1e-9)
    for number, state in enumerate(states):
        assert_same_function(case.model(), state, plain.to_state_dict(number), case.example())


@pytest.mark.parametrize("name", ["attention-grouped", "mlp-identity"])
def test_a_spec_with_weights_on_the_way_is_read_back_and_printed(name: str) -> None:
    spec = spec_of(name)
    again = GraphSpec.from_json(spec.to_json())
    assert again == spec
    assert again.fingerprint == spec.fingerprint
    assert " through " in repr(spec)


def test_the_bias_of_values_counts() -> None:
    case = BY_NAME["attention-grouped"]
    given = as_given(case.example(), None)
    found = measure(case.model(), given, spec_of(case.name), torch.Generator().manual_seed(0))
    assert found.missed == 0


def test_along_a_stream_each_bias_is_taken_back_by_the_next_block() -> None:
    class Stream(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(2, 3), nn.Linear(3, 2)
            self.up, self.down = (
                nn.ModuleList(nn.Linear(3, 3) for _ in range(4)) for _ in range(2)
            )

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            for up, down in zip(self.up, self.down, strict=True):
                x = x + down(torch.tanh(up(x)))
            return self.last(x)

    spec = _proved(Stream(), torch.randn(5, 2))
    assert len(spec.translations) == 5
    assert max(len(translation.terms) for translation in spec.translations) == 3
    moved = [frozenset(term.edge_set for term in t.terms) for t in spec.translations]
    assert len(set(moved)) == 5
