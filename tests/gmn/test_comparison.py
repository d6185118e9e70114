"""Training and comparing: fair, repeatable, and redrawn from JSON alone."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gmn
from baselines import FlatMLP
from gmn import registry
from gmn.comparison import Comparison, cost, jobs, report, running, save
from gmn.comparison.finished_runs import FinishedRuns, comparison_folder
from gmn.tasks import AccuracyPrediction, minibatches
from gmn.train import Recipe, Result, predict, train

pytestmark = pytest.mark.usefixtures("quick_costs")


def net(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return gmn.nn.GMN(hidden=12, depth=1)


def test_splits_hold_one_batch_per_architecture(task: AccuracyPrediction) -> None:
    assert [len(part) for part in task.split("train")] == [24, 24]
    assert {part.graph.spec.node_sets[1].operations[0].name for part in task.split("test")} == {
        "relu",
        "tanh",
    }


def test_minibatches_hold_every_network_once(task: AccuracyPrediction) -> None:
    parts = task.split("train")
    first, second, third = (
        list(minibatches(parts, 7, torch.Generator().manual_seed(seed))) for seed in (1, 1, 2)
    )
    numbers, again, other = (
        torch.cat(
            [piece.numbers for pieces in found for piece in pieces if piece.numbers is not None]
        )
        for found in (first, second, third)
    )
    assert torch.equal(numbers.sort().values, task.zoo.indices("train"))
    assert torch.equal(numbers, again)
    assert not torch.equal(numbers, other)
    assert sorted(sum(map(len, pieces)) for pieces in first) == [6, 7, 7, 7, 7, 7, 7]
    assert sum(len(pieces) > 1 for pieces in first) == 1  # what is left: 3 and 3
    for pieces in first:
        for piece in pieces:
            assert piece.numbers is not None
            assert torch.equal(piece.target, task.targets(piece.graph, piece.numbers))


@pytest.mark.parametrize("size", [1, 4, 9, 100])
def test_networks_that_all_differ_fill_minibatches(task: AccuracyPrediction, size: int) -> None:
    parts = [part[n : n + 1] for part in task.split("train") for n in range(5)]
    found = list(minibatches(parts, size, torch.Generator().manual_seed(0)))
    sizes = sorted(sum(map(len, pieces)) for pieces in found)
    assert sizes[1:] == [size] * (len(sizes) - 1)
    assert sum(sizes) == 10
    assert len(sizes) == math.ceil(10 / size)


def test_a_step_is_that_of_all_networks_of_its_minibatch(task: AccuracyPrediction) -> None:
    """Two architectures in one minibatch, against the plain loop that one would write."""
    parts, recipe = task.split("train"), Recipe(epochs=3, batch_size=48, learning_rate=1e-2)
    model, plain = net(), net()
    result = train(model, task, recipe)
    optimiser = torch.optim.AdamW(plain.parameters(), weight_decay=recipe.weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 1e-2, total_steps=3, pct_start=0.15)
    for _ in range(result.epoch + 1):
        optimiser.zero_grad()
        answers = torch.cat([plain(part.graph) for part in parts])
        task.loss(answers, torch.cat([part.target for part in parts])).backward()
        nn.utils.clip_grad_norm_(plain.parameters(), recipe.clip)
        optimiser.step()
        schedule.step()
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=1e-4, atol=1e-6, msg=name)
    assert not torch.equal(net().state_dict()[name], value)


def test_training_repeats(task: AccuracyPrediction) -> None:
    recipe = Recipe(epochs=1, batch_size=16, learning_rate=1e-2)
    one, again, other = (train(net(), task, recipe, seed=seed) for seed in (3, 3, 4))
    assert torch.equal(one.prediction, again.prediction)
    assert not torch.equal(one.prediction, other.prediction)


@pytest.mark.slow
def test_training_learns(task: AccuracyPrediction) -> None:
    reports: list[tuple[float, float]] = []
    recipe = Recipe(epochs=25, batch_size=16, learning_rate=1e-2)
    result = train(net(), task, recipe, seed=3, report=lambda *r: reports.append(r))
    assert result.metrics["tau"] > 0.6
    assert len(reports) == 25
    assert reports[-1][0] == 1
    assert 0 <= result.epoch < 25


def test_the_best_validation_epoch_is_kept(task: AccuracyPrediction) -> None:
    reports: list[float] = []
    model = net()
    result = train(model, task, Recipe(epochs=4), report=lambda _, tau: reports.append(tau))
    assert result.epoch == max(range(4), key=reports.__getitem__)
    prediction, target = predict(model, task, task.split("val"))
    assert task.metrics(prediction, target)["tau"] == max(reports)


def test_a_diverging_run_says_so(task: AccuracyPrediction) -> None:
    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = nn.Parameter(torch.tensor(float("nan")))

        def forward(self, graph: gmn.ParameterGraph) -> torch.Tensor:
            return self.bias.expand(len(graph), 1)

    with pytest.raises(FloatingPointError, match="Broken: the loss is nan in epoch 0"):
        train(Broken(), task, Recipe(epochs=1))


def test_metrics(task: AccuracyPrediction) -> None:
    truth = torch.tensor([0.1, 0.2, 0.4, 0.9])
    assert task.metrics(truth, truth) == {"tau": 1.0, "r2": 1.0}
    assert task.metrics(1 - truth, truth)["tau"] == -1
    assert abs(task.metrics(truth.mean().expand(4), truth)["r2"]) < 1e-6


MODELS = ["flat-mlp", "nfn-hnp", "layer-statistics"]


compared = pytest.mark.xdist_group("comparison")  # one comparison for all


@pytest.fixture(scope="module")
def comparison(folder: Path, quick_costs: None) -> Comparison:
    return gmn.compare(
        partial(AccuracyPrediction.open, folder),
        MODELS,
        seeds=2,
        recipe=Recipe(epochs=1),
        workers=1,
        progress=False,
    )


@compared
def test_comparison_has_every_model_and_seed(comparison: Comparison) -> None:
    assert {row.model for row in comparison.rows} == set(MODELS) <= set(registry.names())
    taus = [row.mean("tau") for row in comparison.rows]
    assert taus == sorted(taus, reverse=True)
    for row in comparison.rows:
        assert len(row.predictions) == len(row.metrics["tau"]) == 2
        assert len(row.predictions[0]) == len(comparison.target) == 16
        assert row.cost.milliseconds > 0
        assert row.interval("tau") >= 0
        assert 0 <= comparison.p_value(row) <= 1
    assert comparison.protocol["networks"] == {"train": 48, "val": 16, "test": 16}


@compared
def test_everything_is_redrawn_from_json(comparison: Comparison, tmp_path: Path) -> None:
    save(comparison, tmp_path)
    again = Comparison.from_json((tmp_path / "comparison.json").read_text())
    assert again == comparison
    assert str(again) == (tmp_path / "comparison.txt").read_text().rstrip("\n")
    assert (tmp_path / "comparison.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="not a comparison"):
        Comparison.from_json("{}")


@compared
def test_table_names_the_protocol(comparison: Comparison) -> None:
    text = str(comparison)
    for word in ("Kendall τ", "p vs best", "nfn-hnp", "48/16/16 networks", "2 seeds", "probes"):
        assert word in text
    long = "a-model-with-a-name-of-" + "many-" * 40 + "words"
    renamed = replace(comparison, rows=(replace(comparison.rows[0], model=long),))
    assert long in str(renamed)
    assert "…" not in str(renamed)
    page = comparison._repr_html_()
    assert page.count("<tr>") == 1 + len(MODELS)
    assert "layer-statistics" in page
    assert len(report.scatter_plot(comparison).axes) >= len(MODELS)


@compared
def test_one_seed_has_no_interval(comparison: Comparison) -> None:
    row = comparison.rows[0]
    single = type(row)(row.model, {"tau": [0.5]}, row.predictions[:1], row.cost, [1.0], 0.0)
    assert math.isnan(single.interval("tau"))


@pytest.mark.slow
def test_processes_give_the_same_answer(folder: Path) -> None:
    make = partial(AccuracyPrediction.open, folder)
    runs = [
        gmn.compare(make, ["gmn"], seeds=1, recipe=Recipe(epochs=1), workers=w, progress=False)
        for w in (1, 2)
    ]
    first, second = (torch.tensor(run.rows[0].predictions) for run in runs)
    torch.testing.assert_close(first, second)


def test_a_comparison_goes_on_where_it_was(folder: Path, tmp_path: Path) -> None:
    trained: list[int] = []

    def counted(spec: gmn.GraphSpec, outputs: int) -> nn.Module:
        trained.append(1)
        return FlatMLP(spec, (8,), outputs)

    def go(seeds: int, epochs: int = 1, **models: registry.Factory) -> Comparison:
        return gmn.compare(
            partial(AccuracyPrediction.open, folder),
            models,
            seeds=seeds,
            recipe=Recipe(epochs=epochs),
            workers=1,
            progress=False,
            folder=tmp_path / "kept",
        )

    first = go(1, one=counted)
    assert len(trained) == 3  # to be tried, to be trained, and to be measured
    path = tmp_path / "kept" / "runs.jsonl"
    with path.open("a") as file:
        file.write('\n{"model": "one", "se')  # a process that was killed in the middle of a line
    both = go(2, one=counted, two=counted)
    assert len(trained) == 3 + 2 * 2 + 3
    rows = {row.model: row for row in both.rows}
    assert rows["one"].predictions[0] == first.rows[0].predictions[0]
    assert rows["one"].seconds[0] == first.rows[0].seconds[0]
    assert rows["one"].predictions == rows["two"].predictions
    again = go(2, one=counted, two=counted)
    assert [row.predictions for row in again.rows] == [row.predictions for row in both.rows]
    assert len(trained) == 3 + 2 * 2 + 3 + 2 * 2
    with pytest.raises(ValueError, match="holds runs with epochs = 1, not 2"):
        go(1, epochs=2, one=counted)
    path.write_text(path.read_text().replace('"answers"', '"answer"'))
    with pytest.raises(ValueError, match="holds no runs of this version"):
        go(1, one=counted)


def test_metrics_are_told_before_costs_are_measured(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """And a comparison that is stopped then has nothing left to train."""
    trained: list[int] = []

    def counted(spec: gmn.GraphSpec, outputs: int) -> nn.Module:
        trained.append(1)
        return FlatMLP(spec, (8,), outputs)

    def killed(*arguments: Any) -> Any:
        raise KeyboardInterrupt

    go = partial(
        gmn.compare,
        AccuracyPrediction.open(folder),
        {"one": counted, "two": counted},
        seeds=2,
        recipe=Recipe(epochs=1),
        workers=1,
        folder=tmp_path / "kept",
    )
    with monkeypatch.context() as patch:
        patch.setattr(cost, "measure", killed)
        with pytest.raises(KeyboardInterrupt):
            go()
    told = capsys.readouterr()
    for name, seed in (("one", 0), ("two", 0), ("one", 1), ("two", 1)):
        assert f"{name}, seed {seed}: tau " in told.err
    assert "seed" not in told.out
    trained.clear()
    found = go()
    assert len(trained) == 2 * 2  # tried, and measured
    assert "seed 0" not in capsys.readouterr().err
    assert all(row.cost.milliseconds > 0 for row in found.rows)


def test_a_run_tells_of_its_loss_within_the_first_epoch(folder: Path) -> None:
    make, messages = partial(AccuracyPrediction.open, folder), SimpleQueue[Any]()
    job = jobs.TrainingJob(make, "gmn", lambda *_: net(), 3, Recipe(epochs=2, batch_size=4))
    found = jobs.train_and_test(job, messages)
    told = [messages.get() for _ in range(messages.qsize())]
    first, *_, last = told
    assert isinstance(found, jobs.RunResult)
    assert first[0] == "gmn/3"
    assert first[1] == pytest.approx(1 / 24)  # 12 steps an epoch
    assert first[2].startswith("loss 0.")
    assert last[2].startswith("tau ")
    assert sum(step for _, step, _ in told) == pytest.approx(1)
    assert sum(words.startswith("tau") for _, _, words in told) == 2


def broken_factory(spec: gmn.GraphSpec, outputs: int) -> nn.Module:
    raise ZeroDivisionError("a mistake")


def test_a_mistake_in_the_last_model_shows_before_the_first_trains(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "train", None)
    models = {"flat-mlp": registry.find("flat-mlp"), "broken": broken_factory}
    with pytest.raises(ZeroDivisionError, match="a mistake"):
        gmn.compare(folder, models, workers=1, progress=False)


@pytest.mark.skipif(not cost.RESET.exists(), reason="peaks start anew on Linux only")
def test_peaks_of_memory_are_those_of_the_step(task: AccuracyPrediction) -> None:
    """Also in a process that needed more before."""
    before = cost.measure(net(), task, 4)
    torch.cat([torch.ones(2**20) for _ in range(200)])  # freed at once
    after = cost.measure(net(), task, 4)
    assert before.peak_mib > 0
    assert after.peak_mib == pytest.approx(before.peak_mib, abs=4)


def test_models_compute_on_the_device_that_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a GPU: on meta, which computes shapes; trained on the CPU in its place."""
    devices: list[tuple[str, str]] = []

    class Watched(nn.Linear):
        def forward(self, graph: gmn.ParameterGraph) -> Tensor:
            devices.append((graph.device.type, self.weight.device.type))
            value = next(iter(graph.values.values()))
            return super().forward(value.flatten(1).mean(1, keepdim=True))

    def watched(spec: gmn.GraphSpec, outputs: int) -> nn.Module:
        return Watched(1, outputs)

    def trained(model: nn.Module, *arguments: Any, **told: Any) -> Result:
        assert next(model.parameters()).device.type == "meta"
        return train(Watched(1, 1), *arguments, **told)

    monkeypatch.setattr(jobs, "train", trained)
    monkeypatch.setattr(running, "require_device", lambda _, device: torch.device(device))
    make, recipe = partial(AccuracyPrediction.open, folder), Recipe(epochs=1)
    found = gmn.compare(make, {"one": watched}, seeds=1, recipe=recipe, workers=1, device="meta")
    assert set(devices) == {("meta", "meta"), ("cpu", "cpu")}
    assert found.protocol["device"] == "meta"
    assert "costs per training step on meta" in str(found)


