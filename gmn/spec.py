"""GraphSpec: the architecture of a network as a value, without its weights.

A spec says which neurons a network has (*node sets*), which parameter connects which neurons
(*edge sets*), and which transformations of the parameters leave the network's function unchanged
(*symmetries*). It is traced once per architecture and then applied to any number of state dicts.

Three words recur. An **axis** is an index set that permutations act on. A **node set** is a set of
neurons indexed by one axis, or by several (attention units: head × unit). An **edge set** is a
block of one parameter tensor; each of its dimensions runs over an axis or over *taps*, positions
that carry meaning and never move (kernel offsets, flattened pixels).
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import cached_property
from typing import Literal, TypeVar

from gmn._json import decode, encode
from gmn.program import Program

FORMAT_VERSION = 1
T = TypeVar("T")

Role = Literal["input", "hidden", "output", "ordered"]
Port = Literal["target", "source", "both", "tap"]
Domain = Literal["positive", "sign", "phase"]
MatrixGroup = Literal["general", "orthogonal"]


class SpecError(ValueError):
    """A graph spec, or a text that should hold one, is inconsistent."""


@dataclass(frozen=True)
class Operation:
    """One operation of the network, with the attributes that change its function.

    Attributes:
        name: the operation's name in the exported graph, such as ``conv2d`` or ``relu``.
        attributes: named numbers, such as ``("stride", (2.0, 2.0))``, sorted by name.
    """

    name: str
    attributes: tuple[tuple[str, tuple[float, ...]], ...] = ()

    def __str__(self) -> str:
        shown = (f"{key}={'×'.join(f'{v:g}' for v in values)}" for key, values in self.attributes)
        return f"{self.name}({', '.join(shown)})" if self.attributes else self.name


@dataclass(frozen=True)
class Axis:
    """An index set. If ``movable``, permuting it everywhere leaves the function unchanged.

    Attributes:
        name: unique in the spec.
        size: number of indices.
        movable: whether permutations of it are symmetries.
        within: names of the axes it depends on: every index of those has a permutation of its own
            (units within heads, channels within groups: a wreath product).
    """

    name: str
    size: int
    movable: bool
    within: tuple[str, ...] = ()


@dataclass(frozen=True)
class NodeSet:
    """A set of neurons that are permuted together.

    Attributes:
        name: unique in the spec.
        role: ``input``, ``hidden``, ``output``; ``ordered`` for other neurons that may not move.
        axes: the axes that index it; the node number is row-major in them.
        shape: the sizes of these axes.
        operations: parameter-free operations applied to these neurons, in execution order.
    """

    name: str
    role: Role
    axes: tuple[str, ...]
    shape: tuple[int, ...]
    operations: tuple[Operation, ...] = ()

    @property
    def size(self) -> int:
        """Number of neurons."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Dim:
    """One dimension of a block of a parameter tensor.

    Attributes:
        size: its length.
        stride: step in elements of the flattened parameter tensor.
        port: whether it indexes the edge's ``target`` neuron, its ``source``, ``both`` (a diagonal
            or grouped block) or a ``tap``.
        axis: the axis it runs over; None for taps.
        step: distance between neighbouring taps, in input positions (a kernel's dilation).
    """

    size: int
    stride: int
    port: Port
    axis: str | None = None
    step: float = 1.0


