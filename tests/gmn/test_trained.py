"""Trained models: what they answer, loading them, and applying them to files."""

from __future__ import annotations

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save, save_file

import gmn
from gmn import zoo
from gmn.tasks import AccuracyPrediction, InrClassification
from gmn.train import (
    Recipe,
    Trained,
    TrainedFileError,
    csv_text,
    fit,
    load,
    predict,
    predict_files,
    text_table,
)
from gmn.zoo.building import catalogue
from tests.gmn.commands import rows_of, run


@pytest.fixture(scope="module")
def trained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return fit(folder, "flat-mlp", tmp_path_factory.mktemp("model"), Recipe(epochs=2))


# --- averages over the group --------------------------------------------------------------------


def test_averages_leave_invariant_models_alone(task: AccuracyPrediction) -> None:
    torch.manual_seed(0)
    model = gmn.nn.DualGMN(hidden=16, depth=2)
    plain, _ = predict(model, task, task.split("test"))
    mean, _ = predict(model, task, task.split("test"), elements=3)
    torch.testing.assert_close(mean, plain, atol=1e-5, rtol=0)


def test_averages_change_other_models(trained: Trained, task: AccuracyPrediction) -> None:
    parts = task.split("test")
    plain, _ = predict(trained.model, task, parts)
    one, same, many = (
        predict(trained.model, task, parts, elements=k, seed=s)[0]
        for k, s in ((1, 0), (1, 0), (64, 1))
    )
    assert float((one - plain).abs().max()) > 1e-3
    assert torch.equal(one, same)
    # Means of many elements are alike whatever the elements; single ones are not.
    other, more = (predict(trained.model, task, parts, elements=k, seed=2)[0] for k in (1, 64))
    assert float((many - more).abs().mean()) < 0.5 * float((one - other).abs().mean())
    with pytest.raises(ValueError, match="elements is -1"):
        predict(trained.model, task, parts, elements=-1)


# --- trained models and files -------------------------------------------------------------------


def test_a_trained_model_loads_without_its_zoo(
    folder: Path, task: AccuracyPrediction, tmp_path: Path
) -> None:
    first = fit(folder, "gmn", tmp_path, Recipe(epochs=1), seed=2, progress=False)
    copy = tmp_path.rename(tmp_path.with_name("moved"))
    again = load(copy)
    graph = task.split("test")[1].graph
    assert torch.equal(first.predict(graph), again.predict(graph))
    assert torch.equal(again.predict(graph), predict(again.model, task, task.split("test"))[0][8:])
    card = json.loads((copy / "model.json").read_text())
    assert card["model"] == "gmn"
    assert card["recipe"]["epochs"] == 1
    assert again.specs == {name: task.zoo.spec(name) for name in task.zoo.architectures}
    assert again.metrics == task.metrics(*predict(again.model, task, task.split("test")))
    assert load_file(copy / "model.safetensors").keys() == again.model.state_dict().keys()


def test_damage_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainedFileError, match=r"has no model\.json"):
        load(tmp_path / "nowhere")
    out = tmp_path / "model"
    fit(folder, "flat-mlp", out, Recipe(epochs=1), progress=False)
    content = bytearray((out / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (out / "model.safetensors").write_bytes(content)
    with pytest.raises(TrainedFileError, match=r"model\.safetensors is damaged"):
        load(out)
    (out / "model.json").write_text("{")
    with pytest.raises(TrainedFileError, match=r"model\.json is damaged"):
        load(out)
    (out / "model.json").write_text('{"version": 2, "model": "flat-mlp"}')
    with pytest.raises(TrainedFileError, match="task is missing"):
        load(out)
    (out / "model.json").write_text('{"version": 7}')
    with pytest.raises(TrainedFileError, match="has format 7"):
        load(out)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("inr-dilation", {"copies": 1, "height": 2**20, "width": 2**20}),
        ("autoencoding", {"latent": 4, "loss": "function", "probes": 2**40}),
        ("autoencoding", {"latent": 4, "height": 1, "width": 2**31}),
    ],
)
def test_a_card_that_would_fill_the_memory_is_refused(
    name: str, settings: dict[str, object], trained: Trained, tmp_path: Path
) -> None:
    card = {**trained.card, "task": {**trained.card["task"], "task": name, "settings": settings}}
    (tmp_path / "model.json").write_text(json.dumps(card))
    content = save({n: v.clone() for n, v in trained.model.state_dict().items()})
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(TrainedFileError, match=r"it runs networks on .* inputs, above 16,777,216"):
        load(tmp_path)


def test_estimators_are_sent_to_compare(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="gmn compare runs it"):
        fit(folder, "layer-statistics", tmp_path, progress=False)


@pytest.fixture
def files(task: AccuracyPrediction, tmp_path: Path) -> list[Path]:
    """A right one, one of other widths, a truncated one, one with NaN, and a right one."""
    state = task.zoo.state(0)
    other = {**state, "conv3.weight": torch.zeros(5, 3, 3, 3)}
    broken = {**state, "conv1.bias": torch.full_like(state["conv1.bias"], math.nan)}
    paths = [tmp_path / f"{name}.safetensors" for name in ("a", "other", "cut", "nan")]
    for path, content in zip(paths, (state, other, state, broken), strict=True):
        save_file(content, path)
    paths[2].write_bytes(paths[2].read_bytes()[:-40])
    torch.save({"model": task.zoo.state(1)}, tmp_path / "b.pt")
    return [*paths, tmp_path / "b.pt"]


