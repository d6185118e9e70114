"""Training runs: killed and gone on with, their recipes, and what they log."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
import types
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gmn
from gmn import zoo
from gmn.augment import SampledSymmetry
from gmn.tasks import AccuracyPrediction, Batch
from gmn.train import (
    Recipe,
    TrainedFileError,
    fit,
    load,
    predict,
    train,
)
from gmn.train.run import Run
from gmn.zoo.stored import KeptGraph, StoredGraph
from tests.converters import bombs
from tests.gmn.commands import rows_of

EVERYTHING = Recipe(
    epochs=6, batch_size=16, augment=SampledSymmetry(0.1), ema=0.9, bf16=True, patience=5
)


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


@pytest.mark.slow
@pytest.mark.parametrize("model", ["flat-mlp", "gmn"])
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
    with pytest.raises(ValueError, match="already holds a run with labels"):
        train(Mean(), other, Recipe(epochs=2), folder=tmp_path)
    content = (tmp_path / "run.pt").read_bytes()
    (tmp_path / "run.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"run\.pt is damaged"):
        train(Mean(), task, Recipe(epochs=2), folder=tmp_path)


def _identity(name: str, value: bytes) -> bytes:
    """The pickle of a run with one entry in its identity."""
    entry = b"}" + bombs.text(name) + value + b"s"
    return bombs.raw(b"}(", bombs.text("run"), b"}", bombs.text("identity"), entry, b"u")


HOSTILE: dict[str, bombs.Bomb] = {
    "unpacks to 100 MB": bombs.zipped(zipfile.ZIP_DEFLATED, lie=False),
    "unpacks to more than it says": bombs.zipped(zipfile.ZIP_DEFLATED, lie=True),
    "a seed whose text has 2^200 parts": bombs.in_zip(_identity("seed", bombs.doubled(200))),
    "a seed whose text has 2^40 parts": bombs.in_zip(_identity("seed", bombs.doubled(40))),
    "a call": bombs.in_zip(bombs.raw(b"cos\nsystem\n", bombs.text("true"), b"\x85R")),
    "no pickle": lambda path: path.write_bytes(b"x" * 1000) and None,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_state_is_refused_as_damaged(
    task: AccuracyPrediction, tmp_path: Path, name: str
) -> None:
    train(Mean(), task, Recipe(epochs=1), folder=tmp_path)
    HOSTILE[name](tmp_path / "run.pt")
    start = time.process_time()
    with pytest.raises(ValueError, match=r"run\.pt is damaged, .* take another folder"):
        train(Mean(), task, Recipe(epochs=1), folder=tmp_path)
    assert time.process_time() - start < 10


CHANGED: dict[str, Callable[[dict[str, Any]], object]] = {
    "stretched moments": lambda run: run["optimiser"]["state"][0].update(
        exp_avg=torch.zeros(1).expand(1 << 36)
    ),
    "moments of another shape": lambda run: run["optimiser"]["state"][0].update(
        exp_avg=torch.zeros(77)
    ),
    "moments that are none": lambda run: run["optimiser"]["state"][0].update(exp_avg=3),
    "a schedule that is not to be called": lambda run: run["schedule"].update(step=3),
    "a schedule of text": lambda run: run["schedule"].update(last_epoch="1"),
    "a rate of text": lambda run: run["optimiser"]["param_groups"][0].update(lr="1"),
    "an infinite epoch": lambda run: run.update(best_epoch=math.inf),
    "no log": lambda run: run.update(log=[]),
}


@pytest.mark.parametrize("name", CHANGED)
def test_values_that_are_none_of_a_run_are_damage(
    task: AccuracyPrediction, tmp_path: Path, name: str
) -> None:
    train(Mean(), task, Recipe(epochs=1), folder=tmp_path)
    saved = torch.load(tmp_path / "run.pt", weights_only=True)
    CHANGED[name](saved["run"])
    torch.save(saved, tmp_path / "run.pt")
    with pytest.raises(ValueError, match=r"run\.pt is damaged"):
        train(Mean(), task, Recipe(epochs=1), folder=tmp_path)


def test_networks_that_fill_the_memory_stay_in_their_files(
    folder: Path, task: AccuracyPrediction, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(
            "gmn.zoo.population.available_bytes", lambda device: 2 * task.zoo.num_bytes - 1
        )
        stored = AccuracyPrediction.open(folder)
    assert type(stored.split("train")[0].graph) is StoredGraph
    assert isinstance(task.split("train")[0].graph, KeptGraph)
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
