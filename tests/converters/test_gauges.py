"""Changes of basis: where units are only mixed linearly, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import converters
import gmn
from gmn import symmetry
from gmn.testing import assert_same_function
from tests.cases import Attention, RMSNorm, mlp
from tests.traced import BY_NAME, spec_of

GROUPS = {
    "mlp-identity": [("general", (6,)), ("general", (5,))],
    "pre-activation": [("general", (6,))],
    "attention": [("general", (2, 4)), ("general", (2, 4))],
    "attention-packed": [("general", (2, 4)), ("general", (2, 4))],
    "attention-module": [("general", (2, 4)), ("general", (2, 4))],
    "attention-grouped": [("general", (2, 2)), ("general", (2, 2))],
    "transformer-rms": [("general", (2, 2)), ("general", (2, 2))],
    "mlp-relu": [],
    "mlp-tanh": [],
    "mlp-gelu": [],
    "resnet": [],
}


@pytest.mark.parametrize("name", GROUPS)
def test_which_bases_are_free(name: str) -> None:
    assert [(gauge.group, gauge.shape) for gauge in spec_of(name).gauges] == GROUPS[name]


def test_queries_and_keys_turn_against_each_other() -> None:
    terms = {t.edge_set: t.exponent for t in spec_of("attention").gauges[0].terms}
    assert terms == {"q.weight": 1, "q.bias": 1, "k.weight": -1, "k.bias": -1}


def test_a_scale_within_a_basis_is_not_listed_again() -> None:
    spec = spec_of("attention")
    assert not spec.scalings


def test_a_weight_that_writes_and_reads_allows_rotations_only() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Linear(4, 6, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.encoder(x) @ self.encoder.weight

    model, inputs = Tied(), (torch.randn(3, 4),)
    spec = converters.trace(model, inputs)
    assert [gauge.group for gauge in spec.gauges] == ["orthogonal"]
    assert converters.verify(model, inputs, spec).ok
    general = symmetry.Element(spec, {}, {}, {spec.gauges[0].name: torch.randn(6, 6).double()})
    state = model.double().state_dict()
    with pytest.raises(AssertionError, match="different functions"):
        assert_same_function(model, state, general.act(state), (inputs[0].double(),))


def _between(operation: Callable[[Tensor], Tensor]) -> nn.Module:
    class Between(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(3, 6, bias=False), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(operation(self.first(x)))

    return Between()


LINEAR = {
    "times a number": lambda x: 2 * x,
    "negated": lambda x: -x,
    "times a number per input": lambda x: x * x.new_ones(5, 1),
    "averaged over another dimension": lambda x: x.unsqueeze(1).expand(-1, 2, -1).mean(1),
    "seen otherwise": lambda x: x.unflatten(1, (6, 1)).transpose(0, 1).flatten(1).t(),
}
BOUND = {
    "plus a number": lambda x: x + 1,
    "times a vector": lambda x: x * torch.linspace(1, 2, 6),
    "squared": lambda x: x * x,
    "normalised": lambda x: x / x.norm(dim=1, keepdim=True),
    "summed with its neighbours": lambda x: x + x.mean(1, keepdim=True),
}


@pytest.mark.parametrize("name", LINEAR)
def test_operations_that_a_basis_passes(name: str) -> None:
    model, inputs = _between(LINEAR[name]), (torch.randn(5, 3),)
    spec = converters.trace(model, inputs)
    assert [gauge.shape for gauge in spec.gauges] == [(6,)]
    assert converters.verify(model, inputs, spec).ok


@pytest.mark.parametrize("name", BOUND)
def test_operations_that_bind_a_basis(name: str) -> None:
    model, inputs = _between(BOUND[name]), (torch.randn(5, 3),)
    spec = converters.trace(model, inputs)
    assert not spec.gauges
    assert converters.verify(model, inputs, spec).ok


class Rotary(nn.Module):
    """Attention whose queries and keys turn with their position."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(6, 8, bias=False) for _ in range(3))
        self.o = nn.Linear(8, 6)
        angle = torch.arange(5.0)[:, None] * torch.tensor([1.0, 0.1])
        self.register_buffer("cos", torch.cat([angle.cos()] * 2, dim=-1))
        self.register_buffer("sin", torch.cat([angle.sin()] * 2, dim=-1))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (f(x).unflatten(-1, (2, 4)).transpose(1, 2) for f in (self.q, self.k, self.v))
        q, k = (y * self.cos + self._half_turn(y) * self.sin for y in (q, k))
        weights = (q @ k.mT / 2).softmax(-1)
        return self.o((weights @ v).transpose(1, 2).flatten(2))

    @staticmethod
    def _half_turn(x: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=-1)
        return torch.cat([-second, first], dim=-1)


