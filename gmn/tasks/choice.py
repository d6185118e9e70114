"""The task that a population is for."""

from __future__ import annotations

from pathlib import Path

from gmn import zoo
from gmn.tasks.accuracy import AccuracyPrediction
from gmn.tasks.classification import InrClassification

# By the label that a task predicts.
TASKS: dict[str, type[AccuracyPrediction] | type[InrClassification]] = {
    "test_accuracy": AccuracyPrediction,
    "label": InrClassification,
}


def task_of(folder: str | Path) -> AccuracyPrediction | InrClassification:
    """The task on the zoo in a folder, chosen by the labels in its index.

    ``partial(task_of, folder)`` pickles.

    Args:
        folder: of a finished zoo.

    Raises:
        ZooError: if there is no finished zoo.
        ValueError: if its networks have no label that a task predicts.
    """
    population = zoo.open(folder)
    for label, task in TASKS.items():
        if label in population.rows[0]:
            return task(population)
    raise ValueError(
        f"{folder}: no task is known for the labels {', '.join(population.rows[0])}; "
        f"known are tasks for {', '.join(TASKS)}"
    )
