"""Wider networks of the same function (Net2WiderNet; Chen et al., 2016, arXiv 1511.05641)."""

from __future__ import annotations

import torch
from torch import Tensor

from gmn.foundation.arguments import require_number, require_type
from gmn.graph import ParameterGraph
from gmn.graph.required import require_graph, require_spec
from gmn.graph.topology import view_block
from gmn.spec import EdgeSet, GraphSpec
from gmn.spec.program import DEFAULT

RUNS = 8  # random inputs on which the wider network has to answer alike


def widen(
    graph: ParameterGraph, wide: GraphSpec, generator: torch.Generator, spread: float = 1.0
) -> ParameterGraph:
    """Widens networks without changing what they compute.

    Every hidden neuron becomes several copies, in random order. All copies read what it read; what
    is read from them is split between them, for each outgoing weight by random shares of its own
    that are positive and sum to one. So copies differ in their weights, but not in their values.

    Args:
        graph: the networks.
        wide: the spec of the same architecture with hidden layers at least as wide, such as
            ``converters.trace(network("siren", widening=4), (coordinates,))``.
        generator: source of randomness, on the CPU.
        spread: standard deviation of the logarithms of the shares before they are normalised; 0
            for equal shares.

    Returns:
        A graph of the spec ``wide``.

    Raises:
        ValueError: if ``wide`` is another architecture, or one that sees the number of copies (a
            normalisation or a softmax over them): outputs are compared on random inputs.
    """
    require_graph("graph", graph)
    require_spec("wide", wide)
    require_type("generator", generator, torch.Generator, "a torch.Generator")
    require_number("spread", spread, least=0)
    copies = _copies(graph.spec, wide, generator)
    values = {
        entry.name: graph.values[entry.name].new_zeros(len(graph), *entry.shape)
        for entry in wide.entries
    }
    blocks = {edges.parameter for edges in wide.edge_sets}
    values |= {name: value for name, value in graph.values.items() if name not in blocks}
    for old, new in zip(graph.spec.edge_sets, wide.edge_sets, strict=True):
        narrow = view_block(graph.values[old.parameter], old)
        block = _spread_out(narrow, old, copies, spread, generator)
        view_block(values[new.parameter], new).copy_(block)
    result = ParameterGraph(wide, values)
    _require_same_function(graph, result, generator)
    return result


def _copies(narrow: GraphSpec, wide: GraphSpec, generator: torch.Generator) -> dict[str, Tensor]:
    """For each widened axis, the index of the neuron that each neuron of the wider axis copies."""
    _require_same_architecture(narrow, wide)
    copies: dict[str, Tensor] = {}
    for old, new in zip(narrow.axes, wide.axes, strict=True):
        if old.size == new.size:
            continue
        if not old.movable or old.within or new.size < old.size:
            raise ValueError(
                f"{old.name} has {old.size} neurons and {new.size} in the wider network; only "
                "layers whose neurons can be permuted freely can be widened"
            )
        order = torch.randperm(new.size, generator=generator)
        copies[old.name] = (torch.arange(new.size) % old.size)[order]
    return copies


def _require_same_architecture(narrow: GraphSpec, wide: GraphSpec) -> None:
    def skeleton(spec: GraphSpec) -> list[tuple[object, ...]]:
        edges = [
            (
                edges.name,
                *(edges.kind, edges.source, edges.target, edges.operation.name),
                [(dim.port, dim.axis) for dim in edges.dims],
            )
            for edges in spec.edge_sets
        ]
        return [*edges, *((axis.name,) for axis in spec.axes)]

    first, second = skeleton(narrow), skeleton(wide)
    if first != second:
        pairs = zip(first, second, strict=False)
        culprit = next((str(a[0]) for a, b in pairs if a != b), "the number of layers")
        raise ValueError(f"the wider spec is of another architecture: {culprit} differs")
    tied = [edges.name for edges in narrow.edge_sets if edges.tied_to is not None]
    if tied:
        raise ValueError(f"{tied[0]} is tied to other weights: these cannot be split separately")


def _spread_out(
    block: Tensor,
    edges: EdgeSet,
    copies: dict[str, Tensor],
    spread: float,
    generator: torch.Generator,
) -> Tensor:
    """A block of the wider network, shape (B, *wider shape)."""
    widened = [
        (dim, block_dim.port, copies[block_dim.axis].to(block.device))
        for dim, block_dim in enumerate(edges.dims, start=1)
        if block_dim.axis in copies
    ]
    for dim, _, origin in widened:
        block = block.index_select(dim, origin)
    for dim, port, origin in widened:
        if port == "source" and edges.kind != "constant":
            noise = torch.randn(block.shape, generator=generator, dtype=torch.float64)
            weights = (spread * noise).exp().to(block.device)
            total = torch.zeros_like(weights).index_add(dim, origin, weights)
            block = (block * (weights / total.index_select(dim, origin))).to(block.dtype)
    return block


@torch.no_grad()
def _require_same_function(
    narrow: ParameterGraph, wide: ParameterGraph, generator: torch.Generator
) -> None:
    """Runs the first network, narrow and wide, on random inputs."""
    program, other = narrow.spec.program, wide.spec.program
    if program is None or other is None or any(i.dtype != DEFAULT for i in program.inputs):
        raise ValueError(
            "networks are widened only where it can be checked: the specs need programs, and the "
            "network inputs of floating-point numbers"
        )
    if program.inputs != other.inputs:
        shapes = [i.shape for i in program.inputs]
        raise ValueError(f"trace the wider network with inputs of the same shapes: {shapes}")
    inputs = [torch.randn(RUNS, *i.shape, generator=generator) for i in program.inputs]
    before, after = (_outputs(graph, inputs) for graph in (narrow, wide))
    worst = float((after - before).abs().max() / before.abs().max().clamp(min=1e-30))
    if not worst < torch.finfo(narrow.dtype).eps ** 0.5:
        raise ValueError(
            f"the wider network answers differently (by {worst:.1g} of the largest output): "
            "something in it sees how many copies of a neuron there are"
        )


def _outputs(graph: ParameterGraph, inputs: list[Tensor]) -> Tensor:
    """All outputs of the first network, as one vector."""
    program = graph.spec.program
    assert program is not None
    first = {name: value[:1] for name, value in graph.to(dtype=torch.float64).values.items()}
    on_device = [value.to(graph.device, torch.float64) for value in inputs]
    return torch.cat(
        [value.flatten() for value in program.observe(first, on_device, program.outputs)]
    )
