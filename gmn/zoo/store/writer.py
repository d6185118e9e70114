"""Writes a zoo shard by shard, so that a run killed at any moment can go on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa

from gmn.arguments import require_path, require_type, require_whole
from gmn.errors import ArgumentError, ZooError
from gmn.spec import GraphSpec
from gmn.zoo.store import provenance
from gmn.zoo.store.files import (
    FORMAT_VERSION,
    MANIFEST,
    PARTS,
    SHARDS,
    Row,
    file_sha256,
    index_name,
    json_bytes,
    read_manifest,
    shard_name,
    write_file,
)
from gmn.zoo.store.index import index_of, table_bytes
from gmn.zoo.store.locking import WriterLock
from gmn.zoo.store.shards import Header, Tensors, read_header, write_shard


class ZooWriter:
    """Writes a zoo, or goes on with one that a stopped run left unfinished.

    One writer at a time: use it in a ``with`` statement, or call :meth:`close`.

    Args:
        folder: Where the zoo lies; created if absent.
        name: Name of the population.
        size: Number of networks asked for.
        seed: Seed of the population.
        configuration: All else that decides what is built; plain JSON values.

    Raises:
        ZooError: If the folder holds a zoo of another name, size, seed or configuration, or
            another writer is at work.

    Example:
        >>> import tempfile, torch, converters
        >>> from gmn import zoo
        >>> spec = converters.trace(torch.nn.Linear(2, 3), (torch.zeros(1, 2),))
        >>> states = {"weight": torch.randn(10, 3, 2), "bias": torch.zeros(10, 3)}
        >>> rows = [{"id": f"{i:02d}", "split": "train", "loss": 0.1 * i} for i in range(10)]
        >>> folder = tempfile.TemporaryDirectory()
        >>> with zoo.ZooWriter(folder.name, "lines", 10, 0, {}) as writer:
        ...     writer.write_shard(0, "linear", spec, states, rows)
        ...     writer.finish(1, {"remark": "random weights"})
        >>> zoo.open(folder.name)
        Zoo('lines', 10 networks of linear)
        >>> folder.cleanup()
    """

    def __init__(
        self, folder: str | Path, name: str, size: int, seed: int, configuration: dict[str, Any]
    ) -> None:
        require_type("name", name, str, "the population's name as text")
        require_whole("size", size, 0)
        require_whole("seed", seed)
        self.folder = require_path("folder", folder)
        self.identity = identity_of(name, size, seed, configuration)
        self._lock = WriterLock(self.folder)
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        if (self.folder / MANIFEST).exists():
            found = require_same(self.folder, self.identity)
            if found.get("generation"):
                raise ZooError(
                    f"networks were appended to {self.folder}, which building it again would lose. "
                    f"If it is damaged: gmn zoo verify {self.folder} --rescue OUT keeps the rest"
                )
        elif any(self.folder.glob(SHARDS)):
            raise ZooError(f"{self.folder} holds shards but no {MANIFEST}; choose an empty folder")
        else:
            write_file(self.folder / MANIFEST, json_bytes(self.identity))
        self._clean()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Lets others write."""
        self._lock.release()

    def missing(self, shards: int) -> list[int]:
        """Numbers of the shards that are not there, or not as they were written.

        Args:
            shards: Number of shards of the whole zoo.

        Returns:
            The numbers to build, in increasing order; all whole shards are left alone.
        """
        return missing_shards(self.folder, shards)

    def write_shard(
        self,
        number: int,
        architecture: str,
        spec: GraphSpec,
        state: Tensors,
        rows: Sequence[Row],
        extras: Mapping[str, Tensors] | None = None,
        left_out: Sequence[str] = (),
    ) -> None:
        """Writes one shard, all or nothing: see :func:`gmn.zoo.store.shards.write_shard`."""
        write_shard(self.folder, number, architecture, spec, state, rows, extras, left_out)

    def contents(self, shards: int) -> tuple[pa.Table, list[Header]]:
        """The index of the shards written, for a data card.

        Args:
            shards: Number of shards of the whole zoo.

        Returns:
            The index in the order of the ids, and what each shard says of itself.

        Raises:
            ZooError: If a shard is missing or damaged, or the shards do not fit one another.
        """
        return index_of(self.folder, range(shards))

    def finish(self, shards: int, card: dict[str, Any]) -> None:
        """Writes the index and the manifest; from then on the zoo can be opened.

        Args:
            shards: Number of shards of the whole zoo.
            card: The data card: what a reader should know about the population. Nothing in it may
                depend on the moment.

        Raises:
            ZooError: If a shard is missing or damaged, or the shards do not fit one another.
        """
        require_whole("shards", shards, 1)
        _plain("card", card)
        index, headers = self.contents(shards)
        publish(self.folder, self.identity, card, index, headers)
        self._clean()
        provenance.note(self.folder, "finish", {"libraries": provenance.libraries()})

    def _clean(self) -> None:
        """Removes what killed runs left half-written."""
        for path in self.folder.glob(PARTS):
            path.unlink(missing_ok=True)


