"""Graphs of forms that few networks have: read with their symmetries, or refused by name."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import converters
from gmn import symmetry
from gmn.errors import UnsupportedArchitecture
from gmn.graph import ParameterGraph
from gmn.nn import GMN, DualGMN, EditHead, InvariantHead
from gmn.spec import Gauge, Scaling, ScalingTerm
from gmn.testing import assert_equivariant, assert_invariant, relative_error
from tests.blind_spots import MODELS, Net

every_model = pytest.mark.parametrize("model", MODELS)
WHOLE = ("DualGMN",)  # invariant to more than permutations


def net(model: str, **options: object) -> nn.Module:
    torch.manual_seed(0)
    return MODELS[model](hidden=16, depth=2, **options).double()


def graph_of(model: nn.Module) -> ParameterGraph:
    torch.manual_seed(0)
    return converters.to_graph(model.double().eval(), (torch.randn(4, 5).double(),))


def forgotten() -> None:
    """As in a new process: nothing is known of any spec or operation."""
    for name, module in list(sys.modules.items()):
        if name.startswith("gmn."):
            for value in vars(module).values():
                if hasattr(value, "cache_clear"):
                    value.cache_clear()


@every_model
def test_answers_do_not_depend_on_the_default_precision(model: str) -> None:
    graph = graph_of(two_layers(lambda m, x: m.o(torch.relu(m.a(x))))).to(dtype=torch.float32)
    network = net(model).float()
    forgotten()
    expected = network(graph)
    forgotten()
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        torch.testing.assert_close(network(graph), expected, rtol=0, atol=0)
    finally:
        torch.set_default_dtype(before)
        forgotten()


def products(m: Net, x: Tensor) -> Tensor:
    """Products of all pairs of hidden units: one axis stands twice at the end that is read."""
    h = torch.relu(m.a(x))
    return m.o((h.unsqueeze(1) * h.unsqueeze(2)).flatten(1))


def gram(m: Net, x: Tensor) -> Tensor:
    h = torch.relu(m.a(x))
    return m.o((h.T @ h).flatten())


def sizes(m: Net, x: Tensor) -> Tensor:
    """A sign of every weight is free: it runs over both ends of the edges."""
    return m.o(torch.relu(F.linear(x, m.a.weight.abs(), m.a.bias)))


def merged(m: Net, x: Tensor) -> Tensor:
    """A weight with a change of low rank added."""
    return m.o(torch.relu(F.linear(x, m.a.weight + m.c.weight @ m.b.weight, m.a.bias)))


def two_layers(forward: Callable[[Net, Tensor], Tensor], read: int = 8) -> nn.Module:
    return Net(forward, a=nn.Linear(5, 8), o=nn.Linear(read, 2))


FORMS: dict[str, Callable[[], nn.Module]] = {
    "products": lambda: two_layers(products, 64),
    "gram": lambda: two_layers(gram, 64),
    "sizes": lambda: two_layers(sizes),
    "merged": lambda: Net(
        merged, a=nn.Linear(5, 8), b=nn.Linear(5, 2), c=nn.Linear(2, 8), o=nn.Linear(8, 2)
    ),
    "no outputs": lambda: nn.Sequential(nn.Linear(5, 0)),
    "no outputs behind": lambda: nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 0)),
    "nothing between": lambda: nn.Sequential(nn.Linear(5, 0), nn.ReLU(), nn.Linear(0, 3)),
}


@cache
def of_form(form: str) -> ParameterGraph:
    return graph_of(FORMS[form]())


@every_model
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_read_with_its_symmetries_or_refused_by_name(form: str, model: str) -> None:
    graph, refusal = of_form(form), ""
    try:
        assert_invariant(net(model), graph, scalings=model in WHOLE)
    except UnsupportedArchitecture as error:
        refusal = str(error)
    by_name = model in ("DualGMN", "ScaleGMN") and refusal.startswith("node set ")
    assert not refusal or by_name


@every_model
@pytest.mark.parametrize("form", ["products", "gram"])
def test_all_weights_count_where_an_axis_stands_twice(form: str, model: str) -> None:
    graph = of_form(form)
    weight = graph.values["o.weight"].clone()
    weight.unflatten(2, (8, 8))[:, :, 0, 1] *= -2  # of two different units
    try:
        with torch.no_grad():
            change = relative_error(
                net(model)(graph.replace({"o.weight": weight})), net(model)(graph)
            )
    except UnsupportedArchitecture:
        assert model == "ScaleGMN"
    else:
        assert change > 1e-6


def test_both_executors_agree_where_an_axis_stands_twice() -> None:
    graph = of_form("products")
    torch.manual_seed(0)
    dense = GMN(16, 2, InvariantHead(3)).double()
    expected = dense(graph)
    dense.executor = "sparse"
    torch.testing.assert_close(dense(graph), expected)


@pytest.mark.parametrize("form", ["products", "gram", "sizes"])
def test_edits_follow_the_symmetries(form: str) -> None:
    assert_equivariant(
        net("DualGMN", head=EditHead()), of_form(form), scalings=True, tolerance=1e-8
    )


# --- symmetries at several ends, put together by hand -------------------------------------------


def scaled(*terms: ScalingTerm, domain: str = "positive") -> ParameterGraph:
    """An MLP with one symmetry of all pairs of its first layer."""
    graph = graph_of(nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 2)))
    edges = graph.spec.edge_set("0.weight")
    axes = tuple(str(dim.axis) for dim in edges.dims)
    scaling = Scaling("pairs", domain, axes, edges.shape, terms)  # type: ignore[arg-type]
    return ParameterGraph(replace(graph.spec, scalings=(scaling,), program=None), graph.values)


@pytest.mark.parametrize("domain", ["positive", "sign"])
def test_scales_of_every_weight(domain: str) -> None:
    graph = scaled(ScalingTerm("0.weight", (0, 1), 1.0), domain=domain)
    assert_invariant(net("DualGMN"), graph, scalings=True)
    assert_equivariant(net("DualGMN", head=EditHead()), graph, scalings=True)
    zero = graph.replace({"0.weight": torch.zeros_like(graph.values["0.weight"])})
    assert relative_error(net("DualGMN")(zero), net("DualGMN")(graph)) > 1e-6
    with pytest.raises(UnsupportedArchitecture, match="node set 0"):
        net("ScaleGMN")(graph)


def test_weights_alone_are_read_alike_with_and_without_gradients() -> None:
    graph = scaled(ScalingTerm("0.weight", (0, 1), 1.0), domain="sign")
    with torch.no_grad():
        expected = net("DualGMN")(graph)
    torch.testing.assert_close(net("DualGMN")(graph), expected)


def test_a_change_of_basis_of_both_ends_is_refused() -> None:
    graph = graph_of(nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 2)))
    axes = tuple(str(dim.axis) for dim in graph.spec.edge_set("0.weight").dims)
    gauge = Gauge("both", "general", axes, (8, 5), (ScalingTerm("0.weight", (0, 1), 1.0),))
    spec = replace(graph.spec, scalings=(), gauges=(gauge,), program=None)
    for model in ("DualGMN", "ScaleGMN"):
        with pytest.raises(UnsupportedArchitecture, match=r"node set .*change of basis both"):
            net(model)(ParameterGraph(spec, graph.values))


def test_a_basis_that_numbers_no_neurons_is_refused() -> None:
    graph = graph_of(nn.Sequential(nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 2)))
    axis = str(graph.spec.edge_set("0.weight").dims[1].axis)
    gauge = Gauge("odd", "general", (axis,), (5,), (ScalingTerm("0.bias", (0,), 1.0),))
    spec = replace(graph.spec, scalings=(), gauges=(gauge,), program=None)
    with pytest.raises(UnsupportedArchitecture, match=r"node set 0: the change of basis odd"):
        DualGMN(16, 2).double()(ParameterGraph(spec, graph.values))


def test_elements_of_symmetries_of_pairs_move_every_weight() -> None:
    graph = scaled(ScalingTerm("0.weight", (0, 1), 1.0))
    element = symmetry.only(graph.spec, "pairs", torch.Generator().manual_seed(0))
    moved = element.act_on_graph(graph).values["0.weight"]
    torch.testing.assert_close(moved[0], graph.values["0.weight"][0] * element.scales["pairs"])
