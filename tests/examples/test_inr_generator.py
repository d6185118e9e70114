"""The generator of networks: what networks are as points, what they are judged by, a short run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from examples import inr_generator, inr_population, shallow_sirens
from examples.inr_generator import generator_of, main
from examples.inr_population import Population, judged, known
from gmn.tasks.scales import scaled
from gmn.transport import Systems, sliced_wasserstein
from gmn.transport.neurons import weight_clouds


@pytest.fixture(scope="module")
def population() -> Population:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shallow_sirens, "STEPS", 60)
        return Population.of("digits", training=60, held_out=20, seed=0)


def test_the_order_of_neurons_is_random_and_changes_nothing(population: Population) -> None:
    graph = population.training[:5]
    moved = shallow_sirens.shuffled(graph, seed=7)
    torch.testing.assert_close(population.rendered(moved), population.rendered(graph))
    assert (moved.values["layer1.bias"] - graph.values["layer1.bias"]).abs().mean() > 0.1
    first, second = moved.values["layer1.bias"][:2]
    assert (first - second).abs().mean() > 0.1


def test_points_of_sets_are_as_far_apart_as_their_clouds(population: Population) -> None:
    graph = population.training[:4]
    points = population.sets(graph)
    total = torch.zeros(())
    for cloud in weight_clouds(scaled(graph, population.units), gauged=False).values():
        chance = torch.Generator().manual_seed(0)
        systems = Systems.sample(cloud.shape[2], inr_population.LINES, 1, generator=chance)
        lines = systems.directions[:, 0]
        total = total + sliced_wasserstein(cloud[0], cloud[1], directions=lines, root=False)
    torch.testing.assert_close((points[0] - points[1]).square().sum(), total)
    moved = population.sets(shallow_sirens.shuffled(graph, seed=7))
    torch.testing.assert_close(moved, points)


def test_matching_finds_a_common_order(population: Population) -> None:
    aligned = population.in_one_order()
    torch.testing.assert_close(
        population.rendered(aligned), population.rendered(population.training)
    )
    spread = {
        name: float(graph.values["layer1.weight"].var(0).mean())
        for name, graph in (("stored", population.training), ("matched", aligned))
    }
    assert spread["matched"] < 0.1 * spread["stored"]


def test_what_is_known_is_judged_as_it_should(population: Population) -> None:
    networks = known(population, seed=0)
    found = {name: judged(graph, population) for name, graph in networks.items()}
    copies, real = found["training networks, reordered"], found["held-out networks"]
    far = found["a normal distribution per weight"]
    for what in ("neurons", "images"):
        assert copies[what].novelty < 1e-3
        assert 0.7 < real[what].novelty < 1.4
    assert abs(real["images"].mmd) < 0.02 < far["images"].mmd
    assert far["images"].novelty > 1.3 > real["images"].novelty


@pytest.mark.parametrize("way", inr_generator.WAYS)
def test_losses_see_what_they_should(population: Population, way: str) -> None:
    loss = inr_generator.losses(population, torch.Generator().manual_seed(0))[way]
    real, other = population.training[:6], population.training[6:12]
    same = float(loss(shallow_sirens.shuffled(real, seed=7), real))
    assert float(loss(other, real)) > 1e-4
    if way in ("stored", "matched"):  # the order of neurons counts
        assert same > 1e-2
    else:
        assert same < 1e-6


@pytest.mark.parametrize("way", ["matched", "sliced", "batches"])
def test_generators_make_networks(
    population: Population, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr(inr_generator, "BATCH", 16)
    make = generator_of(population, way, steps=2, seed=0)
    made = make(3)
    assert made.spec == population.training.spec
    assert population.rendered(made).isfinite().all()
    torch.testing.assert_close(population.flat(made), population.flat(make(3)), rtol=0, atol=0)


def test_the_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(shallow_sirens, "STEPS", 10)
    monkeypatch.setattr(inr_generator, "SHOWN", 3)
    sizes = ["--images", "digits", "--training", "30", "--held-out", "12", "--steps", "3"]
    main([*sizes, "--ways", "tree,images", "--out", str(tmp_path / "out")])
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert "| generated: tree |" in capsys.readouterr().out
    assert set(found["generated: images"]) == {"neurons", "images"}
    assert (tmp_path / "out" / "samples.png").stat().st_size > 1000
    with pytest.raises(SystemExit):
        main(["--ways", "nothing"])
    assert "'nothing' is none of stored, matched, sliced, tree" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--training", "1797"])
    assert "digits has 1797" in capsys.readouterr().err
