"""Programs: the forward function as data does what the module does, for many networks at once."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import converters
import gmn
from converters.rules import RULES
from gmn.spec.operations import function_of
from gmn.spec.program import Call, Program, ProgramError, _looped
from tests.cases import CASES, Case
from tests.traced import COVERING, covering_cases, graph_of, spec_of


def program_of(case: Case) -> Program:
    program = spec_of(case.name).program
    assert program is not None
    return program


def several(inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """Three runs' worth of inputs."""
    factors = (1, 2, -1)
    return [
        torch.stack([v * f for f in factors]) if v.is_floating_point() else v.expand(3, *v.shape)
        for v in inputs
    ]


@covering_cases
def test_a_run_is_the_forward_pass(case: Case) -> None:
    model, inputs, program = case.model(), case.example(), program_of(case)
    with torch.no_grad():
        values = program.run(model.state_dict(), inputs)
        answers = [a for a in pytree.tree_leaves(model(*inputs)) if isinstance(a, Tensor)]
    last = [o.value for o in program.observations if o.reader is None]
    for name in last:
        assert any(
            values[name].shape == a.shape and torch.allclose(values[name], a, rtol=1e-12)
            for a in answers
        )
    assert last or case.name == "cosines"  # whose output ranges over no neurons


@covering_cases
def test_all_networks_at_once_are_one_after_the_other(case: Case) -> None:
    program, graph, inputs = program_of(case), graph_of(case), several(case.example())
    names = [observation.value for observation in program.observations]

    def one(state: dict[str, Tensor], _: object, *given: Tensor) -> tuple[Tensor, ...]:
        values = program.run(state, given)
        return tuple(values[name] for name in names)

    with torch.no_grad():
        fast = program.observe(graph.values, inputs)
        slow = _looped(one, graph.values, {}, inputs)
    for observation, found, expected in zip(program.observations, fast, slow, strict=True):
        size = graph.spec.node_set(observation.nodes).size
        assert found.shape[:2] == (2, 3)
        assert found.shape[-1] == size
        torch.testing.assert_close(found, observation.read(expected), rtol=1e-10, atol=1e-12)


@covering_cases
def test_neurons_move_with_their_observations(case: Case) -> None:
    """Under permutations alone, what is seen of hidden neurons moves, and outputs stay."""
    spec, program, graph = spec_of(case.name), program_of(case), graph_of(case, 1)
    element = gmn.symmetry.sample(
        spec, torch.Generator().manual_seed(0), symmetries=("permutations",)
    )
    moved = element.act_on_graph(graph)
    with torch.no_grad():
        before = program.observe(graph.values, several(case.example()))
        after = program.observe(moved.values, several(case.example()))
    for observation, one, other in zip(program.observations, before, after, strict=True):
        if observation.reader is None:
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
        else:  # as sets, they are the same
            torch.testing.assert_close(
                one.sort(dim=-1).values, other.sort(dim=-1).values, rtol=1e-9, atol=1e-9
            )


def test_a_program_is_written_with_its_spec() -> None:
    for name in COVERING:
        spec = spec_of(name)
        again = gmn.GraphSpec.from_json(spec.to_json())
        assert again.program == spec.program
        without = replace(spec, program=None)
        assert without == spec
        assert without.fingerprint == spec.fingerprint


def test_large_constants_are_left_out() -> None:
    class Large(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(100, 100)
            self.register_buffer("mask", torch.rand(100, 100), persistent=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x) * self.mask

    assert converters.trace(Large(), (torch.zeros(100, 100),)).program is None


def test_a_program_touches_no_files() -> None:
    program = Program((), (), (), (Call("x", "from_file.default", '[["/etc/hostname"], {}]'),), ())
    with pytest.raises(ProgramError, match="no operation that a program may call"):
        program.run({}, ())


def test_inputs_of_another_shape_are_refused() -> None:
    graph = graph_of(CASES[0])
    assert graph.spec.program is not None
    with pytest.raises(ProgramError, match=r"this network takes \[\('k', 5, 3\)\]"):
        graph.spec.program.observe(graph.values, [torch.zeros(5, 3)])


def test_programs_may_call_all_operations_that_have_rules() -> None:
    for name in RULES:
        if "::" not in name and hasattr(torch.ops.aten, name):  # some are of functions in Python
            function_of(f"{name}.{getattr(torch.ops.aten, name).overloads()[0]}")
