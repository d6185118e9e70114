"""Reads transformer blocks of a parameter graph as head-wise tensors, and writes them back.

Methods for transformers see a block as queries, keys, values and outputs of every head and the two
matrices of a feed-forward network. Where those lie, in packed weights or in separate ones, is read
off the spec; so is that each head's units may be mixed by any invertible matrix.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from torch import Tensor

from baselines.adapter import INSTEAD, UnsupportedArchitecture
from gmn.graph import ParameterGraph
from gmn.spec import EdgeSet, Gauge, GraphSpec, NodeSet


@dataclass(frozen=True)
class TransformerBlock:
    """The edge sets, node sets and axes of one block.

    A block is ``source → heads → middle → hidden → sink``. With a skip connection around attention,
    ``middle`` is the node set ``source``; a block without a feed-forward network has no ``hidden``
    and no ``sink``, a gated one has two matrices into ``hidden``.

    Attributes:
        query, key, value, output: the weights of the heads.
        query_bias, key_bias, value_bias, output_bias: their biases, where there are any.
        into: the weights from ``middle`` to ``hidden``.
        into_biases: their biases.
        out: the weight from ``hidden`` to ``sink``.
        out_bias: its bias.
        head: the axis of heads; None for a single head.
        gauges: names of the changes of basis of queries and keys, of values.
        units: the axes of key units and of value units.
        source, middle, hidden, sink: names of node sets.
    """

    query: EdgeSet
    key: EdgeSet
    value: EdgeSet
    output: EdgeSet
    query_bias: EdgeSet | None
    key_bias: EdgeSet | None
    value_bias: EdgeSet | None
    output_bias: EdgeSet | None
    into: tuple[EdgeSet, ...]
    into_biases: tuple[EdgeSet | None, ...]
    out: EdgeSet | None
    out_bias: EdgeSet | None
    head: str | None
    gauges: tuple[str, str]
    units: tuple[str, str]
    source: str
    middle: str
    hidden: str | None
    sink: str | None

    @property
    def edge_sets(self) -> tuple[EdgeSet, ...]:
        """All edge sets of the block."""
        attention = (self.query, self.key, self.value, self.output, self.query_bias, self.key_bias)
        more = (self.value_bias, self.output_bias, *self.into, *self.into_biases)
        return tuple(e for e in (*attention, *more, self.out, self.out_bias) if e is not None)


@dataclass(frozen=True)
class BlockTensors:
    """The values of one block, as matrices that multiply rows from the right.

    Attributes:
        query, key: shape (B, heads, source, key units).
        value: shape (B, heads, source, value units).
        output: shape (B, heads, value units, middle).
        query_bias, key_bias, value_bias: shape (B, heads, units); None where there is none.
        output_bias: shape (B, middle).
        into: shape (B, middle, hidden) each.
        into_biases: shape (B, hidden) each.
        out: shape (B, hidden, sink).
        out_bias: shape (B, sink).
    """

    query: Tensor
    key: Tensor
    value: Tensor
    output: Tensor
    query_bias: Tensor | None = None
    key_bias: Tensor | None = None
    value_bias: Tensor | None = None
    output_bias: Tensor | None = None
    into: tuple[Tensor, ...] = ()
    into_biases: tuple[Tensor | None, ...] = ()
    out: Tensor | None = None
    out_bias: Tensor | None = None


@lru_cache(maxsize=64)
def transformer(spec: GraphSpec) -> tuple[TransformerBlock, ...]:
    """The blocks of a transformer, from input to output.

    Raises:
        UnsupportedArchitecture: if there is no attention, or one that is not plain self-attention;
            the message names the node set, and what the method assumes.
    """
    weights = [edges for edges in spec.edge_sets if edges.kind == "weight"]
    scores = [nodes for nodes in spec.node_sets if _is_scores(nodes, weights)]
    _check_shared_heads(spec)
    if not scores:
        raise _refuse("the network", "has no node set that queries and keys share")
    attentions = sorted((_attention(spec, nodes, weights) for nodes in scores), key=_depth)
    blocks = tuple(_with_feed_forward(spec, block, attentions, weights) for block in attentions)
    for block in blocks:
        _check_nothing_else(spec, block)
    return blocks


def _depth(block: TransformerBlock) -> int:
    return block.output.depth


def _is_scores(nodes: NodeSet, weights: Sequence[EdgeSet]) -> bool:
    """Whether several weights enter the neurons, and none leaves: their products are scores."""
    entering = [edges for edges in weights if edges.target == nodes.name]
    leaving = [edges for edges in weights if edges.source == nodes.name]
    ports = {dim.port for edges in entering for dim in edges.dims}
    hidden = nodes.role in ("hidden", "ordered")
    return hidden and len(entering) > 1 and not leaving and ports == {"target", "source"}


def _check_shared_heads(spec: GraphSpec) -> None:
    for gauge in spec.gauges:
        mixed = [
            edges
            for term in gauge.terms
            for edges in [spec.edge_set(term.edge_set)]
            if edges.kind == "weight" and edges.dims[term.dims[-1]].port == "target"
        ]
        if len(mixed) == 2 and mixed[0].target != mixed[1].target:
            names = " and ".join(edges.name for edges in mixed)
            raise _refuse(
                f"node set {mixed[0].target}",
                f"has several query heads for each key head ({names})",
            )


def _attention(spec: GraphSpec, nodes: NodeSet, weights: Sequence[EdgeSet]) -> TransformerBlock:
    entering = [edges for edges in weights if edges.target == nodes.name]
    who = f"node set {nodes.name}"
    for edges in entering:
        if edges.tied_to is not None:
            raise _refuse(f"edge set {edges.name}", f"is tied to {edges.tied_to}")
    sources = dict.fromkeys(edges.source for edges in entering)
    if len(sources) > 1:
        raise _refuse(who, f"compares {' with '.join(sources)} (cross-attention)")
    gauge = _gauge_of(spec, *entering)
    if gauge is None or len(entering) > 2:
        raise _refuse(
            who,
            "has no free change of basis between queries and keys (as with rotary embeddings or "
            "normalised queries)",
        )
    if gauge.axes != nodes.axes or len(nodes.axes) > 2:
        raise _refuse(who, f"is mixed along {gauge.axes}, but has the axes {nodes.axes}")
    head = nodes.axes[0] if len(nodes.axes) == 2 else None
    query, key = sorted(entering, key=_operand)
    value, output, values = _values(spec, head, query, gauge, weights)
    sides = {term.edge_set: term.exponent for term in gauge.terms}
    biases = {
        sides[edges.name]: edges
        for edges in spec.edge_sets
        if edges.kind == "bias" and edges.target == nodes.name and edges.name in sides
    }
    return TransformerBlock(
        query, key, value, output,
        biases.get(sides[query.name]), biases.get(sides[key.name]),
        _bias(spec, value), _bias(spec, output),
        (), (), None, None,
        head, (gauge.name, values.name), (gauge.axes[-1], values.axes[-1]),
        query.source, output.target, None, None,
    )  # fmt: skip


def _operand(edges: EdgeSet) -> tuple[int, int]:
    """Sorts queries before keys: the first operand of the product, or the first part packed."""
    routes = [step.rsplit(" ", 1) for step in edges.route]
    products = [
        int(parts[1])
        for parts in routes
        if len(parts) == 2 and parts[0] in ("matmul", "bmm", "scaled_dot_product_attention")
    ]
    return (products[0] if len(products) == 1 else 0), edges.offset


def _gauge_of(spec: GraphSpec, *edge_sets: EdgeSet) -> Gauge | None:
    """The general gauge that exactly these weights follow."""
    names = {edges.name for edges in edge_sets}
    for gauge in spec.gauges:
        weights = {t.edge_set for t in gauge.terms if spec.edge_set(t.edge_set).kind == "weight"}
        if gauge.group == "general" and weights == names:
            return gauge
    return None


def _values(
    spec: GraphSpec, head: str | None, query: EdgeSet, scores: Gauge, weights: Sequence[EdgeSet]
) -> tuple[EdgeSet, EdgeSet, Gauge]:
    """Value and output weights of the attention whose queries are given, and their gauge."""
    for value in weights:
        axes = spec.node_set(value.target).axes
        same_heads = axes[:1] == (head,) if head else len(axes) == 1
        leaving = [edges for edges in weights if edges.source == value.target]
        if not same_heads or value.source != query.source or len(leaving) != 1:
            continue
        gauge = _gauge_of(spec, value, leaving[0])
        # Without a head axis, a single head is told from other layers by its depth.
        if gauge is not None and gauge.axes == axes and value.depth == query.depth:
            return value, leaving[0], gauge
    raise _refuse(
        f"node set {query.target}",
        f"has no values from {query.source} of the same heads with a free change of basis",
    )


def _bias(spec: GraphSpec, weight: EdgeSet) -> EdgeSet | None:
    """The bias that is added to a weight's results; on a residual stream there are many."""
    candidates = [
        edges
        for edges in spec.edge_sets
        if edges.kind == "bias" and edges.target == weight.target and edges.depth == weight.depth
    ]
    module = weight.parameter.rpartition(".")[0]
    named = [edges for edges in candidates if edges.parameter.rpartition(".")[0] == module]
    return next(iter(named or candidates), None) if len(named or candidates) == 1 else None


