"""Parts of a published zoo that become one shard each; any process can read one."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

import converters
from gmn.errors import ZooError
from gmn.graph import ParameterGraph, StateDictError
from gmn.spec import GraphSpec
from gmn.zoo.importing.layout import Entry, Layout, State
from gmn.zoo.store.files import Row
from gmn.zoo.store.shards import write_shard


@dataclass(frozen=True)
class Part:
    """The networks of one shard.

    Attributes:
        number: position of the shard.
        architecture: name of the one architecture in it.
        entries: the networks.
        spec: spec of the architecture.
        fingerprint: hash of the entries and the sizes of their files, see :func:`fingerprint`.
    """

    number: int
    architecture: str
    entries: tuple[Entry, ...]
    spec: GraphSpec
    fingerprint: str


@dataclass(frozen=True)
class LoadedPart:
    """A part with the weights of its networks.

    Attributes:
        part: the part, without its entries.
        networks: number of entries, usable or not.
        state: stacked states of the usable networks.
        rows: the row of each usable network.
    """

    part: Part
    networks: int
    state: State
    rows: list[Row]


def fingerprint(entries: Sequence[Entry]) -> str:
    """Hash of names, rows and file sizes: an import does not continue with another source."""
    sizes: dict[Path, int] = {}
    digest = hashlib.sha256()
    for entry in entries:
        file = entry.place[0]
        if file not in sizes:
            sizes[file] = file.stat().st_size if file.is_file() else -1
        line = [entry.name, entry.architecture, entry.row, entry.place[1], sizes[file]]
        digest.update(json.dumps(line).encode())
    return digest.hexdigest()


def read_part(layout: Layout, part: Part) -> LoadedPart:
    """Reads those networks of a part that can be used; others are missing from the rows.

    Raises:
        ZooError: If the files are not those that the part was made of: they changed, or this is
            a machine that does not see them.
    """
    if fingerprint(part.entries) != part.fingerprint:
        first = part.entries[0].place[0]
        raise ZooError(
            f"files such as {first} are missing or have another size than when the import began. "
            "Leave them as they are meanwhile; on a cluster every machine has to see them there"
        )
    states, rows = [], []
    for entry in part.entries:
        try:
            states.append(read_network(layout, part.spec, entry))
        except ValueError:
            continue  # named when the zoo is finished: also if the import is stopped before
        rows.append(entry.row)
    names = states[0] if states else {}
    stacked = {name: torch.stack([state[name] for state in states]) for name in names}
    return LoadedPart(replace(part, entries=()), len(part.entries), stacked, rows)


def read_network(layout: Layout, spec: GraphSpec, entry: Entry) -> State:
    """The weights of one network in the module's order, in float32 and in memory.

    Raises:
        ValueError: If they cannot be read, do not fit, or are not finite.
    """
    # Copies, since a thousand mapped files at once may be more than a process can open.
    values = {
        name: value.to(torch.float32, copy=True) if value.is_floating_point() else value.clone()
        for name, value in layout.read(entry).items()
    }
    state = converters.fit_state(spec, values, ["module.", "_orig_mod."])
    try:
        graph = ParameterGraph.from_state_dicts(spec, [state])
    except StateDictError as error:
        text = str(error).removeprefix("network 0: ").removesuffix(" in network 0")
        raise ValueError(text) from error
    return {name: value[0] for name, value in graph.values.items()}


def write_part(folder: Path, read: LoadedPart) -> int:
    """Writes the shard of a part; returns how many entries it had.

    Raises:
        ZooError: If it cannot be written.
    """
    part = read.part
    write_shard(folder, part.number, part.architecture, part.spec, read.state, read.rows)
    return read.networks
