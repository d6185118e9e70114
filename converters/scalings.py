"""From solved unit equations to the scalings of a spec."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

from gmn.spec import Domain, EdgeSet, Port, Scaling, ScalingTerm

from .axes import Atom
from .blocks import Block
from .names import Names, unique
from .tracing import Tracing
from .units import Unknown

Held = Sequence[tuple[EdgeSet, Block]]


def scalings(trace: Tracing, held: Held, names: Names) -> Iterator[Scaling]:
    """The independent scalings that the equations between units leave free.

    Args:
        trace: the trace, with units balanced.
        held: the edge sets that hold parameters and statistics, with their blocks.
        names: names of axes.
    """
    taken: set[str] = set()
    index = _Index(held)
    domains: tuple[tuple[Domain, str], ...] = (("positive", "scale"), ("sign", "sign"))
    solutions = trace.balance.solutions(trace.scales())
    for domain, suffix in domains:
        for free, followers in solutions[domain].items():
            over = index.order(free.atoms)
            axes = [name for atom in over if (name := names.axis(atom)) is not None]
            terms = _terms(trace, over, followers, index, signs=domain == "sign")
            if not terms or len(axes) < len(over):
                continue
            terms = [replace(t, exponent=t.exponent / terms[0].exponent) for t in terms]
            shape, target = tuple(a.size for a in over), index.targets[terms[0].edge_set]
            if free.phase:
                terms = _with_phase(trace, free, over, index, terms)
                name = unique(f"{index.targets[terms[-1].edge_set]}.phase", taken)
                yield Scaling(name, "phase", tuple(axes), shape, tuple(terms))
            else:
                name = unique(f"{target}.{suffix}", taken)
                yield Scaling(name, domain, tuple(axes), shape, tuple(terms))


class _Index:
    """What scalings look up in the blocks: there are many of both."""

    def __init__(self, held: Held) -> None:
        self.targets = {edges.name: edges.target for edges, _ in held}
        pieces = (piece.atom for _, block in held for piece in block.pieces)
        self._rank = {atom: number for number, atom in enumerate(dict.fromkeys(pieces))}
        self._by_parameter: dict[str | None, list[tuple[int, EdgeSet, Block]]] = {}
        for number, (edges, block) in enumerate(held):
            self._by_parameter.setdefault(edges.parameter, []).append((number, edges, block))

    def order(self, over: frozenset[Atom]) -> list[Atom]:
        """The atoms in the order in which blocks have them."""
        return sorted((atom for atom in over if atom in self._rank), key=self._rank.__getitem__)

    def blocks(self, unknown: Unknown) -> Iterator[tuple[int, EdgeSet, Block]]:
        """The blocks that an unknown scales, numbered."""
        for number, edges, block in self._by_parameter.get(unknown.parameter, ()):
            if unknown.term == block.term_at(unknown.port):
                yield number, edges, block


def _terms(
    trace: Tracing,
    over: Sequence[Atom],
    followers: Mapping[Unknown, Fraction],
    index: _Index,
    *,
    signs: bool,
) -> list[ScalingTerm]:
    found = [
        (number, edges, block, unknown, power)
        for unknown, power in followers.items()
        for number, edges, block in index.blocks(unknown)
    ]
    powers: dict[tuple[str, tuple[int, ...], Port], Fraction] = {}
    offsets: dict[str, float] = {}
    for _, edges, block, unknown, power in sorted(found, key=lambda item: item[0]):
        offsets[edges.name] = trace.offsets.get(edges.parameter, 0.0)
        places = [_position(block, atom, unknown.port) for atom in over]
        dims = tuple(place for place in places if place is not None)
        if len(dims) < len(over):
            return []  # the scale varies along taps, which have no axis
        key = edges.name, dims, unknown.port
        powers[key] = powers.get(key, Fraction(0)) + power
    return [
        ScalingTerm(name, dims, float(power), offsets[name], port=port)
        for (name, dims, port), total in powers.items()
        if (power := total % 2 if signs else total)
    ]


def _with_phase(
    trace: Tracing,
    free: Unknown,
    over: Sequence[Atom],
    index: _Index,
    terms: Sequence[ScalingTerm],
) -> list[ScalingTerm]:
    """The terms of a parity, with the bias that the phase is added to as the last one."""
    bias, shift = trace.phases[free]
    ((_, edges, block),) = index.blocks(Unknown(frozenset(), bias, "both"))
    places = [_position(block, atom, "both") for atom in over]
    dims = tuple(place for place in places if place is not None)
    power = sum(t.exponent for t in terms if t.edge_set == edges.name)
    others = [term for term in terms if term.edge_set != edges.name]
    return [*others, ScalingTerm(edges.name, dims, power, shift=shift)]


def _position(block: Block, atom: Atom, port: str) -> int | None:
    """The dimension that runs over the atom at this end of the edges, if one does."""
    candidates = [i for i, piece in enumerate(block.pieces) if piece.atom is atom]
    for wanted in (port, "both"):
        for i in candidates:
            if block.pieces[i].port == wanted:
                return i
    return candidates[0] if candidates else None
