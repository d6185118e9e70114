"""Diagonal edge sets side by side, so that a few operations serve all of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gmn.spec import EdgeSet, GraphSpec


@dataclass(frozen=True, eq=False)
class Diagonal:
    """A diagonal edge set in a role.

    Attributes:
        edges: the edge set.
        index: for every neuron, the neuron of the edge set's own node set; None if they are the
            same.
        offset: for a variance, the constant added before its inverse root is taken; else None.
        compressed: whether values may be of any size (rows of a table that no scale acts on).
    """

    edges: EdgeSet
    index: Tensor | None = None
    offset: float | None = None
    compressed: bool = False

    def values(self, blocks: Mapping[str, Tensor]) -> Tensor:
        """The values (B, neurons, taps)."""
        block = blocks[self.edges.name]
        values = block.reshape(len(block), math.prod(block.shape[1:-1]), self.edges.num_taps)
        if self.index is not None:
            values = values[:, self.index]
        if self.offset is not None:
            return (values + self.offset).rsqrt()
        return values.asinh() if self.compressed else values


class Diagonals:
    """Diagonal edge sets of one role: gains, vectors or invariants.

    Those of one tap, nearly all, share their operations.

    Args:
        spec: the architecture, which tells how many neurons each has.
        items: the edge sets.
        taps: by edge set, the range of its taps in a table of codes.
        device: of the indices.
    """

    def __init__(
        self,
        spec: GraphSpec,
        items: Sequence[Diagonal],
        taps: Mapping[str, tuple[int, int]],
        device: torch.device,
    ) -> None:
        self.items = tuple(items)
        # Those of one tap first.
        self._order = sorted(range(len(items)), key=lambda place: items[place].edges.num_taps > 1)
        self._back = [self._order.index(place) for place in range(len(items))]
        self._taps = [taps[items[place].edges.name] for place in self._order]
        single = [place for place in self._order if items[place].edges.num_taps == 1]
        self._sizes = [_size(spec, items[place]) for place in single]
        firsts = torch.tensor([first for first, _ in self._taps[: len(single)]], dtype=torch.long)
        sizes = torch.tensor(self._sizes, dtype=torch.long)
        self._codes = firsts.repeat_interleave(sizes).to(device)

    def values(self, blocks: Mapping[str, Tensor]) -> list[Tensor]:
        """Values of all edge sets of one tap, (B, entries), then of the others (B, n, taps)."""
        found = [self.items[place].values(blocks) for place in self._order]
        single = [values.squeeze(2) for values in found[: len(self._sizes)]]
        return ([torch.cat(single, dim=1)] if single else []) + found[len(single) :]

    def encoded(self, values: Sequence[Tensor], codes: Tensor) -> list[Tensor]:
        """Values times codes (all taps, k), summed over taps: (B, n, k) by edge set, as given."""
        parts: list[Tensor] = []
        if self._sizes:
            single = values[0].unsqueeze(2) * codes.index_select(0, self._codes)
            parts += single.split(self._sizes, dim=1)
        several = values[len(values) + len(parts) - len(self.items) :]
        for part, (first, last) in zip(several, self._taps[len(parts) :], strict=True):
            parts.append(part @ codes[first:last])
        return [parts[place] for place in self._back]


def _size(spec: GraphSpec, item: Diagonal) -> int:
    return spec.node_set(item.edges.target).size if item.index is None else len(item.index)
