"""Recurrent layers: one hidden index set for all gates, for the recurrence and for the readers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch.fx import Node

from gmn.spec import Port

from ..axes import Atom, Axis, Sum, fix, unify
from ..tracing import Rule, Tracing, Value, arguments, atoms_of, is_read, name_of, place_of
from ..units import ONE, Unit
from .pieces import cut_evenly

ZEROS = ("zeros", "new_zeros", "zeros_like")
UNIFORM = (*ZEROS, "ones", "full")
GATES = {"lstm": "ifgo", "gru": "rzn", "rnn_tanh": "n", "rnn_relu": "n"}
CANDIDATES = "gn"  # the gates whose values are written to memory


@dataclass(frozen=True)
class Cell:
    """Parameters of one direction of one layer, in the order of the operation's list."""

    into: Any
    recurrent: Any
    biases: tuple[Any, ...]
    projection: Any


def _cells(node: Node, call: dict[str, Any]) -> list[list[Cell]]:
    """Cells by layer and direction."""
    parameters = list(call["params"])
    directions, layers = 2 if call["bidirectional"] else 1, call["num_layers"]
    each = len(parameters) // (directions * layers)
    found: list[list[Cell]] = []
    for layer in range(layers):
        row = []
        for direction in range(directions):
            start = (layer * directions + direction) * each
            own = parameters[start : start + each]
            count = 2 if call["has_biases"] else 0
            projection = own[2 + count] if each > 2 + count else None
            row.append(Cell(own[0], own[1], tuple(own[2 : 2 + count]), projection))
        found.append(row)
    return found


def _step_cell(call: dict[str, Any]) -> Cell:
    biases = tuple(call[name] for name in ("b_ih", "b_hh") if call[name] is not None)
    return Cell(call["w_ih"], call["w_hh"], biases, None)


def _given(call: dict[str, Any]) -> list[Any]:
    """The initial state, and for an LSTM the initial memory."""
    return list(call["hx"]) if isinstance(call["hx"], (list, tuple)) else [call["hx"]]


def _gates(node: Node) -> str:
    return GATES[name_of(node).removesuffix("_cell")]


def _candidate(node: Node) -> int:
    return next(number for number, gate in enumerate(_gates(node)) if gate in CANDIDATES)


def _recurrent_axes(trace: Tracing, node: Node) -> list[Value] | None:
    call = arguments(node)
    if "params" not in call or "batch_first" not in call:
        return None  # a packed sequence
    reason = place_of(node)
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
    trace: Tracing, node: Node, cell: Cell, values: Axis, reason: str
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
        trace.use(cell.projection, node, "weight", ("target", "source"))
    for rows in (recurrent[0], *(trace.axes(bias)[0] for bias in cell.biases)):
        unify(rows, weight[0], reason)
    unify(values, weight[1], reason)
    unify(recurrent[1], state, reason)
    for operand in (cell.into, cell.recurrent):
        trace.use(operand, node, "weight", ("target", "source"))
    for bias in cell.biases:
        trace.use(bias, node, "bias", ("both",))
    return state, memory


def _results(
    trace: Tracing,
    node: Node,
    call: dict[str, Any],
    features: Value,
    values: Axis,
    states: list[Axis],
    cells: list[Axis],
) -> list[Value]:
    """Output, last state and, for an LSTM, last memory; given initial states join the last."""
    given = _given(call)
    results: list[Value] = [[*features[:-1], values]]
    batch = features[1 if call["batch_first"] is False else 0 : -1][:1]
    for number, (initial, ends) in enumerate(zip(given, (states, cells), strict=False), start=1):
        axes = list(trace.axes(initial))
        joined = [axes[-1]] if name_of(initial) not in UNIFORM else []
        if joined or is_read(node, number):
            # One tensor holds the states of all cells, so they have to move alike.
            for end in ends[1:] + joined:
                unify(ends[0], end, place_of(node))
        results.append([axes[0], *batch[: len(axes) - 2], ends[0]])
    return results


def _step_axes(trace: Tracing, node: Node) -> Value | list[Value]:
    """One step of a cell; an LSTM's returns its state and its memory, which are one index set."""
    call = arguments(node)
    features, reason = trace.axes(call["input"]), place_of(node)
    state, _ = _cell_axes(trace, node, _step_cell(call), features[-1], reason)
    result = [*features[:-1], state]
    given = _given(call)
    for initial in given:
        if name_of(initial) not in UNIFORM:
            for first, second in zip(trace.axes(initial), result, strict=True):
                unify(first, second, reason)
    return [result, list(result)] if len(given) > 1 else result


def bias_pairs(node: Node) -> list[tuple[Any, Any]]:
    """The two biases of every cell of a recurrent operation."""
    call = arguments(node)
    cells = [_step_cell(call)] if "w_ih" in call else [c for row in _cells(node, call) for c in row]
    return [(first, second) for first, second in (c.biases for c in cells if len(c.biases) == 2)]


