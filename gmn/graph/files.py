"""Saves and loads parameter graphs: ``spec.json`` and ``weights.safetensors`` in a folder."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gmn.arguments import require_path, require_type
from gmn.errors import DataError
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
        folder: where to write; made if absent.

    Example:
        >>> import tempfile, torch, converters, gmn
        >>> graph = converters.to_graph(torch.nn.Linear(2, 3), (torch.zeros(1, 2),))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     gmn.save(graph, folder)
        ...     gmn.load(folder)
        ParameterGraph(1 networks of 9 parameters, torch.float32, cpu)
    """
    require_type("graph", graph, ParameterGraph, "a gmn.ParameterGraph")
    path = require_path("folder", folder)
    path.mkdir(parents=True, exist_ok=True)
    text = graph.spec.to_json().encode()
    metadata = {"gmn": FORMAT_VERSION, "spec_sha256": hashlib.sha256(text).hexdigest()}
    parts = [path / f".{name}.{os.getpid()}.part" for name in (SPEC, WEIGHTS)]
    try:
        parts[0].write_bytes(text)
        save_file(_apart(graph), parts[1], metadata=metadata)
        os.replace(parts[0], path / SPEC)
        os.replace(parts[1], path / WEIGHTS)
    finally:
        for part in parts:
            part.unlink(missing_ok=True)


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
