"""Runs jobs in processes on this machine."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from multiprocessing import connection, get_context, parent_process
from queue import SimpleQueue
from typing import Any

import torch

from gmn.engines.allocator import keep_freed_memory
from gmn.engines.engine import Engine, Work
from gmn.errors import EngineError
from gmn.foundation.arguments import require_whole


class Processes(Engine):
    """Processes of one thread on this machine; they are spawned, and end with this process.

    Ctrl-C lets the jobs in hand finish if their results are stored, and drops them otherwise.

    Args:
        workers: number of processes; 1 runs the jobs in this process, one after the other, with
            the threads it has.

    Raises:
        ValueError: if ``workers`` is not positive.
    """

    def __init__(self, workers: int = 2) -> None:
        self.workers = require_whole("workers", workers, 1)

    def __repr__(self) -> str:
        return f"Processes({self.workers})"

    def run_all(
        self,
        work: Work,
        jobs: Sequence[Any],
        store: Work | None = None,
        *,
        fresh: bool = False,
    ) -> Iterator[Any]:
        """See :meth:`Engine.run_all`."""
        call = work if store is None else partial(_chain, work, store)
        if self.workers == 1 or (len(jobs) < 2 and not fresh):
            yield from map(call, jobs)
            return
        workers = max(1, min(self.workers, len(jobs)))
        pool = self._pool(call, fresh, workers, finish_jobs=store is not None)
        try:
            run = partial(_in_own_process, call) if fresh else _do
            for future in as_completed([pool.submit(run, job) for job in jobs]):
                yield future.result()
        except BrokenProcessPool as error:
            raise EngineError(
                "a worker process died: it was killed, or memory ran out; see the system's log. "
                "Results that were stored are kept: call again to go on, or with fewer workers"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _pool(self, call: Work, fresh: bool, workers: int, finish_jobs: bool) -> Executor:
        return ThreadPoolExecutor(workers) if fresh else _pool(workers, call, finish_jobs)

    @contextmanager
    def queue(self) -> Iterator[Any]:
        """See :meth:`Engine.queue`."""
        if self.workers == 1:
            yield SimpleQueue()
            return
        with get_context("spawn").Manager() as manager:
            yield manager.Queue()

    @property
    def threads(self) -> int:
        """See :attr:`Engine.threads`."""
        return torch.get_num_threads() if self.workers == 1 else 1


def _chain(work: Work, store: Work, job: Any) -> Any:
    return store(work(job))


def _in_own_process(call: Work, job: Any) -> Any:
    with _pool(1, call, finish_jobs=False) as process:
        return process.submit(_do, job).result()


def _pool(workers: int, call: Work, finish_jobs: bool) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, get_context("spawn"), _start_worker, (call, finish_jobs))


_calls: list[Work] = []  # what this worker process does; sent once, since it may be large


def _start_worker(call: Work, finish_jobs: bool) -> None:
    _calls.append(call)
    torch.set_num_threads(1)
    keep_freed_memory()
    # Ctrl-C goes to the whole process group; where results are stored, the parent decides alone.
    signal.signal(signal.SIGINT, signal.SIG_IGN if finish_jobs else signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _do(job: Any) -> Any:
    return _calls[-1](job)


def _end_with_parent() -> None:
    """Ends this worker when its parent is killed: the pool's queue would keep it for ever."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
