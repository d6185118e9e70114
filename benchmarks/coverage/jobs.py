"""Models are measured one by one, each in a process that may be stopped; rows go to a file."""

from __future__ import annotations

import itertools
import json
import multiprocessing
import resource
import signal
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import converters
from benchmarks.coverage.measure import Row, line, rows

Key = tuple[str, str]  # family and name


@dataclass(frozen=True)
class Limits:
    """What a process may take.

    Attributes:
        seconds: of CPU time; four times as many may pass.
        memory: bytes of its own.
    """

    seconds: int = 120
    memory: int = 6 * 2**30


class Rows:
    """Measured rows in a file that grows line by line; an interrupted run goes on.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        text = path.read_text() if path.exists() else ""
        lines = text.splitlines() if text.endswith("\n") or not text else text.splitlines()[:-1]
        self.found: dict[Key, Row] = {}
        for each in map(json.loads, lines):
            self.found[each["family"], each["name"]] = each
        if text and not text.endswith("\n"):
            path.write_text("".join(f"{each}\n" for each in lines))

    def add(self, row: Row) -> None:
        """Appends a row."""
        self.found[row["family"], row["name"]] = row
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps(row) + "\n")


@dataclass
class _Job:
    key: Key
    process: Any
    pipe: Connection
    ends: float
    row: Row = field(default_factory=dict)


def run(
    jobs: Iterable[tuple[Key, Callable[[], Any]]], limits: Limits, at_once: int = 1
) -> Iterator[Row]:
    """Measures models, each in a process of its own.

    Args:
        jobs: families and names, and what builds the model.
        limits: of each process.
        at_once: number of processes.

    Yields:
        Rows in the order in which they are done.
    """
    waiting, running = iter(jobs), list[_Job]()
    while True:
        for key, build in itertools.islice(waiting, at_once - len(running)):
            running.append(_start(key, build, limits))
        if not running:
            return
        wait([job.pipe for job in running], timeout=max(0.0, min(_left(job) for job in running)))
        for job in list(running):
            if _read(job):
                running.remove(job)
                yield job.row


def _left(job: _Job) -> float:
    return job.ends - time.monotonic()


def _start(key: Key, build: Callable[[], Any], limits: Limits) -> _Job:
    context = multiprocessing.get_context("fork")  # libraries are imported once, before
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_measure, args=(build, theirs, limits))
    process.start()
    theirs.close()
    row: Row = {"family": key[0], "name": key[1], "built": False}
    return _Job(key, process, ours, time.monotonic() + 4 * limits.seconds, row)


def _read(job: _Job) -> bool:
    """Takes what has come from the process; whether it is over."""
    over = False
    try:
        while job.pipe.poll():
            job.row.update(job.pipe.recv())
    except (EOFError, OSError):
        over = True
    if not over and _left(job) > 0:
        return False
    if not over:
        job.process.kill()
        _fail(job.row, "TimeLimit", "stopped after its time limit", False)
    job.process.join()
    if job.process.exitcode == -signal.SIGXCPU:
        _fail(job.row, "TimeLimit", "stopped after its limit of CPU time", False)
    if job.process.exitcode and "error_type" not in job.row:
        _fail(job.row, "Crash", f"the process ended with {job.process.exitcode}", False)
    job.pipe.close()
    return True


def _fail(row: Row, kind: str, message: str, documented: bool) -> None:
    row.update(error_type=kind, error_message=message, trace_error=documented)


def _measure(build: Callable[[], Any], pipe: Connection, limits: Limits) -> None:
    """Runs in the process of one model."""
    resource.setrlimit(resource.RLIMIT_DATA, (limits.memory, limits.memory))
    resource.setrlimit(resource.RLIMIT_CPU, (limits.seconds, limits.seconds + 5))
    try:
        for found in rows(build):
            pipe.send(found)
    except BaseException as error:
        row: Row = {}
        _fail(
            row,
            type(error).__name__,
            line(error).partition(": ")[2],
            isinstance(error, converters.TraceError),
        )
        last = traceback.extract_tb(error.__traceback__)[-1:]
        row["error_at"] = [f"{Path(each.filename).name}:{each.lineno}" for each in last]
        pipe.send(row)
    finally:
        pipe.close()
