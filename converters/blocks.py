"""Cuts parameters into blocks between neurons, before anything has a name."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from gmn.spec import Port, StateEntry

from .axes import Atom, Axis, Sum, atoms, resolve
from .tracing import Tracing, Use

NodeKey = tuple[Atom, ...]


@dataclass(frozen=True)
class Piece:
    """One dimension of a block before axes have names."""

    atom: Atom | None
    size: int
    stride: int
    port: Port
    step: float


@dataclass(frozen=True)
class Block:
    """An edge set before axes and node sets have names."""

    use: Use
    pieces: tuple[Piece, ...]
    offset: int
    target: NodeKey
    source: NodeKey
    terms: dict[Port, int]

    def term_at(self, port: str) -> int:
        """Which term of the axis at this end it is, where that is a concatenation."""
        found = [term for end, term in self.terms.items() if port in (end, "both")]
        return max(found, default=0)


@dataclass(frozen=True)
class Leaf:
    """One term of one dimension of a parameter tensor.

    Attributes:
        offset: first element, in the flattened tensor.
        number: which term of the dimension it is.
        factors: atom, stride, port and step of each factor.
    """

    offset: int
    number: int
    factors: tuple[tuple[Atom, int, Port, float], ...]


def blocks_of(trace: Tracing, entry: StateEntry) -> list[Block]:
    """The blocks of one entry of the state dict, use by use in execution order."""
    axes = trace.parameters[entry.name]
    return [block for use in trace.uses_of(entry.name) for block in _cut(use, axes)]


def _cut(use: Use, axes: Sequence[Axis]) -> list[Block]:
    """The blocks of one use: one for every combination of terms of concatenated axes."""
    strides = [math.prod(_sizes(axes)[i + 1 :]) for i in range(len(axes))]
    steps = use.steps or (1.0,) * len(axes)
    leaves = [
        [
            Leaf(
                offset * stride,
                number if len(found) > 1 else 0,
                tuple((atom, inner * stride, port, step) for atom, inner in factors),
            )
            for number, (offset, factors) in enumerate(found)
        ]
        for found, stride, port, step in zip(
            (_leaves(resolve(axis)) for axis in axes), strides, use.ports, steps, strict=True
        )
    ]
    return [_block(use, combination) for combination in itertools.product(*leaves)]


def _sizes(axes: Sequence[Axis]) -> list[int]:
    return [math.prod(factor.size for factor in axis) for axis in axes]


def _leaves(axis: Axis) -> list[tuple[int, list[tuple[Atom, int]]]]:
    """Offset and (atom, stride) factors of every term of an axis, in order."""
    result: list[tuple[int, list[tuple[Atom, int]]]] = [(0, [])]
    stride = 1
    for factor in reversed(axis):
        terms = _terms(factor)
        result = [
            (start * stride + offset, [*((a, s * stride) for a, s in inner), *rest])
            for start, inner in terms
            for offset, rest in result
        ]
        stride *= factor.size
    return result


def _terms(factor: Atom | Sum) -> list[tuple[int, list[tuple[Atom, int]]]]:
    if isinstance(factor, Atom):
        return [(0, [(factor, 1)])]
    found, start = [], 0
    for term in factor.terms:
        found += [(start + offset, inner) for offset, inner in _leaves(resolve(term))]
        start += math.prod(f.size for f in term)
    return found


def _block(use: Use, leaves: Sequence[Leaf]) -> Block:
    shared = set(atoms(use.shared))
    ends: dict[str, list[Atom]] = {"target": [], "source": []}
    factors = [factor for leaf in leaves for factor in leaf.factors]
    ports: list[Port] = []
    for atom, _, port, _ in factors:
        # The groups of a convolution stand on one dimension of the weight and index both ends.
        port = "both" if atom in shared and port != "tap" else port
        ports.append(port)
        if port != "tap":
            for end in ("target", "source") if port == "both" else (port,):
                ends[end].append(atom)
    target = _neurons(ends["target"])
    source = target if ends["source"] == ends["target"] else _neurons(ends["source"])
    pieces = [
        _piece(atom, stride, port, step, {"target": target, "source": source})
        for (atom, stride, _, step), port in zip(factors, ports, strict=True)
    ]
    kept = [p for p in pieces if p.size != 1 or p.atom is not None]
    present = {piece.atom for piece in kept}
    for atom in (*target, *source):
        if atom not in present:
            kept.append(Piece(atom, atom.size, 0, "both", 1.0))
            present.add(atom)
    term: dict[Port, int] = {}
    for leaf, port in zip(leaves, use.ports, strict=True):
        term[port] = max(leaf.number, term.get(port, 0))
    return Block(use, tuple(kept), sum(leaf.offset for leaf in leaves), target, source, term)


def _neurons(ends: list[Atom]) -> NodeKey:
    """Which of the factors of an axis number neurons; the others are taps.

    Those that may move and what they were split from. If none may, all but places of feature maps.
    """
    movable = {atom for atom in ends if not atom.fixed}
    chosen = [
        atom
        for atom in ends
        if atom in movable or (not atom.position and not movable.isdisjoint(atom.siblings))
    ]
    chosen = chosen or [atom for atom in ends if not atom.position] or ends
    chosen = list(dict.fromkeys(chosen))
    large = [atom for atom in chosen if atom.size != 1]
    return tuple(large or chosen[:1] or [Atom(1, "a single value")])


def _piece(atom: Atom, stride: int, port: Port, step: float, ends: dict[str, NodeKey]) -> Piece:
    wanted = ends["target"] + ends["source"] if port == "both" else ends.get(port, ())
    if port != "tap" and atom in wanted:
        return Piece(atom, atom.size, stride, port, step)
    return Piece(None, atom.size, stride, "tap", step)
