"""A zoo on disk, opened: labels, splits and states of its networks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gmn.graph import ParameterGraph
from gmn.spec import GraphSpec
from gmn.zoo.store import INDEX, Row, ZooError, file_sha256, read_manifest, read_tensors

SPLITS = ("train", "val", "test")


class Zoo:
    """A population of trained networks.

    Made by :func:`gmn.zoo.open` and :func:`gmn.zoo.build`.

    Args:
        folder: Folder of a finished zoo.

    Attributes:
        folder: Where the zoo lies.
        manifest: The content of ``zoo.json``: name, seed, configuration, data card.
        rows: One dict a network: id, architecture, split, labels, hyper-parameters.

    Raises:
        ZooError: If the folder holds no finished zoo, or a file of it is missing or damaged.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.manifest: dict[str, Any] = read_manifest(self.folder)
        if "shards" not in self.manifest:
            raise ZooError(
                f"{self.folder} holds an unfinished zoo. "
                "Build it again with the same arguments: it goes on where it stopped."
            )
        self._verify()
        text = (self.folder / INDEX).read_text()
        self.rows: list[Row] = [json.loads(line) for line in text.splitlines()]
        self._shards: dict[str, dict[str, Tensor]] = {}

    def _verify(self) -> None:
        """Compares every file with the checksum taken when the zoo was finished."""
        expected = {INDEX: self.manifest["index_sha256"]}
        expected |= {shard["file"]: shard["sha256"] for shard in self.manifest["shards"]}
        missing = [file for file in expected if not (self.folder / file).is_file()]
        present = [file for file in expected if file not in missing]
        damaged = [f for f in present if file_sha256(self.folder / f) != expected[f]]
        if missing or damaged:
            raise ZooError(
                f"{self.folder}: missing {missing or 'nothing'}, damaged {damaged or 'nothing'}. "
                "Build it again with the same arguments: only these are made anew."
            )

    def __len__(self) -> int:
        return len(self.rows)

    def __repr__(self) -> str:
        kinds = ", ".join(self.architectures)
        return f"Zoo({self.manifest['name']!r}, {len(self)} networks of {kinds})"

    @property
    def architectures(self) -> list[str]:
        """Names of the architectures of the population, sorted."""
        return sorted({row["architecture"] for row in self.rows})

    def labels(self, name: str) -> Tensor:
        """One label of every network.

        Args:
            name: A numeric column of the index, such as ``"test_accuracy"``.

        Returns:
            float32 values, shape (networks,).

        Raises:
            KeyError: If the index has no such numeric column.
        """
        try:
            values = [float(row[name]) for row in self.rows]
        except (KeyError, TypeError, ValueError):
            known = [key for key, value in self.rows[0].items() if isinstance(value, float)]
            raise KeyError(f"no label is called {name!r}; known: {', '.join(known)}") from None
        return torch.tensor(values)

    def indices(self, split: str, architecture: str | None = None) -> Tensor:
        """Numbers of the networks of one split.

        Args:
            split: ``"train"``, ``"val"`` or ``"test"``.
            architecture: Keep only networks of this architecture; None keeps all.

        Returns:
            int64 numbers in increasing order.

        Raises:
            ValueError: If the split or the architecture is unknown.
        """
        if split not in SPLITS:
            raise ValueError(f"no split is called {split!r}; known: {', '.join(SPLITS)}")
        if architecture is not None and architecture not in self.architectures:
            known = ", ".join(self.architectures)
            raise ValueError(f"this zoo has no architecture {architecture!r}; known: {known}")
        chosen = [
            number
            for number, row in enumerate(self.rows)
            if row["split"] == split and architecture in (None, row["architecture"])
        ]
        return torch.tensor(chosen, dtype=torch.int64)

    def state(self, index: int) -> dict[str, Tensor]:
        """State dict of one network.

        Args:
            index: Number of the network.

        Returns:
            Its tensors, ready for ``load_state_dict``.

        Raises:
            IndexError: If there are not so many networks.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"network {index} asked for, but the zoo has {len(self)}")
        row = self.rows[index]
        return {name: value[row["row"]].clone() for name, value in self._shard(row).items()}

    def stacked(self, indices: Sequence[int] | Tensor) -> dict[str, Tensor]:
        """State dicts of several networks of one architecture.

        Args:
            indices: Numbers of the networks, in the order wanted; at least one.

        Returns:
            The tensors stacked, each of shape (len(indices), ...).

        Raises:
            ValueError: If there are none, or they are not all of one architecture.
        """
        numbers = [int(index) for index in indices]
        kinds = {self.rows[number]["architecture"] for number in numbers}
        if len(kinds) != 1:
            raise ValueError(
                f"stacked() needs networks of exactly one architecture, got {sorted(kinds)}. "
                "Choose them with indices(split, architecture)."
            )
        states = [self.state(number) for number in numbers]
        return {name: torch.stack([state[name] for state in states]) for name in states[0]}

    def spec(self, architecture: str) -> GraphSpec:
        """The structure and symmetries of one architecture, traced when the zoo was built.

        Args:
            architecture: A name from :attr:`architectures`.

        Raises:
            KeyError: If the zoo has no such architecture.
        """
        return GraphSpec.from_json(json.dumps(self.manifest["architectures"][architecture]["spec"]))

    def graph(self, indices: Sequence[int] | Tensor) -> ParameterGraph:
        """Several networks of one architecture as a parameter graph.

        Args:
            indices: Numbers of the networks, in the order wanted; at least one.

        Raises:
            ValueError: If there are none, or they are not all of one architecture.
        """
        values = self.stacked(indices)
        return ParameterGraph(self.spec(self.rows[int(indices[0])]["architecture"]), values)

    def _shard(self, row: Row) -> dict[str, Tensor]:
        """The stacked tensors of the shard that a row points to, read once."""
        file = row["shard"]
        if file not in self._shards:
            self._shards[file] = read_tensors(self.folder / file)
        return self._shards[file]
