"""Rules of recurrent layers, whose gates all share one hidden index set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch.fx import Node

from gmn.spec import Port

from ..inference.actions import NOTHING, Action, Actions
from ..inference.axes import Atom, Axis, Sum, fix, terms, unify
from ..inference.equations import add
from ..inference.frames import Frame, Member
from ..inference.primitives import choices, equate, product, reshaped, summed, transfer
from ..inference.tracing import (
    Rule,
    Tracing,
    Value,
    arguments,
    atoms_of,
    is_read,
    name_of,
    path_of,
)
from .pieces import cut_evenly
from .pointwise import ZEROS, is_zero

UNIFORM = (*ZEROS, "ones", "full")
GATES = {"lstm": "ifgo", "gru": "rzn", "rnn_tanh": "n", "rnn_relu": "n"}
CANDIDATES = "gn"  # the gates whose values are written to memory


@dataclass(frozen=True)
class RecurrentCell:
    """Parameters of one direction of one layer, in the order of the operation's list."""

    into: Any
    recurrent: Any
    biases: tuple[Any, ...]
    projection: Any


def _cells(node: Node, call: Mapping[str, Any]) -> list[list[RecurrentCell]]:
    """Cells by layer and direction."""
    parameters = list(call["params"])
    directions, layers = 2 if call["bidirectional"] else 1, call["num_layers"]
    each = len(parameters) // (directions * layers)
    cells: list[list[RecurrentCell]] = []
    for layer in range(layers):
        row = []
        for direction in range(directions):
            start = (layer * directions + direction) * each
            own = parameters[start : start + each]
            count = 2 if call["has_biases"] else 0
            projection = own[2 + count] if each > 2 + count else None
            row.append(RecurrentCell(own[0], own[1], tuple(own[2 : 2 + count]), projection))
        cells.append(row)
    return cells


def _step_cell(call: Mapping[str, Any]) -> RecurrentCell:
    biases = tuple(call[name] for name in ("b_ih", "b_hh") if call[name] is not None)
    return RecurrentCell(call["w_ih"], call["w_hh"], biases, None)


def _given(call: Mapping[str, Any]) -> list[Any]:
    """The initial state, and for an LSTM the initial memory."""
    return list(call["hx"]) if isinstance(call["hx"], (list, tuple)) else [call["hx"]]


def _gates(node: Node) -> str:
    return GATES[name_of(node).removesuffix("_cell")]


def _candidate(node: Node) -> int:
    return next(index for index, gate in enumerate(_gates(node)) if gate in CANDIDATES)


def _recurrent_axes(trace: Tracing, node: Node) -> list[Value] | None:
    call = arguments(node)
    if "params" not in call or "batch_first" not in call:
        return None  # a packed sequence
    reason = path_of(node)
    features = trace.axes(call["input"])
    for axis in features[:-1]:
        fix(axis, "steps of a sequence keep their order")
    values, states, cells = features[-1], [], []
    for row in _cells(node, call):
        ends = [_cell_axes(trace, node, cell, values, reason) for cell in row]
        states += [state for state, _ in ends]
        cells += [memory for _, memory in ends]
        values = ends[0][0] if len(ends) == 1 else (Sum(tuple((*end[0],) for end in ends)),)
    return _results(trace, node, call, features, values, states, cells)


def _cell_axes(
    trace: Tracing, node: Node, cell: RecurrentCell, values: Axis, reason: str
) -> tuple[Axis, Axis]:
    """Joins one cell's parameters; returns the axes of its output and of its memory.

    The rows of a weight are a concatenation: the same hidden units, once for every gate.
    """
    count = len(_gates(node))
    weight, recurrent = trace.axes(cell.into), trace.axes(cell.recurrent)
    memory, *others = cut_evenly(weight[0], count, reason)
    for gate in others:
        unify(memory, gate, reason)
    state = memory
    if cell.projection is not None:
        projection = trace.axes(cell.projection)
        unify(projection[1], memory, reason)
        state = projection[0]
    for rows in (recurrent[0], *(trace.axes(bias)[0] for bias in cell.biases)):
        unify(rows, weight[0], reason)
    unify(values, weight[1], reason)
    unify(recurrent[1], state, reason)
    return state, memory


def _results(
    trace: Tracing,
    node: Node,
    call: Mapping[str, Any],
    features: Value,
    values: Axis,
    states: list[Axis],
    cells: list[Axis],
) -> list[Value]:
    """Output, last state and, for an LSTM, last memory; given initial states join the last."""
    given = _given(call)
    results: list[Value] = [[*features[:-1], values]]
    batch = features[1 if call["batch_first"] is False else 0 : -1][:1]
    for index, (initial, ends) in enumerate(zip(given, (states, cells), strict=False), start=1):
        axes = list(trace.axes(initial))
        for axis in axes[:-1]:
            fix(axis, "states of layers and sequences keep their order")
        joined = [axes[-1]] if name_of(initial) not in UNIFORM else []
        if joined or is_read(node, index):
            # One tensor holds the states of all cells, so they have to move alike.
            for end in ends[1:] + joined:
                unify(ends[0], end, path_of(node))
        results.append([axes[0], *batch[: len(axes) - 2], ends[0]])
    return results


