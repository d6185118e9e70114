"""Jobs on a Ray cluster of two workers: the same results, and nothing lost if one is killed."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import gmn
from gmn import cli, zoo
from gmn.engines import EngineError, Processes, Ray
from gmn.graph import ParameterGraph
from gmn.spec import GraphSpec
from gmn.tasks import AccuracyPrediction
from gmn.train import Recipe
from gmn.zoo import catalogue
from gmn.zoo.builders import Shard, State
from gmn.zoo.catalogue import CNN_RANGES
from gmn.zoo.classifiers import ClassifierBuilder
from gmn.zoo.store import Row
from tests.gmn.population import small_zoo

pytestmark = pytest.mark.xdist_group("ray")  # one cluster at a time


@pytest.fixture(scope="module")
def cluster() -> Iterator[Ray]:
    """A cluster of two workers that reaches out to nothing and leaves nothing behind."""
    ray = pytest.importorskip("ray")
    # Not pytest's folder: the names of sockets in it would be longer than the system allows.
    place = TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True)
    with place as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_MODE", "disabled")  # else it writes a token to the home directory
        ray.init(
            "local",
            num_cpus=2,
            include_dashboard=False,
            object_store_memory=100 * 2**20,
            _temp_dir=folder,
            log_to_driver=False,
        )
        yield Ray()
        ray.shutdown()


def killed_the_first_time(marker: str) -> None:
    """Ends this process as the system does that runs out of memory; not if it did so before."""
    try:
        Path(marker).touch(exist_ok=False)
    except FileExistsError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


# --- the engine ---------------------------------------------------------------------------------


def square(job: int) -> Tensor:
    return torch.tensor(float(job)) ** 2


def test_all_jobs_are_done_and_results_are_stored_here(cluster: Ray) -> None:
    stored: list[Tensor] = []
    done = list(cluster.run_all(square, range(50), stored.append))
    assert done == [None] * 50
    assert sorted(float(value) for value in stored) == [float(n * n) for n in range(50)]


def failing(job: int) -> int:
    if job == 3:
        raise zoo.ZooError("job 3 is bad")
    return job


def test_an_error_is_the_jobs_own(cluster: Ray) -> None:
    for engine in (cluster, Processes(1)):
        with pytest.raises(zoo.ZooError, match=r"^job 3 is bad$"):
            list(engine.run_all(failing, range(5)))


def deadly(job: int) -> int:
    if job == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return job


def test_a_job_that_kills_its_worker_again_and_again_is_an_error(
    cluster: Ray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gmn.engines.ray.ATTEMPTS", 1)
    with pytest.raises(EngineError, match=r"lost on Ray 1 times.*call again to go on"):
        list(cluster.run_all(deadly, range(3)))


@pytest.mark.slow
@pytest.mark.parametrize("fresh", [False, True])
def test_processes_say_the_same(fresh: bool) -> None:
    engine = Processes(2)
    with pytest.raises(EngineError, match=r"a worker process died.*call again to go on"):
        list(engine.run_all(deadly, range(3), fresh=fresh))
    with pytest.raises(zoo.ZooError, match=r"^job 3 is bad$"):
        list(engine.run_all(failing, range(5), fresh=fresh))
    assert sorted(map(float, engine.run_all(square, range(3), fresh=fresh))) == [0, 1, 4]


def pid(job: int) -> int:
    return os.getpid()


@pytest.mark.slow
def test_fresh_jobs_have_a_process_each(cluster: Ray) -> None:
    for engine in (cluster, Processes(2)):
        assert len(set(engine.run_all(pid, range(3), fresh=True))) == 3


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="workers must be positive, got 0"):
        Processes(0)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(EngineError, match=r"pip install 'graph-metanetworks\[ray\]'"):
        list(Ray().run_all(square, [1]))


# --- building -----------------------------------------------------------------------------------


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


def build(folder: Path, marker: str, engine: Ray | Processes) -> zoo.Zoo:
    ranges = replace(CNN_RANGES, steps=replace(CNN_RANGES.steps, high=8))
    fatal = Fatal("digits", ("cnn-relu", "cnn-tanh"), ranges, marker)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(catalogue.BUILDERS, "fatal", fatal)
        return zoo.build("fatal", 28, 3, folder, progress=False, engine=engine)


def untimed(population: zoo.Zoo) -> list[Row]:
    return [{k: v for k, v in row.items() if k != "seconds"} for row in population.rows]


def assert_same_zoo(first: zoo.Zoo, second: zoo.Zoo) -> None:
    assert untimed(first) == untimed(second)
    for number in range(len(first)):
        one, other = first.state(number), second.state(number)
        assert list(one) == list(other)
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_zoo_is_the_same_though_a_worker_was_killed(cluster: Ray, tmp_path: Path) -> None:
    marker = tmp_path / "killed"
    here = build(tmp_path / "here", "", Processes(1))
    there = build(tmp_path / "there", str(marker), cluster)
    assert marker.exists()
    assert len(there) == 28
    assert_same_zoo(here, there)


# --- comparing ----------------------------------------------------------------------------------


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


@pytest.mark.slow
def test_a_comparison_is_the_same_though_a_worker_was_killed(cluster: Ray, tmp_path: Path) -> None:
    small_zoo(tmp_path / "zoo")
    marker = tmp_path / "killed"

    def run(engine: Ray | Processes) -> gmn.Comparison:
        return gmn.compare(
            partial(AccuracyPrediction.open, tmp_path / "zoo"),
            {"fragile": partial(fragile, str(marker))},
            seeds=2,
            recipe=Recipe(epochs=6),
            progress=False,
            engine=engine,
        )

    there = run(cluster)
    assert marker.exists()
    here = run(Processes(1))
    assert there.protocol == here.protocol | {"threads": 1}
    assert there.target == here.target
    for first, second in zip(there.rows, here.rows, strict=True):
        assert first.metrics == second.metrics
        assert first.predictions == second.predictions


@pytest.mark.slow
def test_the_commands_run_on_the_cluster(
    cluster: Ray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def command(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["gmn", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert end.value.code == 0
        return capsys.readouterr().out

    place = str(tmp_path / "zoo")
    command("zoo", "build", "inr-digits", "--size", "30", "--ray", "auto", "--out", place)
    assert len(zoo.open(place)) == 30
    out = str(tmp_path / "compared")
    arguments = ("compare", place, "-m", "flat-mlp", "--seeds", "1", "--epochs", "2", "-o", out)
    assert "flat-mlp" in command(*arguments, "--ray", "auto")
    assert len(json.loads((Path(out) / "comparison.json").read_text())["rows"]) == 1
