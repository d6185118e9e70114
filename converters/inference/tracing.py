"""The state of the first pass: the axes of every value of an exported graph.

A rule is asked twice: first what its operation does to axes; then, once all axes are known, how its
result transforms when its operands do (:mod:`converters.inference.actions`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.fx import Node
from torch.utils import _pytree as pytree

from gmn.spec import Operation

from .axes import Atom, Axis, atoms, fix, fixed, size_of, without

if TYPE_CHECKING:
    from ..exporting.storage import View
    from .actions import Actions

Value = list[Axis]

# Arguments that change how an operation runs, not what it computes.
_SILENT = {
    "training",
    "momentum",
    "cudnn_enabled",
    "cudnn_enable",
    "use_input_stats",
    "inplace",
    "train",
    "module",
    "call",
}
# Arguments that say where and in which layout values are held, or what the result's shape shows.
_SHOWN = frozenset(
    {
        *("device", "layout", "pin_memory", "memory_format", "non_blocking", "copy", "generator"),
        *("size", "shape", "sizes", "implicit", "normalized_shape", "half_to_float", "sparse"),
        *("scale_grad_by_freq", "keepdim", "output_size", "stable"),
    }
)


class TraceError(ValueError):
    """A module cannot be traced; the message says where and what to do."""


@dataclass(frozen=True)
class Rule:
    """What one operation does to axes, and how its result transforms.

    Attributes:
        axes: returns the axes of the result, after stating what the operands have in common; None
            if it cannot say, which makes them ordered.
        action: returns how the result transforms, after stating how operands must not.
        permits: the permutations and scalings that pass through, in words.
        recorded: whether it is an operation on neurons that the spec should mention.
        product: whether it multiplies values with weights or with one another.
        whatever: arguments that may have any value, since what the rule says holds for all of them.
    """

    axes: Callable[[Tracing, Node], Any]
    action: Callable[[Actions, Node], Any]
    permits: str
    recorded: bool = False
    product: bool = False
    whatever: tuple[str, ...] = ()


class Tracing:
    """Axes of an exported graph.

    Attributes:
        values: axes of every tensor, by graph node; lists of them for several results.
        parameters: axes of every parameter and statistic, by state-dict name.
        contractions: axes that products are summed over, see :meth:`contract`.
        mixed: what is left of values whose entries an operation puts together, see :meth:`mix`.
        unknown: operations without a rule that covers them.
        static: values that depend on parameters and constants only.
        read: parameters that some operation reads.
        indices: entries that hold whole numbers of 32 or 64 bits.
        views: entries that share memory with another one.
        asked: by operation, the operands whose axes its rule looked at.
    """

    def __init__(self) -> None:
        self.values: dict[Node, Any] = {}
        self.parameters: dict[str, Value] = {}
        self.asked: dict[Node, set[Node]] = {}
        self._asking: set[Node] = set()
        self._names: dict[Node, str] = {}
        self.contractions: list[tuple[Axis, tuple[Axis, ...]]] = []
        self.mixed: list[Value] = []
        self.unknown: set[Node] = set()
        self.static: set[Node] = set()
        self.read: set[str] = set()
        self.indices: set[str] = set()
        self.views: dict[str, View] = {}

    # --- axes -----------------------------------------------------------------------------------

    def add_parameter(self, node: Node, name: str, shape: Sequence[int]) -> None:
        """Enters a parameter placeholder; tied placeholders share their axes.

        An entry that is another one with its dimensions reordered has the axes of that one.
        """
        if name not in self.parameters:
            view = self.views.get(name)
            if view is None or view.dims is None:
                self.parameters[name] = [(Atom(size),) for size in shape]
            else:
                sizes = {dim: shape[position] for position, dim in enumerate(view.dims)}
                owner = self.parameters.setdefault(
                    view.owner, [(Atom(sizes[dim]),) for dim in range(len(shape))]
                )
                self.parameters[name] = [owner[dim] for dim in view.dims]
        self._names[node] = name
        self.values[node] = self.parameters[name]

    def axes(self, value: object) -> Value:
        """Axes of an operand; numbers have none."""
        if not isinstance(value, Node):
            return []
        self._asking.add(value)
        return self.values[value]

    @contextmanager
    def asking(self, node: Node) -> Iterator[None]:
        """Notes which operands are asked for."""
        self._asking = self.asked[node] = set()
        yield
        self._asking = set()

    def parameter_name(self, value: object) -> str | None:
        """State-dict name of an operand that is itself a parameter."""
        return self._names.get(value) if isinstance(value, Node) else None

    def contract(self, axis: Axis, aligned: Sequence[Axis] = ()) -> None:
        """Records a sum over an axis of products whose factors agree in the axes ``aligned``.

        Its permutation may depend on those only: along other axes the factors differ.
        """
        self.contractions.append((axis, tuple(aligned)))

    def mix(self, value: Value, along: Iterable[Atom]) -> None:
        """Records that an operation puts entries of a value at all indices of some atoms together.

        What else the value ranges over must be permuted alike at all of these indices, even where
        the result ranges over them, too, as after a softmax, or after a residual connection.
        """
        gone = set(along)
        self.mixed.append([without(axis, gone) for axis in value])

    def opaque(self, node: Node, reason: str) -> Any:
        """Axes of an operation that may tell all positions apart, for want of a rule."""
        self.unknown.add(node)
        result = _fresh(node.meta.get("val"), reason)
        for operand in node.all_input_nodes:
            axes = flat_axes(self.values.get(operand, []))
            for axis in axes:
                fix(axis, reason)
            if axes and [size_of(a) for a in axes] == [*map(size_of, flat_axes(result))]:
                result = axes  # most likely the same neurons; fixed, so claiming it is harmless
        return result


def flat_axes(value: Any) -> list[Axis]:
    """All axes of a value or of a nested sequence of values."""
    if value and isinstance(value[0], list):
        return [axis for part in value for axis in flat_axes(part)]
    return list(value)


def _fresh(meta: Any, reason: str) -> Any:
    if isinstance(meta, torch.Tensor):
        return [fixed(int(size), reason) for size in meta.shape]
    if isinstance(meta, (list, tuple)):
        return [_fresh(part, reason) for part in meta]
    return []


def atoms_of(*axes: Axis) -> frozenset[Atom]:
    """Atoms of more than one index, over which units along these axes can vary."""
    return frozenset(atom for axis in axes for atom in atoms(axis) if atom.size > 1)


def shape_of(node: Node) -> tuple[int, ...]:
    """Shape of the node's tensor, or of its first one, in the example run."""
    value = node.meta["val"]
    first = value[0] if isinstance(value, (list, tuple)) else value
    return tuple(int(size) for size in first.shape)


