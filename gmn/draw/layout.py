"""Layout of a picture: a residual stream is a straight rail, its blocks hang on it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

from gmn.spec import GraphSpec

Arrow = tuple[str, str]
APART = 3  # levels from rail to rail: each keeps one above and one below for its blocks


@dataclass(frozen=True)
class Span:
    """The slots that a box covers from left to right, and its level; level 1 is below level 0."""

    left: int
    right: int
    level: int


def arrange(spec: GraphSpec) -> dict[str, Span]:
    """Places every node set so that no two cover the same slot of a level.

    From left to right runs the order of computation. A node set that later layers write to (a
    residual stream) becomes a rail, as long as it is in use; what reads from it or writes to it
    hangs above or below. All others stand in line.
    """
    ahead, back = _directions(spec)
    column = _columns(spec, ahead)
    rails = _rails(ahead, back, column)
    owner = _owners(ahead, back, column, rails)
    level = _levels(rails, column)
    first, places = _hang(ahead, column, owner, level)
    for name, end in rails.items():
        under = [places[n].right for n in owner if owner[n] == name and column[n] <= end]
        places[name] = Span(first[column[name]], max([first[end], *under]), level[name])
    for name in sorted(column, key=column.__getitem__):
        if name not in places:
            places[name] = _in_line(name, first[column[name]], ahead, places)
    used = sorted({place.level for place in places.values()})
    return {n: Span(p.left, p.right, used.index(p.level)) for n, p in places.items()}


def _directions(spec: GraphSpec) -> tuple[set[Arrow], set[Arrow]]:
    """Arrows that point forward, and arrows that write back to an earlier node set."""
    between = [e for e in spec.edge_sets if not e.diagonal and e.source != e.target]
    first = _sources(spec)
    for edges in between:
        first[edges.target] = min(edges.depth, first.get(edges.target, edges.depth))
    arrows = {(edges.source, edges.target) for edges in between}
    ahead = {(s, t) for s, t in arrows if first[t] >= first[s]}
    return ahead, arrows - ahead


def _sources(spec: GraphSpec) -> dict[str, int]:
    """The depth of inputs, and of what no edge enters (heads shared out): that of its reader."""
    entered = {e.target for e in spec.edge_sets if e.source != e.target}
    readers: dict[str, list[int]] = defaultdict(list)
    for edges in spec.edge_sets:
        readers[edges.source].append(edges.depth - 1)
    return {
        nodes.name: 0 if nodes.role == "input" else max(0, min(readers[nodes.name], default=0))
        for nodes in spec.node_sets
        if nodes.role == "input" or nodes.name not in entered
    }


def _columns(spec: GraphSpec, ahead: set[Arrow]) -> dict[str, int]:
    """The depth at which a node set is complete, but for what is written to it later."""
    column = {nodes.name: 0 for nodes in spec.node_sets} | _sources(spec)
    for edges in spec.edge_sets:
        if (edges.source, edges.target) in ahead:
            column[edges.target] = max(column[edges.target], edges.depth)
    return column


def _rails(ahead: set[Arrow], back: set[Arrow], column: dict[str, int]) -> dict[str, int]:
    """By rail, the last column it reaches: its last writer, or a reader that it passes by."""
    ends: dict[str, int] = {}
    for source, target in back:
        ends[target] = max(ends.get(target, column[target]), column[source])
    for rail in ends:
        readers = {column[target] for source, target in ahead if source == rail}
        ends[rail] = max([ends[rail], *(c for c in readers if c < max(readers))])
    return ends


def _owners(
    ahead: set[Arrow], back: set[Arrow], column: dict[str, int], rails: dict[str, int]
) -> dict[str, str]:
    """The rail that a box hangs on: it writes to that, reads from it, or is inside such a block."""
    owner: dict[str, str] = {}
    for source, target in sorted(ahead | back, key=lambda arrow: column[arrow[1]]):
        if target in rails and source not in rails and column[source]:
            owner.setdefault(source, target)
    for source, target in sorted(ahead, key=lambda arrow: column[arrow[1]]):
        rail = source if source in rails else owner.get(source)
        if rail is not None and target not in rails and column[target] <= rails[rail]:
            owner.setdefault(target, rail)
    return owner


def _levels(rails: dict[str, int], column: dict[str, int]) -> dict[str, int]:
    """The level of each rail: rails that overlap in columns get different levels."""
    levels: dict[str, int] = {}
    busy: list[int] = []  # by lane, the last column taken
    for rail in sorted(rails, key=column.__getitem__):
        lane = next((i for i, last in enumerate(busy) if last < column[rail]), len(busy))
        busy[lane : lane + 1] = [rails[rail]]
        levels[rail] = APART * lane
    return levels


def _hang(
    ahead: set[Arrow], column: dict[str, int], owner: dict[str, str], level: dict[str, int]
) -> tuple[dict[int, int], dict[str, Span]]:
    """The first slot of every column, and the places of the boxes that hang on rails.

    A column has as many slots as it needs, so that no box stands between another and its rail.
    """
    together: dict[int, list[str]] = defaultdict(list)
    for name in column:
        together[column[name]].append(name)
    first: dict[int, int] = {}
    places: dict[str, Span] = {}
    start = 0
    for index in sorted(together):
        first[index], last = start, start
        taken: set[tuple[int, int]] = set()
        for name in together[index]:
            if name in owner:
                before = {places[s].level for s, t in ahead if t == name and s in places}
                slot, side = _beside(level[owner[name]], start, before, taken)
                places[name] = Span(slot, slot, side)
                taken.add((slot, side))
                last = max(last, slot)
        start = last + 1
    return first, places


def _beside(
    rail: int, start: int, before: set[int], taken: set[tuple[int, int]]
) -> tuple[int, int]:
    """The first free slot above or below a rail, on the side of what the box reads from."""
    sides = sorted((rail + 1, rail - 1), key=lambda level: level not in before)
    return next((x, y) for x in count(start) for y in sides if (x, y) not in taken)


def _in_line(name: str, slot: int, ahead: set[Arrow], places: dict[str, Span]) -> Span:
    """The free level nearest to that of the rail or box that it reads from or is read by."""
    near = {n for arrow in ahead if name in arrow for n in arrow if n in places}
    wish = max(
        near, key=lambda n: (places[n].right - places[n].left, (n, name) in ahead, n), default=""
    )
    occupied = {p.level for p in places.values() if p.left <= slot <= p.right}
    start = places[wish].level if wish else 0
    return Span(slot, slot, next(level for level in _around(start) if level not in occupied))


def _around(level: int) -> Iterator[int]:
    yield level
    for distance in count(1):
        yield level + distance
        yield level - distance
