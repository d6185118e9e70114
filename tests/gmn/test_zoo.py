"""Populations: training many at once is training each alone, and files survive kills and damage."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from gmn import zoo
from gmn.errors import ZooError
from gmn.foundation.files import LOCK, MARKER
from gmn.zoo import images
from gmn.zoo.architectures.networks import network
from gmn.zoo.building import catalogue
from gmn.zoo.building.builders import plan
from gmn.zoo.building.catalogue import CNN_RANGES
from gmn.zoo.images import ImageSet
from gmn.zoo.training.classifier_recipe import ClassifierRecipe
from gmn.zoo.training.classifying import draw_job, train_jobs
from tests.gmn.alone import train_alone, train_together

NAME, SIZE, SEED = "cnn-digits", 60, 3


def recipe(number: int) -> ClassifierRecipe:
    drawn = CNN_RANGES.draw(torch.Generator().manual_seed(number))
    return replace(drawn, steps=3 + 2 * number, label_noise=0.3)


def digits(dtype: torch.dtype) -> ImageSet:
    full = images.load("digits")
    return ImageSet(
        "few",
        full.train_images[:60].to(dtype),
        full.train_labels[:60],
        full.test_images[:50].to(dtype),
        full.test_labels[:50],
    )


def build(out: Path, name: str = NAME, size: int = SIZE, seed: int = SEED) -> zoo.Zoo:
    return zoo.build(name, size, seed, out, workers=1, progress=False)


@pytest.fixture(autouse=True, scope="module")
def short_runs():
    """Recipes of at most eight steps, so that this file takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        shorter = replace(CNN_RANGES, steps=replace(CNN_RANGES.steps, high=8))
        patch.setitem(catalogue.BUILDERS, NAME, replace(catalogue.BUILDERS[NAME], ranges=shorter))
        yield


@pytest.fixture(scope="module")
def built(short_runs, tmp_path_factory) -> zoo.Zoo:
    return build(tmp_path_factory.mktemp("zoo") / "small")


@pytest.fixture
def copy(built, tmp_path) -> Path:
    for file in built.folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


@pytest.mark.parametrize("architecture", ["cnn-relu", "cnn-tanh"])
def test_training_a_chunk_is_training_each_alone(architecture):
    data, recipes, seeds = digits(torch.float64), [recipe(i) for i in (2, 0, 3, 1)], [5, 6, 7, 8]
    state, metrics = train_together(network(architecture), recipes, data, seeds)
    for row, (one, seed) in enumerate(zip(recipes, seeds, strict=True)):
        alone = train_alone(architecture, one, data, seed)
        for name, value in alone.state_dict().items():
            torch.testing.assert_close(state[name][row], value, rtol=0, atol=1e-8)
        right = alone(data.test_images).argmax(1) == data.test_labels
        assert metrics[row]["test_accuracy"] == pytest.approx(float(right.double().mean()))


def test_train_metrics_count_the_images_and_labels_that_the_network_saw():
    data, one = digits(torch.float64), replace(recipe(4), data_fraction=0.4)
    state, metrics = train_together(network("cnn-relu"), [one], data, [9])
    job = draw_job(network("cnn-relu"), one, 9, data)
    module = network("cnn-relu").double()
    module.load_state_dict({name: value[0] for name, value in state.items()})
    scores = module(data.train_images[job.visible]).detach()
    labels = job.labels[job.visible]
    assert job.visible.sum() == 24
    assert set(job.batches.flatten().tolist()) <= set(job.visible.nonzero().flatten().tolist())
    assert metrics[0]["train_loss"] == pytest.approx(
        float(functional.cross_entropy(scores, labels))
    )
    assert metrics[0]["train_accuracy"] == pytest.approx(
        float((scores.argmax(1) == labels).double().mean())
    )


def test_the_recipe_decides_visible_data_and_label_noise():
    data, module = images.load("digits"), network("cnn-relu")
    clean = draw_job(module, replace(recipe(0), label_noise=0.0), 1, data)
    noisy = draw_job(module, replace(recipe(0), label_noise=0.5), 1, data)
    assert torch.equal(clean.labels, data.train_labels)
    # Half of the labels are redrawn, and a tenth of those by chance to what they were.
    share = float((noisy.labels != data.train_labels).double().mean())
    assert share == pytest.approx(0.45, abs=0.05)


