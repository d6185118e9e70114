"""Changes that a metanetwork must notice."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

import converters
import gmn
from gmn.testing import relative_error
from tests.cases import Attention
from tests.traced import BY_NAME, graph_of

QUERIES_AND_KEYS = ("q.weight", "q.bias", "k.weight", "k.bias")
OTHER_HEADS = torch.tensor([4, 1, 2, 3, 0, 5, 6, 7])  # exchanges one unit of either head


def units_of_heads_exchanged() -> tuple[gmn.ParameterGraph, ...]:
    """Attention, and the same with one unit of either head exchanged."""
    graph = graph_of(BY_NAME["attention"])
    moved = {name: graph.values[name][:, OTHER_HEADS] for name in QUERIES_AND_KEYS}
    return graph, graph.replace(moved)


def with_heads(*counts: int) -> tuple[gmn.ParameterGraph, ...]:
    """The same weights of attention, cut into so many heads."""
    state, inputs = BY_NAME["attention"].model().state_dict(), (torch.zeros(2, 5, 8),)
    return tuple(
        gmn.ParameterGraph.from_state_dicts(
            converters.trace(Attention(heads=count, keys=count), inputs), [state]
        )
        for count in counts
    )


def differences(
    net: nn.Module, graph: gmn.ParameterGraph, others: Mapping[str, gmn.ParameterGraph]
) -> list[tuple[str, float]]:
    """How far the answer to each of the others is from the one to the graph, all in one batch."""
    with torch.no_grad():
        own, *answers = net(gmn.ParameterGraph.cat([graph, *others.values()])).split(len(graph))
    return [(k, relative_error(a, own)) for k, a in zip(others, answers, strict=True)]
