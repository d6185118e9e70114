"""The interface of all engines."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch

from gmn.foundation.arguments import require_type

Work = Callable[[Any], Any]


class Engine(ABC):
    """Runs independent jobs, here or elsewhere."""

    @abstractmethod
    def run_all(
        self,
        work: Work,
        jobs: Sequence[Any],
        store: Work | None = None,
        *,
        fresh: bool = False,
    ) -> Iterator[Any]:
        """Runs ``store(work(job))`` for every job, in any order, and yields what that returns.

        Args:
            work: done for each job; it and the jobs are pickled, unless they run in this process.
            jobs: one argument of ``work`` each.
            store: writes a result to the disk of this machine; the engine calls it where that disk
                is. None to yield results as they are.
            fresh: whether each job gets a process of its own, whose peak of memory is then the
                job's.

        Raises:
            EngineError: if the engine cannot run jobs, or a process died under one; other results
                are stored by then, or will be if the call is repeated.
        """

    @abstractmethod
    def queue(self) -> AbstractContextManager[Any]:
        """A queue with ``put`` and ``get`` that jobs, as an argument of ``work``, can reach."""

    @property
    @abstractmethod
    def threads(self) -> int:
        """Number of threads of a job."""


def require_engine(engine: Any) -> None:
    """Refuses what is no engine, and not None either.

    Raises:
        ArgumentError: then.
    """
    if engine is not None:
        require_type("engine", engine, Engine, "gmn.engines.Processes(2) or gmn.engines.Ray()")


@contextmanager
def one_thread() -> Iterator[None]:
    """One thread, as in a worker, for numbers that must not depend on the number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
