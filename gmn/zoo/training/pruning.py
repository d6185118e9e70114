"""Iterative magnitude pruning of many networks at once, and training under fixed masks.

Frankle & Carbin, 2019, https://arxiv.org/abs/1803.03635: train, prune the smallest weights, rewind
the others to where they started, and begin again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional

from gmn.zoo.training.descent import descend
from gmn.zoo.training.states import State

FLOW_ROUNDS = 100


@dataclass(frozen=True)
class TrainingSetup:
    """Data, batches and learning rate, the same for all networks.

    So the masks that pruning finds are a function of the initialisation alone.

    Attributes:
        images: shape (train, inputs).
        labels: int64, shape (train,).
        batches: indices of the images of each step, shape (steps, batch).
        learning_rate: learning rate of Adam at the first step; it falls linearly to zero.
    """

    images: Tensor
    labels: Tensor
    batches: Tensor
    learning_rate: float

    def train(self, module: nn.Module, initial: State, masks: State) -> State:
        """Trains N networks side by side; weights outside their masks are zero and stay so.

        Args:
            module: any network of the architecture; its own weights are not used.
            initial: stacked states to start from; left as they are.
            masks: by name of a weight, 1 where it is kept and 0 elsewhere, shape (N, ...).

        Returns:
            The trained states, stacked.
        """
        steps = len(self.batches)
        factors = [1 - step / steps for step in range(steps)]
        return descend(initial, partial(self._loss, module), self.learning_rate, factors, masks)

    def _loss(self, module: nn.Module, step: int, state: State) -> Tensor:
        """Sum of the networks' mean cross-entropies on the images of a step."""
        batch = self.batches[step]
        scores = forward(module, state, self.images[batch]).flatten(0, 1)
        labels = self.labels[batch].repeat(len(scores) // len(batch))
        return functional.cross_entropy(scores, labels, reduction="sum") / len(batch)


def forward(module: nn.Module, state: State, images: Tensor) -> Tensor:
    """Class scores (N, images, classes) of N networks for the same images (images, inputs)."""
    scores: Tensor = vmap(
        lambda weights: functional_call(module, weights, (images,)), randomness="error"
    )(state)
    return scores


@torch.no_grad()
def accuracies(module: nn.Module, state: State, images: Tensor, labels: Tensor) -> Tensor:
    """Share of images that each of N networks puts into the right class, shape (N,)."""
    return (forward(module, state, images).argmax(2) == labels).float().mean(1)


def keep_largest(scores: Tensor, count: int) -> Tensor:
    """Masks of the largest scores of each network.

    Args:
        scores: shape (N, ...).
        count: how many are kept per network.

    Returns:
        1 at the largest and 0 elsewhere, of shape and type of the scores.
    """
    flat = scores.flatten(1)
    chosen = flat.topk(count, dim=1).indices
    return torch.zeros_like(flat).scatter_(1, chosen, 1.0).view_as(scores)


def prune(
    module: nn.Module, initial: State, setup: TrainingSetup, counts: Sequence[Mapping[str, int]]
) -> tuple[list[State], State]:
    """Winning tickets by iterative magnitude pruning, layer by layer, with rewinding.

    Args:
        module: any network of the architecture; its own weights are not used.
        initial: stacked states that networks start from, and are rewound to.
        setup: data, batches and learning rate of every round.
        counts: for each round, how many weights each layer keeps after it, by name; decreasing.

    Returns:
        The masks after every round, each tensor of shape (N, ...), those of a round within those of
        the round before; and the states that were trained in the first round, without masks.
    """
    masks = {name: torch.ones_like(initial[name]) for name in counts[0]}
    dense: State = {}
    rounds = []
    for kept in counts:
        trained = setup.train(module, initial, masks)
        dense = dense or trained
        masks = {
            name: keep_largest(trained[name].abs().masked_fill(mask == 0, -1), kept[name])
            for name, mask in masks.items()
        }
        rounds.append(masks)
    return rounds, dense


def synaptic_flow(
    module: nn.Module, initial: State, example: Tensor, counts: Mapping[str, int]
) -> State:
    """Masks by iterative SynFlow, which looks at the initial weights and at no image.

    Tanaka et al., 2020, https://arxiv.org/abs/2006.05467: the score of a weight is ``w ∂R/∂w`` with
    R the sum of outputs for an input of ones after all weights were replaced by their absolute
    values; 100 rounds, each of which keeps an equal share of the weights that were left.

    Args:
        module: any network of the architecture, whose activations leave positive numbers alone;
            its own weights are not used.
        initial: stacked states; biases are taken for zero.
        example: one input, shape (1, ...).
        counts: how many weights each layer keeps, by name.

    Returns:
        1 where a weight is kept and 0 elsewhere, by name, shape (N, ...).
    """
    masks = {name: torch.ones_like(initial[name]) for name in counts}
    sizes = {name: mask[0].numel() for name, mask in masks.items()}
    ones = torch.ones_like(example).double()
    for done in range(1, FLOW_ROUNDS + 1):
        leaves = {
            name: (value.abs() * masks[name] if name in masks else torch.zeros_like(value))
            .double()
            .requires_grad_()
            for name, value in initial.items()
        }
        flow = forward(module, leaves, ones).sum()
        gradients = torch.autograd.grad(flow, [leaves[name] for name in counts])
        for (name, count), gradient in zip(counts.items(), gradients, strict=True):
            scores = (leaves[name].detach() * gradient).masked_fill(masks[name] == 0, -1)
            kept = round(sizes[name] * (count / sizes[name]) ** (done / FLOW_ROUNDS))
            masks[name] = keep_largest(scores, kept).to(initial[name])
    return masks
