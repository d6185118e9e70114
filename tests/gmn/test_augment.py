"""Augmentations: moved coordinates move the image, group elements leave the function."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import converters
import gmn
from gmn.augment import MovedCoordinates, Rescaled, SampledSymmetry, move_coordinates
from gmn.zoo.architectures.networks import Siren
from gmn.zoo.images import pixel_grid
from gmn.zoo.training.fitting import initial_state
from tests.traced import BY_NAME, graph_of


class TwoReaders(nn.Module):
    """Two layers read the coordinates."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 8), nn.Linear(3, 8)
        self.last, self.other = nn.Linear(8, 2), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.first(x))) * self.other(torch.tanh(self.second(x)))


def sirens(count: int) -> tuple[nn.Module, gmn.ParameterGraph]:
    module = Siren().double()
    spec = converters.trace(module, (torch.zeros(5, 2).double(),))
    states = [
        initial_state(module, torch.Generator().manual_seed(n), torch.float64) for n in range(count)
    ]
    return module, gmn.ParameterGraph.from_state_dicts(spec, states)


def run(module: nn.Module, graph: gmn.ParameterGraph, points: Tensor) -> Tensor:
    """Outputs (B, points, outputs) of the networks at points of their own, (B, points, inputs)."""
    outputs = []
    for number, own in enumerate(points):
        module.load_state_dict(graph.to_state_dict(number))
        outputs.append(module(own).detach())
    return torch.stack(outputs)


@pytest.mark.parametrize("make", [Siren, TwoReaders])
def test_moved_networks_are_the_networks_at_moved_points(make: Callable[[], nn.Module]) -> None:
    torch.manual_seed(0)
    inputs = 2 if make is Siren else 3
    modules = [make().double() for _ in range(4)]
    points = torch.randn(4, 7, inputs, dtype=torch.float64)
    spec = converters.trace(modules[0], (points[0],))
    graph = gmn.ParameterGraph.from_state_dicts(spec, [m.state_dict() for m in modules])
    matrix = torch.randn(4, inputs, inputs, dtype=torch.float64)
    shift = torch.randn(4, inputs, dtype=torch.float64)
    moved = run(modules[0], move_coordinates(graph, matrix, shift), points)
    there = run(modules[0], graph, points @ matrix.mT + shift.unsqueeze(1))
    torch.testing.assert_close(moved, there, rtol=0, atol=1e-10)
    assert not torch.allclose(moved, run(modules[0], graph, points), atol=1e-2)


def test_a_quarter_turn_turns_the_image_and_a_pixel_of_shift_shifts_it() -> None:
    module, graph = sirens(2)
    grid = pixel_grid(14, 14).double().expand(2, -1, -1)
    image = run(module, graph, grid).view(2, 14, 14)
    quarter, none = torch.tensor([[0.0, -1.0], [1.0, 0.0]]), torch.zeros(2)
    turned = run(module, move_coordinates(graph, quarter, none), grid).view(2, 14, 14)
    # What is seen at (x, y) lies at (-y, x) of the original.
    torch.testing.assert_close(turned, image.rot90(1, (1, 2)))
    right = torch.tensor([2 / 14, 0.0])
    shifted = run(module, move_coordinates(graph, torch.eye(2), right), grid).view(2, 14, 14)
    torch.testing.assert_close(shifted[:, :, :-1], image[:, :, 1:], rtol=0, atol=1e-5)


def test_random_moves_stay_within_their_limits() -> None:
    _, graph = sirens(200)
    augment = MovedCoordinates(rotation=0.2, zoom=0.1, shift=0.3)
    moved = augment(graph, torch.Generator().manual_seed(0))
    first, bias = graph.values["layer1.weight"], graph.values["layer1.bias"]
    matrix = torch.linalg.pinv(first) @ moved.values["layer1.weight"]
    shift = torch.linalg.pinv(first) @ (moved.values["layer1.bias"] - bias).unsqueeze(2)
    zoom = matrix.norm(dim=1)
    angle = torch.atan2(matrix[:, 1, 0], matrix[:, 0, 0])
    for values, limit in ((shift, 0.3), (zoom.log(), 0.1), (angle, 0.2)):
        assert 0.95 * limit < float(values.abs().max()) <= limit + 1e-6
        assert abs(float(values.mean())) < 0.2 * limit
    # Rotations keep axes orthogonal.
    assert float((matrix[:, :, 0] * matrix[:, :, 1]).sum(1).abs().max()) < 1e-6
    for name in ("layer2.weight", "layer2.bias", "layer3.weight"):
        assert torch.equal(graph.values[name], moved.values[name])


