"""Turns solved equations between shifts into the translations of a spec.

A softmax over keys ignores what is constant along keys, LayerNorm what is constant along its
features, batch normalisation what its running mean follows; of two biases that are only ever added,
one may give to the other, and of two with a weight between them, too: the weight carries it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction

from gmn.spec import EdgeSet, Gauge, Scaling, Through, Translation, TranslationTerm

from ..inference.actions import Actions, Field
from ..inference.equations import Carrier, Following
from ..inference.solutions import Generator, generators
from .blocks import Block
from .names import Names, unique
from .scalings import Held, Index


def translations(actions: Actions, held: Held, names: Names) -> Iterator[Translation]:
    """The constants that may be added to the parameters of edge sets.

    Args:
        actions: how values transform.
        held: the edge sets that hold parameters and statistics, with their blocks.
        names: names of axes.
    """
    index, taken = Index(actions, held), set[str]()
    candidates = []
    for generator in generators(actions.shifts):
        if not _is_split(actions, generator):
            made = _translation(actions, generator, index, names)
            if made is not None:
                candidates.append(made)
    for _, suffix, axes, shape, terms in sorted(candidates, key=lambda item: item[0]):
        name = unique(f"{terms[0].edge_set}.{suffix}", taken)
        yield Translation(name, axes, shape, terms)


def stays_one(translation: Translation, acting: Sequence[Scaling | Gauge]) -> bool:
    """Whether scales and changes of basis leave a translation that a weight carries on as it is.

    They turn a number that is alike along a dimension into one that is not if they run over it.
    """
    if all(term.through is None for term in translation.terms):
        return True
    covered = {term.edge_set: {*term.dims} for term in translation.terms if term.through is None}
    return all(
        covered[term.edge_set].issuperset(term.dims)
        for symmetry in acting
        for term in symmetry.terms
        if term.edge_set in covered and symmetry.shape
    )


def _is_split(actions: Actions, generator: Generator) -> bool:
    """Whether a product would have shifts of both its factors: more than a sum of two shifts."""
    moved = {following.unknown for following in generator.terms}

    def shifted(factor: Field) -> bool:
        reduced = (actions.shifts.reduce(terms) for terms in factor.values())
        return any(term.unknown in moved for terms in reduced for term in terms)

    return any(shifted(first) and shifted(second) for first, second in actions.conflicts)


Made = tuple[int, str, tuple[str | None, ...], tuple[int, ...], tuple[TranslationTerm, ...]]


def _translation(actions: Actions, generator: Generator, index: Index, names: Names) -> Made | None:
    followed: dict[tuple[int, tuple[int, ...]], tuple[EdgeSet, Block, Fraction]] = {}
    for (unknown, follows, mixed), coefficient in generator.terms.items():
        if mixed:
            continue
        followers = index.followers(unknown, follows)
        if followers is None:
            return None
        for order_index, edges, block, dims in followers:
            if any(dim is None for dim in dims):
                return None
            key = order_index, tuple(dim for dim in dims if dim is not None)
            total = followed.get(key, (edges, block, Fraction(0)))[2]
            followed[key] = edges, block, total + Fraction(coefficient)
    kept = {k: v for k, v in followed.items() if v[2]}
    if not kept:
        return None
    # Of a value and its statistic the value comes first.
    order = sorted(kept.items(), key=lambda item: (item[1][0].kind == "mean", item[0]))
    (order_index, dims), (_, block, first) = order[0]
    by_dim = sorted(range(len(dims)), key=lambda n: dims[n])
    terms = tuple(
        TranslationTerm(e.name, tuple(d[n] for n in by_dim), float(c / first))
        for (_, d), (e, _, c) in order
    )
    carried = _carried(actions, generator, index, by_dim, first)
    if carried is None:
        return None
    pieces = [block.pieces[dims[n]] for n in by_dim]
    # The suffix of the name tells what compensates the numbers: a weight that they pass, another
    # entry that gives them back, or the operations behind.
    traded = any(term.factor < 0 for term in terms)
    return (
        order_index,
        "carry" if carried else "trade" if traded else "shift",
        tuple(names.axis(piece.atom) for piece in pieces),
        tuple(piece.size for piece in pieces),
        (*terms, *carried),
    )


def _carried(
    actions: Actions, generator: Generator, index: Index, by_dim: list[int], first: Fraction
) -> tuple[TranslationTerm, ...] | None:
    """Terms whose numbers pass a weight; None if one of them passes several."""
    terms: list[tuple[int, TranslationTerm]] = []
    for following, coefficient in generator.terms.items():
        if not following.mixed:
            continue
        carriers = actions.maps.carriers(following.mixed)
        if carriers is None or len(carriers) != 1:
            return None  # through several weights
        through = _through(carriers[0], index, by_dim)
        ends = _ends(following, index)
        if through is None or ends is None:
            return None
        factor = float(Fraction(coefficient) / first)
        terms += [(n, TranslationTerm(name, dims, factor, through)) for n, name, dims in ends]
    return tuple(term for _, term in sorted(terms, key=lambda item: item[0]))


def _ends(following: Following, index: Index) -> list[tuple[int, str, tuple[int, ...]]] | None:
    """The edge sets that hold what follows, and the dimensions over which it varies."""
    result = []
    for order_index, edges, _, dims in index.followers(following.unknown, following.slots) or ():
        whole = tuple(dim for dim in dims if dim is not None)
        if len(whole) < len(dims):
            return None
        result.append((order_index, edges.name, whole))
    return result or None


def _through(carrier: Carrier, index: Index, by_dim: list[int]) -> Through | None:
    """The weight that a translation's numbers pass, with its dims in their order."""
    held = index.holds(carrier.entry, carrier.key)
    if held is None:
        return None
    edges, block = held
    source = [block.at(carrier.source[n]) for n in by_dim]
    target = [block.at(place) for place in carrier.target]
    dims = [dim for dim in (*source, *target) if dim is not None]
    if len(dims) < len(source) + len(target):
        return None
    return Through(edges.name, tuple(dims[: len(source)]), tuple(dims[len(source) :]))
