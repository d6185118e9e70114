"""Converts an exported graph to a gmn Program, with the values to observe at each node set."""

from __future__ import annotations

import json
import operator
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor
from torch.export.graph_signature import InputKind
from torch.fx import Node

from gmn.spec import EdgeSet, StateEntry
from gmn.spec.program import (
    DEFAULT,
    Call,
    Constant,
    Factor,
    Input,
    Lookup,
    Observation,
    Program,
    Side,
)

from ..inference.actions import Actions
from ..inference.axes import Atom, Axis, Sum, atoms, resolve, size_of
from ..inference.equations import Terms, Unknown
from ..inference.solutions import Generator, generators
from ..inference.tracing import Tracing, flat_axes
from .blocks import Block, NodeKey
from .names import Names

LARGEST = 4096  # numbers in a constant that a program brings along
BESIDE = ("placeholder", "output")


# By unknown, the indices of the generators that move it, with their coefficients.
Movers = dict[Unknown, list[tuple[int, "Fraction | int"]]]


class _Unfit(Exception):
    """The graph holds something that a :class:`gmn.spec.program.Program` cannot express."""


def program_of(
    exported: torch.export.ExportedProgram,
    actions: Actions,
    entries: Sequence[StateEntry],
    pairs: Sequence[tuple[EdgeSet, Block]],
    names: Names,
) -> Program | None:
    """The forward function as data.

    None if the graph holds operations that are not torch's own, inputs that are not tensors, or
    constants of more than 4,096 numbers: such a network converts all the same, but cannot be run
    from its spec.
    """
    owners = {entry.name: entry.tied_to or entry.name for entry in entries}
    inputs: list[Input] = []
    lookups: list[Lookup] = []
    constants: list[Constant] = []
    try:
        for node, spec in _placeholders(exported):
            if spec.kind == InputKind.USER_INPUT:
                inputs.append(_input(node))
            elif spec.target in owners:
                lookups.append(Lookup(node.name, owners[spec.target]))
            elif node.users:
                constants.append(_constant(node, exported.constants.get(spec.target)))
        calls = tuple(
            _call(n) for n in exported.graph.nodes if n.op not in ("placeholder", "output")
        )
    except _Unfit:
        return None
    observations = dict.fromkeys([*_read(actions, pairs), *_left(exported, actions.trace, names)])
    return Program(tuple(inputs), tuple(lookups), tuple(constants), calls, tuple(observations))


def _placeholders(exported: torch.export.ExportedProgram) -> Iterator[tuple[Node, Any]]:
    specs = {spec.arg.name: spec for spec in exported.graph_signature.input_specs}
    for node in exported.graph.nodes:
        if node.op == "placeholder":
            yield node, specs[node.name]


def _input(node: Node) -> Input:
    value = node.meta.get("val")
    if not isinstance(value, Tensor):
        raise _Unfit
    return Input(node.name, tuple(map(int, value.shape)), _name(value.dtype))


def _constant(node: Node, value: object) -> Constant:
    if not isinstance(value, Tensor) or value.is_meta or value.numel() > LARGEST:
        raise _Unfit
    return Constant(node.name, _name(value.dtype), json.dumps(value.tolist()))


def _name(dtype: torch.dtype) -> str:
    return DEFAULT if dtype.is_floating_point else str(dtype).removeprefix("torch.")


def _call(node: Node) -> Call:
    if node.op != "call_function":
        raise _Unfit
    arguments = json.dumps([_say(list(node.args)), _say(dict(node.kwargs))])
    if node.target is operator.getitem:
        return Call(node.name, "getitem", arguments)
    if not isinstance(node.target, torch._ops.OpOverload) or node.target.namespace != "aten":
        raise _Unfit
    name = node.target.name().removeprefix("aten::").partition(".")[0]
    return Call(node.name, f"{name}.{node.target._overloadname}", arguments)


def _say(item: Any) -> Any:
    """An argument as JSON."""
    if item is None or isinstance(item, (bool, int, float, str)):
        return item
    if isinstance(item, Node):
        return {"value": item.name}
    if isinstance(item, (list, tuple)):
        return [_say(part) for part in item]
    if isinstance(item, dict):
        return {key: _say(part) for key, part in item.items()}
    if isinstance(item, torch.dtype):
        return {"dtype": _name(item)}
    if isinstance(item, torch.device):
        return {"device": "run"}
    if isinstance(item, (torch.layout, torch.memory_format)):
        return None
    raise _Unfit


# --- where the values of neurons can be seen ----------------------------------------------------


