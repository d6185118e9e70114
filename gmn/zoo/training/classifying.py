"""Trains many small classifiers of one architecture at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from gmn.zoo.images import ImageSet
from gmn.zoo.training.classifier_recipe import ClassifierRecipe
from gmn.zoo.training.descent import gradients
from gmn.zoo.training.optimisers import stacked_optimiser
from gmn.zoo.training.states import State, stack

BATCH_SIZE = 32
EVALUATION_BATCH = 50


@dataclass(frozen=True)
class Job:
    """The random choices of one training run, drawn before it starts.

    Attributes:
        initial: the initial state of the network.
        labels: labels of all training images, noise included, shape (train,).
        visible: True for images that the network is trained on, shape (train,), bool.
        batches: indices of the images of each step, shape (steps, BATCH_SIZE).
    """

    initial: State
    labels: Tensor
    visible: Tensor
    batches: Tensor

    def minibatch(self, images: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """What the network sees in one step.

        Args:
            images: all training images, shape (train, ...).
            step: index of the step.

        Returns:
            Images (BATCH_SIZE, ...), and their labels (BATCH_SIZE,) or probabilities of classes
            (BATCH_SIZE, classes).
        """
        batch = self.batches[step]
        return images[batch], self.labels[batch]


class RunRecipe(Protocol):
    """What hyper-parameters of a run the loop of training has to know."""

    @property
    def steps(self) -> int:
        """Number of steps."""

    @property
    def optimiser(self) -> str:
        """Name, see :func:`gmn.zoo.training.optimisers.stacked_optimiser`."""

    @property
    def learning_rate(self) -> float:
        """Learning rate at the first step; it falls linearly to zero."""

    @property
    def weight_decay(self) -> float:
        """Weight decay of the optimiser."""


def train_jobs(
    module: nn.Module,
    recipes: Sequence[RunRecipe],
    jobs: Sequence[Job],
    images: ImageSet,
    checkpoints: int = 1,
) -> tuple[State, list[dict[str, float]]]:
    """Trains networks of one architecture, those of one optimiser side by side.

    A network depends on its recipe and its job only, not on the other networks (apart from
    rounding).

    Args:
        module: any network of the architecture; its own weights are not used.
        recipes: the hyper-parameters of each of the N networks.
        jobs: the random choices of each.
        images: the images they are trained and tested on, in the dtype of the training.
        checkpoints: how many states of each network to keep, see :func:`checkpoint_steps`.

    Returns:
        The states, every tensor stacked to shape (N * checkpoints, ...), those of one network in a
        row; and for each state
        ``train_accuracy`` and ``train_loss`` (on the images and labels it was trained on),
        ``test_accuracy`` and ``test_loss``.
    """
    # Longest first: those still in training are then always the first rows.
    order = sorted(range(len(jobs)), key=lambda i: (recipes[i].optimiser, -recipes[i].steps))
    groups = [list(rows) for _, rows in groupby(order, lambda i: recipes[i].optimiser)]
    kept = [
        _optimise(module, [recipes[i] for i in rows], [jobs[i] for i in rows], images, checkpoints)
        for rows in groups
    ]
    back = sorted(range(len(order)), key=lambda row: order[row])
    state = {n: torch.cat([one[n] for one in kept])[back].flatten(0, 1) for n in kept[0]}
    return state, evaluate(module, state, images, *labels_and_masks(jobs, checkpoints))


def checkpoint_steps(steps: int, checkpoints: int) -> list[int]:
    """After which steps of a run its states are kept: at equal distances, the last at the end.

    Args:
        steps: steps of the run; at least as many as checkpoints.
        checkpoints: number of states to keep.

    >>> checkpoint_steps(10, 4)
    [2, 5, 8, 10]
    """
    return [round(steps * i / checkpoints) for i in range(1, checkpoints + 1)]


def labels_and_masks(jobs: Sequence[Job], checkpoints: int = 1) -> tuple[Tensor, Tensor]:
    """Labels of the training images, and masks of those trained on, for all states of all runs.

    Args:
        jobs: the random choices of each run.
        checkpoints: number of states of each run.

    Returns:
        Two tensors of shape (runs * checkpoints, train).
    """
    labels = torch.stack([job.labels for job in jobs])
    visible = torch.stack([job.visible for job in jobs])
    return labels.repeat_interleave(checkpoints, 0), visible.repeat_interleave(checkpoints, 0)


def draw_job(module: nn.Module, recipe: ClassifierRecipe, seed: int, images: ImageSet) -> Job:
    """Draws the initial state, the data and the batches of one training run.

    Args:
        module: any network of the architecture.
        recipe: the hyper-parameters of the run.
        seed: the only source of randomness.
        images: the images that the network may be trained on.

    Returns:
        The job, in the dtype of the images.
    """
    generator = torch.Generator().manual_seed(seed)
    initial = initial_state(module, recipe.init_scale, images.train_images.dtype, generator)
    total = len(images.train_labels)
    chosen, visible = choose_images(total, recipe.data_fraction, generator)
    classes = int(images.train_labels.max()) + 1
    random_labels = torch.randint(classes, (total,), generator=generator)
    noisy = torch.rand(total, generator=generator) < recipe.label_noise
    batches = draw_batches(chosen, recipe.steps, generator)
    labels = torch.where(noisy, random_labels, images.train_labels)
    return Job(initial, labels, visible, batches)


def draw_batches(chosen: Tensor, steps: int, generator: torch.Generator) -> Tensor:
    """Draws the images of each step, with replacement: indices, shape (steps, BATCH_SIZE).

    Args:
        chosen: indices of the images to draw from.
        steps: number of steps.
        generator: source of randomness.
    """
    return chosen[torch.randint(len(chosen), (steps, BATCH_SIZE), generator=generator)]


def choose_images(total: int, share: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draws the images a network is trained on: their indices, and a mask of all images.

    Args:
        total: number of images.
        share: fraction of the images to choose; at least one is chosen.
        generator: source of randomness.
    """
    chosen = torch.randperm(total, generator=generator)[: max(1, round(share * total))]
    visible = torch.zeros(total, dtype=torch.bool)
    visible[chosen] = True
    return chosen, visible


