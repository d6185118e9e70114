"""Published tables: CSV files, compressed or not."""

from __future__ import annotations

import csv
import gzip
import math
import zlib
from collections.abc import Mapping
from pathlib import Path

from gmn.errors import ZooError
from gmn.zoo.store.files import Row

RESERVED = {"id", "architecture", "spec", "shard", "row", "split"}


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file.

    Raises:
        ZooError: If it cannot be read.
    """
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", newline="") as file:
            return list(csv.DictReader(file))
    except (OSError, EOFError, UnicodeDecodeError, csv.Error, zlib.error) as error:
        raise ZooError(f"{path} cannot be read: {error}; unpack the archive again") from error


def columns(line: Mapping[str, str]) -> Row:
    """All columns of a line: numbers as numbers, and what is empty or not finite as None.

    ``config.`` is taken off names, and ``published_`` put before names that a zoo needs itself.
    """
    row: Row = {}
    for column, text in line.items():
        name = column.removeprefix("config.") if column else ""
        if name in RESERVED:
            name = f"published_{name}"
        if name:  # a column without a name repeats the row number
            row[column if name in row else name] = _value(text)
    return row


def _value(text: str | None) -> float | str | None:
    try:
        value = float(text or "")
    except ValueError:
        return text or None
    return value if math.isfinite(value) else None
