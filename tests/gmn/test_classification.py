"""Classes of images from the weights of their networks: the task, its test and its picture."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import gmn
from gmn import zoo
from gmn.comparison import Comparison, Row, report, save
from gmn.comparison.cost import Cost
from gmn.graph import ParameterGraph
from gmn.tasks import AccuracyPrediction, InrClassification, task_of
from gmn.train import Recipe, train
from gmn.zoo.building import catalogue
from gmn.zoo.images import pixel_grid
from tests.gmn.population import small_zoo

pytestmark = pytest.mark.usefixtures("quick_costs")

MODELS = ["gmn", "nfn-hnp", "nfn-np", "flat-mlp", "layer-statistics"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("inrs")
    with pytest.MonkeyPatch.context() as patch:
        quick = replace(catalogue.BUILDERS["inr-digits"], steps=40)
        patch.setitem(catalogue.BUILDERS, "inr-digits", quick)
        zoo.build("inr-digits", 300, 0, path, workers=1, progress=False)
    return path


@pytest.fixture(scope="module")
def task(folder: Path) -> InrClassification:
    return InrClassification.open(folder)


class Looks(nn.Module):
    """Runs each network on its pixels and classifies what it sees with one linear layer."""

    learning_rate = 0.03

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(64, 10)

    def forward(self, graph: ParameterGraph) -> Tensor:
        return self.head(seen(graph))


def seen(graph: ParameterGraph) -> Tensor:
    """The images (B, 64) that the networks hold."""
    values, x = graph.values, pixel_grid(8, 8).to(graph.dtype).expand(len(graph), -1, -1)
    for number in (1, 2, 3):
        weight, bias = values[f"layer{number}.weight"], values[f"layer{number}.bias"]
        x = torch.baddbmm(bias.unsqueeze(1), x, weight.mT)
        x = torch.sin(30 * x) if number < 3 else x
    return x.squeeze(2)


def test_the_task_follows_from_the_population(folder: Path, tmp_path: Path) -> None:
    assert isinstance(task_of(folder), InrClassification)
    small_zoo(tmp_path)
    assert isinstance(task_of(tmp_path), AccuracyPrediction)


def test_a_population_without_known_labels_is_refused(tmp_path: Path, monkeypatch) -> None:
    small_zoo(tmp_path)
    monkeypatch.setattr("gmn.tasks.choice.TASKS", {"label": InrClassification})
    with pytest.raises(ValueError, match="no task is known for the labels id, architecture"):
        task_of(tmp_path)


def test_targets_are_the_labels_of_the_images(task: InrClassification) -> None:
    assert task.outputs == 10
    sizes = {name: sum(map(len, task.split(name))) for name in ("train", "val", "test")}
    assert sum(sizes.values()) == 300
    (part,) = task.split("test")
    labels = [row["label"] for row in task.zoo.rows if row["split"] == "test"]
    assert part.target.tolist() == labels
    assert part.target.dtype == torch.int64


def test_metrics(task: InrClassification) -> None:
    truth = torch.tensor([0, 1, 2, 1])
    scores = torch.tensor([[0.7, 0.2, 0.1], [0.5, 0.4, 0.1], [0.1, 0.1, 0.8], [0.0, 1.0, 0.0]])
    metrics = task.metrics(scores, truth)
    assert metrics["accuracy"] == 0.75
    expected = -(math.log(0.7) + math.log(0.4) + math.log(0.8)) / 4
    assert metrics["nll"] == pytest.approx(expected, abs=1e-6)
    assert math.isfinite(task.metrics(1 - torch.eye(3), torch.arange(3))["nll"])


def test_prediction_and_loss_agree_on_the_scores(task: InrClassification) -> None:
    scores = torch.randn(5, 10, generator=torch.Generator().manual_seed(0))
    truth = torch.tensor([3, 1, 4, 1, 5])
    prediction = task.prediction(scores)
    torch.testing.assert_close(prediction.sum(1), torch.ones(5))
    assert task.metrics(prediction, truth)["nll"] == pytest.approx(float(task.loss(scores, truth)))


def test_a_model_that_looks_at_the_image_learns(task: InrClassification) -> None:
    torch.manual_seed(0)
    result = train(Looks(), task, Recipe(epochs=20))
    assert result.metrics["accuracy"] > 0.7
    assert result.prediction.shape == (60, 10)


@pytest.fixture(scope="module")
def comparison(folder: Path) -> Comparison:
    make, recipe = partial(task_of, folder), Recipe(epochs=1)
    return gmn.compare(make, MODELS, seeds=2, recipe=recipe, workers=1, progress=False)


@pytest.mark.slow
def test_every_installed_model_takes_classes(comparison: Comparison) -> None:
    assert {row.model for row in comparison.rows} == set(MODELS)
    accuracies = [row.mean("accuracy") for row in comparison.rows]
    assert accuracies == sorted(accuracies, reverse=True)
    truth = torch.tensor(comparison.target)
    for row in comparison.rows:
        right = (torch.tensor(row.predictions) == truth).double().mean(1)
        assert row.metrics["accuracy"] == pytest.approx(right.tolist())
        assert 0 <= comparison.p_value(row) <= 1


@pytest.mark.slow
def test_everything_is_redrawn_from_json(comparison: Comparison, tmp_path: Path) -> None:
    save(comparison, tmp_path)
    again = Comparison.from_json((tmp_path / "comparison.json").read_text())
    assert again == comparison
    for word in ("INR classification", "accuracy", "−log p", "no augmentation"):
        assert word in " ".join(str(again).split())
    figure = report.plot(again)
    assert figure.get_supylabel() == "true class of the image"
    assert sum(bool(axis.get_images()) for axis in figure.axes) == len(MODELS)


def row(model: str, predictions: list[list[float]]) -> Row:
    return Row(model, {"accuracy": [0.5]}, predictions, Cost(0, 0, 0, 0, 0), [1.0], 0.0)


def test_one_seed_is_tested_as_mcnemar_did() -> None:
    generator = torch.Generator().manual_seed(1)
    truth = torch.zeros(400)
    better, worse = ((torch.rand(400, generator=generator) < p).double() for p in (0.1, 0.2))
    rows = (row("better", [better.tolist()]), row("worse", [worse.tolist()]))
    comparison = Comparison({"kind": "class", "metric": "accuracy"}, truth.tolist(), rows)
    only_worse = float(((worse == 1) & (better == 0)).sum())
    only_better = float(((worse == 0) & (better == 1)).sum())
    z = (only_worse - only_better) / math.sqrt(only_worse + only_better)
    assert comparison.p_value(rows[1]) == pytest.approx(math.erfc(z / math.sqrt(2)), rel=1e-3)
    assert comparison.p_value(rows[1]) < 0.01


def test_seeds_share_the_blame_for_wrong_classes() -> None:
    # Averaging class numbers would call 0 and 2 together the class 1.
    truth = [1.0] * 20
    rows = (row("right", [truth, truth]), row("wrong", [[0.0] * 20, [2.0] * 20]))
    comparison = Comparison({"kind": "class", "metric": "accuracy"}, truth, rows)
    assert comparison.p_value(rows[1]) < 1e-3


def test_equal_errors_are_no_difference() -> None:
    rows = (row("one", [[1.0, 0.0, 1.0]]), row("same", [[1.0, 0.0, 1.0]]))
    comparison = Comparison({"kind": "class", "metric": "accuracy"}, [1.0, 1.0, 1.0], rows)
    assert comparison.p_value(rows[1]) == 1


class Recorded:
    """An augmentation that changes nothing and remembers what it was given."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def __call__(self, graph: ParameterGraph, generator: torch.Generator) -> ParameterGraph:
        torch.rand(3, generator=generator)
        self.sizes.append(len(graph))
        return graph

    def __repr__(self) -> str:
        return "nothing"


