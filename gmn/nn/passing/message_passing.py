"""The base of message-passing layers: write a message and an update, and it runs on blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial as bind
from typing import Any

import torch
from torch import Tensor, nn

from gmn.foundation.arguments import require_several, require_whole
from gmn.nn.passing.reductions import NAMES, Partial, Reduction, merge, partial
from gmn.nn.passing.relations import Relation, Wiring, chunks

# Elements of one message tensor that exist at once: as many as a core's caches hold, and as many as
# fill an accelerator.
CHUNK_ELEMENTS = {"cpu": 2**20}
LARGE_CHUNK_ELEMENTS = 2**26


Message = Callable[[Relation, Tensor, Tensor, Tensor], Any]
"""Maps a relation, projections of its sources and targets, and states of its edges to messages."""


class MessagePassing(nn.Module):
    """A layer of messages along the weights of parameter graphs.

    A layer of your own defines the messages of edges and the update of neurons::

        class Layer(gmn.nn.MessagePassing):
            def __init__(self, hidden, edge_hidden):
                super().__init__(hidden, reduce="mean")
                self.edge = nn.Linear(edge_hidden, hidden)
                self.out = nn.Linear(hidden, hidden)

            def message(self, source, target, edge):
                return torch.relu(source + self.edge(edge))

            def update(self, nodes, messages):
                return nodes + self.out(messages)

    It is equivariant to the permutations of every spec, whatever the two compute, as long as
    ``message`` and ``update`` act on the last dimension. Messages are computed once per edge, on
    blocks (:mod:`gmn.nn.passing.relations`); what depends on one neuron only belongs into
    :meth:`project`, which runs once per neuron. :class:`gmn.nn.MessagePassingNetwork` makes a
    metanetwork of layers.

    Args:
        hidden: channels of nodes.
        reduce: how a neuron reduces the messages of its edges, over all its relations: "sum",
            "mean", "min", "max", "std", several of these side by side, or "softmax", for which
            ``message`` returns scores (..., heads) and values (..., channels).
        channels: channels of a message; None for ``hidden``.

    Raises:
        ValueError: if a reduction is unknown, or softmax stands beside others.

    Source: Gilmer et al. (2017); the interface is that of PyG's ``MessagePassing``.
    """

    def __init__(
        self,
        hidden: int,
        reduce: Reduction | Sequence[Reduction] = "mean",
        channels: int | None = None,
    ) -> None:
        super().__init__()
        require_whole("hidden", hidden, 1)
        if channels is not None:
            require_whole("channels", channels, 1)
        require_several("reduce", (reduce,) if isinstance(reduce, str) else reduce, "reductions")
        self.reduce: tuple[Reduction, ...] = (reduce,) if isinstance(reduce, str) else tuple(reduce)
        if unknown := [name for name in self.reduce if name not in NAMES]:
            raise ValueError(f"unknown reduction {unknown[0]!r}; there are {', '.join(NAMES)}")
        if not self.reduce or ("softmax" in self.reduce and len(self.reduce) > 1):
            raise ValueError(
                f"reduce={self.reduce}: give one or several of sum, mean, min, max and std, or "
                "softmax alone, whose messages are scores and values"
            )
        self.channels = hidden if channels is None else channels
        self.group = nn.Linear(hidden, hidden, bias=False)

    def project(self, nodes: Tensor) -> tuple[Tensor, Tensor]:
        """Projections of neurons as sources and as targets of edges: (B, N, ...) each."""
        return nodes, nodes

    def message(self, source: Tensor, target: Tensor, edge: Tensor) -> Any:
        """The messages of one relation.

        Args:
            source: projections of sources, of a shape that broadcasts to (B, *block, ...).
            target: projections of targets, likewise.
            edge: states of edges (B, *block, edge_hidden).

        Returns:
            Tensor (B, *block, channels); for softmax a pair of scores and values.
        """
        raise NotImplementedError(f"{type(self).__name__} must define message()")

    def update(self, nodes: Tensor, messages: Tensor) -> Tensor:
        """New states of neurons.

        Args:
            nodes: (B, N, hidden).
            messages: reduced messages (B, N, len(reduce) * channels); 0 for neurons without edges.
        """
        raise NotImplementedError(f"{type(self).__name__} must define update()")

    def edge_update(self, *args: Any, **kwargs: Any) -> Tensor:
        """New states of the edges of one relation: ``edge_update(self, source, target, edge)``.

        It takes as many edge states as are passed to :meth:`edge_updater`.
        """
        raise NotImplementedError(f"{type(self).__name__} must define edge_update()")

    def forward(
        self, wiring: Wiring, nodes: Tensor, edges: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """New states of neurons; neurons of one head also read their mean.

        Override it to update edges as well, by :meth:`edge_updater`.

        Args:
            wiring: the relations of the architecture.
            nodes: (B, N, hidden).
            edges: for each relation (B, *block, edge_hidden).
        """
        messages = self.propagate(wiring, *self.project(nodes), edges)
        new = self.update(nodes, messages)
        return (new + self.group(wiring.groups.means(nodes)) if wiring.groups else new), edges

    def propagate(
        self, wiring: Wiring, source: Tensor, target: Tensor, edges: Sequence[Tensor]
    ) -> Tensor:
        """Messages of all relations, reduced at their targets.

        Args:
            wiring: the relations of the architecture.
            source: (B, N, ...) projections of neurons as sources of edges.
            target: (B, N, ...) projections of neurons as targets of edges.
            edges: for each relation (B, *block, ...).

        Returns:
            Tensor of shape (B, N, len(reduce) * channels).
        """

        def message(relation: Relation, *tensors: Tensor) -> Any:
            return self.message(*tensors)

        return propagate(wiring, message, source, target, edges, self.reduce, self.channels)

    def edge_updater(
        self, wiring: Wiring, source: Tensor, target: Tensor, *edges: Sequence[Tensor]
    ) -> list[Tensor]:
        """New states of all edges, by :meth:`edge_update`.

        Args:
            wiring: the relations of the architecture.
            source: (B, N, ...) projections of neurons as sources of edges.
            target: (B, N, ...) projections of neurons as targets of edges.
            edges: for each relation (B, *block, ...); several, if ``edge_update`` takes several.
        """
        return update_edges(wiring, self.edge_update, source, target, *edges)


def propagate(
    wiring: Wiring,
    message: Message,
    source: Tensor,
    target: Tensor,
    edges: Sequence[Tensor],
    reduce: Sequence[Reduction],
    channels: int,
) -> Tensor:
    """Messages of all relations, reduced at their targets: :meth:`MessagePassing.propagate`.

    Args:
        wiring: the relations of the architecture.
        message: computes the messages of a relation.
        source: (B, N, ...) projections of nodes as sources of edges.
        target: (B, N, ...) projections of nodes as targets of edges.
        edges: for each relation (B, *block, ...).
        reduce: the reductions.
        channels: channels of a message.

    Returns:
        Tensor of shape (B, N, len(reduce) * channels); 0 for nodes without edges.
    """
    into: dict[str, list[Partial]] = {}
    for relation, edge in zip(wiring.relations, edges, strict=True):
        if not relation.pairs:
            continue
        ends = relation.source.spread(source), relation.target.spread(target)
        reduced = bind(_partials, relation, message, reduce, channels)
        rows = _by_chunk(relation, reduced, channels, *ends, edge)
        names = rows[0][0]
        joined = {n: _concatenated([[chunk[n] for chunk in row] for row in rows], 1) for n in names}
        into.setdefault(relation.target.nodes, []).append(Partial(relation.degree, joined))
    results = []
    for name, size in wiring.sizes.items():
        if name in into:
            results.append(merge(into[name], reduce))
        else:
            results.append(source.new_zeros(len(source), size, len(reduce) * channels))
    return torch.cat(results, dim=1)


def update_edges(
    wiring: Wiring,
    function: Callable[..., Tensor],
    source: Tensor,
    target: Tensor,
    *edges: Sequence[Tensor],
) -> list[Tensor]:
    """New states of all edges: :meth:`MessagePassing.edge_updater`.

    Args:
        wiring: the relations of the architecture.
        function: maps projections of sources and targets and states of edges to new states.
        source: (B, N, ...) projections of nodes as sources of edges.
        target: (B, N, ...) projections of nodes as targets of edges.
        edges: for each relation (B, *block, ...); as many as the function takes.
    """
    results = []
    for relation, *states in zip(wiring.relations, *edges, strict=True):
        ends = relation.source.spread(source), relation.target.spread(target)
        dim = 1 + relation.target.dims[0] if relation.target.dims else 1
        results.append(_concatenated(_by_chunk(relation, function, 1, *ends, *states), dim))
    return results


def _partials(
    relation: Relation,
    message: Message,
    reduce: Sequence[Reduction],
    channels: int,
    *tensors: Tensor,
) -> dict[str, Tensor]:
    """Messages of some edges of a relation, reduced to partials."""
    block, messages = tensors[-1].shape[:-1], message(relation, *tensors)
    if "softmax" in reduce:
        scores, values = messages
        messages = scores.expand(*block, -1), _expanded(values, (*block, channels), relation)
    else:
        messages = _expanded(messages, (*block, channels), relation)
    return partial(messages, relation.target, reduce)


def _by_chunk(
    relation: Relation, function: Callable[..., Any], channels: int, *tensors: Tensor
) -> list[list[Any]]:
    """Applies a function to every chunk of tensors that broadcast to the relation's block."""
    like = tensors[-1]
    widest = max(channels, *(tensor.shape[-1] for tensor in tensors))
    limit = CHUNK_ELEMENTS.get(like.device.type, LARGE_CHUNK_ELEMENTS) // max(widest, 1)
    return [
        [function(*(chunk.of(tensor) for tensor in tensors)) for chunk in row]
        for row in chunks(relation, len(like), limit)
    ]


def _concatenated(rows: list[list[Tensor]], dim: int) -> Tensor:
    """Undoes :func:`gmn.nn.passing.relations.chunks`."""
    parts = [torch.cat(row, dim=dim) if len(row) > 1 else row[0] for row in rows]
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def _expanded(messages: Tensor, shape: tuple[int, ...], relation: Relation) -> Tensor:
    try:
        return messages.expand(shape)
    except RuntimeError as error:
        raise ValueError(
            f"messages along {relation.name} have shape {tuple(messages.shape)}, which does not "
            f"broadcast to {shape}: a message of {shape[-1]} channels for every edge"
        ) from error
