"""UNF: universal neural functionals, for any architecture (Zhou et al., arXiv 2402.05232)."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import torch
from torch import Tensor, nn

from baselines.adapter import UnsupportedArchitecture
from baselines.layers.equivariant import EquivariantLinear, Feature, diagonal
from baselines.layers.patterns import pattern, readings
from baselines.layers.typed import Member, TypedLinear, mean_of
from gmn.features import fan_in
from gmn.foundation.arguments import require_each_whole, require_whole
from gmn.graph import ParameterGraph
from gmn.graph.draft import Draft
from gmn.graph.required import require_spec
from gmn.nn.heads import EditHead, readout_of
from gmn.nn.metanetwork import Metanetwork
from gmn.spec import Axis, Dim, EdgeSet, GraphSpec

Type = tuple[Hashable, ...]


@dataclass(frozen=True)
class FoldedEdges:
    """How an edge set becomes a feature, and back.

    Attributes:
        edges: the edge set.
        order: its dimensions, those that become axes first.
        sizes: sizes of the feature's axes.
        feature: axes, nesting, and one channel for each index of the other dimensions.
        ordered: indices of the feature's axes that may not move.
    """

    edges: EdgeSet
    order: tuple[int, ...]
    sizes: tuple[int, ...]
    feature: Feature
    ordered: tuple[int, ...]

    def read(self, graph: ParameterGraph) -> Tensor:
        """The values, at comparable magnitude: shape (B, *sizes, channels).

        Weights are multiplied by the square root of their fan-in, variances enter as logarithms.
        """
        values = graph.block(self.edges) * self.scale
        if self.edges.kind == "variance":
            values = values.clamp(min=1e-12).log()
        values = values.permute(0, *(1 + dim for dim in self.order))
        return values.reshape(len(graph), *self.sizes, self.feature.channels)

    @property
    def type(self) -> Type:
        """What edge sets have in common that a deep network has many of; sizes do not matter.

        Kind, operand (queries or keys, one of a gate's), the way its dimensions become axes and
        channels, and how axes repeat and nest.
        """
        dims = tuple((self.edges.dims[dim].port, dim) for dim in self.order)
        folded = tuple(self.edges.dims[dim].size for dim in self.order[len(self.feature.axes) :])
        route = (self.edges.kind, *self.edges.route)
        return route, dims, folded, self.ordered, pattern(self.feature)

    @property
    def scale(self) -> float:
        """Factor of the values: the square root of the fan-in."""
        return math.sqrt(fan_in(self.edges)) if self.edges.kind == "weight" else 1.0

    def restore(self, values: Tensor) -> Tensor:
        """From (B, *sizes, channels) to (B, *shape of the edge set); undoes order and scale."""
        shape = [self.edges.shape[dim] for dim in self.order]
        inverse = [0, *(1 + self.order.index(dim) for dim in range(len(shape)))]
        return values.reshape(len(values), *shape).permute(inverse) / self.scale


@lru_cache(maxsize=64)
def blocks_of(spec: GraphSpec, fold: int) -> tuple[FoldedEdges, ...]:
    """All parameters and statistics of a spec as features of its permutation group.

    Every movable axis is an axis. What may not move becomes channels, so that nothing about it is
    lost: axes that are ordered (inputs, outputs), and the taps of an edge set together. Where these
    are more than ``fold`` indices, or movable axes are nested in them, they are axes all the same,
    for learned positions to break the symmetry.
    """
    outer = {name for axis in spec.symmetries.permutations for name in axis.within}
    names: dict[str, str] = {}
    blocks = []
    for edges in spec.edge_sets:
        if edges.tied_to is None:
            blocks.append(_block(spec, edges, fold, outer, names))
    return tuple(blocks)


def _block(
    spec: GraphSpec, edges: EdgeSet, fold: int, outer: set[str], axis_names: dict[str, str]
) -> FoldedEdges:
    dims = list(enumerate(edges.dims))
    spec_axes = {dim.axis: spec.axis(dim.axis) for dim in edges.dims if dim.axis is not None}
    axes = [
        dim_index
        for dim_index, dim in dims
        if dim.axis is not None and not _folds(spec_axes[dim.axis], fold, outer)
    ]
    taps = [dim_index for dim_index, dim in dims if dim.axis is None]
    if edges.num_taps <= fold or edges.num_taps == 1:
        taps = []
    folded = [dim_index for dim_index, _ in dims if dim_index not in axes and dim_index not in taps]
    names, sizes, within, ordered = [], [], [], []
    for position, dim_index in enumerate(axes):
        dim = edges.dims[dim_index]
        assert dim.axis is not None
        axis = spec_axes[dim.axis]
        names.append(axis_names.setdefault(axis.name, f"n{len(axis_names)}"))
        sizes.append(axis.size)
        within.append(_parents(edges.dims, axes, dim_index, axis if axis.movable else None))
        ordered += [] if axis.movable else [position]
    if taps:
        names.append(axis_names.setdefault(f"taps of {edges.name}", f"n{len(axis_names)}"))
        sizes.append(edges.num_taps)
        within.append(())
        ordered.append(len(axes))
    channels = math.prod(edges.dims[dim_index].size for dim_index in folded)
    feature = Feature(tuple(names), channels, tuple(within) if any(within) else ())
    return FoldedEdges(edges, (*axes, *taps, *folded), tuple(sizes), feature, tuple(ordered))


def _folds(axis: Axis, fold: int, outer: set[str]) -> bool:
    if axis.size == 1:
        return True
    return not axis.movable and axis.size <= fold and axis.name not in outer


def _parents(dims: Sequence[Dim], axes: list[int], dim: int, axis: Axis | None) -> tuple[int, ...]:
    """Indices among the axes of those that the one at ``dim`` is nested in, at its end."""
    parents = []
    for name in axis.within if axis is not None else ():
        same = [i for i, other in enumerate(axes) if dims[other].axis == name]
        ports = [dims[axes[i]].port for i in same]
        for port in (dims[dim].port, "both"):
            if port in ports:
                parents.append(same[ports.index(port)])
                break
        else:
            parents += same[:1]
    return tuple(parents)


class UNF(Metanetwork):
    """The maximal equivariant linear layers of the permutation group of any architecture.

    Every parameter tensor is a feature over the movable axes that index it: residual streams,
    heads and the units within them, groups, normalisation, embeddings, recurrent weights, tied
    weights (once) and running statistics included. Each layer holds every linear map between all
    of these that commutes with the group (see :class:`.equivariant.EquivariantLinear`). On chains
    the layers are those of NFN: HNP as they are, NP with ``fold=0``.

    Inputs, outputs and taps are channels, as in HNP, up to ``fold`` of them; larger ones
    (vocabularies, pixels) are axes with learned positions, as in NP-PosEmb: the group is then
    larger than that of the networks, and only the positions tell these indices apart. So is an
    ordered axis whose indices have movable ones of their own (kernels of every input channel).

    These layers have weights of their own for every ordered pair of parameter tensors: their number
    grows with the square of the depth. Networks of more than ``apart`` tensors are read by layers
    that are not complete, whose weights pairs of one type share (:class:`.typed.TypedLinear`, which
    is ours, not the paper's): a tensor sees itself, those of its own layer, and the means over all
    tensors of each type; the pool is the mean over each type. Constants alone are the tensor's own,
    and tell tensors of one type apart. Time and memory then grow with the depth, weights do not.

    Args:
        spec: the architecture of the networks it reads; any.
        channels: channels per parameter (and per index of what is folded) after each layer.
        head: number of outputs of the published head (a hidden layer of 512); or a module that
            maps pooled features (B, ``pooled``) to anything; or an :class:`gmn.nn.EditHead` for
            edited networks. Edits come from one further layer, at first of size 0.01, in units of
            one over the square root of the fan-in; running statistics stay.
        fold: up to how many ordered indices become channels.
        apart: up to how many parameter tensors every pair has weights of its own, as published.

    Attributes:
        pooled: number of invariant features; 0 with a head for edits.
        learning_rate: a good peak for :func:`gmn.train.train`.
    """

    symmetries = ("permutations",)
    learning_rate = 1e-3

    def __init__(
        self,
        spec: GraphSpec,
        channels: Sequence[int] = (16, 16, 16),
        head: int | nn.Module | EditHead = 1,
        fold: int = 64,
        apart: int = 64,
    ) -> None:
        super().__init__(head)
        require_spec("spec", spec)
        channels = require_each_whole("channels", channels, 1)
        require_whole("fold", fold, 0)
        require_whole("apart", apart, 0)
        self.fold = fold
        blocks = blocks_of(spec, fold)
        self.form = _form(blocks)
        self.positions = nn.ParameterList(
            nn.Parameter(torch.randn([*_one_size(block, dim), block.feature.channels]))
            for block in blocks
            for dim in block.ordered
        )
        shared = len(blocks) > apart
        self.types = [block.type if shared else (i,) for i, block in enumerate(blocks)]
        written: list[Sequence[int]] = [range(len(blocks))] * len(channels)  # by each layer
        stages = [[_wider(block.feature, c) for block in blocks] for c in (1, *channels)]
        self.pooled = 0
        self.size = None
        if self.copies:
            written.append([i for i, block in enumerate(blocks) if _edited(spec, block)])
            stages.append([_wider(blocks[i].feature, self.copies) for i in written[-1]])
            self.size = nn.Parameter(torch.full((self.copies,), 0.01))
        else:
            pools = dict(zip(self.types, stages[-1], strict=True)).values()
            self.pooled = sum(len(readings(feature)) * feature.channels for feature in pools)
        self.head = readout_of(head, self._published_head)
        members = [Member(t, b.edges.depth) for t, b in zip(self.types, blocks, strict=True)]
        self.layers = nn.ModuleList(
            TypedLinear(before, after, members, own) if shared else EquivariantLinear(before, after)
            for (before, after), own in zip(pairwise(stages), written, strict=True)
        )

    def _published_head(self, outputs: int) -> nn.Module:
        return nn.Sequential(nn.Linear(self.pooled, 512), nn.ReLU(), nn.Linear(512, outputs))

    def forward(self, graph: ParameterGraph) -> Tensor | ParameterGraph:
        """Reads B networks; the output has shape (B, outputs), or is a graph of edited networks.

        Raises:
            UnsupportedArchitecture: if they are not of the architecture that it was built for, up
                to operations without parameters.
        """
        blocks = blocks_of(graph.spec, self.fold)
        if _form(blocks) != self.form:
            raise UnsupportedArchitecture(
                f"the networks have other parameters than those that this UNF was built for: "
                f"{_difference(self.form, blocks)}. Build one per architecture, or use a method "
                "that reads several, such as gmn.nn.GMN."
            )
        values = self._encode(blocks, graph)
        for index, layer in enumerate(self.layers):
            values = layer(values if index == 0 else [torch.relu(value) for value in values])
        if self.size is not None:
            return self._edit(graph, [b for b in blocks if _edited(graph.spec, b)], values)
        assert self.head is not None
        return self.head(self._pool(blocks, [torch.relu(value) for value in values]))

    def _encode(self, blocks: Sequence[FoldedEdges], graph: ParameterGraph) -> list[Tensor]:
        positions = iter(self.positions)
        return [
            sum((next(positions) for _ in block.ordered), block.read(graph)) for block in blocks
        ]

    def _pool(self, blocks: Sequence[FoldedEdges], values: Sequence[Tensor]) -> Tensor:
        """Means of the features of each type, and of their diagonals: shape (B, pooled)."""
        means: dict[tuple[Type, int], list[Tensor]] = {}
        for type_, block, value in zip(self.types, blocks, values, strict=True):
            for index, reading in enumerate(readings(block.feature)):
                part = diagonal(value, reading)
                part = part.flatten(1, -2).mean(1) if part.dim() > 2 else part
                means.setdefault((type_, index), []).append(part)
        return torch.cat([mean_of(parts) for parts in means.values()], dim=1)

    def _edit(
        self, graph: ParameterGraph, blocks: Sequence[FoldedEdges], changes: Sequence[Tensor]
    ) -> ParameterGraph:
        assert self.size is not None
        sized = [value.unflatten(-1, (-1, len(self.size))) * self.size for value in changes]
        edited = []
        for copy in range(len(self.size)):
            draft = Draft(graph.spec, graph.values)
            for block, change in zip(blocks, sized, strict=True):
                draft.block(block.edges).add_(block.restore(change[..., copy]))
            edited.append(graph.replace(draft.changed()))
        return ParameterGraph.cat(edited) if len(edited) > 1 else edited[0]


def _wider(feature: Feature, channels: int) -> Feature:
    return Feature(feature.axes, feature.channels * channels, feature.within)


def _one_size(block: FoldedEdges, dim: int) -> list[int]:
    return [size if i == dim else 1 for i, size in enumerate(block.sizes)]


def _edited(spec: GraphSpec, block: FoldedEdges) -> bool:
    return spec.is_parameter(block.edges)


Form = tuple[tuple[str, Feature, tuple[int, ...]], ...]


def _form(blocks: Sequence[FoldedEdges]) -> Form:
    """What a model depends on: kinds, axes and sizes, but not names and operations."""
    return tuple((block.edges.kind, block.feature, block.sizes) for block in blocks)


def _difference(form: Form, blocks: Sequence[FoldedEdges]) -> str:
    for block, actual, expected in zip(blocks, _form(blocks), form, strict=False):
        if actual != expected:
            return f"{block.edges.name} is not as expected"
    return f"{len(blocks)} parameter tensors instead of {len(form)}"
