"""Exports a zoo as one file per network and a CSV table."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import pyarrow as pa
import pyarrow.csv as pacsv
import torch
from safetensors.torch import save
from torch import Tensor
from tqdm import tqdm

from gmn.errors import ZooError
from gmn.foundation.arguments import require_type
from gmn.foundation.files import OutputFolder, is_plain
from gmn.zoo.population import Zoo

FORMATS = ("safetensors", "pt")
TABLE = "index.csv"


def export(
    zoo: Zoo,
    out: str | Path,
    indices: Sequence[int] | Tensor | None = None,
    format: str = "safetensors",
    progress: bool = True,
) -> Path:
    """Writes the state dict of each network to a file of its own, and a table of all rows.

    The column ``file`` of ``index.csv`` says where a network is. Files that are there already are
    left alone: a stopped export continues.

    Args:
        zoo: the population.
        out: folder to write; made if absent.
        indices: indices of the networks; all if None.
        format: ``"safetensors"``, or ``"pt"`` for ``torch.load``.
        progress: whether to show a progress bar.

    Returns:
        The path of the table.

    Raises:
        ValueError: If the format is unknown.
        ZooError: If the folder holds the table of another export, a shard is damaged, or a file
            cannot be written.
    """
    if format not in FORMATS:
        raise ValueError(f"no format is called {format!r}; known: {', '.join(FORMATS)}")
    require_type("zoo", zoo, Zoo, "an open zoo, such as gmn.zoo.open(folder)")
    chosen = zoo.numbers(range(len(zoo)) if indices is None else indices)
    table = zoo.index.take(pa.array(chosen))
    # An id may hold any character, a file name not.
    files = [f"{quote(name, safe=' ')}.{format}" for name in table["id"].to_pylist()]
    table = table.drop_columns(["shard", "row"]).append_column("file", pa.array(files))
    folder, text = Path(out), _csv(table)
    path = folder / TABLE
    with OutputFolder(
        folder, "export of a zoo", inputs=[zoo.folder], earlier=_files_of_0_1, error=ZooError
    ) as output:
        if path.is_file() and path.read_bytes() != text:
            raise ZooError(f"{folder} holds another export; choose an empty folder")
        output.claim(TABLE, *files)
        output.write(TABLE, text)
        jobs = list(zip(files, chosen.tolist(), strict=True))
        for file, index in tqdm(jobs, unit="net", disable=not progress):
            if not (folder / file).exists():
                output.write(file, _content(zoo.state(index), format))
    return path


def _files_of_0_1(folder: Path) -> set[str] | None:
    """The files of an export that was written before folders had markers."""
    try:
        table = pacsv.read_csv(folder / TABLE)
    except (OSError, pa.ArrowInvalid):
        return None
    if not {"id", "file"} <= set(table.column_names):
        return None
    return {TABLE, *filter(is_plain, table["file"].to_pylist())}


def _content(state: dict[str, Tensor], format: str) -> bytes:
    if format == "safetensors":
        return save(state)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def _csv(table: pa.Table) -> bytes:
    buffer = pa.BufferOutputStream()
    plain = [
        pa.field(f.name, pa.string() if pa.types.is_dictionary(f.type) else f.type)
        for f in table.schema
    ]
    pacsv.write_csv(table.cast(pa.schema(plain)), buffer)
    return buffer.getvalue().to_pybytes()
