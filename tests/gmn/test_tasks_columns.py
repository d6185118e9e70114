"""Tasks over any column of a population: numbers, classes, what they are about."""

from __future__ import annotations

import csv
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import gmn
from gmn import zoo
from gmn.errors import ArgumentError
from gmn.tasks import AccuracyPrediction, Classification, LabelError, Regression, Task, task_of
from gmn.tasks.choice import describe, rebuilt
from gmn.tasks.labels import MissingLabelsWarning
from gmn.train import Recipe, csv_text, load, predict_files, text_table, train
from tests.gmn.commands import run
from tests.gmn.population import small_zoo
from tests.gmn.test_tasks import Reads

pytestmark = pytest.mark.usefixtures("quick_costs")

SPLITS = ("train", "val", "test")


@pytest.fixture(scope="module")
def population(tmp_path_factory: pytest.TempPathFactory) -> zoo.Zoo:
    """The small zoo with more columns: text, truth values, gaps, numbers of many sizes."""
    small = small_zoo(tmp_path_factory.mktemp("small"))
    folder = tmp_path_factory.mktemp("columns")
    with zoo.ZooWriter(folder, "columns", len(small), 0, {}) as writer:
        for shard, name in enumerate(small.architectures):
            chosen = small.indices(architecture=name)
            rows = [with_columns(small.rows[index]) for index in chosen.tolist()]
            writer.write_shard(shard, name, small.spec(name), small.stacked(chosen), rows)
        writer.finish(len(small.architectures), {})
    return zoo.open(folder)


def with_columns(row: dict[str, Any]) -> dict[str, Any]:
    kept = {name: row[name] for name in ("id", "split", "test_accuracy", "steps")}
    number, accuracy = row["steps"], row["test_accuracy"]
    return {
        **kept,
        "optimiser": "sgd" if accuracy < 0.4 else "rmsprop" if accuracy < 0.6 else "adam",
        "good": accuracy > 0.5,
        "layers": 2 * (number % 3),
        "age": None if number % 4 == 0 else float(number),
        "learning_rate": 10 ** (-1 - 2 * accuracy),
        "constant": 3.0,
    }


def targets(task: Task, split: str = "train") -> Tensor:
    return torch.cat([part.target for part in task.split(split)])


def column(population: zoo.Zoo, name: str, split: str = "train") -> list[Any]:
    """Values of a column in the order of the task's targets."""
    return [
        population.rows[index][name]
        for architecture in population.architectures
        for index in population.indices(split, architecture).tolist()
    ]


# --- numbers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("transform", "of"), [("none", lambda x: x), ("log", torch.log), ("logit", torch.logit)]
)
def test_targets_and_predictions_are_of_transformed_numbers(population, transform, of):
    task = Regression(population, "learning_rate", transform)
    truth = of(torch.tensor(column(population, "learning_rate")))
    torch.testing.assert_close(targets(task), truth)
    assert task.mean == pytest.approx(float(truth.mean()), rel=1e-5)
    assert task.deviation == pytest.approx(float(truth.std(correction=0)), rel=1e-5)
    outputs = torch.randn(len(truth), 1)
    expected = task.mean + task.deviation * outputs[:, 0]
    torch.testing.assert_close(task.prediction(outputs), expected)
    # The loss is the squared error in units of the deviation: 1 for the mean.
    squares = (expected - truth).square().mean() / task.deviation**2
    torch.testing.assert_close(task.loss(outputs, truth), squares)
    assert float(task.loss(torch.zeros(len(truth), 1), truth)) == pytest.approx(1, rel=1e-4)
    assert task.target == ("" if transform == "none" else f"{transform} of ") + "learning_rate"


def test_metrics_of_numbers():
    task = Regression(None, "steps")
    truth, prediction = torch.tensor([1.0, 2.0, 3.0, 4.0]), torch.tensor([1.0, 3.0, 2.0, 4.0])
    assert task.metrics(prediction, truth) == pytest.approx({"r2": 0.6, "mae": 0.5, "tau": 2 / 3})


def test_a_regression_learns(population):
    torch.manual_seed(0)
    task = Regression(population, "learning_rate", "log")
    result = train(Reads(), task, Recipe(epochs=60, weight_decay=0))
    assert result.metrics["r2"] > 0.9  # it would start tens of deviations away without the mean
    assert result.target.tolist() == targets(task, "test").tolist()


def test_a_constant_column_has_a_unit(population):
    task = Regression(population, "constant")
    assert (task.mean, task.deviation) == (3, 1)
    assert float(task.loss(torch.zeros(48, 1), targets(task))) == 0


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, ArgumentError, "label is missing; name a column of the index, such as -O label="),
        ({"label": 3}, ArgumentError, "label is missing"),
        ({"label": "size"}, LabelError, "no network has the label 'size'; the columns are"),
        ({"label": "optimiser"}, LabelError, "optimiser of network 0-0 is 'adam|rmsprop|sgd', not"),
        (
            {"label": "layers", "transform": "log"},
            LabelError,
            "layers of .* a number without a log",
        ),
        ({"label": "steps", "transform": "logit"}, LabelError, "is 10, a number without a logit"),
        ({"label": "steps", "transform": "exp"}, ArgumentError, "one of none, log, logit"),
        ({"label": "steps", "about": "luck"}, ArgumentError, "one of function, training"),
        ({"label": "steps", "deviation": 0}, ArgumentError, "deviation is 0; it has to be"),
    ],
)
def test_what_cannot_be_regressed_is_named(population, options, error, message):
    message = message.replace("adam|rmsprop|sgd", population.rows[0]["optimiser"])
    with pytest.raises(error, match=message):
        task_of(population, "regression", options)


