"""Settings of a training run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import nn

from gmn.foundation.arguments import require_callable, require_number, require_type, require_whole
from gmn.graph import ParameterGraph

Augment = Callable[[ParameterGraph, torch.Generator], ParameterGraph]


@dataclass(frozen=True)
class Recipe:
    """How models are trained; the same for all models of a comparison.

    Attributes:
        epochs: passes over the training split.
        batch_size: networks per step; where too few are of one architecture, of several.
        learning_rate: peak of the one-cycle schedule; None for each model's own (its attribute
            ``learning_rate``, or 0.001).
        weight_decay: weight decay of AdamW.
        clip: largest norm of the gradient.
        augment: changes the networks of a training minibatch, see :mod:`gmn.augment`; None for
            none. Estimators, which take no steps, get the networks as they are.
        patience: epochs without a better validation metric after which training stops; None to
            go through all. The schedule is that of all epochs either way.
        ema: decay of an exponential moving average of the weights, which is then what is
            evaluated and kept; None for none. Early steps count for less: the decay of step n is
            at most (1 + n) / (10 + n).
        bf16: whether models run under autocast to bfloat16 in training steps; losses and
            evaluations keep the precision of the weights.

    Raises:
        ValueError: if a setting is no number of its range, or the augmentation cannot be called.
    """

    epochs: int = 25
    batch_size: int = 32
    learning_rate: float | None = None
    weight_decay: float = 1e-2
    clip: float = 1.0
    augment: Augment | None = None
    patience: int | None = None
    ema: float | None = None
    bf16: bool = False

    def __post_init__(self) -> None:
        require_whole("epochs", self.epochs, 1)
        require_whole("batch_size", self.batch_size, 1)
        if self.learning_rate is not None:
            require_number("learning_rate", self.learning_rate, above=0)
        require_number("weight_decay", self.weight_decay, least=0)
        require_number("clip", self.clip, above=0)
        if self.augment is not None:
            require_callable("augment", self.augment, "one such as gmn.augment.SampledSymmetry()")
        if self.patience is not None:
            require_whole("patience", self.patience, 1)
        require_type("bf16", self.bf16, bool, "True or False")
        if self.ema is not None and not 0 < require_number("ema", self.ema) < 1:
            raise ValueError(f"ema is {self.ema}; a decay lies between 0 and 1, such as 0.99")

    def in_words(self) -> dict[str, Any]:
        """The fields as plain JSON values; an augmentation by its name or repr."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        if self.augment is not None:
            values["augment"] = str(getattr(self.augment, "__qualname__", repr(self.augment)))
        return values


def require_recipe(recipe: object) -> None:
    """Refuses what is no recipe, nor None.

    Raises:
        ArgumentError: then.
    """
    if recipe is not None:
        require_type("recipe", recipe, Recipe, "gmn.train.Recipe(epochs=25, ...)")


def peak_rate(model: nn.Module, recipe: Recipe) -> float:
    """Peak learning rate of a model: the recipe's, or else the model's own."""
    require_type("recipe", recipe, Recipe, "a gmn.train.Recipe")
    own = getattr(model, "learning_rate", 1e-3)
    return float(own) if recipe.learning_rate is None else recipe.learning_rate
