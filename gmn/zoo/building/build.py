"""Builds a population by name in several processes, and continues a stopped build."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from tqdm import tqdm

import converters
from gmn.engines import Engine, Processes, one_thread
from gmn.engines.engine import require_engine
from gmn.foundation.arguments import require_path, require_type, require_whole
from gmn.spec import GraphSpec
from gmn.zoo.architectures.networks import network
from gmn.zoo.building.builders import DEFAULT, Builder, Options, Shard, finite, plan
from gmn.zoo.building.catalogue import builder
from gmn.zoo.population import Zoo
from gmn.zoo.store.files import Row
from gmn.zoo.store.index import histogram
from gmn.zoo.store.shards import Header, write_shard
from gmn.zoo.store.writer import ZooWriter, write_zoo
from gmn.zoo.training.states import State


@dataclass(frozen=True)
class TrainedShard:
    """The networks of one shard, trained but not yet written.

    Attributes:
        shard: the plan of the shard.
        state: their stacked states, without those that diverged.
        rows: one dict for each in ``state``.
        extras: further stacked tensors of the same networks, by kind.
        left_out: ids of those that diverged.
        seconds: duration of the training on one thread.
    """

    shard: Shard
    state: State
    rows: list[Row]
    extras: dict[str, State]
    left_out: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class WrittenShard:
    """What the build log says of a written shard.

    Attributes:
        shard: its number.
        networks: how many networks were trained.
        seconds: duration of the training on one thread.
    """

    shard: int
    networks: int
    seconds: float


def build(
    name: str,
    size: int,
    seed: int,
    out: str | Path,
    workers: int = 2,
    progress: bool = True,
    engine: Engine | None = None,
    options: Options = DEFAULT,
) -> Zoo:
    """Trains a population of networks, or opens it if it was built before.

    Network i of a seed is the same whatever the size. Killed at any moment, a build goes on with
    the missing shards when called again; Ctrl-C stops it after the shards in hand.

    Workers are spawned: a script that calls this with more than one worker must do so under
    ``if __name__ == "__main__":``.

    Args:
        name: one of the keys of ``gmn.zoo.building.catalogue.BUILDERS``, such as ``"cnn-mnist"``.
        size: number of networks to train. Runs that diverge are kept out and counted in the
            data card.
        seed: seed of the population.
        out: folder for it; empty, absent, or holding this same zoo.
        workers: number of processes of one thread each; 1 trains in this process.
        progress: whether to show a progress bar.
        options: choices that some populations have, such as ``Options(checkpoints=5)``.
        engine: where shards are trained, such as ``gmn.engines.Ray()``; None for ``workers``
            processes on this machine. The zoo is the same.

    Returns:
        The finished zoo.

    Raises:
        ValueError: If the name is unknown, size or workers is not positive, or the population does
            not have these options.
        ZooError: If the folder holds another zoo.
        MissingImages: If the images of the population are not installed.
        EngineError: If a worker process died, or there is no Ray cluster.
    """
    require_type("name", name, str, "the name of a population, such as 'cnn-mnist'")
    require_whole("size", size, 1)
    require_whole("seed", seed)
    require_whole("workers", workers, 1)
    require_type("options", options, Options, "gmn.zoo.Options(...)")
    require_engine(engine)
    chosen = builder(name).configured(options)
    folder, configuration = require_path("out", out), chosen.configuration()
    shards = plan(size, chosen.architectures, chosen.shard_size, chosen.checkpoints)

    def fill(writer: ZooWriter, missing: Sequence[int]) -> None:
        if missing:
            _train(writer, chosen, shards, missing, engine or Processes(workers), progress)

    def card(index: pa.Table, headers: Sequence[Header]) -> dict[str, Any]:
        return {**data_card(index, headers), **chosen.card(index.to_pylist())}

    write_zoo(folder, name, size, seed, configuration, len(shards), fill, card)
    return Zoo(folder)


def _train(
    writer: ZooWriter,
    chosen: Builder,
    shards: Sequence[Shard],
    missing: Sequence[int],
    engine: Engine,
    progress: bool,
) -> None:
    """Trains and writes the missing shards, and logs how long each took."""
    todo = [shards[index] for index in missing]
    example = chosen.example()[:1]  # fails here, with its advice, rather than in a worker
    specs = {
        name: converters.trace(network(name), (example,))
        for name in sorted({shard.architecture for shard in todo})
    }
    train = partial(train_shard, chosen, writer.identity["seed"])
    write = partial(write_trained, writer.folder, specs)
    size = sum(len(shard.networks) for shard in shards)
    done = size - sum(len(shard.networks) for shard in todo)
    writer.note("start", {"engine": repr(engine)})
    with tqdm(total=size, initial=done, unit="net", disable=not progress) as bar:
        for built in engine.run_all(train, todo, write):
            facts = {"shard": built.shard, "seconds": round(built.seconds, 3)}
            writer.note("shard", facts)
            bar.update(built.networks)


def data_card(index: pa.Table, headers: Sequence[Header]) -> dict[str, Any]:
    """What a reader should know about any population before using it.

    Args:
        index: the rows of its networks.
        headers: what its shards say of themselves.

    Returns:
        JSON values: counts, and the ids of the networks that diverged.
    """
    left_out = sorted(name for header in headers for name in header.left_out)
    return {
        "networks": len(index),
        "diverged_and_kept_out": len(left_out),
        "diverged": left_out,
        "splits": histogram(index, "split"),
    }


def train_shard(chosen: Builder, seed: int, shard: Shard) -> TrainedShard:
    """Trains the networks of one shard; those that diverged are left out by name."""
    start = time.perf_counter()
    with one_thread():
        state, rows, extras = chosen.train_with_extras(shard, seed)
    numbered: list[Row] = [
        {"id": f"{index:06d}", **row} for index, row in zip(shard.networks, rows, strict=True)
    ]
    usable = finite(state, rows)
    kept = usable.nonzero().flatten()
    return TrainedShard(
        shard,
        {name: value[kept] for name, value in state.items()},
        [numbered[row] for row in kept.tolist()],
        {
            kind: {name: value[kept] for name, value in tensors.items()}
            for kind, tensors in extras.items()
        },
        tuple(numbered[row]["id"] for row in (~usable).nonzero().flatten().tolist()),
        time.perf_counter() - start,
    )


def write_trained(folder: Path, specs: dict[str, GraphSpec], trained: TrainedShard) -> WrittenShard:
    """Writes the shard of trained networks.

    Args:
        folder: folder of the zoo.
        specs: specs of its architectures, by name.
        trained: the networks.

    Raises:
        ZooError: If it cannot be written.
    """
    shard = trained.shard
    write_shard(
        folder,
        shard.number,
        shard.architecture,
        specs[shard.architecture],
        trained.state,
        trained.rows,
        trained.extras,
        left_out=trained.left_out,
    )
    return WrittenShard(shard.number, len(shard.networks), trained.seconds)
