"""From a finished trace to a GraphSpec: name the axes, cut parameters into edge sets."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from gmn.spec import (
    Axis as SpecAxis,
)
from gmn.spec import (
    Dim,
    EdgeSet,
    GraphSpec,
    NodeSet,
    Operation,
    Port,
    Role,
    Scaling,
    ScalingTerm,
    StateEntry,
)

from .axes import Atom, Axis, Sum, atoms, resolve
from .tracing import Tracing, Use
from .units import Unknown

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


def build_spec(trace: Tracing, entries: Sequence[StateEntry], unknown: Sequence[str]) -> GraphSpec:
    """The spec of a traced architecture.

    Args:
        trace: the trace, with units balanced.
        entries: the state dict.
        unknown: reports on operations without a rule.
    """
    blocks = {e.name: _blocks_of(trace, e) for e in entries if e.name in trace.parameters}
    names = Names(trace, [block for found in blocks.values() for block in found])
    edge_sets: list[EdgeSet] = []
    owners: list[Block] = []
    for name, found in blocks.items():
        for edges, block in zip(_edge_sets(trace, name, found, names), found, strict=True):
            edge_sets.append(edges)
            owners.append(block)
    return GraphSpec(
        entries=tuple(entries),
        axes=names.axes(),
        node_sets=names.node_sets(trace.operations),
        edge_sets=tuple(edge_sets),
        scalings=tuple(_scalings(trace, edge_sets, owners, names)),
        unknown=tuple(unknown),
    )


# --- blocks -------------------------------------------------------------------------------------


def _blocks_of(trace: Tracing, entry: StateEntry) -> list[Block]:
    uses = [use for use in trace.uses if use.parameter == entry.name]
    return [block for use in uses for block in _cut(use, trace.parameters[entry.name])]


def _cut(use: Use, axes: Sequence[Axis]) -> list[Block]:
    """The blocks of one use: one for every combination of terms of concatenated axes."""
    strides = [math.prod(_sizes(axes)[i + 1 :]) for i in range(len(axes))]
    steps = use.steps or (1.0,) * len(axes)
    leaves = [
        [
            (
                offset * stride,
                [(atom, inner * stride, port, step) for atom, inner in factors],
            )
            for offset, factors in _leaves(resolve(axis))
        ]
        for axis, stride, port, step in zip(axes, strides, use.ports, steps, strict=True)
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


def _block(
    use: Use, combination: Sequence[tuple[int, list[tuple[Atom, int, Port, float]]]]
) -> Block:
    shared = set(atoms(use.shared))
    ends: dict[str, list[Atom]] = {"target": [], "source": []}
    factors = [factor for _, found in combination for factor in found]
    ports: list[Port] = []
    for atom, _, port, _ in factors:
        port = "both" if atom in shared and port == "target" else port
        ports.append(port)
        if port != "tap":
            for end in ("target", "source") if port == "both" else (port,):
                ends[end].append(atom)
    target, source = (_neurons(ends[end]) for end in ("target", "source"))
    pieces = [
        _piece(atom, stride, port, step, {"target": target, "source": source})
        for (atom, stride, _, step), port in zip(factors, ports, strict=True)
    ]
    kept = [p for p in pieces if p.size > 1 or p.atom is not None]
    present = {piece.atom for piece in kept}
    for atom in (*target, *source):
        if atom not in present:
            kept.append(Piece(atom, atom.size, 0, "both", 1.0))
            present.add(atom)
    return Block(use, tuple(kept), sum(offset for offset, _ in combination), target, source)


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
    large = [atom for atom in chosen if atom.size > 1]
    return tuple(large or chosen[:1] or [Atom(1, "a single value")])


def _piece(atom: Atom, stride: int, port: Port, step: float, ends: dict[str, NodeKey]) -> Piece:
    wanted = ends["target"] + ends["source"] if port == "both" else ends.get(port, ())
    if port != "tap" and atom in wanted:
        return Piece(atom, atom.size, stride, port, step)
    return Piece(None, atom.size, stride, "tap", step)


# --- names --------------------------------------------------------------------------------------


class Names:
    """Names of node sets and axes, given in the order in which the network runs."""

    def __init__(self, trace: Tracing, blocks: Sequence[Block]) -> None:
        self._trace = trace
        order = {id(use): number for number, use in enumerate(trace.uses)}
        ordered = sorted(blocks, key=lambda block: order[id(block.use)])
        self._keys: dict[NodeKey, str] = {}
        for block in ordered:
            if block.source not in self._keys and block.source != block.target:
                self._name(block.source, self._source_name(block))
            if block.use.kind == "weight" or block.target not in self._keys:
                self._name(block.target, _module_of(block.use.parameter))
        self._atoms: dict[Atom, str] = {}
        for key, name in self._keys.items():
            for position, atom in enumerate(key):
                self._atoms.setdefault(atom, name if len(key) == 1 else f"{name}.{position}")
        self._deduplicate()

    def _source_name(self, block: Block) -> str:
        is_input = all("input" in atom.roles for atom in block.source)
        return "input" if is_input else f"{_module_of(block.use.parameter)}.input"

    def _name(self, key: NodeKey, wanted: str) -> None:
        if key in self._keys:
            return
        name, taken = wanted, set(self._keys.values())
        for number in itertools.count(2):
            if name not in taken:
                break
            name = f"{wanted}.{number}"
        self._keys[key] = name

    def _deduplicate(self) -> None:
        taken: set[str] = set()
        for atom, wanted in self._atoms.items():
            name = wanted
            for number in itertools.count(2):
                if name not in taken:
                    break
                name = f"{wanted}.{number}"
            taken.add(name)
            self._atoms[atom] = name

    def node_set(self, key: NodeKey) -> str:
        """Name of a node set."""
        return self._keys[key]

    def axis(self, atom: Atom | None) -> str | None:
        """Name of an axis; None if it numbers no neurons."""
        return None if atom is None else self._atoms.get(atom)

    def axes(self) -> tuple[SpecAxis, ...]:
        """All axes of the spec."""
        return tuple(
            SpecAxis(name, atom.size, not atom.fixed and atom.size > 1, self._within(atom))
            for atom, name in self._atoms.items()
        )

    def _within(self, atom: Atom) -> tuple[str, ...]:
        parents = sorted(self._atoms[p] for p in atom.within if p in self._atoms)
        return () if atom.fixed else tuple(parents)

    def node_sets(self, operations: Sequence[tuple[Operation, object]]) -> tuple[NodeSet, ...]:
        """All node sets, with the operations that run on them."""
        found: dict[NodeKey, list[Operation]] = {key: [] for key in self._keys}
        for operation, node in operations:
            value = self._trace.values[node]  # type: ignore[index]
            axes = value[0] if value and isinstance(value[0], list) else value
            for key in self._on(frozenset(a for axis in axes for a in atoms(axis))):
                found[key].append(operation)
        return tuple(
            NodeSet(
                name,
                _role(key),
                tuple(self._atoms[atom] for atom in key),
                tuple(atom.size for atom in key),
                tuple(found[key]),
            )
            for key, name in self._keys.items()
        )

    def _on(self, present: frozenset[Atom]) -> list[NodeKey]:
        """The largest node sets whose axes a value has."""
        inside = [key for key in self._keys if present.issuperset(key)]
        return [k for k in inside if not any(set(k) < set(other) for other in inside)]


def _module_of(parameter: str) -> str:
    return parameter.rpartition(".")[0] or parameter


def _role(key: NodeKey) -> Role:
    if any(not atom.fixed for atom in key):
        return "hidden"
    roles = {role for atom in key for role in atom.roles}
    return "input" if "input" in roles else "output" if "output" in roles else "ordered"


# --- edge sets ----------------------------------------------------------------------------------


def _edge_sets(trace: Tracing, name: str, blocks: Sequence[Block], names: Names) -> list[EdgeSet]:
    """Edge sets of one parameter; those of its first use hold it, those of others are tied."""
    result: list[EdgeSet] = []
    first = blocks[0].use if blocks else None
    per_use = sum(block.use is first for block in blocks)
    for number, block in enumerate(blocks):
        use, part = number // per_use, number % per_use
        suffix = f"[{part}]" if per_use > 1 else ""
        primary = f"{name}{suffix}"
        edges = EdgeSet(
            name=primary if use == 0 else f"{primary}@{use + 1}",
            parameter=name,
            kind=block.use.kind,
            source=names.node_set(block.source),
            target=names.node_set(block.target),
            dims=tuple(
                Dim(p.size, p.stride, p.port, names.axis(p.atom), p.step) for p in block.pieces
            ),
            operation=block.use.operation,
            depth=trace.depth[block.use.node],
            offset=block.offset,
        )
        result.append(edges if use == 0 else replace(edges, tied_to=primary))
    return result


# --- scalings -----------------------------------------------------------------------------------


def _scalings(
    trace: Tracing, edge_sets: Sequence[EdgeSet], blocks: Sequence[Block], names: Names
) -> list[Scaling]:
    result: list[Scaling] = []
    taken: set[str] = set()
    for domain, found in trace.balance.solutions(trace.scales()).items():
        for free, followers in found.items():
            over = _order(free.atoms, blocks)
            if any(names.axis(atom) is None for atom in over):
                continue
            terms = _terms_of(trace, over, followers, edge_sets, blocks, signs=domain == "sign")
            if not terms:
                continue
            terms = [replace(t, exponent=t.exponent / terms[0].exponent) for t in terms]
            target = next(e for e in edge_sets if e.name == terms[0].edge_set).target
            name = wanted = f"{target}.{'sign' if domain == 'sign' else 'scale'}"
            for number in itertools.count(2):
                if name not in taken:
                    break
                name = f"{wanted}.{number}"
            taken.add(name)
            result.append(
                Scaling(
                    name,
                    "sign" if domain == "sign" else "positive",
                    tuple(names.axis(atom) or "" for atom in over),
                    tuple(atom.size for atom in over),
                    tuple(terms),
                )
            )
    return result


def _order(over: frozenset[Atom], blocks: Sequence[Block]) -> list[Atom]:
    seen = dict.fromkeys(p.atom for block in blocks for p in block.pieces if p.atom in over)
    return [atom for atom in (*seen, *(over - set(seen))) if atom is not None]


def _terms_of(
    trace: Tracing,
    over: Sequence[Atom],
    followers: Mapping[Unknown, Fraction],
    edge_sets: Sequence[EdgeSet],
    blocks: Sequence[Block],
    *,
    signs: bool,
) -> list[ScalingTerm]:
    powers: dict[tuple[str, tuple[int, ...]], tuple[float, float]] = {}
    for edges, block in zip(edge_sets, blocks, strict=True):
        if edges.tied_to is not None:
            continue
        for unknown, power in followers.items():
            if unknown.parameter == edges.parameter:
                dims = tuple(_position(block, atom, unknown.port) for atom in over)
                offset = trace.offsets.get(edges.parameter, 0.0)
                total = powers.get((edges.name, dims), (0.0, 0.0))[0] + float(power)
                powers[edges.name, dims] = (total % 2 if signs else total, offset)
    return [
        ScalingTerm(name, dims, power, offset)
        for (name, dims), (power, offset) in powers.items()
        if power
    ]


def _position(block: Block, atom: Atom, port: str) -> int:
    candidates = [i for i, piece in enumerate(block.pieces) if piece.atom is atom]
    for wanted in (port, "both"):
        for i in candidates:
            if block.pieces[i].port == wanted:
                return i
    return candidates[0]
