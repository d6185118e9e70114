"""Looks up operators of torch by name."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node

# Switches of operators that draw numbers only where they are on, and the rates they draw at.
_SWITCHES = ("train", "training")
_RATES = ("p", "dropout_p")


def qualified_name(node: Node) -> str:
    """Name of an operation with its namespace, without overload, such as ``aten::relu``.

    What is no operator of torch, such as ``operator.getitem``, goes by its own module's name.
    """
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        return str(target._schema.name)
    if isinstance(target, torch._ops.HigherOrderOperator):
        return f"higher_order::{target._name}"
    module = str(getattr(target, "__module__", "")).lstrip("_")
    return f"{module}::{getattr(target, '__name__', target)}"


def exists(name: str) -> bool:
    """Whether torch has an operator of this name.

    Args:
        name: such as ``relu``, which stands for ``aten::relu``, or ``mylib::my_op``.
    """
    namespace, _, operator = name.rpartition("::")
    operators = getattr(torch.ops, namespace or "aten")
    if namespace == "higher_order":
        return operator in {each._name for each in torch._ops._higher_order_ops.values()}
    try:
        return isinstance(getattr(operators, operator), torch._ops.OpOverloadPacket)
    except AttributeError:
        return False


def is_random(node: Node) -> bool:
    """Whether the operation draws random numbers: two runs on the same operands may differ."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return False
    if torch.Tag.nondeterministic_seeded not in target.tags:
        return False
    given = _arguments(node, target)
    if any(given.get(switch, True) is False for switch in _SWITCHES):
        return False
    return not any(given.get(rate) in (0, 0.0) for rate in _RATES if rate in given)


def _arguments(node: Node, target: torch._ops.OpOverload) -> dict[str, Any]:
    named = dict(zip((a.name for a in target._schema.arguments), node.args, strict=False))
    defaults = {a.name: a.default_value for a in target._schema.arguments if a.has_default_value()}
    return {**defaults, **named, **node.kwargs}
