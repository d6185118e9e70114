"""Removes translations and phases: numbers that cancel become zero, phases the smallest.

What may be added to parameters without changing the function is removed: the bias of attention
keys becomes 0, the columns that write to a centred stream get mean 0, a running mean moves into
the bias before it, the bias of attention values into that of the output projection, the phase of
a sine lands within half a period around 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gmn.canonical.layout import along
from gmn.graph import ParameterGraph
from gmn.graph.draft import Draft
from gmn.graph.pieces import mean
from gmn.graph.required import require_graph
from gmn.spec import GraphSpec, Scaling, Through, Translation, TranslationTerm
from gmn.symmetry.carried import carried


@dataclass(frozen=True)
class Change:
    """What takes the shifts out of an edge set's block (B, *shape): ``(block + added) * signs``.

    Attributes:
        added: of a shape that broadcasts to the block; None to add nothing.
        signs: likewise; None to leave the signs as they are.
    """

    added: Tensor | None = None
    signs: Tensor | None = None

    @property
    def is_none(self) -> bool:
        """Whether it changes nothing."""
        return self.added is None and self.signs is None

    def apply(self, block: Tensor) -> None:
        """Changes a block, or a part of one if this is the part's change, in place."""
        if self.added is not None:
            block += self.added
        if self.signs is not None:
            block *= self.signs

    def plus(self, numbers: Tensor) -> Change:
        """The change followed by adding numbers."""
        numbers = numbers if self.signs is None else numbers * self.signs
        return Change(numbers if self.added is None else self.added + numbers, self.signs)

    def times(self, signs: Tensor) -> Change:
        """The change followed by multiplying with signs."""
        return Change(self.added, signs if self.signs is None else self.signs * signs)


def without_shifts(graph: ParameterGraph) -> ParameterGraph:
    """The graph with every translation and every phase of its spec taken out.

    Two graphs that differ by a translation or by half periods of sines get the same result; it
    computes the same function as the original. Values that no such symmetry moves are shared with
    it. At exactly half a period the phase may round either way.

    Source: the phase form corrects that of ScaleGMN's code; the period of ``sin(ω(Wx + b))`` in
    ``b`` is ``2π/ω``, and each half of it flips what reads the neuron.
    """
    require_graph("graph", graph)
    draft = Draft(graph.spec, graph.values)
    for name, change in changes(graph).items():
        change.apply(draft.block(name))
    return graph.replace(draft.changed())


def changes(graph: ParameterGraph, dtype: torch.dtype | None = None) -> dict[str, Change]:
    """What :func:`without_shifts` does to edge sets, by name; only those it changes.

    Takes as little memory as the symmetries' own numbers: blocks are read, not copied.

    Args:
        graph: the networks.
        dtype: type to compute in; None for the values' own.
    """
    ledger = _without_translations(graph, dtype)
    for scaling in graph.spec.scalings:
        if scaling.domain == "phase":
            _rewind(scaling, ledger)
    return ledger.changes


Passing = Mapping[str, Sequence[tuple[TranslationTerm, Tensor]]]


def passing(graph: ParameterGraph) -> Passing:
    """The translation numbers that pass weights in :func:`without_shifts`, by weight.

    Returns:
        By edge set of a weight, the terms that its image is taken from, with the numbers
        (B, *shape of the translation).
    """
    terms = (term for translation in graph.spec.translations for term in translation.terms)
    if all(term.through is None for term in terms):
        return {}
    return _without_translations(graph, None).passing


def _without_translations(graph: ParameterGraph, dtype: torch.dtype | None) -> _Ledger:
    ledger, inside = _Ledger(graph, dtype), _kept_inside(graph.spec)
    for translation, pivots in _in_turn(graph.spec, inside):
        _centre(translation, pivots, ledger)
    for dims, names in _groups(inside):
        _level(names, dims, ledger)
    return ledger


