"""Continuous symmetries are counted right: those that a spec has, lacks, and cannot have."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor, nn

import converters
from converters.proof.completeness import Completeness, measure
from converters.proof.generators import without
from converters.proof.situations import as_given
from gmn.spec import GraphSpec
from tests.cases import mlp
from tests.modules import Overwritten
from tests.traced import BY_NAME

POINTS = (torch.zeros(4, 3),)


def counted(model: nn.Module, inputs: tuple[Tensor, ...], spec: GraphSpec) -> Completeness:
    return measure(model, as_given(inputs, None), spec, torch.Generator().manual_seed(0))


def test_all_of_a_relu_network_are_claimed() -> None:
    model = mlp(nn.ReLU())
    certificate = converters.verify(model, POINTS, trials=1, complete=True)
    found = certificate.complete
    assert found is not None
    assert (found.nullity, found.claimed, found.missed, found.unread) == (11, 11, 0, 0)
    assert found.gap > 1e5
    assert found.support == ()
    assert "continuous symmetries: 11 dimensions" in str(certificate)
    assert json.loads(certificate.to_json())["complete"]["missed"] == 0


def test_smooth_networks_have_none() -> None:
    model = mlp(nn.Tanh())
    found = counted(model, POINTS, converters.trace(model, POINTS))
    assert (found.nullity, found.claimed, found.missed) == (0, 0, 0)


def test_what_a_spec_leaves_out_is_counted_and_placed() -> None:
    model = mlp(nn.ReLU())
    spec = without(converters.trace(model, POINTS), ["2.scale"])
    found = counted(model, POINTS, spec)
    assert (found.nullity, found.claimed, found.missed) == (11, 6, 5)
    assert set(found.support) <= {"2.weight", "2.bias", "4.weight"}
    assert "5 are not claimed; they move" in str(found)


def test_value_bias_and_output_bias_trade() -> None:
    case = BY_NAME["attention"]
    spec = converters.trace(case.model(), case.example())
    known = [translation.name for translation in spec.translations]
    found = counted(case.model(), case.example(), without(spec, known))
    assert found.missed >= 8
    assert {"v.bias", "o.bias"} <= set(found.support) <= {"v.bias", "o.bias", "k.bias"}


def test_gauges_and_translations_have_their_dimensions() -> None:
    model = nn.Sequential(nn.Linear(3, 6), nn.Linear(6, 4), nn.LogSoftmax(-1))
    spec = converters.trace(model, POINTS)
    kept = without(spec, [part.name for part in spec.symmetries.followed])
    found, none = counted(model, POINTS, spec), counted(model, POINTS, kept)
    assert none.claimed == 0
    assert found.nullity == none.nullity == none.missed
    assert found.claimed == none.missed - found.missed > 20


def test_numbers_that_nothing_reads_count_apart() -> None:
    class Partly(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.read, self.unread = nn.Linear(3, 2), nn.Linear(5, 7)

        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(self.read(x))

    found = counted(Partly(), POINTS, converters.trace(Partly(), POINTS))
    assert (found.nullity, found.missed, found.unread) == (0, 0, 42)
    assert "42 more numbers change no output" in str(found)


def test_shared_numbers_count_once() -> None:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 4))
    inputs = (torch.zeros(3, 4),)
    apart = counted(model, inputs, converters.trace(model, inputs))
    model[2].weight.data = model[0].weight.data.t()
    spec = without(converters.trace(model, inputs, experiment=False), ["0.scale"])
    assert apart.nullity == 6
    assert counted(model, inputs, spec).nullity == 0


def test_statistics_of_batch_norms_count() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2)).eval()
    found = counted(model, POINTS, converters.trace(model, POINTS))
    assert found.nullity == 16  # scale and shift of what enters, gain and shift of what leaves
    assert found.claimed <= found.nullity


def test_tables_are_read_in_all_their_rows() -> None:
    model = nn.Sequential(nn.Embedding(7, 4), nn.Flatten(), nn.Tanh(), nn.Linear(8, 2))
    inputs = (torch.zeros(3, 2, dtype=torch.long),)
    assert counted(model, inputs, converters.trace(model, inputs)).unread == 0


class Waves(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 2, dtype=torch.complex64))

    def forward(self, x: Tensor) -> Tensor:
        return (x.cfloat() @ self.weight).abs()


def test_complex_numbers_count_twice() -> None:
    spec = converters.trace(Waves(), POINTS)
    assert counted(Waves(), POINTS, spec).nullity == 2  # a phase per unit


def test_large_networks_are_refused() -> None:
    model = nn.Linear(3, 700)
    with pytest.raises(ValueError, match=r"up to 2,000 parameters; this one has 2,800"):
        converters.verify(model, POINTS, trials=1, complete=True)


def test_a_network_without_derivatives_is_refused() -> None:
    class Best(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x).argmax(-1)

    with pytest.raises(ValueError, match="no output depends on a parameter by a derivative"):
        counted(Best(), POINTS, converters.trace(Best(), POINTS))


def test_what_is_written_over_an_activation_is_counted() -> None:
    """Backward passes refuse it; units that are overwritten have no scale, and are not read."""
    model = Overwritten(hidden=4)
    found = counted(model, POINTS, converters.trace(model, POINTS))
    assert (found.nullity, found.claimed, found.missed) == (2, 2, 0)
    assert found.unread == 2 * (3 + 1 + 2)
