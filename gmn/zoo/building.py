"""Builds a population by name, on several processes, and goes on where a stopped run left off."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from itertools import starmap
from multiprocessing import connection, get_context, parent_process
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

import converters
from gmn.zoo.builders import Builder, Shard, plan
from gmn.zoo.catalogue import builder
from gmn.zoo.networks import network
from gmn.zoo.population import Zoo
from gmn.zoo.store import Row, ZooWriter

Task = tuple[ZooWriter, Builder, int, Shard]


def build(
    name: str,
    size: int,
    seed: int,
    out: str | Path,
    workers: int = 2,
    progress: bool = True,
) -> Zoo:
    """Trains a population of networks, or opens it if it was built before.

    Network i of a seed is the same whatever the size. Killed at any moment, a build goes on with
    the missing shards when called again; Ctrl-C stops it after the shards in hand.

    Workers are spawned: a script that calls this with more than one worker must do so under
    ``if __name__ == "__main__":``.

    Args:
        name: ``"cnn-mnist"``, ``"cnn-digits"``, ``"inr-mnist"`` or ``"inr-digits"``.
        size: Number of networks to train. Runs that diverge are kept out and counted in the
            data card.
        seed: Seed of the population.
        out: Folder for it; empty, absent, or holding this same zoo.
        workers: Number of processes of one thread each; 1 trains in this process.
        progress: Whether to show a progress bar.

    Returns:
        The finished zoo.

    Raises:
        ValueError: If the name is unknown, or size or workers is not positive.
        ZooError: If the folder holds another zoo.
        MissingImages: If the images of the population are not installed.
    """
    if size < 1 or workers < 1:
        raise ValueError(f"size and workers must be positive, got {size} and {workers}")
    chosen = builder(name)
    writer = ZooWriter(Path(out), name, size, seed, chosen.configuration())
    shards = plan(size, chosen.architectures, chosen.shard_size)
    missing = [shards[number] for number in writer.missing(len(shards))]
    if missing or not writer.complete:
        one = chosen.example()[:1]  # fails here, with its advice, rather than in a worker
        tasks = [(writer, chosen, seed, shard) for shard in missing]
        done = size - sum(len(shard.networks) for shard in missing)
        with tqdm(total=size, initial=done, unit="net", disable=not progress) as bar:
            for trained in _run(tasks, workers):
                bar.update(trained)
        rows = writer.collect_rows(len(shards))
        specs = {
            architecture: json.loads(converters.trace(network(architecture), (one,)).to_json())
            for architecture in chosen.architectures
        }
        writer.finish(len(shards), rows, specs, {**data_card(rows, size), **chosen.card(rows)})
    return Zoo(writer.folder)


def data_card(rows: list[Row], size: int) -> dict[str, Any]:
    """What a reader should know about any population before using it.

    Args:
        rows: The rows of its networks.
        size: How many were trained.

    Returns:
        JSON values: counts, and training time in processor seconds.
    """
    return {
        "networks": len(rows),
        "diverged_and_kept_out": size - len(rows),
        "training_seconds": round(sum(row["seconds"] for row in rows), 1),
        "splits": dict(Counter(row["split"] for row in rows)),
    }


def _run(tasks: list[Task], workers: int) -> Iterator[int]:
    """Builds shards and yields the number of networks trained, as each is done."""
    if min(workers, len(tasks)) <= 1:
        with _one_thread():
            yield from starmap(_build_shard, tasks)
        return
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_start_worker)
    try:
        futures = [pool.submit(_build_shard, *task) for task in tasks]
        for future in as_completed(futures):
            yield future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread, as in a worker: the numbers must not depend on the number of workers."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _start_worker() -> None:
    torch.set_num_threads(1)
    # Ctrl-C goes to the whole process group; only the parent decides when to stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Ends this worker when its parent is killed: the pool's queue would keep it for ever."""
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def _build_shard(writer: ZooWriter, chosen: Builder, seed: int, shard: Shard) -> int:
    """Trains the networks of one shard and writes it; returns how many were trained."""
    start = time.perf_counter()
    state, rows = chosen.train(shard, seed)
    seconds = (time.perf_counter() - start) / len(shard.networks)
    finite = torch.stack([value.flatten(1).isfinite().all(1) for value in state.values()]).all(0)
    kept = finite.nonzero().flatten()
    full: list[Row] = [
        {"id": f"{shard.networks[row]:06d}", **rows[row], "seconds": round(seconds, 3)}
        for row in kept.tolist()
    ]
    stacked = {name: value[kept] for name, value in state.items()}
    writer.write_shard(shard.number, shard.architecture, stacked, full)
    return len(shard.networks)
