"""Reads networks out of the shards of a zoo: checked once, mapped, gathered by rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gmn.errors import ZooError
from gmn.zoo.store.files import file_sha256
from gmn.zoo.store.shards import Header, OpenShard, gather_rows, open_shard, read_header


class ShardReader:
    """The shards of one zoo.

    Args:
        folder: folder of the zoo.
        facts: the manifest's entry of each shard.
    """

    def __init__(self, folder: Path, facts: list[dict[str, Any]]) -> None:
        self.folder = folder
        self._facts = facts
        self._checked: set[int] = set()
        self._kept: dict[int, OpenShard] = {}

    def architecture(self, shard: int) -> str:
        """Name of the architecture of the networks in a shard."""
        name: str = self._facts[shard]["architecture"]
        return name

    def header(self, shard: int) -> Header:
        """The header of a shard.

        Raises:
            ZooError: If it is missing or damaged.
        """
        return read_header(self.folder / self._facts[shard]["file"])

    def open(self, shard: int) -> OpenShard:
        """Maps a shard, which is compared with its checksum if this was not done before.

        Args:
            shard: the number of the shard.

        Raises:
            ZooError: If it is missing or damaged.
        """
        facts = self._facts[shard]
        path = self.folder / facts["file"]
        if shard not in self._checked:
            if not path.is_file() or file_sha256(path) != facts["sha256"]:
                state = "damaged" if path.is_file() else "missing"
                raise ZooError(
                    f"{path} is {state}: its {facts['networks']} networks cannot be read. Build "
                    "the zoo again with the same arguments: only this shard is made anew. Or keep "
                    f"the others: gmn zoo verify {self.folder} --rescue OUT names what is lost"
                )
            self._checked.add(shard)
        return open_shard(path)

    def keep(self, shards: set[int]) -> None:
        """Releases the memory of all other shards; they are mapped again when they are needed."""
        self._kept = {shard: self._kept[shard] for shard in shards & self._kept.keys()}

    def gather(
        self,
        shards: Sequence[int],
        shard_index: np.ndarray[Any, Any],
        rows: np.ndarray[Any, Any],
        kind: str | None,
    ) -> dict[str, Tensor]:
        """Tensors of networks of one architecture, stacked in the order asked for.

        Shards stay mapped until :meth:`keep`; the system can reclaim their memory before.

        Args:
            shards: the numbers of the shards that hold the networks.
            shard_index: for each network, the position of its shard in ``shards``.
            rows: for each network, its row in the shard.
            kind: the kind of further tensors; None for the states.

        Returns:
            By name, tensors of shape (networks, ...) that share no memory with the files.

        Raises:
            ValueError: If a shard has no such tensors, or tensors of other types.
            ZooError: If a shard is damaged.
        """
        parts = {shard: self._tensors(shard, kind) for shard in shards}
        if len({self._facts[shard]["layout"] for shard in shards}) > 1:
            self._check_dtypes(parts)
        row_index = torch.from_numpy(rows.astype(np.int64))
        return gather_rows(list(parts.values()), torch.from_numpy(shard_index), row_index)

    def _tensors(self, shard: int, kind: str | None) -> dict[str, Tensor]:
        if shard not in self._kept:
            self._kept[shard] = self.open(shard)
        opened = self._kept[shard]
        if kind is None:
            return opened.state
        if kind not in opened.extras:
            known = ", ".join(opened.extras) or "none"
            raise ValueError(
                f"{self._facts[shard]['file']} holds no tensors {kind!r} beside the states of its "
                f"networks; known there: {known}"
            )
        return opened.extras[kind]

    def _check_dtypes(self, parts: dict[int, dict[str, Tensor]]) -> None:
        first, *others = parts
        dtypes = {name: value.dtype for name, value in parts[first].items()}
        for shard in others:
            if dtypes != {name: value.dtype for name, value in parts[shard].items()}:
                files = [self._facts[n]["file"] for n in (first, shard)]
                raise ValueError(
                    f"{files[0]} and {files[1]} hold tensors of other names or types; choose "
                    "networks of one kind"
                )
