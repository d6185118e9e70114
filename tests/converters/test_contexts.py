"""Contexts tell apart what is computed, and nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import converters
from gmn import features
from gmn.spec import GraphSpec
from tests.blind_spots import COMPUTED, Net, Pair, attention, layers, rms, rotary, softmax
from tests.traced import one_in

every_pair = pytest.mark.parametrize("pair", one_in(4, COMPUTED, lambda pair: pair.name))


def contexts(spec: GraphSpec) -> list[str]:
    return [edges.context for edges in spec.edge_sets]


def traced(model: nn.Module, *shape: int) -> GraphSpec:
    return converters.trace(model, (torch.randn(shape),))


@every_pair
def test_what_is_computed_changes_the_contexts(pair: Pair) -> None:
    assert pair.difference() > 1e-2
    one, other = pair.graphs()
    assert contexts(one.spec) != contexts(other.spec)


def transformer(depth: int = 1, width: int = 8, heads: int = 2) -> nn.Module:
    layer = nn.TransformerEncoderLayer(width, heads, 2 * width, batch_first=True)
    return nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)


def test_two_traces_agree() -> None:
    one, other = (traced(transformer(), 2, 5, 8) for _ in range(2))
    assert one == other
    assert all(contexts(one))


def test_batch_size_and_length_do_not_count() -> None:
    model = transformer()
    assert contexts(traced(model, 2, 5, 8)) == contexts(traced(model, 3, 7, 8))
    by_hand = attention(softmax())()
    assert contexts(traced(by_hand, 2, 5, 8)) == contexts(traced(by_hand, 3, 7, 8))


def scaled(m: Net, x: Tensor) -> Tensor:
    """Attention with the usual scale, in a number and in the operation."""
    heads = [part(x).unflatten(-1, (2, -1)).transpose(1, 2) for part in (m.q, m.k, m.v)]
    size = heads[0].shape[-1]
    scores = heads[0] @ heads[1].mT / size**0.5
    more = nn.functional.scaled_dot_product_attention(*heads, scale=size**-0.5)
    return m.o((scores.softmax(-1) @ heads[2] + more).transpose(1, 2).flatten(2))


@pytest.mark.parametrize(
    "build",
    [
        lambda width: nn.Sequential(nn.Linear(width, 2 * width), nn.LayerNorm(2 * width)),
        lambda width: transformer(width=width),
        lambda width: Net(scaled, **{name: nn.Linear(width, width) for name in "qkvo"}),
    ],
)  # fmt: skip
def test_widths_do_not_count(build: Callable[[int], nn.Module]) -> None:
    assert contexts(traced(build(8), 2, 5, 8)) == contexts(traced(build(12), 2, 5, 12))


def test_layers_amid_others_look_alike_at_every_depth() -> None:
    three, five = (traced(transformer(depth), 2, 5, 8) for depth in (3, 5))
    middle = {
        n: three.edge_set(f"layers.1.{n}").context for n in ("linear1.weight", "norm1.weight")
    }
    for layer in (1, 2, 3):
        for name, context in middle.items():
            assert five.edge_set(f"layers.{layer}.{name}").context == context


def test_precision_does_not_count() -> None:
    build = rotary(10_000.0)
    one = converters.trace(build(), (torch.randn(2, 4, 8),))
    other = converters.trace(build().double(), (torch.randn(2, 4, 8).double(),))
    assert contexts(one) == contexts(other)


def branches(m: Net, x: Tensor) -> Tensor:
    """Two heads in modules of their own, a sum of two branches and a gate."""
    heads = torch.cat([torch.tanh(m.a(x)), torch.tanh(m.b(x))], -1)
    return m.o(heads) + m.p(torch.relu(m.c(x)) + torch.relu(m.d(x)))


def test_branches_that_can_be_exchanged_have_equal_contexts() -> None:
    parts = {name: nn.Linear(5, 4) for name in "abcd"}
    spec = traced(Net(branches, **parts, o=nn.Linear(8, 3), p=nn.Linear(4, 3)), 2, 5)
    found = {name: spec.edge_set(f"{name}.weight").context for name in "abcd"}
    assert found["a"] == found["b"]
    assert found["c"] == found["d"]
    assert found["a"] != found["c"]


def test_queries_and_values_have_contexts_of_their_own() -> None:
    spec = traced(attention(softmax())(), 2, 4, 8)
    query, value = (spec.edge_set(f"{name}.weight").context for name in "qv")
    assert query != value


def test_arguments_at_their_defaults_may_be_left_out() -> None:
    one, other = (
        layers(lambda h: nn.functional.softplus(h)),
        layers(lambda h: nn.functional.softplus(h, beta=1.0)),
    )
    assert contexts(traced(one(), 2, 5)) == contexts(traced(other(), 2, 5))


def test_constants_without_values_have_a_context_too() -> None:
    with torch.device("meta"):
        model, inputs = rotary(100.0)(), torch.zeros(2, 4, 8)
    assert all(contexts(converters.trace(model, (inputs,))))


def test_near_contexts_weigh_as_much_as_far_ones() -> None:
    one, other = (traced(layers(function)(), 2, 5) for function in (rms, torch.relu))
    found = [features.edge_descriptions(spec)[0] for spec in (one, other)]
    assert 0.1 < float((found[0] - found[1]).norm()) < 1.5
