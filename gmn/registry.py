"""Finds models by name, through the entry-point group ``gmn.models`` of installed packages.

An entry point names a factory ``(spec, outputs) -> model``. A model is either an ``nn.Module`` that
maps a :class:`gmn.ParameterGraph` of B networks to a tensor (B, outputs), or to edited networks
where ``outputs`` is an :class:`gmn.nn.EditHead`; or an :class:`Estimator`.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from typing import Any, Protocol, TypeAlias, runtime_checkable

from torch import Tensor, nn

from gmn.arguments import require_callable, require_type
from gmn.graph import ParameterGraph
from gmn.nn.heads import EditHead
from gmn.spec import GraphSpec

GROUP = "gmn.models"


@runtime_checkable
class Estimator(Protocol):
    """A model that is fitted in one call instead of by gradient steps."""

    def fit(self, graphs: Sequence[ParameterGraph], targets: Tensor, seed: int = 0) -> object:
        """Fits to targets of shape (sum of batch sizes,): numbers, or classes from zero."""

    def predict(self, graphs: Sequence[ParameterGraph]) -> Tensor:
        """Predictions (sum of batch sizes,), or probabilities with one column per class."""


Head: TypeAlias = int | EditHead
"""What a model answers with: so many numbers, or edited networks."""

Factory: TypeAlias = Callable[[GraphSpec, Any], "nn.Module | Estimator"]
"""From a spec and a :data:`Head` to a model; factories that know numbers only refuse others."""


def names() -> list[str]:
    """Names of all installed models."""
    return sorted({point.name for point in entry_points(group=GROUP)})


def find(name: str) -> Factory:
    """The factory of a model.

    Args:
        name: of an installed model, or ``module:factory`` for one of your own.

    Raises:
        KeyError: if no package offers one of this name; the message lists what there is.
        ValueError: if the module cannot be imported or has no such factory.
    """
    require_type("name", name, str, "the name of a model, such as 'gmn', or module:factory")
    if ":" in name:
        own: Factory = attribute(name)
        require_callable(name, own, "a function (spec, outputs) -> model")
        return own
    for point in entry_points(group=GROUP):
        if point.name == name:
            factory: Factory = point.load()
            return factory
    raise KeyError(
        f"no model is called {name!r}; installed: {', '.join(names())}. "
        "One of your own is module:factory"
    )


def attribute(reference: str) -> Any:
    """The object at ``module:name``; modules of the current folder are importable.

    Raises:
        ValueError: if the module cannot be imported or has no such name.
    """
    module, _, name = reference.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")  # as `python -m` does
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{reference}: {error}") from error
