"""Opens a zoo: reads manifest and index, checks that shards exist and have their sizes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from gmn.errors import ZooError
from gmn.zoo.store.files import MANIFEST
from gmn.zoo.store.index import check_places, read_index
from gmn.zoo.store.manifest import read_manifest


def read_zoo(folder: Path) -> tuple[dict[str, Any], pa.Table]:
    """Manifest and index of a finished zoo, which belong together.

    Args:
        folder: folder of the zoo.

    Raises:
        ZooError: If the folder holds no finished zoo, or a file of it is missing or not of the
            size it should have.
    """
    while True:
        manifest = read_manifest(folder)
        if "shards" not in manifest:
            raise ZooError(
                f"{folder} holds an unfinished zoo. "
                "Build it again with the same arguments: it goes on where it stopped."
            )
        try:
            _check_files(folder, manifest["shards"])
            facts = manifest["index"]
            index = read_index(folder / facts["file"], facts["sha256"])
            _check_index(folder, index, manifest["shards"])
            return manifest, index
        except ZooError:
            # A writer that appended since has put another index in the place of this one.
            if read_manifest(folder) == manifest:
                raise


def _check_files(folder: Path, shards: list[dict[str, Any]]) -> None:
    """Checks presence and sizes; the bytes are checked when they are read."""
    sizes = {shard["file"]: _size(folder / shard["file"]) for shard in shards}
    missing = [file for file, size in sizes.items() if size is None]
    wrong = [s["file"] for s in shards if sizes[s["file"]] not in (None, s["bytes"])]
    if missing or wrong:
        lost = sum(s["networks"] for s in shards if s["file"] in (*missing, *wrong))
        raise ZooError(
            f"{folder}: missing {missing or 'nothing'}, damaged {wrong or 'nothing'}: {lost} of "
            f"{sum(s['networks'] for s in shards)} networks, says {MANIFEST}. Build it again with "
            "the same arguments: only these are made anew. Or keep the others: "
            f"gmn zoo verify {folder} --rescue OUT"
        )


def _check_index(folder: Path, index: pa.Table, shards: list[dict[str, Any]]) -> None:
    try:
        check_places(index, shards)
    except ZooError as error:
        raise ZooError(
            f"{folder}: {error}. `gmn zoo verify {folder} --reindex` makes it again from the shards"
        ) from error


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None