def gates_that_add_biases(node: Node) -> list[int]:
    """The gates that see the sum of both biases only: not the candidate of a GRU."""
    gated = name_of(node).startswith("gru")
    return [n for n in range(len(_gates(node))) if not (gated and n == _candidate(node))]


# --- units --------------------------------------------------------------------------------------


def _recurrent_units(trace: Tracing, node: Node) -> Unit:
    """Outputs have the units of their cells; states that are read or given share theirs."""
    call = arguments(node)
    features = trace.axes(call["input"])
    value = trace.balance.restrict(trace.unit(call["input"]), atoms_of(features[-1]))
    states: list[Unit] = []
    memories: list[Unit] = []
    for row in _cells(node, call):
        ends = [_cell_units(trace, node, cell, value) for cell in row]
        states += [state for state, _ in ends]
        memories += [memory for _, memory in ends]
        value = Unit(tuple(part for state, _ in ends for part in state.parts))
    given = _given(call)
    results = [value]
    for number, (initial, units) in enumerate(zip(given, (states, memories), strict=False), 1):
        _share(trace, units, initial, is_read(node, number))
        results.append(units[0])
    return Unit(tuple(part for result in results for part in result.parts))


def _step_units(trace: Tracing, node: Node) -> Unit:
    call = arguments(node)
    features = trace.axes(call["input"])
    value = trace.balance.restrict(trace.unit(call["input"]), atoms_of(features[-1]))
    state, memory = _cell_units(trace, node, _step_cell(call), value)
    given = _given(call)
    for initial, end in zip(given, (state, memory), strict=False):
        _share(trace, [end], initial, read=True)
    return Unit(state.parts + memory.parts) if len(given) > 1 else state


def _share(trace: Tracing, ends: list[Unit], initial: Node, read: bool) -> None:
    """One tensor holds the states of all cells; those that start at zero start at any scale."""
    if name_of(initial) not in ZEROS:
        trace.balance.equal(ends[0], trace.unit(initial))
        read = True
    for end in ends[1:] if read else ():
        trace.balance.equal(ends[0], end)


def _cell_units(trace: Tracing, node: Node, cell: Cell, value: Unit) -> tuple[Unit, Unit]:
    """Units of a cell's output and memory: those of the candidate that it writes to memory.

    The other gates pass through a sigmoid. The candidate passes through tanh, which keeps signs,
    or relu, which keeps positive scales; the memory and the output follow it, at every step.
    """
    candidate = _candidate(node)
    rows = [_end(trace, node, operand, "target") for operand in (cell.into, cell.recurrent)]
    rows += [trace.unit(bias) for bias in cell.biases]
    memory = _gate(rows[0], node, candidate)
    for operand in rows:
        for number in range(len(_gates(node))):
            part = _gate(operand, node, number)
            trace.balance.equal(part, memory if number == candidate else ONE)
    keep = trace.balance.fix_sign if "relu" in name_of(node) else trace.balance.fix_magnitude
    keep(memory)
    state = memory
    if cell.projection is not None:
        trace.balance.fix(memory * _end(trace, node, cell.projection, "source"))
        state = _end(trace, node, cell.projection, "target")
    trace.balance.fix(value * _end(trace, node, cell.into, "source"))
    trace.balance.fix(state * _end(trace, node, cell.recurrent, "source"))
    return state, memory


def _end(trace: Tracing, node: Node, weight: object, port: Port) -> Unit:
    """The scale of one end of a weight; a computed weight has none."""
    use = trace.find_use(node, weight)
    if use is not None:
        return trace.end_scale(use, port)
    trace.balance.fix(trace.unit(weight))
    return ONE


def _gate(rows: Unit, node: Node, number: int) -> Unit:
    """The part of the rows' unit that belongs to one gate."""
    each = len(rows.parts) // len(_gates(node))
    return Unit(rows.parts[number * each : (number + 1) * each]) if each else rows


def _projected(trace: Tracing, node: Node) -> frozenset[Atom]:
    """A sequence is mapped: its features, and a projected state."""
    call = arguments(node)
    cells = [_step_cell(call)] if "w_ih" in call else [c for row in _cells(node, call) for c in row]
    bound = atoms_of(*(trace.axes(cell.into)[0] for cell in cells))
    projected = [trace.axes(cell.projection)[0] for cell in cells if cell.projection is not None]
    return atoms_of(trace.axes(call["input"])[-1], *projected) - bound


_PERMITS = "permutations of hidden units, shared by gates, recurrence and memory; "
RULES = {
    name + suffix: Rule(axes, units, _PERMITS + passes, linear=_projected)
    for suffix, axes, units in (
        ("", _recurrent_axes, _recurrent_units),
        ("_cell", _step_axes, _step_units),
    )
    for name, passes in (
        ("lstm", "signs of the memory"),
        ("gru", "signs of the state"),
        ("rnn_tanh", "signs of the state"),
        ("rnn_relu", "positive scales of the state"),
    )
}
