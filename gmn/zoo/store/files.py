"""The files of a zoo: their names, and the manifest.

A zoo is a folder of ``zoo.json`` (what it is), ``index.parquet`` (one row a network) and shards
``shard-00000.safetensors`` (the stacked tensors of networks of one architecture). Equal arguments
give equal bytes; what depends on the moment (times, versions) is in ``build.jsonl``.
"""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

from gmn.errors import ZooError

FORMAT_VERSION = 2
MANIFEST = "zoo.json"
SHARDS = "shard-*.safetensors"
SHARD = re.compile(r"shard-\d{5,}\.safetensors")

Row = dict[str, Any]


def shard_name(number: int) -> str:
    """File name of the shard of this number."""
    return f"shard-{number:05d}.safetensors"


def index_name(generation: int) -> str:
    """File name of the index after the zoo was appended to `generation` times."""
    return f"index-{generation}.parquet" if generation else "index.parquet"


def read_manifest(folder: Path) -> dict[str, Any]:
    """Reads ``zoo.json``.

    Args:
        folder: folder of the zoo.

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
        version = manifest["version"]
    except (ValueError, KeyError, TypeError) as error:
        raise ZooError(
            f"{path} is damaged: {error!r}. `gmn zoo verify {folder} --rescue OUT` makes a new zoo "
            "of the shards, which name their networks themselves"
        ) from error
    if version != FORMAT_VERSION:
        raise ZooError(
            f"{path} has format version {version!r}; this library reads {FORMAT_VERSION}. Build or "
            "import it again, into another folder"
        )
    return manifest


def json_bytes(value: Any) -> bytes:
    """JSON as it is written to the manifest: in the order of the keys, with a last line break."""
    return (json.dumps(value, indent=1) + "\n").encode()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
