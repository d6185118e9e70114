"""Tasks by name and of one's own; labels and weights that cannot be used are named."""

from __future__ import annotations

import importlib
import json
import math
import re
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import converters
import gmn
from gmn import tasks, zoo
from gmn.errors import ConsentError
from gmn.foundation.consent import Consent
from gmn.tasks import AccuracyPrediction, InrDilation, LabelError, Task, batches, task_of
from gmn.tasks.choice import describe, rebuilt
from gmn.train import Recipe, TrainedFileError, load, train
from gmn.train.identity import identity_of
from gmn.train.run import Run
from gmn.zoo.store.reader import ShardReader
from tests.gmn.commands import run
from tests.gmn.population import small_zoo


@pytest.fixture(scope="module")
def population(tmp_path_factory: pytest.TempPathFactory) -> zoo.Zoo:
    return small_zoo(tmp_path_factory.mktemp("zoo"))


class Spread(Task):
    """A task of one's own: how widely the last convolution's weights are spread."""

    name = "spread"
    target = "standard deviation"

    def targets(self, graph: gmn.ParameterGraph, numbers: Tensor) -> Tensor:
        return spread(graph)


def spread(graph: gmn.ParameterGraph) -> Tensor:
    return 20 * graph.values["conv3.weight"].flatten(1).std(dim=1)


class Reads(nn.Module):
    """One linear layer on the spread of all weights."""

    learning_rate = 0.05

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, graph: gmn.ParameterGraph) -> Tensor:
        result: Tensor = self.layer(spread(graph).unsqueeze(1))
        return result


# --- by name ------------------------------------------------------------------------------------


def test_tasks_have_names(population: zoo.Zoo) -> None:
    assert {"accuracy", "inr-classification", "inr-dilation"} <= set(tasks.names())
    assert type(task_of(population.folder, "accuracy")) is AccuracyPrediction
    own = task_of(population.folder, "tests.gmn.test_tasks:Spread")
    assert (own.name, own.outputs, own.kind) == ("spread", 1, "number")
    with pytest.raises(KeyError, match=r"no task is called 'sums'; installed: accuracy, .*inr-"):
        task_of(population.folder, "sums")
    with pytest.raises(ValueError, match=r"no_such_module:Spread: No module named"):
        task_of(population.folder, "no_such_module:Spread")
    with pytest.raises(ValueError, match="test_tasks:Reads is no task"):
        task_of(population.folder, "tests.gmn.test_tasks:Reads")


def test_options_are_checked(population: zoo.Zoo) -> None:
    with pytest.raises(ValueError, match="accuracy prediction has no option copies; it has none"):
        task_of(population.folder, "accuracy", {"copies": 2})
    with pytest.raises(ValueError, match=r"INR dilation has no option size; it has copies, height"):
        task_of(population.folder, "inr-dilation", {"size": 2})


@pytest.mark.parametrize(
    "task",
    [
        AccuracyPrediction(),
        tasks.InrClassification(classes=7),
        InrDilation(copies=3, height=5, width=4, corners=True),
    ],
    ids=lambda task: task.name,
)
def test_tasks_are_made_again_from_their_description(task: Task) -> None:
    again = rebuilt(describe(task))
    assert type(again) is type(task)
    assert again.settings() == task.settings()
    assert again.outputs == task.outputs
    with pytest.raises(ValueError, match=rf"{task.name}: no split 'test'; known: none"):
        again.split("test")
    with pytest.raises(ValueError, match="has no population"):
        _ = again.zoo


def test_installed_tasks_are_found(monkeypatch: pytest.MonkeyPatch, population: zoo.Zoo) -> None:
    point = EntryPoint("spread", "tests.gmn.test_tasks:Spread", tasks.choice.GROUP)
    for user in (tasks.choice, gmn.registry):
        monkeypatch.setattr(user, "offers", lambda group: {"spread": point})
    assert "spread" in tasks.names()
    assert type(task_of(population.folder, "spread")) is Spread
    assert describe(Spread())["task"] == "spread"
    # A name that older versions wrote of it, given back by a file.
    consent = Consent(Path("card"), ["tests"])
    assert type(rebuilt({"task": point.value, "settings": {}}, consent)) is Spread


# --- one's own ----------------------------------------------------------------------------------


