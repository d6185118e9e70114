"""Hash-conses the values of a forward graph: equal numbers mean equal expressions.

Every expression is entered once (hash consing), so two nodes compute the same function of the same
entries and inputs if their numbers agree. What addition, multiplication, maxima and reductions over
stacked values put together has no order; parts of sums of sums are parts of one sum. The reverse
does not hold: equal values may have different numbers, in which case fewer symmetries are found.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from ..exporting.operators import is_random

Shape = tuple[int, ...]

# What may be regrouped and reordered, up to rounding.
_REGROUPED = frozenset({"add", "mul", "maximum", "minimum", "fmax", "fmin", "logaddexp"})
_COMMUTATIVE = frozenset(
    {"bitwise_and", "bitwise_or", "bitwise_xor", "eq", "ne", "logical_and", "logical_or"}
)
# Every number of the result depends on one of the first operand, the same function everywhere.
_POINTWISE = frozenset(
    {
        *(
            "abs",
            "alias",
            "clamp",
            "clamp_max",
            "clamp_min",
            "clone",
            "contiguous",
            "cos",
            "detach",
        ),
        *("div", "elu", "erf", "exp", "gelu", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu"),
        *("log", "log1p", "log_sigmoid", "mish", "neg", "pow", "reciprocal", "relu", "relu6"),
        *("rsqrt", "selu", "sigmoid", "silu", "sin", "softplus", "sqrt", "square", "tanh", "to"),
    }
)
_SOFTMAX = frozenset({"softmax", "log_softmax"})
# They do not mind in which order what they reduce is.
_REDUCTIONS = frozenset(
    {
        *("all", "amax", "amin", "any", "linalg_vector_norm", "logsumexp", "mean", "prod", "std"),
        *("sum", "var"),
    }
)
_WITH_PLACES = frozenset({"max", "min", "median"})  # of whose results the first is of use
# They take no more than shape and type from their first operand.
_FILLED = frozenset({"full_like", "new_full", "new_ones", "new_zeros", "ones_like", "zeros_like"})
_DEEPEST = 60  # operations that one index of a dimension is followed back through
_MOST = 256  # indices of a dimension that are kept apart
_UNSETTLED = ("empty", "new_empty")  # memory as it was found


@dataclass(frozen=True)
class Expression:
    """A value: an operation (the head) and the value numbers of its operands.

    Attributes:
        head: the operation and its arguments but for the operands.
        operands: their numbers; sorted if their order does not matter.
        unordered: whether it does not.
    """

    head: Hashable
    operands: tuple[int, ...] = ()
    unordered: bool = False


@dataclass(frozen=True)
class EntryHead:
    """Head of an entry of the state dict."""

    name: str
    shape: Shape
    dtype: torch.dtype


@dataclass(frozen=True)
class RowHead:
    """Head of a part of an entry: one index of one dimension."""

    entry: EntryHead
    dim: int
    index: int


@dataclass(frozen=True)
class ReorderedHead:
    """Head of an entry of which two indices of a dimension have changed places."""

    entry: EntryHead
    dim: int
    swapped: tuple[int, int]


@dataclass(frozen=True)
class _Operator:
    """Head of an operation: its name, and its arguments with gaps for operands."""

    name: str
    arguments: Hashable
    dtype: torch.dtype | None = None


_GAP = object()


@dataclass
class Expressions:
    """Value numbering: the table of all expressions.

    Attributes:
        by_number: the expressions by number.
        absorbed: those that are a part of a longer sum or product of their kind.
    """

    by_number: list[Expression] = field(default_factory=list)
    absorbed: set[int] = field(default_factory=set)
    _numbers: dict[Expression, int] = field(default_factory=dict)
    _shapes: dict[int, Shape] = field(default_factory=dict)
    _items: dict[tuple[int, int, int], int] = field(default_factory=dict)
    _stacked: dict[int, frozenset[int]] = field(default_factory=dict)
    _depth: int = 0

    def enter(self, expression: Expression, shape: Shape | None = None) -> int:
        """The value number of an expression; a new one if it is new."""
        number = self._numbers.get(expression)
        if number is None:
            number = self._numbers[expression] = len(self.by_number)
            self.by_number.append(expression)
        if shape is not None and number not in self._shapes:
            self._shapes[number] = shape
            if stacked := self._stacked_dims(expression, shape):
                self._stacked[number] = stacked
        return number

    def of_node(self, node: Node, values: Callable[[Node], int]) -> int:
        """The value number of an operation's result.

        Args:
            node: the operation.
            values: the numbers of its operands.
        """
        operands: list[int] = []
        arguments = _frozen(node.args, values, operands)
        named = tuple((k, _frozen(node.kwargs[k], values, operands)) for k in sorted(node.kwargs))
        name = _name_of(node)
        if name is None:
            return self.enter(Expression(("only", node.name), tuple(operands)))
        value = node.meta.get("val")
        tensor = isinstance(value, Tensor)
        shape = tuple(int(n) for n in value.shape) if tensor else None  # type: ignore[union-attr]
        overload = getattr(node.target, "_overloadname", "")
        dtype = value.dtype if tensor else None  # type: ignore[union-attr]
        call = _Operator(name, (overload, arguments, named), dtype)
        expression = self._expression(call, tuple(operands), node)
        return self.enter(expression, shape)

    def _expression(self, call: _Operator, operands: tuple[int, ...], node: Node) -> Expression:
        plain = not node.kwargs
        if call.name in _REGROUPED and plain:
            return self._regrouped(call, operands)
        if call.name == "sub" and plain and len(node.args) == 2:
            return self._difference(call, operands, node)
        if call.name in _COMMUTATIVE and plain and len(operands) == 2:
            return Expression(call, tuple(sorted(operands)), True)
        if call.name in _FILLED and isinstance(node.args[0], Node):
            value = node.meta["val"]
            return Expression(("filled", call, tuple(value.shape)), operands[1:])
        special = None
        if call.name in _REDUCTIONS and len(operands) == 1:
            special = self._reduction(call, operands[0], node)
        elif call.name == "getitem" and len(operands) == 1:
            special = self._picked(node, operands[0])
        elif call.name in ("select", "slice") and len(operands) == 1 and plain:
            special = self._taken(call, operands[0], node)
        return Expression(call, operands) if special is None else special

    # --- sums and products ----------------------------------------------------------------------

    def _regrouped(self, call: _Operator, operands: tuple[int, ...]) -> Expression:
        """Sums, products and maxima as one collection of parts."""
        head = _Operator(call.name, "parts", call.dtype)
        scalars = () if len(operands) == 2 else (self._scalar(call),)
        return self._collection(head, (*operands, *scalars))

    def _scalar(self, call: _Operator) -> int:
        return self.enter(Expression(("number", call.name, call.arguments)))

    def _difference(self, call: _Operator, operands: tuple[int, ...], node: Node) -> Expression:
        """A sum of the first operand and the negative second one."""
        head = _Operator("add", "parts", call.dtype)
        if len(operands) == 2:
            negative = self.enter(Expression(_Operator("neg", "difference"), operands[1:]))
            return self._collection(head, (operands[0], negative))
        if isinstance(node.args[0], Node):
            return self._collection(head, (*operands, self._scalar(call)))
        return Expression(call, operands)

    def _collection(self, head: _Operator, operands: tuple[int, ...]) -> Expression:
        parts: list[int] = []
        for operand in operands:
            inner = self.by_number[operand]
            if inner.head == head:
                self.absorbed.add(operand)
                parts += inner.operands
            else:
                parts.append(operand)
        return Expression(head, tuple(sorted(parts)), True)

    # --- reductions over stacked values ---------------------------------------------------------

    def _reduction(self, call: _Operator, operand: int, node: Node) -> Expression | None:
        shape = self._shapes.get(operand, ())
        reduced = _dims(node, len(shape))
        for dim in sorted(self._stacked.get(operand, frozenset()).intersection(reduced)):
            parts = sorted(self.item(operand, dim, k) for k in range(shape[dim]))
            return Expression(("reduced", call, len(shape), dim), tuple(parts), True)
        return None

    def _picked(self, node: Node, operand: int) -> Expression | None:
        """One of several results: values of a reduction, one index of a dimension."""
        whole, index = node.args
        made = self.by_number[operand]
        if not isinstance(whole, Node) or whole.kwargs or not isinstance(index, int):
            return None
        if not isinstance(made.head, _Operator):
            return None
        if made.head.name in _WITH_PLACES and index == 0 and len(made.operands) == 1:
            return self._reduction(made.head, made.operands[0], whole)
        if made.head.name == "unbind" and len(made.operands) == 1:
            return self._one(made.operands[0], _second(made.head, 0), index, "select")
        if made.head.name == "split" and len(made.operands) == 1 and whole.args[1] == 1:
            dim = whole.args[2] if len(whole.args) > 2 else 0
            return self._one(made.operands[0], dim, index, "slice")
        return None

    def _taken(self, call: _Operator, operand: int, node: Node) -> Expression | None:
        """One index of one dimension."""
        if call.name == "select":
            return self._one(operand, node.args[1], node.args[2], "select")
        given: tuple[Any, ...] = node.args[1:]
        filled: tuple[Any, ...] = given + (0, None, None, 1)[len(given) :]
        dim, start, end, step = filled
        shape = self._shapes.get(operand)
        if shape is None or step != 1 or not all(isinstance(n, int) for n in (dim, start, end)):
            return None
        size = shape[dim]
        first, last = start + size * (start < 0), min(end + size * (end < 0), size)
        return self._one(operand, dim, first, "slice") if last == first + 1 else None

    def _one(self, operand: int, dim: Any, index: Any, how: str) -> Expression | None:
        shape = self._shapes.get(operand)
        if shape is None or not isinstance(dim, int) or not isinstance(index, int):
            return None
        dim, index = dim % len(shape), index % shape[dim]
        item = self.item(operand, dim, index)
        if self.by_number[item].head == ("item", dim, index):
            return None
        return Expression((how, len(shape), dim), (item,))

    def _stacked_dims(self, made: Expression, shape: Shape) -> frozenset[int]:
        """Dimensions along which values were stacked and have not been mixed since."""
        if not isinstance(made.head, _Operator):
            return frozenset()
        if (own := self._stack_dim(made, shape)) is not None:
            return frozenset([own])
        if self._stacked.keys().isdisjoint(made.operands):
            return frozenset()
        return frozenset(
            dim
            for dim in range(len(shape))
            for operand, operand_dim in self._carriers(made, shape, dim)
            if operand_dim in self._stacked.get(operand, ())
        )

    def _stack_dim(self, made: Expression, shape: Shape) -> int | None:
        """The dimension that has one index for each operand, if it is a stack."""
        if not isinstance(made.head, _Operator) or made.head.name not in ("stack", "cat"):
            return None
        dim = _second(made.head, 0) % len(shape)
        return dim if shape[dim] == len(made.operands) else None

    def _carriers(self, made: Expression, shape: Shape, dim: int) -> list[tuple[int, int]]:
        """Operands that have a dimension of the result, and which of theirs it is."""
        assert isinstance(made.head, _Operator)
        name = made.head.name
        if name == "unsqueeze":
            new = _second(made.head, 0) % len(shape)
            return [] if new == dim else [(made.operands[0], dim - (new < dim))]
        if name in _SOFTMAX or (name in _POINTWISE and len(made.operands) == 1):
            return [(made.operands[0], dim)]
        if made.head.arguments == "parts" or (name in _POINTWISE and len(made.operands) == 2):
            return [
                (operand, own)
                for operand in made.operands
                if (own := self._own_dim(operand, shape, dim)) is not None
            ]
        return []

    def _own_dim(self, operand: int, shape: Shape, dim: int) -> int | None:
        """Which dimension of an operand meets one of the result, if it varies along it."""
        own = self._shapes.get(operand)
        if own is None:
            return None
        operand_dim = dim - len(shape) + len(own)
        return operand_dim if operand_dim >= 0 and own[operand_dim] == shape[dim] > 1 else None

    # --- one index of a dimension ---------------------------------------------------------------

    def item(self, number: int, dim: int, index: int) -> int:
        """The value number of one index of a dimension of a value."""
        key = number, dim, index
        if key not in self._items:
            made, result = self.by_number[number], None
            if self._depth < _DEEPEST:
                self._depth += 1
                result = self._item(made, number, dim, index)
                self._depth -= 1
            plain = Expression(("item", dim, index), (number,))
            self._items[key] = self.enter(plain) if result is None else result
        return self._items[key]

    def _item(self, made: Expression, number: int, dim: int, index: int) -> int | None:
        head, shape = made.head, self._shapes.get(number)
        if isinstance(head, EntryHead):
            return self.enter(Expression(RowHead(head, dim, index)))
        if isinstance(head, ReorderedHead):
            if dim != head.dim:
                return None
            one, other = head.swapped
            index = {one: other, other: one}.get(index, index)
            return self.enter(Expression(RowHead(head.entry, dim, index)))
        if not isinstance(head, _Operator) or shape is None or shape[dim] > _MOST:
            return None
        if head.name in _SOFTMAX and _second(head, -1) % len(shape) == dim:
            parts = sorted(self.item(made.operands[0], dim, k) for k in range(shape[dim]))
            whole = self.enter(Expression(("all", len(shape), dim), tuple(parts), True))
            part = self.item(made.operands[0], dim, index)
            return self.enter(Expression(("part", head, len(shape), dim), (part, whole)))
        if self._stack_dim(made, shape) == dim:
            part = made.operands[index]
            only = Expression(("only one", dim), (part,))
            return part if head.name == "stack" else self.enter(only)
        if head.name == "linear" and dim == len(shape) - 1:
            items = [self.item(operand, 0, index) for operand in made.operands[1:]]
            return self.enter(Expression(("part", head), (made.operands[0], *items)))
        if head.name == "matmul" and dim == len(shape) - 1:
            return self._column(made, index)
        return self._item_of_parts(made, shape, dim, index)

    def _column(self, made: Expression, index: int) -> int | None:
        ranks = [len(self._shapes.get(operand, ())) for operand in made.operands]
        if ranks[1] != 2 or ranks[0] < 2:
            return None
        column = self.item(made.operands[1], 1, index)
        return self.enter(Expression(("part", made.head), (made.operands[0], column)))

    def _item_of_parts(self, made: Expression, shape: Shape, dim: int, index: int) -> int | None:
        carriers = dict(self._carriers(made, shape, dim))
        if not carriers:
            return None
        parts = []
        for operand in made.operands:
            own = carriers.get(operand)
            kept = Expression(("everywhere", len(shape) - dim), (operand,))
            parts.append(self.enter(kept) if own is None else self.item(operand, own, index))
        if made.unordered:
            parts.sort()
        return self.enter(
            Expression(("part", made.head, len(shape), dim), tuple(parts), made.unordered)
        )


def _second(head: _Operator, default: int) -> int:
    """The argument after the first one: a dimension, of most operations that have one."""
    arguments: Any = head.arguments
    _, positional, named = arguments
    for key, value in named:
        if key == "dim":
            return int(value[1])
    return int(positional[1][1]) if len(positional) > 1 else default


def _dims(node: Node, rank: int) -> frozenset[int]:
    """Which dimensions of its operand an operation reduces; none if that is not known."""
    schema = getattr(node.target, "_schema", None)
    names = [argument.name for argument in schema.arguments] if schema is not None else []
    given: dict[str, Any] = {**dict(zip(names, node.args, strict=False)), **node.kwargs}
    dims = given.get("dim")
    if dims is None:
        return frozenset(range(rank))
    listed = dims if isinstance(dims, (list, tuple)) else [dims]
    if rank == 0 or not all(isinstance(dim, int) for dim in listed):
        return frozenset()
    return frozenset(dim % rank for dim in listed)


def _name_of(node: Node) -> str | None:
    """Name of a deterministic operation; None for all others."""
    target = node.target
    if target is operator.getitem:
        return "getitem"
    if not isinstance(target, torch._ops.OpOverload):
        builtin = getattr(target, "__module__", "") in ("_operator", "math", "torch")
        return f"{target.__module__}.{target.__name__}" if builtin else None  # type: ignore[union-attr]
    if target.namespace != "aten" or is_random(node) or target._opname.startswith(_UNSETTLED):
        return None
    if target._schema.is_mutable and target._opname != "detach_":
        return None
    return target._opname


def _frozen(value: Any, values: Callable[[Node], int], operands: list[int]) -> Hashable:
    """An argument as a key; operands leave a gap, and are put on the list."""
    if isinstance(value, Node):
        operands.append(values(value))
        return _GAP
    if isinstance(value, (list, tuple)):
        return tuple(_frozen(part, values, operands) for part in value)
    if isinstance(value, Mapping):
        return tuple((k, _frozen(value[k], values, operands)) for k in sorted(value))
    if isinstance(value, float):
        return "float", repr(value)
    if isinstance(value, (bool, int)):
        return type(value).__name__, value
    return value if isinstance(value, Hashable) else repr(value)
