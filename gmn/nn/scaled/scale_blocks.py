"""The building blocks of ScaleGMN: functions that are invariant to scales, or commute with them.

Rows of a tensor are neurons or edges. :class:`ScaleMasks` hold which group acts on each row: none,
positive scales, signs, or both. All blocks obey their law exactly, also for rows of zeros and at
any magnitude, and their gradients are finite.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gmn.nn.passing.message_passing import update_edges
from gmn.nn.passing.relations import Wiring


@dataclass(frozen=True, eq=False)
class ScaleMasks:
    """Which group acts on each row; of shape (rows, 1), to broadcast over (B, rows, d).

    Attributes:
        scaled: true where positive scales act.
        even: 1 where signs act, else 0.
        scales: whether scales act on any row.
        signs: whether signs act on any row.
    """

    scaled: Tensor
    even: Tensor
    scales: bool
    signs: bool

    @property
    def free(self) -> Tensor:
        """True where no group acts."""
        return ~self.scaled & (self.even == 0)

    @property
    def own_dual(self) -> Tensor:
        """True where the inverse of a scale is the scale: signs and no group."""
        return ~self.scaled


def unit(x: Tensor) -> Tensor:
    """``x / ‖x‖`` along the last dimension, and 0 at 0.

    Dividing by the largest entry first keeps squares from underflowing. Its gradient may be left
    out, since the result does not depend on the divisor. No such function is continuous at 0.
    """
    largest = x.detach().abs().amax(dim=-1, keepdim=True)
    x = x / torch.where(largest == 0, 1, largest)
    length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
    return x / torch.where(length == 0, 1, length)


def linear(inputs: int, outputs: int) -> nn.Linear:
    """A map without bias that keeps norms at first: features are products of many maps."""
    result = nn.Linear(inputs, outputs, bias=False)
    nn.init.normal_(result.weight, std=inputs**-0.5)
    return result


def open_at_first(bias: Tensor) -> None:
    """Sets a gate's bias to 1, so that it keeps norms at first."""
    nn.init.ones_(bias)


class ScaleInv(nn.Module):
    """Invariant features: ``MLP(x / ‖x‖)`` for scales, ``ρ(x) + ρ(-x)`` for signs.

    Further invariants enter the first layer (the paper's augmented form).

    Args:
        inputs: channels of ``x``.
        outputs: channels of the result.
        extras: channels of further invariants, or 0.
    """

    def __init__(self, inputs: int, outputs: int, extras: int = 0) -> None:
        super().__init__()
        self.inputs, self.read = inputs, linear(inputs, outputs)
        self.bias = nn.Parameter(torch.randn(outputs) / 4)
        self.extras = nn.Linear(extras, outputs, bias=False) if extras else None
        self.normal = nn.LayerNorm(outputs)
        self.out = nn.Linear(outputs, outputs)

    def forward(self, x: Tensor, kind: ScaleMasks, extras: Tensor | None = None) -> Tensor:
        """From (..., rows, inputs), and extras that broadcast to it, to (..., rows, outputs)."""
        if kind.scales:
            x = torch.where(kind.scaled, unit(x) * self.inputs**0.5, x)  # entries of size 1
        projected = self.read(x)
        shift = self.bias
        if self.extras is not None and extras is not None:
            shift = shift + self.extras(extras)
        hidden = nn.functional.silu(shift + projected)
        if kind.signs:
            hidden = hidden + kind.even * nn.functional.silu(shift - projected)
        return self.out(self.normal(hidden))


class ScaleEq(nn.Module):
    """``(Γ x) ⊙ ρ(x)`` with a linear ``Γ`` and invariant ``ρ``; commutes with scales and signs.

    Args:
        inputs: channels of ``x``.
        outputs: channels of the result.
        extras: channels of further invariants, or 0.
    """

    def __init__(self, inputs: int, outputs: int, extras: int = 0) -> None:
        super().__init__()
        self.linear = linear(inputs, outputs)
        self.gate = ScaleInv(inputs, outputs, extras)
        open_at_first(self.gate.out.bias)

    def forward(self, x: Tensor, kind: ScaleMasks, extras: Tensor | None = None) -> Tensor:
        """From (..., rows, inputs), and extras that broadcast to it, to (..., rows, outputs)."""
        return self.linear(x) * self.gate(x, kind, extras)


class ReScaleEq(nn.Module):
    """``(Γ_e e) ⊙ (Γ_x x)``: its scale is the product of those of ``e`` and ``x``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.edge = linear(width, width)
        self.node = linear(width, width)

    def forward(self, edge: Tensor, node: Tensor) -> Tensor:
        """From edges (B, *block, d) and their nodes after :attr:`node`."""
        return self.edge(edge) * node


class EdgeUpdate(nn.Module):
    """``(Γ e_ij) ⊙ φ(z_i, z_j)`` with invariants ``z`` of both ends; scales like ``e_ij``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = linear(width, width)
        self.source = nn.Linear(width, width)
        self.target = nn.Linear(width, width, bias=False)
        self.out = nn.Linear(width, width)
        open_at_first(self.out.bias)

    def forward(self, wiring: Wiring, edges: Sequence[Tensor], z: Tensor) -> list[Tensor]:
        """From edges (B, *block, d) of each relation, and invariants (B, rows, d) of rows."""
        return update_edges(wiring, self._updated, self.source(z), self.target(z), edges)

    def _updated(self, source: Tensor, target: Tensor, edge: Tensor) -> Tensor:
        return self.linear(edge) * self.out(nn.functional.silu(source + target))
