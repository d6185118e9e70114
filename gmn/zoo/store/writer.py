"""Writes a zoo shard by shard, so that a run killed at any moment can be continued."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import pyarrow as pa

from gmn.errors import ArgumentError, ZooError
from gmn.foundation.arguments import require_path, require_type, require_whole
from gmn.foundation.files import OutputFolder
from gmn.spec import GraphSpec
from gmn.zoo.store import provenance
from gmn.zoo.store.files import (
    FORMAT_VERSION,
    MANIFEST,
    Row,
    file_sha256,
    index_name,
    json_bytes,
    shard_name,
)
from gmn.zoo.store.index import index_of, table_bytes
from gmn.zoo.store.manifest import read_manifest
from gmn.zoo.store.shards import Header, Tensors, read_header, write_shard
from gmn.zoo.store.writing import zoo_folder


class ZooWriter:
    """Writes a zoo, or continues one that a stopped run left unfinished.

    One writer at a time: use it in a ``with`` statement, or call :meth:`close`.

    Args:
        folder: folder of the zoo; created if absent.
        name: name of the population.
        size: requested number of networks.
        seed: seed of the population.
        configuration: everything else that determines the population; plain JSON values.
        inputs: folders that are read; the zoo may not be one of them, or lie in it.

    Raises:
        ZooError: If the folder holds a zoo of another name, size, seed or configuration, or
            anything else, or another writer is at work.

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
        self,
        folder: str | Path,
        name: str,
        size: int,
        seed: int,
        configuration: dict[str, Any],
        inputs: Sequence[str | Path] = (),
    ) -> None:
        require_type("name", name, str, "the population's name as text")
        require_whole("size", size, 0)
        require_whole("seed", seed)
        self.folder = require_path("folder", folder)
        self.identity = identity_of(name, size, seed, configuration)
        self._output = zoo_folder(self.folder, inputs)
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        if (self.folder / MANIFEST).exists():
            manifest = require_same(self.folder, self.identity)
            if manifest.get("generation"):
                raise ZooError(
                    f"networks were appended to {self.folder}, which building it again would lose. "
                    f"If it is damaged: gmn zoo verify {self.folder} --rescue OUT keeps the rest"
                )
        else:
            self._output.write(MANIFEST, json_bytes(self.identity))
        self._output.claim(provenance.JOURNAL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *about: object) -> None:
        self.close()

    def close(self) -> None:
        """Releases the lock: other processes can write."""
        self._output.close()

    def missing(self, shards: int) -> list[int]:
        """Numbers of the shards that are not there, or not as they were written.

        Args:
            shards: number of shards of the whole zoo.

        Returns:
            The numbers of the shards to build, in increasing order; intact shards are kept.
        """
        self._output.claim(*map(shard_name, range(shards)))
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
        self._output.claim(shard_name(require_whole("number", number, 0)))
        write_shard(self.folder, number, architecture, spec, state, rows, extras, left_out)

    def note(self, event: str, facts: dict[str, Any]) -> None:
        """Adds an event to the build log: see :func:`gmn.zoo.store.provenance.note`."""
        provenance.note(self._output, event, facts)

    def contents(self, shards: int) -> tuple[pa.Table, list[Header]]:
        """The index of the shards written, for a data card.

        Args:
            shards: number of shards of the whole zoo.

        Returns:
            The index in the order of the ids, and the headers of the shards.

        Raises:
            ZooError: If a shard is missing or damaged, or the shards do not fit one another.
        """
        return index_of(self.folder, range(shards))

    def finish(self, shards: int, card: dict[str, Any]) -> None:
        """Writes the index and the manifest; from then on the zoo can be opened.

        Args:
            shards: number of shards of the whole zoo.
            card: the data card: what a reader should know about the population. Nothing in it may
                depend on the moment.

        Raises:
            ZooError: If a shard is missing or damaged, or the shards do not fit one another.
        """
        require_whole("shards", shards, 1)
        _plain("card", card)
        index, headers = self.contents(shards)
        publish(self._output, self.identity, card, index, headers)
        provenance.note(self._output, "finish", {"libraries": provenance.libraries()})


def write_zoo(
    folder: Path,
    name: str,
    size: int,
    seed: int,
    configuration: dict[str, Any],
    shards: int,
    fill: Callable[[ZooWriter, list[int]], None],
    card: Callable[[pa.Table, list[Header]], dict[str, Any]],
    inputs: Sequence[str | Path] = (),
) -> None:
    """Writes a zoo, or what a stopped run left missing; one that is finished is left alone.

    Args:
        folder: folder of the zoo; created if absent.
        name: name of the population.
        size: requested number of networks.
        seed: seed of the population.
        configuration: everything else that determines the population; plain JSON values.
        shards: number of shards of the whole zoo.
        fill: writes the shards of these numbers.
        card: makes the data card from the index and the headers of the shards.
        inputs: folders that are read; the zoo may not be one of them, or lie in it.

    Raises:
        ZooError: If the folder holds another zoo, or anything else, or another writer is at work.
    """
    if is_finished(folder, identity_of(name, size, seed, configuration), shards):
        return
    with ZooWriter(folder, name, size, seed, configuration, inputs) as writer:
        fill(writer, writer.missing(shards))
        writer.finish(shards, card(*writer.contents(shards)))


def identity_of(name: str, size: int, seed: int, configuration: dict[str, Any]) -> dict[str, Any]:
    """What identifies a zoo, as it is written to its manifest."""
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
    manifest = read_manifest(folder)
    for key, expected in identity.items():
        if manifest.get(key) != expected:
            raise ZooError(
                f"{folder} already holds a zoo with {key} = {manifest.get(key)!r}, "
                f"not {expected!r}. Choose another folder, or --overwrite that one."
            )
    return manifest


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
        folder: any folder.
        identity: result of :func:`identity_of`.
        shards: number of shards of the whole zoo.

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
    output: OutputFolder,
    identity: dict[str, Any],
    card: dict[str, Any],
    index: pa.Table,
    headers: Sequence[Header],
    generation: int = 0,
    known: Sequence[dict[str, Any]] = (),
) -> None:
    """Writes index and manifest, in this order, so that readers see the old zoo or the new one.

    Args:
        output: folder of the zoo; all its shards are there.
        identity: result of :func:`identity_of`, and what else precedes in the manifest.
        card: the data card.
        index: all rows.
        headers: headers of the shards, in order.
        generation: how many times the zoo was appended to.
        known: entries of the first shards in the manifest so far. They are not hashed again: a
            new checksum would hide damage that happened since.

    Raises:
        ZooError: If two shards give one architecture different specs, or a file cannot be written.
    """
    content = table_bytes(index)
    path = output.write(index_name(generation), content)
    manifest = {
        **identity,
        "generation": generation,
        "card": card,
        "architectures": _architectures(headers),
        "index": {"file": path.name, "networks": len(index), "bytes": len(content)},
        "shards": [
            *known,
            *(_shard_facts(output.path, n, headers[n]) for n in range(len(known), len(headers))),
        ],
    }
    manifest["index"]["sha256"] = file_sha256(path)
    output.write(MANIFEST, json_bytes(manifest))


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
    architectures: dict[str, dict[str, str]] = {}
    for header in headers:
        known = architectures.setdefault(header.architecture, {"fingerprint": header.fingerprint})
        if known["fingerprint"] != header.fingerprint:
            raise ZooError(
                f"two shards give architecture {header.architecture!r} different specs "
                f"({known['fingerprint'][:8]} and {header.fingerprint[:8]}); name them differently"
            )
    return architectures
