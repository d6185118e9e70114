"""Replaces sizes that depend on input values, such as the length of a masked selection."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import sympy  # type: ignore[import-untyped]
import torch
from torch import SymBool, SymInt, Tensor
from torch.fx import Graph, Node
from torch.utils import _pytree as pytree

# Stand-ins for sizes, in this order: neither 0 nor 1, which broadcast, and not easily a product.
_STANDINS = (5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 3, 4, 2, 6, 8, 9, 10, 1, 0)

Sizes = dict[sympy.Symbol, int]


class UnsettledSize(Exception):
    """No stand-in fits a size; ``node`` is the operation that made it."""

    def __init__(self, node: Node) -> None:
        super().__init__(f"the size of what {node.target} gives depends on the values of inputs")
        self.node = node


def settle_sizes(graph: Graph) -> None:
    """Replaces sizes that depend on values by numbers, in ``node.meta["val"]`` throughout.

    The graph itself is left as it is and runs on any values. Sizes that are not known are different
    numbers, none of them 0 or 1 where the module allows that, and keep the equations between sizes
    that the module states.

    Raises:
        UnsettledSize: if no numbers tried fit the equations.
    """
    sizes: Sizes = {}
    for node in graph.nodes:
        leaves, nesting = pytree.tree_flatten(node.meta.get("val"))
        for symbol in sorted({s for leaf in leaves for s in _symbols(leaf)}, key=str):
            if symbol not in sizes:
                _choose(symbol, sizes, _environment(leaves), node)
        if any(True for leaf in leaves for _ in _symbols(leaf)):
            settled = [_settle(leaf, sizes) for leaf in leaves]
            node.meta["val"] = pytree.tree_unflatten(settled, nesting)


def _numbers(value: object) -> Iterator[SymInt | SymBool]:
    if isinstance(value, (SymInt, SymBool)):
        yield value
    elif isinstance(value, Tensor):
        yield from (n for n in (*value.shape, *_strides(value)) if isinstance(n, SymInt))


def _strides(value: Tensor) -> tuple[Any, ...]:
    return tuple(value.stride()) if value.layout == torch.strided else ()


def _symbols(value: object) -> Iterator[sympy.Symbol]:
    for size in _numbers(value):
        yield from size.node.expr.free_symbols


def _environment(leaves: list[object]) -> Any:
    return next(n.node.shape_env for leaf in leaves for n in _numbers(leaf))


def _choose(symbol: sympy.Symbol, sizes: Sizes, environment: Any, node: Node) -> None:
    """The first stand-in within the symbol's range, taken by no other, that fits all equations."""
    bounds = environment.var_to_range.get(symbol)
    asserted = environment.deferred_runtime_asserts.values()
    checks = [check for each in asserted for check in each]
    candidates = [n for n in _STANDINS if bounds is None or bounds.lower <= n <= bounds.upper]
    for size in sorted(candidates, key=lambda n: n in sizes.values()):
        trial = {**sizes, symbol: size}
        if not any(sympy.simplify(_put(check.expr, trial)) is sympy.false for check in checks):
            sizes[symbol] = size
            return
    raise UnsettledSize(node)


def _put(expression: Any, sizes: Mapping[sympy.Symbol, int]) -> Any:
    return expression.xreplace({symbol: sympy.Integer(n) for symbol, n in sizes.items()})


def _settle(value: object, sizes: Sizes) -> object:
    if isinstance(value, SymInt):
        return int(_put(value.node.expr, sizes))
    if isinstance(value, SymBool):
        return bool(_put(value.node.expr, sizes))
    if isinstance(value, Tensor) and any(True for _ in _symbols(value)):
        shape = [_settle(size, sizes) for size in value.shape]
        return torch.empty(shape, dtype=value.dtype, device="meta")  # type: ignore[arg-type]
    return value
