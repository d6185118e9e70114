"""Writes new zoos from shards of others, for merging, filtering, appending and rescuing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
from tqdm import tqdm

from gmn.zoo.population import Zoo
from gmn.zoo.store.index import histogram
from gmn.zoo.store.shards import Header
from gmn.zoo.store.writer import ZooWriter, write_zoo


class NewShard(Protocol):
    """A shard that can be written from the contents of other zoos."""

    @property
    def networks(self) -> int:
        """Number of networks."""

    def write(self, folder: Path, number: int) -> None:
        """Writes the shard, all or nothing."""


def rewrite(
    out: Path,
    name: str,
    size: int,
    seed: int,
    configuration: dict[str, Any],
    shards: Sequence[NewShard],
    card: dict[str, Any],
    progress: bool,
    inputs: Sequence[Path],
) -> Zoo:
    """Writes a zoo of such shards, or opens it if it was written before.

    Args:
        out: folder for it; empty, absent, or holding this same zoo.
        name: name of the population.
        size: requested number of networks.
        seed: seed of the population.
        configuration: everything else that determines what is written.
        shards: the shards in order.
        card: entries of the data card beside counts.
        progress: whether to show a progress bar.
        inputs: folders of the zoos that are read.

    Raises:
        ZooError: If a source is damaged, or ``out`` holds another zoo.
    """

    def fill(writer: ZooWriter, missing: Sequence[int]) -> None:
        write_shards(out, {number: shards[number] for number in missing}, progress)

    def data_card(index: pa.Table, headers: Sequence[Header]) -> dict[str, Any]:
        return {"networks": len(index), "splits": histogram(index, "split"), **card}

    write_zoo(out, name, size, seed, configuration, len(shards), fill, data_card, inputs)
    return Zoo(out)


def write_shards(folder: Path, shards: Mapping[int, NewShard], progress: bool) -> None:
    """Writes new shards by their numbers."""
    total = sum(shard.networks for shard in shards.values())
    with tqdm(total=total, unit="net", disable=not progress) as bar:
        for number, shard in shards.items():
            shard.write(folder, number)
            bar.update(shard.networks)