def write_zoo(
    folder: Path,
    name: str,
    size: int,
    seed: int,
    configuration: dict[str, Any],
    shards: int,
    fill: Callable[[ZooWriter, list[int]], None],
    card: Callable[[pa.Table, list[Header]], dict[str, Any]],
) -> None:
    """Writes a zoo, or what a stopped run left missing; one that is finished is left alone.

    Args:
        folder: Where the zoo lies; created if absent.
        name: Name of the population.
        size: Number of networks asked for.
        seed: Seed of the population.
        configuration: All else that decides what is built; plain JSON values.
        shards: Number of shards of the whole zoo.
        fill: Writes the shards of these numbers.
        card: The data card, from the index and what each shard says of itself.

    Raises:
        ZooError: If the folder holds another zoo, or another writer is at work.
    """
    if is_finished(folder, identity_of(name, size, seed, configuration), shards):
        return
    with ZooWriter(folder, name, size, seed, configuration) as writer:
        fill(writer, writer.missing(shards))
        writer.finish(shards, card(*writer.contents(shards)))


def identity_of(name: str, size: int, seed: int, configuration: dict[str, Any]) -> dict[str, Any]:
    """What makes a zoo this one and no other, as it is written to its manifest."""
    identity = {"name": name, "size": size, "seed": seed, "configuration": configuration}
    return {"version": FORMAT_VERSION, **_plain("configuration", identity)}


def _plain(name: str, values: dict[str, Any]) -> dict[str, Any]:
    """The values as they are after being written as JSON and read again."""
    try:
        plain: dict[str, Any] = json.loads(json.dumps(values))
    except (TypeError, ValueError) as error:
        raise ArgumentError(
            f"{name}: {error}; give plain numbers, text, lists and dictionaries"
        ) from error
    return plain


def require_same(folder: Path, identity: dict[str, Any]) -> dict[str, Any]:
    """The manifest of a folder that holds the zoo of this identity.

    Raises:
        ZooError: If it holds another one.
    """
    found = read_manifest(folder)
    for key, wanted in identity.items():
        if found.get(key) != wanted:
            raise ZooError(
                f"{folder} already holds a zoo with {key} = {found.get(key)!r}, "
                f"not {wanted!r}. Choose another folder, or delete that one."
            )
    return found


def missing_shards(folder: Path, shards: int) -> list[int]:
    """Numbers of the shards that are not there, or not as the manifest says."""
    checksums = {s["file"]: s["sha256"] for s in read_manifest(folder).get("shards", [])}
    return [n for n in range(shards) if not _is_whole(folder / shard_name(n), checksums)]


def _is_whole(path: Path, checksums: Mapping[str, str]) -> bool:
    try:
        read_header(path)
    except ZooError:
        return False
    return checksums.get(path.name) in (None, file_sha256(path))


def is_finished(folder: Path, identity: dict[str, Any], shards: int) -> bool:
    """Whether a folder holds this very zoo, and every file of it is as it was written.

    Args:
        folder: Any folder.
        identity: As :func:`identity_of` gives it.
        shards: Number of shards of the whole zoo.

    Raises:
        ZooError: If it holds another zoo.
    """
    if not (folder / MANIFEST).exists():
        return False
    manifest = require_same(folder, identity)
    if "shards" not in manifest or missing_shards(folder, shards):
        return False
    index = folder / manifest["index"]["file"]
    return index.is_file() and file_sha256(index) == manifest["index"]["sha256"]


def publish(
    folder: Path,
    identity: dict[str, Any],
    card: dict[str, Any],
    index: pa.Table,
    headers: Sequence[Header],
    generation: int = 0,
    known: Sequence[dict[str, Any]] = (),
) -> None:
    """Writes index and manifest, in this order, so that readers see the old zoo or the new one.

    Args:
        folder: Folder of the zoo; all its shards are there.
        identity: As :func:`identity_of` gives it, and what else shall stand in the manifest first.
        card: The data card.
        index: All rows.
        headers: What each shard says of itself, in their order.
        generation: How many times the zoo was appended to.
        known: What the manifest said of the first shards. They are not hashed again: a checksum
            taken now would hide damage that came since.

    Raises:
        ZooError: If two shards give one architecture different specs, or a file cannot be written.
    """
    content = table_bytes(index)
    path = folder / index_name(generation)
    write_file(path, content)
    manifest = {
        **identity,
        "generation": generation,
        "card": card,
        "architectures": _architectures(headers),
        "index": {"file": path.name, "networks": len(index), "bytes": len(content)},
        "shards": [
            *known,
            *(_shard_facts(folder, n, headers[n]) for n in range(len(known), len(headers))),
        ],
    }
    manifest["index"]["sha256"] = file_sha256(path)
    write_file(folder / MANIFEST, json_bytes(manifest))


def _shard_facts(folder: Path, number: int, header: Header) -> dict[str, Any]:
    path = folder / shard_name(number)
    return {
        "file": path.name,
        "architecture": header.architecture,
        "networks": header.networks,
        "layout": header.layout,
        "extras": sorted(header.extras),
        "bytes": path.stat().st_size,
        "sha256": file_sha256(path),
    }


def _architectures(headers: Sequence[Header]) -> dict[str, dict[str, str]]:
    """The fingerprint of each; its spec, which is long, is in its shards."""
    found: dict[str, dict[str, str]] = {}
    for header in headers:
        old = found.setdefault(header.architecture, {"fingerprint": header.fingerprint})
        if old["fingerprint"] != header.fingerprint:
            raise ZooError(
                f"two shards give architecture {header.architecture!r} different specs "
                f"({old['fingerprint'][:8]} and {header.fingerprint[:8]}); name them differently"
            )
    return found