def following(
    name: str, change: Tensor, numbers: Passing
) -> Iterator[tuple[TranslationTerm, Tensor]]:
    """Terms that change with a weight because translation numbers pass it.

    A change of the form without shifts is a change of the network: there, the weight carries what
    was taken out, and its image changes with it.

    Args:
        name: of the weight's edge set.
        change: what is added to its block (B, *shape).
        numbers: those of :func:`passing`.

    Yields:
        Terms of translations, and the numbers (B, *sizes of their ``dims``) that are added there.
    """
    for term, before in numbers.get(name, ()):
        assert term.through is not None
        yield term, term.factor * carried(change, term.through, before)


def flips(graph: ParameterGraph) -> dict[str, Tensor]:
    """The signs with which taking out phases multiplies edge sets, by name; only those it does.

    Returns:
        Signs that broadcast to the edge set's block (B, *shape).
    """
    if not any(scaling.domain == "phase" for scaling in graph.spec.scalings):
        return {}
    by_name = changes(graph)
    return {name: one.signs for name, one in by_name.items() if one.signs is not None}


class _Ledger:
    """Changes of edge sets that are recorded and not yet applied.

    Attributes:
        changes: recorded changes by edge set.
        passing: by edge set of a weight, the terms that it carries numbers to, and the numbers.
    """

    def __init__(self, graph: ParameterGraph, dtype: torch.dtype | None) -> None:
        self._graph, self._dtype = graph, dtype
        self.changes: dict[str, Change] = {}
        self.passing: dict[str, list[tuple[TranslationTerm, Tensor]]] = {}

    def block(self, name: str) -> Tensor:
        """The values (B, *shape) as they were."""
        return self._graph.block(self._graph.spec.edge_set(name))

    def mean(self, name: str, dims: list[int]) -> Tensor:
        """The mean of the changed values over dimensions, which stay; over none, the values."""
        block = self.block(name)
        dtype = self._dtype or block.dtype
        result = mean(block, dims, dtype) if dims else block.to(dtype)
        if (change := self.changes.get(name)) is None:
            return result
        assert change.signs is None, "translations come before phases"
        return result if change.added is None else result + _mean_over(change.added, dims)

    def image(self, term: TranslationTerm, through: Through, numbers: Tensor) -> Tensor:
        """What a changed weight makes of numbers (B, *shape of a translation), which are noted."""
        self.passing.setdefault(through.edge_set, []).append((term, numbers))
        block = self.block(through.edge_set)
        result = carried(block, through, numbers)
        change = self.changes.get(through.edge_set)
        if change is None or change.added is None:
            return result
        assert change.signs is None, "translations come before phases"
        return result + carried(change.added.expand(block.shape), through, numbers)

    def add(self, name: str, numbers: Tensor) -> None:
        self.changes[name] = self.changes.get(name, Change()).plus(numbers)

    def clear(self, name: str) -> None:
        """Leaves nothing, not even rounding: what reads signs and ratios would see it."""
        block = self.block(name)
        self.changes[name] = Change(-block.to(self._dtype or block.dtype))

    def flip(self, name: str, signs: Tensor) -> None:
        self.changes[name] = self.changes.get(name, Change()).times(signs)

    def values(self, name: str) -> Tensor:
        """The changed values of a bias."""
        block = self.block(name)
        result = block.to(self._dtype or block.dtype, copy=True)
        self.changes.get(name, Change()).apply(result)
        return result


def _mean_over(numbers: Tensor, dims: list[int]) -> Tensor:
    return numbers.mean(dim=dims, keepdim=True) if dims else numbers


def _in_turn(
    spec: GraphSpec, last_ones: Sequence[Translation]
) -> Iterator[tuple[Translation, list[TranslationTerm]]]:
    """Translations, each with the terms that are centred: ones that no later translation moves.

    What a weight carries there is not centred.
    """
    left = [translation for translation in spec.translations if translation not in last_ones]
    while left:
        following = [*left, *last_ones]
        counts = Counter(name for t in following for name in {term.edge_set for term in t.terms})
        candidates = (
            (translation, term)
            for translation in left
            for term in reversed(translation.terms)
            if counts[term.edge_set] == 1 and term.through is None
        )
        chosen, last = next(candidates, (left[0], _plain(left[0])[-1]))
        left.remove(chosen)
        alike = [term for term in _plain(chosen) if _trade_places(spec, term, last)]
        single = all(counts[term.edge_set] == 1 for term in alike)
        yield chosen, alike if single else [last]


