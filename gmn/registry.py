"""Models by name, found through the entry-point group ``gmn.models`` of any installed package.

An entry point names a factory ``(spec, outputs) -> model``. A model is either an ``nn.Module`` that
maps a :class:`gmn.ParameterGraph` of B networks to a tensor (B, outputs), or an :class:`Estimator`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from typing import Protocol, TypeAlias, runtime_checkable

from torch import Tensor, nn

from gmn.graph import ParameterGraph
from gmn.spec import GraphSpec

GROUP = "gmn.models"


@runtime_checkable
class Estimator(Protocol):
    """A model that is fitted at once instead of by gradient steps."""

    def fit(self, graphs: Sequence[ParameterGraph], targets: Tensor, seed: int = 0) -> object:
        """Fits to targets of shape (sum of batch sizes,): numbers, or classes from zero."""

    def predict(self, graphs: Sequence[ParameterGraph]) -> Tensor:
        """Predictions (sum of batch sizes,), or probabilities with one column per class."""


Factory: TypeAlias = Callable[[GraphSpec, int], "nn.Module | Estimator"]


def names() -> list[str]:
    """Names of all installed models."""
    return sorted({point.name for point in entry_points(group=GROUP)})


def find(name: str) -> Factory:
    """The factory of an installed model.

    Raises:
        KeyError: if no package offers one of this name; the message lists what there is.
    """
    for point in entry_points(group=GROUP):
        if point.name == name:
            factory: Factory = point.load()
            return factory
    raise KeyError(f"no model is called {name!r}; installed: {', '.join(names())}")
