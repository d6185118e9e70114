"""Transformer-NFN: a neural functional network for transformers (Tran et al., ICLR 2025)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise, zip_longest
from math import prod
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from baselines.adapter import INSTEAD, UnsupportedArchitecture
from baselines.attention.head_forms import (
    BlockForm,
    RowForm,
    Space,
    State,
    fold,
    folded_form,
    rows_of,
    unfold,
)
from baselines.attention.head_layers import EquivariantBlockLayer, HeadReadout, InvariantBlockLayer
from baselines.layers import blocks
from baselines.layers.blocks import BlockTensors, TransformerBlock
from baselines.layers.equivariant import EquivariantLinear, Feature
from gmn.features import fan_in
from gmn.foundation.arguments import require_each_whole, require_one_of, require_whole
from gmn.graph import ParameterGraph
from gmn.graph.required import require_graph, require_spec
from gmn.nn.heads import EditHead, InvariantHead, require_head
from gmn.nn.running import uncompiled
from gmn.spec import EdgeSet, GraphSpec, Scaling

Group = Literal["published", "certified"]
_Inputs = tuple[tuple[BlockTensors, ...], list[Tensor | None], list[State], list[list[Tensor]]]
HEADS = ("query", "key", "value", "output")
FULL_WIDTH = 64
RANK = 64


class TransformerNFN(nn.Module):
    r"""Equivariant polynomial layers on transformer blocks, an invariant layer, and an MLP.

    In every block, outputs are invariant to permutations of heads, to any invertible change of
    basis between queries and keys and between values and outputs of each head, and to permutations
    of hidden neurons of the feed-forward network. What else may move is read off the spec:

    - ``published``: the neurons between attention and feed-forward network, where no skip
      connection makes them part of the residual stream. Block boundaries have coefficients of their
      own for each neuron, and MLPs read the parameters outside of blocks.
    - ``certified``: every movable axis of the spec, above all the residual stream. Coefficients are
      shared along it, hence few at any width; equivariant linear layers read all other parameters.

    The published layers see heads through sums over heads only, so that they cannot tell which unit
    belongs to which head; ``head_reads`` adds a readout of every head that can.

    Blocks have layers of their own, as published. Source: arXiv 2410.04209.

    Args:
        spec: the architecture of the networks it reads.
        channels: channels after each equivariant layer.
        readout: numbers that the invariant layer gives for each block, and the MLP for each part of
            the other parameters.
        head: number of outputs; a module that maps pooled features (B, ``pooled``) to anything; or
            an :class:`gmn.nn.EditHead` to output networks whose blocks are edited.
        group: which symmetries are respected, see above.
        rank: bound on the rank of coefficient matrices and on readouts of a product; None for
            :data:`RANK` on networks wider than :data:`FULL_WIDTH`, no bound on others; 0 for none.
        head_reads: readouts of each head's products; 0 as published.
        balanced: whether to divide out the scales that the spec certifies for single hidden neurons
            (of ReLU): each is brought to unit length of its incoming weights and bias.

    Attributes:
        pooled: number of invariant features; 0 for editing.
        claims: names of the axes, changes of basis and scalings that outputs are invariant to.
        learning_rate: a good peak for :func:`gmn.train.train`.

    Raises:
        UnsupportedArchitecture: if the networks are no transformers of plain self-attention.
    """

    learning_rate = 1e-3

    def __init__(
        self,
        spec: GraphSpec,
        channels: Sequence[int] = (10,),
        readout: int = 10,
        head: int | nn.Module | EditHead = 1,
        group: Group = "published",
        rank: int | None = None,
        head_reads: int = 0,
        balanced: bool = False,
    ) -> None:
        super().__init__()
        require_spec("spec", spec)
        require_head(head)
        channels = require_each_whole("channels", channels, 1)
        require_whole("readout", readout, 1)
        require_one_of("group", group, get_args(Group))
        require_whole("rank", rank or 0, 0)
        require_whole("head_reads", head_reads, 0)
        self.parts = blocks.transformer(spec)
        self.layout = _layout(spec, self.parts)
        free = _free_axes(spec, self.parts, group)
        self.forms = tuple(_form(spec, block, free) for block in self.parts)
        width = max(spec.node_set(block.source).size for block in self.parts)
        if rank is None:
            rank = RANK if width > FULL_WIDTH else 0
        bound = rank or None
        self.scales = tuple(_hidden_scale(spec, b) if balanced else None for b in self.parts)
        self.claims = _claims(free, self.parts, self.scales)
        self.edits = head.copies if isinstance(head, EditHead) else 0
        stages = (1, *channels, self.edits) if self.edits else (1, *channels)
        self.layers = nn.ModuleList(
            nn.ModuleList(EquivariantBlockLayer(form, d, e, bound) for form in self.forms)
            for d, e in pairwise(stages)
        )
        self.pooled = 0
        if isinstance(head, EditHead):
            self.size = nn.Parameter(torch.tensor(0.01))
            return
        last = stages[-1]
        self.invariant = nn.ModuleList(
            InvariantBlockLayer(form, last, readout, bound) for form in self.forms
        )
        self.per_head = nn.ModuleList(
            HeadReadout(form, last, head_reads, readout) for form in self.forms if head_reads
        )
        inner = readout * len(self.forms)
        self.body = nn.Sequential(
            nn.LayerNorm(inner), nn.Linear(inner, inner), nn.ReLU(), nn.Linear(inner, inner)
        )
        others = [_OtherEdges(edges, free, readout) for edges in _other_edges(spec, self.parts)]
        self.others = nn.ModuleList(others)
        self.pooled = inner + sum(part.width for part in others)
        outputs = head.outputs if isinstance(head, InvariantHead) else head
        self.head = nn.Linear(self.pooled, outputs) if isinstance(outputs, int) else outputs

    def forward(self, graph: ParameterGraph) -> Tensor | ParameterGraph:
        """Reads B networks.

        Returns:
            Tensor of shape (B, outputs); of an editing model, the edited networks: the first edit
            of all B, then the second of all, and so on.

        Raises:
            UnsupportedArchitecture: if their blocks are not those that the model was built for.
        """
        tensors, lengths, states, others = self._inputs(graph)
        for index, stage in enumerate(self.layers):
            assert isinstance(stage, nn.ModuleList)
            states = [layer(state) for layer, state in zip(stage, states, strict=True)]
            if index + 1 < len(self.layers) or not self.edits:
                states = [state.rectified() for state in states]
        if self.edits:
            return self._edited(graph, tensors, states, lengths)
        features = [layer(state) for layer, state in zip(self.invariant, states, strict=True)]
        for i, module in enumerate(self.per_head):
            features[i] = features[i] + module(states[i])
        parts = (part(values) for part, values in zip(self.others, others, strict=True))
        return self.head(torch.cat([self.body(torch.cat(features, dim=1)), *parts], dim=1))

    # Reading walks over names in the spec, which a compiler would trace anew for each of them.
    @uncompiled
    def _inputs(self, graph: ParameterGraph) -> _Inputs:
        """The blocks, lengths of their hidden neurons, their features; values of all the rest."""
        require_graph("graph", graph)
        self._check(graph.spec)
        tensors = blocks.to_blocks(graph)
        lengths = [_lengths(graph, scaling) for scaling in self.scales]
        states = [
            _read(_rescaled(part, block, scaling, length, -1), form)
            for part, block, form, scaling, length in zip(
                tensors, self.parts, self.forms, self.scales, lengths, strict=True
            )
        ]
        return tensors, lengths, states, [part.read(graph) for part in self._other_parts()]

    def _other_parts(self) -> list[_OtherEdges]:
        return [] if self.edits else [part for part in self.others if isinstance(part, _OtherEdges)]

    @uncompiled
    def _edited(
        self,
        graph: ParameterGraph,
        tensors: Sequence[BlockTensors],
        states: Sequence[State],
        lengths: Sequence[Tensor | None],
    ) -> ParameterGraph:
        copies = []
        for copy in range(self.edits):
            edited = []
            for i, old in enumerate(tensors):
                change = _write(states[i], self.forms[i], old, copy)
                change = _rescaled(change, self.parts[i], self.scales[i], lengths[i], 1)
                edited.append(_edit(old, change, self.size))
            copies.append(blocks.from_blocks(graph, edited))
        return ParameterGraph.cat(copies)

    def _check(self, spec: GraphSpec) -> None:
        layout = _layout(spec, blocks.transformer(spec))
        for have, want in zip_longest(layout, self.layout, fillvalue=("nothing", ())):
            if have != want:
                raise UnsupportedArchitecture(
                    f"{have[0]} {have[1]} is where this TransformerNFN was built for {want[0]} "
                    f"{want[1]}. Build one per architecture. {INSTEAD}"
                )


def _layout(
    spec: GraphSpec, parts: Sequence[TransformerBlock]
) -> tuple[tuple[str, tuple[int, ...]], ...]:
    own = [edges for block in parts for edges in block.edge_sets]
    return tuple((edges.name, edges.shape) for edges in (*own, *blocks.outside_blocks(spec)))


def _free_axes(spec: GraphSpec, parts: Sequence[TransformerBlock], group: Group) -> frozenset[str]:
    """Axes, heads and their units apart, along which coefficients are shared."""
    inside = {axis for block in parts for axis in (block.head, *block.units)}
    movable = {a.name for a in spec.axes if a.movable and not a.within} - inside
    if group == "certified":
        return frozenset(movable)
    ends = {name for block in parts for name in (block.source, block.sink)}
    nodes = [
        name
        for block in parts
        for name in (block.hidden, block.middle if block.middle not in ends else None)
        if name is not None
    ]
    return frozenset({spec.node_set(name).axes[0] for name in nodes} & movable)


def _claims(
    free: frozenset[str], parts: Sequence[TransformerBlock], scales: Sequence[Scaling | None]
) -> frozenset[str]:
    names = {name for block in parts for name in (block.head, *block.units, *block.gauges)}
    scaled = {scaling.name for scaling in scales if scaling is not None}
    return frozenset({name for name in names if name} | free | scaled)


def _form(spec: GraphSpec, block: TransformerBlock, free: frozenset[str]) -> BlockForm:
    def space(name: str) -> Space:
        nodes = spec.node_set(name)
        axis = nodes.axes[0]
        return Space(nodes.size, axis if axis in free else None)

    source, middle = space(block.source), space(block.middle)
    return BlockForm(
        heads=spec.axis(block.head).size if block.head else 1,
        query=RowForm(source, block.query_bias is not None),
        key=RowForm(source, block.key_bias is not None),
        value=RowForm(source, block.value_bias is not None),
        output=RowForm(middle),
        hidden=space(block.hidden) if block.hidden else None,
        sink=space(block.sink) if block.sink else None,
        gates=len(block.into),
        gate_biases=sum(edges is not None for edges in block.into_biases),
        out_bias=block.out_bias is not None,
        output_bias=block.output_bias is not None,
    )


def _sizes(tensors: BlockTensors) -> dict[str, float]:
    """Roots of fan-ins, by which weights become comparable across widths."""
    source = tensors.query.shape[2] ** 0.5
    sizes = {"query": source, "key": source, "value": source}
    sizes["output"] = prod(tensors.output.shape[1:3]) ** 0.5
    if tensors.out is not None:
        sizes["into"], sizes["out"] = (w.shape[1] ** 0.5 for w in (tensors.into[0], tensors.out))
    return sizes


def _read(tensors: BlockTensors, form: BlockForm) -> State:
    """A block's values as features with one channel."""
    sizes = _sizes(tensors)
    rows = {}
    for name in HEADS:
        weight, bias = getattr(tensors, name), getattr(tensors, f"{name}_bias")
        along = weight.mT if name != "output" else weight
        along = along.flatten(1, 2).unsqueeze(2) * sizes[name]  # (B, units, 1, n)
        ends = [bias.flatten(1)[:, :, None, None]] if getattr(form, name).bias else []
        if getattr(form, name).space.axis is None:
            rows[name] = rows_of(torch.cat([along, *ends], dim=3))
        else:
            fixed = torch.cat([along[..., :0], *ends], dim=3)
            rows[name] = rows_of(fixed, along.transpose(2, 3))
    values = {
        "into": [weight * sizes["into"] for weight in tensors.into],
        "into_bias": [bias for bias in tensors.into_biases if bias is not None],
        "out": [tensors.out * sizes["out"]] if tensors.out is not None else [],
        "out_bias": [tensors.out_bias] if tensors.out_bias is not None else [],
        "output_bias": [tensors.output_bias] if tensors.output_bias is not None else [],
    }
    features = {
        name: fold(torch.stack(values[name], dim=-1), spaces)
        for name, spaces in form.spaces.items()
    }
    return State(rows, features)


