"""Chains whose hidden neurons have scales, and group elements of wide range, for both suites."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor, nn

import converters
import gmn
from gmn import symmetry
from gmn.testing import relative_error
from tests.cases import CASES, Case, Sine, images, vectors

WITHOUT_SCALES = {
    *(f"mlp-{name}" for name in ("sigmoid", "gelu", "silu", "elu", "softplus", "relu6", "mish")),
    "cnn-unequal-kernels",
}
MIXED = Case(
    "mlp-mixed",
    lambda: nn.Sequential(
        *(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 5), nn.Tanh()),
        *(nn.Linear(5, 4), Sine(), nn.Linear(4, 2)),
    ),
    vectors(3),
    "positive scales, signs and phases in one network",
)
TANH_CNN = Case(
    "cnn-tanh",
    lambda: nn.Sequential(
        *(nn.Conv2d(1, 4, 3, 2, 1), nn.Tanh(), nn.Conv2d(4, 5, 3, 2, 1), nn.Tanh()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3)),
    ),
    images(1),
    "kernels and signs",
)
SCALED = [case for case in CASES if case.chain and case.name not in WITHOUT_SCALES]
SCALED += [MIXED, TANH_CNN]
BY_NAME = {case.name: case for case in SCALED}
scaled_chains = pytest.mark.parametrize("case", SCALED, ids=lambda case: case.name)


@cache
def spec_of(name: str) -> gmn.GraphSpec:
    case = BY_NAME[name]
    return converters.trace(case.model(), case.example())


def graph_of(name: str, networks: int = 2) -> gmn.ParameterGraph:
    states = [BY_NAME[name].model(seed).state_dict() for seed in range(networks)]
    return gmn.ParameterGraph.from_state_dicts(spec_of(name), states)


def element_of(spec: gmn.GraphSpec, seed: int = 0) -> symmetry.Element:
    """Permutations, signs, phases, and positive scales log-uniform over 1e-3 to 1e3.

    Where any change of basis is possible, a diagonal one of either sign.
    """
    generator = torch.Generator().manual_seed(seed)
    drawn = symmetry.sample(spec, generator, symmetries=("permutations", "scalings"))
    scales = dict(drawn.scales)
    for scaling in spec.scalings:
        if scaling.domain == "positive":
            scales[scaling.name] = wide(scaling.shape, generator)
    bases = {
        gauge.name: torch.diag(wide(gauge.shape, generator) * signs(gauge.shape, generator))
        for gauge in spec.gauges
    }
    return replace(drawn, scales=scales, bases=bases)


def wide(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return 10 ** (6 * torch.rand(shape, generator=generator, dtype=torch.float64) - 3)


def signs(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return 1 - 2 * torch.randint(2, shape, generator=generator, dtype=torch.float64)


def invariance_error(net: nn.Module, graph: gmn.ParameterGraph) -> float:
    """Largest relative change of the answer over three group elements."""
    with torch.no_grad():
        expected = net(graph)
        return max(
            relative_error(net(element_of(graph.spec, seed).act_on_graph(graph)), expected)
            for seed in range(3)
        )


def equivariance_error(net: nn.Module, graph: gmn.ParameterGraph) -> float:
    """Largest relative difference of changes, moved back to where the networks were."""
    worst = 0.0
    with torch.no_grad():
        expected = net(graph)
        for seed in range(3):
            element = element_of(graph.spec, seed)
            found = element.inverse().act_on_graph(net(element.act_on_graph(graph)))
            worst = max(worst, relative_error(changes(found, graph), changes(expected, graph)))
    return worst


def assert_edits(net: nn.Module, graph: gmn.ParameterGraph) -> None:
    """Changes transform like the weights, and every tensor is changed."""
    assert equivariance_error(net, graph) < 1e-10
    edited = net(graph)
    assert all(bool((edited.values[name] != value).any()) for name, value in graph.values.items())


def changes(edited: gmn.ParameterGraph, graph: gmn.ParameterGraph) -> Tensor:
    return torch.cat([(edited.values[n] - graph.values[n]).flatten() for n in graph.values])
