"""Action rules of the basic operation forms: sums, products, contractions, views, norms.

Products, sums, contractions, homogeneous functions, reductions and normalisations are stated once,
in the labels of a :class:`converters.inference.frames.Frame`; views, cuts and joins are stated part
by part.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any, Literal

from torch.fx import Node

from gmn.spec import Port

from .actions import NOTHING, Action, Actions, EntryOrigin, Field, Label, Use, merge_origins
from .axes import Atom, size_of
from .carrying import averaged, by_part, note_carriers
from .cells import Cell
from .equations import Key, Place, System, Term, Terms, add
from .frames import Frame, join
from .tracing import Value, atoms_of, flat_axes, operation_of

Number = int | float


# --- frames -------------------------------------------------------------------------------------


def aligned(value: Value, rank: int) -> list[int]:
    """Labels of an operand's dimensions, aligned from the right as broadcasting does."""
    return [rank - len(value) + dim for dim in range(len(value))]


def broadcast(actions: Actions, node: Node, operands: Sequence[object]) -> Frame:
    """The frame of an operation entry by entry."""
    rank = len(actions.axes(node))
    members = [(value, aligned(actions.axes(value), rank)) for value in operands]
    return Frame(actions, node, members, range(rank))


def times(channel: Field, factor: Fraction | int) -> Field:
    """A multiple of a channel."""
    if factor == 1:
        return channel
    return {
        key: {t: c * factor for t, c in terms.items()} if factor else {}
        for key, terms in channel.items()
    }


def multiplied(action: Action, factor: Number) -> Action:
    """A value times a number other than 0, as far as shifts go: units are those of the value."""
    return replace(action, shift=times(action.shift, exact(factor)))


def exact(value: Number) -> Fraction | int:
    """A number as a fraction; floats by their shortest decimal form."""
    if isinstance(value, int):
        return value
    return Fraction(repr(value)) if math.isfinite(value) else 0


# --- sums and products --------------------------------------------------------------------------


def equate(system: System, first: Field, second: Field) -> Field:
    """Demands that two channels are alike wherever they meet; returns what both are."""

    def same(a: Terms, b: Terms) -> Terms:
        if difference := add(a, b, -1):
            system.require(difference)
        return a

    if not any(first.values()) and not any(second.values()):
        return {}
    return join(first, second, same)


def total(
    frame: Frame, operands: Sequence[int], factors: Sequence[Number], kind: str = "shift"
) -> Action:
    """The sum of some operands, each times a factor: units agree, shifts add.

    Operands made of parameters are edges of that kind.
    """
    actions = frame.actions
    parts = [frame.take(n) for n in operands]
    magnitude, sign, shift = (
        parts[0].magnitude,
        parts[0].sign,
        times(parts[0].shift, exact(factors[0])),
    )
    for part, factor in zip(parts[1:], factors[1:], strict=True):
        magnitude = equate(actions.magnitudes, magnitude, part.magnitude)
        sign = equate(actions.signs, sign, part.sign)
        if part.shift or shift:
            scaled = exact(factor)
            shift = join(shift, part.shift, lambda a, b, k=scaled: add(a, b, k))  # type: ignore[misc]
    for operand, part in zip(operands, parts, strict=True):
        find_diagonal(frame, operand, kind, part)
    return Action(magnitude, sign, shift, merge_origins(*(p.origins for p in parts)))


def find_diagonal(frame: Frame, operand: int, kind: str, part: Action | None = None) -> None:
    """An operand made of parameters acts on every neuron by itself."""
    origins = frame.origins(operand) if part is None else part.origins
    use = direct_use(frame, operand, kind)
    frame.actions.find(frame.members[operand].value, frame.node, kind, origins, {}, use)


def added(actions: Actions, one: Action, other: Action) -> Action:
    """The sum of two actions by label: units agree, shifts add."""
    shift: Field = {}
    if any(one.shift.values()) or any(other.shift.values()):
        shift = join(one.shift, other.shift, lambda a, b: add(a, b))
    return Action(
        equate(actions.magnitudes, one.magnitude, other.magnitude),
        equate(actions.signs, one.sign, other.sign),
        shift,
        merge_origins(one.origins, other.origins),
    )


