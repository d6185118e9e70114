"""What the workers of the tests of Ray do; in a file of its own, which they import in a moment."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gmn import zoo
from gmn.graph import ParameterGraph
from gmn.spec import GraphSpec
from gmn.zoo.building.builders import Shard
from gmn.zoo.building.classifiers import ClassifierBuilder
from gmn.zoo.importing import SmallCnnZoo
from gmn.zoo.importing.layout import Entry
from gmn.zoo.store.files import Row
from gmn.zoo.training.states import State


def killed_the_first_time(marker: str) -> None:
    """Ends this process as the system does that runs out of memory; not if it did so before."""
    try:
        Path(marker).touch(exist_ok=False)
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


def square(job: int) -> Tensor:
    return torch.tensor(float(job)) ** 2


def failing(job: int) -> int:
    if job == 3:
        raise zoo.ZooError("job 3 is bad")
    return job


def deadly(job: int) -> int:
    if job == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return job


def pid(job: int) -> int:
    return os.getpid()


@dataclass(frozen=True)
class Fatal(ClassifierBuilder):
    """Networks of few steps; the first to train the second shard is killed."""

    marker: str = ""
    shard_size = 5

    def configuration(self) -> dict[str, Any]:
        return {"ranges": "short"}

    def train(self, shard: Shard, seed: int) -> tuple[State, list[Row]]:
        if self.marker and shard.number == 1:
            killed_the_first_time(self.marker)
        return super().train(shard, seed)


class Brittle(SmallCnnZoo):
    """The first process that reads its tenth row is killed."""

    def __init__(self, source: Path, marker: Path) -> None:
        super().__init__(source)
        self.marker = str(marker)

    def read(self, entry: Entry) -> State:
        if entry.place[1] == 29:
            killed_the_first_time(self.marker)
        return super().read(entry)


class Elsewhere(SmallCnnZoo):
    """Seen by the first machine only: when another process comes, the files are gone."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        (self.source / "weights.npy").unlink(missing_ok=True)


class Fragile(nn.Module):
    """Spreads of weights; the first such model to train is killed in its second epoch."""

    def __init__(self, marker: str, outputs: int) -> None:
        super().__init__()
        self.marker, self.passes = marker, 0
        self.head = nn.Linear(1, outputs)

    def forward(self, graph: ParameterGraph) -> Tensor:
        self.passes += self.training
        if self.passes > 8:  # after the cost was measured
            killed_the_first_time(self.marker)
        values = torch.cat([value.flatten(1) for value in graph.values.values()], dim=1)
        output: Tensor = self.head(values.std(dim=1, keepdim=True))
        return output


def fragile(marker: str, spec: GraphSpec, outputs: int) -> nn.Module:
    return Fragile(marker, outputs)
