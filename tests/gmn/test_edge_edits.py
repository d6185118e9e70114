"""Edits of GMN, Neural Graphs and ScaleGMN: they transform like the networks, and differ."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import nn

import converters
import gmn
from gmn import registry
from gmn.errors import UnsupportedArchitecture
from gmn.nn import GMN, EditHead, NeuralGraphGNN, NeuralGraphTransformer, ScaleGMN
from gmn.testing import assert_equivariant, relative_error
from gmn.zoo.architectures.networks import Siren
from gmn.zoo.images import pixel_grid
from gmn.zoo.training.fitting import initial_state
from tests.cases import CASES, Case
from tests.gmn.test_scale_gmn import CLAIMED, REFUSED
from tests.traced import BY_NAME, graph_of

Build = Callable[[EditHead], nn.Module]
MODELS: dict[str, Build] = {
    "gmn": lambda head: GMN(8, 2, head),
    "gmn-sparse": lambda head: GMN(8, 2, head, executor="sparse"),
    "ng-gnn": lambda head: NeuralGraphGNN(8, 2, head, edge_hidden=8),
    "ng-gnn-ahead": lambda head: NeuralGraphGNN(8, 2, head, edge_hidden=8, reverse=False),
    "ng-t": lambda head: NeuralGraphTransformer(8, 2, head, edge_hidden=8, attention=8, heads=2),
    "scale-gmn": lambda head: ScaleGMN(8, 2, head),
    "scale-gmn-both": lambda head: ScaleGMN(8, 2, head, bidirectional=True),
}
every_model = pytest.mark.parametrize("model", MODELS)
FAST = {"mlp-sine", "batch-norm", "tied-transpose", "transformer"}
supported = pytest.mark.parametrize(
    ("model", "case"),
    [
        pytest.param(
            model,
            case,
            marks=() if case.name in FAST else pytest.mark.slow,
            id=f"{model}-{case.name}",
        )
        for model in MODELS
        for case in CASES
        if not (model.startswith("scale-gmn") and case.name in REFUSED)
    ],
)


def net(model: str, copies: int = 1) -> nn.Module:
    torch.manual_seed(0)
    return MODELS[model](EditHead(copies)).double()


@supported
def test_edits_commute_with_what_is_claimed(model: str, case: Case) -> None:
    claimed = CLAIMED if model.startswith("scale-gmn") else {"permutations"}
    assert_equivariant(net(model), graph_of(case), symmetries=claimed, trials=2)


@supported
def test_every_parameter_changes_and_statistics_stay(model: str, case: Case) -> None:
    graph = graph_of(case)
    with torch.no_grad():
        edited = net(model)(graph)
    for entry in graph.spec.entries:
        change = (edited.values[entry.name].double() - graph.values[entry.name].double()).abs()
        if entry.parameter and entry.floating and change.numel():
            assert float(change.max()) > 0, entry.name
        else:
            assert not bool(change.any()), entry.name


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_both_executors_edit_alike(case: Case) -> None:
    graph, model = graph_of(case), GMN(8, 2, EditHead(2)).double()
    with torch.no_grad():
        model.executor = "sparse"
        expected = model(graph)
        model.executor = "dense"
        found = model(graph)
    for name, value in expected.values.items():
        if value.is_floating_point():
            assert relative_error(found.values[name], value) <= 1e-12, name


@every_model
def test_copies_and_networks_get_edits_of_their_own(model: str) -> None:
    graph = graph_of(BY_NAME["mlp-sine"], 3)
    with torch.no_grad():
        edited = net(model, copies=2)(graph)
    assert len(edited) == 6
    for name, value in graph.values.items():
        first, second = ((part - value) for part in edited.values[name].split(3))
        assert relative_error(second, first) > 1e-3, name
        assert relative_error(first[0], first[1]) > 1e-3, name


@every_model
def test_all_edits_are_those_of_each_network_alone(model: str) -> None:
    graph, edit = graph_of(BY_NAME["cnn"], 3), net(model, copies=2)
    with torch.no_grad():
        whole, alone = edit(graph), edit(graph[1])
    for name, value in alone.values.items():
        assert relative_error(whole.values[name][[1, 4]], value) <= 1e-12


@every_model
@pytest.mark.parametrize("name", ["mlp-relu", "batch-norm"])
def test_gradients_reach_weights(model: str, name: str) -> None:
    edit = net(model)
    edited = edit(graph_of(BY_NAME[name]))
    sum(v.square().sum() for v in edited.values.values() if v.requires_grad).backward()  # type: ignore[union-attr]
    missing = {n for n, p in edit.named_parameters() if p.grad is None or not p.grad.any()}
    # Of the last layer no state but the edges' is read by GMN; others depend on the architecture.
    late = ("layers.1.node_update", "layers.1.state_update", "layers.1.forward_out")
    late += ("layers.1.backward_out",)
    unused = ("group", "share", "of_facts", "encoder.ones")
    assert not [n for n in missing if not n.startswith(late) and not any(u in n for u in unused)]


@cache
def sirens() -> gmn.ParameterGraph:
    module = Siren()
    spec = converters.trace(module, (pixel_grid(14, 14),))
    states = [initial_state(module, torch.Generator().manual_seed(seed)) for seed in range(3)]
    return gmn.ParameterGraph.from_state_dicts(spec, states)


REFUSE = {
    "layer-statistics",
    "rich-statistics",
    "probe-net",
    "transformer-nfn",
    "transformer-nfn-certified",
}


@pytest.mark.parametrize("model", registry.names())
def test_every_installed_model_edits_images_or_says_why_not(model: str) -> None:
    graph = sirens()
    spec = graph.spec
    torch.manual_seed(0)
    if model in REFUSE:
        with pytest.raises(UnsupportedArchitecture):
            registry.find(model)(spec, EditHead(2))  # type: ignore[arg-type]
        return
    edit = registry.find(model)(spec, EditHead(2))  # type: ignore[arg-type]
    assert isinstance(edit, nn.Module)
    edited = edit(graph)
    assert (len(edited), edited.spec) == (6, spec)
    for name, value in graph.values.items():
        first, second = edited.values[name].detach().split(3)
        assert 0 < relative_error(first, value) < 1
        assert not torch.equal(first, second)
