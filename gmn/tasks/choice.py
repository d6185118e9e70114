"""Finds tasks by name, through the entry-point group ``gmn.tasks`` of installed packages.

An entry point names a class derived from :class:`gmn.tasks.Task`, whose constructor takes a zoo
and, by name, options with defaults. Tasks that come with this package are known without it.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gmn import registry, zoo
from gmn.foundation.arguments import require_callable, require_type
from gmn.foundation.consent import Consent, offers
from gmn.tasks.accuracy import AccuracyPrediction
from gmn.tasks.autoencoding import Autoencoding
from gmn.tasks.classification import Classification, InrClassification
from gmn.tasks.editing import InrContrast, InrDilation, InrErosion
from gmn.tasks.regression import Regression
from gmn.tasks.task import Task
from gmn.tasks.tickets import WinningTickets

GROUP = "gmn.tasks"
BUILT_IN: dict[str, type[Task]] = {
    "accuracy": AccuracyPrediction,
    "classification": Classification,
    "regression": Regression,
    "inr-classification": InrClassification,
    "inr-dilation": InrDilation,
    "inr-erosion": InrErosion,
    "inr-contrast": InrContrast,
    "winning-tickets": WinningTickets,
    "autoencoding": Autoencoding,
}
# What a population is for if nothing is said, by the label that the task predicts.
TASKS: dict[str, type[Task]] = {
    "test_accuracy": AccuracyPrediction,
    "label": InrClassification,
    "ticket_accuracy": WinningTickets,
}


def names() -> list[str]:
    """Names of all installed tasks."""
    return sorted({*BUILT_IN, *offers(GROUP)})


def find(name: str, consent: Consent | None = None) -> type[Task]:
    """The class of a task.

    Args:
        name: of an installed task, or ``module:Class`` for one of your own.
        consent: for a name that a file gave: what it may import. None for one that the user gave.

    Raises:
        KeyError: if no package offers one of this name; the message lists what there is.
        ValueError: if the module cannot be imported, or what is named there is no task.
        ConsentError: if a file gave the name, and it needs a module that is not trusted.
    """
    require_type("name", name, str, "the name of a task, or module:Class")
    if name in BUILT_IN:
        return BUILT_IN[name]
    task = registry.named(GROUP, name, consent)
    if task is None:
        raise KeyError(
            f"no task is called {name!r}; installed: {', '.join(names())}. "
            "One of your own is module:Class"
        )
    if not (isinstance(task, type) and issubclass(task, Task)):
        raise ValueError(f"{name} is no task: it has to be a class derived from gmn.tasks.Task")
    return task


def task_of(
    folder: str | Path | zoo.Zoo, name: str | None = None, options: Mapping[str, Any] | None = None
) -> Task:
    """A task on the zoo in a folder.

    ``partial(task_of, folder, name)`` pickles.

    Args:
        folder: folder of a finished zoo, or the zoo itself.
        name: of the task, or ``module:Class``; None for the one that the labels are for.
        options: of the task, by name.

    Raises:
        ZooError: if there is no finished zoo.
        KeyError: if there is no task of this name.
        LabelError: if labels or weights cannot be used; the message names the networks.
        ValueError: if the networks have no label that a task predicts, or the task has no such
            option.
    """
    require_type("options", options or {}, Mapping, "a dictionary of values by name")
    population = folder if isinstance(folder, zoo.Zoo) else zoo.open(folder)
    given = dict(options or {})
    kind = _for_labels(population) if name is None else find(name)
    _require_options(kind, given)
    return kind(population, **given)


def _for_labels(population: zoo.Zoo) -> type[Task]:
    for label, task in TASKS.items():
        if label in population.columns:
            return task
    raise ValueError(
        f"{population.folder}: no task is known for the labels {', '.join(population.columns)}; "
        f"known are tasks for {', '.join(TASKS)}. Name one of {', '.join(names())}"
    )


def options_of(kind: type[Task]) -> dict[str, Any]:
    """Options of a task with their defaults."""
    require_callable("kind", kind, "a class of tasks, as gmn.tasks.find(name) gives it")
    parameters = list(inspect.signature(kind).parameters.values())[1:]
    return {parameter.name: parameter.default for parameter in parameters}


def _require_options(kind: type[Task], given: Mapping[str, Any]) -> None:
    known = options_of(kind)
    if unknown := [name for name in given if name not in known]:
        has = f"it has {', '.join(known)}" if known else "it has none"
        raise ValueError(f"{kind.name} has no option {', '.join(unknown)}; {has}")


def describe(task: Task) -> dict[str, Any]:
    """All that :func:`rebuilt` needs, as JSON values."""
    kind = type(task)
    return {
        "task": _name_of(kind),
        "settings": task.settings(),
        "name": task.name,
        "target": task.target,
        "kind": task.kind,
        "metric": task.metric,
        "about": task.about,
    }


def _name_of(kind: type[Task]) -> str:
    """The name under which it is installed, or ``module:Class``."""
    for name, registered in BUILT_IN.items():
        if registered is kind:
            return name
    package = kind.__module__.partition(".")[0]
    for name, point in offers(GROUP).items():
        if point.module.partition(".")[0] == package and point.load() is kind:
            return name
    return f"{kind.__module__}:{kind.__qualname__}"


def rebuilt(described: Mapping[str, Any], consent: Consent | None = None) -> Task:
    """A task without its data, which is enough to say what outputs stand for.

    Args:
        described: by :func:`describe`. A task that came from elsewhere is imported again.
        consent: for a description from a file: what it may import.

    Raises:
        KeyError: if no package offers it.
        ValueError: if its module cannot be imported, or it takes other settings now.
        ConsentError: if a file gave it, and it needs a module that is not trusted.
    """
    kind = find(described["task"], consent)
    _require_options(kind, described["settings"])
    return kind(None, **described["settings"])
