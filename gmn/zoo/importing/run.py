"""Copies the networks of a published zoo into the format of this library, shard by shard."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
from tqdm import tqdm

import converters
from gmn.engines import Engine, Processes
from gmn.errors import ZooError
from gmn.foundation.arguments import require_path, require_type
from gmn.spec import GraphSpec
from gmn.zoo.importing.layout import Entry, Layout, Listing
from gmn.zoo.importing.parts import Part, fingerprint, read_network, read_part, write_part
from gmn.zoo.population import Zoo
from gmn.zoo.store.index import histogram
from gmn.zoo.store.shards import Header
from gmn.zoo.store.writer import ZooWriter, write_zoo

SHARD_SIZE = 1000  # networks
SHARD_BYTES = 256 << 20
FEW = 2 * SHARD_SIZE  # networks that are read before other processes have started
FIRST = 3  # of the reasons that an error repeats

Group = tuple[str, tuple[Entry, ...]]  # the architecture and the networks of one shard


def import_zoo(
    layout: Layout,
    out: str | Path,
    progress: bool = True,
    workers: int = 2,
    engine: Engine | None = None,
) -> Zoo:
    """Converts a published zoo, or opens it if that was done before.

    Splits, labels and hyper-parameters are those of the publication. A network that cannot be
    used (a truncated file, a wrong shape, NaN) is skipped; the data card of the zoo names each
    one, with the reason, under ``skipped``, and counts under ``left_out`` what was not wanted.
    Shards appear whole or not at all: an import that was stopped goes on when called again.

    Args:
        layout: the published zoo, such as ``SmallCnnZoo("svhn_cropped")``.
        out: folder for the zoo; empty, absent, or holding this same import.
        progress: whether to show a progress bar.
        workers: number of processes that read; a few networks are read in this one, since others
            take seconds to start.
        engine: where networks are read, such as ``gmn.engines.Ray()``, whose machines have to see
            the files at the same place; None for ``workers`` processes on this machine. The zoo
            is the same.

    Returns:
        The finished zoo.

    Raises:
        ZooError: If the published zoo has no network that can be used, the files that describe
            it are damaged, change, or are not seen by a machine of the engine, or ``out`` holds
            another zoo.
        EngineError: If a worker process died, or there is no Ray cluster.
    """
    require_type("layout", layout, Layout, "a layout, such as gmn.zoo.NfnSirens(folder)")
    listing = layout.listing()
    if not listing.entries:
        raise ZooError(f"{layout.name}: nothing to import: {_reasons(listing, listing.skipped)}")
    entries = _of_one_kind(listing.entries)
    architectures, folder = _Architectures(layout), require_path("out", out)
    configuration = {**layout.configuration(), "source_sha256": fingerprint(entries)}
    groups = _groups(entries, architectures)

    def fill(writer: ZooWriter, missing: Sequence[int]) -> None:
        remaining = sum(len(groups[shard][1]) for shard in missing)
        chosen_engine = engine or Processes(workers if remaining > FEW else 1)
        writer.note("start", {"engine": repr(chosen_engine)})
        todo = [_part(shard, groups[shard], architectures) for shard in missing]
        done = chosen_engine.run_all(partial(read_part, layout), todo, partial(write_part, folder))
        initial = len(entries) - remaining
        with tqdm(total=len(entries), initial=initial, unit="net", disable=not progress) as bar:
            for networks in done:
                bar.update(networks)

    def card(index: pa.Table, headers: Sequence[Header]) -> dict[str, Any]:
        return _card(replace(listing, entries=entries), index, architectures)

    size = len(entries)
    write_zoo(folder, layout.name, size, 0, configuration, len(groups), fill, card)
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


def _of_one_kind(entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
    """The entries with text where a column has numbers in some rows and text in others.

    An index holds values of one kind in a column.
    """
    by_column: dict[str, set[type]] = {}
    for entry in entries:
        for name, value in entry.row.items():
            if value is not None:
                by_column.setdefault(name, set()).add(float if type(value) is int else type(value))
    mixed = {name for name, types in by_column.items() if len(types) > 1}
    if not mixed:
        return entries
    return tuple(
        replace(entry, row={k: _text(v) if k in mixed else v for k, v in entry.row.items()})
        for entry in entries
    )


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _groups(entries: tuple[Entry, ...], architectures: _Architectures) -> list[Group]:
    """The networks of each shard: of one architecture, in the order of the listing."""
    by_architecture: dict[str, list[Entry]] = {}
    for entry in entries:
        by_architecture.setdefault(entry.architecture, []).append(entry)
    groups: list[Group] = []
    for architecture in sorted(by_architecture):
        chosen, size = by_architecture[architecture], architectures.shard_size(architecture)
        starts = range(0, len(chosen), size)
        groups += [(architecture, tuple(chosen[start : start + size])) for start in starts]
    return groups


def _part(number: int, group: Group, architectures: _Architectures) -> Part:
    architecture, entries = group
    spec = architectures.spec(architecture)
    return Part(number, architecture, entries, spec, fingerprint(entries))


def _card(listing: Listing, index: pa.Table, architectures: _Architectures) -> dict[str, Any]:
    kept, layout = set(index["id"].to_pylist()), architectures.layout
    unusable = [entry for entry in listing.entries if entry.row["id"] not in kept]
    reasons = [f"{entry.name}: {_reason(entry, architectures)}" for entry in unusable]
    skipped = [*listing.skipped, *reasons]
    if not kept:
        raise ZooError(f"{layout.name}: no network can be used: {_reasons(listing, skipped)}")
    return {
        "networks": len(index),
        "published_as": layout.reference,
        "splits": histogram(index, "split"),
        "split_rule": listing.split_rule,
        "left_out": dict(listing.left_out),
        "skipped": skipped,
    }


def _reason(entry: Entry, architectures: _Architectures) -> str:
    """Why a network is not in its shard, found by reading it once more."""
    try:
        read_network(architectures.layout, architectures.spec(entry.architecture), entry)
    except ValueError as error:
        return str(error)
    return "was unreadable when its shard was written, and now is not; import into another folder"


def _reasons(listing: Listing, skipped: list[str] | tuple[str, ...]) -> str:
    left_out = [f"{count} left out: {reason}" for reason, count in listing.left_out.items()]
    more = [f"and {len(skipped) - FIRST} more"] if len(skipped) > FIRST else []
    return "; ".join([*left_out, *skipped[:FIRST], *more]) or "the source is empty"
