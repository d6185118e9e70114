"""Monomial-NFN: laws, completeness, refusals."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

import converters
import gmn
from baselines import adapter
from baselines.layers.scaled import Form, ScaledChain, ScaledLinear, by_power, complete
from baselines.monomial import MonomialNFN, published_blocks
from gmn import symmetry
from gmn.nn.heads import EditHead
from gmn.nn.memory import saved_bytes
from gmn.testing import assert_same_function, relative_error
from gmn.zoo.architectures.networks import network
from tests.baselines.ranks import rank_of
from tests.baselines.scaled_chains import (
    assert_edits,
    changes,
    element_of,
    graph_of,
    invariance_error,
    scaled_chains,
    spec_of,
)
from tests.cases import Case
from tests.traced import BY_NAME as ANY
from tests.traced import graph_of as any_graph_of
from tests.traced import spec_of as any_spec_of

FLOAT64 = torch.float64


def reader(spec: gmn.GraphSpec, published: bool = False) -> MonomialNFN:
    torch.manual_seed(0)
    return MonomialNFN(spec, channels=(4, 3), published=published).double()


def editor(spec: gmn.GraphSpec, copies: int = 1) -> MonomialNFN:
    torch.manual_seed(0)
    net = MonomialNFN(spec, channels=(4, 3), head=EditHead(copies)).double()
    net.editor.size.data.fill_(1.0)
    return net


@scaled_chains
def test_elements_of_the_group_preserve_the_function(case: Case) -> None:
    model, state = case.model(), case.model().state_dict()
    moved = element_of(spec_of(case.name)).act(state)
    assert_same_function(model, state, moved, case.example(), tolerance=1e-10)


@scaled_chains
@pytest.mark.parametrize("published", [False, True])
def test_reading_is_invariant(case: Case, published: bool) -> None:
    graph = graph_of(case.name)
    assert invariance_error(reader(graph.spec, published), graph) < 1e-10


@scaled_chains
def test_editing_is_equivariant(case: Case) -> None:
    graph = graph_of(case.name)
    assert_edits(editor(graph.spec), graph)


@pytest.mark.parametrize("name", ["mlp-relu", "mlp-tanh", "cnn", "cnn-tanh", "mlp-mixed"])
def test_what_changes_the_function_is_noticed(name: str) -> None:
    graph = graph_of(name)
    net, spec = reader(graph.spec), graph.spec
    weight, last = (adapter.chain(spec)[place].weight.parameter for place in (0, -1))
    one_entry = graph.values[weight].clone()
    one_entry.view(len(graph), -1)[:, 0] += 1
    rows_without_bias = graph.values[weight].flip(1)
    one_row = graph.values[weight].clone()
    one_row[:, 0] *= 2 if "tanh" in name else -1  # the other group
    outputs = graph.values[last].flip(1)
    for changed in (
        graph.replace({weight: one_entry}),
        graph.replace({weight: rows_without_bias}),
        graph.replace({weight: one_row}),
        graph.replace({last: outputs}),
    ):
        assert relative_error(net(changed), net(graph)) > 1e-5


def mlp_spec(widths: tuple[int, ...], *activations: type[nn.Module]) -> gmn.GraphSpec:
    layers: list[nn.Module] = []
    for number, (into, out) in enumerate(itertools.pairwise(widths)):
        layers.append(nn.Linear(into, out))
        if number < len(widths) - 2:
            layers.append(activations[number % len(activations)]())
    return converters.trace(nn.Sequential(*layers), (torch.zeros(1, widths[0]),))


def cnn_spec(activation: type[nn.Module]) -> gmn.GraphSpec:
    model = nn.Sequential(
        *(nn.Conv1d(1, 2, 2), activation(), nn.Conv1d(2, 2, 2), activation()),
        *(nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(2, 2)),
    )
    return converters.trace(model, (torch.zeros(1, 1, 8),))


SIZES = ((3, 3, 3), (2, 3, 3, 3), (2, 3, 3, 3, 3))
SPACES = {
    **{(w, (nn.ReLU,)): d for w, d in zip(SIZES, (34, 29, 31), strict=True)},
    **{(w, (nn.Tanh,)): d for w, d in zip(SIZES, (58, 35, 37), strict=True)},
    ((2, 4, 3), (nn.Tanh,)): 45,
    ((2, 3, 3, 3), (nn.ReLU, nn.Tanh)): 35,
    ((2, 3, 3, 3), (nn.Tanh, nn.ReLU)): 29,
}


def commuting_dimension(spec: gmn.GraphSpec) -> int:
    """Dimension of the space of linear maps of the parameters that commute with 12 elements."""
    size = spec.num_parameters
    generator = torch.Generator().manual_seed(0)
    constraint = torch.zeros(size * size, size * size, dtype=FLOAT64)
    one = torch.eye(size, dtype=FLOAT64)
    for _ in range(12):
        moved = flat(symmetry.sample(spec, generator).act_on_graph(from_flat(spec, one)))
        # Two numbers per row: the group permutes and scales.
        rows = (torch.kron(moved.T.contiguous(), one) - torch.kron(one, moved)).to_sparse()
        constraint += torch.sparse.mm(rows.T, rows).to_dense()
    values = torch.linalg.eigvalsh(constraint)
    return int((values < 1e-10 * values[-1]).sum())


def from_flat(spec: gmn.GraphSpec, rows: Tensor) -> gmn.ParameterGraph:
    sizes = [torch.Size(entry.shape) for entry in spec.entries]
    parts = rows.split([size.numel() for size in sizes], dim=1)
    values = {e.name: p.reshape(-1, *e.shape) for e, p in zip(spec.entries, parts, strict=True)}
    return gmn.ParameterGraph(spec, values)


def flat(graph: gmn.ParameterGraph) -> Tensor:
    return torch.cat([value.flatten(1) for value in graph.values.values()], dim=1)


def one_channel(
    spec: gmn.GraphSpec, published: bool = False
) -> tuple[ScaledLinear, ScaledChain, list[Tensor]]:
    """A layer from one channel to one, its chain, and features of random networks."""
    chain = ScaledChain.of(spec, "test")
    forms = chain.forms(1, chain.taps)
    blocks = (published_blocks if published else complete)(chain, forms, forms)
    layer = ScaledLinear(forms, forms, blocks).double()
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(40, spec.num_parameters, generator=generator, dtype=FLOAT64)
    return layer, chain, chain.read(from_flat(spec, rows))


def map_count(layer: ScaledLinear) -> int:
    return sum(linear.weight.numel() for linear in layer.mix)


beta = pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")


@beta
@pytest.mark.parametrize(
    ("widths", "activations", "dimension"),
    [
        pytest.param(*key, found, marks=pytest.mark.slow if key[0] in SIZES[1:] else ())
        for key, found in SPACES.items()
    ],
)
def test_one_parameter_per_equivariant_map(
    widths: tuple[int, ...], activations: tuple[type[nn.Module], ...], dimension: int
) -> None:
    spec = mlp_spec(widths, *activations)
    layer, chain, values = one_channel(spec)
    assert map_count(layer) == dimension
    assert rank_of(layer.mix, lambda: layer(chain, values)) == dimension
    assert commuting_dimension(spec) == dimension


@beta
@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh])
def test_layers_on_kernels_are_complete(activation: type[nn.Module]) -> None:
    spec = cnn_spec(activation)
    layer, chain, values = one_channel(spec)
    assert (
        map_count(layer)
        == rank_of(layer.mix, lambda: layer(chain, values))
        == commuting_dimension(spec)
    )


@pytest.mark.parametrize(
    ("make_spec", "dimension"),
    [
        (partial(mlp_spec, (3, 3, 3), nn.ReLU), 34),
        (partial(mlp_spec, (3, 3, 3), nn.Tanh), 37),
        (partial(mlp_spec, (2, 3, 3, 3), nn.Tanh), 35),
        (partial(mlp_spec, (2, 3, 3, 3, 3), nn.Tanh), 37),
        (partial(cnn_spec, nn.Tanh), 9 + 4 + 1 + 4 + 4),
    ],
)
def test_the_published_subset(make_spec: Callable[[], gmn.GraphSpec], dimension: int) -> None:
    layer, chain, values = one_channel(make_spec(), published=True)
    assert map_count(layer) == rank_of(layer.mix, lambda: layer(chain, values)) == dimension


def test_layer_against_a_slow_reference() -> None:
    """Neuron by neuron: with one hidden layer, signs let all that touches a neuron meet."""
    layer, chain, values = one_channel(mlp_spec((3, 4, 2), nn.Tanh))
    found = layer(chain, values)
    mixing = {block: linear.weight for block, linear in zip(layer.blocks, layer.mix, strict=True)}
    reading, read = (0, 2), (1,)  # first weight and hidden bias; last weight
    for neuron in range(4):
        before = torch.cat([values[0][:, :, neuron], values[2][:, :, neuron]], dim=1)
        after = values[1][:, :, neuron]
        own = before @ mixing[reading, reading].T + after @ mixing[read, reading].T
        last = after @ mixing[read, read].T + before @ mixing[reading, read].T
        seen = torch.cat([found[0][:, :, neuron], found[2][:, :, neuron]], dim=1)
        torch.testing.assert_close(seen, own, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(found[1][:, :, neuron], last, rtol=1e-12, atol=1e-12)


def test_blocks_that_no_group_allows_are_refused() -> None:
    chain = ScaledChain.of(spec_of("mlp-relu"), "test")
    forms = chain.forms(1, chain.taps)
    with pytest.raises(ValueError, match="no group lets"):
        ScaledLinear(forms, forms, [((0, 1), (0, 1)), *by_power(forms, forms)])
    with pytest.raises(ValueError, match=r"outputs \[0, 3\] read no input"):
        ScaledLinear(forms, forms, by_power(forms, forms)[1:])
    with pytest.raises(ValueError, match="no group lets"):
        ScaledLinear([Form((), 1)], [forms[1]], [((0,), (0,))])


def test_published_configuration_has_its_parameters() -> None:
    """An affine map of pooled features, 320 numbers, is part of the head's first layer in ours."""
    spec = converters.trace(network("cnn-relu"), (torch.zeros(1, 1, 14, 14),))
    plain, published = (MonomialNFN(spec, published=whether) for whether in (False, True))
    assert sum(p.numel() for p in published.parameters()) == 254_619
    assert sum(p.numel() for p in plain.parameters()) == 254_619 - 320


