"""Baselines on traced networks: laws, learning, refusals."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from torch import nn

import converters
import gmn
from baselines import NFN, FlatMLP, StatNN, UnsupportedArchitecture, adapter, layer_statistics
from baselines.layers.encodings import FourierFeatures, SinusoidalPositions
from baselines.nfn import Variant
from gmn.nn import EditHead
from gmn.testing import assert_equivariant, assert_invariant, relative_error
from tests.cases import Case
from tests.traced import BY_NAME, chains, graph_of, one_in, spec_of

VARIANTS: tuple[Variant, ...] = ("HNP", "NP", "DWS")


def nfn(spec: gmn.GraphSpec, variant: Variant = "HNP") -> NFN:
    torch.manual_seed(0)
    return NFN(spec, channels=(4, 3), variant=variant).double()


def assert_round_trip_is_exact(graph: gmn.ParameterGraph) -> None:
    """Also onto a graph of other values: everything that is not a missing bias comes back."""
    features = adapter.to_features(graph)
    zeros = graph.replace({name: torch.zeros_like(v) for name, v in graph.values.items()})
    back = adapter.from_features(zeros, features)
    for name, value in graph.values.items():
        assert torch.equal(back.values[name], value)
    again = adapter.to_features(back)
    for first, second in zip(
        (*features.weights, *features.biases), (*again.weights, *again.biases), strict=True
    ):
        assert torch.equal(first, second)


@chains
@pytest.mark.parametrize("dtype", one_in(3, [torch.float64, torch.float32, torch.bfloat16]))
def test_features_round_trip_exactly(case: Case, dtype: torch.dtype) -> None:
    assert_round_trip_is_exact(graph_of(case).to(dtype=dtype))


class Transposed(nn.Module):
    """Weights stored as (in, out), as by matrix products and transposed convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(3, 5))
        self.deconv, self.last = nn.ConvTranspose1d(5, 4, 3), nn.Conv1d(4, 2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(x @ self.first)
        return self.last(torch.relu(self.deconv(x.mT)))


def transposed() -> gmn.ParameterGraph:
    models = [Transposed().double() for _ in range(2)]
    spec = converters.trace(models[0], (torch.randn(2, 6, 3).double(),))
    return gmn.ParameterGraph.from_state_dicts(spec, [model.state_dict() for model in models])


def test_transposed_weights_round_trip_exactly() -> None:
    graph = transposed()
    assert_round_trip_is_exact(graph)
    features = adapter.to_features(graph)
    assert torch.equal(features.weights[0].squeeze(-1), graph.values["first"].mT)
    assert torch.equal(features.weights[1], graph.values["deconv.weight"].transpose(1, 2))
    assert torch.equal(features.weights[2], graph.values["last.weight"])


@pytest.mark.parametrize("variant", VARIANTS)
def test_laws_hold_for_transposed_weights(variant: Variant) -> None:
    graph = transposed()
    assert_invariant(nfn(graph.spec, variant), graph, tolerance=1e-10)
    assert_equivariant(editor(graph.spec, variant), graph, tolerance=1e-10)


def editor(spec: gmn.GraphSpec, variant: Variant, **options: object) -> NFN:
    """Edits of size one, so that laws are about the changes."""
    torch.manual_seed(0)
    net = NFN(spec, (4, 3), variant, EditHead(), **options).double()  # type: ignore[arg-type]
    with torch.no_grad():
        net.edits.size.fill_(1.0)
    return net


def test_edits_start_at_a_hundredth_and_come_in_copies() -> None:
    graph = graph_of(BY_NAME["cnn"])
    torch.manual_seed(0)
    net = NFN(graph.spec, (4, 3), head=EditHead(copies=2)).double()
    small = net(graph)
    with torch.no_grad():
        net.edits.size.copy_(torch.tensor([0.02, 1.0]))
    large = net(graph)
    assert len(small) == 2 * len(graph)
    for name, old in graph.values.items():
        (first, second), (twice, full) = (
            (g.values[name][:2] - old, g.values[name][2:] - old) for g in (small, large)
        )
        torch.testing.assert_close(twice, 2 * first)
        torch.testing.assert_close(full, 100 * second)
        assert relative_error(first, second) > 1e-3


OPTIONS: dict[str, Callable[[], dict[str, Any]]] = {
    "published": lambda: {"published": True},
    "sinusoidal": lambda: {"positions": SinusoidalPositions(3)},
    "fourier": lambda: {"fourier": FourierFeatures(4, scale=0.3)},
    "all": lambda: {
        "published": True,
        "positions": SinusoidalPositions(3),
        "fourier": FourierFeatures(4, scale=0.3),
    },
}


@pytest.mark.parametrize(
    "name",
    [
        "cnn-flatten",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("mlp-tanh", "cnn", "cnn-1d")),
    ],
)
@pytest.mark.parametrize(("variant", "options"), one_in(3, product(VARIANTS, OPTIONS)))
def test_laws_hold_with_options(name: str, variant: Variant, options: str) -> None:
    graph = graph_of(BY_NAME[name])
    torch.manual_seed(0)
    net = NFN(graph.spec, (4, 3), variant, **OPTIONS[options]()).double()
    assert_invariant(net, graph, tolerance=1e-10)
    assert_equivariant(editor(graph.spec, variant, **OPTIONS[options]()), graph, tolerance=1e-10)
    last = adapter.chain(graph.spec)[-1].weight.parameter
    changed = graph.replace({last: graph.values[last].flip(1)})  # outputs may not move
    assert relative_error(net(changed), net(graph)) > 1e-7