def initial_state(
    module: nn.Module, scale: float, dtype: torch.dtype, generator: torch.Generator
) -> State:
    """Draws the initial state of one network: normal weights, zero biases.

    Args:
        module: any network of the architecture; its own weights are not used.
        scale: the variance of weights is ``scale**2 * 2 / fan_in``.
        dtype: type of the state.
        generator: source of randomness.
    """
    state = {}
    for name, value in module.state_dict().items():
        if value.ndim < 2:
            state[name] = torch.zeros(value.shape, dtype=dtype)
        else:
            deviation = scale * (2 / value[0].numel()) ** 0.5
            drawn = torch.randn(value.shape, generator=generator, dtype=torch.float64)
            state[name] = (drawn * deviation).to(dtype)
    return state


def _optimise(
    module: nn.Module,
    recipes: Sequence[RunRecipe],  # of one optimiser, most steps first
    jobs: Sequence[Job],
    images: ImageSet,
    checkpoints: int,
) -> State:  # shape of each tensor: (N, checkpoints, ...)
    """Runs the optimiser on every network until its last step."""
    state = stack([job.initial for job in jobs])
    kept = stack([state] * checkpoints)
    kept = {name: value.transpose(0, 1).contiguous() for name, value in kept.items()}
    due: dict[int, list[tuple[int, int]]] = {}
    for row, recipe in enumerate(recipes):
        for checkpoint, step in enumerate(checkpoint_steps(recipe.steps, checkpoints)):
            due.setdefault(step, []).append((row, checkpoint))
    dtype = images.train_images.dtype
    rates = torch.tensor([recipe.learning_rate for recipe in recipes], dtype=dtype)
    lengths = torch.tensor([recipe.steps for recipe in recipes], dtype=dtype)
    decays = torch.tensor([recipe.weight_decay for recipe in recipes], dtype=dtype)
    optimiser = stacked_optimiser(recipes[0].optimiser, state)
    for step in range(recipes[0].steps):
        running = sum(recipe.steps > step for recipe in recipes)
        seen = [job.minibatch(images.train_images, step) for job in jobs[:running]]
        batch, targets = (torch.stack(parts) for parts in zip(*seen, strict=True))
        weights = {name: value[:running] for name, value in state.items()}
        loss = partial(_loss, module, batch, targets)
        rate = (rates * (1 - step / lengths))[:running]
        optimiser.step(gradients(weights, loss), rate, decays[:running])
        for row, checkpoint in due.get(step + 1, []):
            for name, value in state.items():
                kept[name][row, checkpoint] = value[row]
    return kept


