"""Features of edges and nodes that metanetworks read: values and descriptions.

Descriptions are made from the spec alone and know no list of operations: every name and attribute
has a fixed pseudo-random direction, so an operation that no training network had still gets a
description of its own, and any change of a stride, a padding or an activation changes it.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor

from gmn.errors import ArgumentError
from gmn.foundation.arguments import in_words, require_number, require_type
from gmn.graph import ParameterGraph
from gmn.graph.required import require_graph, require_spec
from gmn.graph.topology import tap_positions
from gmn.spec import EdgeSet, GraphSpec, NodeSet, Operation
from gmn.stack import StackedGraph

CODE = 24
DTYPE = torch.float32  # whatever the default is when a description is made, and then kept
CONTEXT = 0.5  # how much the surroundings of an operation count; the operation itself counts 1
NODE_FEATURES = 3 * CODE + 2
EDGE_FEATURES = 2 * CODE + 3
TAP_FEATURES = 1 + 3 * 6
VALUE_FEATURES = 2


def value_features(graph: ParameterGraph, edges: EdgeSet) -> Tensor:
    """The parameters of an edge set, at comparable magnitude across widths.

    Weights are multiplied by the square root of their fan-in (Kaiming's normalisation); variances
    enter as logarithms, constants compressed. The second feature is compressed, so that large
    values do not hide others.

    Returns:
        Tensor of shape (B, pairs, taps, 2).
    """
    require_graph("graph", graph)
    values = graph.pairs(edges)
    if edges.kind == "weight":
        values = values * math.sqrt(fan_in(edges))
    elif edges.kind == "variance":
        values = values.clamp(min=1e-12).log()
    elif edges.kind == "constant":
        values = values.asinh()
    return torch.stack([values, torch.asinh(10 * values) / 5], dim=-1)


class ValueFeatures(Protocol):
    """Protocol of features of edge values that a metanetwork reads."""

    @property
    def channels(self) -> int:
        """Number of features of each parameter."""

    def __call__(self, graph: ParameterGraph, edges: EdgeSet) -> Tensor:
        """The features of an edge set: shape (B, pairs, taps, channels)."""


@dataclass(frozen=True)
class Raw:
    """The parameters as they are."""

    channels: int = field(default=1, init=False)

    def __call__(self, graph: ParameterGraph, edges: EdgeSet) -> Tensor:
        """Shape (B, pairs, taps, 1)."""
        return graph.pairs(edges).unsqueeze(-1)


@dataclass(frozen=True)
class FanIn:
    """Parameters at comparable magnitude across widths; see :func:`value_features`."""

    channels: int = field(default=VALUE_FEATURES, init=False)

    def __call__(self, graph: ParameterGraph, edges: EdgeSet) -> Tensor:
        """Shape (B, pairs, taps, 2)."""
        return value_features(graph, edges)


@dataclass(frozen=True)
class SignLog:
    """Sign and magnitude apart, for values over many orders of magnitude, such as gradients.

    The magnitude is ``log(|w| / smallest)`` over ``log(1 / smallest)``: 0 at ``smallest`` and
    below, where the sign fades out, 1 at 1.

    Attributes:
        smallest: magnitude, between 0 and 1, below which values count as 0.

    Raises:
        ValueError: if ``smallest`` is not between 0 and 1.
    """

    smallest: float = 1e-6
    channels: int = field(default=2, init=False)

    def __post_init__(self) -> None:
        require_number("smallest", self.smallest)
        if not 0 < self.smallest < 1:
            raise ValueError(f"smallest must lie between 0 and 1; it is {self.smallest}")

    def __call__(self, graph: ParameterGraph, edges: EdgeSet) -> Tensor:
        """Shape (B, pairs, taps, 2)."""
        values = graph.pairs(edges)
        size = (values.abs().clamp(min=self.smallest) / self.smallest).log()
        sign = (values / self.smallest).clamp(-1, 1)
        return torch.stack([sign, size / -math.log(self.smallest)], dim=-1)


def require_reading(features: object, descriptions: object) -> None:
    """Refuses what a metanetwork cannot read values or descriptions by; None stands for its own.

    Raises:
        ArgumentError: if one is of another kind, or a class instead of an object.
    """
    protocols = (
        ("features", features, "channels", "gmn.features.FanIn()"),
        ("descriptions", descriptions, "node_channels", "gmn.features.SpecDescriptions()"),
    )
    for name, given, needed, example in protocols:
        if given is not None and (isinstance(given, type) or not hasattr(given, needed)):
            raise ArgumentError(f"{name} is {in_words(given)}; give an object such as {example}")


class Descriptions(Protocol):
    """Protocol of what a metanetwork reads about nodes and edge sets besides values.

    A metanetwork is invariant to permutations only if neurons that may trade places are described
    alike. A module may learn its descriptions: it trains with the metanetwork that holds it.
    """

    @property
    def node_channels(self) -> int:
        """Number of features of each neuron."""

    @property
    def edge_channels(self) -> int:
        """Number of features of each edge set."""

    def nodes(self, spec: GraphSpec) -> Tensor:
        """What is known of each neuron: shape (N, node_channels), in the order of the node sets."""

    def edges(self, spec: GraphSpec) -> Tensor:
        """What is known of each edge set: shape (edge sets, edge_channels)."""


@dataclass(frozen=True)
class SpecDescriptions:
    """Roles, operations, sizes and positions; see :func:`node_descriptions`."""

    node_channels: int = field(default=NODE_FEATURES, init=False)
    edge_channels: int = field(default=EDGE_FEATURES, init=False)

    def nodes(self, spec: GraphSpec) -> Tensor:
        """Shape (N, NODE_FEATURES)."""
        return node_descriptions(spec)

    def edges(self, spec: GraphSpec) -> Tensor:
        """Shape (edge sets, EDGE_FEATURES)."""
        return edge_descriptions(spec)


class Stacked:
    """The features of several graphs side by side, for :func:`gmn.stack.stack`.

    Args:
        each: how to read each graph of the stack, in order.
    """

    def __init__(self, *each: ValueFeatures) -> None:
        if not each:
            raise ArgumentError("Stacked needs features for each graph, such as FanIn(), SignLog()")
        for one in each:
            require_reading(one, None)
        self.each = each

    @property
    def channels(self) -> int:
        """Those of all graphs together."""
        return sum(one.channels for one in self.each)

    def __call__(self, graph: ParameterGraph, edges: EdgeSet) -> Tensor:
        """Shape (B, pairs, taps, channels).

        Raises:
            ValueError: if the graph is not a stack of as many graphs.
        """
        graphs = graph.graphs if isinstance(graph, StackedGraph) else (graph,)
        if len(graphs) != len(self.each):
            raise ValueError(
                f"these features read {len(self.each)} graphs, given are {len(graphs)}; join them "
                "with gmn.stack.stack"
            )
        parts = [one(part, edges) for one, part in zip(self.each, graphs, strict=True)]
        return torch.cat(parts, dim=-1)


def fan_in(edges: EdgeSet) -> int:
    """Number of parameters that enter each target neuron, or 1 if there are none."""
    require_type("edges", edges, EdgeSet, "an edge set, such as graph.spec.edge_sets[0]")
    return math.prod(dim.size for dim in edges.dims if dim.port in ("source", "tap")) or 1


@lru_cache(maxsize=64)
def node_descriptions(spec: GraphSpec) -> Tensor:
    """What the spec says about each neuron: role, operations, size and, if ordered, its position.

    Returns:
        Tensor of shape (N, NODE_FEATURES); cached, so treat it as read-only.
    """
    require_spec("spec", spec)
    return torch.cat([_describe_nodes(spec, nodes) for nodes in spec.node_sets])


def _describe_nodes(spec: GraphSpec, nodes: NodeSet) -> Tensor:
    operations = torch.zeros(2, CODE, dtype=DTYPE)
    for index, operation in enumerate(nodes.operations, start=1):
        code = operation_code(operation)
        operations += torch.stack([code, code * index / len(nodes.operations)])
    shared = torch.cat(
        [
            _direction(f"role {nodes.role}") + operations[0],
            operations[1],
            torch.tensor([math.log(max(nodes.size, 1)) / 4, len(nodes.operations)], dtype=DTYPE),
        ]
    )
    return torch.cat([shared.expand(nodes.size, -1), _positions(spec, nodes)], dim=1)


def _positions(spec: GraphSpec, nodes: NodeSet) -> Tensor:
    """Sinusoidal code of the index along axes that may not move; zero along the others."""
    result = torch.zeros(*nodes.shape, CODE, dtype=DTYPE)
    frequencies = math.pi / 1.7 ** torch.arange(CODE // 2, dtype=DTYPE)
    for dim, (name, size) in enumerate(zip(nodes.axes, nodes.shape, strict=True)):
        if not spec.axis(name).movable:
            angles = torch.arange(1, size + 1).unsqueeze(1) * frequencies
            code = torch.cat([angles.sin(), angles.cos()], dim=1).roll(dim, dims=1)
            sizes = [size if i == dim else 1 for i in range(len(nodes.shape))]
            result += code.view(*sizes, CODE)
    return result.reshape(nodes.size, CODE)


@lru_cache(maxsize=64)
def edge_descriptions(spec: GraphSpec) -> Tensor:
    """What the spec says about each edge set: kind, operation, depth, fan-in, tying, surroundings.

    Returns:
        Tensor of shape (edge sets, EDGE_FEATURES); cached, so treat it as read-only.
    """
    require_spec("spec", spec)
    deepest = max((edges.depth for edges in spec.edge_sets), default=1) or 1
    return torch.stack(
        [
            torch.cat(
                [
                    _direction(f"kind {edges.kind}")
                    + _direction(f"tied {bool(edges.tied_to)}")
                    + sum(_direction(f"route {step}") for step in edges.route),
                    operation_code(edges.operation) + _context_code(edges.context),
                    torch.tensor(
                        [edges.depth / deepest, edges.depth / 8, math.log(fan_in(edges))],
                        dtype=DTYPE,
                    ),
                ]
            )
            for edges in spec.edge_sets
        ]
    )


def _context_code(context: str) -> Tensor:
    """A vector of norm about ``CONTEXT``; contexts that differ only far away have similar ones."""
    code, digests = torch.zeros(CODE, dtype=DTYPE), [part for part in context.split(".") if part]
    for reach, digest in enumerate(digests, start=1):
        code += CONTEXT / math.sqrt(len(digests)) * _direction(f"context {reach} {digest}")
    return code


@lru_cache(maxsize=256)
def tap_descriptions(edges: EdgeSet) -> Tensor:
    """Smooth code of where each tap lies.

    Returns:
        Tensor of shape (taps, TAP_FEATURES); cached, so treat it as read-only.
    """
    require_type("edges", edges, EdgeSet, "an edge set, such as graph.spec.edge_sets[0]")
    positions = tap_positions(edges)
    frequencies = torch.tensor([0.5, 1.0, 2.0], dtype=DTYPE)
    angles = (positions.unsqueeze(-1) * frequencies).flatten(1)
    ones = torch.ones(len(positions), 1, dtype=DTYPE)
    return torch.cat([ones, angles.sin(), angles.cos()], dim=1)


def with_taps(description: Tensor, edges: EdgeSet) -> Tensor:
    """The description of an edge set beside where each of its taps lies.

    Args:
        description: shape (channels,).
        edges: the edge set.

    Returns:
        Tensor of shape (taps, channels + TAP_FEATURES).
    """
    require_type("description", description, Tensor, "a tensor (channels,)")
    taps = tap_descriptions(edges).to(description)
    return torch.cat([description.expand(len(taps), -1), taps], dim=1)


def operation_code(operation: Operation) -> Tensor:
    """Fixed direction of the operation's name, shifted along those of its attributes.

    Returns:
        Tensor of shape (CODE,).
    """
    require_type("operation", operation, Operation, "a gmn.spec.Operation")
    code = _direction(operation.name).clone()
    for key, values in operation.attributes:
        for index, value in enumerate(values):
            code += math.asinh(_finite(value)) * _direction(f"{operation.name} {key} {index}")
    return code


def _finite(value: float) -> float:
    """Infinity, such as masks are compared with, as a number beyond those of single precision."""
    if math.isnan(value):
        return 0.0
    return math.copysign(1e39, value) if math.isinf(value) else value


@lru_cache(maxsize=4096)
def _direction(text: str) -> Tensor:
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(CODE, generator=generator, dtype=DTYPE) / math.sqrt(CODE)
