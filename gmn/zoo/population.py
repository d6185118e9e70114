"""A zoo on disk, opened: labels, splits and states of its networks."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import Tensor
from torch.utils.data import Dataset

from gmn.errors import ArgumentError, ZooError
from gmn.foundation.arguments import (
    require_path,
    require_seed,
    require_several,
    require_type,
    require_whole,
)
from gmn.graph import ParameterGraph
from gmn.graph.choosing import chosen, numbers_of
from gmn.nn.memory import available_bytes
from gmn.spec import GraphSpec, SpecError
from gmn.zoo.loading import Batch, Loader, Transform
from gmn.zoo.ordering import ShardShuffle
from gmn.zoo.selecting import select
from gmn.zoo.store.columns import SPLITS
from gmn.zoo.store.files import Row
from gmn.zoo.store.index import is_number, numeric_columns
from gmn.zoo.store.opening import read_zoo
from gmn.zoo.store.reader import ShardReader
from gmn.zoo.stored import StoredGraph


class Zoo(Dataset[ParameterGraph]):
    """A population of trained networks, a map-style data set of PyTorch.

    Made by :func:`gmn.zoo.open` and :func:`gmn.zoo.build`. Networks are indexed in the order of
    their ids. Weights stay in their files until they are asked for; each shard is compared with
    its checksum when it is first read. ``zoo[3]`` is a graph of one network, whose ``rows`` are its
    row of the index; ``zoo[:8]`` one of eight, or a list of graphs, one per architecture.

    Args:
        folder: folder of a finished zoo.

    Attributes:
        folder: where the zoo lies.
        manifest: the content of ``zoo.json``: name, seed, configuration, data card.
        index: one row a network: id, architecture, spec, shard, row, split, labels,
            hyper-parameters; an Arrow table.

    Raises:
        ZooError: If the folder holds no finished zoo, or a file of it is missing or not of the
            size it should have.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = require_path("folder", folder)
        self.manifest, self.index = read_zoo(self.folder)
        self.reader = ShardReader(self.folder, self.manifest["shards"])
        self._specs: dict[str, GraphSpec] = {}
        self._chosen: np.ndarray[Any, Any] | None = None  # of the zoo in the folder; None for all
        self._shard: np.ndarray[Any, Any] = self.index["shard"].to_numpy()
        self._row: np.ndarray[Any, Any] = self.index["row"].to_numpy()

    def __reduce__(self) -> tuple[Any, ...]:
        # Opened again: mapped tensors would be sent as a whole.
        return _opened, (self.folder, self._chosen)

    def __len__(self) -> int:
        return len(self.index)

    def __repr__(self) -> str:
        names = self.architectures
        kinds = ", ".join(names) if len(names) <= 3 else f"{len(names)} architectures"
        return f"Zoo({self.manifest['name']!r}, {len(self)} networks of {kinds})"

    @overload
    def __getitem__(self, index: int) -> ParameterGraph: ...

    @overload
    def __getitem__(
        self, index: slice | Sequence[int] | Tensor
    ) -> ParameterGraph | list[ParameterGraph]: ...

    def __getitem__(
        self, index: int | slice | Sequence[int] | Tensor
    ) -> ParameterGraph | list[ParameterGraph]:
        """Networks with their rows of the index.

        Args:
            index: an integer, negative ones counted from the end; or several: a slice, a
                sequence, an index tensor, or a mask of one truth value per network.

        Returns:
            A graph of the networks, in the order of ``index``; of several architectures a list of
            graphs, one per architecture in the order of their first networks.

        Raises:
            IndexError: If there are not so many networks, or the selection is empty.
            ZooError: If a shard that they lie in is damaged.
        """
        some = chosen(index, len(self))
        if isinstance(some, slice):
            indices = np.arange(*some.indices(len(self)))
            if not isinstance(index, slice):
                return self._with_rows(indices)
        else:
            indices = self.numbers(some)
        if not len(indices):
            raise IndexError(f"no networks: {index} of {len(self)}")
        names = np.array(
            [self.reader.architecture(shard) for shard in self._shard[indices].tolist()]
        )
        graphs = [self._with_rows(indices[names == name]) for name in dict.fromkeys(names.tolist())]
        return graphs if len(graphs) > 1 else graphs[0]

    def __iter__(self) -> Iterator[ParameterGraph]:
        return (self[index] for index in range(len(self)))

    def _with_rows(self, indices: np.ndarray[Any, Any]) -> ParameterGraph:
        name, values = self._gather(torch.from_numpy(indices), None)
        rows = self.index.take(pa.array(indices)).to_pylist()
        return ParameterGraph(self.spec(name), values, rows)

    def select(
        self,
        where: str | Sequence[str] = (),
        split: str | None = None,
        architecture: str | None = None,
        ids: Sequence[str] | None = None,
    ) -> Zoo:
        """The networks that meet all conditions, as a zoo of the same files.

        Args:
            where: conditions such as ``"test_accuracy>=0.5"`` or ``"activation==relu"``; a network
                without a value in the column does not meet one.
            split: ``"train"``, ``"val"`` or ``"test"``.
            architecture: name of an architecture.
            ids: the networks of these ids.

        Raises:
            ValueError: If a condition cannot be read, or a column, a split, an architecture or an
                id is unknown.
        """
        return self._subset(select(self, where, split, architecture, ids).numpy())

    def _subset(self, indices: np.ndarray[Any, Any]) -> Zoo:
        subset = copy.copy(self)
        for name in ("rows", "architectures", "labels"):
            vars(subset).pop(name, None)
        subset.index = self.index.take(pa.array(indices))
        subset._shard, subset._row = self._shard[indices], self._row[indices]
        subset._chosen = indices if self._chosen is None else self._chosen[indices]
        return subset

    def loader(
        self,
        split: str | None = None,
        batch_size: int = 32,
        *,
        target: str | Sequence[str] | None = "test_accuracy",
        shuffle: bool = False,
        seed: int = 0,
        transform: Transform | None = None,
        open_shards: int | None = None,
    ) -> Loader:
        """Minibatches ready for a model: pairs of a graph and targets.

        A minibatch holds one architecture as far as there are enough networks of it; what remains
        of each is mixed, as a list of graphs for :func:`gmn.nn.read_all`. Networks that would fill
        more than half of the free memory stay in their files until a minibatch needs them.

        Args:
            split: only networks of ``"train"``, ``"val"`` or ``"test"``; None for all.
            batch_size: networks per minibatch.
            target: a numeric column, for targets of shape (B,), or several, for (B, columns);
                None for the indices of the networks in the zoo, int64 of shape (B,).
            shuffle: another order in every pass, or that of the zoo.
            seed: seed of the order and of the transform.
            transform: called with a graph and a generator, such as
                :class:`gmn.augment.SampledSymmetry`.
            open_shards: for a zoo that is larger than memory, shuffles whole shards in random
                order: so many at a time are read and their networks mixed with one another.
                More mix better and take more memory.

        Returns:
            An iterable, which a ``DataLoader`` takes with ``batch_size=None``.

        Raises:
            KeyError: If there is no column of this name.
            ValueError: If it holds no number for a network, the split is unknown, or a size is not
                positive.

        Example:
            >>> import tempfile, torch, converters
            >>> from gmn import zoo
            >>> spec = converters.trace(torch.nn.Linear(2, 3), (torch.zeros(1, 2),))
            >>> states = {"weight": torch.randn(20, 3, 2), "bias": torch.zeros(20, 3)}
            >>> rows = [{"id": f"{i:02d}", "split": "train", "loss": 0.1 * i} for i in range(20)]
            >>> folder = tempfile.TemporaryDirectory()
            >>> with zoo.ZooWriter(folder.name, "lines", 20, 0, {}) as writer:
            ...     writer.write_shard(0, "linear", spec, states, rows)
            ...     writer.finish(1, {"remark": "random weights"})
            >>> lines = zoo.open(folder.name)
            >>> for graph, losses in lines.loader(batch_size=8, target="loss", open_shards=4):
            ...     print(graph, losses.shape)
            ParameterGraph(8 networks of 9 parameters, torch.float32, cpu) torch.Size([8])
            ParameterGraph(8 networks of 9 parameters, torch.float32, cpu) torch.Size([8])
            ParameterGraph(4 networks of 9 parameters, torch.float32, cpu) torch.Size([4])
            >>> folder.cleanup()
        """
        if open_shards is not None:
            require_whole("open_shards", open_shards, 1)
        require_seed("seed", seed)
        by_architecture = [self.indices(split, name) for name in self.architectures]
        indices = [part for part in by_architecture if len(part)]
        read = self.graph if open_shards is None and self.fits_in_memory else self.stored
        parts = [Batch(read(part), self._targets(target, part), part) for part in indices]
        shards = None if open_shards is None else ShardShuffle(self, indices, open_shards)
        order = torch.Generator().manual_seed(seed) if shuffle or shards else None
        randomness = torch.Generator().manual_seed(seed)
        return Loader(parts, batch_size, order, transform, randomness, shards=shards)

    def _targets(self, target: str | Sequence[str] | None, indices: Tensor) -> Tensor:
        if target is None:
            return indices
        if isinstance(target, str):
            return self.labels(target, indices)
        require_several("target", target, "columns of numbers")
        if not target:
            raise ArgumentError("target is empty; give a column, several, or None for indices")
        return torch.stack([self.labels(name, indices) for name in target], dim=1)

    @property
    def fits_in_memory(self) -> bool:
        """Whether all shards take at most half of the memory that is free now."""
        return self.num_bytes <= available_bytes(torch.device("cpu")) / 2

    @cached_property
    def rows(self) -> list[Row]:
        """One dict a network, made from the index when first asked for; None where it has none."""
        rows: list[Row] = self.index.to_pylist()
        return rows

    @property
    def columns(self) -> list[str]:
        """Names of all columns of the index."""
        names: list[str] = self.index.column_names
        return names

    @cached_property
    def architectures(self) -> list[str]:
        """Names of the architectures of the population, sorted."""
        return sorted(
            {self.reader.architecture(shard) for shard in np.unique(self._shard).tolist()}
        )

    @property
    def num_bytes(self) -> int:
        """Size of all shards."""
        return sum(shard["bytes"] for shard in self.manifest["shards"])

    @property
    def extras(self) -> list[str]:
        """Kinds of further tensors that at least one shard holds, such as ``gradient``."""
        return sorted({kind for shard in self.manifest["shards"] for kind in shard["extras"]})

    @cached_property
    def labels(self) -> Labels:
        """Labels by name, ``zoo.labels["test_accuracy"]``; called, those of some networks."""
        return Labels(self)

    def _labels(self, name: str, indices: Sequence[int] | Tensor | None = None) -> Tensor:
        known = ", ".join(numeric_columns(self.index))
        if name not in self.columns:
            raise KeyError(f"no label is called {name!r}; known: {known}")
        column = self.index[name]
        if not is_number(column.type):
            raise ValueError(f"{name!r} holds {column.type}, not numbers; known labels: {known}")
        chosen = np.arange(len(self)) if indices is None else self.numbers(indices)
        selected = column.take(pa.array(chosen))
        values = pc.cast(selected, pa.float64(), safe=False).to_numpy()
        if len(missing := np.flatnonzero(np.isnan(values))):
            raise ValueError(self._missing_label(name, chosen[missing]))
        return torch.from_numpy(values.astype(np.float32))

    def _missing_label(self, name: str, indices: np.ndarray[Any, Any]) -> str:
        first = int(indices[0])
        value = self.index[name][first].as_py()
        problem = "has no value" if value is None else f"is {value}"
        more = f", nor do {len(indices) - 1} others" if len(indices) > 1 else ""
        return (
            f"label {name!r} {problem} for network {self.index['id'][first].as_py()}{more}; choose "
            "networks that have it, with the argument indices, or with gmn zoo filter"
        )

    def indices(self, split: str | None = None, architecture: str | None = None) -> Tensor:
        """Indices of the networks of one split.

        Args:
            split: ``"train"``, ``"val"`` or ``"test"``; None for all networks.
            architecture: only networks of this architecture; None for all.

        Returns:
            int64 indices in increasing order.

        Raises:
            ValueError: If the split or the architecture is unknown.
        """
        if split is not None and split not in SPLITS:
            raise ValueError(f"no split is called {split!r}; known: {', '.join(SPLITS)}")
        if architecture is not None and architecture not in self.architectures:
            known = ", ".join(self.architectures)
            raise ValueError(f"this zoo has no architecture {architecture!r}; known: {known}")
        chosen = np.ones(len(self), dtype=bool)
        for column, wanted in (("split", split), ("architecture", architecture)):
            if wanted is not None:
                chosen &= pc.fill_null(pc.equal(self.index[column], wanted), False).to_numpy()
        return torch.from_numpy(np.flatnonzero(chosen))

    def state(self, index: int) -> dict[str, Tensor]:
        """State dict of one network.

        Args:
            index: index of the network; negative ones are counted from the end.

        Returns:
            Its tensors, ready for ``load_state_dict``.

        Raises:
            IndexError: If there are not so many networks.
        """
        return {name: value[0] for name, value in self.stacked([index]).items()}

    def stacked(self, indices: Sequence[int] | Tensor) -> dict[str, Tensor]:
        """State dicts of several networks of one architecture.

        Args:
            indices: indices of the networks, in the order of the result; at least one.

        Returns:
            The tensors stacked, each of shape (len(indices), ...).

        Raises:
            IndexError: If there are not so many networks.
            ValueError: If there are none, or they are not all of one architecture.
            ZooError: If a shard that they lie in is damaged.
        """
        return self._gather(indices, None)[1]

    def extra(self, kind: str, indices: Sequence[int] | Tensor) -> dict[str, Tensor]:
        """Further stacked tensors of several networks of one architecture.

        Args:
            kind: one of :attr:`extras`, such as ``gradient`` or ``mask``.
            indices: indices of the networks, in the order of the result; at least one.

        Returns:
            The tensors stacked, each of shape (len(indices), ...), by name.

        Raises:
            IndexError: If there are not so many networks.
            ValueError: If there are none, they are not all of one architecture, or one of them has
                no such tensors.
            ZooError: If a shard that they lie in is damaged.
        """
        return self._gather(indices, kind)[1]

    def _gather(
        self, indices: Sequence[int] | Tensor, kind: str | None
    ) -> tuple[str, dict[str, Tensor]]:
        """The architecture of networks, and their tensors."""
        chosen = self.numbers(indices)
        shards, shard_index = np.unique(self._shard[chosen], return_inverse=True)
        name = self._one_architecture(shards)
        return name, self.reader.gather(shards.tolist(), shard_index, self._row[chosen], kind)

    def architecture(self, indices: Sequence[int] | Tensor) -> str:
        """The name of the one architecture that several networks have.

        Raises:
            IndexError: If there are not so many networks.
            ValueError: If there are none, or they are not all of one architecture.
        """
        return self._one_architecture(np.unique(self._shard[self.numbers(indices)]))

    def _one_architecture(self, shards: np.ndarray[Any, Any]) -> str:
        names = {self.reader.architecture(shard) for shard in shards.tolist()}
        if len(names) != 1:
            raise ValueError(
                f"networks of exactly one architecture are needed, got {sorted(names)}. "
                "Choose them with indices(split, architecture)."
            )
        return names.pop()

    def numbers(self, indices: Sequence[int] | Tensor) -> np.ndarray[Any, Any]:
        """Indices as an array without negative ones, which are counted from the end.

        Args:
            indices: Numbers, or a mask of one truth value per network.

        Raises:
            IndexError: If there are not so many networks.
            ArgumentError: If they are neither, or the mask has another length.
        """
        return numbers_of(indices, len(self))

    def numbers_in_folder(self, numbers: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """The numbers that networks of a selection have in the whole zoo of its folder."""
        return numbers if self._chosen is None else self._chosen[numbers]

    def locations(self, indices: Sequence[int] | Tensor) -> tuple[Tensor, Tensor]:
        """Shard and row of networks, both int64 of shape (networks,).

        Raises:
            IndexError: If there are not so many networks.
        """
        chosen = self.numbers(indices)
        shard, row = self._shard[chosen].astype(np.int64), self._row[chosen].astype(np.int64)
        return torch.from_numpy(shard), torch.from_numpy(row)

    def spec(self, architecture: str) -> GraphSpec:
        """The structure and symmetries of one architecture, traced when the zoo was built.

        Args:
            architecture: a name from :attr:`architectures`.

        Raises:
            KeyError: If the zoo has no such architecture.
            ZooError: If the shard that holds it is damaged.
        """
        if architecture not in self._first_shard:
            known = ", ".join(sorted(self._first_shard))
            raise KeyError(f"this zoo has no architecture {architecture!r}; known: {known}")
        if architecture not in self._specs:
            number = self._first_shard[architecture]
            try:
                spec = GraphSpec.from_json(self.reader.header(number).spec)
            except SpecError as error:
                shard = self.folder / self.manifest["shards"][number]["file"]
                raise ZooError(f"{shard} is damaged: {error}") from error
            self._specs[architecture] = spec
        return self._specs[architecture]

    @cached_property
    def _first_shard(self) -> dict[str, int]:
        shards = range(len(self.manifest["shards"]))
        return {self.reader.architecture(shard): shard for shard in reversed(shards)}

    def graph(self, indices: Sequence[int] | Tensor) -> ParameterGraph:
        """Several networks of one architecture as a parameter graph.

        Args:
            indices: indices of the networks, in the order of the result; at least one.

        Raises:
            IndexError: If there are not so many networks.
            ValueError: If there are none, or they are not all of one architecture.
            ZooError: If a shard that they lie in is damaged.
        """
        architecture, values = self._gather(indices, None)
        return ParameterGraph(self.spec(architecture), values)

    def stored(self, indices: Sequence[int] | Tensor) -> StoredGraph:
        """As :meth:`graph`, but networks are read when their values are asked for, not now.

        Args:
            indices: indices of the networks, in the order of the result; at least one.

        Raises:
            IndexError: If there are not so many networks.
            ValueError: If there are none, or they are not all of one architecture.
        """
        return StoredGraph(self, torch.from_numpy(self.numbers(indices)))


class Labels(Mapping[str, Tensor]):
    """The numeric columns of a zoo's index as tensors."""

    def __init__(self, zoo: Zoo) -> None:
        self._zoo = zoo

    def __getitem__(self, name: str) -> Tensor:
        return self(name)

    def __iter__(self) -> Iterator[str]:
        return iter(numeric_columns(self._zoo.index))

    def __len__(self) -> int:
        return len(list(self))

    def __repr__(self) -> str:
        return f"labels of {len(self._zoo)} networks: {', '.join(self)}"

    def __call__(self, name: str, indices: Sequence[int] | Tensor | None = None) -> Tensor:
        """One label of every network.

        Args:
            name: a numeric column of the index, such as ``"test_accuracy"``.
            indices: indices of the networks; all if None.

        Returns:
            float32 values, shape (networks,).

        Raises:
            KeyError: If the index has no such column.
            ValueError: If it holds no numbers, or none or NaN for a network.
        """
        return self._zoo._labels(name, indices)


def _opened(folder: Path, chosen: np.ndarray[Any, Any] | None) -> Zoo:
    zoo = Zoo(folder)
    return zoo if chosen is None else zoo._subset(chosen)


def require_zoo(name: str, value: Any) -> None:
    """Refuses everything but open zoos.

    Raises:
        ArgumentError: then; the message says how to open one.
    """
    require_type(name, value, Zoo, "an open zoo: gmn.zoo.open(folder)")
