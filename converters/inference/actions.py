"""The state of the second pass: how values transform under scales, signs and shifts.

Going forward, a parameter may be multiplied and shifted by unknown functions of its indices. A rule
says how its result moves when its operands do, and what must not move; what it says holds for all
values, so whatever solves the equations at the end leaves the function as it is. Edges are found on
the way: a parameter is a weight where it is summed over with an activation, a bias where it is
added to one.
"""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, TypeAlias

from torch.fx import Node

from gmn.spec import Operation, Port

from .axes import Atom, atoms
from .cells import Cell, cells
from .equations import Key, Maps, Place, System, Term, Terms, Unknown
from .tracing import TraceError, Tracing, Value, name_of, operation_of, path_of

Label: TypeAlias = Hashable
Labels: TypeAlias = "Sequence[Label | None]"
Field: TypeAlias = "Mapping[Key, Terms]"
_MOST = 7  # places of an entry that scales and shifts may depend on all at once


@dataclass(frozen=True)
class EntryOrigin:
    """An entry of the state dict inside a value that was computed from it, entry by entry.

    Attributes:
        entry: its name.
        key: which part of it.
        at: where each of its places runs in the value; None if it was summed over.
    """

    entry: str
    key: Key
    at: tuple[tuple[Place, Place | None], ...]


@dataclass(frozen=True)
class Action:
    """How a value transforms, for every part of it.

    Attributes:
        magnitude: logarithm of the positive factor.
        sign: parity of the factor -1.
        shift: what is added.
        origins: the entries that the value was computed from.
    """

    magnitude: Field = field(default_factory=dict)
    sign: Field = field(default_factory=dict)
    shift: Field = field(default_factory=dict)
    origins: Mapping[Key, tuple[EntryOrigin, ...]] = field(default_factory=dict)


NOTHING = Action()


@dataclass(frozen=True)
class Use:
    """One use of a part of a parameter as edges.

    Attributes:
        parameter: its first name in the state dict.
        key: which part of it; None for all parts.
        kind: what the values do, see :class:`gmn.spec.EdgeSet`.
        node: the operation that reads it.
        operation: the same as data.
        ports: for every dimension of the tensor, which end of the edge it indexes.
        inner: the same for single places, where they differ from their dimension.
        steps: distance between neighbours, for every dimension.
    """

    parameter: str
    key: Key | None
    kind: str
    node: Node
    operation: Operation
    ports: tuple[Port, ...]
    inner: tuple[tuple[Place, Port], ...] = ()
    steps: tuple[float, ...] = ()


