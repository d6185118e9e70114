"""Baselines on traced networks: laws, learning, refusals."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import converters
import gmn
from baselines import NFN, FlatMLP, StatNN, UnsupportedArchitecture, adapter, layer_statistics
from gmn.testing import assert_invariant, relative_error
from tests.cases import Case
from tests.traced import BY_NAME, chains, graph_of, spec_of

VARIANTS = ("HNP", "NP")


def nfn(spec: gmn.GraphSpec, variant: str = "HNP") -> NFN:
    torch.manual_seed(0)
    return NFN(spec, channels=(4, 3), variant=variant).double()  # type: ignore[arg-type]


@chains
def test_features_round_trip_exactly(case: Case) -> None:
    graph = graph_of(case)
    back = adapter.from_features(graph, adapter.to_features(graph))
    for name, value in graph.values.items():
        assert torch.equal(back.values[name], value)


@chains
@pytest.mark.parametrize("variant", VARIANTS)
def test_nfn_is_invariant(case: Case, variant: str) -> None:
    graph = graph_of(case)
    assert_invariant(nfn(graph.spec, variant), graph)


@chains
def test_statistics_are_invariant(case: Case) -> None:
    assert_invariant(layer_statistics, graph_of(case))


def test_flat_mlp_is_not_invariant() -> None:
    graph = graph_of(BY_NAME["mlp-tanh"])
    with pytest.raises(AssertionError, match="FlatMLP is not invariant"):
        assert_invariant(FlatMLP(graph.spec).double(), graph)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("name", ["mlp-tanh", "cnn", "cnn-flatten", "two-layers", "single-layer"])
def test_nfn_notices_what_changes_the_function(name: str, variant: str) -> None:
    graph = graph_of(BY_NAME[name])
    net = nfn(graph.spec, variant)
    weight = adapter.chain(graph.spec)[0].weight.parameter
    one_side = graph.replace({weight: graph.values[weight].flip(1)})
    one_entry = graph.values[weight].clone()
    one_entry.view(len(graph), -1)[:, 0] += 1
    for changed in (graph.replace({weight: one_entry}), one_side):
        assert relative_error(net(changed), net(graph)) > 1e-6


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_batch_is_its_networks(variant: str) -> None:
    graph = graph_of(BY_NAME["cnn"], networks=3)
    net = nfn(graph.spec, variant)
    singles = torch.cat([net(graph[i]) for i in range(3)])
    torch.testing.assert_close(net(graph), singles)


def test_nfn_reads_other_activations_but_not_other_widths() -> None:
    net = nfn(spec_of("mlp-relu"))
    assert net(graph_of(BY_NAME["mlp-tanh"])).shape == (2, 1)
    with pytest.raises(UnsupportedArchitecture, match="built for"):
        net(graph_of(BY_NAME["two-layers"]))


def test_gradients_reach_the_weights() -> None:
    graph = graph_of(BY_NAME["cnn"])
    values = {n: v.clone().requires_grad_() for n, v in graph.values.items()}
    nfn(graph.spec)(gmn.ParameterGraph(graph.spec, values)).sum().backward()
    assert all(bool(value.grad.abs().sum() > 0) for value in values.values())


def test_nfn_saves_and_loads() -> None:
    graph = graph_of(BY_NAME["cnn"])
    net, other = nfn(graph.spec), NFN(graph.spec, channels=(4, 3)).double()
    other.load_state_dict(net.state_dict())
    assert torch.equal(net(graph), other(graph))


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
    assert "FlatMLP, StatNN and gmn.nn.GMN" in str(caught.value)


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


def test_quantiles_are_torchs() -> None:
    graph = graph_of(BY_NAME["mlp-tanh"])
    levels = torch.tensor([0, 0.25, 0.5, 0.75, 1], dtype=torch.float64)
    expected = graph.values["0.weight"].flatten(1).quantile(levels, dim=1).T
    torch.testing.assert_close(layer_statistics(graph)[:, 2:7], expected)


def test_statistics_give_a_probability_to_every_class() -> None:
    graph = graph_of(BY_NAME["mlp-tanh"], networks=60)
    target = torch.arange(60) % 3 * 2  # no network of class 1 or 3
    scores = StatNN(outputs=5).fit([graph], target).predict([graph])
    assert scores.shape == (60, 5)
    torch.testing.assert_close(scores.sum(1), torch.ones(60))
    assert not scores[:, [1, 3]].any()
    assert (scores.argmax(1) == target).double().mean() > 0.8
