"""A spec whose state dict holds what is no real floating-point number, put together by hand."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from gmn.graph import ParameterGraph
from gmn.spec import Dim, EdgeSet, GraphSpec, NodeSet, Operation, StateEntry
from tests.traced import BY_NAME, spec_of

READ = Operation("read")


def with_entries() -> GraphSpec:
    """An MLP, 3-6-5-2, with further entries around its first hidden layer."""
    spec = spec_of("mlp-relu")
    hidden = spec.node_set(spec.edge_set("0.weight").target)
    output = spec.node_set(spec.edge_set("4.weight").target)
    entries = (
        StateEntry("mask", (6,), parameter=False, floating=True),
        StateEntry("grid", (6, 4), parameter=False, floating=True),
        StateEntry("whole", (2, 6), parameter=True, floating=False),
        StateEntry("chosen", (6,), parameter=False, floating=False),
        StateEntry("phases", (2, 6), parameter=True, floating=False, complex=True),
        StateEntry("elsewhere", (3,), parameter=False, floating=True),
    )
    edge_sets = (
        _own("mask", hidden, Dim(6, 1, "both", hidden.axes[0])),
        _own("grid", hidden, Dim(6, 4, "both", hidden.axes[0]), Dim(4, 1, "tap")),
        _between("whole", "constant", hidden, output, 1),
        _own("chosen", hidden, Dim(6, 1, "both", hidden.axes[0])),
        _between("phases", "weight", hidden, output, 2),
    )
    return replace(
        spec,
        entries=(*spec.entries, *entries),
        edge_sets=(*spec.edge_sets, *edge_sets),
        scalings=(),
        program=None,
    )


def _own(name: str, nodes: NodeSet, *dims: Dim) -> EdgeSet:
    return EdgeSet(name, name, "constant", nodes.name, nodes.name, dims, READ, depth=1)


def _between(name: str, kind: str, source: NodeSet, target: NodeSet, each: int) -> EdgeSet:
    """A matrix whose entries are ``each`` real numbers."""
    dims = (
        Dim(2, 6 * each, "target", target.axes[0]),
        Dim(6, each, "source", source.axes[0]),
        *([Dim(each, 1, "tap")] if each > 1 else []),
    )
    return EdgeSet(name, name, kind, source.name, target.name, dims, READ, depth=2)


def state_of(seed: int = 0) -> dict[str, Tensor]:
    """Values for :func:`with_entries`, float64."""
    model = BY_NAME["mlp-relu"].model(seed)
    chance = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=chance, dtype=torch.float64)

    blocked = torch.arange(6) % 3 == seed % 3
    return {
        **model.state_dict(),
        "mask": torch.where(blocked, -torch.inf, 0.0).double(),
        "grid": normal(6, 4),
        "whole": torch.randint(-128, 128, (2, 6), generator=chance, dtype=torch.int8),
        "chosen": torch.arange(6) % 3 > seed % 3,
        "phases": torch.complex(normal(2, 6), normal(2, 6)),
        "elsewhere": torch.tensor([torch.nan, -torch.inf, 1.0], dtype=torch.float64),
    }


def graph_of(networks: int = 2) -> ParameterGraph:
    """Networks with such values."""
    return ParameterGraph.from_state_dicts(with_entries(), [state_of(i) for i in range(networks)])
