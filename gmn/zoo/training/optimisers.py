"""Optimisers of ``torch.optim`` by name, for one network or for many side by side."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor, nn

from gmn.zoo.training.descent import AdamW
from gmn.zoo.training.states import State

MOMENTUM = 0.9


def make_optimiser(
    name: str, parameters: Iterable[nn.Parameter], rate: float, l2: float
) -> torch.optim.Optimizer:
    """A new optimiser of ``torch.optim``.

    Args:
        name: ``"adam"``, ``"rmsprop"``, ``"sgd"`` or ``"momentum"`` (SGD with 0.9 of it).
        parameters: what it changes.
        rate: learning rate.
        l2: strength of the L2 penalty.
    """
    parameters = list(parameters)
    if name == "adam":
        return torch.optim.Adam(parameters, rate, weight_decay=l2, fused=True)
    if name == "rmsprop":
        return torch.optim.RMSprop(parameters, rate, weight_decay=l2, foreach=True)
    momentum = MOMENTUM if name == "momentum" else 0.0
    return torch.optim.SGD(parameters, rate, momentum=momentum, weight_decay=l2, fused=True)


class StackedOptimiser(Protocol):
    """An optimiser of stacked states, which it changes in place."""

    def step(self, gradients: State, rates: Tensor, decays: Tensor) -> None:
        """One step of the first n networks.

        Args:
            gradients: gradients of these n networks, each of shape (n, ...).
            rates: the learning rate of each, shape (n,).
            decays: the weight decay of each, shape (n,).
        """


class Penalised:
    """An optimiser of ``torch.optim`` whose weight decay is an L2 penalty, on stacked states.

    Such optimisers have one learning rate, and their steps are proportional to it. So this one
    steps from zero at rate one, and each network adds that step at its own rate.

    Args:
        name: as for :func:`make_optimiser`.
        state: stacked states of N networks, changed in place.
    """

    def __init__(self, name: str, state: State) -> None:
        self.state = state
        self._moves = {n: nn.Parameter(torch.zeros_like(v)) for n, v in state.items()}
        self._optimiser = make_optimiser(name, self._moves.values(), 1.0, 0.0)

    @torch.no_grad()
    def step(self, gradients: State, rates: Tensor, decays: Tensor) -> None:
        """One step of the first n networks: see :class:`StackedOptimiser`."""
        count = len(rates)
        for name, gradient in gradients.items():
            weight, move = self.state[name][:count], self._moves[name]
            move.zero_()
            move.grad = torch.zeros_like(move)
            move.grad[:count] = gradient + _by_network(decays, weight) * weight
        self._optimiser.step()
        for name in gradients:
            weight = self.state[name][:count]
            weight.add_(_by_network(rates, weight) * self._moves[name][:count])


def stacked_optimiser(name: str, state: State) -> StackedOptimiser:
    """The optimiser of this name for networks side by side.

    Args:
        name: ``"adamw"``, whose weight decay is decoupled, or as for :func:`make_optimiser`.
        state: stacked states of N networks, which it will change in place.
    """
    return AdamW(state) if name == "adamw" else Penalised(name, state)


def _by_network(values: Tensor, weight: Tensor) -> Tensor:
    """Values (n,) as factors of a tensor (n, ...)."""
    return values.view(-1, *[1] * (weight.ndim - 1))
