"""Published files of splits: JSON with the paths of networks under train, val and test."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gmn.errors import ZooError
from gmn.foundation.arguments import require_path
from gmn.zoo.importing.layout import Layout
from gmn.zoo.population import SPLITS


class SplitLayout(Layout):
    """A layout of which nothing is to be chosen but its splits.

    Args:
        source: the folder of the published files.
        splits: A published file of splits, or None.
    """

    def __init__(self, source: str | Path, splits: str | Path | None = None) -> None:
        self.source = require_path("source", source)
        self.splits = None if splits is None else require_path("splits", splits)

    def configuration(self) -> dict[str, Any]:
        """Whether the published splits are used."""
        return {"published_splits": self.splits is not None}


def read_splits(path: Path, name_in: Callable[[str], str | None], example: str) -> dict[str, str]:
    """The split of each network that a file names.

    Args:
        path: the file: for each of ``train``, ``val`` and ``test`` a list of paths, or an object
            with such a list under ``path``.
        name_in: the part of a path that names a network or run; None if there is no such part.
        example: such a part, for messages.

    Raises:
        ZooError: If the file cannot be read, or a path names nothing, or two splits one thing.
    """
    try:
        content = json.loads(path.read_bytes())
        lists = {
            split: value["path"] if isinstance(value := content[split], dict) else value
            for split in SPLITS
        }
        names = {split: [name_in(item) for item in items] for split, items in lists.items()}
    except OSError as error:
        raise ZooError(f"{path}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ZooError(
            f"{path} is no file of splits ({error!r}): wanted is JSON with the paths of networks "
            f"under {', '.join(SPLITS)}"
        ) from error
    result: dict[str, str] = {}
    for split, split_names in names.items():
        for position, name in enumerate(split_names):
            if name is None:
                raise ZooError(
                    f"{path}: path {position} of {split}, {lists[split][position]!r}, names no "
                    f"folder like {example}"
                )
            if result.setdefault(name, split) != split:
                raise ZooError(f"{path}: {name} is in two splits, {result[name]}, {split}")
    return result
