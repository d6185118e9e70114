"""The parts of a spec: operations, axes, node sets, edge sets and entries of the state dict."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Role = Literal["input", "hidden", "output", "ordered"]
Port = Literal["target", "source", "both", "tap"]


@dataclass(frozen=True)
class Operation:
    """One operation of the network, with the attributes that change its function.

    Attributes:
        name: the operation's name in the exported graph, such as ``conv2d`` or ``relu``.
        attributes: named numbers, such as ``("stride", (2.0, 2.0))``, sorted by name.
    """

    name: str
    attributes: tuple[tuple[str, tuple[float, ...]], ...] = ()

    def __str__(self) -> str:
        shown = (f"{key}={'×'.join(f'{v:g}' for v in values)}" for key, values in self.attributes)
        return f"{self.name}({', '.join(shown)})" if self.attributes else self.name


@dataclass(frozen=True)
class Axis:
    """An index set. If ``movable``, permuting it everywhere leaves the function unchanged.

    Attributes:
        name: unique in the spec.
        size: number of indices.
        movable: whether permutations of it are symmetries.
        within: names of the axes it depends on: every index of those has a permutation of its own
            (units within heads, channels within groups: a wreath product).
    """

    name: str
    size: int
    movable: bool
    within: tuple[str, ...] = ()


@dataclass(frozen=True)
class NodeSet:
    """A set of neurons that are permuted together.

    Attributes:
        name: unique in the spec.
        role: ``input``, ``hidden``, ``output``; ``ordered`` for other neurons that may not move.
        axes: the axes that index it; the node number is row-major in them.
        shape: the sizes of these axes.
        operations: parameter-free operations applied to these neurons, in execution order.
    """

    name: str
    role: Role
    axes: tuple[str, ...]
    shape: tuple[int, ...]
    operations: tuple[Operation, ...] = ()

    @property
    def size(self) -> int:
        """Number of neurons."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Dim:
    """One dimension of a block of a parameter tensor.

    Attributes:
        size: its length.
        stride: step in elements of the flattened parameter tensor.
        port: whether it indexes the edge's ``target`` neuron, its ``source``, ``both`` (a diagonal
            or grouped block) or a ``tap``.
        axis: the axis it runs over; None for taps.
        step: distance between neighbouring taps, in input positions (a kernel's dilation).
    """

    size: int
    stride: int
    port: Port
    axis: str | None = None
    step: float = 1.0


@dataclass(frozen=True)
class EdgeSet:
    """A parameter tensor, or a slice of one, as edges between two node sets.

    Attributes:
        name: unique in the spec; the parameter's name where it has only one edge set.
        parameter: the state-dict entry that holds the values.
        kind: what the values do: ``weight``, ``bias``, ``gain``, ``shift``, ``mean``, ``variance``;
            ``constant`` for numbers that decide the function but are not learned (masks,
            frequencies, integer weights), in buffers or parameters.
        source: name of the node set the edges leave.
        target: name of the node set the edges enter.
        dims: the block's dimensions, in the order of the parameter tensor; of complex entries,
            those of their real view (``torch.view_as_real``), whose last one is a tap of size 2.
        operation: the operation that reads the values.
        depth: number of weight layers on the longest path from an input to this one.
        offset: first element of the block in the flattened parameter tensor.
        tied_to: the edge set that holds the same elements, if this is a further use of them.
        route: where other edges of its kind connect the same neurons, what tells it from them: the
            operand that it is, and the operations that its results pass through.
        context: what is computed around the operation that reads the values: digests of the
            program within one, two, ... steps of it, from near to far, joined by dots; empty if
            unknown.
    """

    name: str
    parameter: str
    kind: str
    source: str
    target: str
    dims: tuple[Dim, ...]
    operation: Operation
    depth: int
    offset: int = 0
    tied_to: str | None = None
    route: tuple[str, ...] = ()
    context: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the block's dimensions."""
        return tuple(dim.size for dim in self.dims)

    @property
    def size(self) -> int:
        """Number of edges, which is the number of parameter elements."""
        return math.prod(self.shape)

    @property
    def diagonal(self) -> bool:
        """Whether each edge begins and ends at one neuron (biases, normalisation)."""
        return self.source == self.target and all(dim.port in ("both", "tap") for dim in self.dims)

    @property
    def num_pairs(self) -> int:
        """Number of pairs of neurons."""
        return math.prod(dim.size for dim in self.dims if dim.port != "tap")

    @property
    def num_taps(self) -> int:
        """Number of parameter elements per pair of neurons."""
        return math.prod(dim.size for dim in self.dims if dim.port == "tap")


@dataclass(frozen=True)
class StateEntry:
    """One entry of the state dict.

    Attributes:
        name: its key.
        shape: its shape.
        parameter: True for parameters, False for buffers.
        floating: whether it holds real floating-point numbers.
        tied_to: an earlier entry that is the same tensor, if any.
        complex: whether it holds complex numbers.
    """

    name: str
    shape: tuple[int, ...]
    parameter: bool
    floating: bool
    tied_to: str | None = None
    complex: bool = False

    @property
    def learnable(self) -> bool:
        """Whether it is a parameter that can change by small amounts: no integers, no buffers."""
        return self.parameter and (self.floating or self.complex)

    @property
    def numbers(self) -> int:
        """How many real numbers it holds."""
        return math.prod(self.shape) * (2 if self.complex else 1)
