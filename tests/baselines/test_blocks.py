"""Transformer blocks as head-wise tensors, and back."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import converters
import gmn
from baselines import UnsupportedArchitecture
from baselines.layers.blocks import (
    BlockTensors,
    from_blocks,
    outside_blocks,
    to_blocks,
    transformer,
)
from tests.baselines import small_transformers as small
from tests.cases import Attention
from tests.traced import one_in, spec_of

every_kind = pytest.mark.parametrize("kind", [*small.KINDS, *small.CASES])


@pytest.mark.parametrize("kind", one_in(3, [*small.KINDS, *small.CASES]))
def test_round_trip_is_exact(kind: str) -> None:
    """Onto other networks, so that every bit of the blocks must have come through the tensors."""
    graph = small.graph(kind)
    other = gmn.ParameterGraph(graph.spec, {n: -v for n, v in graph.values.items()})
    back = from_blocks(other, to_blocks(graph))
    kept = {edges.name for edges in outside_blocks(graph.spec)}
    for edges in graph.spec.edge_sets:
        if edges.tied_to is None:
            expected = (other if edges.name in kept else graph).block(edges)
            assert torch.equal(back.block(edges), expected)


@every_kind
def test_blocks_and_rest_hold_everything_once(kind: str) -> None:
    spec = small.spec(kind) if kind in small.KINDS else spec_of(kind)
    names = [edges.name for block in transformer(spec) for edges in block.edge_sets]
    names += [edges.name for edges in outside_blocks(spec)]
    assert sorted(names) == sorted(e.name for e in spec.edge_sets if e.tied_to is None)


def attend(tensors: BlockTensors, x: Tensor) -> Tensor:
    """What the tensors say that the attention computes."""
    q, k, v = (
        x.unsqueeze(1) @ weight[0] + (0 if bias is None else bias[0].unsqueeze(1))
        for weight, bias in (
            (tensors.query, tensors.query_bias),
            (tensors.key, tensors.key_bias),
            (tensors.value, tensors.value_bias),
        )
    )
    scores = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
    result = (scores @ v @ tensors.output[0]).sum(1)
    return result if tensors.output_bias is None else result + tensors.output_bias[0]


@pytest.mark.parametrize("kind", [*small.KINDS, "attention", "transformer"])
def test_tensors_mean_what_they_are_called(kind: str) -> None:
    model, graph = small.model(kind), small.graph(kind, 1)
    blocks = {"attention": [model], "transformer": [getattr(model, "attention", None)]}.get(
        kind, getattr(model, "blocks", [])
    )
    for tensors, module in zip(to_blocks(graph), blocks, strict=True):
        x = torch.randn(2, 5, tensors.query.shape[2], dtype=torch.float64)
        expected = module.attention(x) if hasattr(module, "attention") else module(x)
        torch.testing.assert_close(attend(tensors, x), expected)
        if kind in small.KINDS:
            hidden = torch.relu(x @ tensors.into[0][0] + tensors.into_biases[0][0])
            found = hidden @ tensors.out[0] + tensors.out_bias[0]
            torch.testing.assert_close(found, module.feed_forward(x))


def test_packed_weights_keep_their_order() -> None:
    model, graph = small.model("attention-packed"), small.graph("attention-packed", 1)
    (tensors,) = to_blocks(graph)
    parts = model.qkv.weight.view(3, 2, 4, 8).mT
    for part, found in zip(parts, (tensors.query, tensors.key, tensors.value), strict=True):
        assert torch.equal(found[0], part)


def test_gated_networks_have_two_matrices() -> None:
    (tensors,) = to_blocks(small.graph("transformer"))
    assert [weight.shape for weight in tensors.into] == [(2, 8, 6), (2, 8, 6)]
    assert tensors.into_biases == (None, None)


class Rotary(Attention):
    """Queries and keys are turned by their position: no free change of basis between them."""

    def forward(self, x: Tensor) -> Tensor:
        b, t, _ = x.shape
        q, k, v = (
            layer(x).view(b, t, self.heads, self.size).transpose(1, 2)
            for layer in (self.q, self.k, self.v)
        )
        angle = torch.arange(t, dtype=x.dtype)[:, None] / 10.0 ** torch.arange(2, dtype=x.dtype)
        cos, sin = (f(torch.cat([angle, angle], -1)) for f in (torch.cos, torch.sin))
        q, k = (y * cos + torch.cat([-y[..., 2:], y[..., :2]], -1) * sin for y in (q, k))
        scores = (q @ k.transpose(-2, -1)).softmax(-1)
        return self.o((scores @ v).transpose(1, 2).reshape(b, t, -1))


class Cross(nn.Module):
    """Queries read one stream, keys and values another."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.attend = nn.Linear(3, 4), nn.Linear(3, 4), Attention(4, 2)
        self.last = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        left, right = torch.relu(self.left(x)), torch.tanh(self.right(x))
        layer, (b, t, _) = self.attend, x.shape
        q, k, v = (
            linear(y).view(b, t, 2, 2).transpose(1, 2)
            for linear, y in ((layer.q, left), (layer.k, right), (layer.v, right))
        )
        return self.last(layer.o(((q @ k.mT).softmax(-1) @ v).transpose(1, 2).reshape(b, t, 4)))


class Shared(nn.Module):
    """One block, applied twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Attention(), Attention()
        for name in ("q", "k", "v", "o"):
            setattr(self.second, name, getattr(self.first, name))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.first(x)
        return x + self.second(x)


def traced(model: nn.Module, size: int) -> gmn.GraphSpec:
    return converters.trace(model.double(), (torch.randn(2, 5, size, dtype=torch.float64),))


@pytest.mark.parametrize(
    ("build", "culprit"),
    [
        (lambda: spec_of("attention-grouped"), "node set q has several query heads"),
        (lambda: spec_of("transformer-rms"), "node set attention.q has several query heads"),
        (lambda: spec_of("mlp-tanh"), "the network has no node set that queries and keys share"),
        (lambda: traced(Rotary(), 8), "node set q has no free change of basis"),
        (lambda: traced(Cross(), 3), "node set attend.q compares .*cross-attention"),
        (lambda: traced(Shared(), 8), "edge set first.q.weight@2 is tied to first.q.weight"),
    ],
)
def test_refusals_name_the_culprit(build, culprit: str) -> None:
    with pytest.raises(UnsupportedArchitecture, match=culprit) as caught:
        transformer(build())
    assert "FlatMLP, StatNN and gmn.nn.GMN" in str(caught.value)


def test_another_number_of_blocks_is_refused() -> None:
    graph = small.graph("zoo")
    with pytest.raises(ValueError, match="zip"):
        from_blocks(graph, to_blocks(graph)[:1])
