"""Repairs damaged zoos: rebuilds the index from shards, copies intact shards into a new zoo."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gmn.arguments import require_path
from gmn.errors import ZooError
from gmn.zoo.population import Zoo
from gmn.zoo.store.files import (
    MANIFEST,
    file_sha256,
    json_bytes,
    read_manifest,
    shard_name,
    write_file,
)
from gmn.zoo.store.index import index_of, table_bytes
from gmn.zoo.store.locking import WriterLock
from gmn.zoo.store.shards import read_header
from gmn.zoo.upkeep.rewriting import rewrite
from gmn.zoo.upkeep.verifying import Verdict, verify


def reindex(folder: str | Path) -> Zoo:
    """Makes a lost or damaged index again, from the shards.

    Args:
        folder: Of a zoo whose shards are all there.

    Returns:
        The zoo.

    Raises:
        ZooError: If a shard is missing or unreadable, or another writer is at work.
    """
    place = require_path("folder", folder)
    lock = WriterLock(place)
    try:
        manifest = read_manifest(place)
        if "shards" not in manifest:
            raise ZooError(f"{place} holds an unfinished zoo; build it again: it goes on")
        index, _ = index_of(place, range(len(manifest["shards"])))
        content, facts = table_bytes(index), manifest["index"]
        if len(index) != facts["networks"]:
            raise ZooError(f"{place}: the shards hold {len(index)} of {facts['networks']} networks")
        write_file(place / facts["file"], content)
        sha256 = file_sha256(place / facts["file"])
        if sha256 != facts["sha256"]:  # another version of pyarrow writes other bytes
            facts |= {"bytes": len(content), "sha256": sha256}
            write_file(place / MANIFEST, json_bytes(manifest))
    finally:
        lock.release()
    return Zoo(place)


@dataclass(frozen=True)
class WholeShard:
    """A new shard that is a file of another zoo, bit for bit."""

    path: Path
    networks: int

    def write(self, folder: Path, number: int) -> None:
        """Writes it, all or nothing."""
        write_file(folder / shard_name(number), self.path.read_bytes())


def rescue(folder: str | Path, out: str | Path, progress: bool = True) -> Zoo:
    """Writes a new zoo of all shards that are whole; its data card says what was lost.

    Args:
        folder: Of a damaged zoo.
        out: Folder for the new one; empty, absent, or holding this same rescue.
        progress: Whether to show a progress bar.

    Returns:
        The new zoo.

    Raises:
        ZooError: If no network is left, or ``out`` holds another zoo.
    """
    place = require_path("folder", folder)
    verdict = verify(place, progress)
    paths = [place / file for file in verdict.whole]
    shards = [WholeShard(path, read_header(path).networks) for path in paths]
    left = sum(shard.networks for shard in shards)
    if not left:
        raise ZooError(f"{place}: no network is left to be rescued")
    known: dict[str, Any] = {} if verdict.manifest else read_manifest(place)
    name, seed, size = known.get("name", "rescued"), known.get("seed", 0), verdict.networks or left
    configuration = {"rescued": list(verdict.whole), "of": known.get("configuration")}
    card = {**_losses(verdict), "card_before": known.get("card")}
    return rewrite(
        require_path("out", out), name, size, seed, configuration, shards, card, progress
    )


def _losses(verdict: Verdict) -> dict[str, Any]:
    shards = [
        {"file": shard.file, "problem": re.sub(r"\S*/", "", shard.problem), "ids": shard.ids}
        for shard in verdict.damaged
    ]
    return {"lost": verdict.lost, "lost_shards": shards}
