"""Prints a spec as text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gmn.spec.folding import fold, fold_names

if TYPE_CHECKING:
    from gmn.spec import (
        Axis,
        EdgeSet,
        Exchange,
        Gauge,
        GraphSpec,
        NodeSet,
        Scaling,
        ScalingTerm,
        StateEntry,
        Translation,
        TranslationTerm,
    )


def describe(spec: GraphSpec) -> str:
    """A table of node sets, edge sets and symmetries; layers that are alike take one row."""
    lines = [
        f"GraphSpec: {spec.num_parameters:,} parameters in {len(spec.edge_sets)} edge sets, "
        f"{spec.num_nodes:,} neurons in {len(spec.node_sets)} node sets"
    ]
    lines += ["", "node sets", *_columns([_node_row(spec, nodes) for nodes in spec.node_sets])]
    lines += ["", "edge sets", *_columns([_edge_row(spec, edges) for edges in spec.edge_sets])]
    if spec.scalings:
        lines += ["", "scalings", *_columns([_scaling_row(scaling) for scaling in spec.scalings])]
    if spec.gauges:
        lines += ["", "changes of basis", *_columns([_gauge_row(gauge) for gauge in spec.gauges])]
    if spec.translations:
        rows = [_translation_row(translation) for translation in spec.translations]
        lines += ["", "translations", *_columns(rows)]
    if spec.exchanges:
        rows = [_exchange_row(exchange) for exchange in spec.exchanges]
        lines += ["", "exchanges of branches", *_columns(rows)]
    if spec.unknown:
        lines += ["", f"operations without a rule: {', '.join(spec.unknown)}"]
    if spec.left_out:
        rows = [(entry.name, _content(entry)) for entry in spec.left_out]
        lines += ["", "not on the graph, since never read", *_columns(rows)]
    return "\n".join([*lines, *_experience(spec)])


def _content(entry: StateEntry) -> str:
    """Number and type of the elements of an entry."""
    count = math.prod(entry.shape)
    kind = "complex number" if entry.complex else "number" if entry.floating else "integer"
    return f"{count:,} {kind}{'' if count == 1 else 's'}"


def _experience(spec: GraphSpec) -> list[str]:
    """Which symmetries were tried on the module."""
    names = set(spec.symmetries.names)
    if not names:
        return []
    held, why = len(names.intersection(spec.tried)), f": {spec.untried}" if spec.untried else ""
    if not held:
        return ["", f"not tried{why}"]
    share = f"all of {held}" if held == len(names) else f"{held} of {len(names)}"
    return ["", f"tried: {share} symmetries on random weights{why and f'; others not{why}'}"]


def _node_row(spec: GraphSpec, nodes: NodeSet) -> tuple[str, ...]:
    group = " × ".join(map(group_name, (spec.axis(name) for name in nodes.axes)))
    shape = "×".join(map(str, nodes.shape))
    return nodes.name, shape, nodes.role, group, " ".join(map(str, nodes.operations))


def group_name(axis: Axis) -> str:
    """The axis' permutation group: ``S16``, ``(S4 per heads)`` if nested, or ``fixed``."""
    if not axis.movable or axis.size < 2:
        return "fixed"
    return f"(S{axis.size} per {', '.join(axis.within)})" if axis.within else f"S{axis.size}"


def _edge_row(spec: GraphSpec, edges: EdgeSet) -> tuple[str, ...]:
    ends = f"{edges.target}" if edges.diagonal else f"{edges.source} → {edges.target}"
    neurons = "×".join(str(dim.size) for dim in edges.dims if dim.port != "tap")
    taps = "×".join(str(dim.size) for dim in edges.dims if dim.port == "tap")
    note = "" if spec.is_parameter(edges) else "buffer"
    note = f"tied to {edges.tied_to}" if edges.tied_to else note
    shape = f"{neurons or '1'} @ {taps}" if taps else neurons
    return edges.name, ends, shape, edges.kind, str(edges.operation), note


def _scaling_row(scaling: Scaling) -> tuple[str, ...]:
    shape = "×".join(map(str, scaling.shape)) or "1"
    return scaling.name, scaling.domain, shape, _terms(scaling.terms)


def _gauge_row(gauge: Gauge) -> tuple[str, ...]:
    *outer, size = gauge.shape
    group = f"{'GL' if gauge.group == 'general' else 'O'}({size})"
    each = f"per {', '.join(gauge.axes[:-1])}" if outer else ""
    return gauge.name, group, each, _terms(gauge.terms)


def _translation_row(translation: Translation) -> tuple[str, ...]:
    shape = "×".join(map(str, translation.shape)) or "1"
    return translation.name, shape, ", ".join(fold_names([*map(_moved, translation.terms)]))


def _moved(term: TranslationTerm) -> str:
    """An edge set that a translation moves, and the weight that its numbers pass before."""
    sign = "" if term.factor > 0 else "-"
    return f"{sign}{term.edge_set}{f' through {term.through.edge_set}' if term.through else ''}"


def _exchange_row(exchange: Exchange) -> tuple[str, ...]:
    names = ", ".join(fold_names([name for branch in exchange.branches for name in branch]))
    return exchange.name, f"S{len(exchange.branches)}", names


def _terms(terms: Sequence[ScalingTerm]) -> str:
    return ", ".join(fold_names(list(map(_term, terms))))


def _term(term: ScalingTerm) -> str:
    if term.shift:
        return f"{term.edge_set} + {term.shift:.3g}"
    return term.edge_set if term.exponent == 1 else f"{term.edge_set}^{term.exponent:g}"


def _columns(rows: list[tuple[str, ...]]) -> list[str]:
    rows = fold(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = (
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        for row in rows
    )
    return [f"  {line.rstrip()}" for line in padded]