def test_without_positions_inputs_and_outputs_move() -> None:
    """What positions are for: the NP layer alone does not tell outputs apart."""
    graph = graph_of(BY_NAME["mlp-tanh"])
    net = nfn(graph.spec, "NP")
    with torch.no_grad():
        for embedding in net.positions.parameters():
            embedding.zero_()
    last = {name: graph.values[name].flip(1) for name in ("4.weight", "4.bias")}
    torch.testing.assert_close(net(graph.replace(last)), net(graph))


def test_sinusoidal_positions_say_the_index() -> None:
    """Codes of different indices differ, and stand only at inputs and outputs."""
    shapes = [(4, 3, 2), (5, 4, 1)]
    weights = [torch.zeros(2, 4, 3, 2), torch.zeros(2, 5, 4, 1)]
    biases = [torch.zeros(2, 4, 1), torch.zeros(2, 5, 1)]
    coded, others = SinusoidalPositions(3).build(shapes, 1)(weights, biases)
    first, last = coded[0].unflatten(-1, (2, 8))[..., 1:], coded[1][..., 1:]
    assert first.shape == (2, 4, 3, 2, 7)
    assert len(first[0, 0, :, 0].unique(dim=0)) == 3
    assert torch.equal(first, first[:1, :1, :, :1].expand_as(first))
    assert len(last[0, :, 0].unique(dim=0)) == 5
    assert torch.equal(last, last[:1, :, :1].expand_as(last))
    assert not others[0].any()
    assert torch.equal(others[1][0, :, 1:], last[0, :, 0])


def test_published_dws_has_three_layers() -> None:
    with pytest.raises(UnsupportedArchitecture, match="needs three weights, this network has 2"):
        NFN(spec_of("two-layers"), variant="DWS", published=True)


@chains
def test_statistics_are_invariant(case: Case) -> None:
    assert_invariant(layer_statistics, graph_of(case))


def test_nfn_reads_other_activations_but_not_other_widths() -> None:
    net = nfn(spec_of("mlp-relu"))
    assert net(graph_of(BY_NAME["mlp-tanh"])).shape == (2, 1)
    with pytest.raises(UnsupportedArchitecture, match="built for"):
        net(graph_of(BY_NAME["two-layers"]))


def test_head_may_be_a_module() -> None:
    spec = spec_of("cnn")
    pooled = NFN(spec, channels=(4, 3)).pooled
    net = NFN(spec, channels=(4, 3), head=nn.Linear(pooled, 7)).double()
    assert net(graph_of(BY_NAME["cnn"])).shape == (2, 7)


@pytest.mark.parametrize(
    ("name", "culprit"),
    [
        ("resnet", "gain of batch_norm"),
        ("cnn-grouped", "2.weight is not a full matrix"),
        ("cnn-depthwise", "2.weight is not a full matrix"),
        ("pre-activation", "node set embed is written by"),
        ("tied-hidden", "tied to middle.weight"),
        ("unused", "gain of mul"),
    ],
)
def test_refusals_name_the_culprit(name: str, culprit: str) -> None:
    with pytest.raises(UnsupportedArchitecture, match=culprit) as caught:
        NFN(spec_of(name))
    assert str(caught.value).startswith("node set ")
    assert "assumes a chain of full layers" in str(caught.value)
    assert "read by UNF, FlatMLP, StatNN and gmn.nn.GMN" in str(caught.value)


def test_flat_mlp_refuses_another_size() -> None:
    net = FlatMLP(spec_of("mlp-tanh")).double()
    with pytest.raises(ValueError, match="built for"):
        net(graph_of(BY_NAME["cnn"]))


def population(networks: int) -> tuple[gmn.ParameterGraph, torch.Tensor]:
    """MLPs whose target is the spread of their first weights."""
    states, targets = [], []
    for seed in range(networks):
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
        with torch.no_grad():
            model[0].weight.mul_(torch.rand(()) * 3)
        states.append(model.state_dict())
        targets.append(model[0].weight.std())
    spec = converters.trace(model, (torch.zeros(1, 3),))
    return gmn.ParameterGraph.from_state_dicts(spec, states), torch.stack(targets).detach()


def test_statistics_learn_and_repeat() -> None:
    graph, target = population(160)
    first = StatNN().fit([graph[:120]], target[:120], seed=1).predict([graph[120:]])
    again = StatNN().fit([graph[:60], graph[60:120]], target[:120], seed=1).predict([graph[120:]])
    assert torch.equal(first, again)
    assert torch.corrcoef(torch.stack([first, target[120:]]))[0, 1] > 0.95


def test_statistics_predict_after_fit_only() -> None:
    with pytest.raises(RuntimeError, match="after fit"):
        StatNN().predict([])


def test_layer_statistics_of_different_depths_are_refused() -> None:
    graphs = [
        converters.to_graph(
            nn.Sequential(*(nn.Linear(2, 2) for _ in range(depth))), (torch.zeros(1, 2),)
        )
        for depth in (1, 2)
    ]
    with pytest.raises(UnsupportedArchitecture, match="2 to 4 edge sets"):
        StatNN().fit(graphs, torch.zeros(2))


def test_statistics_give_a_probability_to_every_class() -> None:
    graph = graph_of(BY_NAME["mlp-tanh"], networks=60)
    target = torch.arange(60) % 3 * 2  # no network of class 1 or 3
    scores = StatNN(outputs=5).fit([graph], target).predict([graph])
    assert scores.shape == (60, 5)
    torch.testing.assert_close(scores.sum(1), torch.ones(60))
    assert not scores[:, [1, 3]].any()
    assert (scores.argmax(1) == target).double().mean() > 0.8
