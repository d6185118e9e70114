"""The order of minibatches, and which networks each of them holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from gmn.zoo.population import Zoo

# A minibatch: of each part that it has networks of, its index and their positions in it.
Selection = Sequence[tuple[int, Tensor | slice]]
ShuffledSelection = list[tuple[int, Tensor]]


def sequential(sizes: Sequence[int], batch_size: int) -> Iterator[Selection]:
    """Minibatches part by part, in order.

    Args:
        sizes: networks of each part.
        batch_size: networks per minibatch; the last one of a part may have fewer.
    """
    for part, size in enumerate(sizes):
        for start in range(0, size, batch_size):
            yield [(part, slice(start, start + batch_size))]


def shuffled(
    sizes: Sequence[int], batch_size: int, generator: torch.Generator
) -> Iterator[Selection]:
    """All networks in random order; minibatches of one part as far as its networks go.

    Args:
        sizes: networks of each part.
        batch_size: networks per minibatch; the last one may have fewer.
        generator: source of randomness.
    """
    orders = [torch.randperm(size, generator=generator) for size in sizes]
    full = [len(order) - len(order) % batch_size for order in orders]
    remainders = torch.randperm(len(sizes), generator=generator).tolist()
    runs = [(part, orders[part][: full[part]]) for part in range(len(sizes))]
    runs += [(part, orders[part][full[part] :]) for part in remainders]
    yield from _minibatches(runs, batch_size, generator)


@dataclass(frozen=True)
class ShardShuffle:
    """Whole shards in random order, so many at a time, whose networks are mixed with one another.

    Networks that do not fill a minibatch wait for the next shards; what remains of all parts in the
    end is mixed. The memory of shards that are done is released.

    Attributes:
        zoo: the population.
        indices: of each part, the indices of its networks in the population.
        open_shards: how many shards are open at a time.
    """

    zoo: Zoo
    indices: Sequence[Tensor]
    open_shards: int

    def minibatches(
        self, batch_size: int, generator: torch.Generator, worker: int = 0, workers: int = 1
    ) -> Iterator[Selection]:
        """One pass over the shards, or over those that one of several workers reads.

        Args:
            batch_size: networks per minibatch.
            generator: source of randomness, in the same state in all workers.
            worker: index of the worker that asks.
            workers: how many there are.
        """
        blocks = [
            (part, shard, positions)
            for part, indices in enumerate(self.indices)
            for shard, positions in _positions_by_value(self.zoo.locations(indices)[0])
        ]
        order = torch.randperm(len(blocks), generator=generator)[worker::workers]
        # All workers draw the order of shards from one source, everything else from their own.
        seed = int(torch.randint(2**62, (), generator=generator))
        generator = torch.Generator().manual_seed(seed + worker)
        waiting = [torch.empty(0, dtype=torch.int64) for _ in self.indices]
        for group in order.tensor_split(max(1, -(-len(order) // self.open_shards))):
            opened = [blocks[block] for block in group.tolist()]
            first, others = [], []
            for part, carried in enumerate(waiting):
                fresh = torch.cat([carried[:0], *(p for owner, _, p in opened if owner == part)])
                fresh = fresh[torch.randperm(len(fresh), generator=generator)]
                positions = torch.cat([carried, fresh])
                full = len(positions) - len(positions) % batch_size
                first.append((part, positions[: min(batch_size, full)]))
                others.append((part, positions[min(batch_size, full) : full]))
                waiting[part] = positions[full:]
            # Networks that waited come first, so that the shards they lie in can be released too.
            for runs in (first, others):
                self.zoo.reader.keep({shard for _, shard, _ in opened})
                yield from map(_in_file_order, _minibatches(runs, batch_size, generator))
        parts = torch.randperm(len(waiting), generator=generator).tolist()
        remainders = [(part, waiting[part]) for part in parts]
        yield from map(_in_file_order, _minibatches(remainders, batch_size, generator))


def _in_file_order(selection: ShuffledSelection) -> ShuffledSelection:
    """A minibatch in the order of the population, mostly that of the files: read faster."""
    return [(part, positions.sort().values) for part, positions in selection]


def _positions_by_value(values: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Every value that occurs, and its positions."""
    distinct, counts = torch.unique(values, return_counts=True)
    positions = torch.argsort(values, stable=True).split(counts.tolist())
    return zip(distinct.tolist(), positions, strict=True)


def _minibatches(
    runs: Sequence[tuple[int, Tensor]], batch_size: int, generator: torch.Generator
) -> Iterator[ShuffledSelection]:
    """Cuts runs of positions in parts, one after the other, into minibatches in random order."""
    parts = torch.cat([torch.full_like(p, part) for part, p in runs]).split(batch_size)
    positions = torch.cat([p for _, p in runs]).split(batch_size)
    for batch in torch.randperm(len(positions), generator=generator).tolist():
        if len(positions[batch]):
            yield [
                (part, positions[batch][parts[batch] == part])
                for part in parts[batch].unique().tolist()
            ]
