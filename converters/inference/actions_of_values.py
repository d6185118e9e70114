"""Second pass: applies each operation's action rule and records where parameters are used."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.fx import Node

from gmn.spec import Operation, Port, StateEntry

from ..rules import rule_of
from .actions import NOTHING, Actions, Use, flat_actions
from .axes import atoms, fix
from .equations import Key
from .tracing import Tracing, Value, flat_axes, name_of, operation_of, overlooked, path_of


def run_actions(
    result: Tracing,
    program: torch.export.ExportedProgram,
    entries: Sequence[StateEntry],
    unknown: list[str],
    pinned: bool,
) -> Actions:
    """States how every operation's result transforms; what no rule tells may not move."""
    actions = Actions(result)
    reached: set[tuple[str, Key]] = set()
    movable = {entry.name: entry for entry in entries if entry.floating or entry.complex}
    tangled = {n for name, v in result.views.items() if v.dims is None for n in (name, v.owner)}
    for node in program.graph.nodes:
        before = len(actions.uses)
        actions.depth[node] = max((actions.depth[i] for i in node.all_input_nodes), default=0)
        if node.op == "placeholder":
            name = result.parameter_name(node)
            if name is not None and node.users:
                exact = node.meta["val"].dtype.itemsize > 1  # eight-bit floats round what is scaled
                scaled = name in movable and name not in tangled and exact
                shifted = scaled and not movable[name].complex
                actions.set(node, actions.leaf(name, scaled=scaled, shifted=shifted))
        elif node.op == "call_function":
            actions.begin()
            actions.set(node, _action_of(actions, node))
            if report := _overlooked(actions, node, before):
                unknown += [report] if report not in unknown else []
            reached |= _reached(actions, node)
            uses = actions.uses[before:]
            actions.depth[node] += any(use.kind == "weight" for use in uses)
            rule = rule_of(node)
            if rule is not None and rule.recorded and not uses and node not in result.unknown:
                actions.operations.append((operation_of(node), node))
        elif node.op == "output":
            reached |= _reached(actions, node)
            if pinned:
                actions.pin_all(node)
    _pin_unreached(actions, reached)
    actions.settle_phases()
    _add_unused(actions, entries)
    return actions


# Operations that read a part of a value.
_CUTS = frozenset(
    {"slice", "select", "split", "split_with_sizes", "chunk", "unbind", "tensor_split", "getitem"}
)


def _reached(actions: Actions, node: Node) -> set[tuple[str, Key]]:
    """Parts of entries that an operation does something with, other than hand on a part of them."""
    given = {part for operand in node.all_input_nodes for part in _parts(actions, operand)}
    if node not in actions.trace.static:
        return given
    return set() if name_of(node) in _CUTS else given - set(_parts(actions, node))


def _parts(actions: Actions, node: Node) -> Iterator[tuple[str, Key]]:
    for action in flat_actions(actions.results(node)):
        for origins in action.origins.values():
            yield from ((origin.entry, origin.key) for origin in origins)


def _pin_unreached(actions: Actions, reached: set[tuple[str, Key]]) -> None:
    """Pins parts of entries that the example does not read: other inputs may read them.

    So it is with positions that are cut to the length of the input: all of the entry stays put.
    """
    for name, action in actions.entries.items():
        cells = actions.cells(actions.trace.parameters[name])
        unread = [cell for cell in cells if (name, cell.key) not in reached]
        for cell in unread:
            for dim, _ in cell.key:
                for factor in cell.atoms[dim]:
                    fix((factor,), "the example does not read it")
        if unread:
            actions.zero(actions.magnitudes, action.magnitude)
            actions.zero(actions.signs, action.sign)
            actions.zero(actions.shifts, action.shift)