def test_files_are_predicted_one_by_one(
    trained: Trained, task: AccuracyPrediction, files: list[Path]
) -> None:
    answers = predict_files(trained, files, architecture="cnn-relu")
    expected = trained.predict(task.zoo.graph([0, 1]))
    assert [a.prediction is None for a in answers] == [False, True, True, True, False]
    found = torch.stack([a.prediction for a in answers if a.prediction is not None])
    torch.testing.assert_close(found, expected)
    errors = [a.error or "" for a in answers]
    assert "another architecture than cnn-relu: conv3.weight has shape (5, 3, 3, 3)" in errors[1]
    assert "conv1.bias has NaN" in errors[3]
    assert "cut" not in errors[2]  # the file's name has a column of its own
    assert errors[2]
    averaged = predict_files(trained, files[:1], architecture="cnn-relu", elements=2)
    assert averaged[0].prediction is not None
    assert not torch.equal(averaged[0].prediction, found[0])


def test_missing_and_extra_entries_are_named(
    trained: Trained, task: AccuracyPrediction, tmp_path: Path
) -> None:
    state = task.zoo.state(0)
    save_file({n: v for n, v in state.items() if n != "conv2.bias"}, tmp_path / "few.safetensors")
    save_file({**state, "more": torch.ones(2)}, tmp_path / "many.safetensors")
    answers = predict_files(trained, [tmp_path / "few.safetensors", tmp_path / "many.safetensors"])
    assert "conv2.bias is missing" in str(answers[0].error)
    assert "more is an entry too many" in str(answers[1].error)


def test_equal_shapes_need_a_name(trained: Trained, files: list[Path]) -> None:
    assert "fit cnn-relu and cnn-tanh alike" in str(predict_files(trained, files[:1])[0].error)
    with pytest.raises(KeyError, match="no architecture called 'lstm'; known: cnn-relu, cnn-tanh"):
        predict_files(trained, files, architecture="lstm")


def test_classes_come_with_their_probabilities(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick = replace(catalogue.BUILDERS["inr-digits"], steps=2)
    monkeypatch.setitem(catalogue.BUILDERS, "inr-digits", quick)
    population = zoo.build("inr-digits", 100, 0, tmp_path / "zoo", workers=1, progress=False)
    made = fit(tmp_path / "zoo", "flat-mlp", tmp_path / "model", Recipe(epochs=1), progress=False)
    assert isinstance(made.task, InrClassification)
    assert made.task.outputs == InrClassification(population).outputs == 10
    save_file(population.state(7), tmp_path / "digit.safetensors")
    (tmp_path / "empty.pt").touch()
    answers = predict_files(made, [tmp_path / "digit.safetensors", tmp_path / "empty.pt"])
    expected = made.predict(population.graph([7]))[0]
    assert answers[0].prediction is not None
    torch.testing.assert_close(answers[0].prediction, expected)
    assert float(expected.sum()) == pytest.approx(1)
    best = int(expected.argmax())
    lines = text_table(made, answers).splitlines()
    assert "class of the image" in lines[0]
    assert f"{best} (probability {float(expected[best]):.4f})" in lines[2]
    assert "error:" in lines[3]
    rows = list(csv.DictReader(csv_text(made, answers).splitlines()))
    assert rows[0]["prediction"] == str(best)
    assert float(rows[0][f"probability_{best}"]) == pytest.approx(float(expected[best]))
    assert rows[1]["prediction"] == rows[1]["probability_0"] == ""
    assert rows[1]["error"]


# --- the commands -------------------------------------------------------------------------------


def test_train_and_predict_from_the_command_line(
    folder: Path,
    files: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model, table = tmp_path / "model", tmp_path / "new" / "answers.csv"
    command = ["train", str(folder), "-m", "flat-mlp", "--out", str(model), "--epochs", "2"]
    options = ["--batch-size", "8", "--lr", "0.01", "--patience", "2", "--ema", "0.9"]
    assert run(monkeypatch, *command, *options, "--seed", "4", "--bf16", "--augment") == 0
    printed = capsys.readouterr()
    assert "test split, weights of epoch" in printed.out
    assert "epoch/s" in printed.err or "s/epoch" in printed.err
    assert "loss 0." in printed.err
    recipe = load(model).card["recipe"]
    assert (recipe["batch_size"], recipe["learning_rate"]) == (8, 0.01)
    assert (recipe["patience"], recipe["ema"], recipe["bf16"]) == (2, 0.9, True)
    assert "SampledSymmetry" in recipe["augment"]

    names = [str(path) for path in files]
    chosen = ["--architecture", "cnn-relu", "--csv", str(table)]
    assert run(monkeypatch, "predict", str(model), *names, *chosen) == 1
    lines = capsys.readouterr().out.splitlines()
    assert sum("error:" in line for line in lines) == 3
    rows = rows_of(table)
    assert [row["file"] for row in rows] == names
    assert [row["prediction"] != "" for row in rows] == [True, False, False, False, True]
    assert run(monkeypatch, "predict", str(model), names[0], "--architecture", "cnn-relu") == 0
    assert f"{float(rows[0]['prediction']):.4f}" in capsys.readouterr().out
    fresh = ["train", str(folder), "-m", "flat-mlp", "--out", str(tmp_path / "wild")]
    assert run(monkeypatch, *fresh, "--lr", "1e30") == 1
    assert "lower the learning rate" in " ".join(capsys.readouterr().err.split())
    assert run(monkeypatch, "predict", str(tmp_path / "none"), names[0]) == 1
    assert "holds no trained model" in " ".join(capsys.readouterr().err.split())
