"""Gradient descent on many networks side by side, each with its own rate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from gmn.zoo.training.states import State

BETAS = (0.9, 0.999)
EPSILON = 1e-8


class AdamW:
    """AdamW (the formulas of ``torch.optim.AdamW``) on stacked states, which it changes in place.

    Args:
        state: stacked states of N networks.
    """

    def __init__(self, state: State) -> None:
        self.state = state
        self._moments = {n: (torch.zeros_like(v), torch.zeros_like(v)) for n, v in state.items()}
        self._steps = 0

    def step(self, gradients: State, rates: Tensor, decays: Tensor) -> None:
        """One step of the first n networks, one for each rate.

        Args:
            gradients: gradients of these n networks, each of shape (n, ...).
            rates: the learning rate of each, shape (n,).
            decays: the weight decay of each, shape (n,).
        """
        self._steps += 1
        for name, gradient in gradients.items():
            weight = self.state[name][: len(rates)]
            first, second = (moment[: len(rates)] for moment in self._moments[name])
            rate, decay = (v.view(-1, *[1] * (weight.ndim - 1)) for v in (rates, decays))
            first.lerp_(gradient, 1 - BETAS[0])
            second.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
            deviation = (second / (1 - BETAS[1] ** self._steps)).sqrt_().add_(EPSILON)
            step = rate / (1 - BETAS[0] ** self._steps) * first / deviation
            weight.mul_(1 - rate * decay).sub_(step)


def gradients(state: State, loss: Callable[[State], Tensor]) -> State:
    """Gradients of a loss with respect to stacked states.

    Args:
        state: stacked states of N networks.
        loss: maps such states to the sum of the networks' losses, shape ().
    """
    leaves = {name: value.detach().requires_grad_() for name, value in state.items()}
    values = torch.autograd.grad(loss(leaves), list(leaves.values()))
    return dict(zip(leaves, values, strict=True))


def descend(
    initial: State,
    loss: Callable[[int, State], Tensor],
    learning_rate: float,
    factors: Sequence[float],
    masks: Mapping[str, Tensor] | None = None,
) -> State:
    """Trains N networks side by side by Adam.

    Args:
        initial: stacked states to start from; left as they are.
        loss: maps the index of a step and stacked states to the sum of the networks' losses.
        learning_rate: learning rate of all networks.
        factors: factor on the learning rate at each step; their number is that of the steps.
        masks: by name of a weight, 0 where it stays zero and 1 elsewhere, shape (N, ...).

    Returns:
        The trained states, stacked.
    """
    masks = masks or {}
    state = {n: v * masks[n] if n in masks else v.clone() for n, v in initial.items()}
    optimiser, weight = AdamW(state), next(iter(state.values()))
    rates = torch.full((len(weight),), learning_rate, dtype=weight.dtype, device=weight.device)
    no_decay = torch.zeros_like(rates)
    for step, factor in enumerate(factors):
        gradient = gradients(state, partial(loss, step))
        masked = {n: g * masks[n] if n in masks else g for n, g in gradient.items()}
        optimiser.step(masked, rates * factor, no_decay)
    return state
