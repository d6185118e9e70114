"""Networks of a zoo that stay in their files until a model reads them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gmn.graph import ParameterGraph
from gmn.graph.choosing import chosen

if TYPE_CHECKING:
    from gmn.zoo.population import Zoo


class StoredGraph(ParameterGraph):
    """Networks of one architecture, for populations that are larger than memory.

    It does all that a graph in memory does. Values are read when they are first asked for, and kept
    from then on; a slice is such a graph again. Other indices, and what changes or moves networks,
    give a graph in memory.

    Args:
        zoo: the population.
        indices: indices of the networks in the population, all of one architecture; at least one.

    Raises:
        ValueError: if there are none, or they are not all of one architecture.
        ZooError: from whatever reads a shard that is damaged.
    """

    def __init__(self, zoo: Zoo, indices: Tensor) -> None:
        # The constructor of the base looks at tensors, which are not read yet.
        self.spec = zoo.spec(zoo.architecture(indices))
        self._zoo, self._indices = zoo, indices

    @cached_property
    def values(self) -> dict[str, Tensor]:
        """Stacked tensors of shape (B, *entry shape) by state-dict key."""
        return self._zoo.graph(self._indices).values

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
            return StoredGraph(self._zoo, indices)
        return self._zoo.graph(indices)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the first floating-point entry."""
        return self[0].dtype

    @property
    def device(self) -> torch.device:
        """Where networks are read to."""
        return torch.device("cpu")
