"""Constants that may be added: where a softmax or a normalisation takes them away, nowhere else."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import converters
from gmn import symmetry
from gmn.testing import assert_same_function
from tests.cases import Attention
from tests.converters.test_gauges import Rotary
from tests.traced import BY_NAME, spec_of

FREE = {
    "attention": ["k.bias", "v.bias"],
    "attention-grouped": ["k.bias", "v.bias"],
    "attention-packed": ["qkv.bias[1]", "qkv.bias[2]"],
    "attention-module": [
        *("self_attn.in_proj_bias[1]", "self_attn.in_proj_bias[2]"),
        *("self_attn.out_proj.weight", "self_attn.out_proj.bias"),
        *("linear2.weight", "linear2.bias", "norm1.bias"),
    ],
    "batch-norm": ["0.bias", "3.bias", "8.bias", "9.bias"],
    "mlp-relu": [],
    "mlp-identity": ["0.bias", "2.bias"],
    "transformer-rms": ["positions[0]"],  # the class token's, against the token
}


@pytest.mark.parametrize("name", FREE)
def test_which_parameters_may_be_shifted(name: str) -> None:
    assert [t.terms[0].edge_set for t in spec_of(name).translations] == FREE[name]


def test_the_bias_of_keys_is_free_in_every_entry() -> None:
    """Every query's scores change alike; published graphs miss it."""
    translation = spec_of("attention").translations[0]
    assert translation.shape == (2, 4)
    case = BY_NAME["attention"]
    state = dict(case.model().state_dict())
    state["k.bias"] = torch.randn(8, dtype=torch.float64)
    assert_same_function(case.model(), case.model().state_dict(), state, case.example())


@pytest.mark.parametrize("layer", ["q", "v", "o"])
def test_other_biases_of_attention_are_not_free(layer: str) -> None:
    case = BY_NAME["attention"]
    state = dict(case.model().state_dict())
    state[f"{layer}.bias"] = state[f"{layer}.bias"] + 1
    with pytest.raises(AssertionError, match="different functions"):
        assert_same_function(case.model(), case.model().state_dict(), state, case.example())


def test_a_running_mean_follows_the_bias_before_it() -> None:
    translation = spec_of("batch-norm").translations[0]
    assert [term.edge_set for term in translation.terms] == ["0.bias", "1.running_mean"]


def _shifted(model: nn.Module, *inputs: Tensor) -> list[str]:
    """Edge sets with a translation, after the certificate of all of them."""
    spec = converters.trace(model, inputs)
    certificate = converters.verify(model, inputs, spec, trials=2)
    assert certificate.ok, str(certificate)
    return [term.edge_set for t in spec.translations for term in t.terms]


