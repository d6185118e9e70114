"""Verifies a zoo's files against their checksums and lists damaged shards."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from tqdm import tqdm

from gmn.errors import ZooError
from gmn.foundation.arguments import require_path
from gmn.zoo.store.files import (
    SHARDS,
    file_sha256,
)
from gmn.zoo.store.index import read_index
from gmn.zoo.store.manifest import read_manifest
from gmn.zoo.store.shards import read_header

SHOWN = 20  # ids in a printed report


@dataclass(frozen=True)
class DamagedShard:
    """A shard that is not as it was written.

    Attributes:
        file: its name.
        problem: ``missing``, or what is wrong with it.
        ids: ids of the networks that are lost with it; None if the index is lost as well.
        networks: their number according to the manifest.
    """

    file: str
    problem: str
    ids: tuple[str, ...] | None
    networks: int


@dataclass(frozen=True)
class Verdict:
    """The result of :func:`verify`.

    Attributes:
        folder: folder of the zoo.
        networks: how many networks the zoo should have; None if the manifest is lost.
        whole: names of the shards that are as they were written.
        damaged: the others.
        index: what is wrong with the index; None if nothing.
        manifest: what is wrong with the manifest; None if nothing.
    """

    folder: str
    networks: int | None
    whole: tuple[str, ...]
    damaged: tuple[DamagedShard, ...]
    index: str | None
    manifest: str | None

    @property
    def ok(self) -> bool:
        """Whether every file is as it was written."""
        return not self.damaged and self.index is None and self.manifest is None

    @property
    def lost(self) -> int:
        """Number of networks that are lost."""
        return sum(shard.networks for shard in self.damaged)

    def to_json(self) -> str:
        """The verdict as JSON text."""
        return json.dumps({"ok": self.ok, "lost": self.lost, **asdict(self)}, indent=1)

    def __str__(self) -> str:
        lines = [problem for problem in (self.manifest, self.index) if problem is not None]
        for shard in self.damaged:
            lines.append(f"{shard.file} is {shard.problem}: {shard.networks} networks are lost")
            if shard.ids is not None:
                more = f" and {len(shard.ids) - SHOWN} more" if len(shard.ids) > SHOWN else ""
                lines.append(f"  {' '.join(shard.ids[:SHOWN])}{more}")
        if self.ok:
            return f"{self.folder}: all {self.networks} networks are as they were written"
        head = f"{self.folder}: {len(self.whole)} shards are whole, {len(self.damaged)} are not"
        return "\n".join([head, *lines, self._advice()])

    def _advice(self) -> str:
        if self.index is not None and self.manifest is None and not self.damaged:
            return "nothing is lost: --reindex makes the index again from the shards"
        return "--rescue OUT writes a new zoo of all that is whole"


def verify(folder: str | Path, progress: bool = True) -> Verdict:
    """Compares every file of a zoo with its checksum.

    Args:
        folder: folder of a zoo; its manifest and its index may be lost.
        progress: whether to show a progress bar.

    Raises:
        ZooError: If the folder holds neither a manifest nor shards, or an unfinished zoo.
    """
    path = require_path("folder", folder)
    try:
        manifest = read_manifest(path)
    except ZooError as error:
        if not any(path.glob(SHARDS)):
            raise
        return _without_manifest(path, str(error), progress)
    if "shards" not in manifest:
        raise ZooError(
            f"{path} holds an unfinished zoo, which has no checksums yet. Build it again with the "
            "same arguments: it goes on where it stopped, and makes damaged shards anew"
        )
    index, problem = _index(path, manifest)
    whole, damaged = [], []
    for number, facts in enumerate(tqdm(manifest["shards"], unit="shard", disable=not progress)):
        state = _state(path / facts["file"], facts["sha256"])
        if state is None:
            whole.append(facts["file"])
        else:
            ids = None if index is None else _ids(index, number)
            damaged.append(DamagedShard(facts["file"], state, ids, facts["networks"]))
    networks = manifest["index"]["networks"]
    return Verdict(str(path), networks, tuple(whole), tuple(damaged), problem, None)


def _without_manifest(path: Path, problem: str, progress: bool) -> Verdict:
    """Without checksums, a shard counts as whole if it is complete and can be read."""
    whole, damaged = [], []
    for shard in tqdm(sorted(path.glob(SHARDS)), unit="shard", disable=not progress):
        try:
            read_header(shard)
            whole.append(shard.name)
        except ZooError as error:
            damaged.append(DamagedShard(shard.name, str(error), None, 0))
    return Verdict(str(path), None, tuple(whole), tuple(damaged), None, problem)


def _index(folder: Path, manifest: dict[str, Any]) -> tuple[pa.Table | None, str | None]:
    facts = manifest["index"]
    try:
        return read_index(folder / facts["file"], facts["sha256"]), None
    except ZooError:
        state = "damaged" if (folder / facts["file"]).is_file() else "missing"
        return None, f"{facts['file']} is {state}; the shards hold its rows too"


def _state(path: Path, sha256: str) -> str | None:
    if not path.is_file():
        return "missing"
    try:
        return None if file_sha256(path) == sha256 else "damaged: its bytes have changed"
    except OSError as error:
        return f"unreadable: {error.strerror}"


def _ids(index: pa.Table, shard: int) -> tuple[str, ...]:
    chosen = pc.equal(index["shard"], shard)
    return tuple(index["id"].filter(chosen).to_pylist())