def _with_feed_forward(
    spec: GraphSpec,
    block: TransformerBlock,
    blocks: Sequence[TransformerBlock],
    weights: Sequence[EdgeSet],
) -> TransformerBlock:
    """The block with the first feed-forward network after its attention, if there is one."""
    later = [b.output.depth for b in blocks if b.output.depth > block.output.depth]
    end = min(later, default=None)
    for nodes in spec.node_sets:
        into = tuple(edges for edges in weights if edges.target == nodes.name)
        leaving = [edges for edges in weights if edges.source == nodes.name]
        if not 1 <= len(into) <= 2 or len(leaving) != 1 or len(nodes.axes) != 1:
            continue
        depth = into[0].depth
        if {edges.source for edges in into} != {block.middle} or depth <= block.output.depth:
            continue
        if (end is not None and depth > end) or not spec.axis(nodes.axes[0]).movable:
            continue
        if nodes.name == block.middle or nodes.name in {b.source for b in blocks}:
            continue
        out = leaving[0]
        biases = tuple(_bias(spec, edges) for edges in into)
        return replace(
            block,
            into=into,
            into_biases=biases,
            out=out,
            out_bias=_bias(spec, out),
            hidden=out.source,
            sink=out.target,
        )
    return block


def _check_nothing_else(spec: GraphSpec, block: TransformerBlock) -> None:
    own = {edges.name for edges in block.edge_sets}
    attention = (block.query.target, block.value.target)
    for edges in spec.edge_sets:
        if edges.tied_to is not None and {edges.name, edges.tied_to} & own:
            raise _refuse(f"edge set {edges.name}", f"is tied to {edges.tied_to}")
        if edges.name not in own and {edges.source, edges.target} & {*attention}:
            raise _refuse(
                f"node set {edges.target}", f"has parameters besides its weights: {edges.name}"
            )
    for name in (block.source, block.middle, block.sink):
        if name is not None and len(spec.node_set(name).axes) != 1:
            raise _refuse(f"node set {name}", "has several axes, not one of features")