def product(frame: Frame, first: int, second: int, power: int = 1) -> Action:
    """The product of two operands, or their quotient: units multiply.

    A shift of a factor is multiplied by the other's values, so all that is known of it then is what
    it may vary over. Where both factors shift, no generator may hold shifts of both.
    """
    actions = frame.actions
    one, other = frame.take(first), frame.take(second)
    magnitude = join(one.magnitude, other.magnitude, lambda a, b: add(a, b, power))
    sign = join(one.sign, other.sign, lambda a, b: add(a, b))
    if power < 0:
        actions.zero(actions.shifts, other.shift)
        other = replace(other, shift={})
    shift = _mixed_shifts(frame, (first, one.shift), (second, other.shift))
    return Action(magnitude, sign, shift, merge_origins(one.origins, other.origins))


def _mixed_shifts(frame: Frame, *factors: tuple[int, Field]) -> Field:
    actions = frame.actions
    reduced = [
        {key: actions.shifts.reduce(terms) for key, terms in channel.items()}
        for _, channel in factors
    ]
    if all(any(channel.values()) for channel in reduced):
        actions.conflicts.append((reduced[0], reduced[1]))
    mixed = [times_values(frame, factors[1 - n][0], channel) for n, channel in enumerate(reduced)]
    if not any(terms for channel in mixed for terms in channel.values()):
        return {}
    return join(mixed[0], mixed[1], lambda a, b: add(a, b))


def times_values(frame: Frame, other: int, shift: Field) -> Field:
    """Shifts times the values of another operand, as a separate map for each of its parts."""
    member, maps = frame.members[other], frame.actions.maps
    own = {label for label in member.labels if label is not None}
    result = {}
    for key, terms in by_part(frame, other, shift).items():
        chosen = tuple(pair for pair in key if pair[0] in own)
        result[key] = maps.mix(terms, (frame, other, chosen), frame.places(other, key))
    return result


def summed(frame: Frame, action: Action, labels: Collection[Label], counts: bool = True) -> Action:
    """The sum over labelled dimensions: nothing may scale along them.

    Args:
        frame: the operation's index space.
        action: what is summed, by label.
        labels: the dimensions that go.
        counts: whether equal shifts add up to an unknown multiple; False for averages.
    """
    actions = frame.actions
    gone = set(labels)
    origins = {
        _less(key, gone): tuple(_forget(o, gone) for o in held)
        for key, held in action.origins.items()
    }
    return Action(
        outside(actions.magnitudes, action.magnitude, gone),
        outside(actions.signs, action.sign, gone),
        _summed_shifts(frame, action.shift, gone, counts),
        origins,
    )


def outside(system: System, channel: Field, gone: set[Label]) -> Field:
    """What of a channel does not vary over dimensions; the rest vanishes, and parts agree."""
    result: dict[Key, Terms] = {}
    for key, terms in channel.items():
        terms = system.reduce(terms)
        if inside := {t: c for t, c in terms.items() if _touches(t, gone)}:
            system.require(inside)
        kept = {t: c for t, c in terms.items() if not _touches(t, gone)}
        new = _less(key, gone)
        if new not in result:
            result[new] = kept
        elif difference := add(result[new], kept, -1):
            system.require(difference)
    return result


def _summed_shifts(frame: Frame, channel: Field, gone: set[Label], counts: bool) -> Field:
    actions = frame.actions
    channel = {key: actions.shifts.reduce(terms) for key, terms in channel.items()}
    several = {label for key in channel for label, _ in key if label in gone}
    alike: dict[Key, Terms] = {} if counts else _alike_parts(channel, gone)
    result: dict[Key, Terms] = {key: dict(terms) for key, terms in alike.items()}
    for key, terms in channel.items():
        new = _less(key, gone)
        kept: Terms = {}
        for term, coefficient in add(terms, alike.get(new, {}), -1).items():
            one: Terms = {term: coefficient}
            if counts or several or _touches(term, gone):
                chosen = tuple(pair for pair in key if pair[0] in gone)
                moved = actions.maps.mix(one, (frame, "sum", chosen, frozenset(gone)))
                one = {
                    Term(t.unknown, tuple(p for p in t.at if p[0] not in gone), t.mixed): c
                    for t, c in moved.items()
                }
            kept = add(kept, one)
        result[new] = add(result.get(new, {}), kept)
    return result


