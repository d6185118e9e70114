"""Small networks that metanetworks are tested on, one for each kind of structure.

Their specs are traced from the modules of ``tests/shipped_networks.py`` and kept in a file, because
this package knows nothing of ``converters``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gmn.graph import ParameterGraph
from gmn.spec import GraphSpec, StateEntry

FILE = Path(__file__).with_name("networks.json")
_DOCUMENTS: Mapping[str, Mapping[str, Any]] = json.loads(FILE.read_text())

NETWORKS = tuple(_DOCUMENTS["networks"])
"""Their names."""


@cache
def _spec(name: str, kind: str = "networks") -> GraphSpec:
    return GraphSpec.from_json(json.dumps(_DOCUMENTS[kind][name]))


def _values(entry: StateEntry) -> Tensor:
    """Random numbers everywhere, also where initialisation puts zeros or ones."""
    if not entry.floating:
        return torch.zeros(entry.shape, dtype=torch.int64)
    values = 0.4 * torch.randn(entry.shape, dtype=torch.float64)
    return values.abs() + 0.1 if entry.name.endswith("running_var") else values


def _state(spec: GraphSpec, seed: int) -> dict[str, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return {entry.name: _values(entry) for entry in spec.entries}


def population(name: str, networks: int) -> ParameterGraph:
    """Random networks of one of :data:`NETWORKS`, float64."""
    spec = _spec(name)
    return ParameterGraph.from_state_dicts(spec, [_state(spec, seed) for seed in range(networks)])


def with_operations() -> Iterator[tuple[ParameterGraph, ParameterGraph]]:
    """Pairs of equal weights under convolutions that compute another function."""
    first = population("convolutions", 1)
    for name in _DOCUMENTS["operations"]:
        spec = _spec(name, "operations")
        yield first, ParameterGraph.from_state_dicts(spec, [first.to_state_dict()])


def with_roles() -> tuple[ParameterGraph, dict[str, ParameterGraph]]:
    """Attention, and the same with weights that trade places."""
    graph = population("gated-attention", 2)
    pairs = (("q", "k"), ("q", "v"), ("k", "v"), ("gate", "up"))
    return graph, {f"{one} and {other}": _exchanged(graph, one, other) for one, other in pairs}


def _exchanged(graph: ParameterGraph, one: str, other: str) -> ParameterGraph:
    names = [(f"{one}.{part}", f"{other}.{part}") for part in ("weight", "bias")]
    fresh = {a: graph.values[b] for a, b in names} | {b: graph.values[a] for a, b in names}
    return graph.replace(fresh)