def _loss(
    module: nn.Module,
    images: Tensor,  # shape: (N, batch, channels, height, width)
    labels: Tensor,  # shape: (N, batch), or (N, batch, classes) for probabilities
    state: State,
) -> Tensor:  # shape: ()
    """Sum of the networks' mean cross-entropies."""
    scores = vmap(lambda weights, x: functional_call(module, weights, (x,)))(state, images)
    loss = functional.cross_entropy(scores.flatten(0, 1), labels.flatten(0, 1), reduction="sum")
    return loss / labels.shape[1]


@torch.no_grad()
def evaluate(
    module: nn.Module,
    state: State,
    images: ImageSet,
    train_labels: Tensor,  # shape: (N, train)
    visible: Tensor,  # shape: (N, train)
) -> list[dict[str, float]]:
    """Accuracy and mean cross-entropy of each network on its training and the test images."""
    test_labels = images.test_labels.expand(len(visible), -1)
    everything = torch.ones_like(test_labels, dtype=torch.bool)
    sides = {
        "train": _score(module, state, images.train_images, train_labels, visible),
        "test": _score(module, state, images.test_images, test_labels, everything),
    }
    return [
        {
            f"{side}_{quantity}": float(values[row])
            for side, pair in sides.items()
            for quantity, values in zip(("accuracy", "loss"), pair, strict=True)
        }
        for row in range(len(visible))
    ]


def _score(
    module: nn.Module,
    state: State,
    images: Tensor,  # shape: (images, channels, height, width)
    labels: Tensor,  # shape: (N, images)
    counted: Tensor,  # shape: (N, images), bool
) -> tuple[Tensor, Tensor]:
    """Accuracy and loss of N networks over the images that count, each of shape (N,)."""
    scores = scores_of(module, state, images)
    losses = functional.cross_entropy(scores.flatten(0, 1), labels.flatten(), reduction="none")
    correct = (scores.argmax(2) == labels).double()
    total = counted.sum(1)
    losses = losses.view_as(correct).double() * counted
    return (correct * counted).sum(1) / total, losses.sum(1) / total


def scores_of(module: nn.Module, state: State, images: Tensor) -> Tensor:
    """Scores of classes of N networks for images (images, ...), shape (N, images, classes).

    Args:
        module: any network of the architecture; its own weights are not used.
        state: stacked states of N networks.
        images: the images, which are looked at in parts.
    """
    forward = vmap(lambda weights, x: functional_call(module, weights, (x,)), in_dims=(0, None))
    return torch.cat([forward(state, part) for part in images.split(EVALUATION_BATCH)], dim=1)


def mean_gradients(
    module: nn.Module,
    state: State,
    images: Tensor,  # shape: (images, channels, height, width)
    labels: Tensor,  # shape: (N, images)
    counted: Tensor,  # shape: (N, images), bool
) -> State:
    """Gradient of each network's mean cross-entropy over all images that count for it.

    Args:
        module: any network of the architecture; its own weights are not used.
        state: stacked states of N networks.
        images: the images.
        labels: their labels for each network.
        counted: which of them count for each network.

    Returns:
        The gradients, of the shapes of the states.
    """
    total = {name: torch.zeros_like(value) for name, value in state.items()}
    shares = counted.to(images.dtype) / counted.sum(1, keepdim=True)
    parts = (tensor.split(EVALUATION_BATCH, 1) for tensor in (labels, shares))
    for part in zip(images.split(EVALUATION_BATCH), *parts, strict=True):
        for name, gradient in gradients(state, partial(_weighted_loss, module, *part)).items():
            total[name] += gradient
    return total


def _weighted_loss(
    module: nn.Module,
    images: Tensor,  # shape: (images, channels, height, width)
    labels: Tensor,  # shape: (N, images)
    shares: Tensor,  # shape: (N, images)
    state: State,
) -> Tensor:  # shape: ()
    """Sum of the networks' cross-entropies, weighted by each image's share."""
    forward = vmap(lambda weights, x: functional_call(module, weights, (x,)), in_dims=(0, None))
    with sdpa_kernel(SDPBackend.MATH):  # vmap would run the fused one network by network
        scores = forward(state, images).flatten(0, 1)
    losses = functional.cross_entropy(scores, labels.flatten(), reduction="none")
    return (losses * shares.flatten()).sum()
