"""Cuts each parameter into blocks, one for each pair of node sets that it connects."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from gmn.spec import Port, StateEntry

from ..inference.actions import Actions, Use
from ..inference.axes import Atom, Axis, Sum, resolve
from ..inference.equations import Key, Place

NodeKey = tuple[Atom, ...]


@dataclass(frozen=True)
class BlockDim:
    """One dimension of a block before axes have names."""

    atom: Atom | None
    size: int
    stride: int
    port: Port
    step: float


@dataclass(frozen=True)
class Block:
    """An edge set before axes and node sets have names.

    Attributes:
        use: the use of the parameter.
        key: which part of the parameter it is.
        index: its position among the combinations of terms.
        pieces: its dimensions.
        places: by place of the parameter, the index of its piece.
        offset: first element, in the flattened tensor.
        target: the neurons that edges enter.
        source: the neurons that they leave.
    """

    use: Use
    key: Key
    index: int
    pieces: tuple[BlockDim, ...]
    places: Mapping[Place, int]
    offset: int
    target: NodeKey
    source: NodeKey

    def at(self, place: Place) -> int | None:
        """The dimension that runs over a place of the parameter."""
        return self.places.get(place)


@dataclass(frozen=True)
class AxisTerm:
    """One term of one dimension of a parameter tensor.

    Attributes:
        offset: first element, in the flattened tensor.
        index: which term of the dimension it is; None if it has no others.
        factors: place (none for atoms of one index), atom, stride, port and step of each factor.
    """

    offset: int
    index: int | None
    factors: tuple[tuple[Place | None, Atom, int, Port, float], ...]


def uses_by_parameter(actions: Actions) -> dict[str, list[Use]]:
    """The uses of every parameter, in execution order."""
    uses: dict[str, list[Use]] = {}
    for use in actions.uses:
        uses.setdefault(use.parameter, []).append(use)
    return uses


def blocks_of(actions: Actions, entry: StateEntry, uses: Sequence[Use]) -> list[Block]:
    """The blocks of one entry of the state dict, use by use in execution order."""
    axes = actions.trace.parameters[entry.name]
    blocks = [block for use in uses for block in _cut(use, axes)]
    return [_real(block) for block in blocks] if entry.complex else blocks


def _real(block: Block) -> Block:
    """A block of complex numbers as pairs of real ones: the last dimension is a tap."""
    pieces = [replace(piece, stride=2 * piece.stride) for piece in block.pieces]
    pair = BlockDim(None, 2, 1, "tap", 1.0)
    return replace(block, pieces=(*pieces, pair), offset=2 * block.offset)


def _cut(use: Use, axes: Sequence[Axis]) -> list[Block]:
    """The blocks of one use: one for every combination of terms of concatenated axes."""
    strides = [math.prod(_sizes(axes)[i + 1 :]) for i in range(len(axes))]
    steps = use.steps or (1.0,) * len(axes)
    inner = dict(use.inner)
    leaves = []
    for dim, axis in enumerate(axes):
        terms = _leaves(resolve(axis))
        row = []
        for index, (offset, factors) in enumerate(terms):
            counter = itertools.count()
            made = []
            for atom, stride in factors:
                place = (dim, next(counter)) if atom.size > 1 else None
                port = use.ports[dim] if place is None else inner.get(place, use.ports[dim])
                made.append((place, atom, stride * strides[dim], port, steps[dim]))
            row.append(
                AxisTerm(offset * strides[dim], index if len(terms) > 1 else None, tuple(made))
            )
        leaves.append(row)
    blocks = []
    for index, combination in enumerate(itertools.product(*leaves)):
        key = tuple((d, leaf.index) for d, leaf in enumerate(combination) if leaf.index is not None)
        if use.key is None or use.key == key:
            blocks.append(_block(use, key, index, combination))
    return blocks


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
    result, start = [], 0
    for term in factor.terms:
        result += [(start + offset, inner) for offset, inner in _leaves(resolve(term))]
        start += math.prod(f.size for f in term)
    return result


def _block(use: Use, key: Key, index: int, leaves: Sequence[AxisTerm]) -> Block:
    ends: dict[str, list[Atom]] = {"target": [], "source": []}
    factors = [factor for leaf in leaves for factor in leaf.factors]
    for _, atom, _, port, _ in factors:
        if port != "tap":
            for end in ("target", "source") if port == "both" else (port,):
                ends[end].append(atom)
    target = _neurons(ends["target"])
    source = target if ends["source"] == ends["target"] else _neurons(ends["source"])
    kept: list[BlockDim] = []
    places: dict[Place, int] = {}
    for place, atom, stride, port, step in factors:
        piece = _piece(atom, stride, port, step, {"target": target, "source": source})
        if piece.size != 1 or piece.atom is not None:
            if place is not None:
                places[place] = len(kept)
            kept.append(piece)
    present = {piece.atom for piece in kept}
    for atom in (*target, *source):
        if atom not in present:
            kept.append(BlockDim(atom, atom.size, 0, "both", 1.0))
            present.add(atom)
    offset = sum(leaf.offset for leaf in leaves)
    return Block(use, key, index, tuple(kept), places, offset, target, source)


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


def _piece(atom: Atom, stride: int, port: Port, step: float, ends: dict[str, NodeKey]) -> BlockDim:
    neurons = ends["target"] + ends["source"] if port == "both" else ends.get(port, ())
    if port != "tap" and atom in neurons:
        return BlockDim(atom, atom.size, stride, port, step)
    return BlockDim(None, atom.size, stride, "tap", step)
