"""Finds models by name, through the entry-point group ``gmn.models`` of installed packages.

An entry point names a factory ``(spec, outputs) -> model``. A model is either an ``nn.Module`` that
maps a :class:`gmn.ParameterGraph` of B networks to a tensor (B, outputs), or to edited networks
where ``outputs`` is an :class:`gmn.nn.EditHead`; or an :class:`Estimator`.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

from torch import Tensor, nn

from gmn.foundation.arguments import require_callable, require_type
from gmn.foundation.consent import Consent, offers
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


@dataclass(frozen=True)
class ByQuestion:
    """A factory with a model of its own for each kind of question that a task asks.

    Attributes:
        function: for tasks about what networks compute, and where nobody says.
        training: for tasks about how networks were trained.
    """

    function: Factory
    training: Factory

    def __call__(self, spec: GraphSpec, outputs: Any) -> nn.Module | Estimator:
        """The model for questions about the function."""
        return self.function(spec, outputs)


def about(factory: Factory, question: str) -> Factory:
    """The factory for one kind of question: itself, or the part of a :class:`ByQuestion`.

    Args:
        factory: of a model.
        question: ``function`` or ``training``, as :attr:`gmn.tasks.Task.about` says.
    """
    if not isinstance(factory, ByQuestion):
        return factory
    return factory.training if question == "training" else factory.function


def names() -> list[str]:
    """Names of all installed models."""
    return sorted(offers(GROUP))


def find(name: str, consent: Consent | None = None) -> Factory:
    """The factory of a model.

    Args:
        name: of an installed model, or ``module:factory`` for one of your own.
        consent: for a name that a file gave: what it may import. None for one that the user gave.

    Raises:
        KeyError: if no package offers one of this name; the message lists what there is.
        ValueError: if the module cannot be imported or has no such factory.
        ConsentError: if a file gave the name, and it needs a module that is not trusted.
    """
    require_type("name", name, str, "the name of a model, such as 'gmn', or module:factory")
    found = named(GROUP, name, consent)
    if found is None:
        raise KeyError(
            f"no model is called {name!r}; installed: {', '.join(names())}. "
            "One of your own is module:factory"
        )
    require_callable(name, found, "a function (spec, outputs) -> model")
    factory: Factory = found
    return factory


def named(group: str, name: str, consent: Consent | None) -> Any:
    """What a name stands for: an entry point of a group, or ``module:name``; None if nothing does.

    Raises:
        ValueError: if the module cannot be imported or has no such name.
        ConsentError: if a file gave the name, and it needs a module that is not trusted.
    """
    require_type("name", name, str, "a name, or module:name")
    if consent is None and ":" in name:
        return attribute(name)
    point = next((p for p in offers(group).values() if name in (p.name, p.value)), None)
    if point is not None:
        return point.load() if consent is None else consent.load(point)
    return consent.attribute(name) if consent and ":" in name else None


def attribute(reference: str) -> Any:
    """The object at ``module:name`` that the user named; the current folder is searched, too.

    What files name goes through :class:`gmn.foundation.consent.Consent` instead.

    Raises:
        ValueError: if the module cannot be imported or has no such name.
    """
    require_type("reference", reference, str, "module:name")
    module, _, name = reference.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")  # as `python -m` does
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ValueError(f"{reference}: {error}") from error
