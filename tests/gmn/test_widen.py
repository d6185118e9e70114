"""Widened networks compute what they did, with weights of their own."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise, product

import pytest
import torch
from torch import Tensor, nn

import converters
import gmn
from gmn.zoo.architectures.networks import network
from gmn.zoo.architectures.widen import widen
from tests.traced import slow_but

INPUTS = {"siren": (5, 2), "cnn-relu": (5, 1, 14, 14), "cnn-tanh": (5, 1, 14, 14)}


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def graph_of(modules: list[nn.Module], inputs: Tensor) -> gmn.ParameterGraph:
    spec = converters.trace(modules[0], (inputs,))
    return gmn.ParameterGraph.from_state_dicts(spec, [m.state_dict() for m in modules])


def assert_same_function(
    narrow: nn.Module, wide: nn.Module, graph: gmn.ParameterGraph, inputs: Tensor, number: int
) -> None:
    wide.load_state_dict(graph.to_state_dict(number))
    torch.testing.assert_close(wide(inputs), narrow(inputs), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("architecture", "widening"),
    slow_but(list(product(INPUTS, (2, 8))), [("siren", 8), ("cnn-relu", 8), ("cnn-tanh", 2)]),
)
def test_a_wider_network_is_the_same_function(architecture: str, widening: int) -> None:
    torch.manual_seed(0)
    narrow = [network(architecture).double() for _ in range(3)]
    inputs = torch.randn(INPUTS[architecture], dtype=torch.float64)
    graph, wide = graph_of(narrow, inputs), network(architecture, widening).double()
    wider = widen(graph, converters.trace(wide, (inputs,)), chance())
    sizes = zip(graph.spec.node_sets, wider.spec.node_sets, strict=True)
    assert all(b.size == a.size * (widening if a.role == "hidden" else 1) for a, b in sizes)
    for number, module in enumerate(narrow):
        assert_same_function(module, wide, wider, inputs, number)


def mixed(width: int) -> nn.Module:
    """Batch norm, depthwise convolution, flattening into places, unequal widening."""
    return nn.Sequential(
        nn.Conv2d(2, width, 3), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, width, 3, groups=width), nn.ELU(),
        nn.Flatten(), nn.Linear(4 * width, width + 1), nn.GELU(), nn.Linear(width + 1, 3),
    ).double()  # fmt: skip


def randomise(module: nn.Module) -> None:
    for value in module.state_dict().values():
        if value.is_floating_point():
            value.uniform_(0.3, 1.5)


def test_norms_depthwise_kernels_and_places_are_widened_too() -> None:
    narrow, wide, inputs = mixed(4).eval(), mixed(9).eval(), torch.randn(6, 2, 6, 6).double()
    randomise(narrow)
    wider = widen(graph_of([narrow], inputs), converters.trace(wide, (inputs,)), chance())
    assert_same_function(narrow, wide, wider, inputs, 0)


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.middle = nn.Linear(2, width), nn.Linear(width, width)
        self.last = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return self.last(torch.tanh(x + torch.relu(self.middle(x))))


def test_a_residual_stream_is_widened_in_all_its_readers_and_writers() -> None:
    torch.manual_seed(0)
    narrow, wide, inputs = Residual(4).double(), Residual(12).double(), torch.randn(6, 2).double()
    wider = widen(graph_of([narrow], inputs), converters.trace(wide, (inputs,)), chance())
    assert_same_function(narrow, wide, wider, inputs, 0)


def test_copies_have_weights_of_their_own_unless_shares_are_equal() -> None:
    torch.manual_seed(0)
    inputs = torch.zeros(3, 2)
    graph = graph_of([network("siren")], inputs)
    wide = converters.trace(network("siren", 3), (inputs,))
    random, equal = widen(graph, wide, chance()), widen(graph, wide, chance(), spread=0)
    # Weights are by origin: each of the 32 first neurons is there three times.
    assert len(equal.values["layer1.bias"][0].unique()) == 32
    assert len(equal.values["layer2.weight"][0].unique(dim=1).T) == 32
    assert len(random.values["layer2.weight"][0].unique(dim=1).T) == 96
    assert len(random.values["layer2.weight"][0].unique(dim=0)) == 96
    assert random.dtype == torch.float32
    again = widen(graph, wide, chance())
    assert torch.equal(again.values["layer2.weight"], random.values["layer2.weight"])


class Normed(nn.Module):
    """The norm's mean and variance do not see copies, but only if all have equally many."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.norm, self.last = (
            nn.Linear(2, width), nn.LayerNorm(width), nn.Linear(width, 3),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.norm(self.first(x))))


class Softmaxed(Normed):
    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x).softmax(-1))


@pytest.mark.parametrize(("make", "width"), [(Normed, 7), (Softmaxed, 10)])
def test_networks_that_see_the_number_of_copies_are_refused(make: type, width: int) -> None:
    torch.manual_seed(0)
    inputs = torch.randn(6, 2)
    graph = graph_of([make(5)], inputs)
    with pytest.raises(ValueError, match="the wider network answers differently"):
        widen(graph, converters.trace(make(width), (inputs,)), chance())


def test_equally_many_copies_do_not_disturb_a_norm() -> None:
    torch.manual_seed(0)
    narrow, wide, inputs = Normed(5).double(), Normed(15).double(), torch.randn(6, 2).double()
    wider = widen(graph_of([narrow], inputs), converters.trace(wide, (inputs,)), chance())
    assert_same_function(narrow, wide, wider, inputs, 0)


def mlp(*sizes: int) -> nn.Module:
    layers = [module for pair in pairwise(sizes) for module in (nn.Linear(*pair), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


@pytest.mark.parametrize(
    ("wide", "reason"),
    [
        ((2, 4, 3), "0 has 6 neurons and 4 in the wider network"),
        ((2, 12, 6), "2 has 3 neurons and 6 in the wider network"),
        ((2, 12, 12, 3), "another architecture"),
    ],
)
def test_what_is_no_widening_is_refused(wide: tuple[int, ...], reason: str) -> None:
    inputs = torch.randn(4, 2)
    with pytest.raises(ValueError, match=reason):
        widen(graph_of([mlp(2, 6, 3)], inputs), converters.trace(mlp(*wide), (inputs,)), chance())


def test_tied_weights_and_networks_without_a_program_are_refused() -> None:
    class Tied(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(2, width), nn.Linear(width, 2)
            self.middle, self.again = nn.Linear(width, width), nn.Linear(width, width)
            self.again.weight = self.middle.weight

        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(self.middle(torch.relu(self.first(x))))
            return self.last(torch.relu(self.again(x)))

    inputs = torch.randn(4, 2)
    with pytest.raises(ValueError, match=r"middle\.weight@2 is tied"):
        widen(graph_of([Tied(3)], inputs), converters.trace(Tied(6), (inputs,)), chance())
    graph = graph_of([mlp(2, 3, 2)], inputs)
    bare = gmn.ParameterGraph(replace(graph.spec, program=None), graph.values)
    with pytest.raises(ValueError, match="need programs"):
        widen(bare, converters.trace(mlp(2, 6, 2), (inputs,)), chance())


def test_both_networks_are_traced_with_inputs_of_one_shape() -> None:
    graph = graph_of([mlp(2, 3, 2)], torch.zeros(4, 2))
    with pytest.raises(ValueError, match=r"the same shapes: \[\(4, 2\)\]"):
        widen(graph, converters.trace(mlp(2, 6, 2), (torch.zeros(3, 2),)), chance())