def _alike_parts(channel: Field, gone: set[Label]) -> dict[Key, Terms]:
    """The shift that all averaged parts share, which the average has as well."""
    groups: dict[Key, list[Terms]] = {}
    for key, terms in channel.items():
        groups.setdefault(_less(key, gone), []).append(terms)
    return {
        new: {
            term: coefficient
            for term, coefficient in parts[0].items()
            if not _touches(term, gone) and all(part.get(term) == coefficient for part in parts)
        }
        for new, parts in groups.items()
    }


def _touches(term: Term, labels: Collection[Label]) -> bool:
    return any(label in labels for label, _ in term.at)


def _less(key: Key, gone: Collection[Label]) -> Key:
    return tuple(pair for pair in key if pair[0] not in gone)


def _forget(origin: EntryOrigin, gone: Collection[Label]) -> EntryOrigin:
    at = tuple((p, None if q is not None and q[0] in gone else q) for p, q in origin.at)
    return replace(origin, at=at)


def contract(
    frame: Frame,
    first: int,
    second: int,
    over: Collection[Label],
    *,
    roles: Mapping[Label, Port] | None = None,
    direct: Mapping[int, Use] | None = None,
) -> Action:
    """The sum of products of two operands over labelled dimensions.

    Where one operand is made of parameters alone, they are weights: what is summed over is their
    source, what is left their target, what both operands and the result have both. Weights carry
    on what is added to the other operand.

    Args:
        frame: the operation's index space.
        first: index of an operand.
        second: index of the other.
        over: the labels that are summed over.
        roles: ends of the edges by label, where they are others.
        direct: uses to record for operands that are entries themselves.
    """
    actions, node = frame.actions, frame.node
    whole = product(frame, first, second)
    for operand, other in ((first, second), (second, first)):
        value = frame.members[operand].value
        shared = set(frame.members[other].given) - {None}
        ends: dict[Label, Port] = {
            label: "source" if label in over else "both" if label in shared else "target"
            for label in frame.members[operand].given
            if label is not None
        }
        ends.update(roles or {})
        use = (direct or {}).get(operand) or direct_use(frame, operand, "weight", ends)
        actions.find(value, node, "weight", frame.origins(operand), ends, use)
    for weights, values in ((first, second), (second, first)):
        if (shift := averaged(frame, weights, values, over)) is not None:
            return summed(frame, replace(whole, shift=shift), over, counts=False)
    result = summed(frame, whole, over)
    note_carriers(frame, result.shift, first, second, over)
    return result


def direct_use(
    frame: Frame, operand: int, kind: str, ends: Mapping[Label, Port] | None = None
) -> Use | None:
    """The use of an operand that is an entry itself."""
    member = frame.members[operand]
    name = frame.actions.trace.parameter_name(member.value)
    if name is None:
        return None
    if ends is None:
        ports: list[Port] = ["both" for _ in frame.actions.axes(member.value)]
    else:
        ports = [ends.get(label, "both") if label is not None else "both" for label in member.given]
    return Use(name, None, kind, frame.node, operation_of(frame.node), tuple(ports))


# --- what passes through a function entry by entry ----------------------------------------------

Sign = Literal["keep", "drop", "pin"]


def homogeneous(
    frame: Frame, operand: int = 0, *, degree: Fraction | int | None = 1, sign: Sign = "pin"
) -> Action:
    """φ(sx) = s^degree φ(x) for positive s; what signs do; no shift passes.

    Args:
        frame: the operation's index space.
        operand: the operand.
        degree: None if no positive scale passes.
        sign: whether φ is odd ("keep"), even ("drop") or neither ("pin").
    """
    actions = frame.actions
    taken = frame.take(operand)
    actions.zero(actions.shifts, taken.shift)
    magnitude: Field = {}
    if degree is None:
        actions.zero(actions.magnitudes, taken.magnitude)
    else:
        magnitude = times(taken.magnitude, degree)
    if sign == "pin":
        actions.zero(actions.signs, taken.sign)
    return Action(magnitude, taken.sign if sign == "keep" else {}, {}, taken.origins)


def pinned(frame: Frame) -> Action:
    """An action without scales or shifts that keeps the entries its operands come from."""
    origins = []
    for operand, member in enumerate(frame.members):
        frame.actions.pin(member.value)
        origins.append(frame.origins(operand))
    return Action({}, {}, {}, merge_origins(*origins))


