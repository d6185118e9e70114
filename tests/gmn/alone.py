"""Training as everybody does it, and side by side, to compare."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

from gmn.zoo.architectures.networks import network
from gmn.zoo.images import ImageSet
from gmn.zoo.training.classifier_recipe import ClassifierRecipe
from gmn.zoo.training.classifying import draw_job, train_jobs
from gmn.zoo.training.states import State


def train_alone(
    architecture: str, recipe: ClassifierRecipe, data: ImageSet, seed: int, until: int | None = None
) -> nn.Module:
    """The slow and obvious way: one module, torch.optim, a loop; all steps or those before one."""
    module = network(architecture).to(data.train_images.dtype)
    job = draw_job(module, recipe, seed, data)
    module.load_state_dict(job.initial)
    optimiser = torch.optim.AdamW(
        module.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step / recipe.steps)
    for batch in job.batches[:until]:
        optimiser.zero_grad()
        functional.cross_entropy(module(data.train_images[batch]), job.labels[batch]).backward()
        optimiser.step()
        schedule.step()
    return module


def train_together(
    module: nn.Module,
    recipes: Sequence[ClassifierRecipe],
    data: ImageSet,
    seeds: Sequence[int],
    checkpoints: int = 1,
) -> tuple[State, list[dict[str, float]]]:
    """Networks side by side, as a population trains them."""
    jobs = [draw_job(module, *each, data) for each in zip(recipes, seeds, strict=True)]
    return train_jobs(module, recipes, jobs, data, checkpoints)
