"""What a metanetwork is given: values in several forms, and descriptions that miss no change."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import converters
import gmn
from gmn import features, symmetry
from gmn.canonical import canonical
from gmn.explain import gradient
from gmn.features import FanIn, Raw, SignLog, Stacked
from gmn.graph.topology import tap_positions
from gmn.nn.gmn import GMN
from gmn.nn.heads import Head
from gmn.stack import StackedGraph, stack
from gmn.testing import assert_equivariant, assert_invariant
from tests.cases import Case
from tests.extending.description import Embedded
from tests.traced import BY_NAME, graph_of, one_in, several_cases, slow_but

FORMS = [Raw(), FanIn(), SignLog()]
CASES = ["mlp-relu", "cnn", "batch-norm", "attention"]


def _net(values: features.ValueFeatures | None = None) -> GMN:
    torch.manual_seed(0)
    return GMN(16, 2, features=values).double()


# --- values -------------------------------------------------------------------------------------


@several_cases
def test_every_edge_set_has_finite_values(case: Case) -> None:
    graph = graph_of(case)
    for edges in graph.spec.edge_sets:
        for form in FORMS:
            found = form(graph, edges)
            assert found.shape == (*graph.pairs(edges).shape, form.channels)
            assert found.isfinite().all()


@pytest.mark.parametrize(
    ("form", "case"),
    one_in(
        2,
        # Turned by one from form to form, so that every second pair leaves no case out.
        [(form, CASES[(i + j) % 4]) for j, form in enumerate(FORMS) for i in range(4)],
        lambda pair: f"{type(pair[0]).__name__}-{pair[1]}",
    ),
)
def test_gmn_reads_every_form(form: features.ValueFeatures, case: str) -> None:
    graph, net = graph_of(BY_NAME[case]), _net(form)
    assert_invariant(net, graph)
    first = net(graph)[0]
    assert not torch.allclose(first, net(graph)[1], rtol=1e-6)
    assert not torch.allclose(first, _net(next(f for f in FORMS if f is not form))(graph)[0])


def test_the_default_is_fan_in() -> None:
    graph = graph_of(BY_NAME["cnn"])
    assert torch.equal(_net()(graph), _net(FanIn())(graph))


def test_signs_and_magnitudes() -> None:
    spec = graph_of(BY_NAME["two-layers"]).spec
    (edges, *_) = spec.edge_sets
    values = torch.tensor([1.0, -1.0, -1e-3, 1e-9, 0.0, -1e3]).double()
    graph = gmn.ParameterGraph(
        spec, {e.name: values[0].expand(1, *e.shape).clone() for e in spec.entries}
    )
    graph.values[edges.parameter].view(-1)[:6] = values
    sign, size = SignLog()(graph, edges).flatten(0, 2)[:6].unbind(-1)
    assert torch.allclose(sign, torch.tensor([1.0, -1, -1, 1e-3, 0, -1]).double())
    assert torch.allclose(size, torch.tensor([1.0, 1, 0.5, 0, 0, 1.5]).double())


def test_gradients_reach_weights_through_signs_and_magnitudes() -> None:
    graph = graph_of(BY_NAME["mlp-relu"])
    found = gradient(_net(SignLog()), graph).values
    assert all(value.any() for value in found.values())


@pytest.mark.parametrize("smallest", [0.0, 1.0, -1.0])
def test_a_smallest_magnitude_that_is_none(smallest: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        SignLog(smallest)


# --- several values per parameter ---------------------------------------------------------------


@pytest.mark.parametrize(
    "case",
    slow_but(["mlp-relu", "mlp-sine", "batch-norm", "transformer-rms"], ["mlp-sine", "batch-norm"]),
)
def test_gmn_on_canonical_forms_is_invariant_to_the_whole_group(case: str) -> None:
    graph, net = graph_of(BY_NAME[case]), _net()
    assert_invariant(lambda g: net(canonical(g)), graph, symmetries=symmetry.KINDS, tolerance=1e-7)
    with pytest.raises(AssertionError, match="not invariant"):
        assert_invariant(net, graph, symmetries=symmetry.KINDS, tolerance=1e-7)


def test_weights_and_gradients_are_read_together() -> None:
    case = BY_NAME["cnn"]
    graph, slopes = graph_of(case), gradient(_net(), graph_of(case))
    net = _net(Stacked(FanIn(), SignLog()))
    answer = net(stack([graph, slopes]))
    assert answer.shape == (2, 1)
    other = slopes.replace({"2.weight": -slopes.values["2.weight"]})
    assert not torch.allclose(answer, net(stack([graph, other])))
    element = symmetry.sample(graph.spec, torch.Generator().manual_seed(0), scalings=False)
    moved = stack([element.act_on_graph(graph), element.act_on_graph(slopes)])
    assert torch.allclose(answer, net(moved), rtol=1e-9)


def test_the_order_of_checkpoints_counts() -> None:
    first, last = (graph_of(BY_NAME["mlp-relu"], networks=4)[part] for part in ([0, 1], [2, 3]))
    net = _net(Stacked(Raw(), Raw()))
    assert not torch.allclose(net(stack([first, last])), net(stack([last, first])))


def test_stacks_are_batches() -> None:
    graph = graph_of(BY_NAME["transformer"], networks=3)
    both = stack([canonical(graph), graph])
    net = _net(Stacked(FanIn(), Raw()))
    answers = net(both)
    assert len(both) == 3
    assert both.spec == graph.spec
    assert torch.allclose(net(both[1]), answers[1:2])
    assert torch.allclose(net(both[torch.tensor([2, 0])]), answers[[2, 0]])
    assert torch.allclose(torch.cat([net(one) for one in both]), answers)  # type: ignore[attr-defined]
    assert torch.allclose(net(StackedGraph.cat([both[:1], both[1:]])), answers)
    low = both.to(dtype=torch.float32)
    assert low.graphs[1].dtype == torch.float32
    assert torch.allclose(net.float()(low), answers.float(), rtol=1e-3)
    assert repr(both).startswith("StackedGraph(2 × ParameterGraph(3 networks")


def test_stacks_that_do_not_fit() -> None:
    graph, other = graph_of(BY_NAME["mlp-relu"]), graph_of(BY_NAME["mlp-tanh"])
    for parts in ([graph, other], [graph, graph[0]], [graph, graph.to(dtype=torch.float32)], []):
        with pytest.raises(ValueError, match="graphs of one spec"):
            stack(parts)
    with pytest.raises(ValueError, match="all of as many graphs each"):
        StackedGraph.cat([stack([graph]), stack([graph, graph])])
    with pytest.raises(ValueError, match="all of as many graphs each"):
        StackedGraph.cat([stack([graph, graph]), graph])


def test_features_of_another_height() -> None:
    graph = graph_of(BY_NAME["mlp-relu"])
    for given, number in ((graph, 1), (stack([graph] * 3), 3)):
        with pytest.raises(ValueError, match=f"read 2 graphs, given are {number}"):
            _net(Stacked(Raw(), Raw()))(given)


def test_what_acts_on_weights_takes_the_first_graph_off_its_stack() -> None:
    """Nothing is read beside the moved graph that was not moved with it."""
    graph = graph_of(BY_NAME["mlp-relu"])
    element = symmetry.sample(graph.spec, scalings=False)
    moved = element.act_on_graph(stack([graph, graph]))
    assert not isinstance(moved, StackedGraph)
    for name, value in element.act_on_graph(graph).values.items():
        assert torch.equal(moved.values[name], value)
    with pytest.raises(ValueError, match="read 2 graphs, given are 1"):
        _net(Stacked(Raw(), Raw()))(moved)


# --- taps ---------------------------------------------------------------------------------------


def _kernel(**options: int) -> gmn.EdgeSet:
    model = nn.Sequential(nn.Conv2d(1, 2, **options), nn.ReLU(), nn.Conv2d(2, 1, 1))
    return converters.trace(model, (torch.randn(1, 1, 12, 12),)).edge_set("0.weight")


def test_codes_of_taps_are_those_of_their_places() -> None:
    """A dilated kernel of 3 covers the outer and the middle taps of a dense one of 5."""
    dense = features.tap_descriptions(_kernel(kernel_size=5)).view(5, 5, -1)
    dilated = features.tap_descriptions(_kernel(kernel_size=3, dilation=2)).view(3, 3, -1)
    assert torch.equal(dense[::2, ::2], dilated)
    assert not torch.equal(
        features.tap_descriptions(_kernel(kernel_size=3)).view(3, 3, -1), dilated
    )


def test_taps_lie_around_the_middle_in_input_positions() -> None:
    places = tap_positions(_kernel(kernel_size=3, dilation=3, stride=2)).view(3, 3, 3)
    assert places[:, 0, 1].tolist() == places[0, :, 2].tolist() == [-3, 0, 3]
    assert not places[1, 1].any()


def test_codes_tell_all_taps_apart() -> None:
    codes = features.tap_descriptions(_kernel(kernel_size=7))
    distances = torch.cdist(codes, codes) + torch.eye(49)
    assert distances.min() > 0.1


# --- descriptions -------------------------------------------------------------------------------


def _conv(**options: int) -> nn.Module:
    conv = nn.Conv2d(4, 4, 3, **{"padding": 1, **options})
    return nn.Sequential(nn.Conv2d(1, 4, 1), nn.ReLU(), conv, nn.ReLU(), nn.Conv2d(4, 2, 1))


def _through(*middle: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 4, 1), *middle, nn.Conv2d(4, 2, 1))


PAIRS: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module]]] = {
    "activation": (lambda: _through(nn.GELU()), lambda: _through(nn.SiLU())),
    "form of an activation": (lambda: _through(nn.GELU()), lambda: _through(nn.GELU("tanh"))),
    "slope": (lambda: _through(nn.LeakyReLU(0.01)), lambda: _through(nn.LeakyReLU(0.2))),
    "bound": (lambda: _through(nn.Hardtanh(-1, 1)), lambda: _through(nn.Hardtanh(-2, 2))),
    "order of operations": (
        lambda: _through(nn.Tanh(), nn.MaxPool2d(3, 1, 1)),
        lambda: _through(nn.MaxPool2d(3, 1, 1), nn.Tanh()),
    ),
    "batch norm's epsilon": (
        lambda: _through(nn.BatchNorm2d(4, 1e-5), nn.Tanh()),
        lambda: _through(nn.BatchNorm2d(4, 1e-2), nn.Tanh()),
    ),
    "group norm's epsilon": (
        lambda: _through(nn.GroupNorm(2, 4, 1e-5)),
        lambda: _through(nn.GroupNorm(2, 4, 1e-2)),
    ),
    "groups of a norm": (
        lambda: _through(nn.GroupNorm(2, 4)),
        lambda: _through(nn.GroupNorm(4, 4)),
    ),
    "norm over one or all": (
        lambda: _through(nn.GroupNorm(1, 4)),
        lambda: _through(nn.GroupNorm(4, 4)),
    ),
    "padding": (lambda: _conv(), lambda: _conv(padding=2)),
    "stride": (lambda: _conv(), lambda: _conv(stride=2)),
    "dilation": (lambda: _conv(), lambda: _conv(dilation=2)),
    "size of a pool": (lambda: _through(nn.AvgPool2d(2)), lambda: _through(nn.AvgPool2d(3))),
    "kind of a pool": (lambda: _through(nn.AvgPool2d(2)), lambda: _through(nn.MaxPool2d(2))),
}


def _described(model: nn.Module) -> list[Tensor]:
    spec = converters.trace(model.eval(), (torch.randn(1, 1, 12, 12),))
    return [features.node_descriptions(spec), features.edge_descriptions(spec)]


@pytest.mark.parametrize("what", one_in(2, PAIRS))
def test_what_changes_the_function_changes_the_description(what: str) -> None:
    one, other = (_described(build()) for build in PAIRS[what])
    same = [
        a.shape == b.shape and torch.allclose(a, b, atol=1e-3)
        for a, b in zip(one, other, strict=True)
    ]
    assert not all(same)


NETS = (
    gmn.nn.GMN, gmn.nn.DualGMN, gmn.nn.NeuralGraphGNN, gmn.nn.NeuralGraphTransformer,
    gmn.nn.ScaleGMN,
)  # fmt: skip
HEADS: dict[str, Head] = {"answer": gmn.nn.InvariantHead(2), "edit": gmn.nn.EditHead()}


@pytest.mark.parametrize(
    ("head", "build"), one_in(2, product(HEADS, NETS), lambda pair: f"{pair[0]}-{pair[1].__name__}")
)
def test_every_metanetwork_takes_descriptions(build: Callable[..., Any], head: str) -> None:
    own, graph = Embedded().double(), graph_of(BY_NAME["cnn"])
    net = build(hidden=16, depth=2, head=HEADS[head], descriptions=own).double()
    law = assert_invariant if head == "answer" else assert_equivariant
    law(net, graph, symmetries=net.symmetries)
    before = _flat(net(graph))
    before.square().sum().backward()
    for table in (own.role, own.kind):
        assert table.weight.grad.abs().sum() > 0  # they learn with the network
    with torch.no_grad():
        own.role.weight.mul_(2)
    assert not torch.equal(_flat(net(graph)), before)


def _flat(answer: Tensor | gmn.ParameterGraph) -> Tensor:
    if isinstance(answer, Tensor):
        return answer
    return torch.cat([values.flatten(1) for values in answer.values.values()], dim=1)


def test_descriptions_are_those_of_the_function_alone() -> None:
    one, again = _described(_conv()), _described(_conv())
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
