"""Recurrent layers: one hidden index set for all gates, for the recurrence and for the readers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch.fx import Node

from gmn.spec import Port

from ..axes import Axis, Sum, fix, mark_position, regroup, size_of, unify
from ..tracing import Rule, Tracing, Value, arguments, is_read, name_of, place_of
from ..units import Unit
from .pointwise import fixed_unit

UNIFORM = ("zeros", "ones", "full", "new_zeros", "zeros_like")
GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


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
    """Joins one cell's parameters; returns the axes of its output and of its memory."""
    gates = GATES[name_of(node).removesuffix("_cell")]
    weight, recurrent = trace.axes(cell.into), trace.axes(cell.recurrent)
    size = size_of(weight[0]) // gates
    _, memory = regroup([weight[0]], (gates, size), reason)
    state = memory
    if cell.projection is not None:
        projection = trace.axes(cell.projection)
        unify(projection[1], memory, reason)
        state = projection[0]
        trace.use(cell.projection, node, "weight", ("target", "source"))
    for rows in (recurrent[0], *(trace.axes(bias)[0] for bias in cell.biases)):
        unify(rows, weight[0], reason)
    gate, _ = regroup([weight[0]], (gates, size), reason)
    if gates > 1:
        fix(gate, "gates")
        mark_position(gate)
    unify(values, weight[1], reason)
    unify(recurrent[1], state, reason)
    both: tuple[Port, Port] = ("target", "source")
    for operand in (cell.into, cell.recurrent):
        trace.use(operand, node, "weight", both)
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
    given = call["hx"] if isinstance(call["hx"], (list, tuple)) else [call["hx"]]
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
    biases = tuple(call[name] for name in ("b_ih", "b_hh") if call[name] is not None)
    cell = Cell(call["w_ih"], call["w_hh"], biases, None)
    state, _ = _cell_axes(trace, node, cell, features[-1], reason)
    result = [*features[:-1], state]
    given = call["hx"] if isinstance(call["hx"], (list, tuple)) else [call["hx"]]
    for initial in given:
        if name_of(initial) not in UNIFORM:
            for first, second in zip(trace.axes(initial), result, strict=True):
                unify(first, second, reason)
    return [result, list(result)] if len(given) > 1 else result


def _recurrent_units(trace: Tracing, node: Node) -> Unit:
    """Scales of recurrent layers are not claimed."""
    for operand in _parameters(node):
        name = trace.parameter_name(operand)
        use = trace.find_use(node, operand)
        for port in set(use.ports) if name is not None and use is not None else ():
            trace.balance.fix(trace.scale(name or "", port))
    others = [operand for operand in node.all_input_nodes if trace.parameter_name(operand) is None]
    for operand in others:
        trace.balance.fix(trace.unit(operand))
    return Unit() if others else fixed_unit(trace, node)


def _parameters(node: Node) -> Iterator[Any]:
    call = arguments(node)
    yield from call.get("params", ())
    yield from (call[name] for name in ("w_ih", "w_hh", "b_ih", "b_hh") if name in call)


_PERMITS = "permutations of hidden units, shared by gates, recurrence and memory"
RULES = {
    **{name: Rule(_recurrent_axes, _recurrent_units, _PERMITS) for name in GATES},
    **{f"{name}_cell": Rule(_step_axes, _recurrent_units, _PERMITS) for name in GATES},
}
