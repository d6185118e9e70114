"""Finds gauges: scalings of neurons that are only mixed linearly extend to changes of basis."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch.fx import Node

from gmn.spec import Gauge, Scaling

from ..inference.actions import Actions, is_repeated
from ..inference.axes import Atom
from ..inference.tracing import Tracing, atoms_of, flat_axes
from .names import Names, unique


def with_gauges(
    actions: Actions, scalings: Sequence[Scaling], names: Names, targets: Mapping[str, str]
) -> tuple[tuple[Scaling, ...], tuple[Gauge, ...]]:
    """Replaces scalings by the changes of basis that contain them.

    Where a scale of either sign is free and every operation is linear in the scaled neurons, the
    units balance for matrices as they do for numbers: what had unit ``s`` is multiplied by ``A``,
    what had ``1/s`` by its transposed inverse. Where signs alone are free (one weight both writes
    and reads), the two must agree: ``A`` is orthogonal.

    Args:
        actions: how values transform.
        scalings: its scalings.
        names: names of axes.
        targets: by edge set, the node set it enters.

    Returns:
        The scalings that are left, and the gauges.
    """
    linear = {names.axis(atom) for atom in _linear(actions)}
    positive = {_support(s): s for s in scalings if s.domain == "positive"}
    gauges: list[Gauge] = []
    contained: set[str] = set()
    taken: set[str] = set()
    for sign in scalings:
        basis = [axis for axis in sign.axes if axis in linear]
        if sign.domain != "sign" or not basis:
            continue
        scale = positive.get(_support(sign))
        # What scales by s², such as a variance, has no counterpart for matrices, nor has an offset.
        if scale is not None and any(abs(t.exponent) != 1 or t.offset for t in scale.terms):
            continue
        if scale is None and any(basis[-1] in other.axes for other in positive.values()):
            continue
        name = unique(f"{targets[sign.terms[0].edge_set]}.basis", taken)
        gauges.append(_gauge(name, sign, scale, basis[-1]))
        contained |= {s.name for s in (sign, scale) if s is not None}
    return tuple(s for s in scalings if s.name not in contained), tuple(gauges)


def _support(scaling: Scaling) -> frozenset[tuple[str, tuple[int, ...], str]]:
    return frozenset((term.edge_set, term.dims, term.port) for term in scaling.terms)


def _gauge(name: str, sign: Scaling, scale: Scaling | None, basis: str) -> Gauge:
    """The change of basis whose diagonal the scalings are; its last axis is the mixed one."""
    diagonal = sign if scale is None else scale
    order = sorted(range(len(sign.axes)), key=lambda index: diagonal.axes[index] == basis)
    return Gauge(
        name,
        "orthogonal" if scale is None else "general",
        tuple(diagonal.axes[index] for index in order),
        tuple(diagonal.shape[index] for index in order),
        tuple(
            replace(term, dims=tuple(term.dims[index] for index in order))
            for term in diagonal.terms
        ),
    )


def _linear(actions: Actions) -> set[Atom]:
    """The atoms along which every operation acts linearly, alike at all other indices."""
    trace = actions.trace
    candidates: set[Atom] = set()
    bound: set[Atom] = set()
    for node, value in trace.values.items():
        if node.op == "placeholder" or node.target is operator.getitem:
            continue
        present = _atoms_at(trace, node)
        candidates |= present
        bound |= (present - actions.linear.get(node, frozenset())) | _repeated(value)
    return candidates - bound


def _repeated(value: Any) -> frozenset[Atom]:
    """Atoms that several dimensions of one result range over."""
    if value and isinstance(value[0], list):
        return frozenset().union(*map(_repeated, value))
    return is_repeated(value)


def _atoms_at(trace: Tracing, node: Node) -> frozenset[Atom]:
    """What the operands and results of an operation range over."""
    values = [trace.values[node], *(trace.values[operand] for operand in node.all_input_nodes)]
    return atoms_of(*(axis for value in values for axis in flat_axes(value)))
