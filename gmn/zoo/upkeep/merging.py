"""Merges, extends and filters zoos."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gmn.errors import ZooError
from gmn.foundation.arguments import require_path, require_several, require_type
from gmn.foundation.files import OutputFolder
from gmn.zoo.population import Zoo
from gmn.zoo.store import provenance
from gmn.zoo.store.files import MANIFEST, SHARD, file_sha256, shard_name
from gmn.zoo.store.index import histogram, index_of
from gmn.zoo.store.writer import identity_of, publish
from gmn.zoo.store.writing import zoo_folder
from gmn.zoo.upkeep import copying
from gmn.zoo.upkeep.copying import Source, check, everything, plan
from gmn.zoo.upkeep.rewriting import rewrite, write_shards


def merge(
    folders: Sequence[str | Path],
    out: str | Path,
    name: str = "merged",
    prefixes: Sequence[str] | None = None,
    progress: bool = True,
) -> Zoo:
    """Copies all networks of several zoos into one; a stopped run goes on when called again.

    Architectures may differ. Weights, labels and splits are kept as they are.

    Args:
        folders: folders of the zoos.
        out: folder for the new one; empty, absent, or holding this same zoo.
        name: name of the new population.
        prefixes: one for each zoo, put before the ids of its networks.
        progress: whether to show a progress bar.

    Returns:
        The new zoo.

    Raises:
        ValueError: If there are no zoos, or not one prefix for each.
        ZooError: If two networks have one id, two architectures have one name, a zoo is damaged,
            or ``out`` holds another zoo.
    """
    sources = _sources(folders, prefixes)
    check(sources)
    card = {"merged_from": [_origin(source) for source in sources]}
    configuration = {"merged": [[_checksum(s.zoo), s.prefix] for s in sources]}
    return _write(sources, require_path("out", out), name, 0, configuration, card, progress)


def filtered(
    zoo: Zoo,
    indices: Sequence[int] | Tensor,
    out: str | Path,
    criteria: Sequence[str] = (),
    progress: bool = True,
) -> Zoo:
    """Copies some networks of a zoo into a new one; a stopped run goes on when called again.

    Args:
        zoo: the population.
        indices: indices of the networks to keep, such as the result of :func:`gmn.zoo.select`.
        out: folder for the new zoo; empty, absent, or holding this same zoo.
        criteria: the conditions that they meet, for the data card.
        progress: whether to show a progress bar.

    Returns:
        The new zoo.

    Raises:
        ZooError: If no network was chosen, a shard is damaged, or ``out`` holds another zoo.
    """
    require_type("zoo", zoo, Zoo, "an open zoo, such as gmn.zoo.open(folder)")
    chosen = np.unique(zoo.numbers(indices))
    if not len(chosen):
        raise ZooError(f"no network of {zoo.folder} was chosen; loosen the conditions")
    source = Source(zoo, torch.from_numpy(chosen))
    digest = hashlib.sha256(zoo.numbers_in_folder(chosen).tobytes()).hexdigest()
    configuration = {"filtered": _checksum(zoo), "indices_sha256": digest}
    card = {"filtered_from": _origin(everything(zoo)), "criteria": list(criteria)}
    manifest = zoo.manifest
    name, seed = manifest["name"], manifest["seed"]
    return _write([source], require_path("out", out), name, seed, configuration, card, progress)


def append(
    folder: str | Path,
    folders: Sequence[str | Path],
    prefixes: Sequence[str] | None = None,
    progress: bool = True,
) -> Zoo:
    """Adds all networks of other zoos to a finished zoo.

    New shards are written first, then an index beside the old one, then the manifest: a reader
    sees the zoo as it was or as it is, and a run that is killed has added nothing.

    Args:
        folder: folder of the zoo that grows.
        folders: folders of the zoos whose networks are added.
        prefixes: one for each of these, put before the ids of its networks.
        progress: whether to show a progress bar.

    Returns:
        The larger zoo; its networks get new indices, in the order of their ids.

    Raises:
        ValueError: If there is not one prefix for each zoo.
        ZooError: If two networks have one id, two architectures have one name, a zoo is damaged,
            or another writer is at work.
    """
    path = require_path("folder", folder)
    zoo = Zoo(path)
    with zoo_folder(path) as output:
        zoo = Zoo(path)  # as it is now that nobody else writes
        added = _sources(folders, prefixes)
        check([everything(zoo), *added])
        known = zoo.manifest["shards"]
        _remove_unlisted(output, {shard["file"] for shard in known})
        copies = plan(added)
        output.claim(*(shard_name(len(known) + n) for n in range(len(copies))))
        write_shards(path, dict(enumerate(copies, start=len(known))), progress)
        _publish_more(output, zoo, added, len(copies))
        provenance.note(output, "append", {"networks": sum(c.networks for c in copies)})
    return Zoo(path)


def _sources(folders: Sequence[str | Path], prefixes: Sequence[str] | None) -> list[Source]:
    require_several("folders", folders, "folders of zoos")
    require_several("prefixes", () if prefixes is None else prefixes, "texts, one for each zoo")
    given = [""] * len(folders) if prefixes is None else [str(prefix) for prefix in prefixes]
    if not folders or len(given) != len(folders):
        raise ValueError(f"{len(given)} prefixes for {len(folders)} zoos; each needs its own")
    return [everything(Zoo(folder), prefix) for folder, prefix in zip(folders, given, strict=True)]


def _publish_more(output: OutputFolder, zoo: Zoo, added: Sequence[Source], copies: int) -> None:
    manifest, folder = zoo.manifest, zoo.folder
    index, headers = index_of(folder, range(len(manifest["shards"]) + copies))
    card = {**manifest["card"], "networks": len(index), "splits": histogram(index, "split")}
    card["appended"] = [*card.get("appended", []), *(_origin(source) for source in added)]
    keys = ("name", "size", "seed", "configuration")
    identity = identity_of(*(manifest[key] for key in keys))
    generation = manifest["generation"] + 1
    publish(output, identity, card, index, headers, generation, manifest["shards"])
    output.remove(manifest["index"]["file"])


def _remove_unlisted(output: OutputFolder, listed: set[str]) -> None:
    """Deletes shards of an append that was killed; what others put there stays."""
    for name in output.files:
        if SHARD.fullmatch(name) and name not in listed:
            output.remove(name)


def _write(
    sources: Sequence[Source],
    out: Path,
    name: str,
    seed: int,
    configuration: dict[str, Any],
    card: dict[str, Any],
    progress: bool,
) -> Zoo:
    size = sum(len(source.indices) for source in sources)
    packing = {"shard_size": copying.SHARD_SIZE, "shard_bytes": copying.SHARD_BYTES}
    shards = plan(sources)
    inputs = [source.zoo.folder for source in sources]
    configuration = {**configuration, **packing}
    return rewrite(out, name, size, seed, configuration, shards, card, progress, inputs)


def _origin(source: Source) -> dict[str, Any]:
    manifest = source.zoo.manifest
    facts = {"name": manifest["name"], "seed": manifest["seed"], "networks": len(source.zoo)}
    return {**facts, "prefix": source.prefix, "card": manifest["card"]}


def _checksum(zoo: Zoo) -> str:
    return file_sha256(zoo.folder / MANIFEST)
