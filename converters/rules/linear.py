"""Along which atoms an operation is linear and treats all other indices alike.

Along these, a change of basis passes through it: applied to the operands, it appears in the result,
or cancels in a sum of products.
"""

from __future__ import annotations

from torch.fx import Node

from ..axes import Atom
from ..tracing import Tracing, arguments, atoms_of, flat_axes

Atoms = frozenset[Atom]


def moved(trace: Tracing, node: Node) -> Atoms:
    """Entries are moved as they are: everything the operands range over."""
    return atoms_of(*(axis for operand in node.all_input_nodes for axis in trace.axes(operand)))


def taken(trace: Tracing, node: Node) -> Atoms:
    """Parts are taken out of the operand: what it and they range over."""
    return moved(trace, node) | atoms_of(*flat_axes(trace.values[node]))


def kept(trace: Tracing, node: Node) -> Atoms:
    """Other dimensions are averaged, summed or resized: what is left of the first operand's."""
    return atoms_of(*trace.axes(node.args[0])) & atoms_of(*trace.axes(node))


def summed(trace: Tracing, node: Node) -> Atoms:
    """Values are added: what both operands range over."""
    first, second = (atoms_of(*trace.axes(operand)) for operand in node.args[:2])
    return first & second


def multiplied(trace: Tracing, node: Node) -> Atoms:
    """Entries are multiplied: what one operand alone ranges over."""
    first, second = (atoms_of(*trace.axes(operand)) for operand in node.args[:2])
    return first ^ second


def divided(trace: Tracing, node: Node) -> Atoms:
    """Entries are divided: what the dividend alone ranges over."""
    first, second = (atoms_of(*trace.axes(operand)) for operand in node.args[:2])
    return Atoms() if arguments(node).get("rounding_mode") else first - second


def contracted(trace: Tracing, node: Node) -> Atoms:
    """A matrix product: the summed dimension, and what one operand alone ranges over."""
    first, second = (trace.axes(operand) for operand in node.args[:2])
    if min(len(first), len(second)) < 2:
        return Atoms()
    if trace.parameter_name(node.args[1]) is not None:
        return mapped(trace, node)
    # What the operands share beside the summed dimension numbers independent products.
    shared = atoms_of(*first[:-1]) & atoms_of(*second[:-2], second[-1])
    return atoms_of(*first, *second) - shared


def mapped(trace: Tracing, node: Node) -> Atoms:
    """A weight is applied: its rows and columns, but not the groups that both ends share."""
    found = (trace.find_use(node, operand) for operand in node.all_input_nodes)
    use = next((use for use in found if use is not None and use.kind == "weight"), None)
    if use is None:
        return Atoms()
    axes = trace.parameters[use.parameter]
    ends = (axis for axis, port in zip(axes, use.ports, strict=True) if port != "tap")
    return atoms_of(*ends) - atoms_of(use.shared)


def attended(trace: Tracing, node: Node) -> Atoms:
    """Attention: the units of queries and keys, and those of values."""
    call = arguments(node)
    query, value = trace.axes(call["query"]), trace.axes(call["value"])
    return atoms_of(query[-1], value[-1]) - atoms_of(*query[:-1], *value[:-1])
