"""Passes over a zoo that is larger than memory: whole shards in random order, networks mixed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from gmn.graph import ParameterGraph
from gmn.zoo.store.shards import gather_rows

if TYPE_CHECKING:
    from gmn.zoo.population import Zoo

Kind = tuple[str, str]  # architecture and layout: networks of one kind can be stacked


class StreamBatch(NamedTuple):
    """Networks of one architecture, and which ones they are.

    Attributes:
        graph: B networks.
        indices: Their numbers in the zoo, int64 of shape (B,).
    """

    graph: ParameterGraph
    indices: Tensor


class Stream(IterableDataset[StreamBatch]):
    """Batches of a zoo in random order, each of one architecture; every network once a pass.

    Shards are taken in random order, ``open_shards`` at a time, whose networks are shuffled
    together; then their memory is given back. Networks that do not fill a batch wait for the next
    shards, so that only the last batch of an architecture is smaller.

    In a ``DataLoader(stream, batch_size=None, num_workers=n)`` shards are divided among the
    workers. Every pass has another order, decided by ``seed``, the number of the pass, and with
    workers by the random numbers of the loader (its ``generator``, else torch's), as is usual.

    Made by :meth:`gmn.zoo.Zoo.stream`.

    Args:
        zoo: The population.
        batch_size: Networks per batch.
        split: Only those of ``"train"``, ``"val"`` or ``"test"``; None for all.
        seed: Seed of the order.
        open_shards: How many shards are open at once: more mix better and take more memory.

    Attributes:
        epoch: Number of the next pass. Set it to go on with a training that was stopped.

    Raises:
        ValueError: If the split is unknown, or a number is not positive.
    """

    def __init__(
        self,
        zoo: Zoo,
        batch_size: int,
        split: str | None = None,
        seed: int = 0,
        open_shards: int = 8,
    ) -> None:
        super().__init__()
        if batch_size < 1 or open_shards < 1:
            raise ValueError(
                f"batch_size and open_shards must be positive, got {batch_size} and {open_shards}"
            )
        self.zoo = zoo
        self.batch_size = batch_size
        self.seed = seed
        self.open_shards = open_shards
        self.epoch = 0
        chosen = zoo.indices(split)
        shards, rows = zoo.places(chosen)
        order = torch.argsort(shards, stable=True)
        found, counts = torch.unique_consecutive(shards[order], return_counts=True)
        self._shards: list[int] = found.tolist()
        self._ends: list[int] = counts.cumsum(0).tolist()
        self._numbers, self._rows = chosen[order], rows[order]

    @property
    def networks(self) -> int:
        """Number of networks of a pass."""
        return len(self._numbers)

    def __iter__(self) -> Iterator[StreamBatch]:
        """One pass over the networks, or over this worker's part of them."""
        worker = get_worker_info()
        part, parts = (0, 1) if worker is None else (worker.id, worker.num_workers)
        drawn = 0 if worker is None else worker.seed - worker.id  # the same in all workers
        key = [self.seed % 2**63, self.epoch, drawn]
        self.epoch += 1
        # This order is that of all workers: together they take every shard once.
        order = np.random.default_rng(key).permutation(len(self._shards))
        yield from self._pass(order[part::parts], np.random.default_rng([*key, part]))

    def _pass(self, order: np.ndarray[Any, Any], rng: np.random.Generator) -> Iterator[StreamBatch]:
        waiting: dict[Kind, _Source] = {}
        groups = -(-len(order) // self.open_shards)
        for group in np.array_split(order, groups) if groups else ():
            yield from self._group(group.tolist(), waiting, rng)
        for (architecture, _), source in waiting.items():
            yield self._batch(architecture, source)

    def _group(
        self, places: list[int], waiting: dict[Kind, _Source], rng: np.random.Generator
    ) -> Iterator[StreamBatch]:
        """Full batches of some shards and of what waited; afterwards the rest waits."""
        sources: dict[Kind, list[_Source]] = {kind: [source] for kind, source in waiting.items()}
        for place in places:
            sources.setdefault(self._kind(place), []).append(self._source(place))
        mixes = {kind: _Mix(found, rng) for kind, found in sources.items()}
        cuts = [
            (kind, start)
            for kind, mix in mixes.items()
            for start in range(0, len(mix) - self.batch_size + 1, self.batch_size)
        ]
        for turn in rng.permutation(len(cuts)).tolist():
            kind, start = cuts[turn]
            yield self._batch(kind[0], mixes[kind].cut(start, start + self.batch_size))
        waiting.clear()
        for kind, mix in mixes.items():
            if rest := len(mix) % self.batch_size:
                waiting[kind] = mix.cut(len(mix) - rest, len(mix))

    def _kind(self, place: int) -> Kind:
        facts = self.zoo.manifest["shards"][self._shards[place]]
        return facts["architecture"], facts["layout"]

    def _source(self, place: int) -> _Source:
        part = slice(self._ends[place - 1] if place else 0, self._ends[place])
        state = self.zoo.reader.open(self._shards[place]).state
        return _Source(state, self._rows[part], self._numbers[part])

    def _batch(self, architecture: str, source: _Source) -> StreamBatch:
        return StreamBatch(
            ParameterGraph(self.zoo.spec(architecture), source.state), source.numbers
        )


class _Source(NamedTuple):
    """Networks that lie in stacked tensors, at these rows, with these numbers in the zoo."""

    state: dict[str, Tensor]
    rows: Tensor
    numbers: Tensor


class _Mix:
    """Networks of several sources of one kind, shuffled together."""

    def __init__(self, sources: Sequence[_Source], rng: np.random.Generator) -> None:
        self._states = [source.state for source in sources]
        sizes = torch.tensor([len(source.rows) for source in sources])
        order = torch.from_numpy(rng.permutation(int(sizes.sum())))
        self._which = torch.arange(len(sources)).repeat_interleave(sizes)[order]
        self._rows = torch.cat([source.rows for source in sources])[order]
        self._numbers = torch.cat([source.numbers for source in sources])[order]

    def __len__(self) -> int:
        return len(self._rows)

    def cut(self, start: int, stop: int) -> _Source:
        """Some of the networks, copied."""
        part = slice(start, stop)
        state = gather_rows(self._states, self._which[part], self._rows[part])
        return _Source(state, torch.arange(stop - start), self._numbers[part])
