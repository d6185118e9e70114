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
        folder: Folder of the zoo.
        facts: What the manifest says of each shard.
    """

    def __init__(self, folder: Path, facts: list[dict[str, Any]]) -> None:
        self.folder = folder
        self._facts = facts
        self._checked: set[int] = set()
        self._kept: dict[int, OpenShard] = {}

    def architecture(self, number: int) -> str:
        """Name of the architecture of the networks in a shard."""
        name: str = self._facts[number]["architecture"]
        return name

    def header(self, number: int) -> Header:
        """What a shard says of itself.

        Raises:
            ZooError: If it is missing or damaged.
        """
        return read_header(self.folder / self._facts[number]["file"])

    def open(self, number: int) -> OpenShard:
        """Maps a shard, which is compared with its checksum if this was not done before.

        Args:
            number: Of the shard.

        Raises:
            ZooError: If it is missing or damaged.
        """
        facts = self._facts[number]
        path = self.folder / facts["file"]
        if number not in self._checked:
            if not path.is_file() or file_sha256(path) != facts["sha256"]:
                state = "damaged" if path.is_file() else "missing"
                raise ZooError(
                    f"{path} is {state}: its {facts['networks']} networks cannot be read. Build "
                    "the zoo again with the same arguments: only this shard is made anew. Or keep "
                    f"the others: gmn zoo verify {self.folder} --rescue OUT names what is lost"
                )
            self._checked.add(number)
        return open_shard(path)

    def keep(self, numbers: set[int]) -> None:
        """Gives back the memory of all other shards; they are mapped anew when they are needed."""
        self._kept = {number: self._kept[number] for number in numbers & self._kept.keys()}

    def gather(
        self,
        shards: Sequence[int],
        which: np.ndarray[Any, Any],
        rows: np.ndarray[Any, Any],
        kind: str | None,
    ) -> dict[str, Tensor]:
        """Tensors of networks of one architecture, stacked in the order asked for.

        Shards stay mapped until :meth:`keep`; the system can take their memory before.

        Args:
            shards: Numbers of the shards that they lie in.
            which: Of each network, the place of its shard among these.
            rows: Its row in there.
            kind: Which further tensors; None for the states.

        Returns:
            By name, tensors of shape (networks, ...) that share no memory with the files.

        Raises:
            ValueError: If a shard has no such tensors, or tensors of other types.
            ZooError: If a shard is damaged.
        """
        parts = {number: self._tensors(number, kind) for number in shards}
        if len({self._facts[number]["layout"] for number in shards}) > 1:
            self._check_alike(parts)
        places = torch.from_numpy(rows.astype(np.int64))
        return gather_rows(list(parts.values()), torch.from_numpy(which), places)

    def _tensors(self, number: int, kind: str | None) -> dict[str, Tensor]:
        if number not in self._kept:
            self._kept[number] = self.open(number)
        shard = self._kept[number]
        if kind is None:
            return shard.state
        if kind not in shard.extras:
            known = ", ".join(shard.extras) or "none"
            raise ValueError(
                f"{self._facts[number]['file']} holds no tensors {kind!r} beside the states of its "
                f"networks; known there: {known}"
            )
        return shard.extras[kind]

    def _check_alike(self, parts: dict[int, dict[str, Tensor]]) -> None:
        first, *others = parts
        kinds = {name: value.dtype for name, value in parts[first].items()}
        for number in others:
            if kinds != {name: value.dtype for name, value in parts[number].items()}:
                files = [self._facts[n]["file"] for n in (first, number)]
                raise ValueError(
                    f"{files[0]} and {files[1]} hold tensors of other names or types; choose "
                    "networks of one kind"
                )
