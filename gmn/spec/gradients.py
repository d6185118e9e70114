"""Gradients of what programs compute, by the values that are observed on the way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from gmn.spec.program import Program, ProgramError


def gradients(
    program: Program,
    state: Mapping[str, Tensor],
    inputs: Sequence[Tensor],
    objective: Callable[[list[Tensor]], Tensor],
) -> tuple[list[Tensor], list[Tensor]]:
    """Observed values, and the gradients by them of a function of the outputs.

    A gradient counts all ways from a value to the outputs, so under every symmetry it transforms
    inversely to the value. It is zero where there are none, for integers, and in programs that
    write into their own values. Values and gradients can be differentiated in turn.

    Args:
        program: the forward function.
        state: as for :meth:`Program.observe`, of B networks.
        inputs: as for :meth:`Program.observe`, for k runs.
        objective: given the values of ``program.outputs``, gives the number to differentiate.

    Returns:
        Two lists: by observation of the program, values and gradients of shape
        (B, k, other indices, neurons).

    Raises:
        ProgramError: as :meth:`Program.observe`, or if torch has no derivative of an operation.
    """
    learning = torch.is_grad_enabled()
    with torch.inference_mode(False), torch.enable_grad():
        state = {name: _recordable(value) for name, value in state.items()}
        inputs = [_recordable(value) for value in inputs]
        moves = _moves(program, state, inputs)
        values = program.observe(state, inputs, moves=moves)
        observed = list(zip(program.observations, values, strict=True))
        total = objective([value for one, value in observed if one.reader is None])
        found = _by_moves(total, moves, learning)
    if not learning:
        values = [value.detach() for value in values]
    slopes = [
        one.read(found[one.value]) if one.value in found else torch.zeros_like(value)
        for one, value in observed
    ]
    return values, slopes


def _moves(
    program: Program, state: Mapping[str, Tensor], inputs: Sequence[Tensor]
) -> dict[str, Tensor]:
    """Zeros to add to what edge sets read, by which is differentiated."""
    like = next((value for value in state.values() if value.is_floating_point()), None)
    if program.writes or like is None:  # a sum would not be where the value is written into
        return {}
    seen = program.seen(state, inputs)
    names = dict.fromkeys(one.value for one in program.observations if one.reader is not None)
    return {
        name: like.new_zeros(())
        .expand(len(like), len(inputs[0]), *seen[name].shape)
        .requires_grad_()
        for name in names
        if seen[name].is_floating_point()
    }


def _by_moves(total: Tensor, moves: Mapping[str, Tensor], learning: bool) -> dict[str, Tensor]:
    """The gradients of a sum; none where nothing leads to it."""
    if not moves or not total.requires_grad:
        return {}
    try:
        found = torch.autograd.grad(
            total,
            list(moves.values()),
            create_graph=learning,
            allow_unused=True,
            materialize_grads=True,
        )
    except NotImplementedError as error:
        raise ProgramError(
            f"the network cannot be differentiated ({error}): use probes without cotangents"
        ) from error
    return dict(zip(moves, found, strict=True))


def _recordable(value: Tensor) -> Tensor:
    """A value by which torch can differentiate: a copy, if it was made in inference mode."""
    return value.clone() if value.is_inference() else value
