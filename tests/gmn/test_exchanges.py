"""Metanetworks do not mind which branch is which, but mind what goes with what."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import nn

import converters
from gmn import symmetry
from gmn.canonical import canonical
from gmn.errors import UnsupportedArchitecture
from gmn.graph import ParameterGraph
from gmn.nn import (
    GMN,
    DualGMN,
    EditHead,
    InvariantHead,
    NeuralGraphGNN,
    NeuralGraphTransformer,
    ScaleGMN,
)
from gmn.testing import assert_equivariant, assert_invariant, relative_error
from tests import branches
from tests.branches import Exchangeable
from tests.traced import slow_beyond, slow_but

NETS = {
    net.__name__: net for net in (GMN, DualGMN, NeuralGraphGNN, NeuralGraphTransformer, ScaleGMN)
}
WHOLE = (DualGMN,)  # invariant to all continuous symmetries
alike = pytest.mark.parametrize("case", slow_beyond(branches.ALIKE, branches.TYPICAL))
OFTEN = ("GMN", "DualGMN")
every_net = pytest.mark.parametrize("name", slow_but(NETS, OFTEN))
ONE_OF_BOTH = dict(zip(branches.TYPICAL, 3 * OFTEN, strict=True))
alike_and_net = pytest.mark.parametrize(
    ("name", "case"),
    [
        pytest.param(
            name,
            case,
            marks=() if ONE_OF_BOTH.get(case.name) == name else pytest.mark.slow,
            id=f"{name}-{case.name}",
        )
        for name in NETS
        for case in branches.ALIKE
    ],
)


@cache
def graph_of(name: str) -> ParameterGraph:
    """Two networks of random weights."""
    case = next(case for case in branches.ALIKE if case.name == name)
    states = []
    for seed in range(2):
        torch.manual_seed(seed)
        state = case.model().state_dict()
        states.append(
            {
                name: torch.rand_like(value) + 0.5
                if "running_var" in name
                else torch.randn_like(value)
                if value.is_floating_point()
                else value
                for name, value in state.items()
            }
        )
    spec = converters.trace(case.model(), case.inputs(), experiment=False)
    return ParameterGraph.from_state_dicts(spec, states)


def net_of(name: str, head: InvariantHead | EditHead | None = None) -> nn.Module:
    torch.manual_seed(0)
    return NETS[name](16, 2, head).double().eval()  # type: ignore[no-any-return,operator]


@alike_and_net
def test_answers_do_not_depend_on_the_order_of_branches(name: str, case: Exchangeable) -> None:
    try:
        assert_invariant(net_of(name), graph_of(case.name), symmetries=("exchanges",))
    except UnsupportedArchitecture:
        assert name == "ScaleGMN"


@alike
def test_answers_do_not_depend_on_anything_that_keeps_the_function(case: Exchangeable) -> None:
    assert_invariant(net_of("DualGMN"), graph_of(case.name), scalings=True, tolerance=1e-6)


@alike_and_net
def test_edits_move_with_branches(name: str, case: Exchangeable) -> None:
    try:
        net = net_of(name, EditHead())
        assert_equivariant(net, graph_of(case.name), symmetries=("exchanges",))
    except UnsupportedArchitecture:
        assert name == "ScaleGMN"


@every_net
def test_which_output_of_a_router_goes_with_which_expert_is_seen(name: str) -> None:
    graph, net = graph_of("router"), net_of(name)
    entries = ("others.router.weight", "others.router.bias")
    moved = {entry: graph.values[entry].roll(1, dims=1) for entry in entries}
    with torch.no_grad():
        answers = [net(each) for each in (graph, graph.replace({**graph.values, **moved}))]
    assert relative_error(answers[1], answers[0]) > 1e-6


@pytest.mark.parametrize(
    "case", slow_beyond(branches.ALIKE, set(branches.TYPICAL) - {"convolutions"})
)
def test_canonical_forms_move_with_branches(case: Exchangeable) -> None:
    graph = graph_of(case.name)
    element = symmetry.sample(
        graph.spec, torch.Generator().manual_seed(0), symmetries=("exchanges",)
    )
    one, other = canonical(element.act_on_graph(graph)), element.act_on_graph(canonical(graph))
    for name, value in one.values.items():
        torch.testing.assert_close(value, other.values[name], rtol=1e-6, atol=1e-6)
