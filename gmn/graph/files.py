"""Saves and loads parameter graphs: ``spec.json`` and ``weights.safetensors`` in a folder."""

from __future__ import annotations

import hashlib
import json
import os
import re
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gmn.errors import DataError
from gmn.foundation.arguments import require_path, require_type
from gmn.foundation.files import OutputFolder
from gmn.graph.parameter_graph import ParameterGraph, StateDictError
from gmn.graph.values import as_real
from gmn.spec import GraphSpec, SpecError

FORMAT_VERSION = "1"
SPEC = "spec.json"
WEIGHTS = "weights.safetensors"


class GraphFileError(DataError, ValueError):
    """A folder holds no parameter graph, or a damaged one."""


def save(graph: ParameterGraph, folder: str | os.PathLike[str]) -> None:
    """Writes a graph: its spec as JSON, and the stacked weights of its networks as safetensors.

    Each file appears whole or not at all; a graph that was there before is replaced.

    Args:
        graph: B networks of one architecture.
        folder: where to write: absent, empty, or holding a graph.

    Raises:
        OutputError: if the folder holds anything else, or cannot be written to.

    Example:
        >>> import tempfile, torch, converters, gmn
        >>> graph = converters.to_graph(torch.nn.Linear(2, 3), (torch.zeros(1, 2),))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     gmn.save(graph, folder)
        ...     gmn.load(folder)
        ParameterGraph(1 networks of 9 parameters, torch.float32, cpu)
    """
    require_type("graph", graph, ParameterGraph, "a gmn.ParameterGraph")
    with graph_folder(require_path("folder", folder)) as output:
        write_graph(output, graph.spec, _apart(graph))


def graph_folder(folder: str | os.PathLike[str]) -> OutputFolder:
    """The right to write a graph into a folder, which one process has at a time.

    Raises:
        OutputError: if the folder holds anything else, or cannot be written to.
    """
    return OutputFolder(folder, "parameter graph", earlier=_files_of_0_1)


def write_graph(output: OutputFolder, spec: GraphSpec, values: dict[str, Tensor]) -> None:
    """Writes the files of a graph.

    Args:
        output: where to.
        spec: the architecture.
        values: the stacked values of each untied entry, complex ones as pairs of real numbers.
    """
    text = spec.to_json().encode()
    metadata = {"gmn": FORMAT_VERSION, "spec_sha256": hashlib.sha256(text).hexdigest()}
    output.claim(SPEC, WEIGHTS)
    output.write(WEIGHTS, partial(_write_weights, values, metadata))
    output.write(SPEC, text)


def _write_weights(values: dict[str, Tensor], metadata: dict[str, str], path: Path) -> None:
    """A safetensors file, which has the same bytes every time: its metadata are put in order."""
    try:
        save_file(values, path, metadata=metadata)  # in random order
    except SafetensorError as error:  # which a full disk is, too
        if found := re.search(r"os error (\d+)", str(error)):
            raise OSError(int(found[1]), os.strerror(int(found[1]))) from error
        raise
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        file.seek(8)
        file.write(text.ljust(size))


def _files_of_0_1(folder: Path) -> set[str] | None:
    """The files of a graph that was written before folders had markers."""
    try:
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            ours = "gmn" in (file.metadata() or {})
    except (OSError, SafetensorError):
        return None
    return {SPEC, WEIGHTS} if ours else None


def load(folder: str | os.PathLike[str]) -> ParameterGraph:
    """Reads a graph that :func:`save` wrote. The weights stay mapped from the file.

    Args:
        folder: that was given to :func:`save`.

    Raises:
        GraphFileError: if files are missing, damaged, of another format, or of two graphs.
    """
    path = require_path("folder", folder)
    for name in (SPEC, WEIGHTS):
        if not (path / name).is_file():
            raise GraphFileError(
                f"{path} holds no parameter graph: it has no {name}. Write one with gmn.save or "
                "gmn convert"
            )
    text = (path / SPEC).read_bytes()
    try:
        spec = GraphSpec.from_json(text.decode())
        return ParameterGraph(spec, _joined(spec, _read_weights(path / WEIGHTS, text)))
    except (SpecError, UnicodeDecodeError) as error:
        raise GraphFileError(f"{path / SPEC}: {error}") from error
    except (SafetensorError, StateDictError, OSError) as error:
        raise GraphFileError(f"{path / WEIGHTS} is damaged: {error}") from error


def _read_weights(path: Path, spec: bytes) -> dict[str, Tensor]:
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
        if metadata.get("gmn") != FORMAT_VERSION:
            raise GraphFileError(
                f"{path} has format {metadata.get('gmn')!r}; this version reads {FORMAT_VERSION!r}"
            )
        if metadata.get("spec_sha256") != hashlib.sha256(spec).hexdigest():
            raise GraphFileError(
                f"{path} belongs to another spec than {SPEC} beside it: one of the two files was "
                "changed or exchanged. Convert again"
            )
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def _joined(spec: GraphSpec, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights with the pairs of complex entries as complex numbers."""
    pairs = {entry.name for entry in spec.entries if entry.complex}
    return {
        name: torch.view_as_complex(value) if name in pairs and not value.is_complex() else value
        for name, value in weights.items()
    }


def _apart(graph: ParameterGraph) -> dict[str, Tensor]:
    """The untied values, none of which shares memory with another, as safetensors asks.

    Complex numbers are pairs: safetensors has no type for those of double precision.
    """
    result: dict[str, Tensor] = {}
    seen: set[int] = set()
    for entry in graph.spec.entries:
        if entry.tied_to is not None:
            continue
        value = as_real(graph.values[entry.name].detach()).contiguous()
        storage = value.untyped_storage().data_ptr()
        result[entry.name] = value.clone() if storage in seen else value
        seen.add(storage)
    return result
