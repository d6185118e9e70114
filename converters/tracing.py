"""The state of one trace: what every value of the exported graph ranges over, and its unit.

A rule sees a :class:`Tracing` twice: first to state what its operation does to axes, then, once all
axes are known, what it does to units.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Node

from gmn.spec import Operation, Port

from . import units
from .axes import Atom, Axis, atoms, fix, fixed, repeated, size_of, terms, without
from .units import ONE, Balance, Unit, Unknown

Value = list[Axis]

# Arguments that change how an operation runs, not what it computes.
_SILENT = {
    "training",
    "momentum",
    "cudnn_enabled",
    "cudnn_enable",
    "use_input_stats",
    "inplace",
    "train",
    "module",
    "call",
}


_OTHER_END: dict[Port, Port] = {
    "target": "source",
    "source": "target",
    "both": "both",
    "tap": "tap",
}


class TraceError(ValueError):
    """A module cannot be traced; the message says where and what to do."""


@dataclass(frozen=True)
class Use:
    """One use of a parameter as edges.

    Attributes:
        parameter: its first name in the state dict.
        kind: what the values do, see :class:`gmn.spec.EdgeSet`.
        node: the operation that reads it.
        operation: the same as data.
        ports: for every dimension of the tensor, which end of the edge it indexes.
        shared: the part of the target that also indexes the source (the groups of a convolution).
        steps: distance between neighbours, for every dimension.
    """

    parameter: str
    kind: str
    node: Node
    operation: Operation
    ports: tuple[Port, ...]
    shared: Axis = ()
    steps: tuple[float, ...] = ()

    @property
    def ends(self) -> tuple[Port, ...]:
        """The ports, up to exchanging source and target where nothing tells them apart."""
        turned = tuple(_OTHER_END[port] for port in self.ports)
        return self.ports if self.shared else min(self.ports, turned)


@dataclass(frozen=True)
class Rule:
    """What one operation does to axes and to units.

    Attributes:
        axes: returns the axes of the result, after stating what the operands have in common; None
            if it cannot say, which makes them ordered.
        units: returns the unit of the result, after stating what the operands' units must be.
        permits: the permutations and scalings that pass through, in words.
        linear: the atoms along which it acts linearly, alike at all other indices, so that any
            change of basis passes through; by default none.
        recorded: whether it is an operation on neurons that the spec should mention.
    """

    axes: Callable[[Tracing, Node], Any]
    units: Callable[[Tracing, Node], Unit]
    permits: str
    recorded: bool = False
    linear: Callable[[Tracing, Node], frozenset[Atom]] | None = None


class Tracing:
    """Axes, units and parameter uses of an exported graph.

    Attributes:
        values: axes of every tensor, by graph node; lists of them for several results.
        parameters: axes of every parameter and statistic, by state-dict name.
        uses: parameters used as edges, in execution order.
        operations: parameter-free operations on neurons, in execution order.
        depth: number of weight layers up to each node.
        contractions: axes that products are summed over, see :meth:`contract`.
        mixed: what is left of values whose entries an operation puts together, see :meth:`mix`.
        unknown: operations without a rule that covers them.
        static: values that depend on parameters and constants only.
        phases: by parity of a phase, the bias that shifts it and the shift that makes it odd.
        read: parameters that some operation reads.
        balance: the equations between units.
    """

    def __init__(self) -> None:
        self.values: dict[Node, Any] = {}
        self.parameters: dict[str, Value] = {}
        self.uses: list[Use] = []
        self._uses_of: dict[str, list[Use]] = {}
        self.operations: list[tuple[Operation, Node]] = []
        self.depth: dict[Node, int] = {}
        self.balance = Balance()
        self._names: dict[Node, str] = {}
        self._units: dict[Node, Unit] = {}
        self._scales: dict[tuple[str, Port], Unit] = {}
        self.offsets: dict[str, float] = {}
        self.contractions: list[tuple[Axis, tuple[Axis, ...]]] = []
        self.mixed: list[Value] = []
        self.unknown: set[Node] = set()
        self.static: set[Node] = set()
        self._origins: dict[Node, str] = {}
        self.read: set[str] = set()
        self.phases: dict[Unknown, tuple[str, float]] = {}

    # --- axes -----------------------------------------------------------------------------------

    def add_parameter(self, node: Node, name: str, shape: Sequence[int]) -> None:
        """Enters a parameter placeholder; tied placeholders share their axes."""
        if name not in self.parameters:
            self.parameters[name] = [(Atom(size),) for size in shape]
        self._names[node] = name
        self.values[node] = self.parameters[name]

    def derive(self, node: Node) -> None:
        """Notes which parameter a computed weight stands for: the first one of its axes."""
        for operand in node.all_input_nodes:
            name = self._names.get(operand) or self._origins.get(operand)
            if name is not None and self.values[node] == self.parameters[name]:
                self._origins.setdefault(node, name)

    def axes(self, value: object) -> Value:
        """Axes of an operand; numbers have none."""
        return self.values[value] if isinstance(value, Node) else []

    def parameter_name(self, value: object) -> str | None:
        """State-dict name of an operand that is itself a parameter."""
        return self._names.get(value) if isinstance(value, Node) else None

    def contract(self, axis: Axis, aligned: Sequence[Axis] = ()) -> None:
        """Records a sum over an axis of products whose factors agree in the axes ``aligned``.

        Its permutation may depend on those only: along other axes the factors differ.
        """
        self.contractions.append((axis, tuple(aligned)))

    def mix(self, value: Value, along: Iterable[Atom]) -> None:
        """Records that an operation puts entries of a value at all indices of some atoms together.

        What else the value ranges over must be permuted alike at all of these indices, even where
        the result ranges over them, too, as after a softmax, or after a residual connection.
        """
        gone = set(along)
        self.mixed.append([without(axis, gone) for axis in value])

    def use(
        self,
        value: object,
        node: Node,
        kind: str,
        ports: tuple[Port, ...],
        shared: Axis = (),
        steps: tuple[float, ...] = (),
    ) -> None:
        """Records that ``node`` uses a parameter as edges; other operands are ignored.

        A weight computed from a parameter of its shape (by weight normalisation, say) stands for
        that parameter; the computation itself is no use of it.
        """
        name = self.parameter_name(value)
        if name is None and isinstance(value, Node):
            name = self._origins.get(value)
        computing = node in self.static and set(ports) == {"both"}
        if name is not None and not computing:
            self.add_use(Use(name, kind, node, operation_of(node), ports, shared, steps))

    def add_use(self, use: Use) -> None:
        """Enters a use of a parameter as edges."""
        self.uses.append(use)
        self._uses_of.setdefault(use.parameter, []).append(use)

    def uses_of(self, name: str) -> list[Use]:
        """The uses of one parameter, in execution order."""
        return self._uses_of.get(name, [])

    def opaque(self, node: Node, reason: str) -> Any:
        """Axes of an operation that may tell all positions apart, for want of a rule."""
        self.unknown.add(node)
        result = _fresh(node.meta.get("val"), reason)
        for operand in node.all_input_nodes:
            axes = flat_axes(self.values.get(operand, []))
            for axis in axes:
                fix(axis, reason)
            if axes and [size_of(a) for a in axes] == [*map(size_of, flat_axes(result))]:
                result = axes  # most likely the same neurons; fixed, so claiming it is harmless
        return result

    # --- units ----------------------------------------------------------------------------------

    def unit(self, value: object) -> Unit:
        """Unit of an operand; numbers and inputs have unit 1."""
        if not isinstance(value, Node):
            return ONE
        name = self.parameter_name(value)
        return self._units.get(value, ONE) if name is None else self.scale(name, "both")

    def set_unit(self, node: Node, unit: Unit) -> None:
        """Sets the unit of a result; where it is a concatenation, with one part per term.

        The parts of several results follow one another.
        """
        value = self.values[node]
        count = sum(map(count_terms, value)) if _is_nested(value) else count_terms(value)
        if len(unit.parts) not in (1, count):
            unit = self.balance.merge(unit)
        if any(part.unknowns() for part in unit.parts):
            unit = self._unambiguous(unit, value if _is_nested(value) else [value])
        self._units[node] = unit

    def _unambiguous(self, unit: Unit, values: Sequence[Value]) -> Unit:
        """The unit, made to vary only over atoms that stand in one place of every value."""
        twice = frozenset[Atom]().union(*map(repeated, values))
        if not twice:
            return unit
        present = atoms_of(*(axis for value in values for axis in value))
        return self.balance.restrict(unit, present - twice)

    def unit_of_result(self, node: Node, number: int) -> Unit:
        """Unit of one of several results."""
        unit, results = self.unit(node), self.values[node]
        if len(unit.parts) == 1 or not _is_nested(results):
            return unit
        start = sum(map(count_terms, results[:number]))
        return Unit(unit.parts[start : start + count_terms(results[number])])

    def scale(self, name: str, port: Port) -> Unit:
        """The unknown scale of one end of a parameter, as a unit.

        It has one part per term of that end's axis. Ends with several concatenated dimensions have
        none of their own.
        """
        if (name, port) not in self._scales:
            own, shared = self._end(name, port)
            parts = [part for part in ([terms(axis) for axis in own]) if len(part) > 1]
            if len(parts) > 1:
                return ONE
            plain = [axis for axis in own if len(terms(axis)) == 1]
            choices = parts[0] if parts else [()]
            barred = repeated(own) | {a for axis in own for a in atoms(axis) if a.unmatched}
            self._scales[name, port] = units.of(
                *(
                    Unknown(atoms_of(*plain, choice, shared) - barred, name, port, number)
                    for number, choice in enumerate(choices)
                )
            )
        return self._scales[name, port]

    def end_scale(self, use: Use, end: Port) -> Unit:
        """The unknown scale of one end of a parameter in this use.

        A use that reads the parameter the other way round (a tied embedding) shares its scales.
        """
        first = self.uses_of(use.parameter)[0]
        turned = first.ports != use.ports and first.ends == use.ends
        return self.scale(use.parameter, _OTHER_END[end] if turned else end)

    def _end(self, name: str, port: Port) -> tuple[list[Axis], Axis]:
        axes = self.parameters[name]
        if port == "both":
            return list(axes), ()
        use = next(use for use in self.uses_of(name) if port in use.ports)
        own = [axis for p, axis in zip(use.ports, axes, strict=True) if p == port]
        return own, use.shared

    def ports_of_scales(self) -> dict[str, set[Port]]:
        """By parameter, the ends whose scales were asked for."""
        result: dict[str, set[Port]] = {}
        for name, port in self._scales:
            result.setdefault(name, set()).add(port)
        return result

    def scales(self) -> list[Unknown]:
        """All unknown scales of parameters, in the order of their first use."""
        return [u for unit in self._scales.values() for part in unit.parts for u in part.unknowns()]

    def parity(self, bias: str, shift: float) -> Unit:
        """The sign that a periodic function gets when a bias is shifted by half a period."""
        atoms_ = atoms_of(*self.parameters[bias])
        known = (u for u, found in self.phases.items() if found == (bias, shift))
        unknown = next(known, None) or Unknown(atoms_, phase=True)
        self.phases[unknown] = (bias, shift)
        return units.of(unknown).sign

    def find_use(self, node: Node, value: object) -> Use | None:
        """How ``node`` uses an operand as edges, if it does."""
        name = self.parameter_name(value)
        return next((use for use in self.uses_of(name or "") if use.node is node), None)


def _is_nested(value: Any) -> bool:
    return bool(value) and isinstance(value[0], list)


def stacked(value: Value) -> int:
    """Number of parts that a value is taken apart into later; 0 if it is not."""
    return max((len(atom.copies) for axis in value for atom in atoms(axis)), default=0)


def count_terms(value: Value) -> int:
    """Number of terms of the value's concatenated dimension; 1 if there is none, or several.

    A value that is taken apart later counts as the concatenation of its parts.
    """
    if count := stacked(value):
        return count
    counts = [len(terms(axis)) for axis in value]
    return max(counts, default=1) if sum(count > 1 for count in counts) == 1 else 1


def flat_axes(value: Any) -> list[Axis]:
    """All axes of a value or of a nested sequence of values."""
    if value and isinstance(value[0], list):
        return [axis for part in value for axis in flat_axes(part)]
    return list(value)


def _fresh(meta: Any, reason: str) -> Any:
    if isinstance(meta, torch.Tensor):
        return [fixed(int(size), reason) for size in meta.shape]
    if isinstance(meta, (list, tuple)):
        return [_fresh(part, reason) for part in meta]
    return []


def atoms_of(*axes: Axis) -> frozenset[Atom]:
    """What units can vary over along these axes: their atoms of more than one index."""
    return frozenset(atom for axis in axes for atom in atoms(axis) if atom.size > 1)


def shape_of(node: Node) -> tuple[int, ...]:
    """Shape of the node's tensor, or of its first one, in the example run."""
    value = node.meta["val"]
    first = value[0] if isinstance(value, (list, tuple)) else value
    return tuple(int(size) for size in first.shape)


