"""Training on two processes of ``torchrun`` is training on one."""

from __future__ import annotations

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gmn.tasks import Batch
from gmn.train import Ranks, load, ranks
from tests.gmn.distributed_runs import RUNS

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.xdist_group("torchrun")  # one start of two processes for all
QUIET = {**os.environ, "OMP_NUM_THREADS": "1"}


def torchrun(*arguments: str) -> list[str]:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return [*launcher, "--nproc-per-node", "2", "-m", *arguments]


@pytest.fixture(scope="module")
def together(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes found out: a file of each, and the folders of the runs."""
    out = tmp_path_factory.mktemp("together")
    command = torchrun("tests.gmn.distributed_runs", str(folder), str(out))
    done = subprocess.run(
        command, cwd=ROOT, env=QUIET, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture(scope="module")
def found(together: Path) -> list[dict[str, Any]]:
    return [torch.load(together / f"{rank}-of-2.pt") for rank in (0, 1)]


def log_of(path: Path) -> list[list[float]]:
    rows = csv.DictReader((path / "log.csv").read_text().splitlines())
    return [[float(value) for value in row.values()] for row in rows]


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_losses_and_predictions_are_those_of_one_process(
    name: str, folder: Path, together: Path, found: list[dict[str, Any]], tmp_path: Path
) -> None:
    alone = RUNS[name](folder, tmp_path)
    close = {"rtol": 0, "atol": 1e-5 if name == "single" else 1e-12}
    for own in found:
        assert own[name]["epoch"] == alone["epoch"]
        torch.testing.assert_close(own[name]["prediction"], alone["prediction"], **close)
        torch.testing.assert_close(own[name]["scores"], alone["scores"], **close)
        torch.testing.assert_close(own[name]["weights"], alone["weights"], **close)
    rows = log_of(together / name)
    assert len(rows) >= 3
    torch.testing.assert_close(rows, log_of(tmp_path), **close)


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.slow
def test_processes_hold_the_same_bits_and_one_of_them_writes(
    together: Path, found: list[dict[str, Any]]
) -> None:
    for name in RUNS:
        assert equal(found[0][name]["weights"], found[1][name]["weights"])
        assert torch.equal(found[0][name]["prediction"], found[1][name]["prediction"])
        files = sorted(path.name for path in (together / name).iterdir())
        assert files == ["log.csv", "run.pt"]


@pytest.mark.slow
def test_dropout_differs_between_processes_and_goes_on_after_a_stop(
    together: Path, found: list[dict[str, Any]]
) -> None:
    for own in found:
        assert equal(own["dropped"], own["resumed"])
    assert equal(found[0]["dropped"], found[1]["dropped"])
    assert log_of(together / "dropped") == log_of(together / "stopped")
    assert not torch.equal(found[0]["chance"], found[1]["chance"])


@pytest.mark.slow
def test_what_cannot_be_split_is_refused_and_every_process_stops(
    found: list[dict[str, Any]],
) -> None:
    for own in found:
        assert "body.3: BatchNorm1d takes statistics over a minibatch" in own["normed"]
    said = sorted(own["diverged"].split("; ")[1] for own in found)
    assert said[0] == "another process says why"
    assert "what it answers to network" in said[1]


def test_alone_nothing_changes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ranks() == Ranks(0, 1)
    batch = Batch(None, torch.zeros(3))  # type: ignore[arg-type]
    assert Ranks().parts([batch, batch]) == [batch, batch]
    assert Ranks().sum(1 / 3) == 1 / 3


@pytest.mark.parametrize("lengths", [[0], [1], [11], [1] * 9, [5, 0, 1, 1, 7], [2, 30]])
@pytest.mark.parametrize("size", [2, 3, 6])
def test_parts_cover_batches_once(lengths: list[int], size: int) -> None:
    batches = [[(n, i) for i in range(length)] for n, length in enumerate(lengths)]
    parts = [Ranks(rank, size).parts(batches) for rank in range(size)]  # type: ignore[arg-type]
    assert all(len({n for n, _ in piece}) == 1 for part in parts for piece in part)  # type: ignore[attr-defined]
    counts = [sum(map(len, part)) for part in parts]
    whole = [one for part in parts for piece in part for one in piece]
    assert whole == [one for batch in batches for one in batch]
    assert max(counts) - min(counts) <= 1


# --- kills --------------------------------------------------------------------------------------


def train_command(population: Path, out: Path) -> list[str]:
    options = ["--epochs", "40", "--batch-size", "8", "--augment", "--ema", "0.9"]
    return torchrun(
        "gmn.cli", "train", str(population), "-m", "nfn-np", "--out", str(out), *options
    )


def children(pid: int) -> list[int]:
    listing = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in listing.split()]


def started(command: list[str], out: Path, epochs: int) -> subprocess.Popen[str]:
    """The command, in a session of its own, when it has finished some epochs."""
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=QUIET,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    log, deadline = out / "log.csv", time.monotonic() + 200
    while not log.exists() or len(log.read_text().splitlines()) <= epochs:
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
    return process


def wait_for_end(processes: list[int]) -> None:
    deadline = time.monotonic() + 60
    while any(alive(pid) for pid in processes):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_a_killed_or_interrupted_command_goes_on(folder: Path, tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    subprocess.run(train_command(folder, whole), cwd=ROOT, env=QUIET, check=True, timeout=300)
    for victim, kind in ((1, signal.SIGKILL), (0, signal.SIGKILL), (None, signal.SIGINT)):
        process = started(train_command(folder, broken), broken, epochs_done(broken) + 2)
        workers = children(process.pid)
        assert len(workers) == 2
        if victim is None:
            os.killpg(process.pid, kind)  # what Ctrl-C does
        else:
            os.kill(workers[victim], kind)
        process.communicate(timeout=120)
        assert process.returncode != 0
        wait_for_end(workers)
        assert not (broken / "model.json").exists()
    assert epochs_done(broken) < 40
    done = subprocess.run(
        train_command(folder, broken),
        cwd=ROOT,
        env=QUIET,
        check=True,
        timeout=300,
        capture_output=True,
        text=True,
    )
    assert done.stdout.count("test split, weights of epoch") == 1
    names = ("model.safetensors", "model.json", "log.csv")
    assert all((whole / name).read_bytes() == (broken / name).read_bytes() for name in names)
    assert not list(broken.glob(".*.part"))
    recipe = load(whole).card["recipe"]
    assert recipe["epochs"] == 40


def epochs_done(out: Path) -> int:
    log = out / "log.csv"
    return len(log.read_text().splitlines()) - 1 if log.exists() else 0