def test_a_network_does_not_depend_on_its_neighbours():
    data, recipes = digits(torch.float64), [recipe(i) for i in range(3)]
    together, _ = train_together(network("cnn-tanh"), recipes, data, [1, 2, 3])
    alone, _ = train_together(network("cnn-tanh"), recipes[1:2], data, [2])
    for name, value in alone.items():
        torch.testing.assert_close(together[name][1], value[0], rtol=0, atol=1e-10)


def test_the_same_seed_gives_the_same_bytes(built, tmp_path):
    again = build(tmp_path)
    names = sorted(path.name for path in identity_files(built.folder))
    assert len(names) > 3
    assert names == sorted(path.name for path in identity_files(again.folder))
    for name in names:
        assert (built.folder / name).read_bytes() == (again.folder / name).read_bytes()


def identity_files(folder: Path) -> list[Path]:
    """All but the journal of the build and the writer's lock."""
    return [path for path in folder.iterdir() if path.name not in ("build.jsonl", LOCK, MARKER)]


def test_what_a_zoo_offers(built):
    assert len(built) == SIZE
    assert built.architectures == ["cnn-relu", "cnn-tanh"]
    accuracy = built.labels("test_accuracy")
    assert accuracy.shape == (SIZE,)
    assert accuracy.dtype == torch.float32
    assert ((accuracy >= 0) & (accuracy <= 1)).all()
    relu = built.indices("train", "cnn-relu")
    stacked = built.stacked(relu)
    assert stacked["conv2.weight"].shape == (len(relu), 16, 16, 3, 3)
    assert list(stacked) == list(network("cnn-relu").state_dict())
    for name, value in built.state(int(relu[1])).items():
        assert torch.equal(stacked[name][1], value)


def test_labels_are_those_of_the_stored_networks(built):
    data = images.load("digits")
    for index in range(0, SIZE, 7):
        row = built.rows[index]
        module = network(row["architecture"])
        module.load_state_dict(built.state(index))
        right = module(data.test_images).argmax(1) == data.test_labels
        # Batched and plain kernels may round a near tie differently.
        assert row["test_accuracy"] == pytest.approx(float(right.double().mean()), abs=2.5e-3)


def test_splits_are_disjoint_and_cover_the_zoo(built):
    parts = [set(built.indices(split).tolist()) for split in ("train", "val", "test")]
    assert sum(map(len, parts)) == SIZE
    assert set.union(*parts) == set(range(SIZE))
    assert len(parts[0]) > SIZE / 2


def test_network_numbers_do_not_depend_on_the_size(built, tmp_path):
    smaller = build(tmp_path, size=8)
    for index in range(8):
        small, large = smaller.rows[index], built.rows[index]
        assert all(small[key] == large[key] for key in ("id", "split", "steps", "architecture"))
        for name, value in smaller.state(index).items():
            torch.testing.assert_close(value, built.state(index)[name], rtol=0, atol=1e-4)


def test_wrong_questions_are_answered_with_the_choices(built):
    with pytest.raises(ValueError, match="train, val, test"):
        built.indices("training")
    with pytest.raises(ValueError, match="cnn-relu, cnn-tanh"):
        built.indices("train", "mlp")
    for read in (built.stacked, built.graph, built.stored):
        with pytest.raises(ValueError, match="exactly one architecture"):
            read([0, 1])
    with pytest.raises(KeyError, match="test_accuracy"):
        built.labels("accuracy")
    with pytest.raises(ValueError, match="cnn-digits"):
        zoo.build("cnn-cifar", 1, 0, built.folder)
    with pytest.raises(ValueError, match="digits, fashion, mnist"):
        images.load("cifar")


def test_a_finished_zoo_is_opened_not_built(built, monkeypatch):
    monkeypatch.setattr("gmn.zoo.building.classifiers.train_jobs", None)
    assert build(built.folder).rows == built.rows


