"""Training runs that give the same alone and on the processes of ``torchrun``.

``torchrun -m tests.gmn.distributed_runs ZOO OUT`` does them all and writes what came out, a file
per process.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import gmn
from gmn.augment import SampledSymmetry
from gmn.graph import ParameterGraph
from gmn.tasks import AccuracyPrediction
from gmn.train import Recipe, ranks, train

SHORT = Recipe(epochs=3, batch_size=10, learning_rate=1e-2)


class Double(AccuracyPrediction):
    """Test accuracies of networks in double precision."""

    def split(self, name: str) -> list[gmn.tasks.Batch]:
        return [
            replace(p, graph=p.graph.to(dtype=torch.float64), target=p.target.double())
            for p in super().split(name)
        ]


class Heads(nn.Module):
    """An output layer for each architecture: a step leaves one of them without gradient."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Dropout(dropout))
        self.heads = nn.ModuleDict({name: nn.Linear(16, 1) for name in ("relu", "tanh")})
        self.never = nn.Linear(3, 3)

    def forward(self, graph: ParameterGraph) -> Tensor:
        values = torch.cat([v.flatten(1) for v in graph.values.values()], dim=1)
        body = self.body(torch.stack([values.std(dim=1), values.mean(dim=1)], dim=1))
        output: Tensor = self.heads[graph.spec.node_sets[1].operations[0].name](body)
        return output


class Normed(Heads):
    """With statistics over the minibatch."""

    def __init__(self) -> None:
        super().__init__()
        self.body.append(nn.BatchNorm1d(16))


class Stop(Exception):
    """Ends a run early, on all processes."""


def seeded(make: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(1)
    return make()


def double(place: Path, out: Path | None) -> dict[str, Any]:
    """Two architectures, minibatches of 10 and of what is left."""
    model = seeded(lambda: gmn.nn.DualGMN(hidden=8, depth=2)).double()
    return finished(model, Double.open(place), SHORT, out)


def tiny(place: Path, out: Path | None) -> dict[str, Any]:
    """The last minibatch has one network of each architecture."""
    return finished(seeded(Heads).double(), Double.open(place), replace(SHORT, batch_size=23), out)


def single(place: Path, out: Path | None) -> dict[str, Any]:
    """In single precision, with all that draws numbers alike on every process."""
    recipe = replace(SHORT, augment=SampledSymmetry(0.1), ema=0.9, patience=2)
    model = seeded(lambda: gmn.nn.GMN(hidden=12, depth=1))
    return finished(model, AccuracyPrediction.open(place), recipe, out)


RUNS = {"double": double, "tiny": tiny, "single": single}


def finished(
    model: nn.Module, task: AccuracyPrediction, recipe: Recipe, out: Path | None
) -> dict[str, Any]:
    scores: list[float] = []
    result = train(model, task, recipe, 3, lambda _, score: scores.append(score), out)
    return {
        "prediction": result.prediction,
        "scores": scores,
        "epoch": result.epoch,
        "weights": model.state_dict(),
    }


def dropped(place: Path, out: Path, stop: int | None) -> dict[str, Any]:
    """With dropout, which no split can keep as it was; stopped after an epoch or not."""

    def tell(done: float, _: float) -> None:
        if stop is not None and done >= stop / SHORT.epochs:
            raise Stop

    model = seeded(lambda: Heads(0.5))
    try:
        train(model, AccuracyPrediction.open(place), SHORT, 3, tell, out)
    except Stop:
        return {}
    return model.state_dict()


def error_of(model: nn.Module, place: Path) -> str:
    try:
        train(model, AccuracyPrediction.open(place), SHORT)
    except (ValueError, FloatingPointError) as error:
        return str(error)
    return "none"


class Partly(Heads):
    """Has no finite answer to the one training network with the largest spread of weights."""

    def __init__(self, task: AccuracyPrediction) -> None:
        super().__init__()
        self.largest = max(float(self.spread(p.graph).max()) for p in task.split("train"))

    def spread(self, graph: ParameterGraph) -> Tensor:
        return graph.values["conv3.weight"].flatten(1).std(dim=1, keepdim=True)

    def forward(self, graph: ParameterGraph) -> Tensor:
        return super().forward(graph) / (self.spread(graph) < self.largest).float()


def main(place: Path, out: Path) -> None:
    """What is found out on this process."""
    together = ranks()
    found: dict[str, Any] = {name: run(place, out / name) for name, run in RUNS.items()}
    found["dropped"] = dropped(place, out / "dropped", None)
    dropped(place, out / "stopped", 1)
    torch.manual_seed(9)  # what the folder says counts
    found["resumed"] = dropped(place, out / "stopped", None)
    found["chance"] = torch.rand(3)
    found["normed"] = error_of(Normed(), place)
    found["diverged"] = error_of(Partly(AccuracyPrediction.open(place)), place)
    torch.save(found, out / f"{together.rank}-of-{together.size}.pt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
