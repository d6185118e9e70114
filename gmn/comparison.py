"""The head-to-head: every model, every seed, one protocol, one table."""

from __future__ import annotations

import json
import math
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from scipy import stats
from tqdm.auto import tqdm

from gmn import cost, registry, report
from gmn.cost import Cost
from gmn.engines import Engine, Processes
from gmn.errors import UnsupportedArchitecture
from gmn.tasks import Task
from gmn.tasks.answers import ANSWERS
from gmn.train import Recipe, Result, train

TaskFactory = Callable[[], Task]
SHOWN = 6  # test networks whose answers a comparison keeps where they are many numbers
DIGITS = 4


@dataclass(frozen=True)
class Row:
    """One model over all seeds.

    Attributes:
        model: its name.
        metrics: per metric, one value per seed.
        predictions: per seed, one number per test network: the answer (a number or a class), or its
            mean squared error where answers are images or functions.
        cost: of a training step.
        seconds: training time per seed.
        learning_rate: peak of the schedule; 0 for estimators.
        shown: answers of the first seed to the first test networks, as nested lists, where answers
            are images or functions.
    """

    model: str
    metrics: dict[str, list[float]]
    predictions: list[list[float]]
    cost: Cost
    seconds: list[float]
    learning_rate: float
    shown: list[Any] = field(default_factory=list)

    def mean(self, metric: str) -> float:
        """Mean over seeds."""
        return statistics.fmean(self.metrics[metric])

    def interval(self, metric: str) -> float:
        """Half-width of the mean's 95 % confidence interval (Student's t); NaN for one seed."""
        values = self.metrics[metric]
        if len(values) < 2:
            return float("nan")
        spread = statistics.stdev(values) / len(values) ** 0.5
        return float(stats.t.ppf(0.975, len(values) - 1)) * spread


