"""Jobs on a Ray cluster of two workers: the same results, and nothing lost if one is killed."""

from __future__ import annotations

import json
import pickle
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from torch import Tensor

import gmn
from gmn import cli, zoo
from gmn.engines import EngineError, Processes, Ray
from gmn.foundation.files import LOCK, MARKER
from gmn.tasks import AccuracyPrediction
from gmn.train import Recipe
from gmn.zoo.building import catalogue
from gmn.zoo.building.catalogue import CNN_RANGES
from gmn.zoo.importing import SmallCnnZoo
from tests.gmn.importing.replicas import cnn_replica
from tests.gmn.population import small_zoo
from tests.gmn.ray_jobs import Brittle, Elsewhere, Fatal, deadly, failing, fragile, pid, square

pytestmark = pytest.mark.xdist_group("ray")  # one cluster at a time


@pytest.fixture(scope="module")
def cluster() -> Iterator[Ray]:
    """A cluster of two workers that reaches out to nothing and leaves nothing behind.

    Its objects lie in a file, not in shared memory, which containers have little of.
    """
    ray = pytest.importorskip("ray")
    # Not pytest's folder: the names of sockets in it would be longer than the system allows.
    place = TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True)
    with place as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_AUTH_MODE", "disabled")  # else it writes a token to the home directory
        patch.setenv("RAY_memory_monitor_refresh_ms", "0")  # else others' use of memory kills jobs
        try:
            ray.init(
                "local",
                num_cpus=2,
                include_dashboard=False,
                object_store_memory=80 * 2**20,  # it wants 75 at least
                _plasma_directory=folder,
                _temp_dir=folder,
                log_to_driver=False,
            )
            yield Ray()
        finally:  # also of what a start that failed has started
            ray.shutdown()


# --- the engine ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_all_jobs_are_done_and_results_are_stored_here(cluster: Ray) -> None:
    stored: list[Tensor] = []
    done = list(cluster.run_all(square, range(50), stored.append))
    assert done == [None] * 50
    assert sorted(float(value) for value in stored) == [float(n * n) for n in range(50)]


@pytest.mark.slow
def test_an_error_is_the_jobs_own(cluster: Ray) -> None:
    for engine in (cluster, Processes(1)):
        with pytest.raises(zoo.ZooError, match=r"^job 3 is bad$"):
            list(engine.run_all(failing, range(5)))


@pytest.mark.slow
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


@pytest.mark.slow
def test_fresh_jobs_have_a_process_each(cluster: Ray) -> None:
    for engine in (cluster, Processes(2)):
        assert len(set(engine.run_all(pid, range(3), fresh=True))) == 3


def test_what_is_missing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="workers is 0"):
        Processes(0)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(EngineError, match=r"pip install 'graph-metanetworks\[ray\]'"):
        list(Ray().run_all(square, [1]))


# --- building -----------------------------------------------------------------------------------


def build(folder: Path, marker: str, engine: Ray | Processes) -> zoo.Zoo:
    ranges = replace(CNN_RANGES, steps=replace(CNN_RANGES.steps, high=8))
    fatal = Fatal("digits", ("cnn-relu", "cnn-tanh"), ranges, marker=marker)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(catalogue.BUILDERS, "fatal", fatal)
        return zoo.build("fatal", 28, 3, folder, progress=False, engine=engine)


def files(folder: Path) -> dict[str, bytes]:
    """All files of a zoo but the journal, which alone tells when and where it was built."""
    other = ("build.jsonl", LOCK, MARKER)
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in other}


@pytest.mark.slow
def test_a_zoo_is_the_same_though_a_worker_was_killed(cluster: Ray, tmp_path: Path) -> None:
    marker = tmp_path / "killed"
    build(tmp_path / "here", "", Processes(1))
    there = build(tmp_path / "there", str(marker), cluster)
    assert marker.exists()
    assert len(there) == 28
    assert files(there.folder) == files(tmp_path / "here")


# --- importing ----------------------------------------------------------------------------------


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A zoo of eight shards."""
    monkeypatch.setattr("gmn.zoo.importing.run.SHARD_SIZE", 3)
    cnn_replica(tmp_path / "published")
    return tmp_path / "published"


@pytest.mark.slow
def test_an_import_is_the_same_though_a_worker_was_killed(
    cluster: Ray, published: Path, tmp_path: Path
) -> None:
    marker = tmp_path / "killed"
    layout = Brittle(published, marker)
    there = zoo.import_zoo(layout, tmp_path / "there", progress=False, engine=cluster)
    assert marker.exists()
    assert len(pickle.dumps(layout)) < 1000  # it mapped the weights meanwhile
    here = zoo.import_zoo(layout, tmp_path / "here", progress=False)
    assert len(there) == len(here) == 24
    assert len(there.manifest["shards"]) == 8
    assert files(there.folder) == files(here.folder)


@pytest.mark.slow
def test_files_that_a_worker_does_not_see_are_an_error(
    cluster: Ray, published: Path, tmp_path: Path
) -> None:
    with pytest.raises(zoo.ZooError, match=r"weights\.npy are missing.*every machine has to see"):
        zoo.import_zoo(Elsewhere(published), tmp_path / "out", progress=False, engine=cluster)
    assert not list((tmp_path / "out").glob("shard-*"))


@pytest.mark.slow
def test_processes_import_the_same(published: Path, tmp_path: Path) -> None:
    for name, engine in (("two", Processes(2)), ("one", Processes(1))):
        zoo.import_zoo(SmallCnnZoo(published), tmp_path / name, progress=False, engine=engine)
    assert files(tmp_path / "one") == files(tmp_path / "two")


# --- comparing ----------------------------------------------------------------------------------


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


@pytest.mark.slow
def test_the_search_in_the_documents_runs(cluster: Ray, tmp_path: Path) -> None:
    pytest.importorskip("ray.tune")
    small_zoo(tmp_path / "zoo")
    page = (Path(__file__).parents[2] / "docs" / "beyond-one-machine.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(block.strip().splitlines()) <= 30
    block = block.replace("runs/cnn-mnist", str(tmp_path / "zoo")).replace("runs/", f"{tmp_path}/")
    block = block.replace("num_samples=16", "num_samples=2").replace("epochs=8", "epochs=2")
    names: dict[str, Any] = {"__name__": "search"}
    exec(block, names)
    assert set(names["best"].config) == {"lr", "ema"}
    assert -1 <= names["best"].metrics["metric"] <= 1
