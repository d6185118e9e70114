"""Networks with targets in minibatches, of one architecture or of several at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from gmn.foundation.arguments import require_callable, require_whole
from gmn.graph import ParameterGraph
from gmn.zoo.ordering import Selection, ShardShuffle, sequential, shuffled
from gmn.zoo.seeds import derive_seed

Networks = ParameterGraph | list[ParameterGraph]
Transform = Callable[[ParameterGraph, torch.Generator], ParameterGraph]


@dataclass(frozen=True)
class Batch:
    """Networks of one architecture and what is to be predicted of them.

    Attributes:
        graph: B networks.
        target: shape (B, ...).
        numbers: their indices in the population, int64, shape (B,); None if they are of none.
    """

    graph: ParameterGraph
    target: Tensor
    numbers: Tensor | None = None

    def __len__(self) -> int:
        return len(self.graph)

    def __getitem__(self, index: slice | Tensor) -> Batch:
        numbers = None if self.numbers is None else self.numbers[index]
        return Batch(self.graph[index], self.target[index], numbers)

    def to(self, device: torch.device) -> Batch:
        """The batch on a device."""
        if self.graph.device == self.target.device == device:
            return self
        return Batch(self.graph.to(device), self.target.to(device), self.numbers)


class Loader(IterableDataset[tuple[Networks, Tensor]]):
    """Minibatches ready for a model: pairs of a graph and targets.

    Made by :meth:`gmn.zoo.Zoo.loader`; training uses the same. A minibatch of several architectures
    is a list of graphs, which :func:`gmn.nn.read_all` reads; targets are in its order.

    In a ``DataLoader(loader, batch_size=None, num_workers=n)`` workers divide the minibatches, or
    the shards if these are taken whole. Every pass then has another order, decided by the seed of
    ``generator`` and by the random numbers of the ``DataLoader``, as is usual.

    Args:
        parts: all networks, one batch per architecture.
        batch_size: networks per minibatch.
        generator: source of the order, another one in each pass; None for the order of the
            population, architecture by architecture.
        transform: what is done to the networks of a minibatch, such as an augmentation of
            :mod:`gmn.augment`; called with a graph and ``randomness``.
        randomness: source of randomness of the transform; ``generator`` if None.
        device: where minibatches go before that; None for where the networks are.
        shards: reads shard by shard in random order; None to mix all networks.

    Raises:
        ValueError: if ``batch_size`` is not positive.
    """

    def __init__(
        self,
        parts: Sequence[Batch],
        batch_size: int,
        generator: torch.Generator | None = None,
        transform: Transform | None = None,
        randomness: torch.Generator | None = None,
        device: torch.device | None = None,
        shards: ShardShuffle | None = None,
    ) -> None:
        super().__init__()
        require_whole("batch_size", batch_size, 1)
        if transform is not None:
            require_callable("transform", transform, "one such as gmn.augment.SampledSymmetry()")
        self.parts, self.batch_size, self.generator = parts, batch_size, generator
        self.transform, self.device, self.shards = transform, device, shards
        self.randomness = randomness or generator or torch.Generator().manual_seed(0)
        self._reseeded = False

    def __getstate__(self) -> dict[str, Any]:
        # PyTorch pickles a generator with a tensor that is gone before a spawned process reads it.
        return {
            name: value.get_state().numpy() if isinstance(value, torch.Generator) else value
            for name, value in vars(self).items()
        }

    def __setstate__(self, states: dict[str, Any]) -> None:
        vars(self).update(states)
        for name in ("generator", "randomness"):
            if states[name] is not None:
                generator = torch.Generator()
                generator.set_state(torch.from_numpy(states[name]))
                setattr(self, name, generator)

    def __len__(self) -> int:
        """Number of minibatches of a pass; of shards that workers divide, it may be a few more."""
        sizes = [len(part) for part in self.parts]
        if self.generator is None:
            return sum(math.ceil(size / self.batch_size) for size in sizes)
        return math.ceil(sum(sizes) / self.batch_size)

    def __iter__(self) -> Iterator[tuple[Networks, Tensor]]:
        for batches in self.batches():
            graphs = [batch.graph for batch in batches]
            targets = torch.cat([batch.target for batch in batches])
            yield graphs if len(graphs) > 1 else graphs[0], targets

    def batches(self) -> Iterator[list[Batch]]:
        """Minibatches as one :class:`Batch` per architecture, with the indices of the networks."""
        for selection in self._selections():
            batches = [self.parts[part][positions] for part, positions in selection]
            moved = [batch.to(self.device or batch.graph.device) for batch in batches]
            if self.transform is not None:
                act = self.transform
                moved = [replace(b, graph=act(b.graph, self.randomness)) for b in moved]
            yield moved

    def _selections(self) -> Iterator[Selection]:
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        if info is not None and not self._reseeded:
            self._reseed(info.seed, worker)
        sizes = [len(part) for part in self.parts]
        if self.generator is None:
            return islice(sequential(sizes, self.batch_size), worker, None, workers)
        if self.shards is not None:
            return self.shards.minibatches(self.batch_size, self.generator, worker, workers)
        return islice(shuffled(sizes, self.batch_size, self.generator), worker, None, workers)

    def _reseed(self, seed: int, worker: int) -> None:
        """In the copy of a worker: one order for all workers, other transforms for each."""
        transform_seed = self.randomness.initial_seed()
        if self.generator is not None:
            order_seed = derive_seed(self.generator.initial_seed(), "order", seed - worker)
            self.generator = torch.Generator().manual_seed(order_seed)
        self.randomness = torch.Generator().manual_seed(
            derive_seed(transform_seed, "transform", seed)
        )
        self._reseeded = True


def minibatches(
    parts: Sequence[Batch], size: int, generator: torch.Generator
) -> Iterator[list[Batch]]:
    """All networks once, in random minibatches.

    A minibatch comes as one batch per architecture. It holds one architecture as far as there are
    enough networks of it; what remains of each is mixed. So networks that all differ are trained on
    in minibatches of the same size as networks that are all alike.

    Args:
        parts: one large batch per architecture.
        size: networks per minibatch; the mixed one that comes last may have fewer.
        generator: source of randomness.
    """
    return Loader(parts, size, generator).batches()
