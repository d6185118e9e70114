"""NFT: attention between weights, against its own laws and a slow form."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import gmn
from baselines import UnsupportedArchitecture
from baselines.layers.encodings import FourierFeatures
from baselines.nft import NFT, WeightAttention
from gmn.testing import assert_invariant, relative_error
from tests.traced import BY_NAME, graph_of, spec_of

WIDTHS = (2, 5, 4, 3)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def nft(spec: gmn.GraphSpec) -> NFT:
    return NFT(spec, channels=8, depth=2, heads=2).double()


def layer_and_values(channels: int, heads: int) -> tuple[WeightAttention, list[Tensor]]:
    layer = WeightAttention(channels, heads).double()
    pairs = list(zip(WIDTHS[1:], WIDTHS[:-1], strict=True))
    weights = [torch.randn(2, out, into, channels).double() for out, into in pairs]
    return layer, weights + [torch.randn(2, out, channels).double() for out, _ in pairs]


def slow(layer: WeightAttention, values: list[Tensor]) -> list[Tensor]:
    """Head by head and token by token."""
    channels, layers = values[0].shape[-1], len(values) // 2
    size = channels // layer.heads
    found = [torch.zeros_like(value) for value in values]
    for head in range(layer.heads):
        chosen = slice(head * size, (head + 1) * size)
        q, k, v = (
            [part[..., chosen] for part in parts]
            for parts in zip(*(layer.project(x).split(channels, -1) for x in values), strict=True)
        )
        # Global: the means of all weights and biases.
        for i in range(len(values)):
            scores = torch.stack([(mean(q[i]) * mean(k[j])).sum(-1) for j in range(len(values))], 1)
            attended = (scores / size**0.5).softmax(1)
            answer = sum(attended[:, j, None] * mean(v[j]) for j in range(len(values)))
            found[i][..., chosen] += answer.view(len(answer), *[1] * (values[i].dim() - 2), size)
        # Cross: every neuron layer, whose tokens are (feature, index) pairs.
        for neurons in range(layers + 1):
            tokens = []
            if neurons > 0:
                entering = neurons - 1
                tokens += [
                    (entering, (slice(None), slice(None), c)) for c in range(WIDTHS[entering])
                ]
                tokens.append((layers + entering, (slice(None), slice(None))))
            if neurons < layers:
                tokens += [(neurons, (slice(None), row)) for row in range(WIDTHS[neurons + 1])]
            for i, at in tokens:
                scores = torch.stack([(q[i][at] * k[j][to]).sum((1, 2)) for j, to in tokens], 1)
                attended = (scores / (size * WIDTHS[neurons]) ** 0.5).softmax(1)
                answer = sum(
                    attended[:, n, None, None] * v[j][to] for n, (j, to) in enumerate(tokens)
                )
                found[i][..., chosen][at] += answer
    return found


def mean(value: Tensor) -> Tensor:
    return value.flatten(1, -2).mean(1)


@pytest.mark.parametrize("heads", [1, 2])
def test_against_a_slow_reference(heads: int) -> None:
    layer, values = layer_and_values(4, heads)
    with torch.no_grad():
        weights, biases = layer(values[:3], values[3:])
        for found, expected in zip((*weights, *biases), slow(layer, values), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_commutes_with_permutations_of_all_layers() -> None:
    layer, values = layer_and_values(8, 2)
    orders = [torch.randperm(size) for size in WIDTHS]

    def move(tensors: list[Tensor]) -> list[Tensor]:
        weights = [w[:, orders[i + 1]][:, :, orders[i]] for i, w in enumerate(tensors[:3])]
        return weights + [b[:, orders[i + 1]] for i, b in enumerate(tensors[3:])]

    def act(tensors: list[Tensor]) -> list[Tensor]:
        weights, biases = layer(tensors[:3], tensors[3:])
        return [*weights, *biases]

    for first, second in zip(move(act(values)), act(move(values)), strict=True):
        torch.testing.assert_close(first, second, rtol=1e-12, atol=1e-12)
    uncoupled = [values[0][:, orders[1]], *values[1:]]
    assert (act(uncoupled)[3] - act(values)[3]).abs().max() > 1e-6


def test_published_number_of_parameters() -> None:
    """3 c² + 3 c, whatever the network."""
    layer = WeightAttention(16, 4)
    assert sum(p.numel() for p in layer.parameters()) == 3 * 16**2 + 3 * 16


def test_heads_divide_channels() -> None:
    with pytest.raises(ValueError, match="3 heads do not divide 8"):
        WeightAttention(8, 3)


def test_constant_networks_have_finite_gradients() -> None:
    """The norm has an epsilon: entries without spread over channels do not divide by zero."""
    graph = graph_of(BY_NAME["cnn"])
    net = nft(graph.spec)
    with torch.no_grad():
        for parameter in (*net.stem.parameters(), *net.positions.parameters()):
            parameter.zero_()
    net(graph).sum().backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in net.parameters())


def test_fourier_features_are_read() -> None:
    graph = graph_of(BY_NAME["cnn"])
    net = NFT(graph.spec, 8, 1, 2, fourier=FourierFeatures(4, scale=0.5)).double()
    assert_invariant(net, graph, tolerance=1e-10)
    with torch.no_grad():
        before = net(graph)
        net.fourier.multiples.mul_(2)
        assert relative_error(net(graph), before) > 1e-6


def test_head_may_be_a_module() -> None:
    spec = spec_of("cnn")
    pooled = NFT(spec, 8, 1, 2).pooled
    net = NFT(spec, 8, 1, 2, nn.Linear(pooled, 7)).double()
    assert net(graph_of(BY_NAME["cnn"])).shape == (2, 7)


def test_other_layers_are_refused() -> None:
    with pytest.raises(UnsupportedArchitecture, match="this NFT was built for"):
        nft(spec_of("mlp-relu"))(graph_of(BY_NAME["two-layers"]))
    with pytest.raises(UnsupportedArchitecture, match="read by UNF"):
        nft(spec_of("resnet"))
