"""The dense executor gives the numbers of the sparse one, at half its memory."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

import converters
import gmn
from benchmarks.gathered_gmn import GatheredGMN
from gmn.nn import GMN, InvariantHead, dense
from gmn.nn.memory import saved_bytes
from gmn.testing import relative_error
from gmn.zoo.architectures.networks import network
from tests.cases import Case
from tests.traced import BY_NAME, graph_of, several_cases, slow_but


def net(hidden: int = 8, depth: int = 3) -> GMN:
    torch.manual_seed(0)
    return GMN(hidden, depth, InvariantHead(3)).double()


def run(model: GMN, graph: gmn.ParameterGraph, executor: str) -> tuple[Tensor, dict[str, Tensor]]:
    """The answer, and gradients by parameters and by the networks' values."""
    model.executor = executor
    model.zero_grad()
    values = {
        entry.name: graph.values[entry.name].clone().requires_grad_()
        for entry in graph.spec.entries
        if entry.tied_to is None and entry.floating
    }
    answer = model(graph.replace(values))
    answer.square().sum().backward()
    found = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    found |= {f"of {n}": v.grad for n, v in values.items() if v.grad is not None}
    return answer.detach(), {n: g.clone() for n, g in found.items()}


def assert_equal(model: GMN, graph: gmn.ParameterGraph, answers: float, gradients: float) -> None:
    (found, slopes), (expected, wanted) = (run(model, graph, e) for e in ("dense", "sparse"))
    assert relative_error(found, expected) <= answers
    assert slopes.keys() == wanted.keys()
    largest = max(float(g.abs().max()) for g in wanted.values() if g.numel())
    for name, gradient in wanted.items():
        if gradient.numel():
            assert float((slopes[name] - gradient).abs().max()) <= gradients * largest, name


@several_cases
def test_dense_is_sparse(case: Case) -> None:
    graph = graph_of(case, networks=3)
    assert_equal(net(), graph, answers=1e-12, gradients=1e-12)
    assert_equal(net().float(), graph.to(dtype=torch.float32), answers=1e-6, gradients=1e-5)


@several_cases
def test_both_are_the_written_equations(case: Case) -> None:
    graph, model = graph_of(case, networks=3), net()
    expected = GatheredGMN(model)(graph)
    for model.executor in ("dense", "sparse"):
        assert relative_error(model(graph), expected) <= 1e-12


@pytest.mark.parametrize(
    ("name", "most"),
    slow_but(
        itertools.product(["mlp-relu", "resnet", "cnn-grouped", "attention"], [1, 7, 40]),
        [("mlp-relu", 1), ("resnet", 40), ("cnn-grouped", 7), ("attention", 7)],
    ),
)
def test_any_cut_into_tiles_gives_the_same(
    name: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dense, "_max_pairs", lambda edges: most)
    assert_equal(net(), graph_of(BY_NAME[name], networks=3), answers=1e-12, gradients=1e-12)


@pytest.mark.parametrize("most", [1, 5, 30, 1000])
@several_cases
def test_tiles_cover_every_row_once(case: Case, most: int) -> None:
    graph = graph_of(case)
    counts = torch.zeros(sum(2 * part.relation.pairs for part in dense.edge_ranges(graph.spec)))
    for part in dense.edge_ranges(graph.spec):
        for tile in part.tiles(2, most):
            counts[tile.rows] += 1
            line = torch.Size(part.relation.shape[1:]).numel()
            assert counts[tile.rows].numel() <= max(most, line)
    assert (counts == 1).all()


@pytest.mark.parametrize(
    ("name", "inputs"), [("cnn-relu", torch.zeros(2, 1, 14, 14)), ("siren", torch.zeros(2, 2))]
)
def test_half_the_memory_of_the_sparse_executor(name: str, inputs: Tensor) -> None:
    spec, states = converters.trace(network(name), (inputs,)), [network(name).state_dict()] * 4
    graph = gmn.ParameterGraph.from_state_dicts(spec, states)
    model, kept = GMN(hidden=64, depth=4), {}
    for executor in ("dense", "sparse"):
        model.executor = executor
        with saved_bytes(model) as saved:
            model(graph)
        kept[executor] = sum(saved.values())
    assert kept["dense"] <= kept["sparse"] / 2


@pytest.mark.parametrize("executor", ["dense", "sparse"])
def test_recomputed_layers_give_the_same_gradients(executor: str) -> None:
    graph, model, found = graph_of(BY_NAME["resnet"], networks=3), net(), []
    for model.recompute in (False, True):
        found.append(run(model, graph, executor))
    (answer, slopes), (again, others) = found
    assert relative_error(again, answer) <= 1e-12
    for name, gradient in slopes.items():
        torch.testing.assert_close(others[name], gradient, rtol=1e-9, atol=1e-12)


def test_recomputed_layers_keep_less_than_half() -> None:
    states = [network("cnn-relu").state_dict()] * 4
    spec = converters.trace(network("cnn-relu"), (torch.zeros(2, 1, 14, 14),))
    graph, kept = gmn.ParameterGraph.from_state_dicts(spec, states), []
    for recompute in (False, True):
        with saved_bytes(model := GMN(64, 4, recompute=recompute)) as saved:
            model(graph)
        kept.append(sum(saved.values()))
    assert kept[1] <= kept[0] / 2, kept
