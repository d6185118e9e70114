"""The index of a zoo: one row a network, as an Arrow table in a Parquet file."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gmn.errors import ZooError
from gmn.zoo.store.files import shard_name
from gmn.zoo.store.shards import Header, read_header

STRETCH = 100  # so much more than the file an index may take in memory
ALLOWANCE = 64 << 20  # bytes


def shard_table(header: Header, number: int) -> pa.Table:
    """The rows of the index that one shard holds.

    Args:
        header: the header of the shard.
        number: the number of the shard.
    """
    count = header.networks
    labels = dict(header.columns)
    columns: dict[str, Any] = {
        "id": pa.array(labels.pop("id"), pa.string()),
        "architecture": _repeated(header.architecture, count),
        "spec": _repeated(header.fingerprint, count),
        "shard": pa.repeat(pa.scalar(number, pa.int32()), count),
        "row": pa.array(range(count), pa.int32()),
        "split": pa.array(labels.pop("split"), pa.string()).dictionary_encode(),
    }
    columns |= {name: pa.array(values) for name, values in labels.items()}
    return pa.table(columns)


def _repeated(text: str, count: int) -> Any:
    return pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), count), [text])


def join(tables: list[pa.Table]) -> pa.Table:
    """Joins the rows of several shards to one index, in the order of the ids.

    Args:
        tables: at least one, as :func:`shard_table` gives them.

    Raises:
        ZooError: If an id is there twice, or a column holds text in one shard and numbers in
            another.
    """
    tables = [table for table in tables if len(table)] or tables[:1]
    try:
        table = pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise ZooError(_clash(tables) or f"the rows of the shards do not fit: {error}") from error
    table = table.sort_by("id").unify_dictionaries().combine_chunks()
    _check_unique(table)
    return table


def _clash(tables: list[pa.Table]) -> str | None:
    """Which column is of different kinds in two shards."""
    seen: dict[str, tuple[Any, str]] = {}
    for table in tables:
        network = table["id"][0].as_py()
        for field in table.schema:
            if pa.types.is_null(field.type):
                continue
            other, first = seen.setdefault(field.name, (field.type, network))
            if _kind(other) != _kind(field.type):
                return (
                    f"column {field.name} holds {other} in the shard of network {first}, but "
                    f"{field.type} in that of network {network}"
                )
    return None


def is_number(arrow_type: Any) -> bool:
    """Whether values of this Arrow type are numbers or truth values."""
    return bool(
        pa.types.is_integer(arrow_type)
        or pa.types.is_floating(arrow_type)
        or pa.types.is_boolean(arrow_type)
    )


def _kind(arrow_type: Any) -> str:
    return (
        "number"
        if is_number(arrow_type) and not pa.types.is_boolean(arrow_type)
        else str(arrow_type)
    )


def _check_unique(table: pa.Table) -> None:
    ids = table["id"]
    repeated = pc.equal(ids[1:], ids[:-1])
    if pc.any(repeated).as_py():
        position = pc.index(repeated, pa.scalar(True)).as_py()
        files = [shard_name(table["shard"][position + i].as_py()) for i in (0, 1)]
        raise ZooError(
            f"two networks have the id {ids[position].as_py()!r}, in {files[0]} and {files[1]}; "
            "every network needs its own"
        )


def index_of(folder: Path, shards: range) -> tuple[pa.Table, list[Header]]:
    """The index, made from the shards.

    Args:
        folder: folder of the zoo.
        shards: the numbers of its shards; at least one.

    Returns:
        The index, and the headers of the shards without the values of their rows.

    Raises:
        ZooError: If a shard is missing or damaged, or the shards do not fit one another.
    """
    headers, tables = [], []
    for number in shards:
        header = read_header(folder / shard_name(number))
        try:
            tables.append(shard_table(header, number))
        except (pa.ArrowException, OverflowError, TypeError) as error:
            raise ZooError(f"{folder / shard_name(number)} is damaged: {error}") from error
        headers.append(replace(header, columns={}))  # as Python lists they take much memory
    return join(tables), headers


def table_bytes(table: pa.Table) -> bytes:
    """The Parquet file of an index; equal tables give equal bytes."""
    file = io.BytesIO()
    pq.write_table(table, file, compression="zstd")
    return file.getvalue()


def read_index(path: Path, sha256: str) -> pa.Table:
    """Reads an index whose checksum is known.

    Args:
        path: path of the Parquet file.
        sha256: its SHA-256, in hexadecimal.

    Raises:
        ZooError: If the file is missing, or its checksum differs.
    """
    advice = f"`gmn zoo verify {path.parent} --reindex` makes it again from the shards"
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise ZooError(f"{path.parent}: missing ['{path.name}']. {advice}") from None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ZooError(f"{path.parent}: damaged ['{path.name}']. {advice}")
    try:
        file = pq.ParquetFile(pa.BufferReader(content))
        _check_size(file.metadata, len(content))
        return file.read()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ZooError(f"{path} is no index: {error}. {advice}") from error


def _check_size(facts: Any, size: int) -> None:
    """Refuses a file whose columns would take far more memory than it has bytes."""
    groups = [facts.row_group(number) for number in range(facts.num_row_groups)]
    claimed = sum(
        group.column(number).total_uncompressed_size
        for group in groups
        for number in range(facts.num_columns)
    )
    claimed = max(claimed, 8 * facts.num_rows * facts.num_columns)
    if claimed > STRETCH * size + ALLOWANCE:
        raise ValueError(f"its {size:,} bytes claim {claimed:,} in memory")


def check_places(table: pa.Table, shards: Sequence[dict[str, Any]]) -> None:
    """Checks that every row of an index has an id, and a place in a shard.

    Args:
        table: The index.
        shards: What the manifest says of each.

    Raises:
        ZooError: If it has another number of rows, lacks a column, or names a place that is none.
    """
    networks = [shard["networks"] for shard in shards]
    if len(table) != sum(networks):
        raise ZooError(f"the index has {len(table):,} rows for {sum(networks):,} networks")
    for name, fits in _KINDS.items():
        if name not in table.column_names or not fits(_value_type(table.schema.field(name).type)):
            raise ZooError(f"the index has no column {name} of the kind it should have")
        if name != "split" and table[name].null_count:
            raise ZooError(f"the index has rows without {name}")
    known = {shard["architecture"] for shard in shards}
    if unknown := set(pc.unique(table["architecture"]).to_pylist()) - known:
        raise ZooError(f"the index has networks of {sorted(unknown)[0]!r}, of which no shard is")
    shard, row = (table[name].to_numpy() for name in ("shard", "row"))
    wrong = (shard < 0) | (shard >= len(networks))
    wrong |= (row < 0) | (row >= np.asarray(networks)[np.where(wrong, 0, shard)])
    if wrong.any():
        first = int(wrong.argmax())
        raise ZooError(
            f"the index places network {table['id'][first].as_py()!r} in row {row[first]} of shard "
            f"{shard[first]}, which does not exist"
        )


def _value_type(kind: Any) -> Any:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


_KINDS = {
    **dict.fromkeys(("id", "architecture", "spec"), pa.types.is_string),
    **dict.fromkeys(("shard", "row"), pa.types.is_integer),
    "split": lambda kind: pa.types.is_string(kind) or pa.types.is_null(kind),
}


def histogram(table: pa.Table, column: str) -> dict[str, int]:
    """How many networks have each value of a column, most first; networks without one as "none".

    Args:
        table: the index.
        column: a column of few different values.
    """
    counts = pc.value_counts(table[column].combine_chunks()).to_pylist()
    ordered = sorted(counts, key=lambda entry: (-entry["counts"], str(entry["values"])))
    return {
        "none" if entry["values"] is None else str(entry["values"]): entry["counts"]
        for entry in ordered
    }


def numeric_columns(table: pa.Table) -> Iterator[str]:
    """Names of the columns of numbers or truth values, without ``shard`` and ``row``."""
    for field in table.schema:
        if is_number(field.type) and field.name not in ("shard", "row"):
            yield field.name