def _write(state: State, form: BlockForm, like: BlockTensors, channel: int) -> BlockTensors:
    """One channel of a block's features as values; the inverse of :func:`_read`."""
    sizes = _sizes(like)
    weights, biases = {}, {}
    for name in HEADS:
        rows, along = state.rows[name], getattr(form, name)
        fixed = rows.fixed[:, :, channel]
        ordered = fixed[..., : along.space.size]
        weight = ordered if rows.nodes is None else rows.nodes[..., channel]
        weight = weight.unflatten(1, (form.heads, -1)) / sizes[name]
        weights[name] = weight if name == "output" else weight.mT
        biases[name] = fixed[..., -1].unflatten(1, (form.heads, -1)) if along.bias else None
    values: dict[str, list[Tensor]] = {}
    for name, spaces in form.spaces.items():
        copies = form.copies(name)
        channels = state.features[name].shape[-1] // form.features(1)[name].channels
        value = unfold(state.features[name], spaces, channels * copies)
        value = value.unflatten(-1, (channels, copies))[..., channel, :] / sizes.get(name, 1)
        values[name] = list(value.unbind(-1))
    gates = iter(values.get("into_bias", []))
    return BlockTensors(
        query=weights["query"],
        key=weights["key"],
        value=weights["value"],
        output=weights["output"],
        query_bias=biases["query"],
        key_bias=biases["key"],
        value_bias=biases["value"],
        output_bias=_first(values, "output_bias"),
        into=tuple(values.get("into", [])),
        into_biases=tuple(None if bias is None else next(gates) for bias in like.into_biases),
        out=_first(values, "out"),
        out_bias=_first(values, "out_bias"),
    )


