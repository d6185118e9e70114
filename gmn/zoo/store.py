"""The files of a zoo: what is written, in which order, and how damage is noticed.

A zoo is a folder of ``zoo.json`` (what it is), ``index.jsonl`` (one row a network) and shards
``shard-00000.safetensors`` (the stacked states of networks of one architecture). A shard carries
its own rows in its header and appears in one rename, so whatever a killed run leaves behind is
either a whole shard or none.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

FORMAT_VERSION = 1
MANIFEST = "zoo.json"
INDEX = "index.jsonl"
LIBRARIES = ("graph-metanetworks", "torch", "numpy", "safetensors")

Row = dict[str, Any]


class ZooError(Exception):
    """A zoo's files are missing, damaged, or belong to another zoo."""


class ZooWriter:
    """Writes a zoo, or goes on with one that a stopped run left unfinished.

    Args:
        folder: Where the zoo lies; created if absent.
        name: Name of the population.
        size: Number of networks asked for.
        seed: Seed of the population.
        configuration: All else that decides what is built; plain JSON values.

    Raises:
        ZooError: If the folder holds a zoo of another name, size, seed or configuration.
    """

    def __init__(
        self, folder: Path, name: str, size: int, seed: int, configuration: dict[str, Any]
    ) -> None:
        self.folder = folder
        self.identity = json.loads(
            json.dumps(
                {
                    "version": FORMAT_VERSION,
                    "name": name,
                    "size": size,
                    "seed": seed,
                    "configuration": configuration,
                }
            )
        )
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / MANIFEST).exists():
            self._require_same_zoo()
        elif any(folder.glob("shard-*.safetensors")):
            raise ZooError(f"{folder} holds shards but no {MANIFEST}; choose an empty folder")
        else:
            write_atomically(folder / MANIFEST, _json_bytes(self.identity))

    def _require_same_zoo(self) -> None:
        found = read_manifest(self.folder)
        for key, wanted in self.identity.items():
            if found.get(key) != wanted:
                raise ZooError(
                    f"{self.folder} already holds a zoo with {key} = {found.get(key)!r}, "
                    f"not {wanted!r}. Choose another folder, or delete that one."
                )

    @property
    def complete(self) -> bool:
        """Whether the zoo was finished before."""
        return "shards" in read_manifest(self.folder)

    def missing(self, shards: int) -> list[int]:
        """Numbers of the shards that are not there, or not as they were written.

        Args:
            shards: Number of shards of the whole zoo.

        Returns:
            The numbers to build, in increasing order; all whole shards are left alone.
        """
        checksums = {s["file"]: s["sha256"] for s in read_manifest(self.folder).get("shards", [])}
        return [number for number in range(shards) if not self._is_whole(number, checksums)]

    def _is_whole(self, number: int, checksums: dict[str, str]) -> bool:
        path = self.folder / shard_name(number)
        try:
            read_rows(path)
        except ZooError:
            return False
        return checksums.get(path.name) in (None, file_sha256(path))

    def write_shard(
        self, number: int, architecture: str, state: dict[str, Tensor], rows: Sequence[Row]
    ) -> None:
        """Writes one shard, all or nothing.

        Args:
            number: Position of the shard in the zoo.
            architecture: Name of the one architecture in it.
            state: Stacked tensors, each of shape (networks, ...).
            rows: One dict a network: id, split, labels, hyper-parameters.
        """
        file = shard_name(number)
        full = [
            {"id": row["id"], "architecture": architecture, "shard": file, "row": position, **row}
            for position, row in enumerate(rows)
        ]
        tensors = {name: value.contiguous() for name, value in state.items()}
        # safetensors keeps no order, but a state dict has one.
        metadata = {"rows": json.dumps(full), "tensors": json.dumps(list(tensors))}
        content = save(tensors, metadata=metadata)
        write_atomically(self.folder / file, content)

    def collect_rows(self, shards: int) -> list[Row]:
        """Rows of all networks, in the order of their ids.

        Args:
            shards: Number of shards of the whole zoo.

        Returns:
            One dict a network.
        """
        files = [self.folder / shard_name(number) for number in range(shards)]
        return sorted((row for file in files for row in read_rows(file)), key=lambda r: r["id"])

    def finish(
        self, shards: int, rows: Sequence[Row], specs: dict[str, Any], card: dict[str, Any]
    ) -> None:
        """Writes the index and the manifest; from then on the zoo can be opened.

        Args:
            shards: Number of shards of the whole zoo.
            rows: Rows of all networks, as :meth:`collect_rows` gives them.
            specs: The ``GraphSpec`` of each architecture as JSON, or None where there is none.
            card: The data card: what a reader should know about the population.
        """
        files = [shard_name(number) for number in range(shards)]
        counts = Counter(row["shard"] for row in rows)
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        write_atomically(self.folder / INDEX, lines.encode())
        manifest = {
            **self.identity,
            "built": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "libraries": {name: version(name) for name in LIBRARIES},
            "architectures": {name: {"spec": spec} for name, spec in specs.items()},
            "card": card,
            "index_sha256": file_sha256(self.folder / INDEX),
            "shards": [
                {"file": file, "networks": counts[file], "sha256": file_sha256(self.folder / file)}
                for file in files
            ],
        }
        write_atomically(self.folder / MANIFEST, _json_bytes(manifest))


def shard_name(number: int) -> str:
    """File name of the shard of this number."""
    return f"shard-{number:05d}.safetensors"


def read_manifest(folder: Path) -> dict[str, Any]:
    """Reads ``zoo.json``.

    Args:
        folder: Folder of the zoo.

    Returns:
        Its content; without the key ``shards`` while the zoo is unfinished.

    Raises:
        ZooError: If there is no such file, it is damaged, or of an unknown version.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise ZooError(f"{folder} is not a zoo: it has no {MANIFEST}")
    try:
        manifest: dict[str, Any] = json.loads(path.read_bytes())
        found = manifest["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise ZooError(f"{path} is damaged: {error!r}") from error
    if found != FORMAT_VERSION:
        raise ZooError(f"{path} has format version {found!r}; this library reads {FORMAT_VERSION}")
    return manifest


def read_rows(shard: Path) -> list[Row]:
    """Reads the rows of a shard from its header.

    Args:
        shard: Path of the shard.

    Returns:
        One dict a network, in the order of the stacked tensors.

    Raises:
        ZooError: If the shard is missing, truncated or unreadable.
    """
    with _open_shard(shard) as file:
        rows: list[Row] = json.loads(file.metadata()["rows"])
        return rows


def read_tensors(shard: Path) -> dict[str, Tensor]:
    """Reads the stacked states of a shard.

    Args:
        shard: Path of the shard.

    Returns:
        Tensors of shape (networks, ...), in the order of the networks' state dicts.

    Raises:
        ZooError: If the shard is missing, truncated or unreadable.
    """
    with _open_shard(shard) as file:
        return {name: file.get_tensor(name) for name in json.loads(file.metadata()["tensors"])}


@contextmanager
def _open_shard(shard: Path) -> Iterator[Any]:
    try:
        with safe_open(shard, framework="pt") as file:
            yield file
    except FileNotFoundError as error:
        raise ZooError(f"shard {shard.name} is missing from {shard.parent}") from error
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ZooError(f"shard {shard} is truncated or corrupt: {error}") from error


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file so that a reader, or a run after a crash, sees all of it or nothing.

    Args:
        path: Where the file shall be.
        content: What it shall hold.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _json_bytes(value: Any) -> bytes:
    return (json.dumps(value, indent=1) + "\n").encode()