def test_a_task_of_ones_own_trains(population: zoo.Zoo) -> None:
    torch.manual_seed(0)
    task = Spread(population)
    result = train(Reads(), task, Recipe(epochs=60, weight_decay=0))
    assert result.metrics["r2"] > 0.95
    truth = torch.cat([spread(part.graph) for part in task.split("test")])
    assert torch.equal(result.target, truth)
    assert result.metrics["mae"] == pytest.approx(float((result.prediction - truth).abs().mean()))


class Scripted(Spread):
    """Validation metrics from a list."""

    values: list[float]

    def metrics(self, prediction: Tensor, target: Tensor) -> dict[str, float]:
        return {"r2": self.values.pop(0)}


@pytest.mark.parametrize(
    ("values", "larger", "best"),
    [
        ([0.3, 0.5, 0.4], True, 1),
        ([0.3, 0.5, 0.1], False, 2),
        ([math.nan, math.nan, math.nan], True, 0),
        ([math.nan, 3.0, math.nan], False, 1),
    ],
)
def test_the_best_epoch_is_that_of_the_task(
    population: zoo.Zoo, values: list[float], larger: bool, best: int
) -> None:
    task = Scripted(population)
    task.values, task.larger_is_better = [*values, 0.0], larger
    seen: list[dict[str, Tensor]] = []

    class Kept(Run):
        def end_epoch(self, score: float, row: dict[str, float]) -> None:
            seen.append({n: v.clone() for n, v in self.model.state_dict().items()})
            super().end_epoch(score, row)

    model = Reads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gmn.train.loop.Run", Kept)
        result = train(model, task, Recipe(epochs=3))
    assert result.epoch == best
    assert all(torch.equal(value, seen[best][name]) for name, value in model.state_dict().items())


# --- wrong labels, wrong weights ----------------------------------------------------------------


def _id(population: zoo.Zoo, number: int) -> str:
    return str(population.rows[number]["id"])


def changed(population: zoo.Zoo, number: int, **labels: Any) -> zoo.Zoo:
    """The same population with other labels for one network; None takes a label away."""
    other = zoo.open(population.folder)
    rows = [dict(row) for row in population.rows]
    rows[number] = {n: v for n, v in {**rows[number], **labels}.items() if v is not None}
    vars(other)["rows"] = rows

    def read(name: str) -> Tensor:
        return torch.tensor([float(row[name]) for row in rows])

    other.labels = read  # type: ignore[method-assign]
    return other


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (math.nan, "test_accuracy of network ID is nan, not a finite number"),
        (math.inf, "test_accuracy of network ID is inf, not a finite number"),
        (1.5, r"test_accuracy of network ID is 1.5, not in \[0, 1\]"),
        (-0.1, r"test_accuracy of network ID is -0.1, not in \[0, 1\]"),
        ("good", "test_accuracy of network ID is 'good', not a finite number"),
        (None, "test_accuracy of network ID is missing, not a finite number"),
    ],
)
def test_wrong_accuracies_are_named(population: zoo.Zoo, value: Any, message: str) -> None:
    with pytest.raises(LabelError, match=message.replace("ID", _id(population, 3))):
        AccuracyPrediction(changed(population, 3, test_accuracy=value))


@pytest.mark.parametrize("value", [1.5, -1.0])
def test_wrong_classes_are_named(population: zoo.Zoo, value: float) -> None:
    rows = [{**row, "label": 2.0} for row in population.rows]
    vars(population)["rows"], before = rows, population.rows
    try:
        with pytest.raises(
            LabelError, match=f"label of network {_id(population, 5)} is {value}, no class"
        ):
            tasks.InrClassification(changed(population, 5, label=value))
    finally:
        vars(population)["rows"] = before