def _first(values: dict[str, list[Tensor]], name: str) -> Tensor | None:
    return values[name][0] if name in values else None


def _edit(old: BlockTensors, change: BlockTensors, size: Tensor) -> BlockTensors:
    def add(first: Tensor | None, second: Tensor | None) -> Tensor | None:
        return None if first is None or second is None else first + size * second

    return BlockTensors(
        query=old.query + size * change.query,
        key=old.key + size * change.key,
        value=old.value + size * change.value,
        output=old.output + size * change.output,
        query_bias=add(old.query_bias, change.query_bias),
        key_bias=add(old.key_bias, change.key_bias),
        value_bias=add(old.value_bias, change.value_bias),
        output_bias=add(old.output_bias, change.output_bias),
        into=tuple(w + size * c for w, c in zip(old.into, change.into, strict=True)),
        into_biases=tuple(map(add, old.into_biases, change.into_biases)),
        out=add(old.out, change.out),
        out_bias=add(old.out_bias, change.out_bias),
    )


def _hidden_scale(spec: GraphSpec, block: TransformerBlock) -> Scaling | None:
    """The scaling of single hidden neurons that only the feed-forward network follows, if any."""
    own = {edges.name for edges in (*block.into, *block.into_biases, block.out) if edges}
    for scaling in spec.scalings:
        hidden = block.hidden is not None and scaling.axes == spec.node_set(block.hidden).axes
        if hidden and scaling.domain == "positive" and {t.edge_set for t in scaling.terms} <= own:
            return scaling
    return None


