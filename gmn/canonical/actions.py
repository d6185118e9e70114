"""Actions of scales and changes of basis on blocks, with derivatives, for :mod:`.balance`.

A tangent holds, for every action, the logarithms of scales or a symmetric matrix; the group is
reached by their exponentials.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gmn.canonical.layout import along, as_matrices, from_matrices, sum_onto
from gmn.spec import Gauge, GraphSpec, Scaling

Blocks = dict[str, Tensor]  # (B, *shape) by edge set
Tangent = dict[str, Tensor]  # by action: (B, *shape) of scales, (B, *shape, n) of matrices


@dataclass(frozen=True)
class ActionTerm:
    """How one block transforms under an action.

    Attributes:
        edge_set: name of its edge set.
        dims: positions of the action's axes.
        exponent: power of the scale or matrix.
        offset: what belongs to a variance; then the block holds deviations, which follow half as
            fast. Otherwise 0.
    """

    edge_set: str
    dims: tuple[int, ...]
    exponent: float
    offset: float


@dataclass(frozen=True)
class BlockAction:
    """A positive scaling, or a change of basis.

    Attributes:
        name: name of the symmetry.
        is_scale: whether it is a scaling.
        parts: the blocks that follow it.
    """

    name: str
    is_scale: bool
    parts: tuple[ActionTerm, ...]

    @property
    def one_sided(self) -> bool:
        """Whether all exponents have one sign: then no scale is the smallest."""
        return len({part.exponent > 0 for part in self.parts}) == 1

    @property
    def conjugates(self) -> bool:
        """Whether it acts on both ends of a block."""
        return len({part.edge_set for part in self.parts}) < len(self.parts)


def actions_of(spec: GraphSpec, scales: bool, bases: bool) -> list[BlockAction]:
    """The positive scalings and the general changes of basis of a spec."""
    chosen: list[Scaling | Gauge] = []
    if scales:
        chosen += [s for s in spec.scalings if s.domain == "positive"]
    if bases:
        chosen += [g for g in spec.gauges if g.group == "general"]
    return [
        BlockAction(
            one.name,
            isinstance(one, Scaling),
            tuple(
                ActionTerm(t.edge_set, t.dims, t.exponent / 2 if t.offset else t.exponent, t.offset)
                for t in one.terms
            ),
        )
        for one in chosen
    ]


def change(actions: Sequence[BlockAction], blocks: Blocks, tangent: Tangent) -> Blocks:
    """The derivative T of the blocks along a tangent."""
    result = {name: torch.zeros_like(block) for name, block in blocks.items()}
    for action in actions:
        for part in action.parts:
            block, numbers = blocks[part.edge_set], tangent[action.name]
            if action.is_scale:
                moved = along(numbers, part.dims, block) * block
            else:
                moved = from_matrices(numbers @ as_matrices(block, part.dims), part.dims, block)
            result[part.edge_set].add_(moved, alpha=part.exponent)
    return result


def adjoint(actions: Sequence[BlockAction], blocks: Blocks, changes: Blocks) -> Tangent:
    """The adjoint Tᵀ: from changes of the blocks to tangents."""
    result: Tangent = {}
    for action in actions:
        total: Tensor | float = 0.0
        for part in action.parts:
            block, other = blocks[part.edge_set], changes[part.edge_set]
            if action.is_scale:
                added = sum_onto(block * other, part.dims)
            else:
                added = as_matrices(other, part.dims) @ as_matrices(block, part.dims).mT
                added = (added + added.mT) / 2
            total = total + part.exponent * added
        assert isinstance(total, Tensor)
        result[action.name] = total
    return result


def diagonal(actions: Sequence[BlockAction], blocks: Blocks) -> Tangent:
    """The diagonal of TᵀT, where matrices are diagonal in the blocks' own products."""
    result: Tangent = {}
    for action in actions:
        total: Tensor | float = 0.0
        for part in action.parts:
            total = total + part.exponent**2 * sum_onto(blocks[part.edge_set] ** 2, part.dims)
        assert isinstance(total, Tensor)
        if not action.is_scale:
            total = (total.unsqueeze(-1) + total.unsqueeze(-2)) / 2
        result[action.name] = total
    return result


def act(actions: Sequence[BlockAction], blocks: Blocks, tangent: Tangent) -> None:
    """Moves the blocks by the exponential of a tangent."""
    for action in actions:
        for part in action.parts:
            block, numbers = blocks[part.edge_set], part.exponent * tangent[action.name]
            if action.is_scale:
                moved = block * along(numbers.exp(), part.dims, block)
            else:
                turned = torch.linalg.matrix_exp(numbers) @ as_matrices(block, part.dims)
                moved = from_matrices(turned, part.dims, block)
            blocks[part.edge_set] = moved


def speed(actions: Sequence[BlockAction], tangent: Tangent) -> Tensor:
    """How fast a tangent can change any parameter at most, in logarithms: (B,)."""
    result: dict[str, Tensor] = {}
    for action in actions:
        numbers = tangent[action.name]
        flat = numbers.reshape(len(numbers), -1)
        own = flat.abs().amax(1) if action.is_scale else flat.norm(dim=1)
        for part in action.parts:
            before = result.get(part.edge_set, torch.zeros_like(own))
            result[part.edge_set] = before + abs(part.exponent) * own
    return torch.stack([*result.values()]).amax(0)
