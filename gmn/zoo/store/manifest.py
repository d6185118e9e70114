"""Reads ``zoo.json``; what it names is looked at only if it fits the schema and is called so."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NotRequired, TypedDict

from gmn.errors import ZooError
from gmn.foundation import manifest
from gmn.foundation.manifest import Count, ManifestError, Sha256
from gmn.zoo.store.files import FORMAT_VERSION, MANIFEST, index_name, shard_name


class ShardFacts(TypedDict):
    """What the manifest says of a shard."""

    file: str
    architecture: str
    networks: Count
    layout: str
    extras: NotRequired[list[str]]
    bytes: Count
    sha256: Sha256


class IndexFacts(TypedDict):
    """What the manifest says of the index."""

    file: str
    networks: Count
    bytes: Count
    sha256: Sha256


class ArchitectureFacts(TypedDict):
    """What the manifest says of an architecture."""

    fingerprint: str


class _Versioned(TypedDict):
    version: int


class Identity(_Versioned):
    """What makes a zoo this one and no other; all that an unfinished one has."""

    name: str
    size: int
    seed: int
    configuration: dict[str, Any]


class Manifest(Identity):
    """The manifest of a finished zoo."""

    generation: NotRequired[Count]
    card: dict[str, Any]
    architectures: dict[str, ArchitectureFacts]
    index: IndexFacts
    shards: list[ShardFacts]


def read_manifest(folder: Path) -> dict[str, Any]:
    """Reads ``zoo.json``.

    Args:
        folder: Folder of the zoo.

    Returns:
        Its content, checked; without the key ``shards`` while the zoo is unfinished.

    Raises:
        ZooError: If there is no such file, it is damaged, or of an unknown version.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise ZooError(f"{folder} is not a zoo: it has no {MANIFEST}")
    try:
        content: dict[str, Any] = manifest.read(path)
        found = manifest.check(content, _Versioned, path)["version"]
        if found == FORMAT_VERSION:
            _check(content, path)
            return content
    except ManifestError as error:
        raise ZooError(
            f"{error}. `gmn zoo verify {folder} --rescue OUT` makes a new zoo of the shards, which "
            "name their networks themselves"
        ) from error
    raise ZooError(
        f"{path} has format version {found!r}; this library reads {FORMAT_VERSION}. Build or "
        "import it again, into another folder"
    )


def _check(content: dict[str, Any], path: Path) -> None:
    """Checks types and numbers, and that files are called as the library calls them."""
    if "shards" not in content:
        manifest.check(content, Identity, path)
        return
    facts = manifest.check(content, Manifest, path)
    generation = content.setdefault("generation", 0)  # as the first versions left it out
    _require(path, "index.file", facts["index"]["file"], index_name(generation))
    for number, shard in enumerate(content["shards"]):
        shard.setdefault("extras", [])
        _require(path, f"shards[{number}].file", shard["file"], shard_name(number))
        if shard["networks"] > shard["bytes"]:
            raise ManifestError(
                f"{path} is damaged: shards[{number}].networks: {shard['networks']:,} networks in "
                f"{shard['bytes']:,} bytes"
            )
        if shard["architecture"] not in facts["architectures"]:
            raise ManifestError(
                f"{path} is damaged: shards[{number}].architecture: {shard['architecture']!r} is "
                "none of its architectures"
            )
    networks = sum(shard["networks"] for shard in facts["shards"])
    _require(path, "index.networks", facts["index"]["networks"], networks)
    if not facts["shards"]:
        raise ManifestError(f"{path} is damaged: shards: there are none")


def _require(path: Path, field: str, found: object, wanted: object) -> None:
    if found != wanted:
        raise ManifestError(f"{path} is damaged: {field}: {str(found)[:80]!r}, not {wanted!r}")
