"""Which symmetries are claimed, and that nothing else is."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

import converters
from gmn import symmetry
from gmn.testing import assert_same_function
from tests.cases import Recurrent, mlp
from tests.traced import BY_NAME, spec_of

DOMAINS = {
    "mlp-relu": {"positive"},
    "mlp-leakyrelu": {"positive"},
    "mlp-tanh": {"sign"},
    "mlp-softsign": {"sign"},
    "mlp-hardtanh": {"sign"},
    "mlp-sine": {"sign", "phase"},
    "mlp-identity": set(),  # changes of basis instead
    "mlp-gelu": set(),
    "mlp-silu": set(),
    "mlp-sigmoid": set(),
    "mlp-softplus": set(),
    "mlp-elu": set(),
    "mlp-relu6": set(),
    "mlp-mish": set(),
}


@pytest.mark.parametrize("name", DOMAINS)
def test_scalings_by_activation(name: str) -> None:
    spec = spec_of(name)
    assert {scaling.domain for scaling in spec.scalings} == DOMAINS[name]
    assert len(spec.scalings) == 2 * len(DOMAINS[name])  # one per hidden layer and domain
    assert [axis.size for axis in spec.symmetries.permutations] == [6, 5]


def test_groups_are_wreath_products() -> None:
    spec = spec_of("cnn-grouped")
    nested = [axis for axis in spec.symmetries.permutations if axis.within]
    assert [(axis.size, len(axis.within)) for axis in nested] == [(2, 1), (3, 1)]
    assert {len(nodes.axes) for nodes in spec.node_sets} == {1, 2}


def test_moving_channels_across_groups_changes_the_function() -> None:
    case = BY_NAME["cnn-grouped"]
    model, state = case.model(), case.model().state_dict()
    swapped = {name: value.clone() for name, value in state.items()}
    order = torch.tensor([2, 1, 0, 3, 4, 5, 6, 7])  # exchanges channels of groups 0 and 1
    swapped["0.weight"], swapped["0.bias"] = state["0.weight"][order], state["0.bias"][order]
    with pytest.raises(AssertionError, match="different functions"):
        assert_same_function(model, state, swapped, case.example())


def test_a_stage_of_residual_blocks_is_one_node_set() -> None:
    spec = spec_of("resnet")
    writers = [e.name for e in spec.edge_sets if e.target == "0" and not e.diagonal]
    assert "0.weight" in writers
    assert "2.conv2.weight" in writers
    shortcut = spec.edge_set("3.shortcut.weight")
    assert shortcut.target == spec.edge_set("3.conv2.weight").target


def test_batch_norm_scales_statistics_with_epsilon() -> None:
    spec = spec_of("batch-norm")
    scaling = next(s for s in spec.scalings if any(t.offset for t in s.terms))
    powers = {term.edge_set: (term.exponent, term.offset) for term in scaling.terms}
    assert powers["1.running_var"] == (2.0, 1e-5)
    assert powers["1.running_mean"] == (1.0, 0.0)


def test_max_pooling_stops_signs_but_not_average_pooling() -> None:
    def signs(pool: nn.Module) -> int:
        model = nn.Sequential(nn.Conv1d(1, 3, 2), nn.Tanh(), pool, nn.Flatten(), nn.Linear(9, 1))
        spec = converters.trace(model, (torch.zeros(2, 1, 7),))
        return sum(scaling.domain == "sign" for scaling in spec.scalings)

    assert signs(nn.MaxPool1d(2)) == 0
    assert signs(nn.AvgPool1d(2)) == 1


def test_input_and_output_neurons_never_move() -> None:
    for name in ("square", "cnn", "resnet", "called-twice", "input-residual"):
        spec = spec_of(name)
        fixed = {a for n in spec.node_sets if n.role != "hidden" for a in n.axes}
        assert not fixed & {axis.name for axis in spec.symmetries.permutations}


def test_flattened_positions_are_taps() -> None:
    edges = spec_of("cnn-flatten").edge_set("4.weight")
    assert (edges.source, edges.num_taps) == ("0", 64)
    assert edges.shape == (6, 4, 8, 8)


def test_unknown_operation_is_reported_and_harmless() -> None:
    spec = spec_of("unknown-operation")
    assert "aten.special_i1e.default has no rule" in spec.unknown[0]
    assert "converters.register" in spec.unknown[0]
    assert {n.name: n.role for n in spec.node_sets} == {
        "input": "input",
        "first": "ordered",
        "middle": "hidden",
        "last": "output",
    }


def test_missed_permutations_are_found() -> None:
    class Doubled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(3, 6), nn.Linear(6, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(torch.special.i0(self.first(x)))  # elementwise, but without a rule

    certificate = converters.verify(Doubled(), (torch.randn(4, 3),))
    assert certificate.ok
    assert certificate.missed == ("first",)
    assert "ordered, yet free to permute: first" in str(certificate)


def test_a_wrong_spec_fails_its_certificate() -> None:
    relu, tanh = mlp(nn.ReLU()), mlp(nn.Tanh())
    certificate = converters.verify(tanh, (torch.randn(4, 3),), spec_of("mlp-relu"))
    assert not certificate.ok
    assert certificate.errors["0.scale"] > 1e-3
    assert certificate.errors["0"] < 1e-10
    assert '"ok": false' in certificate.to_json()
    assert converters.verify(relu, (torch.randn(4, 3),), spec_of("mlp-relu")).ok


def test_two_that_keep_their_order_are_not_taken_for_free_to_permute() -> None:
    """A fair permutation of two leaves them where they are half the time."""
    model = nn.Sequential(nn.Embedding(2, 3), nn.Linear(3, 1))
    inputs = (torch.tensor([0, 1]),)
    spec = converters.trace(model, inputs)
    for seed in range(10):
        generator = torch.Generator().manual_seed(seed)
        assert not converters.verify(model, inputs, spec, 1, generator).missed


def test_only_moves_one_thing() -> None:
    spec = spec_of("mlp-relu")
    element = symmetry.only(spec, "2", torch.Generator().manual_seed(0))
    assert list(element.permutations) == ["2"]
    assert not element.scales
    with pytest.raises(KeyError, match="no axis, scaling, gauge, translation or exchange"):
        symmetry.only(spec, "nothing")


def test_a_weight_that_is_also_read_as_a_number_keeps_its_scale() -> None:
    spec = spec_of("read-twice")
    assert [axis.size for axis in spec.symmetries.permutations] == [5]
    assert not spec.scalings


def test_recurrent_layers_share_one_axis_per_cell() -> None:
    sizes = {
        "recurrent-lstm": [4],
        "recurrent-gru": [4, 4],
        "recurrent-tanh": [4],
        "recurrent-bidirectional": [4, 4, 4, 4],
        "recurrent-projected": [4, 2],
    }
    for name, expected in sizes.items():
        assert [axis.size for axis in spec_of(name).symmetries.permutations] == expected


@pytest.mark.parametrize("name", ["attention", "attention-packed", "attention-module"])
def test_attention_moves_heads_and_units_within_them(name: str) -> None:
    spec = spec_of(name)
    heads, *units = spec.symmetries.permutations[:3]
    assert (heads.size, [axis.size for axis in units]) == (2, [4, 4])
    assert all(axis.within == (heads.name,) for axis in units)


@pytest.mark.parametrize("name", ["lstm", "gru", "tanh", "bidirectional"])
def test_recurrent_cells_have_one_sign_per_unit(name: str) -> None:
    spec = spec_of(f"recurrent-{name}")
    units = [axis.size for axis in spec.symmetries.permutations]
    assert [(s.domain, s.shape) for s in spec.scalings] == [("sign", (n,)) for n in units]


def test_signs_of_an_lstm_flip_the_candidate_and_what_reads_the_state() -> None:
    (sign,) = spec_of("recurrent-lstm").scalings
    flipped = {(term.edge_set.partition("_l0")[0], term.edge_set[-3:]) for term in sign.terms}
    assert ("layer.weight_ih", "[2]") in flipped  # the candidate is the third of i, f, g, o
    assert ("layer.weight_ih", "[0]") not in flipped
    assert {"layer.weight_hh_l0[0]", "head.weight"} <= {term.edge_set for term in sign.terms}


def test_a_recurrent_relu_has_one_scale_for_all_steps() -> None:
    model = Recurrent(nn.RNN(3, 4, nonlinearity="relu", batch_first=True))
    spec = converters.trace(model, (torch.randn(2, 5, 3),))
    assert [(s.domain, s.shape) for s in spec.scalings] == [("positive", (4,))]
    assert converters.verify(model, (torch.randn(2, 5, 3),), spec).ok


def test_two_biases_of_a_cell_trade_but_for_the_candidate_of_a_gru() -> None:
    trades = [t for t in spec_of("recurrent-lstm").translations if t.name.endswith("trade")]
    assert [t.terms[1].factor for t in trades] == [-1.0] * 4
    gates = [t.terms[0].edge_set[-3:] for t in spec_of("recurrent-gru").translations]
    assert gates == ["[0]", "[1]"] * (len(gates) // 2)


def test_a_state_that_starts_at_a_given_value_keeps_its_scale() -> None:
    class Started(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.head = nn.GRU(3, 4, batch_first=True), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
            return self.head(self.layer(x, state)[0][:, -1])

    inputs = (torch.randn(2, 5, 3), torch.randn(1, 2, 4))
    spec = converters.trace(Started(), inputs)
    assert not spec.scalings
    assert converters.verify(Started(), inputs, spec).ok


def _wave(first: nn.Module, wave: Callable[[torch.Tensor], torch.Tensor]) -> nn.Module:
    class Wave(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = first, nn.Linear(5, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(wave(self.first(x)))

    return Wave()


def test_half_periods_shift_a_sine_by_its_frequency() -> None:
    model, inputs = _wave(nn.Linear(3, 5), lambda z: torch.sin(z * 7)), (torch.randn(4, 3),)
    spec = converters.trace(model, inputs)
    phase = next(s for s in spec.scalings if s.domain == "phase")
    shifts = [term.shift for term in phase.terms if term.shift]
    assert shifts == pytest.approx([math.pi / 7])
    assert converters.verify(model, inputs, spec).ok


def test_phases_of_a_sine_need_a_bias_of_its_own_and_a_linear_reader() -> None:
    plain = nn.Linear(3, 5)
    others = {
        "no bias": _wave(nn.Linear(3, 5, bias=False), torch.sin),
        "read twice": _wave(plain, lambda z: torch.sin(z) + z),
        "two rates": _wave(plain, lambda z: torch.sin(z) + torch.sin(2 * z)),
    }
    for name, model in others.items():
        spec = converters.trace(model, (torch.randn(4, 3),))
        assert "phase" not in {s.domain for s in spec.scalings}, name
        assert converters.verify(model, (torch.randn(4, 3),), spec).ok
    squashed = _wave(plain, lambda z: torch.relu(torch.sin(z)))
    (mirrored,) = converters.trace(squashed, (torch.randn(4, 3),)).scalings
    assert {t.edge_set for t in mirrored.terms} == {"first.weight", "first.bias"}  # sin(π − z)
    assert converters.verify(squashed, (torch.randn(4, 3),)).ok
    cosine = converters.trace(_wave(plain, torch.cos), (torch.randn(4, 3),))
    assert sorted(s.domain for s in cosine.scalings) == ["phase", "sign"]
    assert converters.verify(_wave(plain, torch.cos), (torch.randn(4, 3),), cosine).ok


def test_grouped_queries_move_within_their_group_only() -> None:
    axes = spec_of("attention-grouped").symmetries.permutations
    assert [len(axis.within) for axis in axes] == [0, 1, 1, 1]


def test_exchanging_queries_and_values_or_neurons_across_heads_is_noticed() -> None:
    """The false symmetries of published attention graphs."""
    case = BY_NAME["attention"]
    model, state = case.model(), dict(case.model().state_dict())
    order = torch.tensor([4, 1, 2, 3, 0, 5, 6, 7])  # one unit of either head
    across = {n: state[n][order] for layer in "qk" for n in (f"{layer}.weight", f"{layer}.bias")}
    swapped = {
        f"{a}.{part}": state[f"{b}.{part}"]
        for a, b in (("q", "v"), ("v", "q"))
        for part in ("weight", "bias")
    }
    for change in (across, swapped):
        with pytest.raises(AssertionError, match="different functions"):
            assert_same_function(model, state, {**state, **change}, case.example())


def test_one_stream_of_a_transformer_is_one_node_set() -> None:
    spec = spec_of("transformer-rms")
    writers = {e.name for e in spec.edge_sets if e.target == "embed" and e.kind == "weight"}
    assert {"embed.weight", "attention.o.weight", "gated.down.weight"} <= writers
    assert spec.node_set("embed").role == "hidden"


def test_computed_weights_join_the_neurons_of_the_weight() -> None:
    spec = spec_of("reparametrised")
    direction = spec.edge_set("first.parametrizations.weight.original1")
    middle = spec.edge_set("middle.weight")
    assert (direction.source, middle.source) == ("input", direction.target)
    assert [axis.size for axis in spec.symmetries.permutations] == [6, 5]
