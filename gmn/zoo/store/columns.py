"""Checks the values of rows and arranges them in columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from gmn.errors import ZooError
from gmn.foundation.arguments import require_several, require_type
from gmn.zoo.store.files import Row

SPLITS = ("train", "val", "test")
RESERVED = ("architecture", "spec", "shard", "row")  # columns that the library fills in itself


def columns_of(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """The values of all rows by column, ``id`` and ``split`` first; None where a row has none.

    Args:
        rows: one dict a network.

    Raises:
        ZooError: If an id is missing or there twice, a split is unknown, or a value is neither
            text, number, truth value nor None, or not of the same kind as the others in its column.
    """
    require_several("rows", rows, "dictionaries, one for each network")
    for row in rows:
        require_type("a row", row, Mapping, "a dictionary of values by column")
    names = dict.fromkeys(["id", "split", *(name for row in rows for name in row)])
    columns: dict[str, list[Any]] = {name: [row.get(name) for row in rows] for name in names}
    _check_ids(columns["id"])
    for name, values in columns.items():
        require_type("a column", name, str, "columns names of text")
        if name in RESERVED:
            raise ZooError(f"a row may not have a column {name!r}: the zoo fills that in itself")
        _check_values(name, values, columns["id"])
    return columns


def _check_ids(ids: list[Any]) -> None:
    seen: set[str] = set()
    for row, name in enumerate(ids):
        if not isinstance(name, str) or not name:
            raise ZooError(f"row {row} has the id {name!r}; every network needs a text as id")
        if name in seen:
            raise ZooError(f"the id {name!r} is there twice; every network needs its own")
        seen.add(name)


def _check_values(column: str, values: list[Any], ids: list[str]) -> None:
    for value, name in zip(values, ids, strict=True):
        if not isinstance(value, str | bool | int | float | None):
            raise ZooError(
                f"network {name}: {column} is a {type(value).__name__}; an index holds text, "
                "numbers, truth values and None"
            )
        if column == "split" and value not in (*SPLITS, None):
            raise ZooError(f"network {name}: split is {value!r}, not one of {', '.join(SPLITS)}")
    try:
        pa.array(values)
    except (pa.ArrowException, OverflowError) as error:
        first = next(value for value in values if value is not None)
        for name, value in zip(ids, values, strict=True):
            if isinstance(value, int) and not -(2**63) <= value < 2**63:
                raise ZooError(
                    f"network {name}: {column} is {value}, which does not fit in 64 bits; write "
                    "it as a float or as text"
                ) from error
        name, value = next(
            (name, value)
            for name, value in zip(ids, values, strict=True)
            if value is not None and not _comparable(value, first)
        )
        raise ZooError(
            f"network {name}: {column} is {value!r}, of other networks values like {first!r}; a "
            "column holds values of one kind"
        ) from error


def _comparable(first: Any, second: Any) -> bool:
    numeric = (int, float)
    if isinstance(first, bool) or isinstance(second, bool):
        return type(first) is type(second)
    return isinstance(first, numeric) == isinstance(second, numeric)
