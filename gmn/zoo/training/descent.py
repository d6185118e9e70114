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
        state: Stacked states of N networks.
    """

    def __init__(self, state: State) -> None:
        self.state = state
        self._moments = {n: (torch.zeros_like(v), torch.zeros_like(v)) for n, v in state.items()}
        self._steps = 0

    def step(self, gradients: State, rates: Tensor, decays: Tensor) -> None:
        """One step of the first networks, as many as there are rates.

        Args:
            gradients: Of these n networks, each of shape (n, ...).
            rates: The learning rate of each, shape (n,).
            decays: The weight decay of each, shape (n,).
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
        state: Stacked states of N networks.
        loss: From such states to one number, the sum over networks.
    """
    leaves = {name: value.detach().requires_grad_() for name, value in state.items()}
    found = torch.autograd.grad(loss(leaves), list(leaves.values()))
    return dict(zip(leaves, found, strict=True))


def descend(
    initial: State,
    loss: Callable[[int, State], Tensor],
    learning_rate: float,
    factors: Sequence[float],
    masks: Mapping[str, Tensor] | None = None,
) -> State:
    """Trains N networks side by side by Adam.

    Args:
        initial: Stacked states to start from; left as they are.
        loss: From the number of a step and stacked states to the sum of the networks' losses.
        learning_rate: Of all of them.
        factors: On the learning rate at each step.
        masks: By name of a weight, 1 where it may be other than zero, shape (N, ...).

    Returns:
        The trained states, stacked.
    """
    masks = masks or {}
    state = {n: v * masks[n] if n in masks else v.clone() for n, v in initial.items()}
    optimiser, some = AdamW(state), next(iter(state.values()))
    rates = torch.full((len(some),), learning_rate, dtype=some.dtype, device=some.device)
    no_decay = torch.zeros_like(rates)
    for step, factor in enumerate(factors):
        slopes = gradients(state, partial(loss, step))
        masked = {n: g * masks[n] if n in masks else g for n, g in slopes.items()}
        optimiser.step(masked, rates * factor, no_decay)
    return state
