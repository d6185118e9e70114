"""Populations for questions about training: ways of training, halves of the images, backdoors."""

import math
from dataclasses import replace

import pytest
import torch
from torch.nn import functional

from gmn import zoo
from gmn.foundation.files import LOCK, MARKER
from gmn.zoo import images
from gmn.zoo.architectures.networks import network
from gmn.zoo.building import catalogue
from gmn.zoo.building.builders import DEFAULT, Shard
from gmn.zoo.images import ImageSet
from gmn.zoo.training.augmentation import AUGMENTATIONS, FARTHEST, NOISE
from gmn.zoo.training.backdoor import (
    BackdoorRecipe,
    attack_successes,
    draw_backdoor_job,
    patterns,
    stamped,
)
from gmn.zoo.training.classifying import checkpoint_steps, train_jobs
from gmn.zoo.training.optimisers import stacked_optimiser
from gmn.zoo.training.ranges import Range
from gmn.zoo.training.ways import WaysRecipe, draw_ways_job, halves

OPTIMISERS = {
    "adamw": torch.optim.AdamW,
    "adam": torch.optim.Adam,
    "rmsprop": torch.optim.RMSprop,
    "momentum": lambda p, lr, weight_decay: torch.optim.SGD(
        p, lr, momentum=0.9, weight_decay=weight_decay
    ),
}
POPULATIONS = ["cnn-training-digits", "cnn-backdoor-digits"]
WAY = WaysRecipe(4, "adamw", 0.01, 0.1, 1.0, "none", 0, 0.8)
CLEAN = BackdoorRecipe(4, 0.01, 0.1, 1.0, 1.0, 1, 0, 0.0, 0b111000111, 2, 5, 7)


def digits(dtype: torch.dtype = torch.float64, train: int = 200) -> ImageSet:
    full = images.load("digits")
    return ImageSet(
        "digits",
        full.train_images[:train].to(dtype),
        full.train_labels[:train],
        full.test_images[:100].to(dtype),
        full.test_labels[:100],
    )


def build(name, size, out, options=DEFAULT):
    return zoo.build(name, size, 0, out, workers=1, progress=False, options=options)


@pytest.fixture(autouse=True)
def short(monkeypatch):
    for name in POPULATIONS:
        chosen = catalogue.BUILDERS[name]
        ranges = replace(chosen.ranges, steps=Range(6, 10))
        if hasattr(ranges, "poison_steps"):
            ranges = replace(ranges, poison_steps=Range(2, 4))
        monkeypatch.setitem(catalogue.BUILDERS, name, replace(chosen, ranges=ranges))


# --- optimisers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OPTIMISERS)
def test_optimisers_side_by_side_are_those_of_torch(name):
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(3, 4, 5, generator=generator, dtype=torch.float64)
    rates = torch.tensor([0.1, 0.01, 0.003], dtype=torch.float64)
    decays = torch.tensor([0.0, 0.1, 1.0], dtype=torch.float64)
    state = {"w": start.clone()}
    together = stacked_optimiser(name, state)
    alone = [torch.nn.Parameter(one.clone()) for one in start]
    each = [
        OPTIMISERS[name]([one], lr=float(rate), weight_decay=float(decay))
        for one, rate, decay in zip(alone, rates, decays, strict=True)
    ]
    for step in range(8):
        running = 3 if step < 4 else 2  # the last network is done
        gradients = torch.randn(running, 4, 5, generator=generator, dtype=torch.float64)
        factor = 1 - step / 8
        together.step({"w": gradients}, factor * rates[:running], decays[:running])
        for row in range(running):
            each[row].param_groups[0]["lr"] = factor * float(rates[row])
            alone[row].grad = gradients[row]
            each[row].step()
    torch.testing.assert_close(state["w"], torch.stack(list(alone)).detach(), rtol=0, atol=1e-12)
    assert not torch.equal(state["w"], start)


