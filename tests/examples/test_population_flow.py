"""A flow between populations of networks, on a small zoo."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from examples.population_flow import distances, first_below, main
from examples.population_reports import Gallery
from examples.populations import Coordinates, aligned, of_digit, pictures, refitted
from gmn import zoo
from gmn.canonical import canonical
from gmn.graph import ParameterGraph
from gmn.tasks.rendering import PixelGrid
from tests.gmn.inrs import small_inrs

GRID = PixelGrid(8, 8)


@pytest.fixture(scope="module")
def population(tmp_path_factory: pytest.TempPathFactory) -> zoo.Zoo:
    return small_inrs(tmp_path_factory.mktemp("zoo") / "inrs", size=150)


def reversed_neurons(graph: ParameterGraph) -> ParameterGraph:
    """The same functions with the first hidden layer in reverse order."""
    changed = {name: graph.values[name].flip(1) for name in ("layer1.weight", "layer1.bias")}
    changed["layer2.weight"] = graph.values["layer2.weight"].flip(2)
    return graph.replace(changed)


def test_points_are_networks(population: zoo.Zoo) -> None:
    graph = population.graph(range(5))
    coordinates = Coordinates.of(graph, 64)
    points = coordinates.points(graph)
    assert points.shape == (5, 4)
    torch.testing.assert_close(points.square().mean(), torch.tensor(1.0))
    torch.testing.assert_close(points.mean(0), torch.zeros(4), atol=1e-5, rtol=0)
    back = coordinates.networks(points)
    for name, value in graph.values.items():
        torch.testing.assert_close(back.values[name], value, atol=1e-5, rtol=1e-4)
    few = Coordinates.of(graph, 2)
    torch.testing.assert_close(few.points(few.networks(few.points(graph))), few.points(graph))


def test_aligned_networks_render_the_same_and_lie_nearer(population: zoo.Zoo) -> None:
    graph = population.graph(range(6))
    found = aligned(graph)
    torch.testing.assert_close(GRID.images(found), GRID.images(graph), atol=1e-4, rtol=0)
    fixed = canonical(graph).values["layer1.weight"]
    spread = [
        weights.sub(weights[:1]).square().mean()
        for weights in (fixed, found.values["layer1.weight"])
    ]
    assert spread[1] < 0.7 * spread[0]


def test_alignment_takes_the_order_of_neurons_out(population: zoo.Zoo) -> None:
    graph = population.graph(range(2))
    both = ParameterGraph.cat([graph[0], graph[1], reversed_neurons(graph[1])])
    found = aligned(both)
    for value in found.values.values():
        torch.testing.assert_close(value[1], value[2])


def test_networks_from_one_start_hold_the_same_images(population: zoo.Zoo) -> None:
    indices = of_digit(population, 3, 4)
    wanted = pictures(population, indices)
    graph = refitted(population, indices, seed=0)
    own = (GRID.images(population.graph(indices)) - wanted).square().mean()
    again = (GRID.images(graph) - wanted).square().mean()
    assert again < 3 * own
    assert again < 0.25 * wanted.var()
    weights = [g.values["layer1.weight"] for g in (graph, population.graph(indices))]
    assert weights[0].std(0).mean() < 0.3 * weights[1].std(0).mean()


def test_too_many_networks_are_refused(population: zoo.Zoo) -> None:
    with pytest.raises(SystemExit, match="networks of the digit 3, not 100"):
        of_digit(population, 3, 100)


def test_distances_to_several_times_as_many_points() -> None:
    points = torch.tensor([[[0.0], [10.0]]])
    goal = torch.tensor([[[1.0], [11.0], [-1.0], [9.0]]])
    assert float(distances(points, goal)) == pytest.approx(1)
    assert float(distances(points, points)) == 0
    assert first_below([4.0, 3.0, 2.0, 1.0], 0.5) == 2
    assert first_below([4.0, 3.0], 0.5) is None


def test_pictures_are_judged_by_the_nearest_image(population: zoo.Zoo) -> None:
    indices = torch.cat([of_digit(population, 7, 3), of_digit(population, 3, 3)])
    gallery = Gallery(pictures(population, indices), torch.arange(6) >= 3)
    graph = population.graph(indices)
    found = gallery.judged(graph[3:])
    assert found.likeness > 0.9
    assert found.share == 1
    assert gallery.judged(graph[:3]).share == 0
    noise = {"layer3.weight": torch.randn(3, 1, 32, generator=torch.Generator().manual_seed(0))}
    assert gallery.judged(graph[:3].replace(noise)).likeness < 0.7


@pytest.mark.slow
def test_the_program_is_reproducible(population: zoo.Zoo, tmp_path: Path) -> None:
    arguments = ["--zoo", str(population.folder), "--networks", "2", "--steps", "4"]
    arguments += ["--dimensions", "3"]
    for out in ("first", "second"):
        main([*arguments, "--out", str(tmp_path / out)])
    first, second = ((tmp_path / out / "results.json").read_text() for out in ("first", "second"))
    assert first == second
    found = json.loads(first)
    assert len(found) == 15
    assert {each["dimensions"] for each in found} == {3, 9}
    assert {each["targets"] for each in found} == {2, 8}
    assert all(each["ends"][1] < each["ends"][0] for each in found)
    assert "held-out networks of the digit 3" in (tmp_path / "first" / "table.md").read_text()
    assert (tmp_path / "first" / "populations.png").exists()


def test_a_missing_zoo_says_how_to_build_it(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        main(["--zoo", str(tmp_path / "none"), "--out", str(tmp_path)])
    assert "gmn zoo build inr-mnist" in capsys.readouterr().err