def test_missing_columns_are_named(population: zoo.Zoo) -> None:
    with pytest.raises(LabelError, match=r"no network has the label 'label'; the columns are arch"):
        tasks.InrClassification(population)


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_diverged_networks_are_named(
    population: zoo.Zoo, monkeypatch: pytest.MonkeyPatch, split: str
) -> None:
    """When they are read, of every split in the first epoch; a zoo does not take them in."""
    graph, number = zoo.Zoo.graph, int(population.indices(split)[1])

    def broken(self: zoo.Zoo, indices: Tensor) -> gmn.ParameterGraph:
        found = graph(self, indices)
        bias = found.values["conv2.bias"].clone()
        bias[[int(n) == number for n in indices]] = math.inf
        return found.replace({"conv2.bias": bias})

    monkeypatch.setattr(zoo.Zoo, "graph", broken)
    name, epochs = _id(population, number), []
    task = AccuracyPrediction(population)
    with pytest.raises(
        LabelError, match=rf"conv2\.bias has NaN or infinite values in network {name}\. Take"
    ):
        train(Reads(), task, Recipe(epochs=3), report=lambda *told: epochs.append(told))
    assert len(epochs) == (split == "test")


# --- networks are read when they are needed -----------------------------------------------------


class Halves(AccuracyPrediction):
    """Labels and networks: a sum of both."""

    def targets(self, graph: gmn.ParameterGraph, indices: Tensor) -> Tensor:
        return super().targets(graph, indices) / 2 + spread(graph) / 100