def _lengths(graph: ParameterGraph, scaling: Scaling | None) -> Tensor | None:
    """Length of everything that grows with each neuron's scale: shape (B, hidden)."""
    if scaling is None:
        return None
    squares = []
    for term in scaling.terms:
        if term.exponent > 0:
            block = graph.block(graph.spec.edge_set(term.edge_set))
            rows = block.movedim(1 + term.dims[0], 1)
            squares.append(rows.square().unsqueeze(-1).flatten(2).sum(2))
    total = torch.stack(squares).sum(0)
    return torch.where(total > 0, total, 1).sqrt()


def _rescaled(
    tensors: BlockTensors,
    block: TransformerBlock,
    scaling: Scaling | None,
    lengths: Tensor | None,
    power: int,
) -> BlockTensors:
    """The block with each hidden neuron scaled by a power of its length."""
    if scaling is None or lengths is None:
        return tensors
    exponents = {term.edge_set: power * term.exponent for term in scaling.terms}

    def factor(edges: EdgeSet | None) -> Tensor:
        """Shape (B, hidden); 1 for what does not follow the scale."""
        return lengths ** (exponents.get(edges.name, 0.0) if edges else 0.0)

    into = zip(tensors.into, block.into, strict=True)
    biases = zip(tensors.into_biases, block.into_biases, strict=True)
    out = tensors.out
    return replace(
        tensors,
        into=tuple(value * factor(edges).unsqueeze(1) for value, edges in into),
        into_biases=tuple(None if v is None else v * factor(edges) for v, edges in biases),
        out=None if out is None else out * factor(block.out).unsqueeze(2),
    )


