"""The order of minibatches, and which networks each of them holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from gmn.zoo.population import Zoo

# Of a minibatch: numbers of parts, and places in there.
Cut = Sequence[tuple[int, Tensor | slice]]
Shuffled = list[tuple[int, Tensor]]


def in_order(sizes: Sequence[int], batch_size: int) -> Iterator[Cut]:
    """Part by part, without chance.

    Args:
        sizes: networks of each part.
        batch_size: networks per minibatch; the last one of a part may have fewer.
    """
    for part, size in enumerate(sizes):
        for start in range(0, size, batch_size):
            yield [(part, slice(start, start + batch_size))]


def mixed(sizes: Sequence[int], batch_size: int, generator: torch.Generator) -> Iterator[Cut]:
    """All networks in random order; minibatches of one part as far as its networks go.

    Args:
        sizes: networks of each part.
        batch_size: networks per minibatch; the last one of what is left may have fewer.
        generator: the source of randomness.
    """
    orders = [torch.randperm(size, generator=generator) for size in sizes]
    full = [len(order) - len(order) % batch_size for order in orders]
    turns = torch.randperm(len(sizes), generator=generator).tolist()
    runs = [(part, orders[part][: full[part]]) for part in range(len(sizes))]
    runs += [(part, orders[part][full[part] :]) for part in turns]
    yield from _cuts(runs, batch_size, generator)


@dataclass(frozen=True)
class ByShards:
    """Whole shards in random order, so many at a time, whose networks are mixed with one another.

    Networks that do not fill a minibatch wait for the next shards; what is left of all parts in the
    end is mixed. Shards whose turn is over give back their memory.

    Attributes:
        zoo: the population.
        numbers: of the networks of each part in it.
        open_shards: how many shards are open at a time.
    """

    zoo: Zoo
    numbers: Sequence[Tensor]
    open_shards: int

    def cuts(
        self, batch_size: int, generator: torch.Generator, worker: int = 0, workers: int = 1
    ) -> Iterator[Cut]:
        """One pass over the shards, or over the share of one of several workers.

        Args:
            batch_size: networks per minibatch.
            generator: the source of randomness, in the same state in all workers.
            worker: which one asks.
            workers: how many there are.
        """
        blocks = [
            (part, shard, places)
            for part, numbers in enumerate(self.numbers)
            for shard, places in _by_value(self.zoo.places(numbers)[0])
        ]
        order = torch.randperm(len(blocks), generator=generator)[worker::workers]
        # Workers draw alike from the common source, and the rest each from their own.
        seed = int(torch.randint(2**62, (), generator=generator))
        generator = torch.Generator().manual_seed(seed + worker)
        waiting = [torch.empty(0, dtype=torch.int64) for _ in self.numbers]
        for group in order.tensor_split(max(1, -(-len(order) // self.open_shards))):
            chosen = [blocks[number] for number in group.tolist()]
            first, others = [], []
            for part, before in enumerate(waiting):
                fresh = torch.cat([before[:0], *(p for n, _, p in chosen if n == part)])
                fresh = fresh[torch.randperm(len(fresh), generator=generator)]
                places = torch.cat([before, fresh])
                full = len(places) - len(places) % batch_size
                first.append((part, places[: min(batch_size, full)]))
                others.append((part, places[min(batch_size, full) : full]))
                waiting[part] = places[full:]
            # Those that waited come first: then the shards that they lie in can go, too.
            for some in (first, others):
                self.zoo.reader.keep({shard for _, shard, _ in chosen})
                yield from map(_as_stored, _cuts(some, batch_size, generator))
        turns = torch.randperm(len(waiting), generator=generator).tolist()
        rest = [(part, waiting[part]) for part in turns]
        yield from map(_as_stored, _cuts(rest, batch_size, generator))


def _as_stored(cut: Shuffled) -> Shuffled:
    """A minibatch in the order of the population, mostly that of the files: read faster."""
    return [(part, places.sort().values) for part, places in cut]


def _by_value(values: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Every value, and where it stands."""
    found, counts = torch.unique(values, return_counts=True)
    places = torch.argsort(values, stable=True).split(counts.tolist())
    return zip(found.tolist(), places, strict=True)


def _cuts(
    runs: Sequence[tuple[int, Tensor]], batch_size: int, generator: torch.Generator
) -> Iterator[Shuffled]:
    """Runs of places in parts, one after the other, cut into minibatches in random order."""
    owners = torch.cat([torch.full_like(places, part) for part, places in runs]).split(batch_size)
    places = torch.cat([places for _, places in runs]).split(batch_size)
    for number in torch.randperm(len(places), generator=generator).tolist():
        owner, place = owners[number], places[number]
        if len(place):
            yield [(part, place[owner == part]) for part in owner.unique().tolist()]
