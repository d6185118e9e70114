"""Runs a comparison: trains every model with every seed and collects the results."""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from gmn import registry
from gmn.comparison.cost import Cost
from gmn.comparison.finished_runs import FinishedRuns, comparison_folder
from gmn.comparison.jobs import (
    Diverged,
    Refused,
    RunResult,
    TaskFactory,
    TrainingJob,
    first_of,
    measure,
    refusal,
    train_and_test,
)
from gmn.comparison.result import Comparison, Row
from gmn.engines import Engine, Processes
from gmn.engines.engine import require_engine
from gmn.errors import ArgumentError, NotFiniteError, UnsupportedArchitecture
from gmn.foundation.arguments import require_callable, require_several, require_whole
from gmn.foundation.devices import require_device
from gmn.foundation.files import OutputFolder
from gmn.tasks import Task, task_of
from gmn.tasks.answers import ANSWERS
from gmn.train import Recipe
from gmn.train.identity import identity_of
from gmn.train.recipe import require_recipe
from gmn.zoo import Zoo


def compare(
    task: str | Path | Zoo | Task | TaskFactory,
    models: Sequence[str] | Mapping[str, registry.Factory],
    *,
    seeds: int = 3,
    recipe: Recipe | None = None,
    workers: int = 2,
    progress: bool = True,
    engine: Engine | None = None,
    folder: str | Path | None = None,
    device: torch.device | str = "cpu",
) -> Comparison:
    """Trains every model with every seed on one task and reports metrics with their costs.

    Minibatches are the same for all models of a seed. Models train in ``workers`` processes of one
    thread each, and every finished run is told with its metrics. When all are done, costs are
    measured, one model at a time, so that nothing else of the comparison disturbs the times. A
    model that cannot read these networks, or not answer the task, or needs a package that is
    missing, or diverges with one of the seeds, is left out, and the table says why.

    Args:
        task: a zoo or its folder, for the task that its labels are for; a task; or what makes
            one, such as ``functools.partial(gmn.tasks.task_of, folder, "inr-dilation")``. With
            several workers it has to be picklable.
        models: names of installed models (see ``gmn models``), or factories by name.
        seeds: number of seeds.
        recipe: optimisation settings; the defaults if None.
        workers: processes; 1 runs everything in this one, where factories may be local functions.
        progress: whether to show bars, and a line for every finished run.
        engine: where models train, such as ``gmn.engines.Ray()``; None for ``workers`` processes
            on this machine. Metrics are the same on processors of one kind; costs are those of
            the machine where they were measured.
        folder: keeps every finished run, so that a stopped comparison goes on there, and so does
            one of more models or seeds. Models are told apart by name alone: take another folder
            for changed ones. None to keep nothing.
        device: where modules compute, in every process of the engine; estimators use the CPU.

    Raises:
        KeyError: if there is no model of a name.
        ValueError: if there are no models, or the folder holds runs of another protocol.
        NotFiniteError: if the runs of all models diverged.
        UnsupportedArchitecture: if none of the models can read these networks, or all need packages
            that are missing.
        EngineError: if a worker process died, or there is no Ray cluster.
        OutputError: if the folder holds files of others, another process writes there, or it cannot
            be written.
    """
    require_whole("seeds", seeds, 1)
    require_whole("workers", workers, 1)
    require_recipe(recipe)
    require_engine(engine)
    if not isinstance(models, Mapping):
        require_several("models", models, "names of models, such as ['gmn', 'flat-mlp']")
    device, folder = require_device("device", device), None if folder is None else Path(folder)
    recipe = Recipe() if recipe is None else recipe
    factories = dict(
        models if isinstance(models, Mapping) else {n: registry.find(n) for n in models}
    )
    for name, factory in factories.items():
        if isinstance(factory, nn.Module):
            raise ArgumentError(f"model {name!r} is a module; give its factory")
        require_callable(f"model {name!r}", factory, "a function (spec, outputs) -> model")
    if not factories:
        raise ValueError(f"no models to compare; installed: {', '.join(registry.names())}")
    make = _maker(task)
    engine, example = engine or Processes(workers), make()
    protocol = {**_protocol(example, recipe, engine.threads), "device": torch.device(device).type}
    job = partial(TrainingJob, make, recipe=recipe, device=str(device))
    with _opened(folder, example) as output:
        finished = None
        if output is not None:
            finished = FinishedRuns(output, lambda: {**protocol, **identity_of(example)})
        jobs = [
            job(name=name, factory=factory, seed=seed)
            for seed in range(seeds)
            for name, factory in factories.items()
        ]
        tried = [refusal(one, example) for one in jobs[: len(factories)]]
        unable = [failure for failure in tried if failure is not None]
        able = [one for one in jobs if one.name not in {failure.model for failure in unable}]
        runs, failed = _run_all(engine, able, finished, progress)
        # A mean over the seeds that went well would praise what often fails.
        refused = _reasons([*unable, *failed], factories)
        stable = [one for one in able if one.seed == 0 and one.name not in refused]
        if not stable:
            why = "; ".join(f"{name}: {reason}" for name, reason in refused.items())
            diverged = any(isinstance(failure, Diverged) for failure in failed)
            raise NotFiniteError(why) if diverged else UnsupportedArchitecture(why)
        costs = _costs(engine, stable, progress)
    rows = [
        _row(price, [run for run in runs if run.model == name]) for name, price in costs.items()
    ]
    rows.sort(key=lambda row: _rank(row.mean(example.metric), example.larger_is_better))
    truth = torch.cat([part.target for part in example.split("test")])
    baselines, kind = example.baselines(), ANSWERS[example.kind]
    return Comparison(
        protocol={**protocol, "seeds": seeds},
        target=truth.tolist() if kind.single else [],
        rows=tuple(rows),
        refused=refused,
        baselines={name: example.test_metrics(own, truth) for name, own in baselines.items()},
        shown=_all_shown({**baselines, "target": truth}, kind.shown),
    )