# --- reductions and normalisations --------------------------------------------------------------


def extremum(frame: Frame, labels: Collection[Label], operand: int = 0) -> Action:
    """The largest entry along dimensions: positive scales and shifts alike along them pass."""
    actions, taken = frame.actions, frame.take(operand)
    actions.zero(actions.signs, taken.sign)
    gone = set(labels)
    return Action(
        outside(actions.magnitudes, taken.magnitude, gone),
        {},
        outside(actions.shifts, taken.shift, gone),
        summed(frame, replace(taken, magnitude={}, sign={}, shift={}), gone).origins,
    )


def forgetting(frame: Frame, action: Action, labels: Collection[Label]) -> Action:
    """Subtracts what is alike along dimensions: shifts that are vanish, others are forbidden."""
    actions = frame.actions
    outside(actions.shifts, action.shift, set(labels))
    return replace(action, shift={})


# --- part by part -------------------------------------------------------------------------------


def _enter(system: System, result: dict[Key, Terms], key: Key, terms: Terms) -> None:
    """Enters a part; parts that become one must be alike."""
    if key not in result:
        result[key] = terms
    elif difference := add(result[key], terms, -1):
        system.require(difference)


def transfer(
    actions: Actions,
    action: Action,
    pairs: Sequence[tuple[Cell, Cell]],
    dims: Sequence[int | None],
    *,
    removed: Collection[int] = (),
) -> Action:
    """The action of a value whose parts are parts of another, with its dimensions moved.

    Args:
        actions: the actions of all values.
        action: of the value that entries are taken from.
        pairs: a part of it, and the part of the result that it becomes.
        dims: for every dimension, where it is in the result; None for one that is gone.
        removed: dimensions of which one index is taken: shifts along them may be anything then.
    """
    target = {dim: new for dim, new in enumerate(dims) if new is not None}

    def channel(given: Field, system: System, shifts: bool = False) -> Field:
        result: dict[Key, Terms] = {}
        if not any(given.values()):
            return result
        for old, new in pairs:
            kept: dict[Term, Fraction | int] = {}
            lost: dict[Term, Fraction | int] = {}
            for term, coefficient in system.reduce(given.get(old.key, {})).items():
                stays = [place for place in term.at if place[0] not in removed]
                if all(_same_place(old, new, place, target) for place in stays):
                    at = tuple((target[dim], k) for dim, k in stays)
                    if len(stays) == len(term.at):
                        kept[Term(term.unknown, at, term.mixed)] = coefficient
                    elif shifts:
                        image = actions.maps.mix({term: coefficient}, (old.key, object()))
                        (other,) = image
                        kept[Term(other.unknown, at, other.mixed)] = coefficient
                    else:
                        lost[term] = coefficient
                else:
                    lost[term] = coefficient
            if lost:
                system.require(lost)
            _enter(system, result, new.key, kept)
        return result

    origins: dict[Key, tuple[EntryOrigin, ...]] = {}
    for old, new in pairs:
        moved = tuple(
            replace(
                origin,
                at=tuple((own, _moved_place(old, new, place, target)) for own, place in origin.at),
            )
            for origin in action.origins.get(old.key, ())
        )
        if moved:
            origins[new.key] = origins.get(new.key, ()) + moved
    return Action(
        channel(action.magnitude, actions.magnitudes),
        channel(action.sign, actions.signs),
        channel(action.shift, actions.shifts, shifts=True),
        origins,
    )


def _same_place(old: Cell, new: Cell, place: Place, target: Mapping[int, int]) -> bool:
    dim = place[0]
    return dim in target and old.atoms[dim] == new.atoms[target[dim]]


def _moved_place(
    old: Cell, new: Cell, place: Place | None, target: Mapping[int, int]
) -> Place | None:
    if place is None or not _same_place(old, new, place, target):
        return None
    return target[place[0]], place[1]


