"""Changes that a metanetwork must notice, and damage that it must bear."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor, nn

import converters
import gmn
from gmn.testing import relative_error
from tests.cases import Attention
from tests.traced import BY_NAME, graph_of

QUERIES, KEYS, VALUES = (
    [f"{layer}.{part}" for part in ("weight", "bias")] for layer in ("q", "k", "v")
)
OTHER_HEADS = torch.tensor([4, 1, 2, 3, 0, 5, 6, 7])  # exchanges one unit of either head

every_exchange = pytest.mark.parametrize(
    ("one", "other"), [(QUERIES, VALUES), (QUERIES, KEYS), (KEYS, VALUES)], ids=["qv", "qk", "kv"]
)
every_operation = pytest.mark.parametrize(
    "operation",
    [
        lambda: conv(stride=2),
        lambda: conv(padding=1),
        lambda: conv(dilation=2),
        lambda: conv(act=nn.Tanh()),
        lambda: conv(act=nn.LeakyReLU(0.3)),
    ],
    ids=["stride", "padding", "dilation", "activation", "slope"],
)


def conv(
    stride: int = 1, padding: int = 0, dilation: int = 1, act: nn.Module | None = None
) -> nn.Module:
    """Convolution, activation, mean, linear layer."""
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, stride, padding, dilation),
        nn.ReLU() if act is None else act,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 2),
    )


def with_operation(operation: Callable[[], nn.Module]) -> tuple[gmn.ParameterGraph, ...]:
    """The same weights under :func:`conv` and under another operation."""
    inputs, state = (torch.zeros(1, 2, 12, 12),), conv().double().state_dict()
    first, second = (
        gmn.ParameterGraph.from_state_dicts(converters.trace(model, inputs), [state])
        for model in (conv(), operation())
    )
    return first, second


def exchanged(graph: gmn.ParameterGraph, one: list[str], other: list[str]) -> gmn.ParameterGraph:
    """The networks with two lists of entries exchanged."""
    pairs = [*zip(one, other, strict=True), *zip(other, one, strict=True)]
    return graph.replace({name: graph.values[source] for name, source in pairs})


def units_of_heads_exchanged() -> tuple[gmn.ParameterGraph, ...]:
    """Attention, and the same with one unit of either head exchanged."""
    graph = graph_of(BY_NAME["attention"])
    moved = {name: graph.values[name][:, OTHER_HEADS] for name in QUERIES + KEYS}
    return graph, graph.replace(moved)


def with_heads(*counts: int) -> tuple[gmn.ParameterGraph, ...]:
    """The same weights of attention, cut into so many heads."""
    state, inputs = BY_NAME["attention"].model().state_dict(), (torch.zeros(2, 5, 8),)
    return tuple(
        gmn.ParameterGraph.from_state_dicts(
            converters.trace(Attention(heads=count, keys=count), inputs), [state]
        )
        for count in counts
    )


def zeros(value: Tensor) -> Tensor:
    return torch.zeros_like(value)


def tiny(value: Tensor) -> Tensor:
    return value * 1e-15


def one_tiny(value: Tensor) -> Tensor:
    """Its reciprocal, the backward edge of ScaleGMN's paper, is 1e15."""
    result = value.clone()
    result[:, 0, 0] = 1e-15
    return result


def large(value: Tensor) -> Tensor:
    return value * 1e4


def dead(value: Tensor) -> Tensor:
    result = value.clone()
    result[:, 0] = 0
    return result


def duplicate(value: Tensor) -> Tensor:
    result = value.clone()
    result[:, 1] = result[:, 0]
    return result


def differences(
    net: nn.Module, graph: gmn.ParameterGraph, others: Mapping[str, gmn.ParameterGraph]
) -> list[tuple[str, float]]:
    """How far the answer to each of the others is from the one to the graph, all in one batch."""
    with torch.no_grad():
        own, *answers = net(gmn.ParameterGraph.cat([graph, *others.values()])).split(len(graph))
    return [(k, relative_error(a, own)) for k, a in zip(others, answers, strict=True)]


every_damage = pytest.mark.parametrize("damage", [zeros, tiny, one_tiny, large, dead, duplicate])