def test_chance_comes_from_the_generator_alone() -> None:
    _, graph = sirens(3)
    for augment in (MovedCoordinates(), SampledSymmetry()):
        one, same, other = (augment(graph, torch.Generator().manual_seed(s)) for s in (1, 1, 2))
        weight = "layer1.weight"
        assert torch.equal(one.values[weight], same.values[weight])
        assert not torch.equal(one.values[weight], other.values[weight])


def test_sampled_symmetries_keep_the_function() -> None:
    module, graph = sirens(3)
    grid = pixel_grid(5, 5).double().expand(3, -1, -1)
    moved = SampledSymmetry()(graph, torch.Generator().manual_seed(3))
    assert not torch.equal(moved.values["layer2.weight"], graph.values["layer2.weight"])
    torch.testing.assert_close(run(module, moved, grid), run(module, graph, grid))


def test_gradients_reach_the_weights() -> None:
    _, graph = sirens(2)
    weight = graph.values["layer1.weight"].requires_grad_()
    turn = torch.tensor([[math.cos(1), -math.sin(1)], [math.sin(1), math.cos(1)]])
    moved = move_coordinates(graph.replace({"layer1.weight": weight}), turn, torch.ones(2))
    (moved.values["layer1.weight"].sum() + moved.values["layer1.bias"].sum()).backward()
    assert weight.grad is not None
    assert bool(weight.grad.abs().min() > 0)


def test_augmentations_can_be_sent_to_workers_and_say_what_they_do() -> None:
    augment = MovedCoordinates(rotation=0.3)
    assert pickle.loads(pickle.dumps(augment)) == augment
    assert "rotation=0.3" in repr(augment)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle = nn.Linear(2, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        return torch.sin(x + torch.sin(self.middle(x)))


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.first(torch.sin(x))


@pytest.mark.parametrize(
    ("module", "shape", "reason"),
    [
        (nn.Conv2d(1, 4, 3), (1, 1, 5, 5), "weight reads the coordinates.*it is conv"),
        (nn.Linear(2, 3, bias=False), (4, 2), "weight reads.*nothing writes"),
        (Residual(), (4, 2), r"first\.weight reads.*middle\.weight, middle\.bias writes to first"),
        (Scaled(), (4, 2), "pass through sin before"),
    ],
)
def test_what_cannot_be_moved_is_refused(
    module: nn.Module, shape: tuple[int, ...], reason: str
) -> None:
    graph = converters.to_graph(module, (torch.zeros(shape),))
    with pytest.raises(ValueError, match=reason):
        move_coordinates(graph, torch.eye(2), torch.zeros(2))


@pytest.mark.parametrize("name", ["mlp-relu", "mlp-tanh", "cnn"])
def test_rescaled_networks_compute_the_same(name: str) -> None:
    case, graph = BY_NAME[name], graph_of(BY_NAME[name])
    moved = Rescaled(1e4)(graph, torch.Generator().manual_seed(0))
    ratios = []
    for number in range(len(graph)):
        module, inputs = case.model(), case.example()
        answers = []
        for some in (graph, moved):
            module.load_state_dict(some.to_state_dict(number))
            answers.append(module.double().eval()(*inputs).detach())
        torch.testing.assert_close(answers[1], answers[0], rtol=1e-8, atol=1e-10)
        weight = next(e.parameter for e in graph.spec.edge_sets if e.kind == "weight")
        ratios.append(moved.values[weight][number] / graph.values[weight][number])
    assert not torch.equal(ratios[0], ratios[1])
    if name == "mlp-tanh":
        assert {float(r) for r in ratios[0].flatten().round()} == {-1.0, 1.0}
    else:
        assert ratios[0].min() >= 1
        assert 1e2 < ratios[0].max() <= 1e4


def test_a_reach_of_one_changes_nothing() -> None:
    graph = graph_of(BY_NAME["mlp-relu"])
    assert Rescaled(1)(graph, torch.Generator()) is graph