def _action_of(actions: Actions, node: Node) -> Any:
    rule = None if node in actions.trace.unknown else rule_of(node)
    if node.target is operator.getitem:
        results = actions.results(node.args[0])  # type: ignore[arg-type]
        index = node.args[1]
        return results[index] if isinstance(results, list) and len(results) > index else NOTHING  # type: ignore[operator,index]
    if rule is None:
        actions.pin_all(node)
        return NOTHING
    return rule.action(actions, node)


def _overlooked(actions: Actions, node: Node, before: int) -> str | None:
    """Pins operands that a rule has not looked at, and reports arguments it has not looked at.

    An operation with such an argument has no rule; of operands like that, nothing may move.
    """
    rule = None if node in actions.trace.unknown else rule_of(node)
    if rule is None:
        return None
    names = overlooked(node, rule)
    operands = actions.overlooked(node)
    for operand in operands if not names else node.all_input_nodes:
        for action in flat_actions(actions.results(operand)):
            actions.pin_action(action)
        for axis in flat_axes(actions.trace.values[operand]):
            fix(axis, f"{path_of(node)}: the rule of {name_of(node)} does not mention it")
    if not names:
        return None
    reason = f"{path_of(node)}: {name_of(node)} with {', '.join(names)} has no rule"
    for axis in flat_axes(actions.trace.values[node]):
        fix(axis, reason)
    actions.trace.unknown.add(node)
    del actions.uses[before:]
    actions.set(node, NOTHING)
    return f"{reason}; its axes stay ordered. Add one with converters.register"


def _add_unused(actions: Actions, entries: Sequence[StateEntry]) -> None:
    """Adds uses for entries that no operation reads as edges, so that every entry is on the graph.

    Those that the network reads in another way join the neurons that they range over; parameters
    that it does not read at all join neurons of their own that may not move.
    """
    trace, graph = actions.trace, torch.fx.Graph()
    left_out = _left_out(trace, entries)
    actions.uses = [use for use in actions.uses if use.parameter not in left_out]
    used: dict[str, set[Key | None]] = {}
    for use in actions.uses:
        used.setdefault(use.parameter, set()).add(use.key)
    for entry in entries:
        known = used.get(entry.name, set())
        if entry.tied_to or entry.name in left_out or None in known:
            continue
        axes = trace.parameters[entry.name]
        missing = [cell for cell in actions.cells(axes) if cell.key not in known]
        if not missing:
            continue
        entered, index = entry.name in trace.read, entry.name in trace.indices
        ports = _ports_of_unused(axes, entered=entered, index=index)
        node = graph.placeholder("unused")
        actions.depth[node] = 0
        operation = Operation("read" if entry.name in trace.read else "unused")
        keys: list[Key | None] = [cell.key for cell in missing] if known else [None]
        for key in keys:
            actions.uses.append(Use(entry.name, key, "weight", node, operation, ports))


def _left_out(trace: Tracing, entries: Sequence[StateEntry]) -> set[str]:
    """Entries that are not on the graph: buffers, and parameters of integers, that it never reads.

    All others decide the function.
    """
    return {
        entry.name
        for entry in entries
        if not entry.learnable
        and not (entry.parameter and entry.name in trace.parameters)
        and entry.name not in trace.read
    }


def _ports_of_unused(axes: Value, *, entered: bool, index: bool) -> tuple[Port, ...]:
    """The ends of entries that are no edges of the network.

    Whole numbers of many bits that stay where they are (places in tables) all join one neuron: of
    as many neurons as a table has places, most metanetworks would do little else than read them.
    """
    moving = [
        dim
        for dim, axis in enumerate(axes)
        if any(not atom.fixed and atom.size > 1 for atom in atoms(axis))
    ]
    if index and not moving:
        return tuple("tap" for _ in axes)
    ports: list[Port] = ["both"] * len(axes)
    if len(moving) > 1 or (not entered and len(axes) > 1):
        ports = ["source"] * len(axes)
        ports[moving[0] if moving else 0] = "target"
    return tuple(ports)