def test_augmentation_meets_training_batches_only(task: InrClassification) -> None:
    recorded = Recorded()
    results = []
    for augment in (None, recorded):
        torch.manual_seed(0)
        results.append(train(Looks(), task, Recipe(epochs=2, augment=augment)))
    count = sum(map(len, task.split("train")))
    assert sum(recorded.sizes) == 2 * count
    # It drew random numbers, and yet the minibatches are the same.
    assert torch.equal(results[0].prediction, results[1].prediction)


def test_the_protocol_names_the_augmentation(folder: Path) -> None:
    recipe = Recipe(epochs=1, augment=Recorded())
    result = gmn.compare(
        partial(task_of, folder),
        {"looks": lambda spec, outputs: Looks()},
        seeds=1,
        recipe=recipe,
        workers=1,
        progress=False,
    )
    assert result.protocol["recipe"]["augment"] == "nothing"
    assert "augmented by nothing" in " ".join(str(result).split())


def test_classes_are_drawn_by_name() -> None:
    protocol = {"kind": "class", "metric": "accuracy", "target": "optimiser"}
    known = {"settings": {"classes": ["adam", "sgd"]}}
    for settings, names in ((known, ["adam", "sgd"]), ({"settings": {"classes": 2}}, ["0", "1"])):
        comparison = Comparison({**protocol, **settings}, [0.0, 1.0], (row("one", [[0.0, 1.0]]),))
        figure = report.plot(comparison)
        figure.draw_without_rendering()
        ticks = figure.axes[0].get_xticklabels()
        assert [
            tick.get_text() for tick in ticks if tick.get_text() in ("0", "1", "adam", "sgd")
        ] == names


def test_the_diagonal_spans_the_numbers_that_are_asked_for() -> None:
    protocol = {"kind": "number", "metric": "r2", "target": "log of the rate"}
    answers = replace(row("one", [[-3.0, -4.0]]), metrics={"r2": [0.5]})
    figure = report.plot(Comparison(protocol, [-5.0, -2.0], (answers,)))
    assert list(figure.axes[0].lines[0].get_xdata()) == [-5.0, -2.0]
