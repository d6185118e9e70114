"""Trains transformers one after the other: many at once, their activations do not fit the cache.

Of the published network in batches of 32 images of 16 patches, a plain loop takes 3.3 ms a step
and ``torch.func.vmap`` over eight or 25 networks 2.8 ms (of 49 patches 9.0 and 11.8 ms): too little
to write optimisers for stacks of networks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from gmn.zoo.images import ImageSet
from gmn.zoo.training.classifying import Job, checkpoint_steps, choose_images, draw_batches
from gmn.zoo.training.optimisers import make_optimiser
from gmn.zoo.training.states import State, stack
from gmn.zoo.training.transformer_recipe import TransformerRecipe

EVALUATION_BATCH = 100
FINAL_RATE = 1e-5
WARM_UP = 0.1  # of the steps


def train_transformer(
    module: nn.Module,
    recipe: TransformerRecipe,
    images: ImageSet,
    seed: int,
    steps: int,
    checkpoints: int = 1,
) -> tuple[State, list[dict[str, float]]]:
    """Trains one network from a fresh start; it depends on recipe and seed alone.

    Args:
        module: the network; its weights are drawn anew, and are those of the end afterwards.
        recipe: the hyper-parameters.
        images: the images it is trained and tested on, in the dtype of the module.
        seed: the only source of randomness.
        steps: number of steps.
        checkpoints: how many states to keep, see
            :func:`gmn.zoo.training.classifying.checkpoint_steps`; keeping some does not change how
            the others come out.

    Returns:
        The states, every tensor stacked to shape (checkpoints, ...); and for each state
        ``train_accuracy`` and ``train_loss`` (on the images that it was trained on),
        ``test_accuracy`` and ``test_loss``; not a number if the run diverged.
    """
    generator = torch.Generator().manual_seed(seed)
    job = draw_transformer_job(module, recipe, images, steps, generator)
    module.load_state_dict(job.initial)
    for layer in module.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = recipe.dropout
    states: list[State] = []
    metrics: list[dict[str, float]] = []
    # Dropout knows the global generator only.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
        for _ in _optimise(module, recipe, images, job, checkpoint_steps(steps, checkpoints)):
            states.append({name: value.clone() for name, value in module.state_dict().items()})
            metrics.append(_metrics(module, images, job.visible))
    return stack(states), metrics


def draw_transformer_job(
    module: nn.Module,
    recipe: TransformerRecipe,
    images: ImageSet,
    steps: int,
    generator: torch.Generator,
) -> Job:
    """Draws the initial state, the data and the batches of one training run.

    Args:
        module: any network of the architecture; its own weights are lost.
        recipe: the hyper-parameters of the run.
        images: the images that the network may be trained on.
        steps: number of steps.
        generator: source of randomness.
    """
    initialise(module, recipe.init_std, generator)
    initial = {name: value.clone() for name, value in module.state_dict().items()}
    total = len(images.train_labels)
    chosen, visible = choose_images(total, recipe.data_fraction, generator)
    batches = draw_batches(chosen, steps, generator)
    return Job(initial, images.train_labels, visible, batches)


def initialise(module: nn.Module, deviation: float, generator: torch.Generator) -> None:
    """Draws weights from a normal distribution cut off at two deviations; biases are zero.

    Args:
        module: the network, changed in place.
        deviation: standard deviation before the cut.
        generator: source of randomness.
    """
    for parameter in module.parameters():
        if parameter.ndim < 2:
            nn.init.zeros_(parameter)
        else:
            limit = 2 * deviation
            nn.init.trunc_normal_(parameter, std=deviation, a=-limit, b=limit, generator=generator)


def rate_factor(step: int, steps: int) -> float:
    """Share of the highest learning rate at a step: a linear rise, then half a cosine.

    Args:
        step: index of the step.
        steps: number of steps.

    Returns:
        A number in (0, 1].

    >>> [round(rate_factor(step, 20), 2) for step in (0, 1, 2, 11, 19)]
    [0.5, 1.0, 1.0, 0.5, 0.01]
    """
    rising = max(1, round(WARM_UP * steps))
    if step < rising:
        return (step + 1) / rising
    return 0.5 + 0.5 * math.cos(math.pi * (step - rising) / (steps - rising))


def _optimise(
    module: nn.Module, recipe: TransformerRecipe, images: ImageSet, job: Job, stops: Sequence[int]
) -> Iterator[None]:
    """Trains the module; pauses after each of some steps."""
    optimiser = make_optimiser(
        recipe.optimiser, module.parameters(), recipe.learning_rate, recipe.l2
    )
    for step, batch in enumerate(job.batches):
        module.train()
        rate = recipe.learning_rate * rate_factor(step, len(job.batches))
        for group in optimiser.param_groups:
            group["lr"] = max(rate, FINAL_RATE)
        optimiser.zero_grad()
        loss = functional.cross_entropy(module(images.train_images[batch]), job.labels[batch])
        loss.backward()
        optimiser.step()
        if step + 1 in stops:
            yield


def _metrics(module: nn.Module, images: ImageSet, visible: Tensor) -> dict[str, float]:
    module.eval()
    train = _score(module, images.train_images[visible], images.train_labels[visible])
    test = _score(module, images.test_images, images.test_labels)
    names = ("train_accuracy", "train_loss", "test_accuracy", "test_loss")
    return dict(zip(names, (*train, *test), strict=True))


@torch.no_grad()
def _score(module: nn.Module, images: Tensor, labels: Tensor) -> tuple[float, float]:
    """Accuracy and mean cross-entropy."""
    scores = torch.cat([module(part) for part in images.split(EVALUATION_BATCH)])
    correct = (scores.argmax(1) == labels).double().mean()
    return float(correct), float(functional.cross_entropy(scores.double(), labels))
