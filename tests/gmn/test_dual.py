"""DualGMN: invariant to the whole certified group, and to nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import converters
import gmn
from gmn import symmetry
from gmn.nn import DualGMN, InvariantHead
from gmn.testing import assert_invariant, relative_error
from tests.cases import Case
from tests.changes import (
    differences,
    units_of_heads_exchanged,
    with_heads,
)
from tests.traced import BY_NAME, covering_cases, graph_of


def net() -> DualGMN:
    torch.manual_seed(0)
    return DualGMN(16, 2, InvariantHead(3)).double()


def difference(net: nn.Module, one: gmn.ParameterGraph, other: gmn.ParameterGraph) -> float:
    with torch.no_grad():
        return relative_error(net(one), net(other))


@pytest.mark.parametrize("name", ["cnn", "resnet", "transformer-rms", "mlp-sine"])
def test_rounds_are_invariant_too(name: str) -> None:
    torch.manual_seed(0)
    rounds = DualGMN(16, 2, InvariantHead(3), sweeps=False).double()
    assert_invariant(rounds, graph_of(BY_NAME[name]), scalings=True)
    with torch.no_grad():
        assert (
            relative_error(rounds(graph_of(BY_NAME[name])), net()(graph_of(BY_NAME[name]))) > 1e-6
        )


@covering_cases
def test_every_symmetry_alone(case: Case) -> None:
    graph, generator = graph_of(case), torch.Generator().manual_seed(0)
    moved = {
        name: symmetry.only(graph.spec, name, generator).act_on_graph(graph)
        for name in graph.spec.symmetries.names
    }
    for name, difference in differences(net(), graph, moved):
        assert difference <= 1e-9, name


def test_units_of_other_heads_are_told_apart() -> None:
    assert difference(net(), *units_of_heads_exchanged()) > 1e-12


def test_the_number_of_heads_is_noticed() -> None:
    one, two, four = with_heads(1, 2, 4)
    assert difference(net(), one, two) > 1e-12
    assert difference(net(), two, four) > 1e-12


class Masked(nn.Module):
    """A scale for every weight, which its mask undoes, beside one for every neuron."""

    def __init__(self, normalised: bool) -> None:
        super().__init__()
        self.first, self.last, self.norm = nn.Linear(5, 8), nn.Linear(8, 3), nn.LayerNorm(8)
        self.register_buffer("mask", (torch.rand(8, 5) > 0.5).float())
        self.normalised = normalised

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.first.weight * self.mask
        hidden = nn.functional.linear(x, weight, self.first.bias)
        return self.last(self.norm(hidden) if self.normalised else hidden.relu())


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("passes", [0, 3])
def test_scales_of_single_weights_beside_those_of_neurons(normalised: bool, passes: int) -> None:
    torch.manual_seed(0)
    models = [Masked(normalised).double() for _ in range(2)]
    spec = converters.trace(models[0], (torch.zeros(1, 5).double(),))
    graph = gmn.ParameterGraph.from_state_dicts(spec, [model.state_dict() for model in models])
    assert_invariant(DualGMN(16, 2, 3, passes=passes).double(), graph, scalings=True)


SCALED = ["mlp-relu", "cnn", "batch-norm", "resnet", "mlp-tanh", "attention", "transformer-rms"]


@pytest.mark.parametrize("name", SCALED)
def test_scales_of_ten_thousand(name: str) -> None:
    graph = graph_of(BY_NAME[name])
    element = symmetry.sample(graph.spec, torch.Generator().manual_seed(0), spread=4.6)
    moved = element.act_on_graph(graph)
    assert difference(net(), moved, graph) <= 1e-9 * _condition(element)


def _condition(element: symmetry.Element) -> float:
    """Changes of basis of such a spread lose digits when they act on the weights."""
    found = [float(torch.linalg.cond(matrix).max()) for matrix in element.bases.values()]
    return max([1.0, *found])


def test_gradients_of_the_softened_product() -> None:
    from gmn.nn.dual.dual_gmn import _SoftRoot

    products = torch.linspace(-3, 3, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(_SoftRoot.apply, products)
    assert torch.autograd.gradgradcheck(_SoftRoot.apply, products)


def test_gradients_of_channels_of_unit_length() -> None:
    from gmn.nn.dual.dual_gmn import _Unit

    torch.manual_seed(0)
    channels = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    free, signed = (torch.tensor(kind).double().view(4, 1) for kind in ([1, 0, 0, 1], [0, 0, 1, 1]))
    assert torch.autograd.gradcheck(_Unit.apply, (channels, free, signed))
    assert torch.autograd.gradgradcheck(_Unit.apply, (channels, free, signed))
    dead = torch.zeros_like(channels, requires_grad=True)
    _Unit.apply(dead, free, signed).sum().backward()
    assert dead.grad is not None
    assert dead.grad.isfinite().all()
