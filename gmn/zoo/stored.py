"""Networks of a zoo that stay in their files until a model reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gmn.graph import ParameterGraph

if TYPE_CHECKING:
    from gmn.zoo.population import Zoo


class StoredGraph(ParameterGraph):
    """Networks of one architecture, for populations that are larger than memory.

    Indexing reads the chosen networks alone, as a graph in memory. What needs the values of all
    reads all of them, every time.

    Args:
        zoo: the population.
        numbers: of networks in it, all of one architecture; at least one.

    Raises:
        ValueError: if there are none, or they are not all of one architecture.
        ZooError: from whatever reads a shard that is damaged.
    """

    def __init__(self, zoo: Zoo, numbers: Tensor) -> None:
        self.spec = zoo.spec(zoo.architecture(numbers))
        self._zoo, self._numbers = zoo, numbers

    @property
    def values(self) -> dict[str, Tensor]:
        """Stacked tensors of shape (B, *entry shape) by state-dict key, read now."""
        return self._zoo.graph(self._numbers).values

    def __len__(self) -> int:
        """Number of networks."""
        return len(self._numbers)

    def __getitem__(self, index: int | slice | Tensor | Sequence[int]) -> ParameterGraph:
        """The networks at ``index`` (int, slice, index tensor or mask) as a graph in memory."""
        chosen = self._numbers[index].reshape(-1)
        return self._zoo.graph(chosen) if len(chosen) else self[:1][:0]

    @property
    def dtype(self) -> torch.dtype:
        """Type of the first floating-point entry."""
        return self[0].dtype

    @property
    def device(self) -> torch.device:
        """Where networks are read to."""
        return torch.device("cpu")
