"""The network's own passes, computed from its graph: equal to the module and to its gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

import converters
import gmn
from gmn.graph import pieces
from gmn.nn import DualGMN, EditHead
from gmn.nn.dual import maps, stream
from gmn.nn.dual.activations import activation_of
from gmn.nn.dual.maps import maps_of
from gmn.nn.dual.messages import GraphReading, messages
from gmn.nn.dual.passes import PassCodes
from gmn.nn.dual.plan import Plan, plan_of
from gmn.nn.dual.stream import blocks_of
from gmn.spec.parts import Operation, Role
from gmn.testing import assert_equivariant, assert_invariant, relative_error
from tests.cases import Case
from tests.traced import graph_of, several_cases

CHANNELS = 5


class Elementwise(nn.Module):
    """One function between two linear layers, and after the second."""

    def __init__(self, function: object) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(3, 6), nn.Linear(6, 4), nn.Linear(4, 2)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.function(self.second(self.function(self.first(x)))))


F = nn.functional
FUNCTIONS = {
    "relu": torch.relu,
    "leaky relu": lambda v: F.leaky_relu(v, 0.3),
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "log sigmoid": F.logsigmoid,
    "gelu": F.gelu,
    "gelu, by tanh": lambda v: F.gelu(v, approximate="tanh"),
    "silu": F.silu,
    "mish": F.mish,
    "elu": lambda v: F.elu(v, 0.7),
    "celu": lambda v: F.celu(v, 0.7),
    "selu": F.selu,
    "softplus": lambda v: F.softplus(v, 2.0),
    "hardtanh": F.hardtanh,
    "relu6": F.relu6,
    "clamp": lambda v: v.clamp(-0.3, 0.9),
    "clamp below": lambda v: v.clamp(min=-0.2),
    "sine": lambda v: torch.sin(3 * v),
    "cosine of sigmoid": lambda v: torch.cos(torch.sigmoid(v)),
    "exponential": torch.exp,
    "arctangent": torch.atan,
    "error function": torch.erf,
    "shifted": lambda v: torch.tanh(v + 0.3) - 0.5,
    "divided": lambda v: torch.sigmoid(v / 2),
    "sigmoid, then squared": lambda v: torch.sigmoid(v).square(),
    "twice": lambda v: torch.tanh(torch.tanh(v)),
    "sigmoid, to a power": lambda v: torch.sigmoid(v) ** 3,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_sweep_is_the_forward_and_the_backward_pass(name: str) -> None:
    torch.manual_seed(0)
    model = Elementwise(FUNCTIONS[name]).double()
    graph = random_networks(model, torch.zeros(1, 3).double())
    inputs = torch.randn(CHANNELS, 3, dtype=torch.float64)
    cotangents = torch.randn(CHANNELS, 2, dtype=torch.float64)
    x, y = swept(graph, inputs, cotangents)
    outputs, gradients = passed(model, graph, inputs, cotangents)
    assert relative_error(x["last"], outputs) < 1e-12
    # torch takes the inverse of celu's alpha in single precision for its gradient.
    assert relative_error(y["input"], gradients) < (1e-7 if name == "celu" else 1e-12)


class Strided(nn.Module):
    """As in small zoos: maps of 16, 8, 4 and 4 places, and their mean."""

    example = torch.zeros(1, 2, 16, 16)

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 5, 3, 2, 1), nn.Conv2d(5, 4, 3, 2, 1)
        self.third, self.last = nn.Conv2d(4, 6, 5, 1, 2), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.third(torch.tanh(self.second(torch.relu(self.first(x))))))
        return self.last(hidden.mean((2, 3)))


class Pooled(nn.Module):
    """As LeNet: no padding, pooling, groups, and a linear layer that reads a map."""

    example = torch.zeros(1, 1, 16, 16)

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 5), nn.Conv2d(4, 6, (1, 3), 1, (0, 1), groups=2)
        self.third, self.last = nn.Linear(6 * 9, 5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.max_pool2d(torch.relu(self.first(x)), 2)
        hidden = F.avg_pool2d(torch.relu(self.second(hidden)), (2, 2))
        return self.last(torch.relu(self.third(hidden.flatten(1))))


class Spread(nn.Module):
    """Dilation, a transposed convolution, and pooling to a given size."""

    example = torch.zeros(1, 1, 16, 16)

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 6, 3, 2, 2, 2)
        self.third, self.last = nn.ConvTranspose2d(6, 3, 4, 2, 1), nn.Linear(3 * 4, 2)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.second(torch.relu(self.first(x))))
        return self.last(F.adaptive_avg_pool2d(torch.relu(self.third(hidden)), 2).flatten(1))


class Sequences(nn.Module):
    """One dimension, and a convolution of width one that leaves places out."""

    example = torch.zeros(1, 2, 256)

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(2, 4, 7, 2, padding=3), nn.Conv1d(4, 4, 1, stride=3)
        self.last = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.second(torch.relu(self.first(x))))
        return self.last(F.adaptive_max_pool1d(hidden, 1).flatten(1))


@pytest.mark.parametrize("build", [Strided, Pooled, Spread, Sequences])
def test_passes_through_kernels_are_the_modules_on_images(build: type[Strided]) -> None:
    torch.manual_seed(0)
    model = build().double().eval()
    graph = random_networks(model, build.example.double())
    inputs = torch.randn(CHANNELS, *build.example.shape[1:], dtype=torch.float64)
    cotangents = torch.randn(CHANNELS, model.last.out_features, dtype=torch.float64)
    x, y = swept(graph, inputs, cotangents)
    outputs, gradients = passed(model, graph, inputs, cotangents)
    assert relative_error(x["last"], outputs) < 1e-12
    assert relative_error(y["input"].reshape(gradients.shape), gradients) < 1e-12


def test_larger_networks_see_smaller_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps, "PRODUCTS", 5000)  # a pass on 16 x 16 takes 23,000
    plan = plan_of(converters.trace(Strided(), (Strided.example,)), torch.device("cpu"))
    small = maps_of.__wrapped__(plan)
    side = small.grids[0][0]
    assert small.grids[0] == (side, side)
    assert 1 < side < 16
    assert small.image(0).tolist() == [16 * i + j for i in range(side) for j in range(side)]


@pytest.mark.parametrize(
    ("operations", "kind", "steps"),
    [
        ([Operation("relu")], "positive", 1),
        ([Operation("relu")], "sign", 0),
        ([Operation("relu"), Operation("pow", (("exponent", (2.0,)),))], "positive", 1),
        ([Operation("tanh")], "sign", 1),
        ([Operation("tanh")], "positive", 0),
        ([Operation("tanh")], "general", 0),
        ([Operation("mul", (("other", (30.0,)),)), Operation("sin")], "sign", 2),
        ([Operation("relu"), Operation("add"), Operation("relu")], "positive", 1),
        ([Operation("relu"), Operation("max_pool2d", (("stride", (2.0, 2.0)),))], "positive", 1),
        ([Operation("abs"), Operation("div")], "free", 0),  # a quotient of two branches
        ([Operation("no_such_operation"), Operation("relu")], "free", 0),
        ([Operation("relu", (("unheard_of", (2.0,)),))], "free", 0),
        ([Operation("hardtanh", (("max_val", (1.0,)), ("min_val", (-1.0,))))], "sign", 1),
        ([Operation("hardtanh", (("max_val", (6.0,)), ("min_val", (0.0,))))], "sign", 0),
        ([Operation("silu"), Operation("mul")], "free", 0),  # a gate
    ],
)
def test_channels_pass_what_commutes_with_the_group_and_is_understood(
    operations: list[Operation], kind: str, steps: int
) -> None:
    found = activation_of(operations, kind)
    assert (0 if found is None else len(found.steps)) == steps


class Normalised(nn.Module):
    """Attention and a hidden layer between normalisations without gains, as in small zoos."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.out = nn.Linear(3, 8), nn.Linear(8, 2)
        self.query, self.key, self.value, self.mix = (nn.Linear(8, 8) for _ in range(4))
        self.up, self.down, self.last = nn.Linear(8, 6), nn.Linear(6, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = F.layer_norm(self.down(torch.relu(self.up(F.layer_norm(self.embed(x), (8,))))), (8,))
        x = self.mix(F.scaled_dot_product_attention(self.query(x), self.key(x), self.value(x)))
        return self.out(self.last(F.layer_norm(x, (8,))))


def test_passes_cross_normalisations_whatever_signs_they_leave() -> None:
    """One position attends to itself, so the values of attention are all that passes it."""
    torch.manual_seed(0)
    model = Normalised().double()
    graph = random_networks(model, torch.zeros(1, 1, 3).double())
    inputs, cotangents = torch.randn(CHANNELS, 3).double(), torch.zeros(CHANNELS, 2).double()
    x, _ = swept(graph, inputs, cotangents)
    outputs, _ = passed(model, graph, inputs.unsqueeze(1), cotangents.unsqueeze(1))
    assert relative_error(x["out"], outputs.squeeze(1).transpose(1, 2)) < 1e-12


def reading_net() -> DualGMN:
    torch.manual_seed(0)
    net = DualGMN(16, 2, 3, passes=CHANNELS).double()
    for parameter in net.parameters():  # learned moves are zero at first
        parameter.data += torch.randn_like(parameter) / 30
    return net


@several_cases
def test_passes_keep_the_whole_group(case: Case) -> None:
    assert_invariant(reading_net(), graph_of(case), scalings=True)


@several_cases
def test_edits_move_along(case: Case) -> None:
    torch.manual_seed(0)
    net = DualGMN(16, 2, EditHead(1), passes=CHANNELS).double()
    assert_equivariant(net, graph_of(case), scalings=True)


@several_cases
def test_passes_of_streamed_blocks_are_those_of_held_ones(
    case: Case, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = graph_of(case).to(dtype=torch.float32)
    net = reading_net()
    with torch.no_grad():
        held = net(graph.to(dtype=torch.float64))
        monkeypatch.setattr(stream, "SMALL", 0)
        monkeypatch.setattr(pieces, "PIECE", 50)
        assert relative_error(net(graph), held) < 1e-9


@several_cases
def test_gradients_reach_the_learned_inputs(case: Case) -> None:
    net = reading_net()
    net(graph_of(case).to(dtype=torch.float64)).sum().backward()
    assert net.passes is not None
    for parameter in net.passes.parameters():
        assert parameter.grad is None or bool(parameter.grad.isfinite().all())


def test_other_functions_of_neurons_are_noticed() -> None:
    """Descriptions aside: the pass of ReLU neurons is not that of linear ones."""
    torch.manual_seed(0)
    graph = random_networks(Elementwise(torch.relu).double(), torch.zeros(1, 3).double())
    inputs, cotangents = torch.randn(2, CHANNELS, 3).double(), torch.zeros(CHANNELS, 2).double()
    active, _ = swept(graph, inputs[0], cotangents)
    linear, _ = swept(graph, inputs[0], cotangents, active=False)
    assert relative_error(active["last"], linear["last"]) > 1e-2


def random_networks(model: nn.Module, example: Tensor) -> gmn.ParameterGraph:
    """Two networks with random weights."""
    spec = converters.trace(model, (example,))
    states = [
        {name: torch.randn_like(v) / v[0].numel() ** 0.5 for name, v in model.state_dict().items()}
        for _ in range(2)
    ]
    return gmn.ParameterGraph.from_state_dicts(spec, states)


def swept(
    graph: gmn.ParameterGraph, inputs: Tensor, cotangents: Tensor, active: bool = True
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Values and gradients by node set (B, neurons, places * channels), from one sweep."""
    plan = plan_of(graph.spec, graph.device)
    found = maps_of(plan)
    reading = GraphReading.of(plan, blocks_of(graph, torch.float64))
    x, y = (
        [
            _at(plan, slot, end, values, found.places(slot)).expand(len(graph), -1, -1)
            for slot in range(len(plan.sizes))
        ]
        for end, values in (("input", inputs), ("output", cotangents))
    )
    codes = PassCodes(found, torch.float64)
    x, y = messages(reading, codes, x, y, sweeps=True, active=active)
    names = [slot.nodes for slot in plan.slots.slots]
    return tuple(dict(zip(names, v, strict=True)) for v in (x, y))


def _at(plan: Plan, slot: int, role: Role, values: Tensor, places: int) -> Tensor:
    """Values (channels, neurons, ...) at the neurons of a role: (1, neurons, places * c)."""
    if not plan.is_free(plan.slots.slots[slot], role):
        return values.new_zeros(1, plan.sizes[slot], places * len(values))
    return values.reshape(*values.shape[:2], -1).permute(1, 2, 0).flatten(1)[None]


def passed(
    model: nn.Module, graph: gmn.ParameterGraph, inputs: Tensor, cotangents: Tensor
) -> tuple[Tensor, Tensor]:
    """Outputs and gradients of the inputs, by the module and by autograd."""

    def run(state: dict[str, Tensor], values: Tensor) -> Tensor:
        return functional_call(model, state, (values,))

    states = {name: value.double() for name, value in graph.values.items()}
    batch = inputs.expand(len(graph), *inputs.shape).clone().requires_grad_()
    outputs = vmap(run)(states, batch)
    (gradients,) = torch.autograd.grad((outputs * cotangents).sum(), batch)
    return outputs.transpose(1, 2), gradients.flatten(2).transpose(1, 2)


def test_large_blocks_alone_are_streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No block is held: there is no bias."""
    monkeypatch.setattr(stream, "SMALL", 0)
    model = nn.Sequential(nn.Linear(3, 6, bias=False), nn.ReLU(), nn.Linear(6, 2, bias=False))
    graph = random_networks(model, torch.zeros(1, 3))
    with torch.no_grad():
        assert bool(reading_net()(graph).isfinite().all())


@pytest.mark.parametrize("size", [0.0, 1e-20, 10.0])
@several_cases
def test_answers_are_finite_at_small_and_large_weights(case: Case, size: float) -> None:
    graph = graph_of(case).to(dtype=torch.float32)
    scaled = {k: v * size if v.is_floating_point() else v for k, v in graph.values.items()}
    net = reading_net().float()
    answer = net(graph.replace(scaled))
    assert bool(answer.isfinite().all())
