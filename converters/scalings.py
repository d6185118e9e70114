"""From solved unit equations to the scalings of a spec."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction

from gmn.spec import Domain, EdgeSet, Scaling, ScalingTerm

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
    domains: tuple[tuple[Domain, str], ...] = (("positive", "scale"), ("sign", "sign"))
    solutions = trace.balance.solutions(trace.scales())
    for domain, suffix in domains:
        for free, followers in solutions[domain].items():
            over = _order(free.atoms, held)
            axes = [name for atom in over if (name := names.axis(atom)) is not None]
            terms = _terms(trace, over, followers, held, signs=domain == "sign")
            if not terms or len(axes) < len(over):
                continue
            first = next(edges for edges, _ in held if edges.name == terms[0].edge_set)
            terms = [replace(t, exponent=t.exponent / terms[0].exponent) for t in terms]
            name = unique(f"{first.target}.{suffix}", taken)
            yield Scaling(name, domain, tuple(axes), tuple(a.size for a in over), tuple(terms))


def _order(over: frozenset[Atom], held: Held) -> list[Atom]:
    """The atoms in the order in which blocks have them."""
    pieces = (piece.atom for _, block in held for piece in block.pieces)
    return [atom for atom in dict.fromkeys(pieces) if atom in over and atom is not None]


def _terms(
    trace: Tracing,
    over: Sequence[Atom],
    followers: Mapping[Unknown, Fraction],
    held: Held,
    *,
    signs: bool,
) -> list[ScalingTerm]:
    powers: dict[tuple[str, tuple[int, ...]], Fraction] = {}
    offsets: dict[str, float] = {}
    for edges, block in held:
        offsets[edges.name] = trace.offsets.get(edges.parameter, 0.0)
        for unknown, power in followers.items():
            if unknown.parameter == edges.parameter and unknown.term == block.term_at(unknown.port):
                dims = tuple(_position(block, atom, unknown.port) for atom in over)
                powers[edges.name, dims] = powers.get((edges.name, dims), Fraction(0)) + power
    return [
        ScalingTerm(name, dims, float(power), offsets[name])
        for (name, dims), total in powers.items()
        if (power := total % 2 if signs else total)
    ]


def _position(block: Block, atom: Atom, port: str) -> int:
    """The dimension that runs over the atom at this end of the edges."""
    candidates = [i for i, piece in enumerate(block.pieces) if piece.atom is atom]
    for wanted in (port, "both"):
        for i in candidates:
            if block.pieces[i].port == wanted:
                return i
    return candidates[0]
