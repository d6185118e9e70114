"""The symmetries of a spec as values: scalings, changes of basis, translations, exchanges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gmn.spec.parts import Axis, Port

Domain = Literal["positive", "sign", "phase"]
MatrixGroup = Literal["general", "orthogonal"]


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
