"""Shards: the stacked tensors of networks of one architecture, in one safetensors file.

A shard says in its header what its networks are (one list of values per column), and which spec
they have, so that an index or a manifest that is lost can be made again from the shards.
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

from gmn import manifest
from gmn.errors import ZooError
from gmn.spec import GraphSpec
from gmn.values import as_real, is_finite, without_blocks
from gmn.zoo.store.columns import columns_of
from gmn.zoo.store.files import FORMAT_VERSION, Row, shard_name, write_file

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Header:
    """What a shard says of itself.

    Attributes:
        architecture: Name of the one architecture in it.
        fingerprint: That of its spec.
        spec: The spec as JSON text.
        networks: Number of networks.
        columns: Of every column the values of all networks, in the order of the stacked tensors.
        tensors: Names of the state dict, in its order.
        extras: Names of the further tensors, by kind.
        layout: Hash of names, types and shapes: networks of equal layouts can be stacked.
        left_out: Ids of networks that should be in the shard and were not worth keeping.
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
        state: By name of the state dict, shape (networks, ...).
        extras: The same of further tensors, by kind.
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
        folder: Folder of the zoo.
        number: Position of the shard in the zoo.
        architecture: Name of the one architecture in it.
        spec: Structure of this architecture.
        state: Stacked tensors, each of shape (networks, ...), in the order of the state dict.
        rows: One dict a network: ``id``, ``split``, labels, hyper-parameters, lineage; values are
            text, numbers, truth values or None.
        extras: Further stacked tensors by kind and name, such as
            ``{"gradient": {"conv1.weight": ...}}``.
        left_out: Ids of networks that are missing from the rows because they cannot be used.

    Raises:
        ZooError: If rows and tensors do not fit, a weight is not finite, or the file cannot be
            written.
    """
    columns = columns_of(rows)
    tensors = {name: value.detach().contiguous() for name, value in state.items()}
    _check(shard_name(number), spec, tensors, columns["id"])
    kinds = {kind: list(values) for kind, values in (extras or {}).items()}
    for kind, values in (extras or {}).items():
        named = {f"{kind}/{name}": value.detach().contiguous() for name, value in values.items()}
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
    write_file(folder / shard_name(number), content)


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
    """Reads what a shard says of itself; its tensors are not read, only their extent is checked.

    Args:
        path: Path of the shard.

    Raises:
        ZooError: If the shard is missing, truncated or unreadable.
    """
    with _opened(path, "numpy") as file:
        return _header(file, path)


def open_shard(path: Path) -> OpenShard:
    """Maps the tensors of a shard.

    Args:
        path: Path of the shard.

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
    parts: Sequence[dict[str, Tensor]], which: Tensor, rows: Tensor
) -> dict[str, Tensor]:
    """Rows of several sets of stacked tensors as one set.

    Args:
        parts: At least one; all of the same names, types and shapes but for the first dimension.
        which: Of each row wanted, the number of its part; int64, shape (rows,).
        rows: Its place in there; int64, shape (rows,).

    Returns:
        By name, tensors of shape (rows, ...) that share no memory with the parts.
    """
    if len(parts) == 1:
        return {name: value.index_select(0, rows) for name, value in parts[0].items()}
    result = {
        name: value.new_empty((len(rows), *value.shape[1:])) for name, value in parts[0].items()
    }
    if bool((which[1:] >= which[:-1]).all()):  # part by part: half the work
        sizes = which.bincount(minlength=len(parts)).tolist()
        for name, value in result.items():
            for part, chosen, piece in zip(
                parts, rows.split(sizes), value.split(sizes), strict=True
            ):
                torch.index_select(part[name], 0, chosen, out=piece)
        return result
    places = [(which == number).nonzero().flatten() for number in range(len(parts))]
    for part, at in zip(parts, places, strict=True):
        chosen = rows[at]
        for name, value in part.items():
            result[name].index_copy_(0, at, value.index_select(0, chosen))
    return result
