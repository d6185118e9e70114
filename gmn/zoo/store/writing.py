"""Opens the folder of a zoo for writing."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from gmn.errors import ZooError
from gmn.foundation.arguments import require_several
from gmn.foundation.files import OutputFolder, is_plain
from gmn.zoo.store.files import MANIFEST, SHARD
from gmn.zoo.store.manifest import read_manifest
from gmn.zoo.store.provenance import JOURNAL
from gmn.zoo.store.shards import read_header


def zoo_folder(
    folder: str | os.PathLike[str], inputs: Iterable[str | os.PathLike[str]] = ()
) -> OutputFolder:
    """The right to write to a zoo, which one process has at a time.

    Args:
        folder: Folder of the zoo; made if absent.
        inputs: Folders that are read; the zoo may not be one of them, or lie in it.

    Raises:
        ZooError: If the folder holds anything else, another writer is at work, or it cannot be
            written to.
    """
    require_several("inputs", inputs, "folders that are read")
    return OutputFolder(folder, "zoo", inputs=inputs, earlier=_files_of_0_1, error=ZooError)


def _files_of_0_1(folder: Path) -> set[str] | None:
    """The files of a zoo that was written before folders had markers."""
    if not (folder / MANIFEST).is_file():
        return None
    manifest = read_manifest(folder)
    shards = [shard["file"] for shard in manifest.get("shards", [])]
    if "shards" not in manifest:
        shards = [path.name for path in folder.iterdir() if _is_shard(path)]
    index = [manifest["index"]["file"]] if "index" in manifest else []
    return {name for name in (MANIFEST, JOURNAL, *index, *shards) if is_plain(name)}


def _is_shard(path: Path) -> bool:
    try:
        return SHARD.fullmatch(path.name) is not None and bool(read_header(path))
    except ZooError:
        return False
