"""Networks of a zoo that are read when a model asks for them: each time, or once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gmn.graph import ParameterGraph
from gmn.graph.choosing import chosen

if TYPE_CHECKING:
    from gmn.zoo.population import Zoo

Check = Callable[[ParameterGraph, Tensor], None]


class StoredGraph(ParameterGraph):
    """Networks of one architecture, for populations that are larger than memory.

    It does all that a graph in memory does. Values are read when they are first asked for, and kept
    from then on; a slice is such a graph again. Other indices, and what changes or moves networks,
    give a graph in memory.

    Args:
        zoo: the population.
        indices: indices of the networks in the population, all of one architecture; at least one.
        check: called with networks that were read, and their indices, before anything else sees
            them; what it raises, reading raises.

    Raises:
        ValueError: if there are none, or they are not all of one architecture.
        ZooError: from whatever reads a shard that is damaged.
    """

    def __init__(self, zoo: Zoo, indices: Tensor, check: Check | None = None) -> None:
        # The constructor of the base looks at tensors, which are not read yet.
        self.spec = zoo.spec(zoo.architecture(indices))
        self._zoo, self._indices, self._check = zoo, indices, check

    @cached_property
    def values(self) -> dict[str, Tensor]:
        """Stacked tensors of shape (B, *entry shape) by state-dict key."""
        return self._read(self._indices).values

    def _read(self, indices: Tensor) -> ParameterGraph:
        graph = self._zoo.graph(indices)
        if self._check is not None:
            self._check(graph, indices)
        return graph

    def __len__(self) -> int:
        """Number of networks."""
        return len(self._indices)

    def __getitem__(self, index: int | slice | Tensor | Sequence[int]) -> ParameterGraph:
        """The networks at ``index`` (int, slice, index tensor or mask) as a graph."""
        some = chosen(index, len(self))
        indices = self._indices[some]
        if not len(indices):
            return self[0][:0]
        if isinstance(index, slice):
            return StoredGraph(self._zoo, indices, self._check)
        return self._read(indices)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the first floating-point entry."""
        return self[0].dtype

    @property
    def device(self) -> torch.device:
        """Where networks are read to."""
        return torch.device("cpu")


class KeptGraph(StoredGraph):
    """Networks of one architecture that fit into memory, but are not read before they are needed.

    A shard is read when one of its networks is first asked for, and all of its networks are kept:
    the first minibatch waits for the shards that it needs alone, and later ones for none.
    """

    def __init__(self, zoo: Zoo, indices: Tensor, check: Check | None = None) -> None:
        super().__init__(zoo, indices, check)
        self._shards = zoo.locations(indices)[0]
        self._unread = set(self._shards.tolist())
        self._kept: dict[str, Tensor] = {}

    @cached_property
    def values(self) -> dict[str, Tensor]:
        """Stacked tensors of shape (B, *entry shape) by state-dict key."""
        self._fetch(set(self._unread))
        return ParameterGraph(self.spec, self._kept).values

    def __getitem__(self, index: int | slice | Tensor | Sequence[int]) -> ParameterGraph:
        """The networks at ``index`` (int, slice, index tensor or mask) as a graph."""
        some = chosen(index, len(self))
        if self._unread:
            self._fetch(self._unread.intersection(self._shards[some].tolist()))
        if not self._kept:  # none asked for, whose types are those of any
            self._fetch({int(self._shards[0])})
        return ParameterGraph(self.spec, {n: value[some] for n, value in self._kept.items()})

    def _fetch(self, shards: set[int]) -> None:
        for shard in sorted(shards):
            places = (self._shards == shard).nonzero().flatten()
            graph = self._read(self._indices[places])
            self._keep(places, graph)
            self._unread.remove(shard)

    def _keep(self, places: Tensor, graph: ParameterGraph) -> None:
        untied = [entry.name for entry in self.spec.entries if entry.tied_to is None]
        for name in untied:
            value = graph.values[name]
            if name not in self._kept:
                self._kept[name] = value.new_empty((len(self), *value.shape[1:]))
            if self._kept[name].dtype != value.dtype:
                self._zoo.graph(self._indices)  # which says what shards do not fit
            self._kept[name][places] = value
