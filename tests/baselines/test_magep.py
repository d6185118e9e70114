"""MAGEP-NFN: laws, monomials against their definitions, independence, stability."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import converters
import gmn
from baselines import adapter
from baselines.layers.scaled import ScaledChain
from baselines.magep import MAGEP, Columns, InvariantLayer, Matrices, MonomialLayer, PathProducts
from gmn.nn.heads import EditHead
from gmn.nn.memory import saved_bytes
from gmn.testing import relative_error
from gmn.zoo.architectures.networks import network
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
from tests.traced import spec_of as any_spec_of


def reader(spec: gmn.GraphSpec, published: bool = False) -> MAGEP:
    torch.manual_seed(0)
    return MAGEP(spec, channels=(4, 3, 2), invariants=5, published=published).double()


def editor(spec: gmn.GraphSpec, copies: int = 1, published: bool = False) -> MAGEP:
    torch.manual_seed(0)
    net = MAGEP(spec, channels=(4, 3), head=EditHead(copies), published=published).double()
    net.editor.size.data.fill_(1.0)
    return net


@scaled_chains
@pytest.mark.parametrize("published", [False, True])
def test_reading_is_invariant(case: Case, published: bool) -> None:
    graph = graph_of(case.name)
    assert invariance_error(reader(graph.spec, published), graph) < 1e-10


@scaled_chains
@pytest.mark.parametrize("published", [False, True])
def test_editing_is_equivariant(case: Case, published: bool) -> None:
    graph = graph_of(case.name)
    assert_edits(editor(graph.spec, published=published), graph)


CHAINS = ["mlp-relu", "mlp-tanh", "mlp-sine", "two-layers", "cnn", "cnn-tanh", "mlp-mixed"]


@pytest.mark.parametrize("name", CHAINS)
def test_what_changes_the_function_is_noticed(name: str) -> None:
    graph = graph_of(name)
    net, links = reader(graph.spec), adapter.chain(graph.spec)
    first, second = links[0].weight.parameter, links[1].weight.parameter
    for parameter, value in graph.values.items():
        scaled = graph.replace({parameter: 1.5 * value})
        assert relative_error(net(scaled), net(graph)) > 1e-7, parameter
    for parameter, dim in ((first, 1), (second, 2)):  # one side of a permutation
        moved = graph.replace({parameter: graph.values[parameter].flip(dim)})
        assert relative_error(net(moved), net(graph)) > 1e-6


@pytest.mark.parametrize(("name", "factor"), [("mlp-relu", -1.0), ("mlp-tanh", 2.0), ("cnn", -1.0)])
def test_the_other_group_is_noticed(name: str, factor: float) -> None:
    """A scale of the wrong kind, coupled as it should be, between layers that keep their law."""
    graph = graph_of(name)
    net, links = reader(graph.spec), adapter.chain(graph.spec)
    values = {n: v.clone() for n, v in graph.values.items()}
    values[links[0].weight.parameter][:, 0] *= factor
    assert links[0].bias is not None
    values[links[0].bias.parameter][:, 0] *= factor
    values[links[1].weight.parameter][:, :, 0] /= factor
    assert relative_error(net(graph.replace(values)), net(graph)) > 1e-6


def test_equivariant_changes_are_not_the_weights() -> None:
    """Changes are polynomials: of a network twice as large they are not a multiple."""
    graph = graph_of("mlp-relu")
    net = editor(graph.spec)
    double = graph.replace({n: 2 * v for n, v in graph.values.items()})
    one, two = changes(net(graph), graph), changes(net(double), double)
    ratio = (one * two).sum() / (one * one).sum()
    assert relative_error(two, ratio * one) > 1e-2


def chain_of(name: str) -> ScaledChain:
    """A chain whose kernels are channels already."""
    chain = ScaledChain.of(spec_of(name), "test")
    return ScaledChain(tuple((o, i, 1) for o, i, _ in chain.shapes), chain.domains, "test")


def random_matrices(
    chain: ScaledChain, channels: int, batch: int = 2
) -> tuple[list[Tensor], list[Tensor]]:
    generator = torch.Generator().manual_seed(2)
    draw = {"generator": generator, "dtype": torch.float64}
    weights = [torch.randn(batch, channels, o, i, **draw) for o, i, _ in chain.shapes]
    return weights, [torch.randn(batch, channels, o, 1, **draw) for o, _, _ in chain.shapes]


def laid_out(chain: ScaledChain, weights: list[Tensor], biases: list[Tensor]) -> list[Tensor]:
    return [chain.lay_out(w, n, n - 1) for n, w in enumerate(weights, 1)] + [
        chain.lay_out(b, n, 0) for n, b in enumerate(biases, 1)
    ]


def chained(weights: list[Tensor], s: int, t: int) -> Tensor:
    """[W]^(s,t) by definition, sums over hidden neurons divided by the root of their number."""
    result = weights[s - 1]
    for layer in range(s - 1, t, -1):
        result = result @ weights[layer - 1] / result.shape[-1] ** 0.5
    return result


def from_bias(weights: list[Tensor], biases: list[Tensor], s: int, t: int) -> Tensor:
    """[W]^(s,t) b^(t) by definition, with the same factors; b^(s) for t = s."""
    if s == t:
        return biases[s - 1]
    return chained(weights, s, t) @ biases[t - 1] / weights[t].shape[-1] ** 0.5


def path_mean(weights: list[Tensor], start: Tensor | None = None, after: int = 0) -> Tensor:
    """Mean over paths of the product of absolute values, from inputs or from |b| of a layer."""
    vector = weights[0].new_ones(len(weights[0]), weights[0].shape[-1], 1)
    if start is not None:
        vector = start.abs().mean(1)
    for weight in weights[after:]:
        vector = weight.abs().mean(1) @ vector / weight.shape[-1]
    return vector.mean((1, 2)).view(-1, 1, 1, 1)


def mean_size(value: Tensor) -> Tensor:
    return value.abs().mean((1, 2, 3)).view(-1, 1, 1, 1)


@pytest.mark.parametrize("name", ["mlp-relu", "two-layers", "cnn", "square", "single-layer"])
def test_monomials_against_their_definitions(name: str) -> None:
    chain = chain_of(name)
    weights, biases = random_matrices(chain, 2)
    of_layer = Columns(chain, 2, range(1, chain.depth + 1)).double()
    of_weight = Matrices(chain, 2).double()
    products = PathProducts(chain, laid_out(chain, weights, biases))
    columns, matrices = of_layer(products), iter(of_weight(products))
    inputs, depth = chain.sizes[0], chain.depth
    along = path_mean(weights) + mean_size(chained(weights, depth, 0))
    for layer in range(1, depth + 1):
        here = along + path_mean(weights, biases[layer - 1], layer)
        here = here + mean_size(from_bias(weights, biases, depth, layer))
        psi = of_layer.psi[layer - 1]
        whole = chained(weights, depth, 0)
        expected = [
            chained(weights, layer, 0),
            *(from_bias(weights, biases, layer, t) for t in range(1, layer + 1)),
            chained(weights, layer, 0) @ (psi[:, :inputs] @ whole) / along,
            biases[layer - 1] @ (psi[:, inputs:] @ whole) / here,
        ]
        found = chain.matrix(columns[layer - 1], layer, 0, 3 * inputs + layer)
        torch.testing.assert_close(found, torch.cat(expected, dim=3), rtol=1e-12, atol=1e-12)
        if layer > 1:
            psi, onward = of_weight.psi[layer - 2], chained(weights, depth, layer - 1)
            through = chained(weights, layer, 0) @ (psi[:, :inputs] @ onward) / along
            of_bias = biases[layer - 1] @ (psi[:, inputs:] @ onward) / here
            for value in (weights[layer - 1], through, of_bias):
                seen = chain.matrix(next(matrices), layer, layer - 1, value.shape[3])
                torch.testing.assert_close(seen, value, rtol=1e-12, atol=1e-12)
    assert not list(matrices)


@pytest.mark.parametrize("name", ["mlp-relu", "two-layers", "scalar-hidden"])
def test_every_monomial_is_independent_of_the_others(name: str) -> None:
    """As many independent functions of the network as the layer has numbers to mix them."""
    chain = chain_of(name)
    layer = MonomialLayer(chain, 1, 1).double()
    weights, biases = random_matrices(chain, 1, batch=60)
    values = laid_out(chain, weights, biases)
    mixing = [p for linear in layer.mix.mix for p in linear.parameters()]
    columns = []
    with torch.no_grad():
        for parameter in mixing:
            parameter.zero_()
        for parameter in mixing:
            for place in range(parameter.numel()):
                parameter.view(-1)[place] = 1
                columns.append(torch.cat([value.flatten() for value in layer(chain, values)]))
                parameter.view(-1)[place] = 0
    table = torch.stack(columns)
    assert int(torch.linalg.matrix_rank(table / table.norm(dim=1, keepdim=True))) == len(columns)


def test_traces_are_sums_of_the_invariants() -> None:
    chain = chain_of("mlp-relu")
    weights, biases = random_matrices(chain, 1, batch=60)
    layer = InvariantLayer(chain, 1, 1).double()
    products = PathProducts(chain, laid_out(chain, weights, biases))
    (kept,) = layer.columns(products)
    depth, psi = chain.depth, torch.randn(1, chain.sizes[0] + 1, chain.sizes[-1]).double()
    traces = []
    for s in range(1, depth):
        onward = chained(weights, depth, s)
        rows = psi @ onward
        of_weights = chained(weights, s, 0) @ rows[:, :, :-1]
        of_bias = biases[s - 1] @ rows[:, :, -1:]
        traces += [m.diagonal(dim1=2, dim2=3).sum(2) for m in (of_weights, of_bias)]
    both = torch.cat([kept, *traces], dim=1)
    assert int(torch.linalg.matrix_rank(kept)) == kept.shape[1]
    assert int(torch.linalg.matrix_rank(both, rtol=1e-10)) == kept.shape[1]


def product(weights: list[Tensor], s: int, t: int) -> Tensor:
    """[W]^(s,t) as the paper has it; the identity for t = s."""
    result = torch.eye(weights[s - 1].shape[2], dtype=torch.float64)
    for layer in range(s, t, -1):
        result = result @ weights[layer - 1]
    return result


@pytest.mark.parametrize("name", ["mlp-relu", "two-layers", "cnn", "square", "single-layer"])
def test_published_monomials_against_their_definitions(name: str) -> None:
    chain = chain_of(name)
    weights, biases = random_matrices(chain, 2)
    depth, inputs = chain.depth, chain.sizes[0]
    columns = Columns(chain, 2, range(1, depth + 1), published=True).double()
    matrices = Matrices(chain, 2, published=True).double()
    products = PathProducts(chain, laid_out(chain, weights, biases), published=True)
    found, squares = columns(products), iter(matrices(products))
    for layer in range(1, depth + 1):
        psi, bias = columns.psi[layer - 1], biases[layer - 1]
        before = [product(weights, layer, t) @ biases[t - 1] for t in range(1, layer)]
        expected = [
            product(weights, layer, 0),
            *([torch.stack(before).sum(0)] if before else []),
            bias,
            product(weights, layer, 0) @ psi[:, :inputs] @ product(weights, depth, 0),
            bias @ psi[:, inputs:] @ product(weights, depth, 0),
        ]
        value = found[layer - 1]
        if layer == depth > 1:
            value, traces = value.split([value.shape[1] - 4 * (depth - 1), 4 * (depth - 1)], dim=1)
            torch.testing.assert_close(traces, traces_of(columns.traces.psi, weights, biases))
        width = 3 * inputs + min(layer, 2)
        value = chain.matrix(value, layer, 0, width)
        torch.testing.assert_close(value, torch.cat(expected, dim=3), rtol=1e-12, atol=1e-12)
        if layer > 1:
            psi, onward = matrices.psi[layer - 2], product(weights, depth, layer - 1)
            through = product(weights, layer, 0) @ psi[:, :inputs] @ onward
            for value in (weights[layer - 1], through, bias @ psi[:, inputs:] @ onward):
                seen = chain.matrix(next(squares), layer, layer - 1, value.shape[3])
                torch.testing.assert_close(seen, value, rtol=1e-12, atol=1e-12)
    assert not list(squares)


def traces_of(psi: Tensor, weights: list[Tensor], biases: list[Tensor]) -> Tensor:
    """The published traces, layer by layer: of both kinds, of all channels."""
    traces, depth = [], len(weights)
    for s in range(1, depth):
        onward, own = product(weights, depth, s), psi[s - 1]
        for matrix in (
            product(weights, s, 0) @ own[:, :-1] @ onward,
            biases[s - 1] @ own[:, -1:] @ onward,
        ):
            traces.append(matrix.diagonal(dim1=2, dim2=3).sum(2))
    return torch.cat(traces, dim=1)


def test_published_form_has_the_published_count() -> None:
    """Ψ is drawn once and kept in the equivariant layers, and learned where invariants are read."""
    net = MAGEP(zoo_graph(1).spec, published=True)
    assert sum(p.numel() for p in net.parameters()) == 998_121
    first = sum(p.numel() for p in net.first.parameters())
    layers = [sum(p.numel() for p in layer.parameters()) for layer in net.layers]
    last = sum(p.numel() for p in net.last.parameters())
    assert (first, layers, last) == (5_000, [353_800] * 2, 56 * 400 + 20 + 1_600)


def zoo_graph(networks: int) -> gmn.ParameterGraph:
    spec = converters.trace(network("cnn-relu"), (torch.zeros(1, 1, 14, 14),))
    states = [network("cnn-relu").state_dict() for _ in range(networks)]
    return gmn.ParameterGraph.from_state_dicts(spec, states)


def test_published_configuration_has_its_parameters() -> None:
    """The paper's counts, less its traces, with one coefficient per bias in products of biases."""
    net = MAGEP(zoo_graph(1).spec)
    (first, _), e = net.layers, 20
    official, traces, per_bias = 884, 60, 200 + 1
    mixed = sum(p.numel() for p in first.mix.parameters())
    assert mixed == (official - traces + per_bias) * e * e + 10 * e
    assert sum(p.numel() for p in net.last.mix.parameters()) == 70 * e * e + e


