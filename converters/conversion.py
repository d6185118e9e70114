"""Traces a module to its GraphSpec, and converts it to a parameter graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import nn

from converters.exporting.modules import require_module
from gmn.graph import ParameterGraph
from gmn.spec import GraphSpec

from .assembly.build import build_spec
from .exporting.entries import state_entries
from .exporting.export import export
from .inference.infer import infer
from .inference.tracing import TraceError
from .proof.culprit import culprit
from .proof.experiment import tried
from .proof.situations import as_given


def trace(
    model: nn.Module,
    example_inputs: tuple[Any, ...],
    example_kwargs: Mapping[str, Any] | None = None,
    *,
    experiment: bool = True,
) -> GraphSpec:
    """Finds the parameter graph and the symmetries of a module.

    The module is exported in evaluation mode; its weights are not read and may be on the meta
    device, where large models take no memory. At the end a copy of a module that has values runs
    on random ones, and what the outputs disprove is left out with a warning. Constants beside the
    state dict are read, if they have values: along dimensions where they are all alike, neurons
    may be permuted. Operations without a rule make the axes they touch ordered and are listed in
    ``spec.unknown``.

    Args:
        model: the network.
        example_inputs: positional inputs, as for ``torch.export.export``.
        example_kwargs: keyword inputs.
        experiment: whether claims are tried on the module.

    Returns:
        The spec; it describes every state dict of this architecture.

    Raises:
        TraceError: if ``torch.export`` cannot follow the module.

    Warns:
        converters.FalseSymmetryWarning: for every symmetry that a rule claims and the module has
            not.

    Example:
        >>> import torch, converters
        >>> import torch.nn as nn
        >>> model = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1))
        >>> [nodes.name for nodes in converters.trace(model, (torch.zeros(1, 2),)).node_sets]
        ['input', '0', '2']
    """
    require_module(model)
    program = export(model, example_inputs, example_kwargs)
    entries = state_entries(model)
    actions, unknown = infer(model, program, entries)
    spec = build_spec(actions.trace, actions, entries, unknown, program)
    if not experiment:
        return replace(spec, untried="the experiment was left out")
    given = as_given(example_inputs, example_kwargs)
    return tried(
        model,
        example_inputs,
        spec,
        example_kwargs,
        blame=lambda: culprit(model, program, actions, given),
    )


def to_graph(
    model: nn.Module,
    example_inputs: tuple[Any, ...],
    example_kwargs: Mapping[str, Any] | None = None,
) -> ParameterGraph:
    """The parameter graph of one module: a batch of one network that views its weights.

    Args:
        model: the network.
        example_inputs: positional inputs, as for ``torch.export.export``.
        example_kwargs: keyword inputs.

    Raises:
        TraceError: if ``torch.export`` cannot follow the module.
        gmn.StateDictError: if a weight is NaN or infinite, or on the meta device.
    """
    spec = trace(model, example_inputs, example_kwargs)
    return ParameterGraph.from_state_dicts(spec, [model.state_dict()])


__all__ = ["TraceError", "to_graph", "trace"]