def _step_axes(trace: Tracing, node: Node) -> Value | list[Value]:
    """One step of a cell; an LSTM's returns its state and its memory, which are one index set."""
    call = arguments(node)
    features, reason = trace.axes(call["input"]), path_of(node)
    state, _ = _cell_axes(trace, node, _step_cell(call), features[-1], reason)
    result = [*features[:-1], state]
    given = _given(call)
    for initial in given:
        if name_of(initial) not in UNIFORM:
            for first, second in zip(trace.axes(initial), result, strict=True):
                unify(first, second, reason)
    return [result, list(result)] if len(given) > 1 else result


# --- how results transform ----------------------------------------------------------------------


def _recurrent(actions: Actions, node: Node) -> list[Action]:
    """Outputs move as their cells do; states that are read or given share one action."""
    call = arguments(node)
    if "params" not in call or "batch_first" not in call:
        actions.pin_all(node)
        return [NOTHING] * len(node.meta["val"])
    actions.linear[node] = _projected(actions, node)
    features = actions.axes(call["input"])
    value, axes = _sequence(actions, call["input"], features), [features[-1]]
    states: list[tuple[Action, Axis]] = []
    memories: list[tuple[Action, Axis]] = []
    for row in _cells(node, call):
        cells = [_cell(actions, node, cell, value, axes) for cell in row]
        outputs = [state for state, _ in cells]
        states += outputs
        memories += [memory for _, memory in cells]
        axes = [outputs[0][1]] if len(cells) == 1 else [(Sum(tuple(o[1] for o in outputs)),)]
        value = _side_by_side(actions, outputs, axes)
    output = actions.trace.values[node]
    results = [_last_dimension(actions, value, axes, output[0])]
    for index, (initial, ends) in enumerate(zip(_given(call), (states, memories), strict=False), 1):
        common = _shared(actions, node, ends, initial, is_read(node, index))
        results.append(_last_dimension(actions, common, [ends[0][1]], output[index]))
    return results


def _step(actions: Actions, node: Node) -> Any:
    call = arguments(node)
    features = actions.axes(call["input"])
    value = _sequence(actions, call["input"], features)
    cell = _step_cell(call)
    actions.linear[node] = _projected(actions, node)
    state, memory = _cell(actions, node, cell, value, [features[-1]])
    values = actions.trace.values[node]
    given = _given(call)
    results = []
    for index, (initial, end) in enumerate(zip(given, (state, memory), strict=False)):
        common = _shared(actions, node, [end], initial, read=True)
        axes = values[index] if isinstance(values[0], list) else values
        results.append(_last_dimension(actions, common, [end[1]], axes))
    return results if isinstance(values[0], list) else results[0]


def _projected(actions: Actions, node: Node) -> frozenset[Atom]:
    """A sequence is mapped: linear along its features, and along a projected state."""
    call = arguments(node)
    cells = [_step_cell(call)] if "w_ih" in call else [c for row in _cells(node, call) for c in row]
    bound = atoms_of(*(actions.axes(cell.into)[0] for cell in cells))
    projected = [actions.axes(c.projection)[0] for c in cells if c.projection is not None]
    return atoms_of(actions.axes(call["input"])[-1], *projected) - bound


def _sequence(actions: Actions, operand: object, features: Value) -> Action:
    """The action that an input has at all steps, along its features alone."""
    pairs = [
        (cell, new)
        for cell in actions.cells(features)
        for new in actions.cells([features[-1]])
        if dict(cell.key).get(len(features) - 1, 0) == dict(new.key).get(0, 0)
    ]
    dims: list[int | None] = [None] * (len(features) - 1) + [0]
    action = transfer(actions, actions.of(operand), pairs, dims)
    actions.zero(actions.shifts, action.shift)
    return Action(action.magnitude, action.sign, {}, {})


def _side_by_side(actions: Actions, parts: Sequence[tuple[Action, Axis]], axes: Value) -> Action:
    """The states of both directions as one dimension."""
    if len(parts) == 1:
        return parts[0][0]
    whole = actions.cells(axes)
    moved, start = [], 0
    for action, axis in parts:
        own = actions.cells([axis])
        pairs = list(zip(own, whole[start : start + len(own)], strict=True))
        moved.append(transfer(actions, action, pairs, [0]))
        start += len(own)
    return Action(
        {key: terms for part in moved for key, terms in part.magnitude.items()},
        {key: terms for part in moved for key, terms in part.sign.items()},
    )


def _last_dimension(actions: Actions, action: Action, axes: Value, result: Value) -> Action:
    """The action of a value whose last dimension this one is."""
    last = len(result) - 1
    pairs = [
        (cell, new)
        for cell in actions.cells(axes)
        for new in actions.cells(result)
        if dict(cell.key).get(0, 0) == dict(new.key).get(last, 0)
    ]
    return transfer(actions, action, pairs, [last])


