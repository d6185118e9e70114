"""Editing: edits transform like the networks, and start next to nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

import gmn
from gmn.nn import DualGMN, EditHead
from gmn.nn.dual.maps import PLACES
from gmn.testing import assert_equivariant, relative_error
from tests.cases import Case
from tests.traced import BY_NAME, graph_of, several_cases


def editing(copies: int = 1) -> DualGMN:
    torch.manual_seed(0)
    return DualGMN(16, 2, EditHead(copies)).double()


@several_cases
def test_equivariant_to_the_whole_group(case: Case) -> None:
    assert_equivariant(editing(), graph_of(case), scalings=True)


@several_cases
def test_every_parameter_can_change_and_statistics_stay(case: Case) -> None:
    graph = graph_of(case)
    with torch.no_grad():
        edited = editing()(graph)
    for entry in graph.spec.entries:
        change = (edited.values[entry.name].double() - graph.values[entry.name].double()).abs()
        if entry.parameter and entry.floating and change.numel():
            assert float(change.max()) > 0, entry.name
        else:
            assert not bool(change.any()), entry.name


def test_copies_are_edits_of_their_own() -> None:
    graph = graph_of(BY_NAME["mlp-sine"], 3)
    edited = editing(copies=2)(graph)
    assert len(edited) == 6
    name = graph.spec.entries[0].name
    assert relative_error(edited.values[name][:3], edited.values[name][3:]) > 1e-6


@pytest.mark.parametrize("name", ["mlp-sine", "cnn", "transformer"])
def test_gradients_reach_every_weight(name: str) -> None:
    net = editing()
    edited = net(graph_of(BY_NAME[name]))
    sum(v.square().sum() for v in edited.values.values() if v.requires_grad).backward()  # type: ignore[union-attr]
    missing = [n for n, p in net.named_parameters() if p.grad is None]
    elsewhere = (
        "fact",
        "group",
        "even",
        "summary",
        "pairing",
        "step",
    )  # of networks of other forms
    assert all(any(part in name for part in elsewhere) for name in missing)


RATE = 0.1
SAMPLES = 5


def stepping(channels: int = 8) -> DualGMN:
    """An editor on passes whose maps are set by hand, to a step along the gradient."""
    torch.manual_seed(0)
    net = DualGMN(2 * channels, 1, EditHead(1), passes=SAMPLES).double()
    layer, editor, passes = net.layers[0], net.editors[0], net.passes
    assert passes is not None
    with torch.no_grad():
        for parameter in net.parameters():  # the inputs that passes begin with are no parameters
            parameter.zero_()
        for kept in (passes.encoder.channels, passes.slopes, layer.keep_x, layer.keep_y):
            nn.init.eye_(kept.weight)
        layer.gates.bias.fill_(40.0)  # open
        for end in (editor.step_target, editor.step_source):  # of gradients, and of values
            nn.init.eye_(end.weight)
        editor.step_added.weight[0] = 1
        editor.codes.bias.fill_(1.0)
        editor.size.fill_(-RATE)
    return net


def samples(net: DualGMN, graph: gmn.ParameterGraph) -> tuple[Tensor, Tensor]:
    """What passes run: inputs and cotangents of a chain, each (samples, neurons)."""
    assert net.passes is not None
    spec, described = graph.spec, net.passes.descriptions.nodes(graph.spec).double()
    first = spec.node_sets[0].size, spec.node_sets[-1].size
    inputs = net.passes.inputs(nn.functional.pad(described[: first[0]], (0, PLACES)))
    return inputs.T, net.passes.cotangents(described[-first[1] :]).T


@pytest.mark.parametrize("name", ["mlp-tanh", "mlp-sine", "mlp-hardtanh", "mlp-gelu", "mlp-silu"])
def test_an_edit_can_be_a_step_of_training(name: str) -> None:
    """Where no sizes change: the step along the gradient of outputs times cotangents."""
    net, graph = stepping(), graph_of(BY_NAME[name]).to(dtype=torch.float64)
    with torch.no_grad():
        (inputs, cotangents), edited = samples(net, graph), net(graph)
    for network in range(len(graph)):
        state = {n: v[network].clone().requires_grad_() for n, v in graph.values.items()}
        outputs = functional_call(BY_NAME[name].model().double(), state, (inputs,))
        (outputs * cotangents).sum().backward()
        for entry, value in state.items():
            assert value.grad is not None
            step = edited.values[entry][network] - graph.values[entry][network]
            assert relative_error(step, -RATE * value.grad) < 1e-12, entry


def test_the_same_maps_leave_weights_alone_where_sizes_change() -> None:
    """Gradients by weights transform inversely to them there; a step would not move along."""
    graph = graph_of(BY_NAME["mlp-relu"]).to(dtype=torch.float64)
    with torch.no_grad():
        edited = stepping()(graph)
    for entry in graph.spec.entries:
        if "weight" in entry.name:
            assert torch.equal(edited.values[entry.name], graph.values[entry.name])
