"""Statistics of weights, and models that see what symmetries of the function would hide."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

import gmn
from baselines import rich_statistics
from gmn import registry, symmetry
from gmn.errors import ArgumentError
from gmn.graph.statistics import (
    DISTRIBUTION,
    EDGE_STATISTICS,
    QUANTILES,
    distribution,
    edge_statistics,
    neuron_statistics,
    quantiles,
)
from gmn.nn import DualGMN, EditHead, InvariantHead
from gmn.symmetry import KINDS
from gmn.tasks import Regression
from gmn.testing import assert_equivariant, assert_invariant, relative_error
from tests.cases import Case
from tests.traced import BY_NAME, covering_cases, graph_of, several_cases

SEEN = KINDS[:2]


def net(head: object = 3, symmetries: tuple[str, ...] = SEEN, passes: int = 0) -> DualGMN:
    torch.manual_seed(0)
    head = InvariantHead(head) if isinstance(head, int) else head
    model = DualGMN(16, 2, head, symmetries=symmetries, passes=passes)
    return model.double().eval()


def test_a_distribution_is_numpys_and_scipys() -> None:
    values = torch.randn(3, 101, dtype=torch.float64).exp()
    found = distribution(values).numpy()
    each = values.numpy()
    expected = np.stack(
        [
            each.mean(1),
            each.std(1),
            np.log(each.std(1)),
            np.abs(each).mean(1),
            scipy.stats.skew(each, axis=1),
            scipy.stats.kurtosis(each, axis=1, fisher=False),
            *np.quantile(each, QUANTILES, axis=1),
        ],
        axis=1,
    )
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert found.shape == (3, DISTRIBUTION)


def test_one_value_and_equal_values_have_finite_statistics_and_gradients() -> None:
    for values in (torch.ones(2, 1), torch.zeros(2, 5), torch.full((2, 3), 1e-20)):
        values.requires_grad_()
        found = distribution(values)
        found.sum().backward()
        assert found.isfinite().all()
        assert values.grad is not None
        assert values.grad.isfinite().all()


def test_norms_and_spectra_are_those_of_the_matrix() -> None:
    graph = graph_of(BY_NAME["cnn"])
    edges = next(e for e in graph.spec.edge_sets if e.num_taps > 1 and e.kind == "weight")
    kernel = graph.block(edges)
    parts = edge_statistics(graph, edges).split(DISTRIBUTION, dim=1)
    matrices = kernel.flatten(2)
    for part, values in zip(
        parts,
        (
            kernel.flatten(1),
            matrices.norm(dim=2),
            kernel.square().sum(dim=(1, *range(3, kernel.ndim))).sqrt(),
            torch.linalg.svdvals(matrices),
        ),
        strict=True,
    ):
        torch.testing.assert_close(part, distribution(values))


def test_sizes_do_not_know_signs() -> None:
    graph = graph_of(BY_NAME["cnn"])
    other = graph.replace({n: -v for n, v in graph.values.items()})
    for edges in graph.spec.edge_sets:
        pairs = zip(
            (edge_statistics(graph, edges, True), *neuron_statistics(graph, edges, True)),
            (edge_statistics(other, edges, True), *neuron_statistics(other, edges, True)),
            strict=True,
        )
        assert all(torch.equal(one, two) for one, two in pairs)


def test_spectra_of_wide_matrices_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = graph_of(BY_NAME["mlp-relu"])
    edges = graph.spec.edge_sets[0]
    whole = edge_statistics(graph, edges)
    monkeypatch.setattr("gmn.graph.statistics.LARGEST_SPECTRUM", 0)
    cut = edge_statistics(graph, edges)
    last = 3 * DISTRIBUTION
    assert torch.equal(whole[:, :last], cut[:, :last])
    assert torch.equal(cut[:, last:], distribution(torch.zeros(len(graph), 1).to(cut)))


def test_half_precision_is_read_in_single() -> None:
    graph = graph_of(BY_NAME["mlp-relu"]).to(dtype=torch.bfloat16)
    edges = graph.spec.edge_sets[0]
    single = edge_statistics(graph.to(dtype=torch.float32), edges)
    assert torch.equal(edge_statistics(graph, edges), single)


@pytest.mark.parametrize("levels", [(0.0, 0.3, 1.0), (0.5,)])
def test_quantiles_are_torchs(levels: tuple[float, ...]) -> None:
    values = torch.randn(4, 37, dtype=torch.float64)
    expected = values.quantile(torch.tensor(levels, dtype=torch.float64), dim=1).T
    torch.testing.assert_close(quantiles(values, levels), expected)


@several_cases
def test_statistics_do_not_depend_on_the_order_of_neurons(case: Case) -> None:
    assert_invariant(rich_statistics, graph_of(case), symmetries=("permutations",))


@covering_cases
def test_what_is_chosen_does_not_change_answers(case: Case) -> None:
    assert_invariant(net(), graph_of(case), symmetries=SEEN)


@several_cases
@pytest.mark.parametrize("kind", KINDS[2:])
def test_kinds_can_be_chosen_one_by_one(case: Case, kind: str) -> None:
    model = net(symmetries=(*SEEN, kind))
    assert_invariant(model, graph_of(case), symmetries=model.symmetries, tolerance=1e-7)


NOT_CHOSEN = [
    ("mlp-relu", "scalings"),
    ("mlp-tanh", "scalings"),
    ("mlp-sine", "scalings"),
    ("transformer", "scalings"),
    ("transformer", "gauges"),
    ("transformer", "translations"),
]


@pytest.mark.parametrize(("name", "kind"), NOT_CHOSEN)
def test_what_is_not_chosen_is_seen(name: str, kind: str) -> None:
    graph = graph_of(BY_NAME[name])
    generator = torch.Generator().manual_seed(0)
    moved = symmetry.sample(graph.spec, generator, symmetries=(kind,)).act_on_graph(graph)
    others = tuple(other for other in KINDS if other != kind)
    with torch.no_grad():
        assert relative_error(net(symmetries=others)(graph), net(symmetries=others)(moved)) > 1e-5
        assert relative_error(net(symmetries=KINDS)(graph), net(symmetries=KINDS)(moved)) < 1e-9


def test_edits_move_with_what_is_chosen() -> None:
    for name in ("cnn", "transformer"):
        assert_equivariant(net(EditHead()), graph_of(BY_NAME[name]), symmetries=SEEN)


def test_all_symmetries_need_no_statistics() -> None:
    assert net(symmetries=KINDS).statistics is None
    assert net().statistics is not None
    assert "statistics" not in str(dict(net(symmetries=KINDS).state_dict()).keys())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("permutations",), "leaves out exchanges"),
        (("permutations", "exchanges", "turns"), "turns"),
        ("permutations", "give a list"),
        (None, "give a list"),
    ],
)
def test_other_choices_are_refused(given: object, message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        DualGMN(16, 2, symmetries=given)  # type: ignore[arg-type]


def standardised(model: DualGMN, graph: gmn.ParameterGraph) -> list[Tensor]:
    """Statistics of edge sets (B, edge sets, n), and of the neurons of all ends together."""
    encoder = model.statistics
    assert encoder is not None
    codes, own = encoder._codes(graph.spec), [e for e in graph.spec.edge_sets if not e.tied_to]
    whole = torch.stack([edge_statistics(graph, edges) for edges in own], dim=1)
    ends = [neuron_statistics(graph, edges) for edges in own]
    neurons = [
        torch.cat(
            [
                encoder.usual[1 + end](pair[end], code).flatten(0, 1)
                for pair, code in zip(ends, codes, strict=True)
            ]
        )
        for end in range(2)
    ]
    return [encoder.usual[0](whole, codes), *neurons]


@pytest.mark.parametrize("name", ["cnn", "transformer"])
def test_statistics_are_standardised_over_a_population(name: str) -> None:
    graph, model = graph_of(BY_NAME[name], networks=20), net()
    model.prepare(graph[first : first + 5] for first in range(0, 20, 5))
    whole, *neurons = standardised(model, graph)
    varies = whole.std(dim=0) > 0.5
    assert varies.double().mean() > 0.4
    assert whole.mean(dim=0).abs().max() < 0.05
    found = whole.std(dim=0, unbiased=False)[varies]
    torch.testing.assert_close(found, torch.ones_like(found), atol=0.05, rtol=0)
    for values in neurons:
        assert values.mean(dim=0).abs().max() < 0.1


def test_neurons_know_what_they_take_and_give() -> None:
    graph = graph_of(BY_NAME["cnn"])
    edges = next(e for e in graph.spec.edge_sets if e.num_taps > 1)
    kernel = graph.block(edges)
    sources, targets = neuron_statistics(graph, edges)
    for found, dims in ((sources, (1, 3, 4)), (targets, (2, 3, 4))):
        norms = kernel.square().sum(dims).sqrt()
        torch.testing.assert_close(found[..., 0], norms.log())
        torch.testing.assert_close(found[..., 1], kernel.sum(dims) / norms)


def test_statistics_of_several_architectures_are_standardised_together() -> None:
    graphs = [graph_of(BY_NAME[name], networks=20) for name in ("mlp-relu", "cnn")]
    model = net()
    model.prepare(graphs)
    usual = torch.cat([standardised(model, graph)[0].flatten() for graph in graphs])
    assert usual.mean().abs() < 0.1
    assert usual.abs().quantile(0.9) < 3


def test_a_statistic_that_never_changes_is_left_at_zero() -> None:
    graph, model = graph_of(BY_NAME["mlp-relu"]), net()
    model.prepare([graph[:1]])
    assert standardised(model, graph[:1])[0].abs().max() < 1e-3


def test_without_a_population_answers_are_finite() -> None:
    graph = graph_of(BY_NAME["cnn"])
    for factor in (0.0, 1.0, 1e4):
        scaled = graph.replace({n: v * factor for n, v in graph.values.items()})
        model = net()
        answer = model(scaled)
        answer.sum().backward()
        assert answer.isfinite().all()
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_preparing_reads_nothing_where_nothing_is_to_be_fitted() -> None:
    def never() -> object:
        raise AssertionError("read")
        yield

    net(symmetries=KINDS).prepare(never())  # type: ignore[arg-type]


def test_training_prepares_and_a_state_dict_keeps_it() -> None:
    graph, model, other = graph_of(BY_NAME["cnn"], networks=6), net(), net()
    model.prepare([graph])
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        assert torch.equal(model(graph), other(graph))
        assert relative_error(model(graph), net()(graph)) > 1e-6


def test_the_number_of_statistics_is_what_it_says() -> None:
    graph = graph_of(BY_NAME["cnn"])
    assert edge_statistics(graph, graph.spec.edge_sets[0]).shape == (2, EDGE_STATISTICS)


def test_presets_are_chosen_by_the_question() -> None:
    spec = graph_of(BY_NAME["cnn"]).spec
    for name in ("dual-gmn", "dual-gmn-weights"):
        factory = pickle.loads(pickle.dumps(registry.find(name)))
        chosen = {
            question: registry.about(factory, question)(spec, 1).symmetries
            for question in ("function", "training")
        }
        assert chosen == {"function": KINDS, "training": SEEN}
        assert factory(spec, 1).symmetries == KINDS
    own = registry.find("gmn")
    assert registry.about(own, "training") is own


def test_a_task_builds_the_model_for_its_question() -> None:
    spec = graph_of(BY_NAME["cnn"]).spec
    factory = registry.find("dual-gmn-weights")
    rate, accuracy = Regression(label="learning_rate"), Regression(label="test_accuracy")
    assert rate.build(factory, spec).symmetries == SEEN  # type: ignore[union-attr]
    assert accuracy.build(factory, spec).symmetries == KINDS  # type: ignore[union-attr]
