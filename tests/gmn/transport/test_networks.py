"""Distances between networks: symmetries do not change them, functions do."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import get_args

import pytest
import torch

import converters
import gmn
from gmn import symmetry
from gmn.spec.program import DEFAULT
from gmn.transport import (
    CoordinateFrame,
    NetworkDistance,
    Systems,
    network_distance,
    probe_clouds,
    tree_sliced_wasserstein,
    weight_clouds,
)
from gmn.transport.networks import Coords, Kind
from gmn.transport.trees import tree_sliced_pairs
from gmn.zoo.architectures.networks import network
from gmn.zoo.architectures.widen import widen
from tests.cases import CASES, Case
from tests.traced import BY_NAME, graph_of, one_in, slow_beyond, slow_but

FEW = ["mlp-sine", "cnn"]
COORDS: tuple[Coords, ...] = ("io", "probe")
cases = pytest.mark.parametrize("case", slow_beyond(CASES, default=FEW))
ALL = [(coords, kind) for kind in ("sliced", "tree", "sobolev", "assignment") for coords in COORDS]
both = pytest.mark.parametrize(
    ("coords", "kind"), slow_but(ALL, [("io", "sliced"), ("probe", "tree"), ("io", "assignment")])
)


LOW = (torch.float16, torch.bfloat16, torch.float8_e4m3fn)


def moved(graph: gmn.ParameterGraph, seed: int = 0) -> gmn.ParameterGraph:
    return symmetry.sample(graph.spec, torch.Generator().manual_seed(seed)).act_on_graph(graph)


def readable(graph: gmn.ParameterGraph, coords: Coords) -> bool:
    program = graph.spec.program
    return coords == "io" or (
        program is not None
        and bool(program.observations)
        and all(given.dtype == DEFAULT for given in program.inputs)
    )


@cases
@pytest.mark.parametrize("coords", ["io", "probe"])
def test_symmetries_do_not_change_distances(case: Case, coords: Coords) -> None:
    graph = graph_of(case)
    if not readable(graph, coords):
        pytest.skip("its inputs are no numbers to choose")
    other = graph[[1, 0]]
    for kind in ("sliced", "tree"):
        distance = NetworkDistance(coords, kind, lines=20)
        expected = distance.between(graph, other)
        assert bool((expected > 1e-4).all())
        torch.testing.assert_close(
            distance.between(moved(graph), other), expected, rtol=1e-6, atol=1e-8
        )
        assert float(distance.between(graph, moved(graph)).max()) < 1e-6


@both
def test_every_weight_counts(kind: Kind, coords: Coords) -> None:
    graph = graph_of(BY_NAME["mlp-relu"])
    distance = NetworkDistance(coords, kind, lines=10)
    for name, value in graph.values.items():
        changed = value.clone()
        changed.view(len(graph), -1)[:, 0] += 0.5
        assert float(distance.between(graph, graph.replace({name: changed})).min()) > 1e-4, name


def test_neurons_of_other_numbers_are_far_when_not_aligned() -> None:
    graph = graph_of(BY_NAME["mlp-relu"])
    raw = NetworkDistance("io", "unaligned")
    assert float(raw.between(graph, moved(graph)).min()) > 0.05
    assert float(raw.between(graph, graph).max()) == 0.0


@both
def test_a_matrix_is_its_pairs(kind: Kind, coords: Coords) -> None:
    graph = graph_of(BY_NAME["mlp-relu"], networks=5)
    distance = NetworkDistance(coords, kind, lines=20)
    matrix = distance.matrix(graph)
    assert torch.equal(matrix, matrix.T)
    assert float(matrix.diagonal().abs().max()) == 0.0
    torch.testing.assert_close(distance.matrix(graph[:2], graph[2:]), matrix[:2, 2:])
    if kind not in ("tree", "sobolev"):  # whose lines are laid around each pair
        pairs = distance.between(graph[[0, 0, 3]], graph[[1, 4, 2]])
        torch.testing.assert_close(pairs, matrix[[0, 0, 3], [1, 4, 2]])
    for i in range(5):
        for j in range(5):
            assert bool((matrix[i, j] <= matrix[i] + matrix[:, j] + 1e-12).all())


def test_the_fast_matrix_is_the_slow_one(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = graph_of(BY_NAME["cnn"], networks=4)
    distance = NetworkDistance("io", lines=20)
    fast = distance.matrix(graph)
    slow = distance._of_all(distance.clouds(graph), distance.clouds(graph), symmetric=False)
    torch.testing.assert_close(fast, slow, rtol=1e-9, atol=1e-12)


def test_trees_laid_for_many_pairs_are_those_of_each() -> None:
    graph = graph_of(BY_NAME["cnn"], networks=4)
    x = next(iter(weight_clouds(graph).values()))
    systems = Systems.sample(x.shape[-1], 5, 3, "chain", generator=torch.Generator().manual_seed(0))
    frame = CoordinateFrame.of(x.flatten(0, 1))
    pairs = torch.tensor([[0, 1], [2, 0], [3, 3]])
    y = x[:, :-2]
    one, other = x[pairs[:, 0]], y[pairs[:, 1]]
    for p in (1, 2):
        found = tree_sliced_pairs(x, y, pairs, systems, frame, p=p)
        slow = tree_sliced_wasserstein(one, other, p=p, systems=systems, frame=frame, root=False)
        torch.testing.assert_close(found, slow, rtol=1e-12, atol=1e-14)
    with pytest.raises(ValueError, match="NaN"):
        tree_sliced_pairs(x, y * torch.nan, pairs, systems, frame)


def wide_and_narrow() -> tuple[gmn.ParameterGraph, gmn.ParameterGraph]:
    model = network("cnn-tanh").double()
    example = torch.zeros(1, 1, 14, 14).double()
    wide = network("cnn-tanh", 2).double()
    narrow = converters.to_graph(model, (example,))
    return narrow, widen(narrow, converters.trace(wide, (example,)), torch.Generator())


def test_widths_may_differ() -> None:
    """A network whose neurons are doubled does the same: its probed neurons are the same cloud."""
    narrow, wide = wide_and_narrow()
    probed = NetworkDistance("probe")
    assert float(probed.between(narrow, wide)) < 1e-6
    other = narrow.replace({"conv2.weight": narrow.values["conv2.weight"] + 0.1})
    assert float(probed.between(other, wide)) > 1e-3
    assert 0 < float(network_distance(narrow, wide)) < 1
    with pytest.raises(ValueError, match="cannot be assigned"):
        network_distance(narrow, wide, kind="assignment")
    with pytest.raises(ValueError, match="no common numbers"):
        network_distance(narrow, wide, kind="unaligned")


def test_embeddings() -> None:
    graph = graph_of(BY_NAME["mlp-relu"], networks=3)
    torch.manual_seed(0)
    net = gmn.nn.DualGMN(16, 2).double()
    distance = NetworkDistance("embedding", embed=net.embed)
    matrix = distance.matrix(graph)
    torch.testing.assert_close(distance.matrix(moved(graph), graph), matrix, rtol=1e-6, atol=1e-8)
    assert float(matrix[0, 1]) > 1e-4


def test_one_hidden_layer_is_known_by_its_cloud() -> None:
    graph = graph_of(BY_NAME["two-layers"])
    assert set(weight_clouds(graph)) == {"0", "inputs and outputs"}


def test_gradients_reach_the_weights_as_they_are() -> None:
    graph = graph_of(BY_NAME["mlp-relu"])
    values = {name: value.clone().requires_grad_() for name, value in graph.values.items()}
    clouds = weight_clouds(graph.replace(values), gauged=False)
    sum(cloud.square().sum() for cloud in clouds.values()).backward()
    assert all(bool((value.grad != 0).all()) for value in values.values())


def test_networks_of_which_nothing_is_seen() -> None:
    graph = graph_of(BY_NAME["mlp-relu"])
    hidden = replace(graph.spec.program, observations=())
    graph = gmn.ParameterGraph(replace(graph.spec, program=hidden), graph.values)
    with pytest.raises(ValueError, match="shows no neurons"):
        network_distance(graph, graph, coords="probe")


def test_networks_that_cannot_be_compared() -> None:
    mlp, cnn = graph_of(BY_NAME["mlp-relu"]), graph_of(BY_NAME["cnn"])
    with pytest.raises(ValueError, match="other layers of neurons"):
        network_distance(mlp, cnn)
    with pytest.raises(ValueError, match="are no pairs"):
        network_distance(mlp, mlp[:1])
    with pytest.raises(ValueError, match="no distance is called"):
        NetworkDistance("io", "cosine")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no coordinates are called"):
        NetworkDistance("weights")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="embeddings need embed"):
        NetworkDistance("embedding")
    with pytest.raises(ValueError, match="take"):
        probe_clouds(mlp, [torch.zeros(3, 99).double()])


@pytest.mark.parametrize(
    ("dtype", "coords", "kind"),
    one_in(7, product(LOW, COORDS, get_args(Kind))),  # each at least once by default
)
def test_low_precision_is_computed_in_single(
    dtype: torch.dtype, coords: Coords, kind: Kind
) -> None:
    low = graph_of(BY_NAME["mlp-relu"]).to(dtype=dtype)
    single = low.to(dtype=torch.float32)
    distance = NetworkDistance(coords, kind, lines=10)
    assert distance.matrix(low).dtype == torch.float32
    assert torch.equal(distance.matrix(low), distance.matrix(single))
    assert torch.equal(distance.between(low, low[[1, 0]]), distance.between(single, single[[1, 0]]))
