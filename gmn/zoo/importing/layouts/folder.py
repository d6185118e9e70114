"""A folder of one's own checkpoints of one architecture, with a table of labels."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import nn

import converters
from gmn.errors import ZooError
from gmn.foundation.arguments import require_path
from gmn.zoo.importing.layout import Architecture, Entry, Layout, Listing, State
from gmn.zoo.importing.layouts.tables import columns, read_table
from gmn.zoo.population import SPLITS
from gmn.zoo.seeds import split_of
from gmn.zoo.store.files import Row

ENDINGS = (".pt", ".pth", ".ckpt", ".bin", ".safetensors", ".npz", ".h5", ".hdf5")
LABELS = ("test_accuracy", "label")  # what tasks predict: a number in every row, or no task works


class CheckpointFolder(Layout):
    """Checkpoints of one architecture, of any format that ``converters`` read, and a CSV table.

    The table's column ``file`` is the path of a checkpoint in the folder; all other columns become
    labels. Three of them mean something: ``split`` is the split (``train``, ``val`` or ``test``),
    ``run`` names the training run, and ``test_accuracy`` and ``label`` are what tasks predict.
    Without a column ``split`` the split is this library's own: 70 % train, 15 % val, 15 % test, by
    ``run`` if there is such a column, so that no run is in two splits, and by file if not.

    Args:
        source: the folder; checkpoints may lie in folders in it.
        labels: the table, a CSV file, compressed with gzip or not.
        model: A network of the architecture; its weights do not count.
        inputs: an example of its inputs, with which it is traced.
        key: where in the files the state dict lies, as for :func:`converters.load_checkpoint`.
    """

    name = "folder"
    reference = "a folder of checkpoints"

    def __init__(
        self,
        source: str | Path,
        labels: str | Path,
        model: nn.Module,
        inputs: tuple[Any, ...],
        key: str | None = None,
    ) -> None:
        self.source = require_path("source", source)
        self.labels = require_path("labels", labels)
        self.model = model
        self.inputs = inputs
        self.key = key

    def __getstate__(self) -> dict[str, Any]:
        """Without the network, which may be large and is not needed to read others."""
        return {**super().__getstate__(), "model": None, "inputs": ()}

    def configuration(self) -> dict[str, Any]:
        """The network as it prints, and where in the files its weights lie."""
        return {"model": str(self.model), "key": self.key}

    def architecture(self, name: str) -> Architecture:
        """The one architecture, and its inputs."""
        return self.model, self.inputs

    def listing(self) -> Listing:
        """All networks by file, in the order of the table; rows hold its columns."""
        if not self.source.is_dir():
            raise ZooError(f"{self.source} is no folder; give the one with the checkpoints")
        table = _read_labels(self.labels)
        architecture = type(self.model).__name__
        entries, skipped = [], []
        for file, line in table.items():
            if problem := self._problem(file, line):
                skipped.append(f"{file}: {problem}")
            else:
                place = (self.source / file, 0)
                entries.append(Entry(file, architecture, _row(file, line), place))
        skipped += [
            f"{file}: {self.labels.name} has no row of it"
            for file in _checkpoints(self.source)
            if file not in table and not any(str(part) in table for part in Path(file).parents)
        ]
        return Listing(tuple(entries), {}, tuple(skipped), _rule(next(iter(table.values()))))

    def read(self, entry: Entry) -> State:
        """Reads one file; code in it never runs."""
        return converters.load_checkpoint(entry.place[0], key=self.key)

    def _problem(self, file: str, line: dict[str, str]) -> str:
        if not (self.source / file).exists():
            return f"{self.labels.name} has a row of it, but there is no such file"
        if "split" in line and line["split"] not in SPLITS:
            return f"its split is {line['split']!r}, not one of {', '.join(SPLITS)}"
        for label in LABELS:
            if label in line and not _is_number(line[label]):
                return f"its {label} is {line[label]!r}, no finite number"
        return ""


def _read_labels(path: Path) -> dict[str, dict[str, str]]:
    """The rows of the table by file."""
    table = read_table(path)
    if not table or "file" not in table[0]:
        header = ", ".join(table[0]) if table else "no rows"
        raise ZooError(f"{path} has no column 'file' that names the checkpoints; it has {header}")
    result: dict[str, dict[str, str]] = {}
    for line_number, line in enumerate(table, start=2):
        file = Path(line["file"] or "").as_posix()
        if file == "." or Path(file).is_absolute() or ".." in Path(file).parts:
            raise ZooError(
                f"{path}, line {line_number}: {line['file']!r} is no path of a checkpoint in the "
                "folder"
            )
        if file in result:
            raise ZooError(f"{path}, line {line_number}: {file} has a row already")
        result[file] = line
    return result


def _rule(line: dict[str, str]) -> str:
    """Where the splits come from; all lines have the same columns."""
    if "split" in line:
        return "column split of the table"
    by = "run" if "run" in line else "file"
    return f"this library's own, by {by}: 70 % train, 15 % val, 15 % test"


def _row(file: str, line: dict[str, str]) -> Row:
    split = line.get("split") or split_of(0, line.get("run") or file)
    labels = {name: text for name, text in line.items() if name not in ("file", "split")}
    return columns(labels) | {"id": file, "split": split}


def _checkpoints(source: Path) -> Iterator[str]:
    """Files that look like checkpoints, sorted."""
    for path in sorted(source.rglob("*")):
        if path.suffix in ENDINGS and path.is_file():
            yield path.relative_to(source).as_posix()


def _is_number(text: str | None) -> bool:
    try:
        return math.isfinite(float(text or ""))
    except ValueError:
        return False