def test_runs_of_another_device_are_not_taken(tmp_path: Path) -> None:
    with comparison_folder(tmp_path) as output:
        run = jobs.RunResult("one", 0, {"tau": 0.5}, [], [], 0.1, 1.0)
        FinishedRuns(output, lambda: {"epochs": 1}).add(run)  # of a version without devices
        assert FinishedRuns(output, lambda: {"epochs": 1, "device": "cpu"}).find("one", 0) == run
        with pytest.raises(ValueError, match="holds runs with device = 'cpu', not 'cuda'"):
            FinishedRuns(output, lambda: {"epochs": 1, "device": "cuda"})


def only_relu(spec: gmn.GraphSpec, outputs: int) -> nn.Module:
    class OnlyRelu(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(outputs))

        def forward(self, graph: gmn.ParameterGraph) -> Tensor:
            name = graph.spec.node_sets[1].operations[0].name
            if name != "relu":
                raise gmn.errors.UnsupportedArchitecture(f"{name} is no relu")
            return self.weight.expand(len(graph), -1)

    return OnlyRelu()


def test_models_that_cannot_read_the_networks_are_left_out(folder: Path) -> None:
    make, recipe = partial(AccuracyPrediction.open, folder), Recipe(epochs=1)
    models = {"flat-mlp": registry.find("flat-mlp"), "only": only_relu}
    found = gmn.compare(make, models, seeds=1, recipe=recipe, workers=1)
    assert [row.model for row in found.rows] == ["flat-mlp"]
    assert found.refused == {"only": "tanh is no relu"}
    assert "only is left out: tanh is no relu" in str(found)
    assert Comparison.from_json(found.to_json()) == found
    with pytest.raises(gmn.errors.UnsupportedArchitecture, match="only: tanh is no relu"):
        gmn.compare(make, {"only": only_relu}, recipe=recipe, workers=1)