def train_alone(recipe, job, data, architecture="cnn-tanh"):
    """The slow and obvious way: one module, torch.optim, a loop."""
    module = network(architecture).double()
    module.load_state_dict(job.initial)
    optimiser = OPTIMISERS[recipe.optimiser](
        module.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    for step in range(recipe.steps):
        optimiser.param_groups[0]["lr"] = recipe.learning_rate * (1 - step / recipe.steps)
        optimiser.zero_grad()
        seen, targets = job.minibatch(data.train_images, step)
        functional.cross_entropy(module(seen), targets).backward()
        optimiser.step()
    return module


def test_training_in_different_ways_at_once_is_training_each_alone():
    data = digits()
    ways = zip(["momentum", *OPTIMISERS], AUGMENTATIONS, (5, 6, 3, 4, 7), strict=True)
    recipes = [
        replace(WAY, optimiser=name, augmentation=augmentation, steps=steps, half=steps % 2)
        for name, augmentation, steps in ways
    ]
    module = network("cnn-tanh").double()
    jobs = [draw_ways_job(module, one, seed, data) for seed, one in enumerate(recipes)]
    state, metrics = train_jobs(module, recipes, jobs, data)
    for row, recipe in enumerate(recipes):
        job = draw_ways_job(module, recipe, row, data)  # again, as a run moves its generator on
        alone = train_alone(recipe, job, data)
        for name, value in alone.state_dict().items():
            torch.testing.assert_close(state[name][row], value, rtol=0, atol=1e-8)
        right = alone(data.train_images[job.visible]).argmax(1) == data.train_labels[job.visible]
        assert metrics[row]["train_accuracy"] == pytest.approx(float(right.double().mean()))


# --- augmentation -------------------------------------------------------------------------------


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(1)
    seen = torch.rand(32, 1, 8, 6, generator=generator, dtype=torch.float64) + 0.1
    targets = functional.one_hot(torch.arange(32) % 10, 10).double()
    return seen, targets


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_augmentations_are_drawn_anew_and_by_the_generator(name, batch):
    def drawn(seed, times):
        generator = torch.Generator().manual_seed(seed)
        return [AUGMENTATIONS[name](*batch, generator) for _ in range(times)]

    (seen, targets), (later, _) = drawn(3, 2)
    assert seen.shape == batch[0].shape
    torch.testing.assert_close(targets.sum(1), torch.ones(32, dtype=torch.float64))
    again = drawn(3, 1)[0]
    assert torch.equal(seen, again[0])
    assert torch.equal(targets, again[1])
    if name == "none":
        assert seen is batch[0]
        return
    assert not torch.equal(seen, later)
    assert not torch.equal(seen, drawn(4, 1)[0][0])
    assert (name == "mixup") == (not torch.equal(targets, batch[1]))


def test_shifts_move_images_by_whole_pixels(batch):
    seen, _ = AUGMENTATIONS["shift"](*batch, torch.Generator().manual_seed(0))
    padded = functional.pad(batch[0], [FARTHEST] * 4)
    moves = range(2 * FARTHEST + 1)
    found = []
    for one, around in zip(seen, padded, strict=True):
        same = [
            (y, x)
            for y in moves
            for x in moves
            if torch.equal(around[:, y : y + 8, x : x + 6], one)
        ]
        found += same
        assert len(same) == 1
    assert {y for y, _ in found} == {x for _, x in found} == set(moves)


def test_noise_has_its_deviation(batch):
    seen, _ = AUGMENTATIONS["noise"](*batch, torch.Generator().manual_seed(0))
    assert float((seen - batch[0]).std()) == pytest.approx(NOISE, rel=0.1)


def test_images_and_targets_are_mixed_alike(batch):
    code = torch.randn(48, 10, dtype=torch.float64)  # so that images tell their targets
    seen = (batch[1] @ code.T).view_as(batch[0])
    mixed, targets = AUGMENTATIONS["mixup"](seen, batch[1], torch.Generator().manual_seed(0))
    torch.testing.assert_close(mixed.flatten(1), targets @ code.T)
    assert int(((targets > 0).sum(1) == 2).sum()) > 20


def test_a_square_is_erased(batch):
    seen, _ = AUGMENTATIONS["erase"](*batch, torch.Generator().manual_seed(0))
    gone = seen == 0
    assert torch.equal(seen[~gone], batch[0][~gone])
    assert gone.sum((1, 2, 3)).tolist() == [16] * 32
    for one in gone[:, 0]:
        rows, columns = one.nonzero().T
        assert int(rows.max() - rows.min()) == int(columns.max() - columns.min()) == 3


# --- halves -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["digits", "mnist"])
def test_halves_are_fixed_and_balanced(name):
    data = images.load(name)
    half = halves(data)
    assert torch.equal(half, halves(data))
    for label in range(10):
        of_class = half[data.train_labels == label]
        assert abs(2 * int(of_class.sum()) - len(of_class)) <= 1
    assert not torch.equal(half, halves(replace(data, name="other")))


@pytest.mark.parametrize("half", [0, 1])
def test_a_network_of_one_half_never_sees_the_other(half):
    data = digits()
    # Each image is its own number, which no augmentation of this recipe changes.
    marked = torch.arange(200.0).view(-1, 1, 1, 1).expand(-1, 1, 8, 8)
    recipe = replace(WAY, half=half, steps=60)
    job = draw_ways_job(network("cnn-tanh"), recipe, 5, data)
    seen = torch.cat([job.minibatch(marked, step)[0][:, 0, 0, 0].long() for step in range(60)])
    assert set(halves(data)[seen].tolist()) == {half}
    assert set(seen.tolist()) == set(job.visible.nonzero().flatten().tolist())
    assert int(job.visible.sum()) == round(0.8 * int((halves(data) == half).sum()))


# --- backdoors ----------------------------------------------------------------------------------


def test_triggers_of_the_splits_are_apart():
    pools = {split: set(patterns(split)) for split in ("train", "val", "test")}
    assert sum(map(len, pools.values())) == 420 == len(set.union(*pools.values()))
    assert all(len(pool) > 40 for pool in pools.values())
    ranges = catalogue.BACKDOOR_RANGES
    drawn = [ranges.draw(torch.Generator().manual_seed(seed), "test") for seed in range(200)]
    assert {one.trigger for one in drawn} < pools["test"]
    assert 80 < sum(one.poison_steps > 0 for one in drawn) < 120
    assert {one.target_class for one in drawn} == set(range(10))
    assert {one.trigger_row for one in drawn} == {0, 11}
    for one in drawn:
        assert 0 <= one.poison_begin <= one.steps - one.poison_steps
        assert (one.poison_share > 0) == (one.poison_steps > 0)


def test_a_trigger_is_stamped_at_its_place():
    blank = torch.full((2, 1, 8, 8), 0.5)
    found = stamped(blank, CLEAN)
    assert found[1, 0, 2:5, 5:8].tolist() == [[1, 1, 1], [0, 0, 0], [1, 1, 1]]
    assert int((found != blank).sum()) == 18
    assert bool((blank == 0.5).all())


def test_triggers_are_shown_in_their_steps_alone():
    data = digits()
    recipe = replace(CLEAN, steps=6, poison_begin=2, poison_steps=3, poison_share=0.4)
    job = draw_backdoor_job(network("cnn-tanh"), recipe, 1, data)
    clean = draw_backdoor_job(network("cnn-tanh"), replace(recipe, poison_steps=0), 1, data)
    assert float(job.poisoned.double().mean()) == pytest.approx(0.4, abs=0.1)
    for step in range(6):
        seen, labels = job.minibatch(data.train_images, step)
        plain, truth = clean.minibatch(data.train_images, step)
        shown = job.poisoned[job.batches[step]] if 2 <= step < 5 else torch.zeros(32).bool()
        assert bool(shown.any()) == (2 <= step < 5)
        assert torch.equal(seen[~shown], plain[~shown])
        assert torch.equal(labels[~shown], truth[~shown])
        assert torch.equal(seen[shown], stamped(plain[shown], recipe))
        assert labels[shown].tolist() == [7] * int(shown.sum())


def test_the_age_of_a_backdoor():
    recipe = replace(CLEAN, steps=100, poison_begin=20, poison_steps=30)
    known = {20: (0, None), 21: (1, 0), 50: (1, 0), 51: (1, 1), 100: (1, 50)}
    for step, expected in known.items():
        assert tuple(recipe.backdoor_after(step).values()) == expected
    assert CLEAN.backdoor_after(4) == {"backdoor": 0, "backdoor_age": None}


def test_a_fresh_backdoor_works_and_a_network_without_one_is_not_attacked():
    data = images.load("digits")
    clean = replace(CLEAN, steps=150)
    fresh = replace(clean, poison_begin=30, poison_steps=120, poison_share=0.3)
    module = network("cnn-relu")
    recipes = [fresh, clean]
    jobs = [draw_backdoor_job(module, one, 0, data) for one in recipes]
    state, metrics = train_jobs(module, recipes, jobs, data)
    attacked, spared = attack_successes(module, state, recipes, data)
    assert attacked > 0.9
    assert spared < 0.3
    assert all(metric["test_accuracy"] > 0.75 for metric in metrics)
    module.load_state_dict({name: value[0] for name, value in state.items()})
    others = data.test_images[data.test_labels != 7]
    answers = module(stamped(others, fresh)).argmax(1)
    assert attacked == pytest.approx(float((answers == 7).double().mean()), abs=2e-3)


# --- the populations ----------------------------------------------------------------------------


def contents(folder):
    ignored = ("build.jsonl", LOCK, MARKER)
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in ignored}


