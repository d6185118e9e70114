"""One model for CNNs and transformers: what it learns from both populations at once.

A model is trained on the accuracies of 1,200 CNNs and 300 transformers together, and tested on
those of each kind; then on each kind alone, with the same recipe.

Populations: gmn zoo build cnn-mnist --size 1200 --out runs/cnn-mnist
             gmn zoo build transformer-mnist --size 300 --out runs/transformer-mnist
             gmn zoo merge runs/cnn-mnist runs/transformer-mnist --prefix cnn/ \
                 --prefix transformer/ --out runs/mixed

Run: python -m benchmarks.mixed [--models dual-gmn,...] [--seeds 3] [--epochs 25]
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import torch
from tqdm.auto import tqdm

from benchmarks.learning import with_interval
from gmn import registry
from gmn.tasks import AccuracyPrediction, Batch
from gmn.train import Recipe, predict, train

POPULATIONS = ("mixed", "cnn-mnist", "transformer-mnist")


@dataclass(frozen=True)
class Trial:
    """One model, to be trained with one seed on one population."""

    model: str
    population: str
    seed: int
    epochs: int
    runs: Path


def tested(trial: Trial) -> dict[str, float]:
    """Kendall's τ on the test networks of each kind that the population has."""
    torch.set_num_threads(1)
    torch.manual_seed(trial.seed)
    task = AccuracyPrediction.open(trial.runs / trial.population)
    model = task.build(registry.find(trial.model), task.split("train")[0].graph.spec)
    assert isinstance(model, torch.nn.Module)
    train(model, task, Recipe(epochs=trial.epochs), trial.seed)
    kinds: dict[str, list[Batch]] = {}
    for part in task.split("test"):
        assert part.numbers is not None
        kinds.setdefault(task.zoo.architecture(part.numbers).split("-")[0], []).append(part)
    return {
        kind: task.metrics(*predict(model, task, parts))["tau"] for kind, parts in kinds.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", default="dual-gmn,dual-gmn-weights,probe-net")
    parser.add_argument("--populations", default=",".join(POPULATIONS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where the populations lie")
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    options = parser.parse_args()
    models, populations = options.models.split(","), options.populations.split(",")
    trials = [
        Trial(model, population, seed, options.epochs, options.runs)
        for model, population, seed in product(models, populations, range(options.seeds))
    ]
    with ProcessPoolExecutor(options.workers, get_context("spawn")) as processes:
        found = list(tqdm(processes.map(tested, trials), total=len(trials), unit="run"))
    print("| model | trained on | τ of CNNs | τ of transformers |\n|---|---|---|---|")
    for start in range(0, len(trials), options.seeds):
        first, runs = trials[start], found[start : start + options.seeds]
        cells = [
            with_interval(torch.tensor([run[kind] for run in runs])) if kind in runs[0] else "–"
            for kind in ("cnn", "transformer")
        ]
        print(f"| {first.model} | {first.population} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
