"""Writes exchangeable branches into a spec, as the edge sets that each branch holds."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import takewhile

import torch
from torch.export import ExportedProgram

from gmn.spec import EdgeSet, Exchange, StateEntry

from ..inference.tracing import Tracing
from .branches import Branches, branches_of
from .names import unique
from .routes import Pair

Uses = Mapping[str, Sequence[EdgeSet]]  # by entry, its edge sets and their further uses, in order


def with_exchanges(
    trace: Tracing,
    pairs: Sequence[Pair],
    exported: ExportedProgram,
    entries: Sequence[StateEntry],
    taken: set[str],
) -> tuple[list[Pair], tuple[Exchange, ...]]:
    """The exchanges of branches, and edge sets that say the same of all of their branches.

    Where parts of a sum are added one by one, what is computed around them differs in how many
    additions follow. What trades places takes the description of the first branch.

    Args:
        trace: the trace, which knows of entries that share memory.
        pairs: all edge sets, with their blocks.
        exported: the program.
        entries: the state dict.
        taken: names that symmetries have already.
    """
    shared = frozenset(trace.views) | {view.owner for view in trace.views.values()}
    uses: dict[str, list[EdgeSet]] = defaultdict(list)
    for edges, _ in pairs:
        uses[edges.parameter].append(edges)
    owned = {entry.name: entry for entry in entries}
    exchanges, first = [], {edges.name: edges for edges, _ in pairs}
    for branches in branches_of(exported, entries, shared):
        held = [_held(branches, index, owned, uses) for index in range(len(branches.entries))]
        if all(held) and len({tuple(map(_layout, edges)) for edges in held}) == 1:
            for alike in zip(*held, strict=True):
                _join(first, alike)
            own = (tuple(e.name for e in edges if e.tied_to is None) for edges in held)
            exchanges.append(Exchange(unique(_name(branches), taken), tuple(own)))
    described = [
        (replace(edges, route=root.route, context=root.context), block)
        for edges, block in pairs
        for root in [_root(first, edges)]
    ]
    return described, tuple(exchanges)


def _held(
    branches: Branches, index: int, owned: Mapping[str, StateEntry], uses: Uses
) -> list[EdgeSet]:
    """The edge sets of a branch, further uses included; empty if they do not cover its entries."""
    result: list[EdgeSet] = []
    for name in branches.entries[index]:
        edges = uses.get(name, [])
        if _size(edges) != owned[name].numbers:
            return []
        result += edges
    for name, dim in branches.numbered:
        shape = owned[name].shape
        edges = [e for e in uses.get(name, ()) if _lies_at(e, index, dim, shape)]
        if owned[name].complex or _size(edges) * shape[dim] != owned[name].numbers:
            return []
        result += edges
    return result


def _size(uses: Sequence[EdgeSet]) -> int:
    return sum(edges.size for edges in uses if edges.tied_to is None)


def _lies_at(edges: EdgeSet, index: int, dim: int, shape: Sequence[int]) -> bool:
    """Whether all numbers of an edge set are those of one index of a dimension of its entry."""
    elements = torch.tensor(edges.offset)
    for side in edges.dims:
        elements = elements.unsqueeze(-1) + torch.arange(side.size) * side.stride
    step = math.prod(shape[dim + 1 :])
    return bool((elements // step % shape[dim] == index).all())


def _layout(edges: EdgeSet) -> tuple[object, ...]:
    """What corresponding edge sets of two branches have in common: all but names."""
    steps = tuple((dim.size, dim.stride, dim.port, dim.step) for dim in edges.dims)
    return edges.tied_to is None, edges.kind, edges.operation, edges.depth, steps


def _name(branches: Branches) -> str:
    """The path that the entries of all branches have in common."""
    paths = zip(*(branch[0].split(".") for branch in branches.entries), strict=False)
    common = takewhile(lambda parts: len(set(parts)) == 1, paths)
    return ".".join([*(parts[0] for parts in common), "exchange"])


# --- descriptions -------------------------------------------------------------------------------


def _join(first: dict[str, EdgeSet], alike: Sequence[EdgeSet]) -> None:
    roots = [_root(first, edges) for edges in alike]
    for root in roots[1:]:
        first[root.name] = roots[0]


def _root(first: Mapping[str, EdgeSet], edges: EdgeSet) -> EdgeSet:
    while first[edges.name] is not edges:
        edges = first[edges.name]
    return edges