def _other_edges(spec: GraphSpec, parts: Sequence[TransformerBlock]) -> list[list[EdgeSet]]:
    """Edge sets before, within and after the blocks, if there are any."""
    first = min(block.query.depth for block in parts)
    last = max((block.out or block.output).depth for block in parts)
    groups: list[list[EdgeSet]] = [[], [], []]
    for edges in blocks.outside_blocks(spec):
        groups[(edges.depth >= first) + (edges.depth > last)].append(edges)
    return [group for group in groups if group]


class _OtherEdges(nn.Module):
    """Reads parameters outside of blocks: an MLP, equivariant along axes that may move.

    Without such axes this is the published MLP on all of them in a row.
    """

    def __init__(self, edge_sets: Sequence[EdgeSet], free: frozenset[str], width: int) -> None:
        super().__init__()
        self.edge_sets = tuple(edge_sets)
        self.spaces = tuple(_spaces(edges, free) for edges in edge_sets)
        inputs = [folded_form(spaces, 1) for spaces in self.spaces]
        kept = sorted({frozenset(feature.axes) for feature in inputs} | {frozenset()}, key=sorted)
        hidden = [Feature(tuple(sorted(axes)), width) for axes in kept]
        self.first = EquivariantLinear(inputs, hidden)
        self.second = EquivariantLinear(hidden, hidden)
        self.width = width * len(hidden)

    def read(self, graph: ParameterGraph) -> list[Tensor]:
        """The parameters as features."""
        values = []
        for edges, spaces in zip(self.edge_sets, self.spaces, strict=True):
            size = fan_in(edges) ** 0.5 if edges.kind == "weight" else 1
            values.append(fold(graph.block(edges).unsqueeze(-1) * size, spaces))
        return values

    def forward(self, values: list[Tensor]) -> Tensor:
        """Features of the parameters to shape (B, width)."""
        for layer in (self.first, self.second):
            values = [value.relu() for value in layer(values)]
        means = [v.flatten(1, -2).mean(1) if v.dim() > 2 else v for v in values]
        return torch.cat(means, dim=1)


def _spaces(edges: EdgeSet, free: frozenset[str]) -> tuple[Space, ...]:
    spaces = tuple(Space(d.size, d.axis if d.axis in free else None) for d in edges.dims)
    moving = [space.axis for space in spaces if space.axis]
    if repeated := {axis for axis in moving if moving.count(axis) > 1}:
        raise UnsupportedArchitecture(
            f"edge set {edges.name} connects the neurons of {', '.join(map(str, repeated))} with "
            "each other; TransformerNFN assumes that parameters outside of its blocks do not. "
            f"Take group='published' if their order may count. {INSTEAD}"
        )
    return spaces