def test_memory_of_the_published_configuration() -> None:
    spec = converters.trace(network("cnn-relu"), (torch.zeros(1, 1, 14, 14),))
    graph = gmn.ParameterGraph.from_state_dicts(spec, [network("cnn-relu").state_dict()] * 8)
    net = MonomialNFN(spec)
    with saved_bytes(net) as saved:
        net(graph)
    assert sum(saved.values()) / 2**20 < 6.9


def test_edits_come_one_after_the_other() -> None:
    graph = graph_of("cnn", networks=3)
    net = editor(graph.spec, copies=2)
    both, alone = net(graph), torch.cat([changes(net(graph[i])[0], graph[i]) for i in range(3)])
    assert len(both) == 6
    first = torch.cat([changes(both[i], graph[i]) for i in range(3)])
    torch.testing.assert_close(first, alone)
    assert relative_error(changes(both[3:], graph), changes(both[:3], graph)) > 0.1


@pytest.mark.parametrize(
    ("name", "signs_only"),
    [("cnn", {"2.bias", "4.bias"}), ("cnn-tanh", set()), ("mlp-tanh", set())],
)
def test_gradients_reach_the_weights(name: str, signs_only: set[str]) -> None:
    """Except what positive scales leave of an entry that layers mix with no other: its sign."""
    graph = graph_of(name)
    values = {n: v.clone().requires_grad_() for n, v in graph.values.items()}
    reader(graph.spec)(gmn.ParameterGraph(graph.spec, values)).sum().backward()
    assert {n for n, v in values.items() if v.grad.abs().sum() < 1e-12} == signs_only