class Actions:
    """The actions of all values of a traced program, and the equations between them.

    Args:
        trace: the trace, with axes settled.

    Attributes:
        trace: the same.
        magnitudes: equations between logarithms of positive factors.
        signs: equations between parities.
        shifts: equations between what is added.
        maps: what values make of shifts.
        uses: parameters used as edges, in execution order.
        linear: by operation, the atoms along which it is linear and alike at all other indices.
        conflicts: pairs of factors' shifts that no generator may hold both of.
        phases: by parity of a phase, the shift it belongs to and the step that makes it odd.
        offsets: by entry, a constant that is added before its scale applies.
        entries: by entry of the state dict, the unknown action on it.
        depth: number of weight layers up to each operation.
        operations: parameter-free operations on neurons, in execution order.
    """

    def __init__(self, trace: Tracing) -> None:
        self.trace = trace
        self.magnitudes = System()
        self.signs = System(modulus=2)
        self.maps = Maps()
        self.shifts = System(maps=self.maps)
        self.uses: list[Use] = []
        self.linear: dict[Node, frozenset[Atom]] = {}
        self.conflicts: list[tuple[Field, Field]] = []
        self.phases: dict[Unknown, tuple[Unknown, Fraction]] = {}
        self.offsets: dict[str, float] = {}
        self._actions: dict[Node, Any] = {}
        self._asked: set[Node] = set()
        self._shapes: set[Node] = set()
        self._cells: dict[int, list[Cell]] = {}
        self._kept: list[Value] = []
        self.entries: dict[str, Action] = {}
        self.depth: dict[Node, int] = {}
        self.operations: list[tuple[Operation, Node]] = []

    # --- values ---------------------------------------------------------------------------------

    def cells(self, axes: Value) -> list[Cell]:
        """The parts of a value."""
        result = self._cells.get(id(axes))
        if result is None:
            result = self._cells[id(axes)] = cells(axes)
            self._kept.append(axes)  # its identity is the key
        return result

    def of(self, value: object) -> Action:
        """How an operand transforms; numbers and inputs do not."""
        if not isinstance(value, Node):
            return NOTHING
        self._asked.add(value)
        action = self._actions.get(value, NOTHING)
        return action if isinstance(action, Action) else NOTHING

    def results(self, node: Node) -> Any:
        """How the results of an operation transform: one action, or one for each result."""
        self._asked.add(node)
        return self._actions.get(node, NOTHING)

    def axes(self, value: object) -> Value:
        """Axes of an operand; numbers have none."""
        return self.trace.axes(value)

    def set(self, node: Node, action: Any) -> None:
        """Enters the action of a result, or of several.

        Raises:
            TraceError: if an action ranges over dimensions that the value does not have: the rule
                of the operation is wrong.
        """
        results = action if isinstance(action, list) else [action]
        values = self.trace.values[node] if isinstance(action, list) else [self.trace.values[node]]
        for each, axes in zip(results, values, strict=False):
            if isinstance(each, Action) and each is not NOTHING:
                self._check(node, each, axes)
        self._actions[node] = action

    def _check(self, node: Node, action: Action, axes: Value) -> None:
        """Checks that every term runs over axes that the value has."""
        by_key = {cell.key: cell for cell in self.cells(axes)}
        for channel in (action.magnitude, action.sign, action.shift):
            for key, terms in channel.items():
                cell = by_key.get(key)
                places = set(cell.places) if cell is not None else set()
                for term in terms:
                    if not places.issuperset(term.at) or not self._fits(term, cell):
                        raise TraceError(
                            f"{path_of(node)}: the rule of {name_of(node)} lets a scale or shift "
                            f"of {term.unknown.entry} range over a dimension that its result does "
                            "not have; mend the rule"
                        )

    def _fits(self, term: Term, cell: Cell | None) -> bool:
        if term.mixed or cell is None:
            return True
        own = self._entry_cell(term.unknown.entry, term.unknown.key)
        return all(
            own.atom(slot) is cell.atom(place)
            for slot, place in zip(term.unknown.slots, term.at, strict=True)
        )

    def sizes(self, unknown: Unknown) -> list[int]:
        """The shape of an unknown."""
        cell = self._entry_cell(unknown.entry, unknown.key)
        return [cell.atom(slot).size for slot in unknown.slots]

    def _entry_cell(self, entry: str, key: Key) -> Cell:
        return next(c for c in self.cells(self.trace.parameters[entry]) if c.key == key)

    # --- leaves ---------------------------------------------------------------------------------

    def leaf(self, entry: str, *, scaled: bool, shifted: bool) -> Action:
        """The unknown action on an entry of the state dict; the same for all who read it.

        Args:
            entry: its name.
            scaled: whether it may be multiplied.
            shifted: whether something may be added to it.
        """
        if entry in self.entries:
            return self.entries[entry]
        axes = self.trace.parameters[entry]
        view = self.trace.views.get(entry)
        if view is not None and view.dims is not None:
            self.entries[entry] = self._view_of(entry, view.owner, view.dims, scaled, shifted)
            return self.entries[entry]
        magnitude: dict[Key, Terms] = {}
        sign: dict[Key, Terms] = {}
        shift: dict[Key, Terms] = {}
        origins: dict[Key, tuple[EntryOrigin, ...]] = {}
        for cell in self.cells(axes):
            origins[cell.key] = (EntryOrigin(entry, cell.key, tuple((p, p) for p in cell.places)),)
            places = [p for p in cell.places if cell.atom(p).size > 1]
            neurons = [p for p in places if _is_neuron(cell.atom(p))]
            # One unknown per set of dimensions: what varies along all of them and what varies along
            # a part are independent functions, of which operations let through some and not others.
            unknowns = [Unknown(entry, cell.key, slots) for slots in _subsets(places)]
            if scaled:
                # Taps have no axis, so no scale may vary along them.
                large = [u for u in unknowns if set(u.slots) <= set(neurons)]
                magnitude[cell.key] = sign[cell.key] = {Term(u, u.slots): 1 for u in large}
                for unknown in large:
                    self.magnitudes.declare(unknown)
                    self.signs.declare(unknown)
            if shifted:
                shift[cell.key] = {Term(u, u.slots): 1 for u in unknowns}
                for unknown in unknowns:
                    self.shifts.declare(unknown)
        self.entries[entry] = Action(magnitude, sign, shift, origins)
        return self.entries[entry]

    def settle_phases(self) -> None:
        """Shifts by half periods change signs only where nothing else holds or needs the shift."""
        held: dict[Unknown, int] = {}
        for unknown, followers in self.shifts.solutions().items():
            held[unknown] = len(followers)
        for parity, (shift, _) in self.phases.items():
            if not self.shifts.is_free(shift) or held.get(shift, 0) != 1:
                self.signs.require({Term(parity, parity.slots): 1})
        for shift, _ in self.phases.values():
            action = self.entries[shift.entry]
            self.shifts.require(dict(action.shift.get(shift.key, {})))

    def _view_of(
        self, entry: str, owner: str, dims: tuple[int, ...], scaled: bool, shifted: bool
    ) -> Action:
        """The action of an entry that is a view of another, with its dimensions reordered."""
        whole = self.leaf(owner, scaled=scaled, shifted=shifted)
        where = {dim: position for position, dim in enumerate(dims)}

        def turned(channel: Field) -> Field:
            return {
                turned_key(key, where): {
                    Term(t.unknown, turned_places(t.at, where)): c for t, c in terms.items()
                }
                for key, terms in channel.items()
            }

        own = {
            cell.key: (EntryOrigin(entry, cell.key, tuple((p, p) for p in cell.places)),)
            for cell in self.cells(self.trace.parameters[entry])
        }
        return Action(turned(whole.magnitude), turned(whole.sign), turned(whole.shift), own)

    # --- demands --------------------------------------------------------------------------------

    def pin(self, value: object) -> None:
        """Requires that an operand has neither scales nor shifts."""
        self.pin_action(self.of(value))

    def pin_action(self, action: Action) -> None:
        """Requires that an action is trivial."""
        self.zero(self.magnitudes, action.magnitude)
        self.zero(self.signs, action.sign)
        self.zero(self.shifts, action.shift)

    def pin_all(self, node: Node) -> None:
        """Requires that no operand of an operation has scales or shifts."""
        for operand in node.all_input_nodes:
            for action in flat_actions(self.results(operand)):
                self.pin_action(action)

    def zero(self, system: System, channel: Field) -> None:
        """Requires that a channel vanishes in every part."""
        for terms in channel.values():
            if terms:
                system.require(terms)

    def only_shape(self, *values: object) -> None:
        """States that an operation reads no entry of these operands, only what shape they have."""
        self._asked.update(value for value in values if isinstance(value, Node))
        self._shapes.update(value for value in values if isinstance(value, Node))

    def begin(self) -> None:
        """Forgets which operands were asked for, before the next operation."""
        self._asked.clear()
        self._shapes.clear()

    def overlooked(self, node: Node) -> list[Node]:
        """Operands whose action or axes the rule has not asked for."""
        known = self.trace.asked.get(node, set()) | self._shapes
        return [o for o in node.all_input_nodes if o not in self._asked or o not in known]

    # --- edges ----------------------------------------------------------------------------------

    def use(
        self,
        value: object,
        node: Node,
        kind: str,
        ports: Sequence[Port],
        steps: Sequence[float] = (),
    ) -> None:
        """Records that ``node`` uses an entry itself as edges; other operands are ignored."""
        name = self.trace.parameter_name(value)
        if name is not None and node not in self.trace.static:
            operation = operation_of(node)
            self.uses.append(Use(name, None, kind, node, operation, tuple(ports), (), tuple(steps)))

    def find(
        self,
        value: object,
        node: Node,
        kind: str,
        origins: Mapping[Key, Sequence[EntryOrigin]],
        roles: Mapping[Label, Port],
        direct: Use | None = None,
    ) -> None:
        """Records the entries behind an operand as edges, if it is computed from entries alone.

        Args:
            value: the operand.
            node: the operation that reads it.
            kind: what the values do.
            origins: the entries, with their places by label.
            roles: by label, the end of the edges that it indexes; "both" where none is given.
            direct: the use to record where the operand is an entry itself.
        """
        static = self.trace.static
        if not isinstance(value, Node) or node in static or value not in static:
            return
        if direct is not None and self.trace.parameter_name(value) is not None:
            self.uses.append(direct)
            return
        # An entry may reach the operand on several paths; the one that keeps most of its
        # dimensions says most about what the edges connect.
        best: dict[tuple[str, Key], EntryOrigin] = {}
        for origin in itertools.chain.from_iterable(origins.values()):
            known = best.get((origin.entry, origin.key))
            if known is None or _lost(origin) < _lost(known):
                best[origin.entry, origin.key] = origin
        for origin in best.values():
            self._use_of(origin, node, kind, roles)

    def _use_of(
        self, origin: EntryOrigin, node: Node, kind: str, roles: Mapping[Label, Port]
    ) -> None:
        kept: list[tuple[Place, Port]] = [
            (own, roles.get(place[0], "both")) for own, place in origin.at if place is not None
        ]
        lost = [own for own, place in origin.at if place is None]
        ends = {port for _, port in kept}
        if lost and (kind != "weight" or not kept):
            return  # sums of a parameter are no edges
        if kind == "weight" and not lost and ends <= {"target", "both"} | {"tap"}:
            # A factor of whole rows acts on every neuron by itself.
            kind, kept = "gain", [(own, "both") for own, _ in kept]
        other: Port = "both"
        if kind == "weight":
            # A factor of a weight: what it shares with the other factor is its other end.
            other = "source" if "target" in ends and "source" not in ends else "target"
            other = "tap" if {"target", "source"} <= ends else other
        places = kept + [(own, other) for own in lost]
        rank = len(self.trace.parameters[origin.entry])
        ports = _ports_of_dims(rank, places, kind)
        self.uses.append(
            Use(origin.entry, origin.key, kind, node, operation_of(node), ports, tuple(places), ())
        )


