"""An equivariant layer whose weights depend on the types of what they join, not on their number.

The complete layer has a matrix for every ordered pair of features, so its size grows with the
square of a network's depth. Here all pairs of one type share theirs.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from baselines.layers.equivariant import EquivariantMaps, MapGroup, Selection
from baselines.layers.patterns import Feature, pattern

__all__ = ["Member", "TypedLinear", "mean_of"]

Sources = tuple[int, ...]  # indices of a term's sources
Averages = tuple[Sources, Sources, Sources]  # over all of one way, those beside the output, its own


class Member(NamedTuple):
    """What an input is among the others.

    Attributes:
        type: inputs of one type share weights, if their axes and channels are of one pattern, too.
        place: inputs of one place are beside each other (a convolution and its norm).
    """

    type: Hashable
    place: Hashable


class _Way(NamedTuple):
    """How a feature has the axes that a map keeps; equal for features that share weights."""

    type: Hashable
    pattern: Feature
    reading: int
    blocks: tuple[int, ...]


class _Matrix(NamedTuple):
    """What a matrix stands for; ``average`` says which of the averages it mixes."""

    output: _Way
    input: _Way
    average: int


class _Product(NamedTuple):
    """One product of matrices.

    Attributes:
        averages: the sources whose averages it reads, side by side.
        parts: for every part of its result, the matrices side by side.
    """

    averages: tuple[Sources, ...]
    parts: tuple[tuple[int, ...], ...]


class _Plan(NamedTuple):
    """What a term computes.

    Attributes:
        products: the products.
        sums: for every receiver what it adds up: indices of products, and of their parts.
    """

    products: list[_Product]
    sums: list[list[tuple[int, int]]]


class TypedLinear(EquivariantMaps):
    r"""Every output reads itself, what is beside it, and everything, by the types of the pairs.

    A map of :class:`.equivariant.EquivariantLinear` averages an input over some axes and repeats it
    along some of an output. Here the inputs that have the kept axes in one way :math:`t` (type,
    diagonal, which axes) are averaged, too: all of them, those beside the output, and itself:

    .. math:: g_i = b_i + \sum_t A_t \operatorname*{mean}_{j \in t} f_j
        + B_t \operatorname*{mean}_{j \in t,\, j \sim i} f_j
        + C_t \operatorname*{mean}_{j \in t,\, j = i} f_j

    The matrices depend on :math:`t` and on how the output has the axes, so their number does not
    grow with that of the features; time and memory grow in proportion. Averages that are equal
    wherever a matrix stands have one matrix: where no two inputs are of one type, this is the
    complete layer. The constants are each output's own, and tell outputs of one type apart.

    Args:
        inputs: forms of the input features.
        outputs: forms of the output features.
        members: type and place of every input.
        own: for every output the index of the input that it is about, whose type it has.
    """

    def __init__(
        self,
        inputs: Sequence[Feature],
        outputs: Sequence[Feature],
        members: Sequence[Member],
        own: Sequence[int],
    ) -> None:
        super().__init__(inputs, outputs)
        self._members, self._own = tuple(members), tuple(own)
        self._kinds = [(members[i].type, pattern(f)) for i, f in zip(own, outputs, strict=True)]
        read = [list(self._reads_of(term)) for term in self._terms]
        self._matrices = _different(pairs for parts in read for pairs in parts)
        index = {matrix: i for i, matrix in enumerate(self._matrices)}
        self._plans = [_plan(parts, index) for parts in read]
        self._sizes = [m.output.pattern.channels * m.input.pattern.channels for m in self._matrices]
        self._widths = [self._width(part) for part in self._terms[0].receivers]
        self.weight = nn.Parameter(torch.empty(sum(self._sizes)))
        self.bias = nn.Parameter(torch.empty(sum(self._widths)))
        self.reset_parameters()

    def _reads_of(self, term: MapGroup) -> Iterator[dict[tuple[_Way, _Way], Averages]]:
        """For each receiver, what it averages, by how it and the sources have the axes."""
        ways: dict[tuple[int, ...], dict[_Way, dict[Hashable, Sources]]] = {}
        for part in term.receivers:
            # In the receiver's order of axes, so that it means the same in every term.
            order = tuple(sorted(range(len(part.blocks)), key=part.blocks.__getitem__))
            if order not in ways:
                ways[order] = self._ways(term.sources, order)
            own = self._own[part.feature]
            output = _Way(*self._kinds[part.feature], part.reading, part.in_order)
            beside, itself = ("beside", self._members[own].place), ("own", own)
            yield {
                (output, way): (near["all"], near.get(beside, ()), near.get(itself, ()))
                for way, near in ways[order].items()
            }

    def _ways(
        self, sources: Sequence[Selection], order: tuple[int, ...]
    ) -> dict[_Way, dict[Hashable, Sources]]:
        """Sources by how they have the axes: all, those of each place, and of each input."""
        found: dict[_Way, dict[Hashable, list[int]]] = {}
        for index, source in enumerate(sources):
            member, form = self._members[source.feature], pattern(self.inputs[source.feature])
            blocks = tuple(source.blocks[axis] for axis in order)
            near = found.setdefault(_Way(member.type, form, source.reading, blocks), {})
            for group in ("all", ("beside", member.place), ("own", source.feature)):
                near.setdefault(group, []).append(index)
        return {
            way: {group: tuple(indices) for group, indices in near.items()}
            for way, near in found.items()
        }

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draws weights and biases from ±√(1 / n), n inputs in all terms of the output channel.

        Outputs of one type have the bound of the one that reads most.

        Args:
            generator: source of randomness; torch's own if None.
        """
        fans: dict[tuple[Hashable, Feature], int] = {}
        for kind, fan in zip(self._kinds, self._fans(), strict=True):
            fans[kind] = max(fan, fans.get(kind, 0))
        of_weights = [(matrix.output.type, matrix.output.pattern) for matrix in self._matrices]
        of_biases = [self._kinds[part.feature] for part in self._terms[0].receivers]
        with torch.no_grad():
            for values, sizes, kinds in (
                (self.weight, self._sizes, of_weights),
                (self.bias, self._widths, of_biases),
            ):
                values.uniform_(-1, 1, generator=generator)
                for value, kind in zip(values.split(sizes), kinds, strict=True):
                    value.mul_(fans[kind] ** -0.5)

    def _fans(self) -> list[int]:
        """Inputs of a channel of every output: in each term, those of the part that reads most."""
        fans = [0] * len(self.outputs)
        for term, plan in zip(self._terms, self._plans, strict=True):
            widest: dict[int, int] = {}
            for part, terms in zip(term.receivers, plan.sums, strict=True):
                matrices = [m for product, i in terms for m in plan.products[product].parts[i]]
                width = sum(self._matrices[m].input.pattern.channels for m in matrices)
                widest[part.feature] = max(width, widest.get(part.feature, 0))
            for output, width in widest.items():
                fans[output] += width
        return fans

    def _mixed(self, terms: Iterable[list[Tensor]]) -> Iterator[Sequence[Tensor]]:
        flat = self.weight.split(self._sizes)
        matrices = [
            weights.view(matrix.output.pattern.channels, -1)
            for matrix, weights in zip(self._matrices, flat, strict=True)
        ]
        joined: dict[tuple[tuple[int, ...], ...], Tensor] = {}  # terms of one form have the same
        constants: Sequence[Tensor] = self.bias.split(self._widths)
        for plan, parts in zip(self._plans, terms, strict=True):
            means: dict[Sources, Tensor] = {}
            mixed = []
            for product in plan.products:
                for sources in product.averages:
                    if sources not in means:
                        means[sources] = mean_of([parts[index] for index in sources])
                if product.parts not in joined:
                    rows = [_cat([matrices[i] for i in part], dim=1) for part in product.parts]
                    joined[product.parts] = _cat(rows, dim=0)
                read = _cat([means[sources] for sources in product.averages], dim=-1)
                result = nn.functional.linear(read, joined[product.parts])
                widths = [len(matrices[first]) for first, *_ in product.parts]
                mixed.append(result.split(widths, dim=-1))
            blocks = [
                sum((mixed[i][j] for i, j in rest), mixed[first][part])
                for (first, part), *rest in plan.sums
            ]
            if constants:  # they belong to the first term, which keeps no axes
                blocks = [block + own for block, own in zip(blocks, constants, strict=True)]
                constants = ()
            yield blocks


