"""Augmentation of networks: moved coordinates of INRs, elements of the symmetry group, scales.

An augmentation is called with a graph and a ``torch.Generator`` and returns a graph; the field
``augment`` of :class:`gmn.train.Recipe` takes one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gmn.errors import ArgumentError
from gmn.foundation.arguments import require_number, require_type
from gmn.graph import ParameterGraph
from gmn.graph.required import require_graph
from gmn.spec import EdgeSet, GraphSpec
from gmn.symmetry import sample


def move_coordinates(
    graph: ParameterGraph,
    matrix: Tensor,  # shape: (B, d, d)
    shift: Tensor,  # shape: (B, d)
) -> ParameterGraph:
    """The networks ``x ↦ f(A x + t)``, where f reads d coordinates through linear layers.

    The weights ``W`` that read the input become ``W A``, their biases ``b`` become ``b + W t``.

    Args:
        graph: B networks.
        matrix: ``A`` of each, shape (B, d, d) or, for all alike, (d, d).
        shift: ``t`` of each, shape (B, d) or (d,).

    Returns:
        A graph of the same spec; differentiable in all arguments.

    Raises:
        ValueError: if the input is read by anything but linear layers with a bias of their own.
    """
    require_graph("graph", graph)
    layers = _first_layers(graph.spec)
    for name, value in (("matrix", matrix), ("shift", shift)):
        require_type(name, value, Tensor, "a tensor")
    inputs = next((nodes.size for nodes in graph.spec.node_sets if nodes.role == "input"), 0)
    if matrix.shape[-2:] != (inputs, inputs) or shift.shape[-1:] != (inputs,):
        raise ArgumentError(
            f"matrix has shape {tuple(matrix.shape)} and shift {tuple(shift.shape)}; the networks "
            f"read {inputs} coordinates: give (..., {inputs}, {inputs}) and (..., {inputs})"
        )
    if not {*matrix.shape[:-2], *shift.shape[:-1]} <= {1, len(graph)}:
        raise ArgumentError(
            f"matrix and shift are of {len(matrix)} and {len(shift)} networks, graph holds "
            f"{len(graph)}; give one of each, or one for all"
        )
    matrix, shift = matrix.to(graph.device, graph.dtype), shift.to(graph.device, graph.dtype)
    shift = shift.expand(len(graph), -1).unsqueeze(2)
    moved: dict[str, Tensor] = {}
    for weight, bias in layers:
        block = graph.block(weight)
        moved[weight.name] = (block @ matrix).flatten(1).unsqueeze(2)
        moved[bias.name] = graph.pairs(bias) + block @ shift
    return graph.replace_pairs(moved)


def _first_layers(spec: GraphSpec) -> list[tuple[EdgeSet, EdgeSet]]:
    """The linear layers that read the input: weight and bias."""
    inputs = [nodes for nodes in spec.node_sets if nodes.role == "input"]
    if len(inputs) != 1 or inputs[0].operations:
        done = ", ".join(op.name for nodes in inputs for op in nodes.operations)
        raise ValueError(
            f"coordinates can be moved where one input enters linear layers; here are "
            f"{len(inputs)} inputs, which pass through {done or 'nothing'} before"
        )
    readers = [edges for edges in spec.edge_sets if edges.source == inputs[0].name]
    return [(edges, _bias(spec, edges)) for edges in readers]


def _bias(spec: GraphSpec, weight: EdgeSet) -> EdgeSet:
    """The bias that is added right where a linear layer writes."""
    entering = [edges for edges in spec.edge_sets if edges.target == weight.target]
    others = [edges for edges in entering if edges is not weight]
    ports = [dim.port for dim in weight.dims]
    plain = weight.operation.name == "linear" and ports == ["target", "source"]
    if not plain or weight.tied_to is not None or [edges.kind for edges in others] != ["bias"]:
        writers = ", ".join(edges.name for edges in others) or "nothing"
        raise ValueError(
            f"edge set {weight.name} reads the coordinates: to move them it has to be a linear "
            f"layer with a bias of its own, but it is {weight.operation.name}, and beside it "
            f"{writers} writes to {weight.target}"
        )
    return others[0]


@dataclass(frozen=True)
class MovedCoordinates:
    """Rotates, zooms and shifts the image (or field) that each network holds, a little.

    Each network gets random numbers of its own.

    Attributes:
        rotation: largest angle in radians, of each plane.
        zoom: largest logarithm of the zoom, of each coordinate.
        shift: largest shift, in coordinates.
    """

    rotation: float = 0.15
    zoom: float = 0.1
    shift: float = 0.1

    def __post_init__(self) -> None:
        for name in ("rotation", "zoom", "shift"):
            require_number(name, getattr(self, name), least=0)

    def __call__(self, graph: ParameterGraph, generator: torch.Generator) -> ParameterGraph:
        """Moves the coordinates of each network.

        Args:
            graph: networks that read coordinates through linear layers.
            generator: the source of chance, on the CPU.

        Raises:
            ValueError: if they read them otherwise.
        """
        count = len(graph)
        inputs = next(nodes.size for nodes in graph.spec.node_sets if nodes.role == "input")

        def draw(limit: float, *shape: int) -> Tensor:
            return (2 * torch.rand(count, *shape, generator=generator) - 1) * limit

        angles = draw(self.rotation, inputs, inputs).triu(1)
        rotation = torch.matrix_exp(angles - angles.mT)
        zoom = draw(self.zoom, 1, inputs).exp()
        return move_coordinates(graph, rotation * zoom, draw(self.shift, inputs))


@dataclass(frozen=True)
class SampledSymmetry:
    """A random element of the group of the spec; the functions stay as they are.

    Metanetworks that are invariant to the whole group do not notice; the others learn it.

    Attributes:
        spread: standard deviation of the logarithms of scales, as in :func:`gmn.symmetry.sample`.
    """

    spread: float = 0.5

    def __post_init__(self) -> None:
        require_number("spread", self.spread, least=0)

    def __call__(self, graph: ParameterGraph, generator: torch.Generator) -> ParameterGraph:
        """Moves all networks by one element.

        Args:
            graph: the networks.
            generator: the source of chance, on the CPU.
        """
        require_graph("graph", graph)
        return sample(graph.spec, generator, spread=self.spread).act_on_graph(graph)


@dataclass(frozen=True)
class Rescaled:
    """Random scales of hidden neurons; the functions stay as they are.

    Each network gets scales of its own: positive ones from a log-uniform distribution on
    [1, reach], where the activation lets them pass, and fair signs where it is odd. What a model
    answers to rescaled test networks tells how far it depends on scales: published tests draw from
    U[1, 10^k] (Tran et al., arXiv 2409.11697).

    Attributes:
        reach: the largest scale; 1 changes nothing.
    """

    reach: float

    def __post_init__(self) -> None:
        require_number("reach", self.reach, least=1)

    def __call__(self, graph: ParameterGraph, generator: torch.Generator) -> ParameterGraph:
        """Rescales each network.

        Args:
            graph: the networks.
            generator: the source of chance, on the CPU.
        """
        require_graph("graph", graph)
        if self.reach == 1 or not len(graph):
            return graph
        return graph.cat([self._moved(graph[i], generator) for i in range(len(graph))])

    def _moved(self, graph: ParameterGraph, generator: torch.Generator) -> ParameterGraph:
        element = sample(graph.spec, generator, symmetries={"scalings"})
        positive = {
            scaling.name: self.reach
            ** torch.rand(scaling.shape, generator=generator, dtype=torch.float64)
            for scaling in graph.spec.symmetries.scalings
            if scaling.domain == "positive"
        }
        return replace(element, scales=dict(element.scales) | positive).act_on_graph(graph)
