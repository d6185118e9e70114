"""Finds weights and averages that carry a constant added before them to the next bias.

A shift of what a linear layer reads is one of what it writes: the weight times the shift. What of
the operands decides the map is one part of an entry, entry by entry as it is, so the map is known
(:class:`converters.inference.equations.Carrier`). An average along a dimension, such as the
values that a softmax weighs, keeps what is alike along it.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from torch.fx import Node

from .actions import EntryOrigin, Field, Label, compatible
from .cells import is_small
from .equations import Carrier, Key, Term, add
from .frames import Frame
from .tracing import arguments, name_of

# Operations whose results hold the entries of their first operand, each of them once at most.
_MOVES = frozenset(
    {
        *("view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze"),
        *("permute", "transpose", "t", "slice", "select", "split", "split_with_sizes", "chunk"),
        *("unbind", "getitem"),
    }
)

_CASTS = frozenset({"to", "_to_copy", "type_as"})
_SAME_ENTRIES = _CASTS | {"reshape", "permute", "transpose"}


def note_carriers(
    frame: Frame, shift: Field, first: int, second: int, over: Collection[Label]
) -> None:
    """Records which maps of a sum of products are those of a weight.

    Args:
        frame: the operation's index space.
        shift: of the sum, by label.
        first: index of a factor among the operands.
        second: index of the other.
        over: the labels that were summed over.
    """
    for weight, value in ((first, second), (second, first)):
        if not _is_weight(frame, weight, value, over):
            continue
        origins = frame.origins(weight)
        for terms in shift.values():
            for term in terms:
                if term.mixed > 0:
                    _note(frame, weight, term, origins)


def _note(frame: Frame, weight: int, term: Term, origins: Any) -> None:
    maps = frame.actions.maps
    whole = maps.last(term.mixed)
    # The map of a weight has two steps, a product with it and a sum, both of this operation.
    if not whole.before or whole.how[:2] != (frame, "sum"):  # type: ignore[index]
        return
    factor = maps.last(whole.before)
    if factor.how[:2] != (frame, weight):  # type: ignore[index]
        return
    key: Key = factor.how[2]  # type: ignore[index]
    sources: tuple[EntryOrigin, ...] = origins.get(key, ())
    if len(sources) != 1:
        return
    (origin,) = sources
    where = {place: own for own, place in origin.at if place is not None}
    whole_entry = len(where) == len(origin.at) and set(where) == frame.places(weight, key)
    if whole_entry and where.keys() >= {*factor.at, *term.at}:
        source = tuple(where[place] for place in factor.at)
        target = tuple(where[place] for place in term.at)
        maps.carry(term.mixed, Carrier(origin.entry, origin.key, source, target))


def by_part(frame: Frame, other: int, shift: Field, over: Collection[Label] = ()) -> Field:
    """Shifts of a factor, for every part of the other one by itself: each has its own values.

    Args:
        frame: the operation's index space.
        other: index of that operand.
        shift: by label.
        over: labels along which parts stay together.
    """
    member = frame.members[other]
    cells = frame.actions.cells(member.axes)
    keys = (frame.key(member.labels, cell.key) for cell in cells)
    return in_parts(shift, {tuple(pair for pair in key if pair[0] not in over) for key in keys})


def in_parts(shift: Field, parts: Collection[Key]) -> Field:
    """Shifts for every part by itself that they are shifts of."""
    return {
        tuple(sorted({*key, *part})): terms
        for key, terms in shift.items()
        for part in parts
        if compatible(key, part)
    }


def _is_weight(frame: Frame, weight: int, value: int, over: Collection[Label]) -> bool:
    """Whether an operand is a part of an entry, and every sum runs over it."""
    member, other = frame.members[weight], frame.members[value]
    own = set(member.labels)
    unlabelled = (
        axis for axis, label in zip(member.axes, member.given, strict=True) if label is None
    )
    return (
        _is_entry(frame, member.value)
        and not own & frame.broken
        and all(is_small(axis) for axis in unlabelled)
        and all(label in own or label not in other.labels for label in over)
    )


def _is_entry(frame: Frame, value: object) -> bool:
    """Whether a value is an entry of real numbers, or is cut out of one."""
    trace = frame.actions.trace
    while isinstance(value, Node) and trace.parameter_name(value) is None:
        if value.op != "call_function" or name_of(value) not in _MOVES:
            return False
        value = value.args[0]
    return isinstance(value, Node) and value.meta["val"].is_floating_point()


# --- averages -----------------------------------------------------------------------------------


def averaged(frame: Frame, weights: int, values: int, over: Collection[Label]) -> Field | None:
    """Shifts of values times weights that sum to one along what is summed over.

    What is alike along it stays as it is. None if the weights are not known to sum to one.
    """
    member = frame.members[weights]
    dim = _normalised(member.value)
    if dim is None or member.axes is not frame.actions.axes(member.value):
        return None
    if len(over) != 1 or member.labels[dim] not in over:
        return None
    if set(over) & frame.broken or any(frame.take(weights).shift.values()):
        return None
    return weighted(frame, frame.take(values).shift, set(over), (weights,))


def weighted(
    frame: Frame, shift: Field, over: Collection[Label], weights: Collection[int]
) -> Field:
    """Shifts times weights: those that differ along what is summed over become others.

    Args:
        frame: the operation's index space.
        shift: of the values, by label.
        over: the labels that weights sum to one along.
        weights: numbers of the operands that weights are made of.
    """
    actions, result = frame.actions, {}
    for operand in weights:
        shift = by_part(frame, operand, shift, over)
    for key, terms in shift.items():
        terms = actions.shifts.reduce(terms)
        apart = {t: c for t, c in terms.items() if any(label in over for label, _ in t.at)}
        alike = {t: c for t, c in terms.items() if t not in apart}
        places = {place for n in weights for place in frame.places(n, key)}
        where = {place for place in places if place[0] in over or place[0] in frame.result}
        result[key] = add(alike, actions.maps.mix(apart, (frame, "weights", key), where))
    return result


def _normalised(value: object) -> int | None:
    """The dimension along which a value is known to sum to one: it comes from a softmax."""
    if not isinstance(value, Node) or value.op != "call_function":
        return None
    name, operand = name_of(value), value.args[0] if value.args else None
    rank = len(value.meta["val"].shape) if hasattr(value.meta.get("val"), "shape") else 0
    if name in ("softmax", "_softmax"):
        return int(arguments(value)["dim"]) % rank if rank else None
    known = _normalised(operand) if name in _SAME_ENTRIES else None
    if known is None or not isinstance(operand, Node):
        return None
    before = operand.meta["val"].shape
    if name in _CASTS:
        return known if value.meta["val"].is_floating_point() else None
    if name == "permute":
        order = [int(dim) % rank for dim in value.args[1]]  # type: ignore[union-attr,arg-type]
        return order.index(known)
    if name == "transpose":
        one, other = (int(dim) % rank for dim in value.args[1:3])  # type: ignore[arg-type]
        return {one: other, other: one}.get(known, known)
    last = known == len(before) - 1 and rank > 0 and before[-1] == value.meta["val"].shape[-1]
    return rank - 1 if last else None