def _different(
    reads: Iterable[dict[tuple[_Way, _Way], Averages]],
) -> list[_Matrix]:
    """All matrices: one for each average that differs somewhere from those before it."""
    found: dict[tuple[_Way, _Way], list[Averages]] = {}
    for pairs in reads:
        for pair, averages in pairs.items():
            found.setdefault(pair, []).append(averages)
    matrices = []
    for (output, input_), everywhere in found.items():
        columns = list(zip(*everywhere, strict=True))
        for index, column in enumerate(columns):
            if any(column) and column not in columns[:index]:
                matrices.append(_Matrix(output, input_, index))
    return matrices


def _plan(
    receivers: Sequence[dict[tuple[_Way, _Way], Averages]], index: dict[_Matrix, int]
) -> _Plan:
    """Receivers of one type share what they average over all: it is computed once."""
    wanted: dict[tuple[Sources, ...], dict[tuple[int, ...], int]] = {}
    sums: list[list[tuple[tuple[Sources, ...], int]]] = []
    for pairs in receivers:
        found: tuple[list[tuple[Sources, int]], list[tuple[Sources, int]]] = ([], [])
        for (output, input_), averages in pairs.items():
            for near, sources in enumerate(averages):
                matrix = index.get(_Matrix(output, input_, near))
                if matrix is not None and sources:
                    found[near > 0].append((sources, matrix))
        sums.append([])
        for read in filter(None, found):
            # Sorted by what is read, so that products of the same averages become one.
            averaged, matrices = zip(*sorted(read), strict=True)
            parts = wanted.setdefault(averaged, {})
            sums[-1].append((averaged, parts.setdefault(matrices, len(parts))))
    place = {averaged: i for i, averaged in enumerate(wanted)}
    return _Plan(
        [_Product(averaged, tuple(parts)) for averaged, parts in wanted.items()],
        [[(place[averaged], part) for averaged, part in terms] for terms in sums],
    )


def _cat(values: Sequence[Tensor], dim: int) -> Tensor:
    """Values side by side; no copy of a single one, which may be large."""
    return values[0] if len(values) == 1 else torch.cat(list(values), dim)


def mean_of(values: Sequence[Tensor]) -> Tensor:
    """The mean of tensors of equal shape."""
    return values[0] if len(values) == 1 else torch.stack(list(values)).mean(0)
