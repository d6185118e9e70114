"""Attributions: laws that gradients obey, and what they say of metanetworks known to us."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

import gmn
from gmn import symmetry
from gmn.draw.heat import heat_map, matrix
from gmn.explain import gradient, integrated_gradients, saliency, shares
from gmn.nn import DualGMN
from gmn.nn.gmn import GMN
from gmn.nn.heads import InvariantHead
from gmn.spec import Scaling
from tests.cases import Case
from tests.traced import BY_NAME, chains, graph_of, several_cases


def _dual(outputs: int = 1) -> nn.Module:
    torch.manual_seed(0)
    return DualGMN(16, 2, InvariantHead(outputs)).double()


class _ReadsOne(nn.Module):
    """Its second answer is the sum of sines of one parameter tensor."""

    def forward(self, graph: gmn.ParameterGraph) -> Tensor:
        read = graph.values["2.weight"].flatten(1).sin().sum(1)
        other = graph.values["0.weight"].flatten(1).sum(1)
        return torch.stack([other, read], dim=1)


# --- laws ---------------------------------------------------------------------------------------


def _generator(graph: gmn.ParameterGraph, scaling: Scaling, speed: Tensor) -> dict[str, Tensor]:
    """How parameters begin to move when the scales of a scaling leave 1 with these speeds."""
    moved = {n: torch.zeros_like(v) for n, v in graph.values.items()}
    direction = gmn.ParameterGraph(
        graph.spec, {e.name: moved[e.name] for e in graph.spec.entries if e.tied_to is None}
    )
    for term in scaling.terms:
        edges = graph.spec.edge_set(term.edge_set)
        order = sorted(range(len(term.dims)), key=term.dims.__getitem__)
        sizes = [d.size if i in term.dims else 1 for i, d in enumerate(edges.dims)]
        spread = speed.permute(order).reshape(sizes)
        values = graph.block(edges) + term.offset
        direction.block(edges).add_(term.exponent * spread * values)
    return direction.values  # type: ignore[return-value]


@several_cases
def test_gradients_are_orthogonal_to_the_scales(case: Case) -> None:
    graph = graph_of(case)
    scalings = [s for s in graph.spec.scalings if s.domain == "positive"]
    if not scalings:
        pytest.skip("no scales")
    slopes = gradient(_dual(), graph).values
    for scaling in scalings:
        speed = torch.randn(scaling.shape, generator=torch.Generator().manual_seed(0)).double()
        moved = _generator(graph, scaling, speed)
        names = [e.name for e in graph.spec.entries if e.tied_to is None and e.floating]
        products = [slopes[n] * moved[n] for n in names]
        along = sum(product.reshape(2, -1).sum(1) for product in products)
        size = sum(product.abs().reshape(2, -1).sum(1) for product in products)
        assert isinstance(along, Tensor)
        assert isinstance(size, Tensor)
        assert size.min() > 0, scaling.name
        assert (along.abs() <= 1e-9 * size.clamp(min=1e-3)).all(), scaling.name


def test_a_metanetwork_with_scales_is_not_orthogonal_to_them() -> None:
    """The law above can fail: GMN reads scales."""
    graph = graph_of(BY_NAME["mlp-relu"])
    torch.manual_seed(0)
    slopes = gradient(GMN(8, 1).double(), graph).values
    moved = _generator(graph, graph.spec.scalings[0], torch.ones(6).double())
    assert abs(sum(float((slopes[n] * moved[n]).sum()) for n in moved)) > 1e-6


@chains
def test_saliency_follows_scales_and_permutations(case: Case) -> None:
    graph, net = graph_of(case), _dual()
    element = symmetry.sample(
        graph.spec, torch.Generator().manual_seed(0), symmetries=("permutations", "scalings")
    )
    permutation = symmetry.Element(graph.spec, element.permutations, {})
    moved = saliency(net, element.act_on_graph(graph))
    expected = permutation.act_on_graph(saliency(net, graph))
    if any(s.domain == "phase" for s in graph.spec.scalings):
        pytest.skip("a bias that moves by half periods has another value")
    for name, value in expected.values.items():
        assert torch.allclose(moved.values[name], value, atol=1e-9), name


def _total(attribution: gmn.ParameterGraph) -> Tensor:
    values = [v for v in attribution.values.values() if v.is_floating_point()]
    return torch.stack([v.reshape(len(attribution), -1).sum(1) for v in values]).sum(0)


@pytest.mark.parametrize("name", ["mlp-gelu", "mlp-sigmoid"])
def test_integrated_gradients_are_complete(name: str) -> None:
    case, net = BY_NAME[name], _dual(2)
    graph, other = graph_of(case), graph_of(case, networks=4)[2:]
    found = integrated_gradients(net, graph, 1, other)
    with torch.no_grad():
        change = net(graph)[:, 1] - net(other)[:, 1]
    assert torch.allclose(_total(found), change, rtol=1e-6)


def test_without_a_baseline_the_way_begins_at_parameters_of_zero() -> None:
    graph = graph_of(BY_NAME["batch-norm"])
    torch.manual_seed(0)
    net = GMN(8, 1).double()
    found = integrated_gradients(net, graph, points=32)
    parameters = {e.name: 0 * graph.values[e.name] for e in graph.spec.entries if e.parameter}
    with torch.no_grad():
        change = (net(graph) - net(graph.replace(parameters)))[:, 0]
    assert torch.allclose(_total(found), change, rtol=0.02)  # its ReLUs have kinks
    assert not found.values["1.running_var"].any()


def test_integrated_gradients_of_a_sum_of_sines_are_exact() -> None:
    graph = graph_of(BY_NAME["mlp-relu"])
    other = graph_of(BY_NAME["mlp-relu"], networks=4)[2:]
    found = integrated_gradients(_ReadsOne(), graph, output=1, baseline=other)
    expected = graph.values["2.weight"].sin() - other.values["2.weight"].sin()
    assert torch.allclose(found.values["2.weight"], expected, atol=1e-12)
    assert not found.values["0.weight"].any()


# --- what they say ------------------------------------------------------------------------------


def test_all_saliency_is_on_what_was_read() -> None:
    graph = graph_of(BY_NAME["mlp-relu"])
    found = saliency(_ReadsOne(), graph, output=1)
    weight = graph.values["2.weight"]
    assert torch.allclose(found.values["2.weight"], (weight.cos() * weight).abs())
    assert {n: v.tolist() for n, v in shares(found).items()} == {
        "0.weight": [0, 0], "0.bias": [0, 0], "2.weight": [1, 1], "2.bias": [0, 0],
        "4.weight": [0, 0], "4.bias": [0, 0],
    }  # fmt: skip


@pytest.mark.slow
def test_training_moves_saliency_to_what_matters() -> None:
    """A GMN learns the mean of the first layer's biases, which says nothing of other weights."""
    torch.manual_seed(0)
    spec = graph_of(BY_NAME["mlp-relu"]).spec
    values = {e.name: torch.randn(128, *e.shape) for e in spec.entries}
    graph = gmn.ParameterGraph(spec, values)
    target = values["0.bias"].mean(1, keepdim=True)
    net = GMN(16, 1)
    before = shares(saliency(net, graph))["0.bias"].mean()
    optimiser = torch.optim.Adam(net.parameters(), 1e-2)
    for _ in range(150):
        optimiser.zero_grad()
        (net(graph) - target).square().mean().backward()
        optimiser.step()
    after = shares(saliency(net, graph))["0.bias"].mean()
    assert before < 0.2
    assert after > 0.5