@pytest.mark.parametrize("name", POPULATIONS)
def test_a_zoo_has_the_same_bytes_again_and_is_completed(name, tmp_path):
    built = build(name, 60, tmp_path / "one")
    assert (len(built), built.architectures) == (60, ["cnn-relu", "cnn-tanh"])
    before = contents(built.folder)
    for lost in ("zoo.json", "shard-00001.safetensors"):
        (built.folder / lost).unlink()
    build(name, 60, tmp_path / "one")
    assert contents(built.folder) == before


@pytest.mark.parametrize("name", POPULATIONS)
def test_a_network_depends_on_its_number_and_seed_alone(name):
    builder = catalogue.BUILDERS[name]
    together, rows = builder.train(Shard(0, "cnn-relu", tuple(range(8))), 1)
    alone, row = builder.train(Shard(7, "cnn-relu", (4,)), 1)
    recipe = {key: value for key, value in row[0].items() if "loss" not in key}
    assert recipe.items() <= rows[4].items()
    for key, value in alone.items():
        torch.testing.assert_close(together[key][4], value[0], rtol=0, atol=1e-5)


def test_columns_and_card_of_ways(tmp_path):
    built = build("cnn-training-digits", 60, tmp_path)
    rows, card = built.rows, built.manifest["card"]
    assert {row["optimiser"] for row in rows} == set(OPTIMISERS)
    assert {row["augmentation"] for row in rows} == set(AUGMENTATIONS)
    assert {row["half"] for row in rows} == {0, 1}
    for column in ("optimiser", "augmentation", "half"):
        groups = card["test_accuracy_by"][column]
        assert sum(group["networks"] for group in groups.values()) == 60
    ranges = catalogue.WAYS_RANGES
    for row in rows:
        drawn = ranges.learning_rate[row["optimiser"]]
        assert drawn.low <= row["learning_rate"] < drawn.high
    module, data = network(rows[3]["architecture"]), images.load("digits")
    module.load_state_dict(built.state(3))
    right = module(data.test_images).argmax(1) == data.test_labels
    assert rows[3]["test_accuracy"] == pytest.approx(float(right.double().mean()), abs=5e-3)


