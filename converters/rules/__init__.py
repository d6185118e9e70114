"""The table of rules: operation name → what it does to axes, scales, signs and shifts."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node

from ..exporting import leaves
from ..exporting.normal_form import SYNONYMS
from ..exporting.operators import exists
from ..inference.tracing import Rule, name_of
from . import (
    indexing,
    norm,
    pieces,
    pointwise,
    products,
    recurrent,
    reduce,
    shape,
    sources,
    spectra,
    weights,
    windows,
    writes,
)

RULES: dict[str, Rule] = {
    **weights.RULES,
    **norm.RULES,
    **pointwise.RULES,
    **reduce.RULES,
    **shape.RULES,
    **pieces.RULES,
    **products.RULES,
    **sources.RULES,
    **indexing.RULES,
    **recurrent.RULES,
    **writes.RULES,
    **windows.RULES,
    **spectra.RULES,
}


def rule_of(node: Node) -> Rule | None:
    """The rule of an operation; None if it has none."""
    return _OF_NUMBERS if _is_of_numbers(node) else RULES.get(name_of(node))


_OF_NUMBERS = Rule(
    pointwise.no_axes, pointwise.nothing, "everything; what made the numbers of tensors is pinned"
)


def _is_of_numbers(node: Node) -> bool:
    """Whether a node computes a Python number, such as a size, from numbers."""
    if isinstance(node.target, torch._ops.OpOverload):
        return False
    numeric = (int, float, torch.SymInt, torch.SymFloat, torch.SymBool)
    return all(isinstance(n.meta.get("val"), numeric) for n in (node, *node.all_input_nodes))


def register(operation: Any, rule: Rule) -> None:
    """Adds or replaces the rule of an operation, or of a module class.

    A module of a registered class is one operation in the graph, whatever it does inside. Its
    operands (:func:`converters.writing.operands_of`) are the tensors it is called with, then its
    parameters, in the order of ``module.parameters()``; its results are a list.

    Args:
        operation: an operator, such as ``torch.ops.mylib.my_op``; or its name,
            ``"mylib::my_op"``, or ``"relu"`` for one of torch itself; or a module class.
        rule: what it does.

    Raises:
        ValueError: if there is no such operation.
    """
    if isinstance(operation, type):
        name = leaves.name_of_class(operation)
        leaves.CLASSES[name] = operation
    else:
        name = _known(_named(operation))
    RULES[name] = rule


def _named(operation: object) -> str:
    operation = getattr(operation, "_opoverload", operation)  # of a custom operation's definition
    if isinstance(operation, torch._ops.OpOverload):
        operation = operation.overloadpacket
    if isinstance(operation, torch._ops.OpOverloadPacket):
        return operation._qualified_op_name
    if isinstance(operation, str):
        return operation
    raise ValueError(
        f"{operation!r} is no operation: pass an operator such as torch.ops.mylib.my_op, its name "
        "'mylib::my_op', or a module class"
    )


def _known(name: str) -> str:
    """The name under which the table holds an operation.

    Raises:
        ValueError: if there is none.
    """
    if not exists(name):
        plain = name.rpartition("::")[2]
        names = sorted({n.partition(".")[0] for n in torch._C._dispatch_get_all_op_names()})
        others = [other for other in names if other.endswith(f"::{plain}")]
        hint = f"; did you mean {' or '.join(others)}?" if others else ""
        raise ValueError(
            f"no operation is called {name}. Operators beside torch's own go by namespace and "
            f"name, as in 'mylib::my_op', and must be defined before their rule{hint}"
        )
    name = name.removeprefix("aten::")
    return SYNONYMS.get(name, name)


def table() -> list[tuple[str, str]]:
    """Operations and what they permit, for the documentation."""
    return sorted((name, rule.permits) for name, rule in RULES.items())
