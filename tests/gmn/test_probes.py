"""Probes: answers of hidden neurons transform like the neurons, so nothing else changes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import converters
import gmn
from gmn.errors import ArgumentError
from gmn.nn import DualGMN, EditHead, Probes
from gmn.nn.dual.plan import plan_of
from gmn.nn.dual.probes import ProbeResponses, program_of
from gmn.nn.heads import Head
from gmn.spec.program import ProgramError
from gmn.testing import assert_equivariant, assert_invariant, relative_error
from tests.cases import CASES, Case
from tests.traced import BY_NAME, graph_of, several_cases, spec_of


def asking(case: Case, head: Head = 3, backward: bool = False) -> DualGMN:
    torch.manual_seed(0)
    inputs, cotangents = case.example(), None
    initial = [
        torch.randn(3, *v.shape) if v.is_floating_point() else v.expand(3, *v.shape) for v in inputs
    ]
    if backward:
        cotangents = [torch.randn(3, *one.shape) for one in program_of(spec_of(case.name)).outputs]
    return DualGMN(16, 2, head, Probes(*initial, cotangents=cotangents)).double()


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@several_cases
def test_invariant_to_the_whole_group(case: Case, backward: bool) -> None:
    assert_invariant(asking(case, backward=backward), graph_of(case), scalings=True)


@several_cases
def test_edits_move_along(case: Case) -> None:
    net = asking(case, EditHead(1), backward=True)
    assert_equivariant(net, graph_of(case), scalings=True)


# Where no answer reaches the net's own: seen neurons share one scale, which nothing else has; and
# where the network writes into what it has already read, which no gradient survives.
MUTE, WRITES = ("cosines",), ("overwritten",)


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@several_cases
def test_answers_matter_and_gradients_reach_probes(case: Case, backward: bool) -> None:
    if case.name in MUTE + WRITES:
        return
    net, graph = asking(case, backward=backward), graph_of(case)
    answer = net(graph)
    answer.sum().backward()
    assert net.probes is not None
    for probe in net.probes.moves.parameters():
        assert probe.grad is not None
    for probe in net.probes.parameters():
        assert probe.grad is None or bool(probe.grad.isfinite().all())
    with torch.no_grad():
        for probe in net.probes.parameters():
            probe.add_(torch.randn_like(probe) / 30)
        assert relative_error(net(graph), answer) > 1e-8 or not list(net.probes.moves.parameters())


def test_networks_that_cannot_be_run_are_refused() -> None:
    case = CASES[0]
    graph = graph_of(case)
    bare = gmn.ParameterGraph(replace(graph.spec, program=None), graph.values)
    with pytest.raises(ProgramError, match="has no program"):
        asking(case)(bare)


def test_probes_of_unequal_number_are_refused() -> None:
    with pytest.raises(ValueError, match="all of length k"):
        Probes(torch.zeros(2, 3), torch.zeros(3, 3))


@pytest.mark.parametrize("name", ["mlp-relu", "cnn", "transformer"])
def test_gradients_are_those_of_autograd(name: str) -> None:
    """What hooks on the module see: inputs of layers, and gradients by them."""
    graph = graph_of(BY_NAME[name]).to(dtype=torch.float64)
    net = asking(BY_NAME[name], backward=True)
    answers = responses(net, graph)
    assert net.probes is not None
    assert net.probes.cotangents is not None
    with torch.no_grad():
        (inputs,), (cotangents,) = net.probes.inputs(), net.probes.cotangents.now()
    readers = plan_of(graph.spec, graph.device).readers
    hidden = [one.reader for one in program_of(graph.spec).observations if one.reader in readers]
    assert len(hidden) == len(answers.hidden) == len(answers.slopes) > 1
    model = BY_NAME[name].model().double()
    read: dict[str, Tensor] = {}
    for reader in hidden:

        def keep(_: nn.Module, given: tuple[Tensor], reader: str = reader) -> None:
            given[0].retain_grad()
            read[reader] = given[0]

        model.get_submodule(reader.removesuffix(".weight")).register_forward_pre_hook(keep)
    for network in range(len(graph)):
        model.load_state_dict({n: v[network] for n, v in graph.values.items()})
        for probe in range(len(inputs)):
            read.clear()
            (model(inputs[probe]) * cotangents[probe]).sum().backward()
            for reader, (port, value), (inverse, slope) in zip(
                hidden, answers.hidden, answers.slopes, strict=True
            ):
                seen, gradient = read[reader], read[reader].grad
                assert gradient is not None
                places = [0, 2, 3] if seen.dim() == 4 else list(range(seen.dim() - 1))
                assert inverse == port.inverse()
                assert relative_error(value[network, :, probe], seen.mean(places).flatten()) < 1e-12
                expected = gradient.sum(places).flatten()
                assert relative_error(slope[network, :, probe], expected) < 1e-12


def responses(net: DualGMN, graph: gmn.ParameterGraph) -> ProbeResponses:
    assert net.probes is not None
    return net.probes(graph, plan_of(graph.spec, graph.device))


@pytest.mark.parametrize("name", ["mlp-tanh", "cnn", "transformer-rms", "recurrent-gru"])
def test_answers_are_differentiated_right(name: str) -> None:
    """Along random directions of probes, cotangents and weights, against differences."""
    graph = graph_of(BY_NAME[name]).to(dtype=torch.float64)
    net = asking(BY_NAME[name], backward=True)
    assert net.probes is not None
    weights = {n: v.clone().requires_grad_() for n, v in graph.values.items()}
    for one in (list(net.probes.parameters()), list(weights.values())):
        directions = [torch.randn_like(value) for value in one]
        gradients = torch.autograd.grad(net(graph.replace(weights)).sum(), one)
        found = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True))
        ends, step = [], 1e-6
        for sign in (1, -1):
            with torch.no_grad():
                for value, direction in zip(one, directions, strict=True):
                    value += sign * step * direction
                ends.append(net(graph.replace(weights)).sum())
                for value, direction in zip(one, directions, strict=True):
                    value -= sign * step * direction
        expected = (ends[0] - ends[1]) / (2 * step)
        assert abs(found - expected) < 1e-6 * (1 + abs(expected))


def test_gradients_tell_apart_what_answers_do_not() -> None:
    """Outgoing weights that no probe meets: values of all neurons stay, the gradients do not."""
    torch.manual_seed(0)
    hidden, last = nn.Linear(3, 6), nn.Linear(6, 2)
    model = nn.Sequential(hidden, nn.Tanh(), last).double()
    spec = converters.trace(model, (torch.zeros(1, 3).double(),))
    probes = Probes.like(spec, 4, cotangents=True).double()
    with torch.no_grad():
        met = hidden(probes.inputs()[0].squeeze(1)).tanh()  # 4 probes of 6 neurons
    state = model.state_dict()
    other = {**state, "2.weight": last.weight.detach() + torch.linalg.svd(met).Vh[-1]}
    graphs = [gmn.ParameterGraph.from_state_dicts(spec, [values]) for values in (state, other)]
    one, two = (probes(graph, plan_of(spec, graph.device)) for graph in graphs)
    for before, after in zip((*one.hidden, *one.output), (*two.hidden, *two.output), strict=True):
        assert relative_error(before[1], after[1]) < 1e-12
    assert relative_error(one.slopes[0][1], two.slopes[0][1]) > 1e-2


def cross_entropy(outputs: list[Tensor]) -> Tensor:
    """That all places are of the first class."""
    (logits,) = outputs
    return -logits.log_softmax(-1)[..., 0].mean(-1)


def test_a_loss_on_given_data_in_place_of_cotangents() -> None:
    case, data = BY_NAME["mlp-relu"], torch.randn(4, 5, 3)
    probes = Probes(data, cotangents=cross_entropy).requires_grad_(False)
    net, graph = DualGMN(16, 2, 3, probes).double(), graph_of(case).to(dtype=torch.float64)
    assert_invariant(net, graph, scalings=True)
    net(graph).sum().backward()
    assert all(parameter.grad is None for parameter in probes.parameters())
    model = case.model(1).double()
    read: list[Tensor] = []
    model.get_submodule("4").register_forward_pre_hook(lambda _, given: read.extend(given))
    loss = cross_entropy([model(data[2].double())[None, None]])
    (expected,) = torch.autograd.grad(loss, read)
    found = responses(net, graph).slopes[1][1][1, :, 2]
    assert relative_error(found, expected.sum(0)) < 1e-12


def test_losses_and_cotangents_of_other_shapes_are_refused() -> None:
    graph = graph_of(BY_NAME["mlp-relu"]).to(dtype=torch.float64)
    plan, data = plan_of(graph.spec, graph.device), torch.randn(4, 5, 3)
    with pytest.raises(ArgumentError, match=r"one number per network and probe, \(2, 4\)"):
        Probes(data, cotangents=lambda outputs: outputs[0].mean())(graph, plan)
    with pytest.raises(ProgramError, match=r"outputs of \[\(5, 2\)\]"):
        Probes(data, cotangents=[torch.randn(4, 5, 3)])(graph, plan)
    with pytest.raises(ValueError, match="all of length k"):
        Probes(data, cotangents=[torch.randn(3, 5, 2)])
    with pytest.raises(ArgumentError, match="cotangents is True; give tensors"):
        Probes(data, cotangents=True)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="give True, False or a loss"):
        Probes.like(graph.spec, 4, [torch.randn(4, 5, 2)])  # type: ignore[arg-type]


class Underivable(nn.Module):
    """A function of which torch has no derivative, after hidden neurons."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(3, 6), nn.Linear(6, 4), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(torch.relu(self.first(x))).abs() + 1
        return self.last(torch.special.gammainc(x, torch.ones_like(x)))


