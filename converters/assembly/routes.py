"""Sets routes and contexts, which tell edges between the same neurons apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from torch.export import ExportedProgram
from torch.fx import Node
from torch.utils import _pytree as pytree

from gmn.spec import EdgeSet

from ..inference.tracing import Tracing, name_of
from ..rules import rule_of
from .blocks import Block
from .contexts import contexts_of

_COMMUTATIVE = {"add", "mul", "maximum", "minimum"}
_LONGEST = 16  # steps; what comes later hardly tells edges apart
Pair = tuple[EdgeSet, Block]


def with_routes(trace: Tracing, pairs: Sequence[Pair], exported: ExportedProgram) -> list[Pair]:
    """Sets the contexts of edge sets, and the routes of those that connect the same neurons alike.

    Queries and keys range over the same units, as do the two branches of a gated unit. Without a
    route they could be exchanged, weight by weight, and the graph would not change.
    """
    alike = Counter(_likeness(edges) for edges, _ in pairs)
    contexts = contexts_of(exported)
    result = []
    for edges, block in pairs:
        route = _route(trace, block) if alike[_likeness(edges)] > 1 else ()
        context = contexts.get(block.use.node, "")
        result.append((replace(edges, route=route, context=context), block))
    return result


def _likeness(edges: EdgeSet) -> tuple[str, str, str]:
    return edges.source, edges.target, edges.kind


def _route(trace: Tracing, block: Block) -> tuple[str, ...]:
    """The operand and part that the edges are, and the operations their results pass through."""
    node, name = block.use.node, block.use.parameter
    slots = [n for n, leaf in enumerate(_operands(node)) if trace.parameter_name(leaf) == name]
    operands = [f"operand {n}" for n in slots]
    operands += [f"{block.use.ports[dim]} part {n}" for dim, n in block.key if n]
    return (*operands, *sorted(set(_onward(node))))


def _onward(start: Node) -> Iterator[str]:
    """Operations between a node and the next weights or products, some with the operand's index."""
    frontier, seen = [start], {start}
    for _ in range(_LONGEST):
        readers = [(user, node) for node in frontier for user in node.users if user.op != "output"]
        frontier = []
        for user, node in readers:
            name = name_of(user)
            rule = rule_of(user)
            ends = rule is not None and rule.product
            if rule is None or rule.recorded or ends:
                yield name if name in _COMMUTATIVE else f"{name} {_operands(user).index(node)}"
            if not ends and user not in seen:
                frontier.append(user)
                seen.add(user)


def _operands(node: Node) -> list[object]:
    return pytree.tree_leaves((node.args, node.kwargs), is_leaf=lambda x: isinstance(x, Node))
