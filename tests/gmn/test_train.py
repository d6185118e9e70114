"""Training runs on disk, what they leave behind, and applying it to files."""

from __future__ import annotations

import csv
import json
import math
import os
import signal
import subprocess
import sys
import time
import types
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import gmn
from gmn import zoo
from gmn.augment import SampledSymmetry
from gmn.tasks import AccuracyPrediction, Batch, InrClassification
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
    train,
)
from gmn.train.run import Run
from gmn.zoo import catalogue
from gmn.zoo.stored import StoredGraph
from tests.gmn.commands import run

EVERYTHING = Recipe(
    epochs=6, batch_size=16, augment=SampledSymmetry(0.1), ema=0.9, bf16=True, patience=5
)


@pytest.fixture(scope="module")
def trained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return fit(folder, "flat-mlp", tmp_path_factory.mktemp("model"), Recipe(epochs=2))


class Mean(nn.Module):
    """Reads the spread of all weights; drops at random, so that global chance matters."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(
            nn.Linear(2, 8), nn.Tanh(), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Linear(8, 1)
        )

    def forward(self, graph: gmn.ParameterGraph) -> Tensor:
        values = torch.cat([v.flatten(1) for v in graph.values.values()], dim=1)
        result: Tensor = self.layers(torch.stack([values.std(1), values.mean(1)], dim=1))
        return result


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def same_files(first: Path, second: Path) -> bool:
    names = ("model.safetensors", "model.json", "log.csv")
    return all((first / name).read_bytes() == (second / name).read_bytes() for name in names)


# --- runs on disk -------------------------------------------------------------------------------

SLOWED = """
import sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from gmn.train import fit, journal
from tests.gmn.test_train import EVERYTHING
write = journal.Journal.write
def slow(self, run):
    write(self, run)
    print(run.epoch, flush=True)
    time.sleep(0.3)
