"""Plans how selected networks are copied into new shards; a stopped run repeats the plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gmn.errors import ZooError
from gmn.zoo.population import Zoo
from gmn.zoo.store.files import Row
from gmn.zoo.store.shards import gather_rows, read_header, write_shard

SHARD_SIZE = 1000  # networks
SHARD_BYTES = 256 << 20


@dataclass(frozen=True)
class Source:
    """Networks to be copied.

    Attributes:
        zoo: the population they are in.
        indices: their indices in it, int64, in increasing order.
        prefix: put before their ids.
    """

    zoo: Zoo
    indices: Tensor
    prefix: str = ""


@dataclass(frozen=True)
class Piece:
    """Rows of one shard of a source."""

    source: Source
    shard: int
    rows: Tensor


@dataclass(frozen=True)
class Copy:
    """A new shard of rows of other shards, bit for bit."""

    architecture: str
    pieces: tuple[Piece, ...]

    @property
    def networks(self) -> int:
        """Number of networks."""
        return sum(len(piece.rows) for piece in self.pieces)

    def write(self, folder: Path, number: int) -> None:
        """Writes the shard.

        Args:
            folder: folder of the new zoo.
            number: number of the shard in it.

        Raises:
            ZooError: If a shard of a source is damaged, or the new one cannot be written.
        """
        shards = [piece.source.zoo.reader.open(piece.shard) for piece in self.pieces]
        rows = torch.cat([piece.rows for piece in self.pieces])
        sizes = torch.tensor([len(piece.rows) for piece in self.pieces])
        which = torch.arange(len(shards)).repeat_interleave(sizes)
        write_shard(
            folder,
            number,
            self.architecture,
            self.pieces[0].source.zoo.spec(self.architecture),
            gather_rows([shard.state for shard in shards], which, rows),
            [row for piece in self.pieces for row in _index_rows(piece)],
            {
                kind: gather_rows([shard.extras[kind] for shard in shards], which, rows)
                for kind in shards[0].extras
            },
        )


def check(sources: Sequence[Source]) -> None:
    """Checks that the networks can be in one zoo.

    Raises:
        ZooError: If two of them have one id, or two different architectures have one name.
    """
    owners: dict[str, str] = {}
    specs: dict[str, tuple[str, str]] = {}
    for source in sources:
        folder = str(source.zoo.folder)
        for name in source.zoo.index["id"].take(source.indices.numpy()).to_pylist():
            known = owners.setdefault(source.prefix + name, folder)
            if known is not folder:
                raise ZooError(
                    f"{known} and {folder} both have a network with the id {name!r}. Give each zoo "
                    "a prefix for its ids (--prefix)"
                )
        for name in source.zoo.architectures:
            fingerprint = source.zoo.manifest["architectures"][name]["fingerprint"]
            first, other = specs.setdefault(name, (fingerprint, folder))
            if first != fingerprint:
                raise ZooError(
                    f"architecture {name!r} is one network in {other} and another in {folder}; one "
                    "zoo needs different names for them: keep these two apart"
                )


def plan(sources: Sequence[Source]) -> list[Copy]:
    """Assigns networks to new shards; equal sources give equal plans.

    Args:
        sources: the networks to copy.

    Returns:
        The new shards; networks of one shard have one architecture and tensors of equal kinds.
    """
    copies: list[Copy] = []
    open_copies: dict[tuple[str, str], list[Piece]] = {}
    for source in sources:
        shards, rows = source.zoo.locations(source.indices)
        for shard in shards.unique().tolist():
            facts = source.zoo.manifest["shards"][shard]
            kind = (facts["architecture"], facts["layout"])
            pieces = open_copies.setdefault(kind, [])
            waiting = rows[shards == shard].sort().values
            most = max(1, min(SHARD_SIZE, SHARD_BYTES * facts["networks"] // facts["bytes"]))
            while len(waiting):
                room = max(1, most - sum(len(piece.rows) for piece in pieces))
                pieces.append(Piece(source, shard, waiting[:room]))
                waiting = waiting[room:]
                if room == len(pieces[-1].rows):
                    copies.append(Copy(kind[0], tuple(pieces)))
                    pieces.clear()
    unfilled = [Copy(name, tuple(pieces)) for (name, _), pieces in open_copies.items() if pieces]
    return copies + unfilled


def _index_rows(piece: Piece) -> list[Row]:
    """Rows of the index, read from the shard, which has the columns of its own networks only."""
    zoo = piece.source.zoo
    path = zoo.folder / zoo.manifest["shards"][piece.shard]["file"]
    columns: dict[str, list[Any]] = read_header(path).columns
    rows = [{name: values[i] for name, values in columns.items()} for i in piece.rows.tolist()]
    for row in rows:
        row["id"] = piece.source.prefix + row["id"]
    return rows


def everything(zoo: Zoo, prefix: str = "") -> Source:
    """All networks of a zoo."""
    return Source(zoo, torch.arange(len(zoo)), prefix)
