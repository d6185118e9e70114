"""The state of a training run as one value that can be stored and resumed."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from gmn.train.distributed import ranks
from gmn.train.recipe import Recipe, peak_rate


class Run:
    """The state of a training: model, optimizer, schedule, best weights, log.

    Args:
        model: trained in place.
        recipe: optimisation settings.
        seed: seed of minibatches and augmentation.
        steps: number of steps per epoch.

    Attributes:
        log: one row of numbers per finished epoch.
        best_epoch: the epoch with the best validation metric.
        kept: the state dict evaluated in that epoch.
    """

    def __init__(self, model: nn.Module, recipe: Recipe, seed: int, steps: int) -> None:
        self.model, self.recipe, self.seed = model, recipe, seed
        self.ranks = ranks()
        self.order = torch.Generator().manual_seed(seed)
        # Of its own, so that minibatches are the same with and without augmentation.
        self.chance = torch.Generator().manual_seed(seed)
        rate = peak_rate(model, recipe)
        self.optimiser = torch.optim.AdamW(
            model.parameters(), lr=rate, weight_decay=recipe.weight_decay
        )
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimiser, rate, total_steps=steps * recipe.epochs, pct_start=0.15
        )
        self.average = None
        if recipe.ema is not None:
            self.average = AveragedModel(model, avg_fn=_moving_average(recipe.ema))
        self.log: list[dict[str, float]] = []
        self.best, self.best_epoch = -math.inf, 0
        self.kept = copy.deepcopy(model.state_dict())

    @property
    def epoch(self) -> int:
        """Epochs that are finished."""
        return len(self.log)

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or patience has run out."""
        patience = self.recipe.patience
        waited = self.epoch - 1 - self.best_epoch
        return self.epoch >= self.recipe.epochs or (patience is not None and waited >= patience)

    @property
    def evaluated(self) -> nn.Module:
        """The model that is evaluated: with averaged weights, if there is an average."""
        return self.model if self.average is None else self.average.module

    def step(self) -> None:
        """One step down the gradients that all processes have gathered."""
        self.ranks.sum_gradients(self.model)
        nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip)
        self.optimiser.step()
        self.schedule.step()
        if self.average is not None:
            self.average.update_parameters(self.model)

    def end_epoch(self, score: float, row: dict[str, float]) -> None:
        """Writes the epoch's row, and keeps the evaluated weights if their score is the largest.

        Without a number for a score, of equal predictions say, the first epoch counts as the best.
        """
        if score > self.best or not self.log:
            self.best = -math.inf if math.isnan(score) else score
            self.best_epoch = self.epoch
            self.kept = copy.deepcopy(self.evaluated.state_dict())
        self.log.append(row)

    def state_dict(self) -> dict[str, Any]:
        """The whole state, global random generators included, for :meth:`load_state_dict`."""
        return {
            "model": self.model.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "schedule": self.schedule.state_dict(),
            "order": self.order.get_state(),
            "chance": self.chance.get_state(),
            "global": torch.get_rng_state(),
            "global_cuda": torch.cuda.get_rng_state_all(),
            "log": self.log,
            "best": self.best,
            "best_epoch": self.best_epoch,
            "kept": self.kept,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes back to where :meth:`state_dict` was called on an equal run.

        Raises:
            ValueError: if it is the state of another run; torch raises further errors.
        """
        _require_alike("schedule", state["schedule"], self.schedule.state_dict())
        _require_moments(state["optimiser"], self.optimiser)
        self.model.load_state_dict(state["model"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
        self.order.set_state(state["order"])
        self.chance.set_state(state["chance"])
        torch.set_rng_state(state["global"])
        torch.cuda.set_rng_state_all(state["global_cuda"])
        if not state["log"] or any(row.keys() != state["log"][0].keys() for row in state["log"]):
            raise ValueError("the log has no epochs, or epochs of different columns")
        if state["kept"].keys() != self.kept.keys():
            raise ValueError("the weights that were kept are those of another model")
        self.log, self.kept = state["log"], state["kept"]
        self.best, self.best_epoch = float(state["best"]), int(state["best_epoch"])


def _require_alike(name: str, found: Any, own: Any) -> None:
    """Refuses other names and types: torch would take them, and stumble in a later step."""
    alike = isinstance(found, float | int if isinstance(own, float | int) else type(own))
    if not alike or (isinstance(own, dict | list | tuple) and len(found) != len(own)):
        raise ValueError(f"{name} is that of another run")
    if isinstance(own, dict):
        for key, value in own.items():
            _require_alike(f"{name}.{key}", found[key], value)
    if isinstance(own, list | tuple):
        for one, value in zip(found, own, strict=True):
            _require_alike(name, one, value)


def _require_moments(found: dict[str, Any], optimiser: torch.optim.Optimizer) -> None:
    """Refuses moments that are no tensors of the parameters' shapes."""
    _require_alike("param_groups", found["param_groups"], optimiser.state_dict()["param_groups"])
    shapes = [p.shape for group in optimiser.param_groups for p in group["params"]]
    for number, moments in found["state"].items():
        for name, value in moments.items():
            if value.shape not in (shapes[number], torch.Size()):
                raise ValueError(f"{name} of parameter {number} is that of another run")


def _moving_average(decay: float) -> Callable[[Tensor, Tensor, Tensor | int], Tensor]:
    def update(average: Tensor, current: Tensor, step: Tensor | int) -> Tensor:
        # The first weights are random: without this, a short run would never forget them.
        share = 1 - min(decay, (1 + int(step)) / (10 + int(step)))
        return torch.lerp(average, current, share)

    return update