def _plain(translation: Translation) -> list[TranslationTerm]:
    return [term for term in translation.terms if term.through is None]


def _kept_inside(spec: GraphSpec) -> list[Translation]:
    """Those between branches that are levelled; others first collect what a weight carries on."""
    inside = [t for t in spec.translations if _stays_inside(spec, t)]
    emptied = {
        (plain[0].edge_set, plain[0].dims)
        for plain in map(_plain, spec.translations)
        if len(plain) == 1
    }
    moving_on = [
        name
        for dims, names in _groups(inside)
        if any((name, dims) in emptied for name in names)
        for name in names
    ]
    return [t for t in inside if t.terms[0].edge_set not in moving_on]


def _stays_inside(spec: GraphSpec, translation: Translation) -> bool:
    """Whether a translation moves numbers between branches only."""
    if len(translation.terms) != 2 or len(_plain(translation)) != 2:
        return False
    giver, taker = translation.terms
    return _trade_places(spec, giver, replace(taker, factor=-taker.factor))


def _groups(inside: Sequence[Translation]) -> list[tuple[tuple[int, ...], list[str]]]:
    """Groups of edge sets that such translations connect, with the dims of their numbers."""
    groups: list[tuple[tuple[int, ...], list[str]]] = []
    for translation in inside:
        dims, names = translation.terms[0].dims, [term.edge_set for term in translation.terms]
        joined = [g for g in groups if g[0] == dims and not set(names).isdisjoint(g[1])]
        groups = [group for group in groups if group not in joined]
        groups.append((dims, list(dict.fromkeys([*(n for _, g in joined for n in g), *names]))))
    return groups


def _level(names: Sequence[str], dims: tuple[int, ...], ledger: _Ledger) -> None:
    """Gives every branch the mean of all of them."""
    rank = ledger.block(names[0]).dim()
    constant = [1 + dim for dim in range(rank - 1) if dim not in dims]
    means = [ledger.mean(name, constant) for name in names]
    common = torch.stack(means).mean(dim=0)
    for name, own in zip(names, means, strict=True):
        ledger.add(name, common - own)


def _trade_places(spec: GraphSpec, one: TranslationTerm, other: TranslationTerm) -> bool:
    """Whether an exchange of branches may map one term to another."""
    first = [spec.places.get(term.edge_set, term.edge_set) for term in (one, other)]
    return first[0] == first[1] and (one.dims, one.factor) == (other.dims, other.factor)


def _centre(translation: Translation, pivots: list[TranslationTerm], ledger: _Ledger) -> None:
    """Makes the mean over the centred dims 0, jointly for branches that may be exchanged."""
    last = pivots[0]
    block = ledger.block(last.edge_set)
    constant = [1 + d for d in range(block.dim() - 1) if d not in last.dims]
    means = [ledger.mean(term.edge_set, constant) for term in pivots]
    shift = torch.stack(means).mean(dim=0) if len(means) > 1 else means[0]
    order = (0, *(1 + d for d in last.dims), *constant)
    numbers = shift.permute(order).reshape(len(block), *translation.shape) / last.factor
    whole = len(pivots) == 1 and all(block.shape[dim] == 1 for dim in constant)
    for term in pivots:
        if whole:
            ledger.clear(term.edge_set)
        else:
            ledger.add(term.edge_set, -shift)
    for term in translation.terms:
        if term not in pivots:
            through = term.through
            image = numbers if through is None else ledger.image(term, through, numbers)
            spread = along(image, term.dims, ledger.block(term.edge_set))
            ledger.add(term.edge_set, -term.factor * spread)


def _rewind(scaling: Scaling, ledger: _Ledger) -> None:
    bias = next(term for term in scaling.terms if term.shift)
    values = ledger.values(bias.edge_set)
    steps = (values / bias.shift).round().permute(0, *(1 + d for d in bias.dims))
    ledger.add(bias.edge_set, -along(steps, bias.dims, values) * bias.shift)
    sign = 1 - 2 * (steps % 2)
    for term in scaling.terms:
        if term.exponent % 2:
            ledger.flip(term.edge_set, along(sign, term.dims, ledger.block(term.edge_set)))