def lacking(spec: gmn.GraphSpec, outputs: int) -> nn.Module:
    raise ImportError("this model needs a package: pip install package")


def test_a_model_that_lacks_a_package_is_left_out(folder: Path) -> None:
    make, recipe = partial(AccuracyPrediction.open, folder), Recipe(epochs=1)
    models = {"flat-mlp": registry.find("flat-mlp"), "lacking": lacking}
    found = gmn.compare(make, models, seeds=1, recipe=recipe, workers=1, progress=False)
    assert [row.model for row in found.rows] == ["flat-mlp"]
    assert "lacking is left out: this model needs a package: pip install package" in str(found)


@compared
def test_undefined_metrics_are_dashes(comparison: Comparison, tmp_path: Path) -> None:
    """Kendall's τ of constant answers; for one seed of several, or for all."""
    best, *others = comparison.rows
    for metrics in ([0.5] * (len(best.seconds) - 1) + [math.nan], [math.nan] * len(best.seconds)):
        constant = replace(best, model="constant", metrics={**best.metrics, "tau": metrics})
        found = replace(comparison, rows=(*others, constant))
        (line,) = (line for line in str(found).splitlines() if "constant" in line)
        assert line.split()[1] == "–"
        assert "nan" not in str(found) + found._repr_html_()
        save(found, tmp_path)
        assert (tmp_path / "comparison.png").stat().st_size
        again = Comparison.from_json((tmp_path / "comparison.json").read_text())
        assert math.isnan(again.rows[-1].mean("tau"))
        report.bar_plot(found)


def test_a_zoo_its_folder_and_a_task_on_it_are_compared_alike(folder: Path) -> None:
    tasks = (str(folder), folder, gmn.zoo.open(folder), AccuracyPrediction.open(folder))
    found = [
        gmn.compare(
            task, ["flat-mlp"], seeds=1, recipe=Recipe(epochs=1), workers=1, progress=False
        ).rows[0]
        for task in tasks
    ]
    assert len({row.metrics["tau"][0] for row in found}) == 1


def test_unknown_models_are_refused(folder: Path) -> None:
    make = partial(AccuracyPrediction.open, folder)
    with pytest.raises(KeyError, match="no model is called 'oracle'; installed: dual-gmn"):
        gmn.compare(make, ["oracle"])
    with pytest.raises(ValueError, match="no models to compare"):
        gmn.compare(make, {})


def test_saved_bytes_count_activations_not_parameters() -> None:
    layer, value = nn.Linear(64, 64), torch.randn(8, 64, requires_grad=True)
    with cost.saved_bytes(layer) as saved:
        torch.relu(layer(value))
    assert sum(saved.values()) == 2 * 8 * 64 * 4
