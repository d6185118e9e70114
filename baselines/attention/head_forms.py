"""Layouts of a transformer block for Transformer-NFN: node families and rows of matrices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from baselines.layers.equivariant import Feature


@dataclass(frozen=True)
class Space:
    """Neurons at one side of a matrix.

    Attributes:
        size: number of neurons.
        axis: name of the axis whose permutations move them; None if each has its own coefficients.
    """

    size: int
    axis: str | None = None


@dataclass(frozen=True)
class RowForm:
    """Form of a head-wise matrix, seen from the units of its heads: one row per unit.

    Attributes:
        space: the neurons along the row.
        bias: whether each row has one more entry.
    """

    space: Space
    bias: bool = False

    @property
    def fixed(self) -> int:
        """Entries of a row that no permutation moves."""
        return (0 if self.space.axis else self.space.size) + self.bias

    @property
    def flat(self) -> int:
        """Numbers per row and channel that no permutation changes."""
        return self.fixed + (self.space.axis is not None)


@dataclass(frozen=True)
class BlockForm:
    """Sizes and symmetry of one block.

    Attributes:
        heads: number of heads.
        query, key, value, output: forms of the rows of the heads' matrices.
        hidden: the hidden neurons; None without a feed-forward network.
        sink: the neurons that the feed-forward network writes.
        gates: number of matrices into the hidden neurons.
        gate_biases: how many of them have a bias.
        out_bias: whether the matrix out of them has one.
        output_bias: whether the attention's output has one.
    """

    heads: int
    query: RowForm
    key: RowForm
    value: RowForm
    output: RowForm
    hidden: Space | None = None
    sink: Space | None = None
    gates: int = 1
    gate_biases: int = 1
    out_bias: bool = True
    output_bias: bool = False

    @cached_property
    def spaces(self) -> dict[str, tuple[Space, ...]]:
        """The spaces that each tensor outside of the heads runs over, by name."""
        middle = self.output.space
        result: dict[str, tuple[Space, ...]] = {}
        if self.hidden is not None and self.sink is not None:
            result["into"] = (middle, self.hidden)
            if self.gate_biases:
                result["into_bias"] = (self.hidden,)
            result["out"] = (self.hidden, self.sink)
            if self.out_bias:
                result["out_bias"] = (self.sink,)
        if self.output_bias:
            result["output_bias"] = (middle,)
        return result

    def copies(self, name: str) -> int:
        """The number of tensors of this name."""
        return {"into": self.gates, "into_bias": self.gate_biases}.get(name, 1)

    def features(self, channels: int) -> dict[str, Feature]:
        """Forms of these tensors; along ordered spaces, positions are channels."""
        return {
            name: folded_form(spaces, channels * self.copies(name))
            for name, spaces in self.spaces.items()
        }


def folded_form(spaces: Sequence[Space], channels: int) -> Feature:
    """Form of a tensor over these spaces after :func:`fold`."""
    for space in spaces:
        channels *= 1 if space.axis else space.size
    return Feature(tuple(space.axis for space in spaces if space.axis), channels)


def fold(
    value: Tensor,  # shape: (B, *sizes of the spaces, channels)
    spaces: Sequence[Space],
) -> Tensor:  # shape: (B, *sizes of movable spaces, all others)
    """Makes positions along ordered spaces channels."""
    return value.permute(_fold_order(spaces)).flatten(1 + sum(bool(s.axis) for s in spaces))


def unfold(value: Tensor, spaces: Sequence[Space], channels: int) -> Tensor:
    """The inverse of :func:`fold`."""
    order = _fold_order(spaces)
    sizes = [(*(space.size for space in spaces), channels)[dim - 1] for dim in order[1:]]
    inverse = sorted(range(len(order)), key=order.__getitem__)
    return value.reshape(len(value), *sizes).permute(inverse)


def _fold_order(spaces: Sequence[Space]) -> list[int]:
    indices = range(len(spaces))
    moving = [1 + i for i in indices if spaces[i].axis]
    return [0, *moving, *(1 + i for i in indices if not spaces[i].axis), 1 + len(spaces)]


@dataclass(frozen=True)
class Rows:
    """Values of a head-wise matrix with d channels, for U units of all heads; see :func:`rows_of`.

    Attributes:
        fixed: shape (B, U, d, fixed entries).
        nodes: shape (B, U, n, d) along a movable space; None along an ordered one.
        flat: what no permutation changes, shape (B, U, d, flat entries): the sum of ``nodes``
            divided by the root of their number, and ``fixed``.
    """

    fixed: Tensor
    nodes: Tensor | None
    flat: Tensor


def rows_of(fixed: Tensor, nodes: Tensor | None = None) -> Rows:
    """Rows with their flat entries, which several terms read."""
    if nodes is None:
        return Rows(fixed, None, fixed)
    total = (nodes.sum(2) / nodes.shape[2] ** 0.5).unsqueeze(3)
    return Rows(fixed, nodes, joined([total, fixed][: 2 if fixed.shape[3] else 1]))


@dataclass(frozen=True)
class State:
    """One block's features.

    Attributes:
        rows: of ``query``, ``key``, ``value``, ``output``.
        features: of everything else, shapes (B, *movable sizes, channels).
    """

    rows: dict[str, Rows]
    features: dict[str, Tensor]

    def rectified(self) -> State:
        """ReLU where entries are numbers; within heads it would break the changes of basis.

        Overwrites what runs over neurons, which a layer's sums have just made.
        """
        return State(
            self.rows,
            {n: v.relu_() if v.dim() > 2 else v.relu() for n, v in self.features.items()},
        )


def joined(parts: Sequence[Tensor]) -> Tensor:
    """Side by side along the last dimension; a single part is not copied."""
    return parts[0] if len(parts) == 1 else torch.cat([*parts], dim=-1)