def place_of(node: Node) -> str:
    """Dotted path of the module that runs the operation; ``model`` for the model itself."""
    stack = node.meta.get("nn_module_stack") or {}
    return str(list(stack.values())[-1][0] if stack else "") or "model"


def name_of(node: Node) -> str:
    """Name of the operation, without namespace, overload and in-place underscore."""
    target = node.target
    if target is torch.ops.graph_metanetworks.leaf.default:
        return str(node.args[1])
    name = getattr(target, "_opname", None) or getattr(target, "__name__", str(target))
    return str(name).rstrip("_") if not str(name).startswith("_") else str(name)


def is_inplace(node: Node) -> bool:
    """Whether the operation overwrites its first operand."""
    name = str(getattr(node.target, "_opname", ""))
    return name.endswith("_") and not name.startswith("_")


def is_read(node: Node, number: int) -> bool:
    """Whether anything reads this one of the operation's results."""
    return any(user.users for user in node.users if user.args[1:] == (number,))


def arguments(node: Node) -> dict[str, Any]:
    """Arguments of the operation by name, defaults included."""
    schema = node.target._schema  # type: ignore[union-attr]
    result = {}
    for position, argument in enumerate(schema.arguments):
        if position < len(node.args):
            result[argument.name] = node.args[position]
        elif argument.name in node.kwargs:
            result[argument.name] = node.kwargs[argument.name]
        elif argument.has_default_value():
            result[argument.name] = argument.default_value
    return result


def operation_of(node: Node) -> Operation:
    """The operation as data: its name and the numbers among its arguments."""
    name, found = name_of(node), []
    for key, value in arguments(node).items():
        if key in _SILENT:
            continue
        numbers = value if isinstance(value, (list, tuple)) else [value]
        if isinstance(value, str) and value != "none":
            name = f"{name}_{value}"
        elif numbers and all(isinstance(v, (int, float)) for v in numbers):
            found.append((key, tuple(float(v) for v in numbers)))
    return Operation(name, tuple(sorted(found)))
