"""Turns solved equations between scales into the scalings of a spec."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import NamedTuple

from gmn.spec import Domain, EdgeSet, Port, Scaling, ScalingTerm

from ..inference.actions import Actions, turned_key, turned_places
from ..inference.equations import Key, Place, Unknown
from ..inference.solutions import Generator, generators, places_of
from .blocks import Block
from .names import Names, unique

Held = Sequence[tuple[EdgeSet, Block]]


class Follower(NamedTuple):
    """An edge set that holds an unknown's part of an entry, or of one that shares its memory."""

    order: int
    edges: EdgeSet
    block: Block
    dims: tuple[int | None, ...]


class Index:
    """Edge sets by the part of the entry that they hold."""

    def __init__(self, actions: Actions, held: Held) -> None:
        self.targets = {edges.name: edges.target for edges, _ in held}
        self._held = {
            (edges.parameter, block.key): (index, edges, block)
            for index, (edges, block) in enumerate(held)
        }
        self._views: dict[str, list[tuple[str, dict[int, int]]]] = {}
        for name, view in actions.trace.views.items():
            if view.dims is not None:
                where = {dim: position for position, dim in enumerate(view.dims)}
                self._views.setdefault(view.owner, []).append((name, where))

    def followers(self, unknown: Unknown, follows: Sequence[int]) -> list[Follower] | None:
        """The edge sets that an unknown moves; None if some of its entries are on no edges."""
        places = places_of(unknown, follows)
        held = self._held.get((unknown.entry, unknown.key))
        result = [] if held is None else [_follower(held, places)]
        views = self._views.get(unknown.entry, ())
        for name, where in views:
            other = self._held.get((name, turned_key(unknown.key, where)))
            if other is not None:
                result.append(_follower(other, turned_places(places, where)))
        return result or None

    def holds(self, entry: str, key: Key) -> tuple[EdgeSet, Block] | None:
        """The edge set that holds a part of an entry."""
        held = self._held.get((entry, key))
        return None if held is None else held[1:]


def _follower(held: tuple[int, EdgeSet, Block], places: Sequence[Place]) -> Follower:
    index, edges, block = held
    return Follower(index, edges, block, tuple(block.at(place) for place in places))


def scalings(actions: Actions, held: Held, names: Names) -> Iterator[Scaling]:
    """The independent scalings that the equations between units leave free.

    Args:
        actions: how values transform.
        held: the edge sets that hold parameters and statistics, with their blocks.
        names: names of axes.
    """
    taken: set[str] = set()
    index = Index(actions, held)
    domains: tuple[tuple[Domain, str], ...] = (("positive", "scale"), ("sign", "sign"))
    for domain, suffix in domains:
        system = actions.signs if domain == "sign" else actions.magnitudes
        for generator in generators(system, 2 if domain == "sign" else None):
            phase = next((u for u, *_ in generator.terms if u.phase), None)
            form = _terms(actions, generator, index, names, signs=domain == "sign")
            if form is None:
                continue
            axes, shape, terms = form
            target = index.targets[terms[0].edge_set]
            if phase is not None:
                whole = _with_phase(actions, generator, index, terms)
                if whole is not None:
                    name = unique(f"{index.targets[whole[-1].edge_set]}.phase", taken)
                    yield Scaling(name, "phase", axes, shape, whole)
                continue
            # s and s² generate the same group, so the first edge set may have exponent one.
            terms = [replace(t, exponent=t.exponent / terms[0].exponent) for t in terms]
            if not axes and _is_uneven(terms):
                continue
            yield Scaling(unique(f"{target}.{suffix}", taken), domain, axes, shape, tuple(terms))


def _is_uneven(terms: Sequence[ScalingTerm]) -> bool:
    """Whether one scale acts in several powers, as where a layer is applied twice.

    What reads specs counts units of neurons; such a scale is no unit of any, so it is not claimed.
    """
    return len({abs(term.exponent) for term in terms if not term.offset}) > 1


Form = tuple[tuple[str, ...], tuple[int, ...], list[ScalingTerm]]


def _terms(
    actions: Actions, generator: Generator, index: Index, names: Names, *, signs: bool
) -> Form | None:
    """Axes, their sizes and the edge sets that follow; None if a scale has no axis."""
    followed: dict[tuple[int, tuple[int, ...]], tuple[EdgeSet, Block, Fraction]] = {}
    for (unknown, follows, _), coefficient in generator.terms.items():
        if unknown.phase:
            continue
        followers = index.followers(unknown, follows)
        if followers is None:
            return None
        for order_index, edges, block, dims in followers:
            if any(dim is None or block.pieces[dim].atom is None for dim in dims):
                return None  # the scale varies along taps, which have no axis
            key = order_index, tuple(dim for dim in dims if dim is not None)
            total = followed.get(key, (edges, block, Fraction(0)))[2]
            followed[key] = edges, block, total + Fraction(coefficient)
    if signs:
        followed = {k: (e, b, c % 2) for k, (e, b, c) in followed.items()}
    kept = {k: v for k, v in followed.items() if v[2]}
    if not kept:
        return None
    (_, dims), (_, block, _) = min(kept.items(), key=lambda item: item[0][0])
    axes = [names.axis(block.pieces[dim].atom) for dim in dims]
    if any(axis is None for axis in axes):
        return None
    # Axes in the order in which the first block has them.
    order = sorted(range(len(dims)), key=lambda n: dims[n])
    terms = [
        ScalingTerm(
            e.name,
            tuple(d[n] for n in order),
            float(c),
            actions.offsets.get(e.parameter, 0.0) if not signs else 0.0,
            port=_port(b, d),
        )
        for (_, d), (e, b, c) in sorted(kept.items(), key=lambda item: item[0])
    ]
    shape = tuple(block.pieces[dims[n]].size for n in order)
    return tuple(str(axes[n]) for n in order), shape, terms


def _port(block: Block, dims: Sequence[int]) -> Port:
    """The end of the edges that a scale belongs to."""
    ports = {block.pieces[dim].port for dim in dims} - {"both"}
    return ports.pop() if len(ports) == 1 else "both"


def _with_phase(
    actions: Actions, generator: Generator, index: Index, terms: Sequence[ScalingTerm]
) -> tuple[ScalingTerm, ...] | None:
    """The terms of a parity, with the bias that the phase is added to as the last one."""
    phases = [(u, follows) for u, follows, _ in generator.terms if u.phase]
    if len(phases) != 1:
        return None
    parity, follows = phases[0]
    shift, step = actions.phases[parity]
    followers = index.followers(replace(shift, slots=parity.slots), follows)
    if followers is None or len(followers) > 1:
        return None
    _, edges, _, dims = followers[0]
    if any(dim is None for dim in dims):
        return None
    whole: tuple[int, ...] = tuple(dim for dim in dims if dim is not None)
    order = sorted(range(len(whole)), key=whole.__getitem__)
    whole = tuple(whole[n] for n in order)
    power = float(sum(t.exponent for t in terms if t.edge_set == edges.name))
    others = [term for term in terms if term.edge_set != edges.name]
    added = float(step) * math.pi
    return (*others, ScalingTerm(edges.name, whole, power, shift=added))