def _lost(origin: EntryOrigin) -> int:
    return sum(place is None for _, place in origin.at)


def _ports_of_dims(rank: int, places: Sequence[tuple[Place, Port]], kind: str) -> tuple[Port, ...]:
    """The port of each dim: that of its first place; for dims of size one, the missing end."""
    by_dim: dict[int, Port] = {}
    for (dim, _), port in places:
        by_dim.setdefault(dim, port)
    if kind != "weight":
        return tuple(by_dim.get(dim, "both") for dim in range(rank))
    missing: list[Port] = [p for p in ("target", "source") if p not in by_dim.values()]
    ports: list[Port] = []
    for dim in range(rank):
        ports.append(by_dim[dim] if dim in by_dim else missing.pop(0) if missing else "tap")
    return tuple(ports)


def _is_neuron(atom: object) -> bool:
    return isinstance(atom, Atom) and not atom.position


def _subsets(places: Sequence[Place]) -> Iterable[tuple[Place, ...]]:
    """All sets of places, large ones first; of very many places, the small sets and the whole."""
    sizes = range(len(places), -1, -1)
    if len(places) > _MOST:
        sizes = (len(places), 2, 1, 0)  # type: ignore[assignment]
    return itertools.chain.from_iterable(itertools.combinations(places, n) for n in sizes)


