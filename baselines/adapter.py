"""Converts parameter graphs to weight-space features (lists of weights and biases) and back.

This is the one file that knows both. Methods of the NFN family see a network as a chain of weight
matrices and biases; whatever is not such a chain is refused, with the reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod

import torch
from torch import Tensor

from gmn.errors import UnsupportedArchitecture
from gmn.graph import ParameterGraph
from gmn.spec import EdgeSet, GraphSpec

INSTEAD = "Any architecture can be read by UNF, FlatMLP, StatNN and gmn.nn.GMN."


@dataclass(frozen=True)
class Link:
    """One layer of a chain: a weight and, unless the layer has none, its bias."""

    weight: EdgeSet
    bias: EdgeSet | None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Target neurons, source neurons, taps."""
        out, into = (
            prod(dim.size for dim in self.weight.dims if dim.port == port)
            for port in ("target", "source")
        )
        return out, into, self.weight.num_taps


@dataclass(frozen=True)
class WeightSpaceFeatures:
    """A network as lists over its layers.

    Attributes:
        weights: shape (B, out, in, taps) each; positions of kernels and feature maps are taps.
        biases: shape (B, out) each; zeros for layers without bias.
    """

    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]


@lru_cache(maxsize=64)
def chain(spec: GraphSpec) -> tuple[Link, ...]:
    """The layers of a chain, from input to output.

    Raises:
        UnsupportedArchitecture: if the network is not a chain of full weight matrices; the message
            names the node set or edge set, and what the method assumes.
    """
    for edges in spec.edge_sets:
        _check_edges(edges)
    weights = [edges for edges in spec.edge_sets if edges.kind == "weight"]
    biases = {edges.target: edges for edges in spec.edge_sets if edges.kind == "bias"}
    _check_ends(spec, weights)
    into = {edges.target: edges for edges in weights}
    links: list[Link] = []
    node_set = next(nodes.name for nodes in spec.node_sets if nodes.role == "output")
    while node_set in into:
        weight = into.pop(node_set)
        links.append(Link(weight, biases.get(node_set)))
        node_set = weight.source
    if into:
        lost = next(iter(into.values()))
        raise _refuse(f"node set {lost.target}: edge set {lost.name}", "does not reach the output")
    return tuple(reversed(links))


def _check_edges(edges: EdgeSet) -> None:
    who = f"node set {edges.target}: edge set {edges.name}"
    if edges.kind not in ("weight", "bias"):
        raise _refuse(who, f"is the {edges.kind} of {edges.operation.name}, not a weight or a bias")
    if edges.tied_to is not None:
        raise _refuse(who, f"is tied to {edges.tied_to}")
    ports = {dim.port for dim in edges.dims if dim.port != "tap"}
    if edges.kind == "weight" and ports != {"source", "target"}:
        raise _refuse(who, "is not a full matrix, but grouped or depthwise")


def _check_ends(spec: GraphSpec, weights: Sequence[EdgeSet]) -> None:
    for nodes in spec.node_sets:
        entering = [edges.name for edges in weights if edges.target == nodes.name]
        leaving = [edges.name for edges in weights if edges.source == nodes.name]
        for names, verb in ((entering, "is written"), (leaving, "is read")):
            if len(names) > 1:
                raise _refuse(
                    f"node set {nodes.name}",
                    f"{verb} by {', '.join(names)} (a residual connection)",
                )
        if nodes.role == "hidden" and len(nodes.axes) > 1:
            raise _refuse(f"node set {nodes.name}", "has nested permutations, as within groups")
        if nodes.role == "ordered":
            raise _refuse(f"node set {nodes.name}", "is hidden, but its neurons may not move")
    if not any(nodes.role == "output" for nodes in spec.node_sets):
        raise _refuse("the network", "has no output neurons of its own")


def _refuse(who: str, what: str) -> UnsupportedArchitecture:
    return UnsupportedArchitecture(
        f"{who} {what}; this method assumes a chain of full layers, each with a weight and at most "
        f"a bias. {INSTEAD}"
    )


def to_features(graph: ParameterGraph) -> WeightSpaceFeatures:
    """The networks' weights and biases as lists.

    Raises:
        UnsupportedArchitecture: if the network is not a chain.
    """
    weights, biases = [], []
    for link in chain(graph.spec):
        out, into, taps = link.shape
        block = graph.pairs(link.weight)
        if _is_transposed(link.weight):
            block = block.view(len(graph), into, out, taps).transpose(1, 2)
        weights.append(block.reshape(len(graph), out, into, taps))
        missing = link.bias is None
        biases.append(
            block.new_zeros(len(graph), out)
            if missing or link.bias is None
            else graph.pairs(link.bias).squeeze(2)
        )
    return WeightSpaceFeatures(tuple(weights), tuple(biases))


def from_features(graph: ParameterGraph, features: WeightSpaceFeatures) -> ParameterGraph:
    """A graph like ``graph`` with other weights; exact inverse of :func:`to_features`.

    Values for biases that the architecture lacks are dropped.
    """
    values: dict[str, Tensor] = {}
    layers = zip(chain(graph.spec), features.weights, features.biases, strict=True)
    for link, weight, bias in layers:
        block = weight.transpose(1, 2) if _is_transposed(link.weight) else weight
        values[link.weight.name] = block.flatten(1, 2)
        if link.bias is not None:
            values[link.bias.name] = bias.unsqueeze(2)
    return graph.replace_pairs(values)


def _is_transposed(edges: EdgeSet) -> bool:
    return next(dim.port for dim in edges.dims if dim.port != "tap") == "source"


def shapes(spec: GraphSpec) -> tuple[tuple[int, int, int], ...]:
    """Target neurons, source neurons and taps of every layer of a chain."""
    return tuple(link.shape for link in chain(spec))


def require_shapes(spec: GraphSpec, expected: Sequence[tuple[int, int, int]], method: str) -> None:
    """Checks that a network has the layers that a model was built for.

    Raises:
        UnsupportedArchitecture: if not; the message names the first layer that differs.
    """
    actual = shapes(spec)
    if actual == tuple(expected):
        return
    layers = [link.weight.name for link in chain(spec)]
    for name, have, want in zip(layers, actual, expected, strict=False):
        if have != want:
            raise UnsupportedArchitecture(
                f"{name} is {have} (out, in, taps), but this {method} was built for {want}. "
                f"Build one per architecture. {INSTEAD}"
            )
    raise UnsupportedArchitecture(
        f"the network has {len(actual)} layers, but this {method} was built for {len(expected)}. "
        f"Build one per architecture. {INSTEAD}"
    )


def scales(spec: GraphSpec) -> torch.Tensor:
    """Square root of each layer's fan-in, by which weights become comparable across widths."""
    return torch.tensor([float(into * taps) ** 0.5 for _, into, taps in shapes(spec)])
