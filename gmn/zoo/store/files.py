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


def json_bytes(value: Any) -> bytes:
    """JSON as it is written to the manifest: in the order of the keys, with a last line break."""
    return (json.dumps(value, indent=1) + "\n").encode()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