def reshaped(actions: Actions, action: Action, before: Value, after: Value) -> Action:
    """The action of a value whose entries are dealt out to other dimensions, in the same order."""
    if action is NOTHING or not _moves(action):
        return NOTHING
    old, new = actions.cells(before), actions.cells(after)
    sequences = [[cell.atom(p) for p in cell.places] for cell in old]
    others = [[cell.atom(p) for p in cell.places] for cell in new]
    if sequences == others:
        return _dealt(actions, action, list(zip(old, new, strict=True)))
    if len(new) == 1 and len(old) > 1 and (pairs := _stacked(old, new[0])):
        return _dealt(actions, action, pairs)
    if len(old) == 1 and len(new) > 1 and (pairs := _stacked(new, old[0])):
        return _dealt(actions, action, [(b, a) for a, b in pairs])
    return _partly(actions, action, before, after)


def _moves(action: Action) -> bool:
    return any((action.magnitude, action.sign, action.shift, action.origins))


def _stacked(parts: Sequence[Cell], whole: Cell) -> list[tuple[Cell, Cell]] | None:
    """Parts that are alike, as the rows of a value with one more place that numbers them."""
    rows = [[cell.atom(p) for p in cell.places] for cell in parts]
    places = whole.places
    every = [whole.atom(p) for p in places]
    extra = [
        n
        for n in range(len(every))
        if every[n].size == len(parts) and every[:n] + every[n + 1 :] == rows[0]
    ]
    if not extra or any(row != rows[0] for row in rows):
        return None
    return [(cell, whole) for cell in parts]


def _dealt(actions: Actions, action: Action, pairs: Sequence[tuple[Cell, Cell]]) -> Action:
    """Places matched by their order; a place that one side lacks is constant there."""
    maps = []
    for old, new in pairs:
        left, right = list(old.places), list(new.places)
        a, b = [old.atom(p) for p in left], [new.atom(p) for p in right]
        if len(a) > len(b):
            drop = next(n for n in range(len(a)) if a[:n] + a[n + 1 :] == b)
            del left[drop]
        elif len(b) > len(a):
            drop = next(n for n in range(len(b)) if b[:n] + b[n + 1 :] == a)
            del right[drop]
        maps.append(dict(zip(left, right, strict=True)))

    def channel(given: Field, system: System) -> Field:
        result: dict[Key, Terms] = {}
        if not any(given.values()):
            return result
        for (old, new), where in zip(pairs, maps, strict=True):
            terms = system.reduce(given.get(old.key, {}))
            if lost := {t: c for t, c in terms.items() if any(p not in where for p in t.at)}:
                system.require(lost)
            kept = {
                Term(t.unknown, tuple(where[p] for p in t.at), t.mixed): c
                for t, c in terms.items()
                if t not in lost
            }
            _enter(system, result, new.key, kept)
        return result

    origins: dict[Key, tuple[EntryOrigin, ...]] = {}
    for (old, new), where in zip(pairs, maps, strict=True):
        held = tuple(
            replace(o, at=tuple((p, where.get(q) if q is not None else None) for p, q in o.at))
            for o in action.origins.get(old.key, ())
        )
        if held:
            origins[new.key] = origins.get(new.key, ()) + held
    return Action(
        channel(action.magnitude, actions.magnitudes),
        channel(action.sign, actions.signs),
        channel(action.shift, actions.shifts),
        origins,
    )


def _partly(actions: Actions, action: Action, before: Value, after: Value) -> Action:
    """Dimensions at both ends that stay what they are; along the others nothing may move."""
    old, new = actions.cells(before), actions.cells(after)
    if len(old) > 1 or len(new) > 1:
        for system, channel in (
            (actions.magnitudes, action.magnitude),
            (actions.signs, action.sign),
            (actions.shifts, action.shift),
        ):
            actions.zero(system, channel)
        return NOTHING
    dims: list[int | None] = [None] * len(before)
    left = 0
    while (
        left < min(len(before), len(after))
        and old[0].atoms[left] == new[0].atoms[left]
        and (size_of(before[left]) == size_of(after[left]))
    ):
        dims[left] = left
        left += 1
    right = 1
    while right <= min(len(before), len(after)) - left and (
        old[0].atoms[-right] == new[0].atoms[-right]
        and size_of(before[-right]) == size_of(after[-right])
    ):
        dims[len(before) - right] = len(after) - right
        right += 1
    return transfer(actions, action, [(old[0], new[0])], dims)