def opened_shards(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The shards that are opened from now on."""
    found: list[int] = []
    read = ShardReader.open

    def opened(self: ShardReader, shard: int) -> Any:
        found.append(shard)
        return read(self, shard)

    monkeypatch.setattr(ShardReader, "open", opened)
    return found


def many_shards(folder: Path) -> zoo.Zoo:
    """20 shards of 8 networks, all in the training split but for the last two shards."""
    spec = converters.trace(nn.Linear(2, 3), (torch.zeros(1, 2),))
    with zoo.ZooWriter(folder, "lines", 160, 0, {}) as writer:
        for shard in range(20):
            torch.manual_seed(shard)
            states = {"weight": torch.randn(8, 3, 2), "bias": torch.randn(8, 3)}
            rows = [
                {
                    "id": f"{shard:02d}-{number}",
                    "split": {18: "val", 19: "test"}.get(shard, "train"),
                    "test_accuracy": float(torch.rand(())),
                }
                for number in range(8)
            ]
            writer.write_shard(shard, "line", spec, states, rows)
        writer.finish(20, {})
    return zoo.open(folder)


def test_a_task_of_labels_reads_no_network(
    population: zoo.Zoo, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = opened_shards(monkeypatch)
    task = AccuracyPrediction(zoo.open(population.folder))
    targets = [part.target for split in ("train", "val", "test") for part in task.split(split)]
    identity_of(task)
    assert found == []
    labels = torch.cat([population.labels("test_accuracy")[p.numbers] for p in _parts(task)])
    assert torch.equal(torch.cat(targets), labels)
    for part in _parts(task):
        read = population.graph(part.numbers).values
        assert all(torch.equal(part.graph.values[name], read[name]) for name in read)
    assert set(found) == {0, 1}


def _parts(task: Task) -> list[Any]:
    return [part for split in ("train", "val", "test") for part in task.split(split)]


def test_the_first_step_waits_for_its_networks_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    population = many_shards(tmp_path)
    opened, at_step = opened_shards(monkeypatch), []

    class Looks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 1)

        def forward(self, graph: gmn.ParameterGraph) -> Tensor:
            result: Tensor = self.layer(graph.values["bias"])
            return result

    task = AccuracyPrediction(population)
    train(
        Looks(),
        task,
        Recipe(epochs=2, batch_size=3),
        running=lambda done, loss: at_step.append((len(opened), done, loss)),
    )
    assert at_step[0][0] <= 1 + 3  # that of the first network, on which the model was tried
    assert [done for _, done, _ in at_step] == [pytest.approx((n + 1) / 96) for n in range(96)]
    assert len(set(opened)) == len(opened) == 20  # every one once
    assert all(math.isfinite(loss) for _, _, loss in at_step)


def test_targets_that_need_networks_are_computed_when_they_are_needed(
    population: zoo.Zoo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In blocks that do not depend on who asks, each once; the same as all at once."""
    sizes: list[int] = []

    class Counted(Halves):
        def targets(self, graph: gmn.ParameterGraph, indices: Tensor) -> Tensor:
            sizes.append(len(indices))
            return super().targets(graph, indices)

    monkeypatch.setattr(batches, "BLOCK", 10)
    task, plain = Counted(population), population.labels("test_accuracy")
    assert sizes == [1] * 6  # each architecture of each split was tried
    sizes.clear()
    part = task.split("train")[0]
    whole = plain[part.numbers] / 2 + spread(population.graph(part.numbers)) / 100
    assert torch.equal(part[torch.tensor([13, 11, 19])].target, whole[[13, 11, 19]])
    assert sizes == [10]
    assert torch.equal(part[8:12].target, whole[8:12])
    assert sizes == [10, 10]
    assert torch.equal(part.target, whole)
    assert sizes == [10, 10, 4]
    assert torch.equal(part[torch.arange(24) == 23].target, whole[23:])
    assert sizes == [10, 10, 4]
    assert identity_of(task) == identity_of(Counted(population))


LARGE = 3.3


class Explodes(Reads):
    """Answers NaN to networks whose spread is large."""

    def forward(self, graph: gmn.ParameterGraph) -> Tensor:
        output = super().forward(graph)
        return output / (spread(graph).unsqueeze(1) < LARGE).to(output) if self.training else output


def test_a_loss_that_is_not_finite_names_epoch_and_networks(population: zoo.Zoo) -> None:
    task = Spread(population)
    largest = {
        str(population.rows[int(number)]["id"])
        for part in task.split("train")
        for number, value in zip(part.numbers, part.target, strict=True)
        if value >= LARGE
    }
    assert 0 < len(largest) < 48
    with pytest.raises(
        FloatingPointError, match=r"Explodes: the loss is .* in epoch 0; what it"
    ) as error:
        train(Explodes(), task, Recipe(epochs=1, batch_size=48))
    assert any(name in str(error.value) for name in largest)
    with pytest.raises(FloatingPointError, match="in epoch 0; lower the learning rate"):
        train(Reads(), task, Recipe(epochs=1, batch_size=16, learning_rate=1e30))


def test_networks_are_moved_to_the_models_device(population: zoo.Zoo) -> None:
    moved = []

    class Far(Reads):
        def forward(self, graph: gmn.ParameterGraph) -> Tensor:
            moved.append(graph.device.type)
            return super().forward(graph)

    batch = Spread(population).split("train")[0]
    assert batch.to(torch.device("cpu")) is batch
    far = batch.to(torch.device("meta"))
    assert (far.graph.device.type, far.target.device.type) == ("meta", "meta")
    assert far.numbers is batch.numbers
    with pytest.raises((RuntimeError, NotImplementedError)):  # meta tensors have no values
        train(Far().to("meta"), Spread(population), Recipe(epochs=1))
    assert set(moved) == {"meta"}


# --- the page about tasks -----------------------------------------------------------------------

PAGE = Path(__file__).parents[2] / "docs" / "tasks.md"


def test_the_documented_tasks_run(
    population: zoo.Zoo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len(blocks) == 2
    own = blocks[0].strip().splitlines()
    assert len(own) <= 30
    (tmp_path / "mine.py").write_text("\n".join(own) + "\n")
    monkeypatch.chdir(tmp_path)
    command = re.search(r"^gmn train (.*)$", PAGE.read_text().split("## A task")[1], re.MULTILINE)
    assert command is not None
    words = command[1].replace("runs/cnn-mnist", str(population.folder)).split()
    try:
        assert run(monkeypatch, "train", *words, "--epochs", "1") == 0
        trained = load(tmp_path / "runs" / "length", trust=["mine"])
        assert trained.task.name == "length of training"
        card = json.loads((tmp_path / "runs" / "length" / "model.json").read_text())
        assert card["task"]["task"] == "mine:LengthOfTraining"
    finally:
        sys.modules.pop("mine", None)
    monkeypatch.chdir(tmp_path.parent)
    importlib.invalidate_caches()
    with pytest.raises(ConsentError, match="asks for mine:LengthOfTraining"):
        load(tmp_path / "runs" / "length")
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    with pytest.raises(TrainedFileError, match="made again: mine:LengthOfTraining: No module"):
        load(tmp_path / "runs" / "length", trust=["mine"])
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block, names)
    brighter = names["InrBrightening"](height=2, width=2)
    assert brighter.edit(torch.tensor([0.25, 2.0])).tolist() == [0.5, 1.0]


def test_the_page_names_every_task() -> None:
    text = PAGE.read_text()
    assert [name for name in tasks.names() if f"`{name}`" not in text] == []
