"""Networks with targets in minibatches, of one architecture or of several at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gmn.graph import ParameterGraph

Transform = Callable[[ParameterGraph, torch.Generator], ParameterGraph]


@dataclass(frozen=True)
class Batch:
    """Networks of one architecture and what is to be predicted of them.

    Attributes:
        graph: B networks.
        target: shape (B, ...).
        numbers: of the networks in their population, shape (B,); None if they are of none.
    """

    graph: ParameterGraph
    target: Tensor
    numbers: Tensor | None = None

    def __len__(self) -> int:
        return len(self.graph)

    def __getitem__(self, chosen: slice | Tensor) -> Batch:
        numbers = None if self.numbers is None else self.numbers[chosen]
        return Batch(self.graph[chosen], self.target[chosen], numbers)

    def to(self, device: torch.device) -> Batch:
        """The batch on a device."""
        if self.graph.device == self.target.device == device:
            return self
        return Batch(self.graph.to(device), self.target.to(device), self.numbers)


class Loader:
    """Minibatches ready for a model: pairs of a graph and targets.

    Made by :meth:`gmn.zoo.Zoo.loader`; training uses the same. A minibatch of several architectures
    is a list of graphs, which :func:`gmn.nn.read_all` reads; targets are in its order.

    Args:
        parts: all networks, one batch per architecture.
        batch_size: networks per minibatch.
        generator: source of the order, which is another one in each pass; None for that of the
            population, architecture by architecture.
        transform: what is done to the networks of a minibatch, such as an augmentation of
            :mod:`gmn.augment`; called with a graph and ``randomness``.
        randomness: of the transform; ``generator`` if None.
        device: where minibatches go before that; None for where the networks are.

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
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"a minibatch has at least one network, not {batch_size}")
        self.parts, self.batch_size, self.generator = parts, batch_size, generator
        self.transform, self.device = transform, device
        self.randomness = randomness or generator or torch.Generator().manual_seed(0)

    def __len__(self) -> int:
        """Number of minibatches of a pass."""
        sizes = [len(part) for part in self.parts]
        if self.generator is None:
            return sum(math.ceil(size / self.batch_size) for size in sizes)
        return math.ceil(sum(sizes) / self.batch_size)

    def __iter__(self) -> Iterator[tuple[ParameterGraph | list[ParameterGraph], Tensor]]:
        for pieces in self.batches():
            graphs = [piece.graph for piece in pieces]
            yield graphs if len(graphs) > 1 else graphs[0], torch.cat([p.target for p in pieces])

    def batches(self) -> Iterator[list[Batch]]:
        """Minibatches as one :class:`Batch` per architecture, with numbers of the networks."""
        for pieces in self._pieces():
            moved = [piece.to(self.device or piece.graph.device) for piece in pieces]
            if self.transform is not None:
                act = self.transform
                moved = [replace(b, graph=act(b.graph, self.randomness)) for b in moved]
            yield moved

    def _pieces(self) -> Iterator[list[Batch]]:
        if self.generator is not None:
            yield from minibatches(self.parts, self.batch_size, self.generator)
            return
        for part in self.parts:
            for start in range(0, len(part), self.batch_size):
                yield [part[start : start + self.batch_size]]


def minibatches(
    parts: Sequence[Batch], size: int, generator: torch.Generator
) -> Iterator[list[Batch]]:
    """All networks once, in random minibatches.

    A minibatch comes as one batch per architecture. It holds one architecture as far as there are
    enough networks of it; what is left of each is mixed. So networks that all differ are trained on
    in minibatches of the same size as networks that are all alike.

    Args:
        parts: one large batch per architecture.
        size: networks per minibatch; the mixed one that comes last may have fewer.
        generator: the source of randomness.
    """
    orders = [torch.randperm(len(part), generator=generator) for part in parts]
    full = [len(order) - len(order) % size for order in orders]
    mixed = torch.randperm(len(parts), generator=generator).tolist()
    runs = [(n, orders[n][: full[n]]) for n in range(len(parts))]
    runs += [(n, orders[n][full[n] :]) for n in mixed]
    owners = torch.cat([torch.full_like(places, n) for n, places in runs]).split(size)
    places = torch.cat([places for _, places in runs]).split(size)
    for number in torch.randperm(len(places), generator=generator).tolist():
        owner, place = owners[number], places[number]
        yield [parts[n][place[owner == n]] for n in owner.unique().tolist()]