def test_shares_add_up_and_tied_tensors_count_once() -> None:
    found = shares(saliency(_dual(), graph_of(BY_NAME["transformer"])))
    assert "embed.weight" in found
    assert "embed.weight@2" not in found
    assert torch.allclose(sum(found.values()), torch.ones(2).double())  # type: ignore[arg-type]


def test_shares_of_nothing_are_nothing() -> None:
    found = shares(integrated_gradients(_ReadsOne(), graph_of(BY_NAME["mlp-relu"]), 1,
                                        graph_of(BY_NAME["mlp-relu"])))  # fmt: skip
    assert not any(value.any() for value in found.values())


def test_the_metanetwork_keeps_its_own_gradients() -> None:
    net, graph = _dual(), graph_of(BY_NAME["mlp-relu"])
    with torch.no_grad():
        saliency(net, graph)
    assert all(parameter.grad is None for parameter in net.parameters())
    assert not any(value.requires_grad for value in graph.values.values())


@pytest.mark.parametrize("output", [-1, 2])
def test_outputs_that_are_not_there(output: int) -> None:
    with pytest.raises(ValueError, match=f"no output {output}: the answer has 2"):
        saliency(_ReadsOne(), graph_of(BY_NAME["mlp-relu"]), output)


def test_answers_of_another_shape() -> None:
    with pytest.raises(ValueError, match=r"answers 2 networks with shape \(2,\)"):
        gradient(lambda graph: graph.values["0.bias"].sum(1), graph_of(BY_NAME["mlp-relu"]))


def test_a_baseline_of_another_architecture() -> None:
    with pytest.raises(ValueError, match="another spec"):
        integrated_gradients(
            _ReadsOne(), graph_of(BY_NAME["mlp-relu"]), 1, graph_of(BY_NAME["mlp-tanh"])
        )


# --- heat maps ----------------------------------------------------------------------------------


def _matrices(case: Case) -> Iterator[tuple[gmn.EdgeSet, Tensor, int, int]]:
    graph = graph_of(case)
    for edges in graph.spec.edge_sets:
        yield edges, *matrix(graph, edges.name)


@several_cases
def test_every_edge_set_is_a_matrix(case: Case) -> None:
    graph = graph_of(case)
    for edges, found, height, width in _matrices(case):
        values = graph.block(edges)[0]
        assert torch.equal(found.flatten().sort().values, values.flatten().sort().values)
        assert height * width == edges.num_taps
        assert found.shape[0] % height == 0
        assert found.shape[1] % width == 0


def test_kernels_are_tiles() -> None:
    graph = graph_of(BY_NAME["cnn"])
    weight = graph.values["2.weight"][1]
    found, height, width = matrix(graph, "2.weight", network=1)
    assert (height, width) == (3, 3)
    assert found.shape == (6 * 3, 5 * 3)
    assert torch.equal(found[3 * 4 : 3 * 5, 3 * 2 : 3 * 3], weight[4, 2])


def test_biases_are_rows() -> None:
    graph = graph_of(BY_NAME["cnn"])
    assert torch.equal(matrix(graph, "0.bias")[0], graph.values["0.bias"][:1])


@pytest.mark.parametrize(
    ("case", "name"),
    [("cnn", "2.weight"), ("cnn", "0.bias"), ("cnn-depthwise", "4.weight"), ("cnn-1d", "0.weight"),
     ("attention", "q.weight"), ("unused", "temperature")],
)  # fmt: skip
def test_heat_maps_show_all_values(case: str, name: str) -> None:
    graph = graph_of(BY_NAME[case])
    for shown in (graph, graph.replace({name: graph.values[name].abs()})):
        figure = heat_map(shown, name)
        (image,) = figure.axes[0].images
        assert torch.equal(torch.tensor(image.get_array()), matrix(shown, name)[0])
        low, high = image.get_clim()
        assert low == (-high if (shown.values[name][0] < 0).any() else 0)
        assert figure._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]