def path_of(node: Node) -> str:
    """Dotted path of the module that runs the operation; ``model`` for the model itself."""
    stack = node.meta.get("nn_module_stack") or {}
    return str(list(stack.values())[-1][0] if stack else "") or "model"


def name_of(node: Node) -> str:
    """Name of the operation, without overload and in-place underscore.

    Operators of torch itself go by their plain name, others with their namespace, as in
    ``mylib::my_op``; modules with a rule of their own by their class.
    """
    target = node.target
    if target is torch.ops.graph_metanetworks.leaf.default:
        return str(node.args[1])
    name = str(getattr(target, "_opname", None) or getattr(target, "__name__", target))
    name = name if name.startswith("_") else name.rstrip("_")
    namespace = getattr(target, "namespace", "aten")
    return name if namespace == "aten" else f"{namespace}::{name}"


def operands_of(node: Node) -> list[Node]:
    """The tensors that an operation is called with, in order.

    Of a module with a rule of its own: those that it is called with, then its parameters, in the
    order of ``module.parameters()``.
    """
    leaves = pytree.tree_leaves((node.args, node.kwargs), is_leaf=lambda x: isinstance(x, Node))
    return [leaf for leaf in leaves if isinstance(leaf, Node)]


def is_read(node: Node, index: int) -> bool:
    """Whether anything reads this one of the operation's results."""
    return any(user.users for user in node.users if user.args[1:] == (index,))


def first_arguments(node: Node, count: int) -> list[Any]:
    """The first arguments of the operation, whatever their names."""
    call = arguments(node)
    return [call[name] for name in list(call)[:count]]


class Arguments(Mapping[str, Any]):
    """Arguments of an operation by name; which of them were looked at is noted in the node."""

    def __init__(self, node: Node) -> None:
        self._values = every_argument(node)
        self._read: set[str] = node.meta.setdefault("read", set())

    def __getitem__(self, name: str) -> Any:
        value = self._values[name]
        self._read.add(name)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


def arguments(node: Node) -> Arguments:
    """Arguments of the operation by name, defaults included."""
    return Arguments(node)


def every_argument(node: Node) -> dict[str, Any]:
    """All arguments of an operation by name, defaults included; no rule has looked at them."""
    schema = node.target._schema  # type: ignore[union-attr]
    result = {}
    for position, argument in enumerate(schema.arguments):
        if position < len(node.args):
            result[argument.name] = node.args[position]
        elif argument.name in node.kwargs:
            result[argument.name] = node.kwargs[argument.name]
        elif argument.has_default_value():
            result[argument.name] = argument.default_value
    return result


def overlooked(node: Node, rule: Rule) -> list[str]:
    """Arguments that are not at their default, and that the rule has not looked at.

    Tensors are operands: of those that a rule overlooks, nothing may move.
    """
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return []
    defaults = {a.name: a.default_value for a in schema.arguments if a.has_default_value()}
    known = {*node.meta.get("read", ()), *rule.whatever, *_SILENT, *_SHOWN}
    return [
        name
        for name, value in every_argument(node).items()
        if name not in known
        and not _holds_tensors(value)
        and value is not None
        and not (value == defaults[name] if name in defaults else value is False)
        and not (name == "dtype" and _is_floating(node))
    ]


def _holds_tensors(value: object) -> bool:
    parts = value if isinstance(value, (list, tuple)) else [value]
    return any(isinstance(part, Node) for part in parts)


def _is_floating(node: Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and (value.is_floating_point() or value.is_complex())


def operation_of(node: Node) -> Operation:
    """The operation as data: its name and the numbers among its arguments."""
    name, attributes = name_of(node), []
    for key, value in every_argument(node).items():
        if key in _SILENT:
            continue
        values = value if isinstance(value, (list, tuple)) else [value]
        if isinstance(value, str) and value != "none":
            name = f"{name}_{value}"
        elif values and all(isinstance(v, (int, float)) for v in values):
            attributes.append((key, tuple(float(v) for v in values)))
    return Operation(name, tuple(sorted(attributes)))