def test_a_missing_shard_alone_is_made_again(copy, built):
    shards = sorted(copy.glob("shard-*"))
    before = {path: path.stat().st_mtime_ns for path in shards}
    shards[1].unlink()
    with pytest.raises(ZooError, match=r"missing \['shard-00001"):
        zoo.open(copy)
    again = build(copy)
    assert [path for path in shards if path.stat().st_mtime_ns != before[path]] == [shards[1]]
    assert shards[1].read_bytes() == (built.folder / shards[1].name).read_bytes()
    assert [row["id"] for row in again.rows] == [row["id"] for row in built.rows]


def test_a_shard_that_was_cut_off_is_named_and_made_again(copy):
    path = copy / "shard-00002.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ZooError, match=r"damaged \['shard-00002"):
        zoo.open(copy)
    build(copy)
    assert len(zoo.open(copy)) == SIZE


def test_a_shard_with_a_flipped_bit_is_named_when_it_is_read_and_made_again(copy, built):
    path = copy / "shard-00002.safetensors"
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    population = zoo.open(copy)
    lost = [i for i, row in enumerate(population.rows) if row["shard"] == 2]
    others = [i for i in range(SIZE) if i not in lost]
    for index in others:
        assert population.state(index).keys() == built.state(index).keys()
    with pytest.raises(ZooError, match=rf"shard-00002.* is damaged: its {len(lost)} networks"):
        population.state(lost[0])
    build(copy)
    assert path.read_bytes() == (built.folder / path.name).read_bytes()


def test_an_unfinished_zoo_is_not_opened(copy):
    manifest = json.loads((copy / "zoo.json").read_bytes())
    del manifest["shards"]
    (copy / "zoo.json").write_text(json.dumps(manifest))
    with pytest.raises(ZooError, match="unfinished"):
        zoo.open(copy)


def test_another_zoo_is_never_overwritten(built):
    with pytest.raises(ZooError, match=r"seed = 3, not 4"):
        build(built.folder, seed=4)
    with pytest.raises(ZooError, match=r"size = 60, not 61"):
        build(built.folder, size=61)
    with pytest.raises(ZooError, match="name = "):
        build(built.folder, name="cnn-mnist")


def test_a_folder_that_is_no_zoo_is_refused(tmp_path):
    with pytest.raises(ZooError, match=r"no zoo\.json"):
        zoo.open(tmp_path)


def test_a_network_that_diverged_is_kept_out_and_counted(tmp_path, monkeypatch):
    def one_diverges(*arguments):
        state, metrics = train_jobs(*arguments)
        state["conv1.weight"][0] = torch.nan
        return state, metrics

    monkeypatch.setattr("gmn.zoo.building.classifiers.train_jobs", one_diverges)
    small = build(tmp_path, size=3)
    assert [row["id"] for row in small.rows] == ["000002"]
    assert small.manifest["card"]["diverged_and_kept_out"] == 2
    assert small.state(0)["conv1.weight"].isfinite().all()


def test_a_plan_deals_every_network_out_once():
    shards = plan(130, ("a", "b"), 25)
    dealt = [number for shard in shards for number in shard.networks]
    assert sorted(dealt) == list(range(130))
    assert [shard.number for shard in shards] == list(range(len(shards)))
    assert max(len(shard.networks) for shard in shards) == 25
    assert all(number % 2 == "ab".index(s.architecture) for s in shards for number in s.networks)


KILLED = """
import sys
from gmn import zoo
if __name__ == "__main__":
    zoo.build(sys.argv[1], 20_000, 1, sys.argv[2], workers=2, progress=False)
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cnn-digits", "inr-digits"])
def test_a_build_that_was_killed_goes_on_and_leaves_no_workers(name, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(KILLED)
    out = tmp_path / "zoo"
    process = subprocess.Popen([sys.executable, str(script), name, str(out)])
    deadline = time.monotonic() + 120
    while len(list(out.glob("shard-*"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.2)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(3)
    assert len(list(out.glob("shard-*"))) >= 2
    assert not any(os.path.exists(f"/proc/{child}") for child in children)
    with pytest.raises(ZooError, match="unfinished"):
        zoo.open(out)
