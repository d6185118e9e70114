"""The files of a zoo: their names, the manifest, and how a file is written.

A zoo is a folder of ``zoo.json`` (what it is), ``index.parquet`` (one row a network) and shards
``shard-00000.safetensors`` (the stacked tensors of networks of one architecture). Equal arguments
give equal bytes; what depends on the moment (times, versions) is in ``build.jsonl``.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

from gmn.errors import ZooError

FORMAT_VERSION = 2
MANIFEST = "zoo.json"
SHARDS = "shard-*.safetensors"
PARTS = ".*.part"

Row = dict[str, Any]


def shard_name(number: int) -> str:
    """File name of the shard of this number."""
    return f"shard-{number:05d}.safetensors"


def index_name(generation: int) -> str:
    """File name of the index after the zoo was appended to `generation` times."""
    return f"index-{generation}.parquet" if generation else "index.parquet"


def json_bytes(value: Any) -> bytes:
    """JSON as it is written to the manifest: in the order of the keys, with a last line break."""
    return (json.dumps(value, indent=1) + "\n").encode()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_file(path: Path, content: bytes) -> None:
    """Writes a file of a zoo, all or nothing.

    Args:
        path: Where the file shall be.
        content: What it shall hold.

    Raises:
        ZooError: If it cannot be written: no space, no permission.
    """
    try:
        write_atomically(path, content)
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> ZooError:
    """What to tell of a file that could not be written."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    advice = " Make room and run the same again: it goes on where it stopped." if full else ""
    return ZooError(f"{path} cannot be written: {error.strerror or error}.{advice}")


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
