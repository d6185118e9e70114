"""The Model Zoos: folders of Ray Tune."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from gmn.zoo import ModelZoos, ZooError
from gmn.zoo.importing.layouts.model_zoo_networks import ModelZooCNN, ResNet18
from tests.gmn.importing.replicas import Harmful, command, import_, shorten

# Shapes of kernels, and the numbers under which the publication's module lists have them.
SMALL = [(8, 1, 5, 5), (6, 8, 5, 5), (4, 6, 2, 2), (20, 36), (10, 20)]
LARGE = [(16, 3, 3, 3), (32, 16, 3, 3), (15, 32, 3, 3), (20, 60), (10, 20)]
NUMBERS = {"small": (0, 3, 6, 9, 11), "large": (0, 3, 6, 10, 12)}
RUNS = [f"NN_tune_trainable_{number:05d}_{number}_seed={number}" for number in range(4)]
EPOCHS = (0, 1, 2)


def cnn_state(seed: int, kind: str = "small") -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    state = {}
    shapes = SMALL if kind == "small" else LARGE
    for number, shape in zip(NUMBERS[kind], shapes, strict=True):
        stem = f"module_list.{number}"
        state[f"{stem}.weight"] = 0.3 * torch.randn(shape, generator=generator)
        state[f"{stem}.bias"] = 0.3 * torch.randn(shape[0], generator=generator)
    return state


def write_run(folder: Path, seed: int, nlin: str = "tanh", kind: str = "small") -> None:
    folder.mkdir(parents=True)
    params = {"model::type": "CNN", "model::nlin": nlin, "optim::lr": 0.001, "seed": seed}
    (folder / "params.json").write_text(json.dumps(params | {"cuda": None, "row": 7}))
    lines = []
    for epoch in EPOCHS:
        path = folder / f"checkpoint_{epoch:06d}" / "checkpoints"
        path.parent.mkdir()
        torch.save(cnn_state(10 * seed + epoch, kind), path)
        (path.parent / ".is_checkpoint").touch()
        measures = {"test_acc": 0.1 + 0.2 * epoch, "train_acc": 0.4, "test_loss": 2.0 - epoch}
        lines.append(json.dumps(measures | {"training_iteration": epoch, "pid": 12}) + "\n")
    (folder / "result.json").write_text("".join(lines))


def model_zoo_replica(source: Path) -> None:
    for seed, run in enumerate(RUNS):
        write_run(source / run, seed)


def numpy_scores(state: dict[str, Tensor], image: np.ndarray, kind: str) -> np.ndarray:
    """Scores of one image (channels, height, width): layer by layer, with loops."""
    weights = [value.numpy().astype(float) for value in state.values()]
    x = image
    for layer in range(3):
        kernel, bias = weights[2 * layer], weights[2 * layer + 1]
        size, side = kernel.shape[-1], x.shape[-1] - kernel.shape[-1] + 1
        out = np.zeros((len(kernel), side, side))
        for i in range(side):
            for j in range(side):
                patch = x[:, i : i + size, j : j + size]
                out[:, i, j] = np.tensordot(kernel, patch, axes=3) + bias
        if layer < 2 or kind == "large":
            half = side // 2
            out = out[:, : 2 * half, : 2 * half].reshape(-1, half, 2, half, 2).max((2, 4))
        x = np.tanh(out)
    x = np.tanh(weights[6] @ x.reshape(-1) + weights[7])
    return weights[8] @ x + weights[9]


@pytest.mark.parametrize(("kind", "shape"), [("small", (1, 28, 28)), ("large", (3, 32, 32))])
def test_networks_compute_what_the_published_ones_do(
    tmp_path: Path, kind: str, shape: tuple[int, int, int]
) -> None:
    write_run(tmp_path / "zoo" / RUNS[0], 0, kind=kind)
    population = import_(ModelZoos(tmp_path / "zoo"), tmp_path / "out")
    (name,) = population.architectures
    image = np.random.default_rng(0).standard_normal(shape)
    module = ModelZoos(tmp_path).architecture(name)[0].double()
    module.load_state_dict(population.state(0))
    scores = module(torch.from_numpy(image).unsqueeze(0))[0].detach().numpy()
    expected = numpy_scores(cnn_state(2, kind), image, kind)
    np.testing.assert_allclose(scores, expected, rtol=1e-10)


def test_last_epochs_with_measures_and_hyper_parameters(tmp_path: Path) -> None:
    model_zoo_replica(tmp_path / "data" / "tune_zoo_mnist_uniform")
    population = import_(ModelZoos(tmp_path / "data"), tmp_path / "out")
    assert [(row["run"], row["epoch"]) for row in population.rows] == [(run, 2) for run in RUNS]
    first = population.rows[0]
    assert first["test_accuracy"] == pytest.approx(0.5)
    assert (first["train_accuracy"], first["test_loss"]) == (0.4, 0.0)
    assert (first["optim::lr"], first["model::nlin"], first["seed"]) == (0.001, "tanh", 0)
    assert first["row"] == 0  # the zoo's own
    assert first["published_row"] == 7
    assert "cuda" not in first
    assert population.architectures == ["cnn-s-1-tanh"]
    assert population.manifest["card"]["left_out"] == {"at other epochs": 8}


def test_every_epoch_of_a_run_is_in_one_split(tmp_path: Path) -> None:
    model_zoo_replica(tmp_path / "zoo")
    population = import_(ModelZoos(tmp_path / "zoo", every_epoch=True), tmp_path / "out")
    found = {(row["run"], row["epoch"]) for row in population.rows}
    assert found == {(run, epoch) for run in RUNS for epoch in EPOCHS}
    assert len({(row["run"], row["split"]) for row in population.rows}) == len(RUNS)
    for index, row in enumerate(population.rows):
        expected = cnn_state(10 * row["seed"] + row["epoch"])["module_list.3.weight"]
        assert torch.equal(population.state(index)["conv2.weight"], expected)
    second = import_(ModelZoos(tmp_path / "zoo", epoch=0), tmp_path / "second")
    assert {row["epoch"] for row in second.rows} == {0}


def test_splits_from_a_file(tmp_path: Path) -> None:
    model_zoo_replica(tmp_path / "zoo")
    path = tmp_path / "splits.json"
    given = {"train": [RUNS[0], f"/a/{RUNS[2]}/params.json"], "val": ["gone"], "test": [RUNS[3]]}
    path.write_text(json.dumps(given))
    population = import_(ModelZoos(tmp_path / "zoo", path), tmp_path / "out")
    assert [row["split"] for row in population.rows] == ["train", "train", "test"]
    card = population.manifest["card"]
    assert card["skipped"] == ["gone: in the file of splits, but no such run"]
    assert card["left_out"]["runs in no split of the file of splits"] == 1
    path.write_text(json.dumps(given | {"val": [""]}))
    with pytest.raises(ZooError, match="path 0 of val, '', names no folder like a run"):
        import_(ModelZoos(tmp_path / "zoo", path), tmp_path / "other")


def test_runs_and_checkpoints_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    zoo = tmp_path / "zoo"
    for seed in range(11):
        write_run(zoo / f"run{seed:02d}", seed)
    (zoo / "run00" / "params.json").unlink()
    (zoo / "run01" / "params.json").write_text('{"model::nlin": "softsign"}')
    (zoo / "run02" / "params.json").write_text('{"act": "tanh"}')
    (zoo / "run03" / "result.json").unlink()
    text = (zoo / "run04" / "result.json").read_text()
    (zoo / "run04" / "result.json").write_text(text[:-30])
    (zoo / "run05" / "result.json").write_text(text.replace("test_acc", "acc"))
    (zoo / "run06" / "result.json").write_text(text.replace('"test_acc": 0.5', '"test_acc": NaN'))
    last = [zoo / f"run{seed:02d}" / "checkpoint_000002" / "checkpoints" for seed in range(11)]
    shorten(last[7])
    state = cnn_state(8)
    state["module_list.3.bias"][2] = torch.nan
    torch.save(state, last[8])
    (tmp_path / "ran").mkdir()
    torch.save(Harmful(str(tmp_path / "ran" / "it")), last[9])
    population = import_(ModelZoos(zoo), tmp_path / "out")
    assert [row["run"] for row in population.rows] == ["run10"]
    skipped = dict(line.split(": ", 1) for line in population.manifest["card"]["skipped"])
    reasons = {
        "run00": "params.json: No such file",
        "run01": "no activation 'softsign' is known",
        "run02": "params.json has no model::nlin, the activation; it has act",
        "run03": "result.json cannot be read",
        "run04/checkpoint_000002/checkpoints": "no line with training_iteration 2",
        "run05/checkpoint_000002/checkpoints": "result.json has no test_acc; it has acc",
        "run06/checkpoint_000002/checkpoints": "its test_acc is nan, no share of 1",
        "run07": "truncated",
        "run08/checkpoint_000002/checkpoints": "conv2.bias has NaN",
        "run09": "",
    }
    for name, reason in reasons.items():
        assert reason in skipped.pop(name)
    assert not skipped
    assert not (tmp_path / "ran" / "it").exists()


def test_networks_of_other_shapes_are_named(tmp_path: Path) -> None:
    write_run(tmp_path / "zoo" / "good", 0)
    write_run(tmp_path / "zoo" / "wide", 1)
    write_run(tmp_path / "zoo" / "deep", 2)
    state = cnn_state(1)
    state["module_list.0.weight"] = torch.zeros(9, 1, 5, 5)
    torch.save(state, tmp_path / "zoo" / "wide" / "checkpoint_000002" / "checkpoints")
    state = cnn_state(2) | {"x.13.weight": torch.zeros(10, 10), "x.13.bias": torch.zeros(10)}
    torch.save(state, tmp_path / "zoo" / "deep" / "checkpoint_000002" / "checkpoints")
    population = import_(ModelZoos(tmp_path / "zoo"), tmp_path / "out")
    deep, wide = population.manifest["card"]["skipped"]
    assert "deep: layers of weights of [4, 4, 4, 2, 2, 2] dimensions" in deep
    assert "wide: convolutions of (channels, kernel) ((9, 5), (6, 5), (4, 2)); read are" in wide


def test_resnets_with_running_statistics(tmp_path: Path) -> None:
    write_run(tmp_path / "zoo" / "run", 0)
    torch.manual_seed(0)
    network = ResNet18(3, 7, width=4)
    for _ in range(2):
        network(torch.randn(4, 3, 16, 16))
    path = tmp_path / "zoo" / "run" / "checkpoint_000002" / "checkpoints"
    state = {f"model.{name}": value for name, value in network.state_dict().items()}
    torch.save(state, path)
    population = import_(ModelZoos(tmp_path / "zoo"), tmp_path / "out")
    assert population.architectures == ["resnet18-3-7-4"]
    for name, value in network.state_dict().items():
        assert torch.equal(population.state(0)[name], value)
    torch.save({k: v for k, v in state.items() if ".fc." not in k}, path)
    with pytest.raises(ZooError, match="a ResNet without the layers conv1 and fc"):
        import_(ModelZoos(tmp_path / "zoo"), tmp_path / "other")


def test_published_numbers_of_weights() -> None:
    found = [
        sum(p.numel() for p in ModelZooCNN(size, channels, "gelu").parameters())
        for size, channels in (("cnn-s", 1), ("cnn-s", 3), ("cnn-l", 3))
    ]
    assert found == [2464, 2864, 10853]


def test_wrong_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="has no folders of runs"):
        import_(ModelZoos(tmp_path), tmp_path / "out")
    with pytest.raises(ZooError, match="absent is no folder"):
        import_(ModelZoos(tmp_path / "absent"), tmp_path / "out")
    for name in ("uniform", "normal"):
        write_run(tmp_path / name / "run", 0)
    with pytest.raises(ZooError, match="several zoos, normal, uniform; give the folder of one"):
        import_(ModelZoos(tmp_path), tmp_path / "out")
    with pytest.raises(ZooError, match="it has no checkpoint of the wanted epoch"):
        import_(ModelZoos(tmp_path / "normal", epoch=9), tmp_path / "out")
    with pytest.raises(ValueError, match="not both"):
        ModelZoos(tmp_path, epoch=3, every_epoch=True)


def test_the_command_for_model_zoos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model_zoo_replica(tmp_path / "zoo")
    arguments = ["model-zoos", str(tmp_path / "zoo"), "--every-epoch"]
    assert command(monkeypatch, *arguments, "--out", str(tmp_path / "out")) == 0