@dataclass(frozen=True)
class EdgeSet:
    """A parameter tensor, or a slice of one, as edges between two node sets.

    Attributes:
        name: unique in the spec; the parameter's name where it has only one edge set.
        parameter: the state-dict entry that holds the values.
        kind: what the values do: ``weight``, ``bias``, ``gain``, ``shift``, ``mean``, ``variance``;
            ``constant`` for numbers that decide the function but are not learned (masks,
            frequencies, integer weights), in buffers or parameters.
        source: name of the node set the edges leave.
        target: name of the node set the edges enter.
        dims: the block's dimensions, in the order of the parameter tensor; of complex entries,
            those of their real view (``torch.view_as_real``), whose last one is a tap of size 2.
        operation: the operation that reads the values.
        depth: number of weight layers on the longest path from an input to this one.
        offset: first element of the block in the flattened parameter tensor.
        tied_to: the edge set that holds the same elements, if this is a further use of them.
        route: where other edges of its kind connect the same neurons, what tells it from them: the
            operand that it is, and the operations that its results pass through.
        context: what is computed around the operation that reads the values: digests of the
            program within one, two, ... steps of it, from near to far, joined by dots; empty if
            unknown.
    """

    name: str
    parameter: str
    kind: str
    source: str
    target: str
    dims: tuple[Dim, ...]
    operation: Operation
    depth: int
    offset: int = 0
    tied_to: str | None = None
    route: tuple[str, ...] = ()
    context: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the block's dimensions."""
        return tuple(dim.size for dim in self.dims)

    @property
    def size(self) -> int:
        """Number of edges, which is the number of parameter elements."""
        return math.prod(self.shape)

    @property
    def diagonal(self) -> bool:
        """Whether each edge begins and ends at one neuron (biases, normalisation)."""
        return self.source == self.target and all(dim.port in ("both", "tap") for dim in self.dims)

    @property
    def num_pairs(self) -> int:
        """Number of pairs of neurons."""
        return math.prod(dim.size for dim in self.dims if dim.port != "tap")

    @property
    def num_taps(self) -> int:
        """Number of parameter elements per pair of neurons."""
        return math.prod(dim.size for dim in self.dims if dim.port == "tap")


@dataclass(frozen=True)
class StateEntry:
    """One entry of the state dict.

    Attributes:
        name: its key.
        shape: its shape.
        parameter: True for parameters, False for buffers.
        floating: whether it holds real floating-point numbers.
        tied_to: an earlier entry that is the same tensor, if any.
        complex: whether it holds complex numbers.
    """

    name: str
    shape: tuple[int, ...]
    parameter: bool
    floating: bool
    tied_to: str | None = None
    complex: bool = False

    @property
    def learnable(self) -> bool:
        """Whether it is a parameter that can change by small amounts: no integers, no buffers."""
        return self.parameter and (self.floating or self.complex)

    @property
    def numbers(self) -> int:
        """How many real numbers it holds."""
        return math.prod(self.shape) * (2 if self.complex else 1)


@dataclass(frozen=True)
class ScalingTerm:
    """How one edge set follows a scaling: ``w + offset`` is multiplied by ``s ** exponent``.

    Attributes:
        edge_set: name of the edge set.
        dims: positions in its ``dims`` that run over the scaling's axes, in the order of those.
        exponent: power of the scale.
        offset: constant added before and removed after scaling (the epsilon of a variance).
        shift: constant added per step of a phase.
        port: the end of the edges whose neurons are scaled; ``both`` for diagonal blocks.
    """

    edge_set: str
    dims: tuple[int, ...]
    exponent: float
    offset: float = 0.0
    shift: float = 0.0
    port: Port = "both"


@dataclass(frozen=True)
class Scaling:
    """One independent scale for every index of ``axes``, acting on several edge sets at once.

    A ``phase`` is a number of half periods of a sine: it shifts the bias before it, and an odd
    number of them changes the sign of what reads it.

    Attributes:
        name: unique in the spec.
        domain: ``positive`` scales, ``sign`` flips, or whole numbers of half periods (``phase``).
        axes: the axes it runs over.
        shape: their sizes.
        terms: the edge sets that follow it.
    """

    name: str
    domain: Domain
    axes: tuple[str, ...]
    shape: tuple[int, ...]
    terms: tuple[ScalingTerm, ...]


@dataclass(frozen=True)
class Gauge:
    """A change of basis along the last of ``axes``, an independent one per index of the others.

    Where the units of an axis are only ever mixed linearly (within the heads of attention, between
    two linear layers), any invertible matrix ``A`` may be put between them. Its diagonal matrices
    are scalings, which are not listed again.

    Attributes:
        name: unique in the spec.
        group: any invertible matrix (``general``) or an ``orthogonal`` one.
        axes: the axes it runs over; the last one is mixed.
        shape: their sizes.
        terms: the edge sets that follow it: multiplied along their dimension by ``A`` where the
            exponent is 1, by the transposed inverse of ``A`` where it is -1.
    """

    name: str
    group: MatrixGroup
    axes: tuple[str, ...]
    shape: tuple[int, ...]
    terms: tuple[ScalingTerm, ...]


