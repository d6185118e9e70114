"""Repairs damaged zoos: rebuilds the index from shards, copies intact shards into a new zoo."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gmn.errors import ZooError
from gmn.foundation.arguments import require_path
from gmn.foundation.files import write_file
from gmn.zoo.population import Zoo
from gmn.zoo.store.files import (
    MANIFEST,
    file_sha256,
    json_bytes,
    shard_name,
)
from gmn.zoo.store.index import index_of, table_bytes
from gmn.zoo.store.manifest import read_manifest
from gmn.zoo.store.shards import read_header
from gmn.zoo.store.writing import zoo_folder
from gmn.zoo.upkeep.rewriting import rewrite
from gmn.zoo.upkeep.verifying import Verdict, verify


def reindex(folder: str | Path) -> Zoo:
    """Rebuilds a lost or damaged index from the shards.

    Args:
        folder: folder of a zoo with all its shards.

    Returns:
        The zoo.

    Raises:
        ZooError: If a shard is missing or unreadable, or another writer is at work.
    """
    path = require_path("folder", folder)
    manifest = read_manifest(path)
    with zoo_folder(path) as output:
        if "shards" not in manifest:
            raise ZooError(f"{path} holds an unfinished zoo; build it again: it goes on")
        index, _ = index_of(path, range(len(manifest["shards"])))
        content, facts = table_bytes(index), manifest["index"]
        if len(index) != facts["networks"]:
            raise ZooError(f"{path}: the shards hold {len(index)} of {facts['networks']} networks")
        sha256 = file_sha256(output.write(facts["file"], content))
        if sha256 != facts["sha256"]:  # another version of pyarrow writes other bytes
            facts |= {"bytes": len(content), "sha256": sha256}
            output.write(MANIFEST, json_bytes(manifest))
    return Zoo(path)


@dataclass(frozen=True)
class IntactShard:
    """A new shard that is a file of another zoo, bit for bit."""

    path: Path
    networks: int

    def write(self, folder: Path, number: int) -> None:
        """Writes the shard, all or nothing."""
        write_file(folder / shard_name(number), self.path.read_bytes(), ZooError)


def rescue(folder: str | Path, out: str | Path, progress: bool = True) -> Zoo:
    """Writes a new zoo of all intact shards; its data card lists what was lost.

    Args:
        folder: folder of a damaged zoo.
        out: folder for the new one; empty, absent, or holding this same rescue.
        progress: whether to show a progress bar.

    Returns:
        The new zoo.

    Raises:
        ZooError: If no network is left, or ``out`` holds another zoo.
    """
    path = require_path("folder", folder)
    verdict = verify(path, progress)
    paths = [path / file for file in verdict.whole]
    shards = [IntactShard(path, read_header(path).networks) for path in paths]
    remaining = sum(shard.networks for shard in shards)
    if not remaining:
        raise ZooError(f"{path}: no network is left to be rescued")
    known: dict[str, Any] = {} if verdict.manifest else read_manifest(path)
    name, seed, size = (
        known.get("name", "rescued"),
        known.get("seed", 0),
        verdict.networks or remaining,
    )
    configuration = {"rescued": list(verdict.whole), "of": known.get("configuration")}
    card = {**_losses(verdict), "card_before": known.get("card")}
    return rewrite(
        require_path("out", out), name, size, seed, configuration, shards, card, progress, [path]
    )


def _losses(verdict: Verdict) -> dict[str, Any]:
    shards = [
        {"file": shard.file, "problem": re.sub(r"\S*/", "", shard.problem), "ids": shard.ids}
        for shard in verdict.damaged
    ]
    return {"lost": verdict.lost, "lost_shards": shards}