def test_memory_of_the_published_configuration() -> None:
    graph = zoo_graph(8)
    net = MAGEP(graph.spec)
    with saved_bytes(net) as saved:
        net(graph)
    assert sum(saved.values()) / 2**20 < 7  # the published code: 19.1


@pytest.mark.parametrize("name", ["mlp-relu", "cnn", "mlp-sine", "mlp-on-images"])
def test_float32_stays_finite(name: str) -> None:
    """At scales of 1e-3 to 1e3, and for weights much larger and smaller than initial ones."""
    graph = graph_of(name)
    net = MAGEP(graph.spec, channels=(4, 4, 4, 4))
    for size in (1e-2, 1.0, 1e2):
        large = graph.replace({n: size * v for n, v in graph.values.items()})
        assert float(net.double()(large).detach().abs().max()) < 100  # logarithms of sizes
        net.float()
        moved = element_of(graph.spec).act_on_graph(large).to(dtype=torch.float32)
        net.zero_grad()
        answer = net(moved)
        answer.sum().backward()
        assert bool(answer.isfinite().all())
        assert all(bool(p.grad.isfinite().all()) for p in net.parameters())
        plain = net(large.to(dtype=torch.float32))
        assert relative_error(answer, plain) < 1e-2


@pytest.mark.parametrize("zeros", [".*", "0.weight", "2.weight", "2.bias"])
def test_networks_with_zeros_have_finite_gradients(zeros: str) -> None:
    graph = graph_of("mlp-relu")
    values = {
        n: (torch.zeros_like(v) if zeros in (n, ".*") else v.clone()).requires_grad_()
        for n, v in graph.values.items()
    }
    net = reader(graph.spec)
    net(gmn.ParameterGraph(graph.spec, values)).sum().backward()
    assert all(bool(t.grad.isfinite().all()) for t in [*values.values(), *net.parameters()])


