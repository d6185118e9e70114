"""GraphSpec: structure and symmetry of one architecture, checked, and JSON both ways."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import cached_property
from typing import TypeVar

from gmn.errors import DataError
from gmn.foundation.arguments import require_type
from gmn.spec.encoding import decode, encode
from gmn.spec.parts import Axis, EdgeSet, NodeSet, StateEntry
from gmn.spec.program import Observation, Program
from gmn.spec.symmetries import (
    Exchange,
    Gauge,
    Scaling,
    Symmetries,
    Translation,
    TranslationTerm,
)

FORMAT_VERSION = 1
# Neurons and inputs per number of the state dict, and beyond: who reads a graph or runs its program
# makes room for them.
PER_NUMBER, FREE_NEURONS, FREE_INPUTS = 1000, 1 << 20, 1 << 24
T = TypeVar("T")


class SpecError(DataError, ValueError):
    """A graph spec, or a text that should hold one, is inconsistent."""


@dataclass(frozen=True, repr=False)
class GraphSpec:
    """Structure and symmetry of one architecture. Frozen, hashable, JSON both ways.

    Attributes:
        entries: the state dict, in its order.
        axes: all index sets.
        node_sets: all sets of neurons.
        edge_sets: all blocks of learnable entries; statistics of normalisation layers are edge
            sets of kind ``mean`` and ``variance``, other numbers that decide the function of kind
            ``constant``.
        scalings: scale symmetries.
        gauges: changes of basis.
        translations: numbers that may be added.
        exchanges: branches that may trade places.
        unknown: operations without a rule; the axes they touch are ordered.
        program: the forward function, if it can be said as data. It does not count in comparisons:
            what a metanetwork knows of weights is the structure.
        tried: names of the axes, scalings, gauges, translations and exchanges that held on the
            module itself with random weights, as far as known. Neither this nor ``untried`` counts
            in comparisons.
        untried: why the others were not tried.

    Raises:
        SpecError: if names collide or dangle, or a parameter is not covered exactly once.
    """

    entries: tuple[StateEntry, ...]
    axes: tuple[Axis, ...]
    node_sets: tuple[NodeSet, ...]
    edge_sets: tuple[EdgeSet, ...]
    scalings: tuple[Scaling, ...] = ()
    gauges: tuple[Gauge, ...] = ()
    translations: tuple[Translation, ...] = ()
    exchanges: tuple[Exchange, ...] = ()
    unknown: tuple[str, ...] = ()
    program: Program | None = field(default=None, compare=False)
    tried: tuple[str, ...] = field(default=(), compare=False)
    untried: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        acting = (*self.symmetries.followed, *self.exchanges)
        for group in (self.entries, self.axes, self.node_sets, self.edge_sets, acting):
            names = Counter(item.name for item in group)
            if repeated := [name for name, count in names.items() if count > 1]:
                raise SpecError(f"{type(group[0]).__name__} names repeat: {', '.join(repeated)}")
        self._check_references()
        self._check_sizes()
        self._check_cover()
        for exchange in self.exchanges:
            self._check_exchange(exchange)

    def _check_references(self) -> None:
        for nodes in self.node_sets:
            if nodes.shape != tuple(self._axis(name, nodes.name).size for name in nodes.axes):
                raise SpecError(
                    f"node set {nodes.name}: shape {nodes.shape} is not that of its axes"
                )
        for edges in self.edge_sets:
            for end in (edges.source, edges.target):
                if end not in self._node_sets:
                    raise SpecError(f"edge set {edges.name}: no node set is called {end!r}")
            for dim in edges.dims:
                if dim.axis is None:
                    continue
                size = self._axis(dim.axis, edges.name).size
                if dim.size != size:
                    raise SpecError(
                        f"edge set {edges.name}: a dim of size {dim.size} differs from its axis "
                        f"{dim.axis!r} of size {size}"
                    )
        for symmetry in self.symmetries.followed:
            for term in symmetry.terms:
                if term.edge_set not in self._edge_sets:
                    raise SpecError(f"{symmetry.name}: no edge set {term.edge_set!r}")
                self._check_changes(symmetry.name, self._edge_sets[term.edge_set].parameter)
            self._check_terms(symmetry)
        for translation in self.translations:
            self._check_carried(translation)
        for observation in self.program.observations if self.program is not None else ():
            self._check_observation(observation)

    def _check_observation(self, seen: Observation) -> None:
        """Checks that a program's observation is of neurons that are there, all of them."""
        factors = [factor for side in seen.sides for factor in side.factors]
        if seen.nodes not in self._node_sets:
            raise SpecError(f"{seen.value}: no node set is called {seen.nodes!r}")
        if seen.reader is not None and seen.reader not in self._edge_sets:
            raise SpecError(f"{seen.value}: no edge set is called {seen.reader!r}")
        neurons = math.prod(factor.size for factor in factors if factor.axis is not None)
        if neurons != self._node_sets[seen.nodes].size:
            raise SpecError(f"{seen.value} holds {neurons} neurons, not those of {seen.nodes}")

    def _check_terms(self, symmetry: Scaling | Gauge | Translation) -> None:
        """Checks that a symmetry has as many numbers as its axes and the edges that follow it."""
        for axis, size in zip(symmetry.axes, symmetry.shape, strict=True):
            if axis is not None and self._axis(axis, symmetry.name).size != size:
                raise SpecError(f"{symmetry.name}: shape {symmetry.shape} is not that of its axes")
        for term in symmetry.terms:
            if isinstance(term, TranslationTerm) and term.through is not None:
                continue
            if _sizes(self._edge_sets[term.edge_set], term.dims) != symmetry.shape:
                raise SpecError(
                    f"{symmetry.name}: dims {term.dims} of {term.edge_set} are not of its shape "
                    f"{symmetry.shape}"
                )

    def _check_sizes(self) -> None:
        """Checks that blocks lie within their entries, so that nothing is larger than weights."""
        sizes = [size for entry in self.entries for size in entry.shape]
        if min(sizes + [axis.size for axis in self.axes], default=0) < 0:
            raise SpecError("a size of an entry or axis is negative")
        for edges in self.edge_sets:
            entry = self._entries.get(edges.parameter)
            if entry is None:
                raise SpecError(f"edge set {edges.name}: no state-dict entry {edges.parameter!r}")
            if not _lies_within(edges, entry.numbers):
                raise SpecError(f"edge set {edges.name} does not lie within {edges.parameter}")
        numbers = sum(entry.numbers for entry in self.entries)
        if self.num_nodes > PER_NUMBER * numbers + FREE_NEURONS:
            raise SpecError(f"{self.num_nodes:,} neurons for {numbers:,} numbers")
        given = self.program.inputs if self.program is not None else ()
        for one in given:
            if min(one.shape, default=0) < 0 or (
                math.prod(one.shape) > PER_NUMBER * numbers + FREE_INPUTS
            ):
                raise SpecError(f"an input of shape {one.shape} for {numbers:,} numbers")

    def _check_carried(self, translation: Translation) -> None:
        """Checks the shapes of terms through a weight, and that the first term passes none."""
        name, moved = translation.name, {term.edge_set for term in translation.terms}
        if translation.terms and translation.terms[0].through is not None:
            raise SpecError(f"{name}: its first term must be without a weight to pass")
        for term in translation.terms:
            if (through := term.through) is None:
                continue
            if through.edge_set not in self._edge_sets:
                raise SpecError(f"{name}: no edge set {through.edge_set!r} to pass")
            if through.edge_set in moved:
                raise SpecError(f"{name}: it moves {through.edge_set}, which its numbers pass")
            weight, edges = self._edge_sets[through.edge_set], self._edge_sets[term.edge_set]
            shape = _sizes(edges, term.dims)
            if (_sizes(weight, through.source), _sizes(weight, through.target)) != (
                translation.shape,
                shape,
            ):
                raise SpecError(
                    f"{name}: {through.edge_set} does not take numbers of shape "
                    f"{translation.shape} to {shape} of {term.edge_set}"
                )

    def _check_changes(self, symmetry: str, name: str) -> None:
        entry = self._entries.get(name)
        if entry is not None and not (entry.floating or entry.complex):
            raise SpecError(f"{symmetry}: {name} holds integers, which no scale can change")

    def _axis(self, name: str, user: str) -> Axis:
        if name not in self._axes:
            raise SpecError(f"{user}: no axis is called {name!r}")
        return self._axes[name]

    def _check_cover(self) -> None:
        covered: Counter[str] = Counter()
        for edges in self.edge_sets:
            covered[edges.parameter] += edges.size if edges.tied_to is None else 0
        for entry in self.entries:
            own = entry.learnable and entry.tied_to is None
            if own and covered[entry.name] != entry.numbers:
                raise SpecError(
                    f"{entry.name}: edge sets hold {covered[entry.name]} of its {entry.numbers} "
                    "elements"
                )

    def _check_exchange(self, exchange: Exchange) -> None:
        names = [name for branch in exchange.branches for name in branch]
        for name in names:
            if name not in self._edge_sets:
                raise SpecError(f"{exchange.name}: no edge set {name!r}")
            if self._edge_sets[name].tied_to is not None:
                raise SpecError(f"{exchange.name}: {name} is a further use of other edges")
        if repeated := [name for name, count in Counter(names).items() if count > 1]:
            raise SpecError(f"{exchange.name}: {', '.join(repeated)} would move twice")
        if len({len(branch) for branch in exchange.branches}) != 1 or len(exchange.branches) < 2:
            raise SpecError(f"{exchange.name}: branches need to be two or more, of as many edges")
        for column in zip(*exchange.branches, strict=True):
            if len({self._content(name) for name in column}) > 1:
                raise SpecError(f"{exchange.name}: {', '.join(column)} differ in shape or type")

    def _content(self, name: str) -> tuple[object, ...]:
        """What edge sets have in common if their values may be exchanged."""
        edges = self._edge_sets[name]
        entry = self._entries[edges.parameter]
        return edges.shape, edges.kind, entry.parameter, entry.floating, entry.complex

    @cached_property
    def _axes(self) -> Mapping[str, Axis]:
        return {item.name: item for item in self.axes}

    @cached_property
    def _node_sets(self) -> Mapping[str, NodeSet]:
        return {item.name: item for item in self.node_sets}

    @cached_property
    def _edge_sets(self) -> Mapping[str, EdgeSet]:
        return {item.name: item for item in self.edge_sets}

    @cached_property
    def _entries(self) -> Mapping[str, StateEntry]:
        return {item.name: item for item in self.entries}

    def axis(self, name: str) -> Axis:
        """The axis of this name. Raises KeyError if there is none."""
        return _named(self._axes, name, "axis")

    def node_set(self, name: str) -> NodeSet:
        """The node set of this name. Raises KeyError if there is none."""
        return _named(self._node_sets, name, "node set")

    def edge_set(self, name: str) -> EdgeSet:
        """The edge set of this name. Raises KeyError if there is none."""
        return _named(self._edge_sets, name, "edge set")

    def entry(self, name: str) -> StateEntry:
        """The state-dict entry of this name. Raises KeyError if there is none."""
        return _named(self._entries, name, "entry")

    def is_parameter(self, edges: EdgeSet) -> bool:
        """Whether the edge set holds learnable parameters; False for statistics and constants."""
        return self._entries[edges.parameter].learnable

    @cached_property
    def symmetries(self) -> Symmetries:
        """Permutations (axes that may move), and all else that keeps the function."""
        moving = tuple(axis for axis in self.axes if axis.movable and axis.size > 1)
        acting = self.scalings, self.gauges, self.translations, self.exchanges
        return Symmetries(moving, *acting)

    @cached_property
    def places(self) -> Mapping[str, str]:
        """By edge set that exchanges move, the first edge set of its orbit."""
        order = {name: index for index, name in enumerate(self._edge_sets)}
        first: dict[str, str] = {}
        members: dict[str, set[str]] = {}
        for exchange in self.exchanges:
            for column in zip(*exchange.branches, strict=True):
                roots = {first.get(name, name) for name in column}
                root = min(roots, key=order.__getitem__)
                orbit = set(column).union(*(members.pop(name, {name}) for name in roots))
                members[root] = orbit
                first |= dict.fromkeys(orbit, root)
        return first

    @cached_property
    def num_parameters(self) -> int:
        """Number of parameter elements; tied tensors count once."""
        return sum(math.prod(e.shape) for e in self.entries if e.parameter and e.tied_to is None)

    @cached_property
    def num_nodes(self) -> int:
        """Number of neurons."""
        return sum(nodes.size for nodes in self.node_sets)

    @cached_property
    def constants(self) -> frozenset[str]:
        """Names of the state-dict entries that are on the graph as constants."""
        return frozenset(e.parameter for e in self.edge_sets if e.kind == "constant")

    @cached_property
    def left_out(self) -> tuple[StateEntry, ...]:
        """State-dict entries that are not on the graph, since the network never reads them."""
        held = {edges.parameter for edges in self.edge_sets}
        return tuple(e for e in self.entries if (e.tied_to or e.name) not in held)

    @property
    def buffers(self) -> tuple[StateEntry, ...]:
        """State-dict entries that are not parameters."""
        return tuple(entry for entry in self.entries if not entry.parameter)

    def to_json(self) -> str:
        """The spec as JSON text; :meth:`from_json` gives an equal spec back."""
        return json.dumps({"format": FORMAT_VERSION, "spec": encode(self)}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> GraphSpec:
        """Reads :meth:`to_json`'s text.

        Raises:
            SpecError: if the text is not a spec of this format.
        """
        try:
            document = json.loads(text)
            version = document["format"]
        except RecursionError:
            raise SpecError("not a graph spec: nested too deeply") from None
        except (ValueError, KeyError, TypeError) as error:
            raise SpecError(f"not a graph spec: {error}") from error
        if version != FORMAT_VERSION:
            raise SpecError(f"format {version!r}; this version reads {FORMAT_VERSION}")
        try:
            return decode(cls, document["spec"])
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            raise SpecError(f"not a graph spec: {error}") from error

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the JSON text: equal specs, equal fingerprints, in every process."""
        text = replace(self, program=None, tried=(), untried="").to_json()
        return hashlib.sha256(text.encode()).hexdigest()

    def __hash__(self) -> int:
        return int(self.fingerprint[:15], 16)

    def __repr__(self) -> str:
        from gmn.spec.printing import describe

        return describe(self)


def _lies_within(edges: EdgeSet, numbers: int) -> bool:
    """Whether a block has its elements in an entry of so many, each once as far as counts tell."""
    if min(edges.shape, default=0) < 0:
        return False
    if edges.size == 0:
        return True
    steps = [dim.stride - (dim.size > 1) for dim in edges.dims]
    last = edges.offset + sum((dim.size - 1) * dim.stride for dim in edges.dims)
    return min([edges.offset, *steps]) >= 0 and last < numbers and edges.size <= numbers


def _sizes(edges: EdgeSet, dims: tuple[int, ...]) -> tuple[int, ...] | None:
    """Sizes of some dimensions; None if it lacks one, or one is named twice."""
    if len(set(dims)) < len(dims) or not all(0 <= dim < len(edges.dims) for dim in dims):
        return None
    return tuple(edges.dims[dim].size for dim in dims)


def _named(parts: Mapping[str, T], name: str, kind: str) -> T:
    require_type("name", name, str, f"the name of one {kind}")
    try:
        return parts[name]
    except KeyError:
        near = get_close_matches(name, parts) or list(parts)[:5]
        raise KeyError(f"no {kind} is called {name!r}; others: {', '.join(near)}") from None
