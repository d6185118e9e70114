"""The result of a comparison: metrics, predictions and costs of every model."""

from __future__ import annotations

import json
import math
import statistics
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from gmn.comparison import report
from gmn.comparison.cost import Cost
from gmn.comparison.finished_runs import RESULTS, comparison_folder
from gmn.foundation import manifest
from gmn.foundation.manifest import ManifestError
from gmn.tasks.answers import ANSWERS


@dataclass(frozen=True)
class Row:
    """One model over all seeds.

    Attributes:
        model: name of the model.
        metrics: per metric, one value per seed.
        predictions: per seed, one number per test network: the answer (a number or a class), or
            where answers are many numbers, its error: the mean squared one, or for masks the share
            of weights that only one of both masks keeps.
        cost: cost of a training step.
        seconds: duration of the training of each seed, in seconds.
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
        """Mean over seeds; NaN if undefined for one, as Kendall's τ is for constant answers."""
        return statistics.fmean(self.metrics[metric])

    def interval(self, metric: str) -> float:
        """Half-width of the mean's 95 % confidence interval (Student's t).

        NaN for one seed, or where the mean is.
        """
        from scipy import stats  # takes half as long to import as torch

        values = self.metrics[metric]
        if len(values) < 2 or any(map(math.isnan, values)):
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
        where = Path("comparison")
        try:
            return manifest.check(manifest.parse(text, where), cls, where)
        except ManifestError as error:
            raise ValueError(f"not a comparison: {error}") from error

    @property
    def metric(self) -> str:
        """The metric that ranks the models."""
        return str(self.protocol["metric"])

    def p_value(self, row: Row, other: Row | None = None) -> float:
        """Paired test against another model, or the best: Wilcoxon's on errors per test network.

        The error of numbers is the distance of their mean over seeds from the truth; that of
        classes is the share of seeds that are wrong, so that for one seed this is McNemar's test;
        that of images and functions is the mean squared error, averaged over seeds. 1 for the same
        model, and for one that errs exactly like it.
        """
        from scipy import stats

        kind, truth = ANSWERS[self.protocol["kind"]], torch.tensor(self.target)
        own, best = (
            kind.errors(torch.tensor(r.predictions), truth) for r in (row, other or self.rows[0])
        )
        if torch.equal(own, best):
            return 1.0
        return float(stats.wilcoxon(own.numpy(), best.numpy()).pvalue)

    def __str__(self) -> str:
        return report.text_table(self)

    def _repr_html_(self) -> str:
        return report.html_table(self)


def save(comparison: Comparison, folder: Path) -> None:
    """Writes ``comparison.json``, ``comparison.txt`` and ``comparison.png`` into a folder.

    Raises:
        OutputError: if the folder holds anything but a comparison, or cannot be written to.
    """
    data, table, picture = RESULTS
    with comparison_folder(folder) as output:
        output.write(data, comparison.to_json().encode())
        output.write(table, f"{comparison}\n".encode())
        figure = report.plot(comparison)
        output.write(picture, partial(figure.savefig, dpi=150, format="png"))
