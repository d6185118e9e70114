"""The base of message-passing layers: write a message and an update, and it runs on blocks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gmn.nn.reductions import NAMES, Partial, Reduction, merge, partial
from gmn.nn.relations import Piece, Relation, Wiring, pieces

# Numbers of one message tensor that exist at once: what stays in a core's caches, and what fills
# an accelerator.
MOST = {"cpu": 2**20}
MOST_ELSEWHERE = 2**26


class MessagePassing(nn.Module):
    """A layer of messages along the weights of parameter graphs.

    A layer of your own says what edges carry and what neurons make of it::

        class Layer(gmn.nn.MessagePassing):
            def __init__(self, hidden, edge_hidden):
                super().__init__(hidden, reduce="mean")
                self.edge = nn.Linear(edge_hidden, hidden)
                self.out = nn.Linear(hidden, hidden)

            def message(self, source, target, edge):
                return torch.relu(source + self.edge(edge))

            def update(self, nodes, messages):
                return nodes + self.out(messages)

    It is equivariant to the permutations of every spec, whatever is written there, as long as
    ``message`` and ``update`` act on the last dimension. Messages are computed once per edge, on
    blocks (:mod:`gmn.nn.relations`); what depends on one neuron only belongs into :meth:`project`,
    which runs once per neuron. :class:`gmn.nn.MessagePassingNetwork` makes a metanetwork of layers.

    Args:
        hidden: channels of nodes.
        reduce: how a neuron reduces the messages of its edges, over all its relations: "sum",
            "mean", "min", "max", "std", several of these side by side, or "softmax", for which
            ``message`` returns scores (..., heads) and values (..., channels).
        channels: those of a message; None for ``hidden``.

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
        """What neurons tell the edges that leave them, and those that enter: (B, N, ...) each."""
        return nodes, nodes

    def message(self, source: Tensor, target: Tensor, edge: Tensor) -> Any:
        """The messages of one relation.

        Args:
            source: what sources tell, of a shape that broadcasts to (B, *block, ...).
            target: what targets tell, likewise.
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

        It gets as many edge states as :meth:`edge_updater` is given.
        """
        raise NotImplementedError(f"{type(self).__name__} must define edge_update()")

    def forward(
        self, wiring: Wiring, nodes: Tensor, edges: list[Tensor]
    ) -> tuple[Tensor, list[Tensor]]:
        """New states of neurons; neurons of one head also read their mean.

        Override it to update edges as well, by :meth:`edge_updater`.

        Args:
            wiring: who tells whom.
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
            wiring: who tells whom.
            source: (B, N, ...) what neurons tell the edges that leave them.
            target: (B, N, ...) what they tell those that enter.
            edges: for each relation (B, *block, ...).

        Returns:
            Tensor of shape (B, N, len(reduce) * channels).
        """
        into: dict[str, list[Partial]] = {}
        for relation, edge in zip(wiring.relations, edges, strict=True):
            if not relation.pairs:
                continue
            ends = relation.source.spread(source), relation.target.spread(target)
            parts = self._by_piece(relation, self._reduced, *ends, edge)
            whole = {
                name: torch.cat([torch.cat([p[name] for p in row], dim=1) for row in parts])
                if len(parts) > 1 or len(parts[0]) > 1
                else parts[0][0][name]
                for name in parts[0][0]
            }
            into.setdefault(relation.target.nodes, []).append(Partial(relation.degree, whole))
        width = len(self.reduce) * self.channels
        results = []
        for node_set in wiring.spec.node_sets:
            if node_set.name in into:
                results.append(merge(into[node_set.name], self.reduce))
            else:
                results.append(source.new_zeros(len(source), node_set.size, width))
        return torch.cat(results, dim=1)

    def edge_updater(
        self,
        wiring: Wiring,
        source: Tensor,
        target: Tensor,
        *edges: Sequence[Tensor],
    ) -> list[Tensor]:
        """New states of all edges, by :meth:`edge_update`.

        Args:
            wiring: who tells whom.
            source: (B, N, ...) what neurons tell the edges that leave them.
            target: (B, N, ...) what they tell those that enter.
            edges: for each relation (B, *block, ...); several, if ``edge_update`` takes several.
        """
        results = []
        for relation, *own in zip(wiring.relations, *edges, strict=True):
            ends = relation.source.spread(source), relation.target.spread(target)
            parts = self._by_piece(relation, self._updated, *ends, *own)
            if len(parts) == len(parts[0]) == 1:
                results.append(parts[0][0])
            else:
                dim = relation.target.dims[0] if relation.target.dims else 0
                rows = [torch.cat(row, dim=1 + dim) if len(row) > 1 else row[0] for row in parts]
                results.append(torch.cat(rows))
        return results

    def _by_piece(
        self, relation: Relation, function: Callable[..., Any], *tensors: Tensor
    ) -> list[list[Any]]:
        """Applies a function of the relation and tensors to every piece."""
        like = tensors[-1]
        widest = max(self.channels, *(tensor.shape[-1] for tensor in tensors))
        most = MOST.get(like.device.type, MOST_ELSEWHERE) // max(widest, 1)

        def at(piece: Piece) -> Any:
            own = (piece.of(tensor) for tensor in tensors)
            return function(relation, *own)

        return [[at(piece) for piece in row] for row in pieces(relation, len(like), most)]

    def _reduced(self, relation: Relation, *tensors: Tensor) -> dict[str, Tensor]:
        block, messages = tensors[-1].shape[:-1], self.message(*tensors)
        if self.reduce == ("softmax",):
            scores, values = messages
            messages = scores.expand(*block, -1), self._expanded(values, block, relation)
        else:
            messages = self._expanded(messages, block, relation)
        return partial(messages, relation.target, relation.degree, self.reduce).parts

    def _expanded(self, messages: Tensor, block: torch.Size, relation: Relation) -> Tensor:
        try:
            return messages.expand(*block, self.channels)
        except RuntimeError as error:
            raise ValueError(
                f"{type(self).__name__}.message answers with shape {tuple(messages.shape)} for "
                f"{relation.edges.name}; it does not broadcast to {(*block, self.channels)}: a "
                f"message of {self.channels} channels for every edge"
            ) from error

    def _updated(self, relation: Relation, *tensors: Tensor) -> Tensor:
        return self.edge_update(*tensors)