def _opened(folder: Path | None, task: Task) -> AbstractContextManager[OutputFolder | None]:
    return nullcontext() if folder is None else comparison_folder(folder, [task.zoo.folder])


def _maker(task: str | Path | Zoo | Task | TaskFactory) -> TaskFactory:
    """A picklable factory of the task."""
    if isinstance(task, Task):
        return partial(type(task), task.zoo, **task.settings())
    if isinstance(task, Zoo):
        return partial(task_of, task)  # which may be a part of the zoo in its folder
    if isinstance(task, str | Path):
        return partial(task_of, task)
    require_callable("task", task, "a zoo or its folder, a task, or a function that makes one")
    return task


def _rank(value: float, larger_is_better: bool) -> float:
    """Sort key: best first, models without a value last."""
    if math.isnan(value):
        return math.inf
    return -value if larger_is_better else value


def _all_shown(answers: dict[str, Tensor], count: int) -> dict[str, list[Any]]:
    return {name: first_of(values, count) for name, values in answers.items()} if count else {}


def _protocol(task: Task, recipe: Recipe, threads: int) -> dict[str, Any]:
    sizes = {name: sum(map(len, task.split(name))) for name in ("train", "val", "test")}
    return {
        "task": task.name,
        "target": task.target,
        "kind": task.kind,
        "metric": task.metric,
        "larger_is_better": task.larger_is_better,
        "settings": task.settings(),
        "networks": sizes,
        "recipe": recipe.in_words(),
        "threads": threads,
        "torch": str(torch.__version__),
    }


def _row(price: Cost, runs: list[RunResult]) -> Row:
    runs.sort(key=lambda run: run.seed)
    return Row(
        runs[0].model,
        metrics={name: [run.metrics[name] for run in runs] for name in runs[0].metrics},
        predictions=[run.answers for run in runs],
        cost=price,
        seconds=[run.seconds for run in runs],
        learning_rate=runs[0].learning_rate,
        shown=runs[0].shown,
    )


def _reasons(failures: Sequence[Refused | Diverged], names: Iterable[str]) -> dict[str, str]:
    """Why models are left out, in the order of their names; of several seeds, the first says."""
    reasons: dict[str, str] = {}
    for failure in sorted(failures, key=lambda failure: getattr(failure, "seed", 0)):
        reasons.setdefault(failure.model, str(failure))
    return {name: reasons[name] for name in names if name in reasons}


def _costs(engine: Engine, jobs: Sequence[TrainingJob], progress: bool) -> dict[str, Cost]:
    """Costs by model, measured one after the other."""
    bar = tqdm(jobs, desc="measuring", unit="model", disable=not progress)
    return dict(result for job in bar for result in engine.run_all(measure, [job], fresh=True))


def _run_all(
    engine: Engine, jobs: Sequence[TrainingJob], finished: FinishedRuns | None, progress: bool
) -> tuple[list[RunResult], list[Refused | Diverged]]:
    """All runs, those stored already and the others, which are trained now; and those that failed.

    Every run that is trained now is told at once.
    """
    kept = [run for job in jobs if finished and (run := finished.find(job.name, job.seed))]
    done = {(run.model, run.seed) for run in kept}
    rest = [job for job in jobs if (job.name, job.seed) not in done]
    made: list[RunResult] = []
    failed: list[Refused | Diverged] = []
    with engine.queue() as messages, _progress(messages, len(jobs), len(kept), progress) as bar:
        for fresh in engine.run_all(partial(train_and_test, messages=messages), rest, fresh=True):
            if not isinstance(fresh, RunResult):
                failed.append(fresh)
                continue
            if finished:
                finished.add(fresh)
            made.append(fresh)
            if progress:
                bar.write(str(fresh), file=sys.stderr)
    return kept + made, failed


@contextmanager
def _progress(messages: Any, jobs: int, done: int, shown: bool) -> Iterator[Any]:
    """A bar over all jobs, fed by their reports from a thread."""
    form = "{desc}: {percentage:3.0f}%|{bar}| {n:.1f}/{total} runs [{elapsed}<{remaining}{postfix}]"
    bar = tqdm(total=jobs, initial=done, desc="training", bar_format=form, disable=not shown)

    def listen() -> None:
        while (message := messages.get()) is not None:
            name, step, words = message
            bar.set_postfix_str(f"{name}: {words}", refresh=False)
            bar.update(min(step, jobs - bar.n))  # fractions add up to a little more than all

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        yield bar
    finally:
        messages.put(None)
        listener.join(timeout=5)
        bar.close()
