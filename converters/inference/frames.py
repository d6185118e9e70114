"""Frames: the joint index space of one operation, in which operands and results have labels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import Any

from torch.fx import Node

from .actions import Action, Actions, EntryOrigin, Field, Label, Labels, compatible
from .axes import Atom, atoms
from .cells import Cell, is_small
from .equations import Key, Place, System, Term, Terms, add
from .tracing import Value


@dataclass(frozen=True)
class Member:
    """An operand in the index space of an operation.

    Attributes:
        value: the operand.
        given: a label for every dimension; None for one that is broadcast or of no matter.
        axes: its dimensions, if they are grouped otherwise than in the program.
        action: its action, in those dimensions.
    """

    value: object
    given: Labels
    axes: Value
    action: Action

    @cached_property
    def labels(self) -> Labels:
        """Labels of the dimensions of more than one index."""
        return _without_small(self.given, self.axes)


class Frame:
    """The index space of one operation: dimensions of operands and results with one label are one.

    Where operands or results do not agree in what a labelled dimension ranges over, nothing may
    move along it.

    Args:
        actions: the actions of all values.
        node: the operation.
        operands: its operands, with a label for every dimension; None for one that is broadcast.
        results: the axes of results, labelled likewise; by default the one of the node.
    """

    def __init__(
        self,
        actions: Actions,
        node: Node,
        operands: Sequence[tuple[object, Labels] | Member],
        result: Labels,
        axes: Value | None = None,
    ) -> None:
        self.actions = actions
        self.node = node
        self.result_axes = actions.trace.values[node] if axes is None else axes
        self.result = _without_small(result, self.result_axes)
        self.members = [
            o if isinstance(o, Member) else Member(o[0], o[1], actions.axes(o[0]), actions.of(o[0]))
            for o in operands
        ]
        self.broken = self._broken()

    def _broken(self) -> set[Label]:
        broken: set[Label] = set()
        every = [(m.axes, m.labels) for m in self.members] + [(self.result_axes, self.result)]
        first: dict[Label, tuple[list[Cell], Labels]] = {}
        for axes, labels in every:
            parts = self.actions.cells(axes)
            for label in labels:
                if label is None:
                    continue
                if list(labels).count(label) > 1:
                    broken.add(label)
                known = first.setdefault(label, (parts, labels))
                same = known[0] is parts and known[1] == labels
                if not same and not _agree(known, (parts, labels), label):
                    broken.add(label)
        return broken

    # --- operands -------------------------------------------------------------------------------

    def take(self, operand: int) -> Action:
        """An operand's action, its places named by labels.

        Scales and shifts along ambiguous dimensions are forbidden.
        """
        member = self.members[operand]
        systems = self.actions
        return Action(
            self._take(member, member.action.magnitude, systems.magnitudes),
            self._take(member, member.action.sign, systems.signs),
            self._take(member, member.action.shift, systems.shifts),
            self.origins(operand),
        )

    def _take(self, member: Member, channel: Field, system: System) -> Field:
        if not channel:
            return {}
        result: dict[Key, Terms] = {}
        for cell in self.actions.cells(member.axes):
            terms = channel.get(cell.key)
            kept, lost = self._split(member, terms or {})
            if lost:
                system.require(lost)
            key = self.key(member.labels, cell.key)
            if key in result:
                difference = add(result[key], kept, -1)
                if difference:
                    system.require(difference)
            else:
                result[key] = kept
        return result

    def _split(self, member: Member, terms: Terms) -> tuple[Terms, Terms]:
        kept: dict[Term, Fraction | int] = {}
        lost: dict[Term, Fraction | int] = {}
        for term, coefficient in terms.items():
            labels = [member.labels[dim] for dim, _ in term.at]
            if any(label is None or label in self.broken for label in labels):
                lost[term] = coefficient
            else:
                at = tuple((label, k) for label, (_, k) in zip(labels, term.at, strict=True))
                kept[Term(term.unknown, at, term.mixed)] = coefficient  # type: ignore[arg-type]
        return kept, lost

    def key(self, labels: Labels, key: Key) -> Key:
        """A part of a value with these labels, by label."""
        named = [(labels[dim], n) for dim, n in key]
        kept = [(label, n) for label, n in named if label is not None and label not in self.broken]
        return tuple(sorted(kept))  # type: ignore[arg-type]

    def origins(self, operand: int) -> Mapping[Key, tuple[EntryOrigin, ...]]:
        """The entries behind an operand, their places named by labels."""
        member = self.members[operand]
        result: dict[Key, tuple[EntryOrigin, ...]] = {}
        for key, origins in member.action.origins.items():
            new = self.key(member.labels, key)
            named = tuple(
                replace(
                    origin,
                    at=tuple((own, self._named(member.labels, place)) for own, place in origin.at),
                )
                for origin in origins
            )
            result[new] = result.get(new, ()) + named
        return result

    def _named(self, labels: Labels, place: Place | None) -> Place | None:
        label = None if place is None else labels[place[0]]
        if place is None or label is None or label in self.broken:
            return None
        return label, place[1]  # type: ignore[return-value]

    def places(self, operand: int, key: Key) -> set[Place]:
        """Where an operand varies, by label, in the part that a key means."""
        member = self.members[operand]
        result: set[Place] = set()
        for cell in self.actions.cells(member.axes):
            if compatible(self.key(member.labels, cell.key), key):
                for dim, k in cell.places:
                    label = member.labels[dim]
                    result.add((label, k))  # type: ignore[arg-type]
        for n in member.labels:
            if n is not None and n in self.broken:
                result.add((n, 0))  # type: ignore[arg-type]
        return {place for place in result if place[0] is not None}

    # --- the result -----------------------------------------------------------------------------

    def give(self, action: Action) -> Action:
        """The action of the result, from one whose places are named by labels."""
        systems = self.actions
        return Action(
            self._give(action.magnitude, systems.magnitudes),
            self._give(action.sign, systems.signs),
            self._give(action.shift, systems.shifts),
            self._give_origins(action.origins) if self.node in systems.trace.static else {},
        )

    def _give(self, channel: Field, system: System) -> Field:
        result: dict[Key, Terms] = {}
        if not any(channel.values()):
            return result
        dims = {label: dim for dim, label in enumerate(self.result) if label is not None}
        for cell in self.actions.cells(self.result_axes):
            key = self.key(self.result, cell.key)
            merged: Terms | None = None
            for own, terms in channel.items():
                if not compatible(own, key):
                    continue
                terms = system.reduce(terms)
                bad = {
                    t: c
                    for t, c in terms.items()
                    if any(label not in dims or label in self.broken for label, _ in t.at)
                }
                if bad:
                    system.require(bad)
                    terms = {t: c for t, c in terms.items() if t not in bad}
                if merged is None:
                    merged = terms
                elif difference := add(merged, terms, -1):
                    system.require(difference)
            if merged:
                result[cell.key] = {_at(t, dims, cell): c for t, c in system.reduce(merged).items()}
        return result

    def _give_origins(
        self, origins: Mapping[Key, tuple[EntryOrigin, ...]]
    ) -> Mapping[Key, tuple[EntryOrigin, ...]]:
        dims = {label: dim for dim, label in enumerate(self.result) if label is not None}
        result: dict[Key, tuple[EntryOrigin, ...]] = {}
        for cell in self.actions.cells(self.result_axes):
            key = self.key(self.result, cell.key)
            kept: list[EntryOrigin] = []
            for own, each in origins.items():
                if compatible(own, key):
                    kept += [
                        replace(
                            o,
                            at=tuple(
                                (p, (dims[q[0]], q[1]) if q is not None and q[0] in dims else None)
                                for p, q in o.at
                            ),
                        )
                        for o in each
                    ]
            if kept:
                result[cell.key] = tuple(dict.fromkeys(kept))
        return result

    def atoms_at(self, labels: Iterable[Label]) -> frozenset[Atom]:
        """What the dimensions with these labels range over."""
        chosen = set(labels)
        every = [(m.axes, m.labels) for m in self.members] + [(self.result_axes, self.result)]
        return frozenset(
            atom
            for axes, given in every
            for axis, label in zip(axes, given, strict=True)
            if label is not None and label in chosen
            for atom in atoms(axis)
            if atom.size > 1
        )


def _at(term: Term, dims: Mapping[Label, int], cell: Cell) -> Term:
    """A term with dimensions in place of labels; what is opaque varies over what there is."""
    at = tuple((dims[label], k) for label, k in term.at)
    if term.mixed:
        at = tuple(place for place in at if place[1] < len(cell.atoms[place[0]]))
    return Term(term.unknown, at, term.mixed)


def _without_small(labels: Labels, axes: Value) -> Labels:
    """Dimensions of one index have no label: nothing varies along them."""
    return tuple(
        None if is_small(axis) else label for label, axis in zip(labels, axes, strict=True)
    )


def _agree(one: tuple[list[Cell], Labels], other: tuple[list[Cell], Labels], label: Label) -> bool:
    """Whether two values range over the same atoms, part by part, along a labelled dimension."""
    (first, labels), (second, others) = one, other
    dim, other_dim = list(labels).index(label), list(others).index(label)
    if _numbers(first, dim) != _numbers(second, other_dim):
        return False
    if not first or not second:
        return True
    shared = _chosen(first[0], labels).keys() & _chosen(second[0], others).keys()
    here, there = _runs(first, labels, dim, shared), _runs(second, others, other_dim, shared)
    return all(len(here[key] | there[key]) == 1 for key in here.keys() & there.keys())


def _chosen(cell: Cell, labels: Labels) -> dict[Label, int]:
    """The terms that a part has, by label."""
    return {labels[d]: n for d, n in cell.key if labels[d] is not None}


def _runs(
    parts: Sequence[Cell], labels: Labels, dim: int, shared: set[Label]
) -> dict[tuple[int, ...], set[Any]]:
    """The atoms along a dimension, by the terms chosen on labels that another value shares."""
    result: dict[tuple[int, ...], set[Any]] = {}
    for cell in parts:
        chosen = _chosen(cell, labels)
        result.setdefault(tuple(chosen[s] for s in shared), set()).add(cell.atoms[dim])
    return result


def _numbers(parts: Sequence[Cell], dim: int) -> set[int]:
    return {n for cell in parts for d, n in cell.key if d == dim}


def join(
    first: Mapping[Key, Any], second: Mapping[Key, Any], combine: Callable[[Any, Any], Any]
) -> dict[Key, Any]:
    """All parts of two values that meet, combined; a value without parts is nothing everywhere."""
    result: dict[Key, Any] = {}
    for one, a in (first or {(): {}}).items():
        for other, b in (second or {(): {}}).items():
            if compatible(one, other):
                result[tuple(sorted({*one, *other}))] = combine(a, b)
    return result