def test_networks_without_derivatives_are_refused() -> None:
    spec = converters.trace(Underivable(), (torch.zeros(1, 3),))
    graph = gmn.ParameterGraph.from_state_dicts(spec, [Underivable().state_dict()])
    assert bool(DualGMN(16, 1, 1, Probes.like(spec, 4))(graph).isfinite().all())
    with pytest.raises(ProgramError, match="use probes without cotangents"):
        DualGMN(16, 1, 1, Probes.like(spec, 4, cotangents=True))(graph)


def test_gradients_are_the_same_without_recording_them() -> None:
    net, graph = asking(BY_NAME["cnn"], backward=True), graph_of(BY_NAME["cnn"])
    answer = net(graph)
    for mode in (torch.no_grad(), torch.inference_mode()):
        with mode:
            found = net(graph.to(dtype=torch.float64))
        assert not found.requires_grad
        assert relative_error(found, answer) < 1e-12
    assert len(net(graph[:0])) == 0


def test_programs_that_write_into_their_values_get_no_gradients() -> None:
    """Adding to a value makes another, so nothing would be written where it was."""
    graph = graph_of(BY_NAME["mlp-relu"]).to(dtype=torch.float64)
    program = program_of(graph.spec)
    calls = [replace(c, operation=c.operation.replace("relu.", "relu_.")) for c in program.calls]
    spec = replace(graph.spec, program=replace(program, calls=tuple(calls)))
    net = asking(BY_NAME["mlp-relu"], backward=True)
    answers, plain = responses(net, gmn.ParameterGraph(spec, graph.values)), responses(net, graph)
    for found, expected in zip(answers.hidden, plain.hidden, strict=True):
        assert relative_error(found[1], expected[1]) < 1e-12
    assert not any(bool(slope.any()) for _, slope in answers.slopes)
    assert all(bool(slope.any()) for _, slope in plain.slopes)


def test_states_of_probes_without_cotangents_are_what_they_were() -> None:
    spec = spec_of("mlp-relu")
    net = DualGMN(16, 2, 3, Probes.like(spec, 4))
    assert {n for n in net.state_dict() if n.startswith("probes")} == {
        "probes.start0",
        "probes.moves.0",
    }
    assert not any("slopes" in name for name in net.state_dict())
    both = [DualGMN(16, 2, 3, Probes.like(spec, 4, cotangents=True)) for _ in range(2)]
    both[1].load_state_dict(both[0].state_dict())
    graph = graph_of(BY_NAME["mlp-relu"])
    assert torch.equal(both[0](graph), both[1](graph))


@pytest.mark.parametrize("name", ["cnn", "recurrent-gru"])
def test_programs_run_no_networks(name: str) -> None:
    graph = graph_of(BY_NAME[name])
    assert graph.spec.program is not None
    inputs = [torch.rand(3, *given.shape).double() for given in graph.spec.program.inputs]
    some = graph.spec.program.observe(graph.values, inputs)
    none = graph.spec.program.observe(graph[:0].values, inputs)
    assert [value.shape for value in none] == [(0, *value.shape[1:]) for value in some]
