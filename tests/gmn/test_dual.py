"""DualGMN: invariant to the whole certified group, and to nothing else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import gmn
from gmn import symmetry
from gmn.nn import DualGMN, InvariantHead
from gmn.testing import assert_invariant, relative_error
from tests.cases import Case
from tests.changes import (
    differences,
    every_damage,
    every_exchange,
    every_operation,
    exchanged,
    units_of_heads_exchanged,
    with_heads,
    with_operation,
)
from tests.traced import BY_NAME, covering_cases, graph_of


def net(hidden: int = 16, depth: int = 2, recompute: bool = False) -> DualGMN:
    torch.manual_seed(0)
    return DualGMN(hidden, depth, InvariantHead(3), recompute=recompute).double()


def difference(net: nn.Module, one: gmn.ParameterGraph, other: gmn.ParameterGraph) -> float:
    with torch.no_grad():
        return relative_error(net(one), net(other))


@covering_cases
def test_invariant_to_the_whole_group(case: Case) -> None:
    assert_invariant(net(), graph_of(case), scalings=True)


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


@covering_cases
def test_every_parameter_matters(case: Case) -> None:
    graph, generator = graph_of(case), torch.Generator().manual_seed(0)
    free = {t.terms[0].edge_set for t in graph.spec.translations if not _constant(graph.spec, t)}
    changed = {}
    for edges in graph.spec.edge_sets:
        values = graph.block(edges)
        known = edges.name in free
        if edges.tied_to or known or edges.operation.name == "unused" or not values.numel():
            continue
        noise = torch.rand(values.shape, generator=generator, dtype=torch.float64) + 0.5
        pairs = graph.pairs(edges) * noise.reshape(graph.pairs(edges).shape)
        changed[edges.name] = graph.replace_pairs({edges.name: pairs})
    for name, difference in differences(net(), graph, changed):
        assert difference > 1e-8, name


def _constant(spec: gmn.GraphSpec, translation: gmn.spec.Translation) -> bool:
    """Whether it shifts several numbers alike, or those of several edge sets."""
    term = translation.terms[0]
    return len(translation.terms) > 1 or len(term.dims) < len(spec.edge_set(term.edge_set).dims)


@every_exchange
def test_queries_keys_and_values_are_told_apart(one: list[str], other: list[str]) -> None:
    graph = graph_of(BY_NAME["attention"])
    assert difference(net(), exchanged(graph, one, other), graph) > 1e-8


def test_units_of_other_heads_are_told_apart() -> None:
    assert difference(net(), *units_of_heads_exchanged()) > 1e-12


def test_the_number_of_heads_is_noticed() -> None:
    one, two, four = with_heads(1, 2, 4)
    assert difference(net(), one, two) > 1e-12
    assert difference(net(), two, four) > 1e-12


@every_operation
def test_what_the_operations_do_is_noticed(operation: Callable[[], nn.Module]) -> None:
    assert difference(net(), *with_operation(operation)) > 1e-8


def test_one_sided_permutations_are_noticed() -> None:
    graph = graph_of(BY_NAME["mlp-relu"])
    changed = graph.replace({"0.weight": graph.values["0.weight"].flip(1)})
    assert difference(net(), changed, graph) > 1e-8


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


@pytest.mark.parametrize("name", SCALED)
def test_single_precision(name: str) -> None:
    graph = graph_of(BY_NAME[name]).to(dtype=torch.float32)
    assert_invariant(net().float(), graph, scalings=True, tolerance=1e-4)


@every_damage
@pytest.mark.parametrize("name", ["mlp-relu", "mlp-tanh", "batch-norm", "attention"])
def test_degenerate_weights(name: str, damage: Callable[[Tensor], Tensor]) -> None:
    graph = graph_of(BY_NAME[name])
    weight = next(e.parameter for e in graph.spec.edge_sets if e.kind == "weight")
    values = damage(graph.values[weight]).requires_grad_()
    damaged = graph.replace({weight: values})
    model = net()
    model(damaged).square().sum().backward()
    for gradient in [values.grad, *(p.grad for p in model.parameters() if p.grad is not None)]:
        assert gradient is not None
        assert gradient.isfinite().all()
    with torch.no_grad():
        assert_invariant(model, graph.replace({weight: values.detach()}), scalings=True)


def test_a_batch_is_its_networks() -> None:
    graph, model = graph_of(BY_NAME["resnet"], networks=3), net()
    torch.testing.assert_close(model(graph), torch.cat([model(graph[i]) for i in range(3)]))


def test_recomputed_layers_give_the_same_gradients() -> None:
    graph, gradients = graph_of(BY_NAME["cnn"]), []
    for recompute in (False, True):
        model = net(recompute=recompute)
        model(graph).square().sum().backward()
        gradients.append([p.grad for p in model.parameters() if p.grad is not None])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


def test_gradients_of_the_softened_product() -> None:
    from gmn.nn.dual import _Soften

    products = torch.linspace(-3, 3, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(_Soften.apply, products)