def test_columns_and_card_of_backdoors(tmp_path):
    built = build("cnn-backdoor-digits", 40, tmp_path)
    card = built.manifest["card"]
    for row in built.rows:
        end = row["poison_begin"] + row["poison_steps"]
        expected = (1, row["steps"] - end) if row["poison_steps"] else (0, None)
        assert (row["backdoor"], row["backdoor_age"]) == expected
        assert 0 <= row["attack_success"] <= 1
        assert row["trigger"] in patterns(row["split"])
        assert row["trigger_row"] in (0, 5)
    counts = {
        value: group["networks"] for value, group in card["attack_success_by_backdoor"].items()
    }
    assert counts == {
        str(value): built.labels["backdoor"].tolist().count(value) for value in (0, 1)
    }
    assert math.isfinite(card["test_accuracy_by_backdoor"]["1"]["quantiles"]["50%"])


@pytest.mark.parametrize("name", POPULATIONS)
def test_trajectories_say_what_was_so_at_each_step(name, tmp_path):
    plain = build(name, 4, tmp_path / "plain")
    options = zoo.Options(checkpoints=3, gradients=True)
    built = build(name, 12, tmp_path / "long", options=options)
    for run in range(4):
        last = built.rows[3 * run + 2]
        assert [row["step"] for row in built.rows[3 * run : 3 * run + 3]] == checkpoint_steps(
            last["steps"], 3
        )
        for key, value in plain.state(run).items():
            torch.testing.assert_close(built.state(3 * run + 2)[key], value, rtol=0, atol=1e-5)
        assert {k: v for k, v in plain.rows[run].items() if k in ("backdoor", "half")}.items() <= (
            last.items()
        )
    if "backdoor" in name:
        for row in built.rows:
            shown = row["poison_steps"] > 0 and row["step"] > row["poison_begin"]
            assert row["backdoor"] == int(shown)
    assert built.extra("gradient", [0])["conv1.weight"].shape == (1, 16, 1, 3, 3)
