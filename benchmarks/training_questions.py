"""What models learn about how networks were trained, which their outputs need not tell.

Populations: gmn zoo build cnn-mnist --size 1200 --out runs/cnn-mnist
             gmn zoo build mlp-mnist --size 1200 --out runs/mlp-mnist
             gmn zoo build transformer-mnist --size 300 --out runs/transformer-mnist
             gmn zoo build cnn-training-mnist --size 1200 --out runs/cnn-training-mnist
             gmn zoo build cnn-backdoor-mnist --size 1200 --out runs/cnn-backdoor-mnist

Run: python -m benchmarks.training_questions [cnn-mnist/learning_rate ...] [--models dual-gmn,...]

Questions that were asked before, with the same models, seeds and epochs, are kept; the table is
that of ``training_questions.json``.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import gmn
from gmn import tasks
from gmn.comparison import Comparison
from gmn.train import Recipe

RESULTS = Path(__file__).with_suffix(".json")
MODELS = "dual-gmn,rich-statistics,layer-statistics,probe-net"
REFERENCES = ("rich-statistics", "layer-statistics", "probe-net")


@dataclass(frozen=True)
class Question:
    """A column of a population, and how it is asked for."""

    population: str
    label: str
    transform: str | None = "log"  # None for a class

    @property
    def name(self) -> str:
        return f"{self.population}/{self.label}"

    def task(self, runs: Path) -> tasks.Task:
        options = {"label": self.label, "about": "training"}
        if self.transform is None:
            return tasks.task_of(runs / self.population, "classification", options)
        options["transform"] = self.transform
        return tasks.task_of(runs / self.population, "regression", options)


QUESTIONS = (
    Question("cnn-mnist", "learning_rate"),
    Question("cnn-mnist", "weight_decay"),
    Question("cnn-mnist", "steps"),
    Question("cnn-mnist", "init_scale", "none"),
    Question("mlp-mnist", "learning_rate"),
    Question("mlp-mnist", "weight_decay"),
    Question("mlp-mnist", "steps"),
    Question("mlp-mnist", "init_scale", "none"),
    Question("transformer-mnist", "learning_rate"),
    Question("transformer-mnist", "init_std"),
    Question("transformer-mnist", "optimiser", None),
    Question("cnn-training-mnist", "optimiser", None),
    Question("cnn-training-mnist", "augmentation", None),
    Question("cnn-training-mnist", "half", None),
    Question("cnn-training-mnist", "weight_decay"),
    Question("cnn-backdoor-mnist", "backdoor", None),
    Question("cnn-backdoor-mnist", "backdoor_age"),
)


def asked(question: Question, options: argparse.Namespace) -> dict[str, Any]:
    """Trains all models on one question: their metric, and p-values against the references."""
    found = gmn.compare(
        partial(question.task, options.runs),
        options.models.split(","),
        seeds=options.seeds,
        recipe=Recipe(epochs=options.epochs),
        workers=options.workers,
        folder=options.runs / "training-questions" / question.name.replace("/", "-"),
    )
    print(found, flush=True)
    return {"metric": found.metric, "models": rows_of(found)}


def rows_of(found: Comparison) -> dict[str, Any]:
    """By model: mean and half of the 95 % interval, seconds, and p-values of the paired test."""
    rows = {row.model: row for row in found.rows}
    return {
        name: {
            "mean": row.mean(found.metric),
            "interval": row.interval(found.metric),
            "seconds": sum(row.seconds) / len(row.seconds),
            "p": {
                other: found.p_value(row, rows[other])
                for other in REFERENCES
                if other in rows and other != name
            },
        }
        for name, row in rows.items()
    }


def table(results: dict[str, Any]) -> list[str]:
    """A line for each question, a column for each model; p of the first against each reference."""
    questions = results["questions"]
    models = results["models"].split(",")
    tested = [name for name in REFERENCES if name in models]
    head = [*models, *(f"p against {name}" for name in tested)]
    lines = ["| question | metric | " + " | ".join(head) + " |", "|---|---|" + "---|" * len(head)]
    for name, found in questions.items():
        rows = found["models"]
        cells = [
            f"{rows[model]['mean']:.3f} ± {rows[model]['interval']:.3f}" if model in rows else "–"
            for model in models
        ]
        ps = [f"{rows[models[0]]['p'].get(other, float('nan')):.0e}" for other in tested]
        lines.append(f"| {name} | {found['metric']} | " + " | ".join([*cells, *ps]) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("questions", nargs="*", help="population/column; all if none is named")
    parser.add_argument("--models", default=MODELS, help="names, separated by commas")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where the populations lie")
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    options = parser.parse_args()
    protocol = {"models": options.models, "seeds": options.seeds, "epochs": options.epochs}
    results: dict[str, Any] = {**protocol, "questions": {}}
    if RESULTS.exists():
        before = json.loads(RESULTS.read_text())
        if {name: before[name] for name in protocol} == protocol:
            results = before
    unknown = set(options.questions) - {question.name for question in QUESTIONS}
    if unknown:
        parser.error(f"no such question: {', '.join(sorted(unknown))}")
    for question in QUESTIONS:
        wanted = not options.questions or question.name in options.questions
        if wanted and question.name not in results["questions"]:
            results["questions"][question.name] = asked(question, options)
            RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    print("\n".join(table(results)))


if __name__ == "__main__":
    main()