@dataclass(frozen=True)
class Through:
    """A weight that a translation's numbers pass: their image under it is what is added.

    Attributes:
        edge_set: name of the weight's edge set.
        source: positions in its ``dims`` that run with the translation's axes, in their order.
        target: positions in its ``dims`` that run with the dimensions of the term that follows, in
            the order in which the term names them. All others are summed over.
    """

    edge_set: str
    source: tuple[int, ...]
    target: tuple[int, ...]


@dataclass(frozen=True)
class TranslationTerm:
    """An edge set that follows a translation: the same number is added wherever ``dims`` agree.

    Attributes:
        edge_set: name of the edge set.
        dims: positions in its ``dims`` that the added number depends on.
        factor: what the number is multiplied by before.
        through: the weight that the translation's numbers pass before; None for none.
    """

    edge_set: str
    dims: tuple[int, ...]
    factor: float = 1.0
    through: Through | None = None


@dataclass(frozen=True)
class Translation:
    """Numbers that may be added to edge sets because a softmax or a normalisation removes them.

    What is added to one bias may also be taken back in the next one, with a weight between them
    that carries it there.

    Attributes:
        name: unique in the spec.
        axes: what the numbers vary over; None for taps.
        shape: the sizes of these.
        terms: the edge sets that they are added to; the first one has the numbers as they are.
    """

    name: str
    axes: tuple[str | None, ...]
    shape: tuple[int, ...]
    terms: tuple[TranslationTerm, ...]


def _sizes(edges: EdgeSet, dims: tuple[int, ...]) -> tuple[int, ...] | None:
    """Sizes of some dimensions; None if it lacks one, or one is named twice."""
    if len(set(dims)) < len(dims) or not all(0 <= dim < len(edges.dims) for dim in dims):
        return None
    return tuple(edges.dims[dim].size for dim in dims)


@dataclass(frozen=True)
class Exchange:
    """Branches that may be permuted, since a sum, a maximum or a mean joins them.

    The edge sets of branches are exchanged block by block; indices inside a block stay.

    Attributes:
        name: unique in the spec.
        branches: names of the edge sets of each branch, in corresponding order.
    """

    name: str
    branches: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Symmetries:
    """The group of a spec: movable axes, scalings, changes of basis, translations, exchanges."""

    permutations: tuple[Axis, ...]
    scalings: tuple[Scaling, ...]
    gauges: tuple[Gauge, ...]
    translations: tuple[Translation, ...]
    exchanges: tuple[Exchange, ...] = ()

    @property
    def followed(self) -> tuple[Scaling | Gauge | Translation, ...]:
        """The symmetries that act on single numbers, and name the edge sets that follow them."""
        return (*self.scalings, *self.gauges, *self.translations)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all of them."""
        parts = (*self.permutations, *self.followed, *self.exchanges)
        return tuple(part.name for part in parts)


def _named(parts: Mapping[str, T], name: str, kind: str) -> T:
    try:
        return parts[name]
    except KeyError:
        near = get_close_matches(name, parts) or list(parts)[:5]
        raise KeyError(f"no {kind} is called {name!r}; others: {', '.join(near)}") from None


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
        for translation in self.translations:
            self._check_carried(translation)

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
            if edges.parameter not in self._entries:
                raise SpecError(f"edge set {edges.name}: no state-dict entry {edges.parameter!r}")
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
        except (KeyError, TypeError, ValueError) as error:
            raise SpecError(f"not a graph spec: {error}") from error

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the JSON text: equal specs, equal fingerprints, in every process."""
        text = replace(self, program=None, tried=(), untried="").to_json()
        return hashlib.sha256(text.encode()).hexdigest()

    def __hash__(self) -> int:
        return int(self.fingerprint[:15], 16)

    def __repr__(self) -> str:
        from gmn._print import describe

        return describe(self)
