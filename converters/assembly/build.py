"""Assembles a GraphSpec from a finished inference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch

from gmn.spec import Dim, EdgeSet, GraphSpec, StateEntry

from ..inference.actions import Actions
from ..inference.tracing import Tracing
from .blocks import Block, blocks_of, uses_by_parameter
from .exchanges import with_exchanges
from .gauges import with_gauges
from .names import Names
from .program import program_of
from .routes import with_routes
from .scalings import scalings
from .translations import stays_one, translations


def build_spec(
    trace: Tracing,
    actions: Actions,
    entries: Sequence[StateEntry],
    unknown: Sequence[str],
    exported: torch.export.ExportedProgram,
) -> GraphSpec:
    """The spec of a traced architecture.

    Args:
        trace: the trace.
        actions: how values transform.
        entries: the state dict.
        unknown: reports on operations without a rule.
        exported: the graph that was traced.
    """
    uses = uses_by_parameter(actions)
    blocks = {
        e.name: blocks_of(actions, e, uses.get(e.name, ()))
        for e in entries
        if e.name in trace.parameters
    }
    constants = {e.name for e in entries if not e.learnable}
    names = Names(actions, [block for of_entry in blocks.values() for block in of_entry])
    pairs = [
        pair
        for name, of_entry in blocks.items()
        for pair in _edge_sets(actions, name, of_entry, names, constant=name in constants)
    ]
    pairs = with_routes(trace, pairs, exported)
    held = [(edges, block) for edges, block in pairs if edges.tied_to is None]
    targets = {edges.name: edges.target for edges, _ in held}
    scales, gauges = with_gauges(actions, tuple(scalings(actions, held, names)), names, targets)
    candidates = translations(actions, held, names)
    shifts = tuple(shift for shift in candidates if stays_one(shift, (*scales, *gauges)))
    taken = {axis.name for axis in names.axes()} | {s.name for s in scales}
    taken |= {gauge.name for gauge in gauges} | {shift.name for shift in shifts}
    pairs, exchanges = with_exchanges(trace, pairs, exported, entries, taken)
    return GraphSpec(
        entries=tuple(entries),
        axes=names.axes(),
        node_sets=names.node_sets(actions.operations),
        edge_sets=tuple(edges for edges, _ in pairs),
        scalings=scales,
        gauges=gauges,
        translations=shifts,
        exchanges=exchanges,
        unknown=tuple(unknown),
        program=program_of(exported, actions, entries, pairs, names),
    )


def _edge_sets(
    actions: Actions, name: str, blocks: Sequence[Block], names: Names, *, constant: bool
) -> Iterator[tuple[EdgeSet, Block]]:
    """Edge sets of one parameter: its first use holds the values, further uses are tied to it."""
    parts = {block.index for block in blocks}
    uses: dict[int, int] = {}
    for block in sorted(blocks, key=lambda b: (uses_of(blocks, b), b.index)):
        use = uses.get(block.index, 0)
        uses[block.index] = use + 1
        suffix = f"[{block.index}]" if len(parts) > 1 else ""
        primary = f"{name}{suffix}"
        edges = EdgeSet(
            name=primary if use == 0 else f"{primary}@{use + 1}",
            parameter=name,
            kind=_kind(block, constant),
            source=names.node_set(block.source),
            target=names.node_set(block.target),
            dims=tuple(
                Dim(p.size, p.stride, p.port, names.axis(p.atom), p.step) for p in block.pieces
            ),
            operation=block.use.operation,
            depth=actions.depth[block.use.node],
            offset=block.offset,
        )
        yield (edges if use == 0 else replace(edges, tied_to=primary)), block


def _kind(block: Block, constant: bool) -> str:
    statistic = block.use.kind in ("mean", "variance")
    return "constant" if constant and not statistic else block.use.kind


def uses_of(blocks: Sequence[Block], block: Block) -> int:
    """How many earlier uses of the same part there are."""
    before = blocks[: next(n for n, b in enumerate(blocks) if b is block)]
    return sum(other.index == block.index for other in before)