def choices(actions: Actions, axes: Value, dim: int) -> list[tuple[int, int]]:
    """Start and length of every term of a dimension; one for all of it, if it has no terms."""
    sizes: dict[int, int] = {}
    for cell in actions.cells(axes):
        n = dict(cell.key).get(dim, 0)
        sizes[n] = math.prod(factor.size for factor in cell.atoms[dim])
    if len(sizes) == 1:
        return [(0, size_of(axes[dim]))]
    result, start = [], 0
    for n in sorted(sizes):
        result.append((start, sizes[n]))
        start += sizes[n]
    return result


def renumbered(cell: Cell, dims: Sequence[int | None], dim: int, choice: int | None) -> Key:
    """The key of a part after its dimensions moved, with another choice along one of them."""
    chosen = dict(cell.key)
    chosen.pop(dim, None)
    key = [(new_dim, n) for d, n in chosen.items() if (new_dim := dims[d]) is not None]
    target = dims[dim]
    if choice is not None and target is not None:
        key.append((target, choice))
    return tuple(sorted(key))


def matched(
    actions: Actions,
    before: Value,
    after: Value,
    dims: Sequence[int | None],
    dim: int,
    renumber: Any,
) -> list[tuple[Cell, Cell]]:
    """Parts of a value with the parts that they become; the choice along ``dim`` is renumbered."""
    parts = actions.cells(after)
    several, having = any(d == dims[dim] for cell in parts for d, _ in cell.key), by_choices(parts)
    pairs = []
    for cell in actions.cells(before):
        chosen = renumber(dict(cell.key).get(dim, 0))
        if chosen is None:
            continue
        key = renumbered(cell, dims, dim, chosen if several else None)
        pairs += [(cell, new) for new in having(key)]
    return pairs


def by_choices(parts: Iterable[Cell]) -> Callable[[Key], Sequence[Cell]]:
    """A function that returns the parts whose choices include those of a key."""
    tables: dict[frozenset[int], dict[Key, list[Cell]]] = {}

    def having(key: Key) -> Sequence[Cell]:
        dims = frozenset(dim for dim, _ in key)
        if dims not in tables:
            tables[dims] = {}
            for cell in parts:
                chosen = tuple(pair for pair in cell.key if pair[0] in dims)
                tables[dims].setdefault(chosen, []).append(cell)
        return tables[dims].get(key, ())

    return having


# --- where a change of basis passes -------------------------------------------------------------


def all_atoms(actions: Actions, values: Iterable[Any]) -> frozenset[Atom]:
    """The atoms of some values."""
    return atoms_of(*(axis for value in values for axis in flat_axes(value)))


def linear_moved(actions: Actions, node: Node) -> None:
    """Marks an operation that only moves entries as linear along all atoms."""
    values = [actions.trace.values[operand] for operand in node.all_input_nodes]
    actions.linear[node] = all_atoms(actions, [*values, actions.trace.values[node]])


def linear_summed(actions: Actions, node: Node, operands: Sequence[object]) -> None:
    """Marks a sum as linear along atoms that all operands have."""
    sets = [atoms_of(*actions.axes(value)) for value in operands]
    actions.linear[node] = frozenset.intersection(*sets) if sets else frozenset()


def linear_product(actions: Actions, node: Node, first: object, second: object) -> None:
    """Marks a product as linear along atoms that only one operand has."""
    one, other = (atoms_of(*actions.axes(value)) for value in (first, second))
    actions.linear[node] = one ^ other


def linear_contracted(
    frame: Frame, first: int, second: int, over: Collection[Label], bias: object = None
) -> None:
    """A sum of products: linear along what is summed, and what one operand alone ranges over."""
    actions = frame.actions
    sets = [set(frame.members[n].labels) - {None} for n in (first, second)]
    kept = [labels - set(over) for labels in sets]
    passing = frame.atoms_at((sets[0] & sets[1] & set(over)) | (kept[0] ^ kept[1]))
    mixed = frame.atoms_at(kept[0] & kept[1])
    own = [atoms_of(*frame.members[n].axes) for n in (first, second)]
    unlabelled = frozenset().union(*own) - frame.atoms_at(sets[0] | sets[1])
    linear = passing - mixed - unlabelled
    if bias is not None:
        rest = frame.atoms_at(set(over))
        linear = (linear & atoms_of(*actions.axes(bias))) | (linear & rest)
    actions.linear[frame.node] = linear