def _read(actions: Actions, pairs: Sequence[tuple[EdgeSet, Block]]) -> Iterator[Observation]:
    """The values that blocks of weights read, each once."""
    trace = actions.trace
    claimed = _held(generators(actions.magnitudes)), _held(generators(actions.signs, 2))
    observed: set[tuple[str, str, tuple[Side, ...]]] = set()
    for edges, block in pairs:
        if edges.diagonal or block.use.kind != "weight":
            continue
        for operand in block.use.node.all_input_nodes:
            if operand.op == "placeholder" or operand in trace.static:
                continue
            sides = _sides(trace.values[operand], block.source)
            if sides is None or not _carries(actions, operand, block, claimed):
                continue
            if (operand.name, edges.source, sides) not in observed:
                observed.add((operand.name, edges.source, sides))
                yield Observation(operand.name, edges.source, edges.name, sides)


def _carries(actions: Actions, operand: Node, block: Block, claimed: Sequence[Movers]) -> bool:
    """Whether the value has the unit that the weights expect of their source, and no more."""
    source = set(block.source)
    action = actions.of(operand)
    cells = {cell.key: cell for cell in actions.cells(actions.axes(operand))}
    for system, channel, generators_, modulus in (
        (actions.magnitudes, action.magnitude, claimed[0], None),
        (actions.signs, action.sign, claimed[1], 2),
    ):
        for key, terms in channel.items():
            own = {place for place in cells[key].places if cells[key].atom(place) in source}
            rest = {t: c for t, c in system.reduce(terms).items() if set(t.at) != own or not own}
            if not own and not any(atom.size == 1 for atom in source):
                continue  # a part that holds other neurons
            if any(not own.issuperset(t.at) for t in rest) or _moves(rest, generators_, modulus):
                return False
    return True


def _held(claimed: Sequence[Generator]) -> Movers:
    movers: Movers = {}
    for index, generator in enumerate(claimed):
        for (unknown, *_), coefficient in generator.terms.items():
            movers.setdefault(unknown, []).append((index, coefficient))
    return movers


def _moves(terms: Terms, movers: Movers, modulus: int | None) -> bool:
    """Whether a generator moves a value by what is alike for all neurons of its source."""
    totals: dict[int, Fraction | int] = {}
    for term, coefficient in terms.items():
        for index, own in movers.get(term.unknown, ()):
            totals[index] = totals.get(index, 0) + coefficient * own
    return any(total % modulus if modulus else total for total in totals.values())


def _left(
    exported: torch.export.ExportedProgram, trace: Tracing, names: Names
) -> Iterator[Observation]:
    """The outputs of the network."""
    output = next(node for node in exported.graph.nodes if node.op == "output")
    for operand in output.all_input_nodes:
        value = trace.values[operand]
        if operand.op == "placeholder" or operand in trace.static:
            continue
        present = frozenset(a for axis in flat_axes(value) for a in atoms(axis))
        for key in names.node_sets_on(present):
            sides = _sides(value, key)
            if sides is not None:
                yield Observation(operand.name, names.node_set(key), None, sides)


def _sides(value: Any, key: NodeKey) -> tuple[Side, ...] | None:
    """How a value ranges over a node set; None if it does not, or not once and in one place."""
    if not isinstance(value, list) or any(isinstance(part, list) for part in value):
        return None
    sides = [_side(resolve(axis), key) for axis in value]
    if any(side is None for side in sides):
        return None
    axes = [f.axis for side in sides if side for f in side.factors if f.axis is not None]
    expected = [index for index, atom in enumerate(key) if atom.size > 1]
    large = [axis for axis in axes if key[axis].size > 1]
    return tuple(side for side in sides if side) if sorted(large) == expected else None


def _side(axis: Axis, key: NodeKey) -> Side | None:
    """A dimension; of a concatenation, the part that ranges over the node set."""
    start = 0
    if len(axis) == 1 and isinstance(axis[0], Sum):
        for term in axis[0].terms:
            part = resolve(term)
            if any(atom in key for atom in atoms(part)):
                axis = part
                break
            start += size_of(part)
    if any(isinstance(factor, Sum) for factor in axis):
        return (
            None if any(a in key for a in atoms(axis)) else Side(0, (Factor(size_of(axis), None),))
        )
    if any(not atom.fixed and atom.size > 1 and atom not in key for atom in atoms(axis)):
        return None  # other neurons, with scales of their own
    factors = tuple(
        Factor(factor.size, key.index(factor) if factor in key else None)
        for factor in axis
        if isinstance(factor, Atom)
    )
    return Side(start, factors)