def test_magnitudes_that_positive_scales_leave_unread() -> None:
    """Hidden biases, and in MLPs hidden weights, are orbits of their own: the method's limit."""
    graph = graph_of("mlp-relu")
    net = reader(graph.spec)
    for name in ("2.weight", "2.bias"):
        scaled, flipped = (graph.replace({name: graph.values[name] * f}) for f in (3, -1))
        assert relative_error(net(scaled), net(graph)) < 1e-12
        assert relative_error(net(flipped), net(graph)) > 1e-5


@pytest.mark.parametrize("name", ["cnn", "cnn-tanh"])
def test_networks_of_zeros_have_finite_gradients(name: str) -> None:
    graph = graph_of(name)
    values = {n: torch.zeros_like(v).requires_grad_() for n, v in graph.values.items()}
    net = reader(graph.spec)
    net(gmn.ParameterGraph(graph.spec, values)).sum().backward()
    tensors = [*values.values(), *net.parameters()]
    assert all(bool(t.grad.isfinite().all()) for t in tensors if t.grad is not None)


def test_head_may_be_a_module() -> None:
    pooled = MonomialNFN(spec_of("cnn"), channels=(4, 3)).pooled
    net = MonomialNFN(spec_of("cnn"), channels=(4, 3), head=nn.Linear(pooled, 7)).double()
    assert net(graph_of("cnn")).shape == (2, 7)


