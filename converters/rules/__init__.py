"""The table of rules: operation name → what it does to axes and units."""

from __future__ import annotations

from torch import nn

from .. import leaves
from ..tracing import Rule
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
}

# Operations that mix neurons, through weights or with one another.
PRODUCTS = frozenset({*weights.RULES, *products.RULES, *recurrent.RULES})


def register(operation: str | type[nn.Module], rule: Rule) -> None:
    """Adds or replaces the rule of an operation, or of a module class.

    A module of a registered class is one operation in the graph, whatever it does inside. Its
    node's first argument is the list of its operands: tensors it is called with, then its
    parameters, in the order of ``module.parameters()``; its results are a list.

    Args:
        operation: its name as reports print it, without namespace and overload (``"my_op"`` for
            ``torch.ops.mylib.my_op``); or a module class.
        rule: what it does to axes and units.
    """
    if isinstance(operation, str):
        RULES[operation] = rule
        return
    name = leaves.name_of_class(operation)
    leaves.CLASSES[name] = operation
    RULES[name] = rule


def table() -> list[tuple[str, str, str]]:
    """Operations, what they permit and where a basis may change, for the documentation."""
    return sorted((name, rule.permits, _basis(rule)) for name, rule in RULES.items())


def _basis(rule: Rule) -> str:
    summary = rule.linear.__doc__ if rule.linear is not None else None
    return summary.partition("\n")[0].partition(": ")[2].rstrip(".") if summary else ""