def test_gradients_reach_all_weights_and_parameters() -> None:
    graph = graph_of("mlp-tanh")
    values = {n: v.clone().requires_grad_() for n, v in graph.values.items()}
    net = reader(graph.spec)
    net(gmn.ParameterGraph(graph.spec, values)).sum().backward()
    assert all(bool(value.grad.abs().sum() > 0) for value in values.values())
    for name, parameter in net.named_parameters():
        assert bool(parameter.grad.abs().sum() > 0), name


def test_edits_come_one_after_the_other() -> None:
    graph = graph_of("cnn", networks=3)
    both = editor(graph.spec, copies=2)(graph)
    assert len(both) == 6
    assert relative_error(changes(both[3:], graph), changes(both[:3], graph)) > 0.1


def test_head_may_be_a_module() -> None:
    net = MAGEP(spec_of("cnn"), channels=(4, 3), invariants=6, head=nn.Linear(6, 7)).double()
    assert net.pooled == 6
    assert net(graph_of("cnn")).shape == (2, 7)


def test_refusals_name_the_culprit() -> None:
    with pytest.raises(adapter.UnsupportedArchitecture, match="0 has no scales after gelu; MAGEP"):
        MAGEP(any_spec_of("mlp-gelu"))
    with pytest.raises(adapter.UnsupportedArchitecture, match="this MAGEP was built for"):
        reader(spec_of("mlp-relu"))(graph_of("two-layers"))


@pytest.mark.parametrize(("built", "read"), [("relu", "tanh"), ("tanh", "relu"), ("relu", "sine")])
def test_networks_of_another_group_are_read_too(built: str, read: str) -> None:
    net = reader(spec_of(f"mlp-{built}"))
    assert invariance_error(net, graph_of(f"mlp-{read}")) < 1e-10