@pytest.mark.parametrize(
    ("name", "culprit"),
    [
        ("mlp-gelu", "node set 0 has no scales after gelu"),
        ("cnn-unequal-kernels", "node set 0 has no scales after tanh, max_pool2d"),
        ("resnet", "gain of batch_norm"),
    ],
)
def test_refusals_name_the_culprit(name: str, culprit: str) -> None:
    with pytest.raises(adapter.UnsupportedArchitecture, match=culprit) as caught:
        MonomialNFN(any_spec_of(name))
    assert "FlatMLP, StatNN and gmn.nn.GMN" in str(caught.value)


@pytest.mark.parametrize(("built", "read"), [("relu", "tanh"), ("tanh", "relu"), ("sine", "relu")])
def test_networks_of_another_group_are_read_too(built: str, read: str) -> None:
    """With the maps that both groups allow, the law of the networks' own holds."""
    net, graph = reader(spec_of(f"mlp-{built}")), graph_of(f"mlp-{read}")
    assert invariance_error(net, graph) < 1e-10
    own = reader(graph.spec)
    assert relative_error(net(graph), own(graph)) > 1e-3


def test_networks_of_another_shape_are_refused() -> None:
    with pytest.raises(adapter.UnsupportedArchitecture, match="this MonomialNFN was built for"):
        reader(spec_of("mlp-relu"))(graph_of("two-layers"))
    with pytest.raises(adapter.UnsupportedArchitecture, match="has no scales after gelu"):
        reader(spec_of("mlp-relu"))(any_graph_of(ANY["mlp-gelu"]))


def test_groups_are_read_off_the_spec() -> None:
    chain = ScaledChain.of(spec_of("mlp-mixed"), "test")
    assert [set(one) for one in chain.domains] == [{"positive"}, {"sign"}, {"sign"}]
    assert ScaledChain.of(spec_of("mlp-identity"), "test").domains == ({"positive", "sign"},) * 2
    assert ScaledChain.of(spec_of("scalar-hidden"), "test").domains == ({"positive"},)