journal.Journal.write = slow
fit(Path(sys.argv[1]), sys.argv[3], Path(sys.argv[2]), EVERYTHING, 3, progress=False)
"""


def killed_after(population: Path, out: Path, model: str, epochs: int) -> None:
    """Runs the training in another process and kills it soon after it finished some epochs."""
    command = [sys.executable, "-c", SLOWED, str(population), str(out), model]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= epochs:
                break
        time.sleep(0.35)  # into the next epoch
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("model", ["flat-mlp", pytest.param("gmn", marks=pytest.mark.slow)])
def test_a_killed_run_goes_on_bit_for_bit(folder: Path, tmp_path: Path, model: str) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    fit(folder, model, whole, EVERYTHING, 3, progress=False)
    killed_after(folder, broken, model, 2)
    assert not (broken / "model.json").exists()
    assert 2 <= len((broken / "log.csv").read_text().splitlines()) - 1 < 6
    with pytest.raises(TrainedFileError, match="Run gmn train until it is done"):
        load(broken)
    fit(folder, model, broken, EVERYTHING, 3, progress=False)
    torch.set_num_threads(threads)
    assert same_files(whole, broken)
    states = [torch.load(path / "run.pt", weights_only=True) for path in (whole, broken)]
    pairs = [torch.utils._pytree.tree_leaves(state) for state in states]
    for first, second in zip(*pairs, strict=True):
        equal = torch.equal(first, second) if isinstance(first, Tensor) else first == second
        assert equal


class Stop(Exception):
    pass


@pytest.mark.parametrize("epoch", [1, 4])
def test_layers_with_chance_and_statistics_go_on_too(
    task: AccuracyPrediction, tmp_path: Path, epoch: int
) -> None:
    def stop(done: float, metric: float) -> None:
        if done >= epoch / 6:
            raise Stop

    models = Mean(), Mean(), Mean()
    torch.manual_seed(5)
    train(models[0], task, EVERYTHING, folder=tmp_path / "whole")
    torch.manual_seed(5)
    with pytest.raises(Stop):
        train(models[1], task, EVERYTHING, report=stop, folder=tmp_path / "broken")
    torch.manual_seed(6)  # what stands in the folder counts
    train(models[2], task, EVERYTHING, folder=tmp_path / "broken")
    states = [model.state_dict() for model in models]
    assert all(torch.equal(states[0][name], states[2][name]) for name in states[0])
    logs = [(tmp_path / name / "log.csv").read_bytes() for name in ("whole", "broken")]
    assert logs[0] == logs[1]


def test_a_folder_changes_nothing_and_holds_one_run(
    task: AccuracyPrediction, tmp_path: Path
) -> None:
    results = []
    for place in (None, tmp_path, tmp_path):  # the last finds everything done
        torch.manual_seed(1)
        results.append(train(Mean(), task, Recipe(epochs=2), folder=place))
    assert all(torch.equal(results[0].prediction, other.prediction) for other in results[1:])
    with pytest.raises(ValueError, match=r"already holds a run with seed = 0, not 1"):
        train(Mean(), task, Recipe(epochs=2), seed=1, folder=tmp_path)
    with pytest.raises(ValueError, match=r"already holds a run with epochs = 2, not 3"):
        train(Mean(), task, Recipe(epochs=3), folder=tmp_path)
    other = AccuracyPrediction(task.zoo)
    other.split("train")[:] = [Batch(p.graph, 1 - p.target) for p in other.split("train")]
    with pytest.raises(ValueError, match="already holds a run with training data"):
        train(Mean(), other, Recipe(epochs=2), folder=tmp_path)
    content = (tmp_path / "run.pt").read_bytes()
    (tmp_path / "run.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"run\.pt is damaged"):
        train(Mean(), task, Recipe(epochs=2), folder=tmp_path)


def test_networks_that_fill_the_memory_stay_in_their_files(
    folder: Path, task: AccuracyPrediction, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(
            "gmn.tasks.batches.available_bytes", lambda device: 2 * task.zoo.num_bytes - 1
        )
        patch.setattr("gmn.tasks.batches.PIECE", 7)
        stored = AccuracyPrediction.open(folder)
    assert isinstance(stored.split("train")[0].graph, StoredGraph)
    assert not isinstance(task.split("train")[0].graph, StoredGraph)
    results = []
    for each in (task, stored):
        torch.manual_seed(0)
        results.append(train(gmn.nn.GMN(hidden=8, depth=1), each, Recipe(epochs=2, batch_size=9)))
    assert torch.equal(results[0].prediction, results[1].prediction)
    assert results[0].metrics == results[1].metrics


@pytest.mark.parametrize("missing", ["train", "val", "test"])
def test_an_empty_split_is_noticed_before_training(
    task: AccuracyPrediction, tmp_path: Path, missing: str
) -> None:
    criteria = [f"split!={missing}"]
    part = zoo.filtered(task.zoo, zoo.select(task.zoo, criteria), tmp_path / "zoo", criteria)
    with pytest.raises(ValueError, match=f"has no networks in split '{missing}'"):
        fit(part.folder, "flat-mlp", tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_the_log_has_a_row_per_epoch(task: AccuracyPrediction, tmp_path: Path) -> None:
    metrics: list[float] = []
    report = lambda _, metric: metrics.append(metric)  # noqa: E731
    result = train(Mean(), task, Recipe(epochs=3, batch_size=4), report=report, folder=tmp_path)
    rows = rows_of(tmp_path / "log.csv")
    assert list(rows[0]) == ["epoch", "learning_rate", "loss", "val_tau", "val_r2"]
    assert [int(row["epoch"]) for row in rows] == [0, 1, 2]
    assert [float(row["val_tau"]) for row in rows] == metrics
    assert result.epoch == max(range(3), key=metrics.__getitem__)
    assert float(rows[0]["learning_rate"]) == pytest.approx(1e-3 / 25)
    assert all(0 < float(row["loss"]) < math.inf for row in rows)


def test_tensorboard_gets_the_same_rows(
    task: AccuracyPrediction, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[object, ...]] = []

    class Writer:
        def __init__(self, place: Path, purge_step: int) -> None:
            calls.append(("open", place, purge_step))

        def add_scalar(self, name: str, value: float, step: int) -> None:
            calls.append((name, value, step))

        def flush(self) -> None:
            calls.append(("flush",))

        def close(self) -> None:
            calls.append(("close",))

    board = types.ModuleType("torch.utils.tensorboard")
    board.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", board)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    train(Mean(), task, Recipe(epochs=2), folder=tmp_path)
    rows = rows_of(tmp_path / "log.csv")
    assert calls[0] == ("open", tmp_path / "tensorboard", 0)
    for epoch, row in enumerate(rows):
        assert ("val_tau", float(row["val_tau"]), epoch) in calls
    assert calls[-1] == ("close",)
    train(Mean(), task, Recipe(epochs=2), folder=tmp_path)
    assert ("open", tmp_path / "tensorboard", 2) in calls


# --- the recipe ---------------------------------------------------------------------------------


class Scripted(AccuracyPrediction):
    """Validation metrics from a list, so that it is known which epoch is best."""

    def script(self, values: list[float]) -> Scripted:
        self.values = iter(values)
        return self

    def metrics(self, prediction: Tensor, target: Tensor) -> dict[str, float]:
        return {"tau": next(self.values), "r2": 0.0}


def test_patience_stops_and_keeps_the_best(task: AccuracyPrediction) -> None:
    done: list[float] = []
    scripted = Scripted(task.zoo).script([0.1, 0.5, 0.4, 0.5, 0.3, 0.9, -1.0])
    result = train(
        Mean(), scripted, Recipe(epochs=50, patience=3), report=lambda d, _: done.append(d)
    )
    assert result.epoch == 1
    assert len(done) == 5  # epochs 2, 3 and 4 were no better than epoch 1
    assert done[-1] == 1
    assert result.metrics["tau"] == 0.9
    with pytest.raises(ValueError, match="patience is 0"):
        Recipe(patience=0)


def test_the_moving_average_is_what_is_evaluated(task: AccuracyPrediction) -> None:
    recipe = Recipe(epochs=2, batch_size=4, learning_rate=1e-2)
    plain, averaged = Mean(), Mean()
    torch.manual_seed(0)
    first = train(plain, task, recipe)
    torch.manual_seed(0)
    second = train(averaged, task, replace(recipe, ema=0.9))
    assert not torch.equal(first.prediction, second.prediction)
    prediction, _ = predict(averaged, task, task.split("test"))
    torch.testing.assert_close(prediction, second.prediction)


def test_the_moving_average_is_its_formula(task: AccuracyPrediction) -> None:
    model = nn.Linear(2, 1)
    run = Run(model, Recipe(ema=0.5), 0, steps=4)
    expected = None
    for number in range(12):
        model(torch.ones(3, 2)).square().mean().backward()
        run.step()
        new = model.weight.detach().clone()
        decay = min(0.5, (1 + number) / (10 + number))
        expected = new if expected is None else decay * expected + (1 - decay) * new
    assert expected is not None
    found = dict(run.evaluated.named_parameters())["weight"]
    torch.testing.assert_close(found.detach(), expected)
    assert not torch.equal(found, model.weight)
    with pytest.raises(ValueError, match=r"ema is 1\.0"):
        Recipe(ema=1.0)


def test_bf16_is_for_steps_alone(task: AccuracyPrediction) -> None:
    class Recorded(Mean):
        def forward(self, graph: gmn.ParameterGraph) -> Tensor:
            output = super().forward(graph)
            types_seen.add((self.training, output.dtype))
            return output

    types_seen: set[tuple[bool, torch.dtype]] = set()
    model = Recorded()
    result = train(model, task, Recipe(epochs=2, bf16=True))
    steps = {(True, torch.bfloat16), (False, torch.float32)}
    assert steps <= types_seen <= steps | {(True, torch.float32)}  # the estimate of memory
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert result.prediction.dtype == torch.float32
    assert math.isfinite(result.metrics["r2"])


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
    with pytest.raises(ValueError, match="-1 elements"):
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
    with pytest.raises(TrainedFileError, match="lacks task, metrics, architectures"):
        load(out)
    (out / "model.json").write_text('{"version": 7}')
    with pytest.raises(TrainedFileError, match="has format 7"):
        load(out)


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
    assert run(monkeypatch, *fresh, "--lr", "1e30") == 2
    assert "lower the learning rate" in " ".join(capsys.readouterr().err.split())
    assert run(monkeypatch, "predict", str(tmp_path / "none"), names[0]) == 2
    assert "holds no trained model" in " ".join(capsys.readouterr().err.split())
