"""Copies the networks of a published zoo into the format of this library, shard by shard."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from tqdm import tqdm

import converters
from gmn.graph import ParameterGraph, StateDictError
from gmn.spec import GraphSpec
from gmn.zoo import provenance
from gmn.zoo.importing.layout import Entry, Layout, Listing, State
from gmn.zoo.index import histogram
from gmn.zoo.population import Zoo
from gmn.zoo.store import ZooError
from gmn.zoo.writer import ZooWriter, identity_of, is_finished

SHARD_SIZE = 1000  # networks
SHARD_BYTES = 256 << 20
FIRST = 3  # of the reasons that an error repeats

Part = tuple[str, tuple[Entry, ...]]  # the architecture and the networks of one shard


def import_zoo(layout: Layout, out: str | Path, progress: bool = True) -> Zoo:
    """Converts a published zoo, or opens it if that was done before.

    Splits, labels and hyper-parameters are those of the publication. A network that cannot be
    used (a truncated file, a wrong shape, NaN) is skipped; the data card of the zoo names each
    one, with the reason, under ``skipped``, and counts under ``left_out`` what was not wanted.
    Shards appear whole or not at all: an import that was stopped goes on when called again.

    Args:
        layout: The published zoo, such as ``SmallCnnZoo("svhn_cropped")``.
        out: Folder for the zoo; empty, absent, or holding this same import.
        progress: Whether to show a progress bar.

    Returns:
        The finished zoo.

    Raises:
        ZooError: If the published zoo has no network that can be used, the files that describe
            it are damaged, or ``out`` holds another zoo.
    """
    listing = layout.listing()
    if not listing.entries:
        raise ZooError(f"{layout.name}: nothing to import: {_reasons(listing, listing.skipped)}")
    entries = _of_one_kind(listing.entries)
    architectures, folder = _Architectures(layout), Path(out)
    configuration = {**layout.configuration(), "source_sha256": _fingerprint(entries)}
    identity = identity_of(layout.name, len(entries), 0, configuration)
    parts = _parts(entries, architectures)
    if not is_finished(folder, identity, len(parts)):
        with ZooWriter(folder, layout.name, len(entries), 0, configuration) as writer:
            missing = writer.missing(len(parts))
            done = len(entries) - sum(len(parts[number][1]) for number in missing)
            provenance.note(folder, "start", {"workers": 1})
            with tqdm(total=len(entries), initial=done, unit="net", disable=not progress) as bar:
                for number in missing:
                    _write(writer, number, parts[number], architectures)
                    bar.update(len(parts[number][1]))
            _finish(writer, len(parts), replace(listing, entries=entries), architectures)
    return Zoo(folder)


class _Architectures:
    """The architectures of a published zoo; each is built and traced once, when it is needed."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._specs: dict[str, GraphSpec] = {}
        self._sizes: dict[str, int] = {}

    def spec(self, name: str) -> GraphSpec:
        """The structure of an architecture."""
        if name not in self._specs:
            self._specs[name] = converters.trace(*self.layout.architecture(name))
        return self._specs[name]

    def shard_size(self, name: str) -> int:
        """How many of its networks are in one shard: large networks are few, to fit in memory."""
        if name not in self._sizes:
            state = self.layout.architecture(name)[0].state_dict()
            self._sizes[name] = 4 * sum(value.numel() for value in state.values())
        return max(1, min(SHARD_SIZE, SHARD_BYTES // max(1, self._sizes[name])))

    def read(self, entry: Entry) -> State:
        """The weights of one network in the module's order, in float32 and in memory.

        Raises:
            ValueError: If they cannot be read, do not fit, or are not finite.
        """
        spec = self.spec(entry.architecture)
        # Copies, since a thousand mapped files at once may be more than a process can open.
        found = {
            name: value.to(torch.float32, copy=True) if value.is_floating_point() else value.clone()
            for name, value in self.layout.read(entry).items()
        }
        state = converters.fit_state(spec, found, ["module.", "_orig_mod."])
        try:
            graph = ParameterGraph.from_state_dicts(spec, [state])
        except StateDictError as error:
            text = str(error).removeprefix("network 0: ").removesuffix(" in network 0")
            raise ValueError(text) from error
        return {name: value[0] for name, value in graph.values.items()}


def _of_one_kind(entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
    """The entries with text where a column has numbers in some rows and text in others.

    An index holds values of one kind in a column.
    """
    kinds: dict[str, set[type]] = {}
    for entry in entries:
        for name, value in entry.row.items():
            if value is not None:
                kinds.setdefault(name, set()).add(float if type(value) is int else type(value))
    mixed = {name for name, found in kinds.items() if len(found) > 1}
    if not mixed:
        return entries
    return tuple(
        replace(entry, row={k: _text(v) if k in mixed else v for k, v in entry.row.items()})
        for entry in entries
    )


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _parts(entries: tuple[Entry, ...], architectures: _Architectures) -> list[Part]:
    """The networks of each shard: of one architecture, in the order of the listing."""
    groups: dict[str, list[Entry]] = {}
    for entry in entries:
        groups.setdefault(entry.architecture, []).append(entry)
    parts: list[Part] = []
    for architecture in sorted(groups):
        chosen, size = groups[architecture], architectures.shard_size(architecture)
        starts = range(0, len(chosen), size)
        parts += [(architecture, tuple(chosen[start : start + size])) for start in starts]
    return parts


def _fingerprint(entries: tuple[Entry, ...]) -> str:
    """Of names, rows and file sizes: an import does not go on with another source."""
    sizes: dict[Path, int] = {}
    digest = hashlib.sha256()
    for entry in entries:
        file = entry.place[0]
        if file not in sizes:
            sizes[file] = file.stat().st_size if file.is_file() else -1
        line = [entry.name, entry.architecture, entry.row, entry.place[1], sizes[file]]
        digest.update(json.dumps(line).encode())
    return digest.hexdigest()


def _write(writer: ZooWriter, number: int, part: Part, architectures: _Architectures) -> None:
    """Writes one shard of those networks that can be used."""
    architecture, entries = part
    states, rows = [], []
    for entry in entries:
        try:
            states.append(architectures.read(entry))
        except ValueError:
            continue  # _finish names it: also if the import is stopped before
        rows.append(entry.row)
    names = states[0] if states else {}
    stacked = {name: torch.stack([state[name] for state in states]) for name in names}
    writer.write_shard(number, architecture, architectures.spec(architecture), stacked, rows)


def _finish(
    writer: ZooWriter, shards: int, listing: Listing, architectures: _Architectures
) -> None:
    index, _ = writer.contents(shards)
    kept = set(index["id"].to_pylist())
    layout = architectures.layout
    skipped = [
        *listing.skipped,
        *(
            f"{entry.name}: {_reason(entry, architectures)}"
            for entry in listing.entries
            if entry.row["id"] not in kept
        ),
    ]
    if not kept:
        raise ZooError(f"{layout.name}: no network can be used: {_reasons(listing, skipped)}")
    writer.finish(shards, _card(layout, listing, index, skipped))


def _reason(entry: Entry, architectures: _Architectures) -> str:
    """Why a network is not in its shard, found by reading it once more."""
    try:
        architectures.read(entry)
    except ValueError as error:
        return str(error)
    return "was unreadable when its shard was written, and now is not; import into another folder"


def _card(layout: Layout, listing: Listing, index: pa.Table, skipped: list[str]) -> dict[str, Any]:
    return {
        "networks": len(index),
        "published_as": layout.reference,
        "splits": histogram(index, "split"),
        "split_rule": listing.split_rule,
        "left_out": dict(listing.left_out),
        "skipped": skipped,
    }


def _reasons(listing: Listing, skipped: list[str] | tuple[str, ...]) -> str:
    left_out = [f"{count} left out: {reason}" for reason, count in listing.left_out.items()]
    more = [f"and {len(skipped) - FIRST} more"] if len(skipped) > FIRST else []
    return "; ".join([*left_out, *skipped[:FIRST], *more]) or "the source is empty"
