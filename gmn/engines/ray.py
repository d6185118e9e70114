"""Runs jobs as tasks of a Ray cluster."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import torch

from gmn.engines.allocator import keep_freed_memory
from gmn.engines.engine import Engine, Work
from gmn.errors import EngineError

LOCAL: dict[str, Any] = {"include_dashboard": False}
ATTEMPTS = 4  # of a job whose process or machine dies under it


class Ray(Engine):
    """Tasks of one thread on a Ray cluster, as many at once as it has processors.

    A job whose worker or machine dies is run again elsewhere, up to three times. Results travel
    back and are stored here, so the cluster needs no common disk for them; this library, and
    whatever else the jobs read, has to be on every machine. Ctrl-C drops the jobs in hand.

    The connection stays open for further calls, as is usual with Ray; ``ray.shutdown()``, or the
    end of this process, closes it. One that is open already is used whatever the address.

    Args:
        address: ``"auto"`` for the cluster that this machine belongs to, ``"local"`` to start one
            on this machine alone, ``"ray://HOST:10001"`` for a distant one.
    """

    def __init__(self, address: str = "auto") -> None:
        self.address = address

    def __repr__(self) -> str:
        return f"Ray({self.address!r})"

    def run_all(
        self,
        work: Work,
        jobs: Sequence[Any],
        store: Work | None = None,
        *,
        fresh: bool = False,
    ) -> Iterator[Any]:
        """See :meth:`Engine.run_all`."""
        ray = self._connected()
        task = ray.remote(num_cpus=1, max_retries=ATTEMPTS - 1, max_calls=1 if fresh else 0)(_task)
        shared = ray.put(work)  # once, not with every job
        remaining: Iterable[Any] = iter(jobs)
        pending: list[Any] = []
        try:
            while True:
                # Only so many, that results which nobody has stored yet do not pile up.
                free = _at_once(ray) - len(pending)
                pending += [task.remote(shared, job) for job in islice(remaining, max(free, 0))]
                if not pending:
                    return
                [done], pending = ray.wait(pending)
                result = _result(ray, done)
                yield result if store is None else store(result)
        finally:
            for reference in pending:
                ray.cancel(reference, force=True)

    @contextmanager
    def queue(self) -> Iterator[Any]:
        """See :meth:`Engine.queue`."""
        self._connected()
        from ray.util.queue import Queue

        queue = Queue(actor_options={"num_cpus": 0})
        try:
            yield queue
        finally:
            queue.shutdown(force=True)

    @property
    def threads(self) -> int:
        """See :attr:`Engine.threads`."""
        return 1

    def _connected(self) -> Any:
        try:
            import ray
        except ImportError as error:
            raise EngineError(
                "Ray is not installed: pip install 'graph-metanetworks[ray]'"
            ) from error
        if not ray.is_initialized():
            try:
                # Only a cluster that is started here can be told what to start with.
                ray.init(self.address, **LOCAL if self.address == "local" else {})
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise EngineError(
                    f"no Ray cluster at {self.address!r}: {error}. Start one with ray start --head,"
                    " or give the address 'local' for one on this machine"
                ) from error
        return ray


def _at_once(ray: Any) -> int:
    """Tasks to hand over: two a processor, and some more so that a cluster at rest can grow."""
    return 8 + 2 * int(ray.cluster_resources().get("CPU", 0))


def _task(work: Work, job: Any) -> Any:
    torch.set_num_threads(1)
    keep_freed_memory()
    return work(job)


def _result(ray: Any, reference: Any) -> Any:
    """What a task returned; its own exception if it raised one."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError as error:
        raise EngineError(
            f"a job was lost on Ray {ATTEMPTS} times, by a worker or machine that died: {error} "
            "Results that were stored are kept: call again to go on"
        ) from error
