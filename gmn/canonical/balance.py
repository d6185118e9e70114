"""Balances scales and changes of basis: the smallest parameters of the same function.

In logarithms of scales, and along geodesics of matrices, the sum of squares of all parameters is a
sum of exponentials, so convex. Its minimum over the group is unique up to rotations: it is the
same for all networks that the group relates (Kempf and Ness, 1979).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gmn.canonical.actions import (
    ActionTerm,
    BlockAction,
    Blocks,
    Tangent,
    act,
    actions_of,
    adjoint,
    change,
    diagonal,
    speed,
)
from gmn.canonical.layout import along, as_matrices, from_matrices, sum_onto
from gmn.graph import ParameterGraph
from gmn.graph.draft import Draft
from gmn.graph.required import require_graph

RANK = 1e-12  # singular values below this share of the largest are rounding
STEPS, SOLVES = 300, 300  # of Newton's method, and of conjugate gradients within each
LOOSE, SOLVED, DONE = 0.1, 1e-6, 1e-14  # relative to where a step begins; and to all parameters
TINY = 1e-300


@torch.no_grad()
def balanced(graph: ParameterGraph, *, scales: bool = True, bases: bool = True) -> ParameterGraph:
    """The graph with the smallest sum of squares that scales and changes of basis can reach.

    There every hidden neuron's incoming norm is its outgoing norm, and ``Q Qᵀ = K Kᵀ`` in every
    head. What a scale can shrink without bound (a weight before a batch norm, with its statistics)
    gets norm 1 instead; of a variance, the deviation counts.

    Where only a limit of the group reaches the minimum, the form is that limit, which computes the
    same function: the weights that leave a neuron without input become 0. A limit that several
    neurons must take together (a recurrence that nobody reads) is come close to.

    Args:
        graph: the networks; computed in float64, returned in their own type.
        scales: whether positive scalings act.
        bases: whether changes of basis act; the result is then one up to rotations.
    """
    require_graph("graph", graph)
    actions = actions_of(graph.spec, scales, bases)
    if not actions:
        return graph
    draft = Draft(graph.spec, graph.values, torch.float64)
    parts = {part.edge_set: part for action in actions for part in action.parts}
    blocks = {name: _read(draft.block(name), part.offset) for name, part in parts.items()}
    _take_limits(actions, blocks)
    _minimise(actions, blocks)
    for name, part in parts.items():
        value = blocks[name]
        draft.block(name).copy_(value**2 - part.offset if part.offset else value)
    return graph.replace(draft.changed())


def _read(block: Tensor, offset: float) -> Tensor:
    """The values, or the deviations that belong to variances."""
    return (block + offset).clamp(min=0).sqrt() if offset else block.clone()


# --- limits -------------------------------------------------------------------------------------


def _take_limits(actions: Sequence[BlockAction], blocks: Blocks) -> None:
    """Sets to 0 what scales shrink without bound; repeated, as each zero may cause others."""
    for _ in range(1 + len(actions)):
        before = [int(block.count_nonzero()) for block in blocks.values()]
        for action in actions:
            if action.is_scale and not action.one_sided:
                _drop_unmatched(action, blocks)
            elif not action.is_scale and not (action.one_sided or action.conjugates):
                _drop_null_space(action, blocks)
        if before == [int(block.count_nonzero()) for block in blocks.values()]:
            return


def _drop_unmatched(action: BlockAction, blocks: Blocks) -> None:
    """Neurons without any input lose their output, and the other way round."""
    up, down = (
        torch.stack([sum_onto(blocks[p.edge_set].abs(), p.dims) for p in side]).sum(0) > 0
        for side in _sides(action)
    )
    for part in action.parts:
        block = blocks[part.edge_set]
        blocks[part.edge_set] = block * along(up & down, part.dims, block)


def _drop_null_space(action: BlockAction, blocks: Blocks) -> None:
    """Leaves ``P = √S Uᵀ`` and ``N = √S Vᵀ`` of both sides, for ``PᵀN = U S Vᵀ``."""
    up, down = (
        torch.cat([as_matrices(blocks[p.edge_set], p.dims) for p in side], dim=-1)
        for side in _sides(action)
    )
    left, upper = torch.linalg.qr(up.mT)
    right, lower = torch.linalg.qr(down.mT)
    u, values, vh = torch.linalg.svd(upper @ lower.mT, full_matrices=False)
    root = (values * (values > RANK * values[..., :1])).sqrt().unsqueeze(-1)
    padding = (0, 0, 0, up.shape[-2] - root.shape[-2])
    factors = (root * (left @ u).mT, root * (right @ vh.mT).mT)
    for side, matrix in zip(_sides(action), factors, strict=True):
        start = 0
        for part in side:
            block = blocks[part.edge_set]
            width = as_matrices(block, part.dims).shape[-1]
            rows = torch.nn.functional.pad(matrix[..., start : start + width], padding)
            blocks[part.edge_set] = from_matrices(rows, part.dims, block)
            start += width


def _sides(action: BlockAction) -> tuple[list[ActionTerm], list[ActionTerm]]:
    """The parts that grow with the action, and those that shrink."""
    up = [part for part in action.parts if part.exponent > 0]
    return up, [part for part in action.parts if part.exponent < 0]


# --- the minimum --------------------------------------------------------------------------------


def _minimise(actions: Sequence[BlockAction], blocks: Blocks) -> None:
    """Newton's method for ``½ |exp(v) w|² - χ·v``, whose Hessian is ``2 TᵀT``.

    T takes a tangent v to the change of w, so every step is a linear least-squares problem.
    """
    goal = _goal(actions, blocks)
    for _ in range(STEPS):
        noise = DONE**2 * _dot(blocks, blocks)
        slope = {
            n: goal[n] - derivative for n, derivative in adjoint(actions, blocks, blocks).items()
        }
        step = _solve(actions, blocks, slope, noise)
        if bool((_dot(slope, step) <= noise).all()):
            return
        # The third derivative along v is at most 2 |v| times the second: so far nothing overshoots.
        length = 2 * speed(actions, step)
        share = length.log1p() / length.clamp(min=TINY)
        act(actions, blocks, {n: _times(share, v) for n, v in step.items()})


def _goal(actions: Sequence[BlockAction], blocks: Blocks) -> Tangent:
    """χ: 1 where scales are one-sided and there is something to scale; balance, so 0, elsewhere."""
    goal = {n: torch.zeros_like(v) for n, v in diagonal(actions, blocks).items()}
    for action in actions:
        if action.is_scale and action.one_sided:
            sizes = [sum_onto(blocks[p.edge_set].abs(), p.dims) for p in action.parts]
            direction = 1.0 if action.parts[0].exponent > 0 else -1.0
            goal[action.name] = direction * (torch.stack(sizes).sum(0) > 0)
    return goal


def _solve(
    actions: Sequence[BlockAction], blocks: Blocks, slope: Tangent, noise: Tensor
) -> Tangent:
    """``2 TᵀT v = slope`` by conjugate gradients, for every network of the batch by itself."""
    scale = {n: _ratio(torch.ones_like(v), 2 * v) for n, v in diagonal(actions, blocks).items()}
    solution = {n: torch.zeros_like(v) for n, v in slope.items()}
    rest = slope
    towards = {n: scale[n] * v for n, v in rest.items()}
    power = _dot(rest, towards)
    # As exact as the step can make use of: its own error is of the order of the slope's square.
    share = _ratio(DONE**2 * power, noise).clamp(min=SOLVED**2, max=LOOSE**2)
    enough = torch.maximum(share * power, noise)
    for _ in range(SOLVES):
        if bool((power <= enough).all()):
            break
        image = adjoint(actions, blocks, change(actions, blocks, towards))
        rate = _ratio(power, 2 * _dot(towards, image))
        solution = {n: v + _times(rate, towards[n]) for n, v in solution.items()}
        rest = {n: v - _times(2 * rate, image[n]) for n, v in rest.items()}
        guided = {n: scale[n] * v for n, v in rest.items()}
        power, last = _dot(rest, guided), power
        kept = _ratio(power, last)
        towards = {n: v + _times(kept, towards[n]) for n, v in guided.items()}
    return solution


def _dot(one: dict[str, Tensor], other: dict[str, Tensor]) -> Tensor:
    """Inner products (B,)."""
    return torch.stack([(v * other[n]).reshape(len(v), -1).sum(1) for n, v in one.items()]).sum(0)


def _ratio(over: Tensor, under: Tensor) -> Tensor:
    """Quotients; 0 where the divisor is."""
    return torch.where(under > 0, over / under.clamp(min=TINY), 0.0)


def _times(numbers: Tensor, value: Tensor) -> Tensor:
    """One number per network times its part of a tangent."""
    return numbers.view(-1, *[1] * (value.dim() - 1)) * value