def flat_actions(results: Any) -> list[Action]:
    """The actions of all results of an operation."""
    if isinstance(results, list):
        return [action for part in results for action in flat_actions(part)]
    return [results]


def turned_places(places: Sequence[Place], where: Mapping[int, int]) -> tuple[Place, ...]:
    """Places after dimensions were reordered: where each of them is now."""
    return tuple((where[dim], k) for dim, k in places)


def turned_key(key: Key, where: Mapping[int, int]) -> Key:
    """A key after dimensions were reordered."""
    return tuple(sorted((where[dim], n) for dim, n in key))


def merge_origins(
    *operands: Mapping[Key, tuple[EntryOrigin, ...]],
) -> dict[Key, tuple[EntryOrigin, ...]]:
    """The entries behind several operands, part by part."""
    result: dict[Key, tuple[EntryOrigin, ...]] = {}
    for origins in operands:
        if not origins:
            continue
        if not result:
            result = dict(origins)
            continue
        result = {
            tuple(sorted({*a, *b})): one + other
            for a, one in result.items()
            for b, other in origins.items()
            if compatible(a, b)
        }
    return result


def is_repeated(axes: Value) -> frozenset[Atom]:
    """Atoms that several dimensions of a value range over."""
    seen: set[Atom] = set()
    twice: set[Atom] = set()
    for axis in axes:
        own = {a for a in atoms(axis) if a.size > 1}
        twice |= own & seen
        seen |= own
    return frozenset(twice)


def compatible(one: Key, other: Key) -> bool:
    """Whether two keys mean parts that meet: they choose alike where both choose."""
    chosen = dict(other)
    return all(chosen.get(label, n) == n for label, n in one)