class Turned(Rotary):
    """Rotary attention with biases."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(6, 8) for _ in range(3))


def test_rotary_positions_bind_the_bias_of_keys() -> None:
    assert _shifted(Turned(), torch.randn(2, 5, 6)) == ["v.bias", "o.bias"]


class Classifier(nn.Sequential):
    """Probabilities as outputs."""

    def __init__(self, *last: nn.Module) -> None:
        super().__init__(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 4), *last)


def test_logits_may_be_shifted_before_a_softmax_only() -> None:
    x = torch.randn(5, 3)
    for last in (nn.Softmax(-1), nn.LogSoftmax(1), nn.LayerNorm(4)):
        assert _shifted(Classifier(last), x) == ["2.weight", "2.bias"]
    for other in (nn.Softmax(0), nn.Sigmoid(), nn.Identity()):
        free = _shifted(Classifier(other), x)
        assert free == (["2.bias"] if isinstance(other, nn.Softmax) else [])


def test_columns_are_shifted_as_a_whole() -> None:
    (columns, all_alike) = converters.trace(
        Classifier(nn.Softmax(-1)), (torch.randn(5, 3),)
    ).translations
    assert columns.shape == (6,)  # one number per hidden unit, the same for all classes
    assert all_alike.shape == ()


class Stream(nn.Module):
    """A residual stream that is read through norms, but for its end."""

    def __init__(self, end: nn.Module) -> None:
        super().__init__()
        self.embed, self.norm, self.mix = nn.Linear(3, 6), nn.LayerNorm(6), nn.Linear(6, 6)
        self.end, self.head = end, nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        return self.head(self.end(x + torch.relu(self.mix(self.norm(x)))))


def test_writers_of_a_stream_may_be_shifted_if_all_its_readers_centre_it() -> None:
    x = torch.randn(5, 3)
    norms = [*("norm.bias", "mix.bias"), *("end.bias", "head.bias")]
    assert _shifted(Stream(nn.LayerNorm(6)), x) == ["embed.weight", "embed.bias", *norms]
    assert _shifted(Stream(nn.Identity()), x) == ["embed.bias", "head.bias", *norms[:2]]


def test_a_concatenation_is_centred_as_a_whole() -> None:
    class Joined(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.norm = nn.Linear(3, 4), nn.Linear(3, 5), nn.LayerNorm(9)
            self.head = nn.Linear(9, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.norm(torch.cat([self.one(x), self.two(x)], dim=-1)))

    model, inputs = Joined(), (torch.randn(5, 3),)
    assert _shifted(model, *inputs)[:2] == ["one.bias", "two.bias"]
    translation = converters.trace(model, inputs).translations[0]
    assert translation.shape == ()  # one number for both parts
    assert [term.factor for term in translation.terms] == [1, 1]


def test_positions_that_are_normalised_together_may_not_be_shifted_apart() -> None:
    class Pixels(nn.Module):
        def __init__(self, together: bool) -> None:
            super().__init__()
            self.conv, self.positions = nn.Conv2d(1, 5, 1), nn.Parameter(torch.randn(1, 5, 3, 3))
            self.norm, self.head = nn.LayerNorm(45 if together else 5), nn.Linear(45, 2)
            self.together = together

        def forward(self, x: Tensor) -> Tensor:
            x = (self.conv(x) + self.positions).flatten(2).transpose(1, 2)
            return self.head(self.norm(x.flatten(1)) if self.together else self.norm(x).flatten(1))

    image = (torch.randn(2, 1, 3, 3),)
    for together in (True, False):
        assert "positions" in _shifted(Pixels(together), *image)
        shifts = converters.trace(Pixels(together), image).translations
        alone = [t for t in shifts if {term.edge_set for term in t.terms} == {"positions"}]
        assert any(t.shape == (3, 3) for t in alone) is not together


def test_a_shared_parameter_moves_with_what_undoes_it() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.norm = nn.Linear(4, 4), nn.LayerNorm(4)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(self.layer(x)) + self.layer(x)

    assert _shifted(Shared(), torch.randn(5, 4)) == ["layer.bias", "norm.bias"]
    (trade,) = converters.trace(Shared(), (torch.randn(5, 4),)).translations
    assert [term.factor for term in trade.terms] == [
        1,
        -1,
    ]  # what the norm ignores, the sum does not


def test_masked_scores_keep_the_freedom_of_keys() -> None:
    class Masked(Attention):
        def forward(self, x: Tensor) -> Tensor:
            q, k, v = (f(x).unflatten(-1, (2, 4)).transpose(1, 2) for f in (self.q, self.k, self.v))
            above = torch.ones(x.shape[1], x.shape[1]).triu(1) > 0
            scores = (q @ k.mT / 2).masked_fill(above, float("-inf")).softmax(-1)
            return self.o((scores @ v).transpose(1, 2).flatten(2))

    assert "k.bias" in _shifted(Masked(), torch.randn(2, 5, 8))


def test_a_translation_is_undone() -> None:
    spec = spec_of("attention")
    state = BY_NAME["attention"].model().state_dict()
    element = symmetry.only(spec, "k.bias.shift", torch.Generator().manual_seed(0))
    moved = element.act(state)
    assert (moved["k.bias"] - state["k.bias"]).abs().max() > 0.01
    torch.testing.assert_close(element.inverse().act(moved)["k.bias"], state["k.bias"])


def test_translations_are_printed() -> None:
    assert "translations" in repr(spec_of("attention"))