def _shared(
    actions: Actions,
    node: Node,
    ends: Sequence[tuple[Action, Axis]],
    initial: Node,
    read: bool,
) -> Action:
    """One tensor holds the states of all cells; those that start at zero start at any scale."""
    first = ends[0][0]
    actions.only_shape(*[initial] if is_zero(initial) else [])
    if not is_zero(initial):
        given = _sequence(actions, initial, actions.axes(initial))
        _alike(actions, first, given)
        read = True
    for end, _ in ends[1:] if read else ():
        _alike(actions, first, end)
    return first


def _alike(actions: Actions, one: Action, other: Action) -> None:
    equate(actions.magnitudes, one.magnitude, other.magnitude)
    equate(actions.signs, one.sign, other.sign)


def _cell(
    actions: Actions, node: Node, cell: RecurrentCell, value: Action, inputs: Value
) -> tuple[tuple[Action, Axis], tuple[Action, Axis]]:
    """How a cell's output and memory move: as the candidate that it writes to memory.

    The other gates pass through a sigmoid. The candidate passes through tanh, which keeps signs,
    or relu, which keeps positive scales; the memory and the output follow it, at every step.
    """
    count = len(_gates(node))
    axes = actions.axes(cell.into)
    rows = [axes[0]]
    incoming = _weighed(actions, node, cell.into, value, inputs, rows)
    gates = choices(actions, rows, 0)
    memory_axis = terms(rows[0])[_candidate(node)] if len(gates) == count else None
    if memory_axis is None:
        actions.pin_all(node)
        state_axis = actions.axes(cell.recurrent)[1]
        return (NOTHING, state_axis), (NOTHING, state_axis)
    candidate = _candidate(node)
    memory = _gate(actions, incoming, rows, candidate, memory_axis)
    keep_magnitude = "relu" in name_of(node)
    if keep_magnitude:
        actions.zero(actions.signs, memory.sign)
    else:
        actions.zero(actions.magnitudes, memory.magnitude)
    state, state_axis = memory, memory_axis
    if cell.projection is not None:
        projection = actions.axes(cell.projection)
        state_axis = projection[0]
        state = _weighed(actions, node, cell.projection, memory, [projection[1]], [state_axis])
        actions.zero(actions.shifts, state.shift)
        state = replace(state, shift={})
    recurrent = _weighed(actions, node, cell.recurrent, state, [state_axis], rows)
    whole = [incoming, recurrent]
    for bias in cell.biases:
        own = actions.of(bias)
        whole.append(reshaped(actions, own, actions.axes(bias), rows))
        actions.use(bias, node, "bias", ("both",))
    for other in whole[1:]:
        _alike(actions, incoming, other)
    for index in range(count):
        if index != candidate:
            part = _gate(actions, incoming, rows, index, terms(rows[0])[index])
            actions.zero(actions.magnitudes, part.magnitude)
            actions.zero(actions.signs, part.sign)
    _shifts_cancel(actions, node, whole, candidate)
    return (state, state_axis), (memory, memory_axis)


def _weighed(
    actions: Actions, node: Node, weight: Any, value: Action, inputs: Value, rows: Value
) -> Action:
    """A weight times a vector, along its rows."""
    members: list[Any] = [Member(None, ["i"], inputs, value), (weight, ["r", "i"])]
    frame = Frame(actions, node, members, ["r"], rows)
    ports: tuple[Port, ...] = ("target", "source")
    actions.use(weight, node, "weight", ports)
    whole = product(frame, 0, 1)
    return frame.give(summed(frame, whole, {"i"}))


def _gate(actions: Actions, action: Action, rows: Value, index: int, axis: Axis) -> Action:
    """The part of the rows that belongs to one gate."""
    own = actions.cells([axis])
    pairs = [
        (cell, new)
        for cell in actions.cells(rows)
        if dict(cell.key).get(0, 0) == index
        for new in own
    ]
    result = transfer(actions, Action(action.magnitude, action.sign), pairs, [0])
    return result


def _shifts_cancel(actions: Actions, node: Node, parts: Sequence[Action], candidate: int) -> None:
    """What biases add to a gate cancels; the candidate of a GRU sees its two halves apart."""
    apart = name_of(node).startswith("gru")
    keys = {key for part in parts for key in part.shift}
    for key in keys:
        gate = dict(key).get(0, 0)
        sums = [[part] for part in parts] if apart and gate == candidate else [list(parts)]
        if apart and gate == candidate:  # inputs with their bias, states with theirs
            sums = [[p for n, p in enumerate(parts) if n % 2 == half] for half in (0, 1)]
        for group in sums:
            total: Any = {}
            for part in group:
                total = add(total, part.shift.get(key, {}))
            if total:
                actions.shifts.require(total)


_PERMITS = "permutations of hidden units, shared by gates, recurrence and memory; "
RULES = {
    name + suffix: Rule(axes, action, _PERMITS + passes, product=True, whatever=("dropout",))
    for suffix, axes, action in (
        ("", _recurrent_axes, _recurrent),
        ("_cell", _step_axes, _step),
    )
    for name, passes in (
        ("lstm", "signs of the memory"),
        ("gru", "signs of the state"),
        ("rnn_tanh", "signs of the state"),
        ("rnn_relu", "positive scales of the state"),
    )
}