@dataclass(frozen=True)
class Comparison:
    """Results of all models, with the protocol that produced them.

    Attributes:
        protocol: everything that was equal for all models.
        target: the truth, one per test network; empty where it is an image or a function.
        rows: the models, best first.
        refused: by model that cannot read these networks or answer the task, why not.
        baselines: by name of what needs no model, its metrics.
        shown: for the networks of :attr:`Row.shown`, what those baselines and the truth (under
            ``target``) are.
    """

    protocol: dict[str, Any]
    target: list[float]
    rows: tuple[Row, ...]
    refused: dict[str, str] = field(default_factory=dict)
    baselines: dict[str, dict[str, float]] = field(default_factory=dict)
    shown: dict[str, list[Any]] = field(default_factory=dict)

    def to_json(self) -> str:
        """JSON text that :meth:`from_json` reads and everything can be redrawn from."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Comparison:
        """Reads :meth:`to_json`'s text.

        Raises:
            ValueError: if the text is not a comparison.
        """
        try:
            data = json.loads(text)
            rows = tuple(Row(**{**row, "cost": Cost(**row["cost"])}) for row in data["rows"])
            extra = {n: data[n] for n in ("refused", "baselines", "shown") if n in data}
            return cls(data["protocol"], data["target"], rows, **extra)
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a comparison: {error}") from error

    @property
    def metric(self) -> str:
        """The metric that ranks the models."""
        return str(self.protocol["metric"])

    def p_value(self, row: Row) -> float:
        """Paired test against the best model: Wilcoxon's on errors per test network.

        The error of numbers is the distance of their mean over seeds from the truth; that of
        classes is the share of seeds that are wrong, so that for one seed this is McNemar's test;
        that of images and functions is the mean squared error, averaged over seeds. 1 for the best
        model itself, and for one that errs exactly like it.
        """
        kind, truth = ANSWERS[self.protocol["kind"]], torch.tensor(self.target)
        own, best = (kind.errors(torch.tensor(r.predictions), truth) for r in (row, self.rows[0]))
        if torch.equal(own, best):
            return 1.0
        return float(stats.wilcoxon(own.numpy(), best.numpy()).pvalue)

    def __str__(self) -> str:
        return report.text_table(self)

    def _repr_html_(self) -> str:
        return report.html_table(self)


def compare(
    task: TaskFactory,
    models: Sequence[str] | Mapping[str, registry.Factory],
    *,
    seeds: int = 3,
    recipe: Recipe | None = None,
    workers: int = 2,
    progress: bool = True,
    engine: Engine | None = None,
) -> Comparison:
    """Trains every model with every seed on one task and reports metrics with their costs.

    Minibatches are the same for all models of a seed. Costs are measured first, one model at a
    time; then models train in ``workers`` processes of one thread each. A model that cannot read
    these networks, or not answer the task, is left out, and the table says why.

    Args:
        task: makes the task, such as ``functools.partial(gmn.tasks.task_of, folder)``;
            with several workers it has to be picklable.
        models: names of installed models (see ``gmn models``), or factories by name.
        seeds: number of seeds.
        recipe: optimisation settings; the defaults if None.
        workers: processes; 1 runs everything in this one, where factories may be local functions.
        progress: whether to show a bar.
        engine: where models train, such as ``gmn.engines.Ray()``; None for ``workers`` processes
            on this machine. Metrics are the same on processors of one kind; costs are those of
            the machine where they were measured.

    Raises:
        KeyError: if there is no model of a name.
        ValueError: if there are no models.
        UnsupportedArchitecture: if none of the models can read these networks.
        EngineError: if a worker process died, or there is no Ray cluster.
    """
    recipe = Recipe() if recipe is None else recipe
    found = models if isinstance(models, Mapping) else {n: registry.find(n) for n in models}
    factories = dict(found)
    if not factories:
        raise ValueError(f"no models to compare; installed: {', '.join(registry.names())}")
    engine = engine or Processes(workers)
    first = [_Job(task, name, factory, 0, recipe) for name, factory in factories.items()]
    costs, refused = _costs(engine, first, progress)
    if not costs:
        raise UnsupportedArchitecture("; ".join(f"{n}: {why}" for n, why in refused.items()))
    jobs = [_Job(task, n, factories[n], s, recipe) for s in range(seeds) for n in costs]
    outcomes = _train_all(engine, jobs, progress)
    example = task()
    rows = [
        _row(name, costs[name], [o for o in outcomes if o.name == name], example.kind)
        for name in costs
    ]
    rows.sort(key=lambda row: _rank(row.mean(example.metric), example.larger_is_better))
    truth, single = outcomes[0].result.target, ANSWERS[example.kind].single
    baselines = example.baselines()
    return Comparison(
        protocol=_protocol(example, recipe, seeds, engine.threads),
        target=truth.tolist() if single else [],
        rows=tuple(rows),
        refused=refused,
        baselines={name: example.metrics(found, truth) for name, found in baselines.items()},
        shown={} if single else {n: _shown(v) for n, v in {**baselines, "target": truth}.items()},
    )


def _rank(value: float, larger_is_better: bool) -> float:
    """What sorts the best first, and models without a value last."""
    if math.isnan(value):
        return math.inf
    return -value if larger_is_better else value


def _shown(values: torch.Tensor) -> list[Any]:
    """The first few of many answers, at a precision to look at."""
    nested: list[Any] = values[:SHOWN].double().round(decimals=DIGITS).tolist()
    return nested


def _protocol(task: Task, recipe: Recipe, seeds: int, threads: int) -> dict[str, Any]:
    sizes = {name: sum(map(len, task.split(name))) for name in ("train", "val", "test")}
    return {
        "task": task.name,
        "target": task.target,
        "kind": task.kind,
        "metric": task.metric,
        "larger_is_better": task.larger_is_better,
        "settings": task.settings(),
        "networks": sizes,
        "seeds": seeds,
        "recipe": recipe.in_words(),
        "threads": threads,
        "torch": str(torch.__version__),
    }


# --- jobs ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Job:
    task: TaskFactory
    name: str
    factory: registry.Factory
    seed: int
    recipe: Recipe


@dataclass(frozen=True)
class _Outcome:
    name: str
    seed: int
    result: Result
    seconds: float


def _model(job: _Job, task: Task) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(job.seed)
        return task.build(job.factory, task.split("train")[0].graph.spec)


def _measure(job: _Job) -> Cost | str:
    """The cost of a step, or why the model cannot do the task."""
    task = job.task()
    try:
        model = _model(job, task)
        if isinstance(model, torch.nn.Module):
            with torch.no_grad():
                for part in task.split("train"):
                    model(part.graph[:1])
        return cost.measure(model, task, job.recipe.batch_size)
    except UnsupportedArchitecture as error:
        return str(error)


def _train(job: _Job, messages: Any = None) -> _Outcome:
    task, start, done = job.task(), time.perf_counter(), 0.0

    def tell(fraction: float, metric: float) -> None:
        nonlocal done
        if messages is not None:
            messages.put((f"{job.name}/{job.seed}", fraction - done, metric))
        done = fraction

    with torch.random.fork_rng():
        torch.manual_seed(job.seed)
        result = train(_model(job, task), task, job.recipe, job.seed, tell)
    return _Outcome(job.name, job.seed, result, time.perf_counter() - start)


def _row(name: str, price: Cost, outcomes: list[_Outcome], kind: str) -> Row:
    found, results = ANSWERS[kind], [o.result for o in sorted(outcomes, key=lambda o: o.seed)]
    return Row(
        name,
        metrics={m: [result.metrics[m] for result in results] for m in results[0].metrics},
        predictions=[found.answers(r.prediction, r.target).tolist() for r in results],
        cost=price,
        seconds=[o.seconds for o in sorted(outcomes, key=lambda o: o.seed)],
        learning_rate=results[0].learning_rate,
        shown=[] if found.single else _shown(results[0].prediction),
    )


# --- running jobs -------------------------------------------------------------------------------


def _costs(
    engine: Engine, jobs: Sequence[_Job], progress: bool
) -> tuple[dict[str, Cost], dict[str, str]]:
    """Costs by model, and by model that cannot do the task, why not."""
    costs: dict[str, Cost] = {}
    refused: dict[str, str] = {}
    for job in tqdm(jobs, desc="measuring", unit="model", disable=not progress):
        (found,) = engine.run_all(_measure, [job], fresh=True)
        if isinstance(found, str):
            refused[job.name] = found
        else:
            costs[job.name] = found
    return costs, refused


def _train_all(engine: Engine, jobs: Sequence[_Job], progress: bool) -> list[_Outcome]:
    with engine.queue() as messages, _progress(messages, len(jobs), progress):
        return list(engine.run_all(partial(_train, messages=messages), jobs, fresh=True))


@contextmanager
def _progress(messages: Any, jobs: int, shown: bool) -> Iterator[None]:
    """A bar over all jobs, fed by their reports from a thread."""
    form = "{desc}: {percentage:3.0f}%|{bar}| {n:.1f}/{total} runs [{elapsed}<{remaining}{postfix}]"
    bar = tqdm(total=jobs, desc="training", bar_format=form, disable=not shown)

    def listen() -> None:
        while (message := messages.get()) is not None:
            name, step, metric = message
            bar.set_postfix_str(f"{name}: {metric:.3f}", refresh=False)
            bar.update(min(step, jobs - bar.n))  # fractions add up to a little more than all

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        yield
    finally:
        messages.put(None)
        listener.join(timeout=5)
        bar.close()


def save(comparison: Comparison, folder: Path) -> None:
    """Writes ``comparison.json``, ``comparison.txt`` and ``comparison.png`` into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "comparison.json").write_text(comparison.to_json())
    (folder / "comparison.txt").write_text(f"{comparison}\n")
    report.plot(comparison).savefig(folder / "comparison.png", dpi=150)
