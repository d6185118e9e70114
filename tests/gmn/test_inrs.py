"""Populations of images as networks: fitted side by side as each alone, split by image."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from gmn import zoo
from gmn.zoo import images
from gmn.zoo.architectures.networks import Siren, network
from gmn.zoo.building import catalogue
from gmn.zoo.building.builders import Shard
from gmn.zoo.building.inrs import InrBuilder
from gmn.zoo.images import pixel_grid
from gmn.zoo.training.fitting import fit, initial_state
from gmn.zoo.training.states import stack

NAME, SIZE = "inr-digits", 150


def build(out: Path, size: int = SIZE, seed: int = 0) -> zoo.Zoo:
    return zoo.build(NAME, size, seed, out, workers=1, progress=False)


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> zoo.Zoo:
    return build(tmp_path_factory.mktemp("inrs"))


def start(seed: int) -> dict[str, Tensor]:
    return initial_state(Siren(), torch.Generator().manual_seed(seed), torch.float64)


def fit_alone(initial: dict[str, Tensor], pixels: Tensor, steps: int, rate: float) -> Siren:
    """The slow and obvious way: one plain module, torch.optim, a loop."""
    module, grid = Siren().double(), pixel_grid(8, 8).double()
    module.load_state_dict(initial)
    optimiser = torch.optim.Adam(module.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: 0.5 * (1 + math.cos(math.pi * step / steps))
    )
    for _ in range(steps):
        optimiser.zero_grad()
        (module(grid)[:, 0] - pixels).square().mean().backward()
        optimiser.step()
        schedule.step()
    return module


def test_fitting_many_is_fitting_each_alone():
    pixels = images.load_all("digits")[0][:3].flatten(1).double()
    starts = [start(seed) for seed in (4, 5, 6)]
    grid = pixel_grid(8, 8).double()
    state, psnr = fit(Siren(), stack(starts), grid, pixels, 12, 1e-3)
    for row, initial in enumerate(starts):
        alone = fit_alone(initial, pixels[row], 12, 1e-3)
        for name, value in alone.state_dict().items():
            torch.testing.assert_close(state[name][row], value, rtol=0, atol=1e-8)
        error = (alone(grid)[:, 0] - pixels[row]).detach().square().mean()
        assert float(psnr[row]) == pytest.approx(float(-10 * error.log10()))


def test_a_start_is_that_of_the_paper():
    state = start(0)
    assert list(state) == list(Siren().state_dict())
    bounds = {"layer1": 1 / 2, "layer2": math.sqrt(6 / 32) / 30, "layer3": math.sqrt(6 / 32) / 30}
    for layer, bound in bounds.items():
        largest = float(state[f"{layer}.weight"].abs().max())
        assert 0.8 * bound < largest <= bound
    assert not torch.equal(state["layer2.weight"], start(1)["layer2.weight"])


def test_pixel_centres_run_from_top_left_to_bottom_right():
    grid = pixel_grid(2, 4)
    assert grid[0].tolist() == [-0.75, -0.5]
    assert grid[1].tolist() == [-0.25, -0.5]
    assert grid[-1].tolist() == [0.75, 0.5]


def test_networks_hold_the_images_that_their_rows_name(built):
    pixels, labels = images.load_all("digits")
    assert built.architectures == ["siren"]
    for index in range(0, SIZE, 11):
        row, module = built.rows[index], network("siren").double()
        module.load_state_dict(built.state(index))
        drawn = module(pixel_grid(8, 8).double()).detach().view(8, 8)
        error = (drawn - pixels[row["image"], 0]).square().mean()
        assert float(-10 * error.log10()) == pytest.approx(row["psnr"], abs=0.5)
        assert row["psnr"] > 35
        assert row["label"] == labels[row["image"]]


def test_the_card_says_how_good_and_how_many(built):
    card = built.manifest["card"]
    values = sorted(row["psnr"] for row in built.rows)
    assert card["psnr"]["0%"] == pytest.approx(values[0], abs=0.06)
    assert card["psnr"]["50%"] > 37
    assert card["labels"] == {
        str(k): v for k, v in sorted(Counter(r["label"] for r in built.rows).items())
    }
    assert sum(card["splits"].values()) == card["networks"] == SIZE


def test_all_views_of_an_image_are_in_one_split(tmp_path, monkeypatch):
    few = replace(catalogue.BUILDERS[NAME], steps=0)
    monkeypatch.setitem(catalogue.BUILDERS, NAME, few)
    full = build(tmp_path, size=1797 + 300)
    first, again = full.rows[:300], full.rows[1797:]
    for key in ("image", "split", "label"):
        assert [row[key] for row in first] == [row[key] for row in again]
    assert {row["view"] for row in first} == {0}
    assert {row["view"] for row in again} == {1}
    assert len({row["seed"] for row in full.rows}) == len(full)
    assert sorted(row["image"] for row in full.rows[:1797]) == list(range(1797))
    test = [row["label"] for row in full.rows[:1797] if row["split"] == "test"]
    assert Counter(test) == dict.fromkeys(range(10), 36)
    assert not torch.equal(full.state(0)["layer2.weight"], full.state(1797)["layer2.weight"])


def test_views_in_a_row_hold_one_image_each_from_a_start_of_its_own(tmp_path, monkeypatch):
    few = replace(catalogue.BUILDERS[NAME], steps=0)
    monkeypatch.setitem(catalogue.BUILDERS, NAME, few)
    plain, options = build(tmp_path / "plain", size=7), zoo.Options(views=3)
    views = zoo.build(NAME, 20, 0, tmp_path / "views", workers=1, progress=False, options=options)
    for number in range(20):
        row, single = views.rows[number], plain.rows[number // 3]
        assert row["view"] == number % 3
        assert {key: row[key] for key in ("image", "split", "label")} == {
            key: single[key] for key in ("image", "split", "label")
        }
    assert not torch.equal(views.state(0)["layer2.weight"], views.state(1)["layer2.weight"])
    with pytest.raises(zoo.ZooError, match="configuration"):
        build(tmp_path / "views", size=20)  # of other views


def test_networks_depend_on_number_and_seed_alone(built, tmp_path):
    smaller, other = build(tmp_path / "a", size=4), build(tmp_path / "b", size=4, seed=1)
    for index in range(4):
        assert smaller.rows[index]["image"] == other.rows[index]["image"]
        for name, value in smaller.state(index).items():
            torch.testing.assert_close(value, built.state(index)[name], rtol=0, atol=1e-3)
            assert not torch.equal(value, other.state(index)[name])


@pytest.mark.slow
def test_a_stopped_build_goes_on(built, tmp_path, monkeypatch):
    train = InrBuilder.train

    def stopped(self, shard, seed):
        if shard.number == 1:
            raise KeyboardInterrupt
        return train(self, shard, seed)

    monkeypatch.setattr(InrBuilder, "train", stopped)
    with pytest.raises(KeyboardInterrupt):
        build(tmp_path)
    first = tmp_path / "shard-00000.safetensors"
    before = first.stat().st_mtime_ns
    with pytest.raises(zoo.ZooError, match="unfinished"):
        zoo.open(tmp_path)
    monkeypatch.undo()
    again = build(tmp_path)
    assert first.stat().st_mtime_ns == before
    assert len(again) == SIZE
    for index in (0, SIZE - 1):
        for name, value in again.state(index).items():
            assert torch.equal(value, built.state(index)[name])


def test_only_sirens_can_be_fitted():
    wrong = replace(catalogue.BUILDERS[NAME], architectures=("cnn-relu",))
    with pytest.raises(TypeError, match="cnn-relu is a SmallCNN, not a Siren"):
        wrong.train(Shard(0, "cnn-relu", (0,)), 0)
