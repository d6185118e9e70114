"""Copies the networks of a published zoo into the format of this library, shard by shard."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import nn
from tqdm import tqdm

import converters
from gmn.spec import GraphSpec
from gmn.zoo import provenance
from gmn.zoo.importing.layout import Entry, Layout, Listing, State
from gmn.zoo.index import histogram
from gmn.zoo.population import Zoo
from gmn.zoo.store import ZooError
from gmn.zoo.writer import ZooWriter, identity_of, is_finished

SHARD_SIZE = 1000
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
    entries = listing.entries
    folder, parts = Path(out), _parts(entries)
    configuration = {**layout.configuration(), "source_sha256": _fingerprint(entries)}
    identity = identity_of(layout.name, len(entries), 0, configuration)
    if not is_finished(folder, identity, len(parts)):
        kinds = {name: _Kind.of(layout, name) for name in _architectures(entries)}
        with ZooWriter(folder, layout.name, len(entries), 0, configuration) as writer:
            missing = writer.missing(len(parts))
            done = len(entries) - sum(len(parts[number][1]) for number in missing)
            provenance.note(folder, "start", {"workers": 1})
            with tqdm(total=len(entries), initial=done, unit="net", disable=not progress) as bar:
                for number in missing:
                    _write(writer, number, parts[number], layout, kinds)
                    bar.update(len(parts[number][1]))
            _finish(writer, len(parts), layout, listing, kinds)
    return Zoo(folder)


@dataclass(frozen=True)
class _Kind:
    """One architecture of a published zoo: the module that its weights fit, and its spec."""

    module: nn.Module
    spec: GraphSpec

    @classmethod
    def of(cls, layout: Layout, name: str) -> _Kind:
        module, example = layout.architecture(name)
        return cls(module, converters.trace(module, (example,)))


def _architectures(entries: tuple[Entry, ...]) -> list[str]:
    return sorted({entry.architecture for entry in entries})


def _parts(entries: tuple[Entry, ...]) -> list[Part]:
    """The networks of each shard: of one architecture, in the order of the listing."""
    parts: list[Part] = []
    for architecture in _architectures(entries):
        chosen = [entry for entry in entries if entry.architecture == architecture]
        starts = range(0, len(chosen), SHARD_SIZE)
        parts += [(architecture, tuple(chosen[start : start + SHARD_SIZE])) for start in starts]
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


def _write(
    writer: ZooWriter,
    number: int,
    part: Part,
    layout: Layout,
    kinds: dict[str, _Kind],
) -> None:
    """Writes one shard of those networks that can be used."""
    architecture, entries = part
    states, rows = [], []
    for entry in entries:
        try:
            states.append(_checked(layout.read(entry), kinds[architecture].module))
        except ValueError:
            continue  # _finish names it: also if the import is stopped before
        rows.append(entry.row)
    names = states[0] if states else {}
    stacked = {name: torch.stack([state[name] for state in states]) for name in names}
    writer.write_shard(number, architecture, kinds[architecture].spec, stacked, rows)


def _checked(state: State, module: nn.Module) -> State:
    """The weights in the module's order, in float32.

    Raises:
        ValueError: If they do not fit the module, or are not finite.
    """
    wanted = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in state.items()}
    for name, shape in wanted.items():
        if found.get(name) != shape:
            raise ValueError(f"{name} has shape {found.get(name)}, not {shape}")
    if extra := found.keys() - wanted.keys():
        raise ValueError(f"unknown weights {', '.join(sorted(extra))}")
    for name in wanted:
        if not state[name].is_floating_point():
            raise ValueError(f"{name} is of {state[name].dtype}, not of floating-point numbers")
        if not state[name].isfinite().all():
            raise ValueError(f"{name} has NaN or infinite values")
    return {name: state[name].to(torch.float32) for name in wanted}


def _finish(
    writer: ZooWriter,
    shards: int,
    layout: Layout,
    listing: Listing,
    kinds: dict[str, _Kind],
) -> None:
    index, _ = writer.contents(shards)
    kept = set(index["id"].to_pylist())
    skipped = [
        *listing.skipped,
        *(
            f"{entry.name}: {_reason(entry, layout, kinds[entry.architecture].module)}"
            for entry in listing.entries
            if entry.row["id"] not in kept
        ),
    ]
    if not kept:
        raise ZooError(f"{layout.name}: no network can be used: {_reasons(listing, skipped)}")
    writer.finish(shards, _card(layout, listing, index, skipped))


def _reason(entry: Entry, layout: Layout, module: nn.Module) -> str:
    """Why a network is not in its shard, found by reading it once more."""
    try:
        _checked(layout.read(entry), module)
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
