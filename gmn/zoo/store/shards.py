"""Shards: the stacked tensors of networks of one architecture, in one safetensors file.

The header of a shard holds the rows of its networks (one list of values per column) and their spec,
so that a lost index or manifest can be rebuilt from the shards.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from gmn.errors import ArgumentError, ZooError
from gmn.foundation import manifest
from gmn.foundation.arguments import in_words, require_several, require_type, require_whole
from gmn.foundation.files import write_file
from gmn.graph import ParameterGraph, StateDictError
from gmn.graph.values import as_real, is_finite, without_blocks
from gmn.spec import GraphSpec
from gmn.zoo.store.columns import columns_of
from gmn.zoo.store.files import FORMAT_VERSION, Row, shard_name

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Header:
    """The header of a shard.

    Attributes:
        architecture: name of the one architecture in it.
        fingerprint: fingerprint of its spec.
        spec: the spec as JSON text.
        networks: number of networks.
        columns: for every column the values of all networks, in the order of the stacked tensors.
        tensors: names of the state dict, in its order.
        extras: names of the further tensors, by kind.
        layout: hash of names, types and shapes: networks of equal layouts can be stacked.
        left_out: ids of networks of the shard that were unusable, such as those that diverged.
    """

    architecture: str
    fingerprint: str
    spec: str
    networks: int
    columns: dict[str, list[Any]]
    tensors: tuple[str, ...]
    extras: dict[str, tuple[str, ...]]
    layout: str
    left_out: tuple[str, ...]


@dataclass(frozen=True)
class OpenShard:
    """The tensors of a shard, mapped from its file: what is not read takes no memory.

    Attributes:
        state: stacked tensors of shape (networks, ...), by name in the state dict.
        extras: further stacked tensors, by kind and name.
    """

    state: dict[str, Tensor]
    extras: dict[str, dict[str, Tensor]]


def write_shard(
    folder: Path,
    number: int,
    architecture: str,
    spec: GraphSpec,
    state: Tensors,
    rows: Sequence[Row],
    extras: Mapping[str, Tensors] | None = None,
    left_out: Sequence[str] = (),
) -> None:
    """Writes one shard, all or nothing. Equal arguments give equal bytes.

    Args:
        folder: folder of the zoo.
        number: position of the shard in the zoo.
        architecture: name of the one architecture in it.
        spec: structure of this architecture.
        state: stacked tensors, each of shape (networks, ...), in the order of the state dict.
        rows: one dict a network: ``id``, ``split``, labels, hyper-parameters, lineage; values are
            text, numbers, truth values or None.
        extras: further stacked tensors by kind and name, such as
            ``{"gradient": {"conv1.weight": ...}}``.
        left_out: ids of networks that are missing from the rows because they cannot be used.

    Raises:
        ZooError: If rows, tensors and spec do not fit, a weight is not finite, or the file cannot
            be written.
    """
    require_whole("number", number, 0)
    require_type("architecture", architecture, str, "its name")
    require_type("spec", spec, GraphSpec, "what converters.trace(module, inputs) returns")
    require_several("left_out", left_out, "ids")
    columns = columns_of(rows)
    tensors = {name: value.detach().contiguous() for name, value in _tensors(state).items()}
    _check(shard_name(number), spec, tensors, columns["id"])
    if rows:  # a shard whose networks were all left out has no tensors
        _require_fit(shard_name(number), spec, tensors)
    kinds = {kind: list(values) for kind, values in (extras or {}).items()}
    for kind, values in (extras or {}).items():
        named = {
            f"{kind}/{name}": value.detach().contiguous()
            for name, value in _tensors(values).items()
        }
        _check_lengths(shard_name(number), named, len(rows))
        tensors |= named
    header = {
        "version": FORMAT_VERSION,
        "architecture": architecture,
        "fingerprint": spec.fingerprint,
        "spec": spec.to_json(),
        "networks": len(rows),
        "columns": columns,
        "tensors": list(state),
        "extras": kinds,
        "layout": _layout(tensors),
        "left_out": list(left_out),
    }
    # One key: safetensors writes several in random order.
    content = save(tensors, metadata={"gmn": json.dumps(header)})
    write_file(folder / shard_name(number), content, ZooError)


def _tensors(state: Tensors) -> Tensors:
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ArgumentError(
            "tensors of a shard come as a dictionary of torch tensors by name, stacked over "
            f"networks, not as {in_words(state)}"
        )
    return state


def _require_fit(file: str, spec: GraphSpec, state: Tensors) -> None:
    """Refuses now what could not be read as a graph of this spec later."""
    try:
        ParameterGraph(spec, state)
    except StateDictError as error:
        raise ZooError(f"{file}: these networks are not of the spec given: {error}") from error


def _check(file: str, spec: GraphSpec, state: Tensors, ids: Sequence[str]) -> None:
    """Refuses networks that diverged; buffers that are not on the graph may hold anything."""
    _check_lengths(file, state, len(ids))
    on_graph = dict.fromkeys(edges.parameter for edges in spec.edge_sets)
    for name in on_graph.keys() & state.keys():
        value = as_real(state[name])
        value = without_blocks(value) if name in spec.constants else value
        if not is_finite(value):
            broken = [row for row, one in enumerate(value) if not is_finite(one)]
            raise ZooError(
                f"{file}: {name} has NaN or infinite values in {_some([ids[i] for i in broken])}; "
                "leave such networks out, and name them in left_out"
            )


def _check_lengths(file: str, tensors: Tensors, networks: int) -> None:
    for name, value in tensors.items():
        if value.shape[:1] != (networks,):
            raise ZooError(
                f"{file}: {name} has shape {tuple(value.shape)}, but there are {networks} rows; "
                "stack one tensor per network"
            )


def _layout(tensors: Tensors) -> str:
    shapes = [[name, str(value.dtype), list(value.shape[1:])] for name, value in tensors.items()]
    return hashlib.sha256(json.dumps(shapes).encode()).hexdigest()[:16]


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{', '.join(names[:5])}{more}"


def read_header(path: Path) -> Header:
    """Reads the header of a shard; its tensors are not read, only their extent is checked.

    Args:
        path: path of the shard.

    Raises:
        ZooError: If the shard is missing, truncated or unreadable.
    """
    with _opened(path, "numpy") as file:
        return _header(file, path)


def open_shard(path: Path) -> OpenShard:
    """Maps the tensors of a shard.

    Args:
        path: path of the shard.

    Raises:
        ZooError: If the shard is missing, truncated or unreadable.
    """
    with _opened(path, "pt") as file:
        header = _header(file, path)
        shard = OpenShard(
            {name: file.get_tensor(name) for name in header.tensors},
            {
                kind: {name: file.get_tensor(f"{kind}/{name}") for name in names}
                for kind, names in header.extras.items()
            },
        )
        for tensors in (shard.state, *shard.extras.values()):
            _check_lengths(path.name, tensors, header.networks)
        return shard


def _header(file: Any, path: Path) -> Header:
    content = manifest.parse(file.metadata()["gmn"], path)
    if not isinstance(content, dict) or content.pop("version", None) != FORMAT_VERSION:
        raise ValueError("it is of another version of the format")
    header = manifest.check(content, Header, path)
    wrong = [name for name, values in header.columns.items() if len(values) != header.networks]
    if wrong or not {"id", "split"} <= header.columns.keys():
        raise ValueError(f"its columns {', '.join(wrong)} are not those of {header.networks} rows")
    return header


@contextmanager
def _opened(path: Path, framework: str) -> Iterator[Any]:
    try:
        with safe_open(path, framework=framework) as file:
            yield file
    except FileNotFoundError as error:
        raise ZooError(f"shard {path.name} is missing from {path.parent}") from error
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise ZooError(f"shard {path} is truncated or corrupt: {error}") from error


def gather_rows(
    parts: Sequence[dict[str, Tensor]], part_index: Tensor, rows: Tensor
) -> dict[str, Tensor]:
    """Gathers rows of several sets of stacked tensors in one set.

    Args:
        parts: at least one; all of the same names, types and shapes but for the first dimension.
        part_index: for each row of the result, the index of its part; int64, shape (rows,).
        rows: for each row of the result, its row in the part; int64, shape (rows,).

    Returns:
        By name, tensors of shape (rows, ...) that share no memory with the parts.
    """
    if len(parts) == 1:
        return {name: value.index_select(0, rows) for name, value in parts[0].items()}
    result = {
        name: value.new_empty((len(rows), *value.shape[1:])) for name, value in parts[0].items()
    }
    if bool((part_index[1:] >= part_index[:-1]).all()):  # part by part: half the work
        sizes = part_index.bincount(minlength=len(parts)).tolist()
        for name, value in result.items():
            for part, chosen, piece in zip(
                parts, rows.split(sizes), value.split(sizes), strict=True
            ):
                torch.index_select(part[name], 0, chosen, out=piece)
        return result
    positions = [(part_index == number).nonzero().flatten() for number in range(len(parts))]
    for part, position in zip(parts, positions, strict=True):
        chosen = rows[position]
        for name, value in part.items():
            result[name].index_copy_(0, position, value.index_select(0, chosen))
    return result