# --- classes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("label", "names"),
    [
        ("optimiser", ["adam", "rmsprop", "sgd"]),
        ("architecture", ["cnn-relu", "cnn-tanh"]),
        ("good", [False, True]),
        ("layers", [0, 2, 4]),
        ("constant", None),
    ],
)
def test_classes_are_the_values_of_a_column(population, label, names):
    if names is None:
        with pytest.raises(LabelError, match="constant has 1 different values in 80 networks"):
            Classification(population, label)
        return
    task = Classification(population, label)
    assert (task.classes, task.outputs) == (names, len(names))
    assert [task.class_name(number) for number in range(len(names))] == [str(n) for n in names]
    for split in SPLITS:
        found = targets(task, split)
        assert found.dtype == torch.int64
        assert [names[number] for number in found] == column(population, label, split)


def test_classes_may_be_given_in_an_order(population):
    order = ["sgd", "adam", "lion", "rmsprop"]
    task = task_of(population, "classification", {"label": "optimiser", "classes": order})
    assert task.outputs == 4
    assert [order[number] for number in targets(task)] == column(population, "optimiser")
    with pytest.raises(LabelError, match=r"is '(adam|rmsprop)', none of the classes sgd"):
        Classification(population, "optimiser", ["sgd"])
    with pytest.raises(ArgumentError, match="give a list of names of classes"):
        Classification(population, "optimiser", "sgd")


@pytest.mark.parametrize("label", ["test_accuracy", "learning_rate"])
def test_numbers_are_no_classes(population, label):
    with pytest.raises(LabelError, match=f"{label} of network 0-0 is .*, no class: classes are te"):
        Classification(population, label)


def test_metrics_of_classes():
    task = Classification(None, "optimiser", ["adam", "sgd"])
    truth = torch.tensor([0, 0, 0, 1])
    always = torch.tensor([[0.8, 0.2]]).expand(4, -1)
    metrics = task.metrics(always, truth)
    assert metrics["accuracy"] == 0.75
    assert metrics["balanced"] == 0.5  # always the common class is no better than chance
    assert list(metrics) == ["accuracy", "nll", "balanced"]


# --- gaps, descriptions, what they are about ----------------------------------------------------


@pytest.mark.parametrize("kind", [Regression, Classification])
def test_networks_without_a_value_are_left_out_by_name(population, kind):
    with pytest.warns(MissingLabelsWarning, match=r"20 of 80 networks have no age .* 0-10, 0-14,"):
        task = kind(population, "age")
    assert len(task.zoo) == 60
    for split in SPLITS:
        known = [age for age in column(population, "age", split) if age is not None]
        named = getattr(task, "classes", None)
        assert [named[int(t)] if named else float(t) for t in targets(task, split)] == known
        batch = task.split(split)[0]
        index = int(batch.numbers[1])  # of the networks that are left
        state = population.select(ids=[task.zoo.rows[index]["id"]]).state(0)
        assert torch.equal(batch.graph.values["conv1.weight"][1], state["conv1.weight"])


@pytest.mark.parametrize(
    "task",
    [
        Regression(None, "learning_rate", "log", None, -5.0, 0.5),
        Regression(None, "width", "none", "training", 1.0, 2.0),
        Classification(None, "optimiser", ["sgd", "adam"]),
        Classification(None, "good", [False, True], "function"),
    ],
    ids=lambda task: task.target,
)
def test_they_are_made_again_from_their_description(task):
    again = rebuilt(describe(task))
    assert type(again) is type(task)
    assert (again.settings(), again.about) == (task.settings(), task.about)
    assert (again.outputs, again.target) == (task.outputs, task.target)
    assert describe(task)["about"] == task.about


def test_what_a_question_is_about():
    assert AccuracyPrediction().about == "function"
    for label, about in [("learning_rate", "training"), ("half", "training"), ("x", "function")]:
        assert Regression(None, label).about == about
        assert Regression(None, label, about="function").about == "function"
        assert Classification(None, label, ["a", "b"]).about == about


def test_a_saved_model_answers_with_names_and_in_units(population, monkeypatch, tmp_path):
    save_file(population.state(7), tmp_path / "one.safetensors")
    checkpoint, zoo_folder = tmp_path / "one.safetensors", str(population.folder)
    for name, option in (("classification", "label=optimiser"), ("regression", "label=steps")):
        arguments = ("-t", name, "-O", option, "-m", "flat-mlp", "--epochs", "2")
        assert run(monkeypatch, "train", zoo_folder, *arguments, "-o", str(tmp_path / name)) == 0
    made = load(tmp_path / "classification")
    assert made.task.settings()["classes"] == ["adam", "rmsprop", "sgd"]
    answers = predict_files(made, [checkpoint], architecture="cnn-relu")
    probabilities = made.predict(population.graph([7]))[0]
    best = made.task.class_name(int(probabilities.argmax()))
    assert f"{best} (probability {float(probabilities.max()):.4f})" in text_table(made, answers)
    (row,) = csv.DictReader(csv_text(made, answers).splitlines())
    assert row["prediction"] == best
    assert float(row[f"probability_{best}"]) == pytest.approx(float(probabilities.max()))
    made = load(tmp_path / "regression")
    assert 10 < float(made.predict(population.graph([7]))) < 50  # of columns from 10 to 49


def test_tables_say_what_was_asked(population):
    found = gmn.compare(
        Classification(population, "optimiser"),
        ["layer-statistics"],
        seeds=1,
        recipe=Recipe(epochs=1),
        workers=1,
        progress=False,
    )
    asked = "classification (label optimiser, classes ['adam', 'rmsprop', 'sgd'], about training)"
    assert asked in " ".join(str(found).split())
    assert set(found.rows[0].metrics) == {"accuracy", "nll", "balanced"}