def test_rotary_positions_leave_values_a_basis_and_each_plane_a_scale() -> None:
    model, inputs = Rotary(), (torch.randn(2, 5, 6),)
    spec = converters.trace(model, inputs)
    assert [gauge.shape for gauge in spec.gauges] == [(2, 4)]
    assert spec.gauges[0].terms[0].edge_set == "v.weight"
    of_queries = [s for s in spec.scalings if s.name.startswith("q.")]
    assert [(s.domain, s.shape) for s in of_queries] == [("positive", (2, 2)), ("sign", (2, 2))]
    # The tables of angles are buffers, which may trade their scales with rows of queries and keys.
    assert {s.name.partition(".")[0] for s in spec.scalings} == {"q", "cos"}
    assert converters.verify(model, inputs, spec).ok


class NormedKeys(nn.Module):
    """Queries and keys are normalised: their bases are bound."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(8, 8) for _ in range(4))
        self.norm_q, self.norm_k = RMSNorm(4), RMSNorm(4)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (f(x).unflatten(-1, (2, 4)).transpose(1, 2) for f in (self.q, self.k, self.v))
        weights = (self.norm_q(q) @ self.norm_k(k).mT / 2).softmax(-1)
        return self.o((weights @ v).transpose(1, 2).flatten(2))


def test_normalised_keys_bind_their_basis() -> None:
    model, inputs = NormedKeys(), (torch.randn(2, 5, 8),)
    spec = converters.trace(model, inputs)
    assert [gauge.terms[0].edge_set for gauge in spec.gauges] == ["v.weight"]
    assert converters.verify(model, inputs, spec).ok


def test_one_basis_for_all_heads_that_share_keys() -> None:
    model, inputs = Attention(keys=1), (torch.randn(2, 5, 8),)
    spec = converters.trace(model, inputs)
    assert [gauge.shape for gauge in spec.gauges] == [(4,), (4,)]
    assert converters.verify(model, inputs, spec).ok


def test_a_basis_across_heads_changes_the_function() -> None:
    case, generator = BY_NAME["attention"], torch.Generator().manual_seed(0)
    model, state = case.model(), dict(case.model().state_dict())
    turn = torch.linalg.qr(torch.randn(8, 8, generator=generator, dtype=torch.float64))[0]
    across = {f"{f}.{p}": turn @ state[f"{f}.{p}"] for f in "qk" for p in ("weight", "bias")}
    with pytest.raises(AssertionError, match="different functions"):
        assert_same_function(model, state, {**state, **across}, case.example())


def test_the_number_of_heads_changes_the_spec() -> None:
    inputs = (torch.randn(2, 5, 8),)
    specs = [converters.trace(Attention(heads=h, keys=h), inputs) for h in (1, 2, 4)]
    assert len({spec.fingerprint for spec in specs}) == 3


def test_products_over_the_basis_do_not_change() -> None:
    """What a metanetwork may read of queries and keys: products in which the basis cancels."""
    case = BY_NAME["attention"]
    spec, state = spec_of("attention"), dict(case.model().state_dict())
    element = symmetry.only(spec, spec.gauges[0].name, torch.Generator().manual_seed(0))
    moved = element.act(state)
    assert (moved["q.weight"] - state["q.weight"]).abs().max() > 0.1

    def product(s: dict[str, Tensor]) -> Tensor:
        q, k = (s[name].unflatten(0, (2, 4)) for name in ("q.weight", "k.weight"))
        return torch.einsum("hui,huj->hij", q, k)

    torch.testing.assert_close(product(moved), product(state), rtol=1e-12, atol=1e-12)


def test_bases_survive_json_and_are_printed() -> None:
    spec = spec_of("attention")
    assert gmn.GraphSpec.from_json(spec.to_json()).gauges == spec.gauges
    assert "changes of basis" in repr(spec)
    assert "GL(4)  per q.0" in repr(spec)


def test_a_wrong_basis_fails_the_certificate() -> None:
    certificate = converters.verify(
        mlp(nn.ReLU()), (torch.randn(4, 3),), spec_of("mlp-identity"), trials=1
    )
    assert certificate.errors["0.basis"] > 1e-3


class Sliced(nn.Module):
    """Queries, keys and values cut from one weight by slices."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.o = nn.Linear(8, 24), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.qkv(x)
        parts = (y[..., :8], y[..., 8:16], y[..., 16:])
        q, k, v = (part.unflatten(-1, (2, 4)).transpose(1, 2) for part in parts)
        weights = (q @ k.mT / 2).softmax(-1)
        return self.o((weights @ v).transpose(1, 2).flatten(2))


def test_slices_of_a_packed_weight_are_its_parts() -> None:
    model, inputs = Sliced(), (torch.randn(2, 5, 8),)
    spec = converters.trace(model, inputs)
    assert [gauge.shape for gauge in spec.gauges] == [(2, 4), (2, 4)]
    assert {t.edge_set: t.exponent for t in spec.gauges[0].terms} == {
        "qkv.weight[0]": 1, "qkv.weight[1]": -1, "qkv.bias[0]": 1, "qkv.bias[1]": -1
    }  # fmt: skip
    assert converters.verify(model, inputs, spec).ok
