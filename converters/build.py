"""From a finished trace to a GraphSpec."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from gmn.spec import Dim, EdgeSet, GraphSpec, StateEntry

from .blocks import Block, blocks_of
from .gauges import with_gauges
from .names import Names
from .program import program_of
from .routes import with_routes
from .scalings import scalings
from .tracing import Tracing
from .translations import translations


def build_spec(
    trace: Tracing,
    entries: Sequence[StateEntry],
    unknown: Sequence[str],
    exported: torch.export.ExportedProgram,
) -> GraphSpec:
    """The spec of a traced architecture.

    Args:
        trace: the trace, with units balanced.
        entries: the state dict.
        unknown: reports on operations without a rule.
        exported: the graph that was traced.
    """
    blocks = {e.name: blocks_of(trace, e) for e in entries if e.name in trace.parameters}
    names = Names(trace, [block for found in blocks.values() for block in found])
    pairs = [
        pair for name, found in blocks.items() for pair in _edge_sets(trace, name, found, names)
    ]
    pairs = with_routes(trace, pairs)
    held = [(edges, block) for edges, block in pairs if edges.tied_to is None]
    targets = {edges.name: edges.target for edges, _ in held}
    scales, gauges = with_gauges(trace, tuple(scalings(trace, held, names)), names, targets)
    return GraphSpec(
        entries=tuple(entries),
        axes=names.axes(),
        node_sets=names.node_sets(trace.operations),
        edge_sets=tuple(edges for edges, _ in pairs),
        scalings=scales,
        gauges=gauges,
        translations=tuple(translations(trace, held, names)),
        unknown=tuple(unknown),
        program=program_of(exported, trace, entries, pairs, names),
    )


def _edge_sets(
    trace: Tracing, name: str, blocks: Sequence[Block], names: Names
) -> Iterator[tuple[EdgeSet, Block]]:
    """Edge sets of one parameter; those of its first use hold it, those of others are tied."""
    first = blocks[0].use if blocks else None
    per_use = sum(block.use is first for block in blocks)
    for number, block in enumerate(blocks):
        use, part = number // per_use, number % per_use
        suffix = f"[{part}]" if per_use > 1 else ""
        primary = f"{name}{suffix}"
        edges = EdgeSet(
            name=primary if use == 0 else f"{primary}@{use + 1}",
            parameter=name,
            kind=block.use.kind,
            source=names.node_set(block.source),
            target=names.node_set(block.target),
            dims=tuple(
                Dim(p.size, p.stride, p.port, names.axis(p.atom), p.step) for p in block.pieces
            ),
            operation=block.use.operation,
            depth=trace.depth[block.use.node],
            offset=block.offset,
        )
        yield (edges if use == 0 else replace(edges, tied_to=primary)), block
