"""From solved equations between shifts to the translations of a spec.

A softmax over keys ignores what is constant along keys, LayerNorm what is constant along its
features, batch normalisation what its running mean follows; of two biases that are only ever added,
one may give to the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

from gmn.spec import EdgeSet, Translation, TranslationTerm

from ..inference.actions import Actions
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
    found = []
    for generator in generators(actions.shifts):
        if not _is_split(actions, generator):
            made = _translation(generator, index, names)
            if made is not None:
                found.append(made)
    for _, suffix, axes, shape, terms in sorted(found, key=lambda item: item[0]):
        name = unique(f"{terms[0].edge_set}.{suffix}", taken)
        yield Translation(name, axes, shape, terms)


def _is_split(actions: Actions, generator: Generator) -> bool:
    """Whether a product would have shifts of both its factors: more than a sum of two shifts."""
    moved = {unknown for unknown, _ in generator.terms} | {generator.free}
    for first, second in actions.conflicts:
        one = {u for u in first if _follows(actions, u, generator)}
        other = {u for u in second if _follows(actions, u, generator)}
        if one & moved and other & moved:
            return True
    return False


def _follows(actions: Actions, unknown: object, generator: Generator) -> bool:
    return any(unknown is follower for follower, _ in generator.terms)


Made = tuple[int, str, tuple[str | None, ...], tuple[int, ...], tuple[TranslationTerm, ...]]


def _translation(generator: Generator, index: Index, names: Names) -> Made | None:
    found: dict[tuple[int, tuple[int, ...]], tuple[EdgeSet, Block, Fraction]] = {}
    for (unknown, follows), coefficient in generator.terms.items():
        followers = index.followers(unknown, follows)
        if followers is None:
            return None
        for number, edges, block, dims in followers:
            if any(dim is None for dim in dims):
                return None
            key = number, tuple(dim for dim in dims if dim is not None)
            known = found.get(key, (edges, block, Fraction(0)))[2]
            found[key] = edges, block, known + Fraction(coefficient)
    kept = {k: v for k, v in found.items() if v[2]}
    if not kept:
        return None
    # Of a value and its statistic the value comes first.
    order = sorted(kept.items(), key=lambda item: (item[1][0].kind == "mean", item[0]))
    (number, dims), (_, block, first) = order[0]
    places = sorted(range(len(dims)), key=lambda n: dims[n])
    terms = tuple(
        TranslationTerm(e.name, tuple(d[n] for n in places), float(c / first))
        for (_, d), (e, _, c) in order
    )
    pieces = [block.pieces[dims[n]] for n in places]
    traded = any(term.factor < 0 for term in terms)
    return (
        number,
        "trade" if traded else "shift",
        tuple(names.axis(piece.atom) for piece in pieces),
        tuple(piece.size for piece in pieces),
        terms,
    )