def _refuse(who: str, what: str) -> UnsupportedArchitecture:
    return UnsupportedArchitecture(
        f"{who} {what}; this method assumes blocks of self-attention, with as many key heads as "
        f"query heads and any invertible change of basis within each. {INSTEAD}"
    )


def outside_blocks(spec: GraphSpec) -> tuple[EdgeSet, ...]:
    """The edge sets outside of all blocks: embeddings, norms, the classifier.

    Raises:
        UnsupportedArchitecture: as :func:`transformer`.
    """
    own = {edges.name for block in transformer(spec) for edges in block.edge_sets}
    return tuple(e for e in spec.edge_sets if e.name not in own and e.tied_to is None)


def to_blocks(graph: ParameterGraph) -> tuple[BlockTensors, ...]:
    """The values of all blocks.

    Raises:
        UnsupportedArchitecture: if the networks are no transformers.
    """
    return tuple(_tensors(graph, block) for block in transformer(graph.spec))


def _tensors(graph: ParameterGraph, block: TransformerBlock) -> BlockTensors:
    def read(edges: EdgeSet | None, axes: Sequence[str | None]) -> Tensor | None:
        return None if edges is None else _ordered(graph.block(edges), edges, axes)

    def arranged(edges: EdgeSet, axes: Sequence[str | None]) -> Tensor:
        return _ordered(graph.block(edges), edges, axes)

    form = _axes(graph.spec, block)
    return BlockTensors(
        arranged(block.query, form["query"]),
        arranged(block.key, form["key"]),
        arranged(block.value, form["value"]),
        arranged(block.output, form["output"]),
        read(block.query_bias, form["query_bias"]),
        read(block.key_bias, form["key_bias"]),
        read(block.value_bias, form["value_bias"]),
        read(block.output_bias, form["output_bias"]),
        tuple(arranged(edges, form["into"]) for edges in block.into),
        tuple(read(edges, form["into_bias"]) for edges in block.into_biases),
        read(block.out, form["out"]),
        read(block.out_bias, form["out_bias"]),
    )


def _axes(spec: GraphSpec, block: TransformerBlock) -> dict[str, tuple[str | None, ...]]:
    """The order of axes of every tensor of a block."""

    def only(name: str | None) -> str | None:
        return None if name is None else spec.node_set(name).axes[0]

    head, (keys, values) = block.head or "", block.units
    source, middle, hidden, sink = map(only, (block.source, block.middle, block.hidden, block.sink))
    return {
        "query": (head, source, keys),
        "key": (head, source, keys),
        "value": (head, source, values),
        "output": (head, values, middle),
        "query_bias": (head, keys),
        "key_bias": (head, keys),
        "value_bias": (head, values),
        "output_bias": (middle,),
        "into": (middle, hidden),
        "into_bias": (hidden,),
        "out": (hidden, sink),
        "out_bias": (sink,),
    }


def _dims_of(edges: EdgeSet, axes: Sequence[str | None]) -> list[int]:
    """Positions of the axes among the block's dimensions; a missing head axis is left out."""
    names = [dim.axis for dim in edges.dims]
    return [names.index(axis) for axis in axes if axis in names]


def _ordered(value: Tensor, edges: EdgeSet, axes: Sequence[str | None]) -> Tensor:
    value = value.permute(0, *(1 + dim for dim in _dims_of(edges, axes)))
    return value.unsqueeze(1) if axes[0] == "" else value


def from_blocks(graph: ParameterGraph, blocks: Sequence[BlockTensors]) -> ParameterGraph:
    """A graph like ``graph`` with other values of its blocks; exact inverse of :func:`to_blocks`.

    Raises:
        UnsupportedArchitecture: if the networks are no transformers.
        ValueError: if there are more or fewer blocks than the network has.
    """
    values: dict[str, Tensor] = {}
    for block, tensors in zip(transformer(graph.spec), blocks, strict=True):
        form = _axes(graph.spec, block)
        for name, edges, value in _pairs(block, tensors):
            values[edges.name] = _restored(value, edges, form[name])
    return graph.replace_pairs(values)


def _restored(value: Tensor, edges: EdgeSet, axes: Sequence[str | None]) -> Tensor:
    """A tensor in the block's own dimensions, as :meth:`ParameterGraph.replace_pairs` wants it."""
    dims = _dims_of(edges, axes)
    value = value.squeeze(1) if axes[0] == "" else value
    value = value.permute(0, *(1 + dims.index(dim) for dim in range(len(dims))))
    return value.flatten(1).unsqueeze(-1)


def _pairs(block: TransformerBlock, tensors: BlockTensors) -> Iterator[tuple[str, EdgeSet, Tensor]]:
    """Names, edge sets and values of everything that the block has."""
    for name in ("query", "key", "value", "output"):
        for part in (name, f"{name}_bias"):
            edges, value = getattr(block, part), getattr(tensors, part)
            if edges is not None and value is not None:
                yield part, edges, value
    for into, weight in zip(block.into, tensors.into, strict=True):
        yield "into", into, weight
    for edges, bias in zip(block.into_biases, tensors.into_biases, strict=True):
        if edges is not None and bias is not None:
            yield "into_bias", edges, bias
    if block.out is not None and tensors.out is not None:
        yield "out", block.out, tensors.out
    if block.out_bias is not None and tensors.out_bias is not None:
        yield "out_bias", block.out_bias, tensors.out_bias
