"""Computes contexts: digests of what the forward graph does around each operation.

Causal attention and attention without a mask, a norm without parameters and none, a residual
connection before an activation and after it have the same parameters between the same neurons.
Colour refinement (Weisfeiler and Leman) over the exported program tells them apart: a node's colour
is its operation with its arguments, and round by round takes in those of its operands and readers.

Sizes are left out, so that two widths of an architecture look alike, and so are the order of
operands that may be exchanged, names of nodes, and which parameter is read: heads, experts and
branches that a permutation exchanges keep equal digests. Constants beside the state dict count with
their values, if they have some.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor
from torch.export.graph_signature import InputKind
from torch.fx import Node

from ..inference.tracing import every_argument

# Rounds, so steps that a digest looks far; changes of shape are no steps. From the queries of
# hand-written attention it is four to its mask (product, scale, mask, what is masked with), and
# fewer from a layer to the norm, activation, residual connection or position around it. More would
# tell the same layer of shallow and of deep networks apart.
STEPS = 4
DIGITS = 6  # hexadecimal, of each round

# What changes neither numbers nor their shape, if it does not make integers of floats.
_SILENT = {
    "alias", "clone", "contiguous", "detach", "dropout", "feature_dropout", "lift_fresh",
    "lift_fresh_copy", "to", "_to_copy", "type_as",
}  # fmt: skip
# What puts numbers elsewhere.
_MOVING = {
    "chunk", "expand", "expand_as", "flatten", "getitem", "movedim", "narrow", "permute", "reshape",
    "select", "slice", "split", "split_with_sizes", "squeeze", "swapaxes", "t", "transpose",
    "unbind", "unflatten", "unsafe_chunk", "unsafe_split", "unsqueeze", "_unsafe_view", "view",
}  # fmt: skip
# What takes no more than shape and type from its operand.
_NEW = {
    "empty_like", "full_like", "new_empty", "new_full", "new_ones", "new_zeros", "ones_like",
    "zeros_like",
}  # fmt: skip
_COMMUTATIVE = {
    "add", "bitwise_and", "bitwise_or", "eq", "logical_and", "logical_or", "maximum", "minimum",
    "mul", "ne",
}  # fmt: skip
_JOINING = {"cat", "concat", "concatenate", "hstack", "stack", "vstack"}
# Arguments that say how an operation runs, or how large its operands are.
_OMITTED = {
    "C", "HxW", "N", "benchmark", "call", "cudnn_enable", "cudnn_enabled", "deterministic",
    "device", "inplace", "layout", "length", "m", "memory_format", "momentum", "n", "non_blocking",
    "normalized_shape", "pin_memory", "repeats", "requires_grad", "shape", "size", "sizes",
    "split_size", "split_sizes", "steps", "train", "training", "use_input_stats",
}  # fmt: skip
_POSITIONS = {"select": ("index",), "slice": ("start", "end"), "narrow": ("start",)}
_DIMS = {"dim", "dims", "dim0", "dim1", "start_dim", "end_dim", "source", "destination"}

Colours = dict[Node, str]


@dataclass(frozen=True)
class _Operand:
    """An operand of an operation, seen through changes of shape.

    Attributes:
        node: where the numbers come from.
        how: which operand it is, and the moves of its numbers in between.
    """

    node: Node
    how: str


@dataclass
class _Graph:
    """The program without changes of shape.

    Attributes:
        first: what each node is by itself.
        operands: links to what each node reads.
        readers: links to what reads each node; also for nodes that change shapes only.
        settled: nodes whose colour stays: constants, which it says all about, and parameters.
    """

    first: Colours = field(default_factory=dict)
    operands: dict[Node, list[_Operand]] = field(default_factory=dict)
    readers: dict[Node, list[_Operand]] = field(default_factory=dict)
    settled: set[Node] = field(default_factory=set)


def contexts_of(exported: torch.export.ExportedProgram) -> Mapping[Node, str]:
    """The digests of what is computed around every node, from near to far, joined by dots.

    Args:
        exported: the program.

    Returns:
        By node of its graph, parameters included, what :attr:`gmn.spec.EdgeSet.context` holds.
    """
    graph = _graph(exported)
    colours, rounds = dict(graph.first), []
    for _ in range(STEPS):
        colours = {
            node: colour if node in graph.settled else _refined(graph, node, colours)
            for node, colour in colours.items()
        }
        rounds.append(colours)
    return {
        node: ".".join(_seen(graph, node, colouring)[:DIGITS] for colouring in rounds)
        for node in exported.graph.nodes
        if node.op != "output"
    }


def _refined(graph: _Graph, node: Node, colours: Colours) -> str:
    below = sorted(f"{link.how} {colours[link.node]}" for link in graph.operands[node])
    return _digest(colours[node], below, _around(graph, node, colours))


def _around(graph: _Graph, node: Node, colours: Colours) -> list[str]:
    """The set of what reads a node: a count would reveal the number of layers that share a mask."""
    return sorted({f"{link.how} {colours[link.node]}" for link in graph.readers.get(node, ())})


def _seen(graph: _Graph, node: Node, colours: Colours) -> str:
    """The colour of a node, or of its readers where the node itself has none."""
    if node in colours and node not in graph.settled:
        return colours[node]
    return _digest(_around(graph, node, colours))


# --- the program without changes of shape -------------------------------------------------------


def _graph(exported: torch.export.ExportedProgram) -> _Graph:
    graph, sources = _Graph(), _Sources()
    given = dict(_placeholders(exported))
    for node in exported.graph.nodes:
        if node.op == "placeholder":
            graph.first[node], settled = given[node]
            graph.operands[node] = []
            graph.settled |= {node} if settled else set()
            sources.constants |= {node} if settled and "constant" in graph.first[node] else set()
        elif node.op == "output":
            _leave(graph, sources, node)
        elif not _is_silent(node) and not sources.passes(node):
            _enter(graph, sources, node)
    return graph


def _placeholders(
    exported: torch.export.ExportedProgram,
) -> Iterator[tuple[Node, tuple[str, bool]]]:
    """What each placeholder is (input, entry or constant), and whether its colour is final."""
    specs = {spec.arg.name: spec for spec in exported.graph_signature.input_specs}
    inputs = 0
    for node in exported.graph.nodes:
        if node.op != "placeholder":
            continue
        spec = specs[node.name]
        if spec.kind == InputKind.USER_INPUT:
            yield node, (f"input {inputs}", False)
            inputs += 1
        elif spec.target in exported.state_dict:
            yield node, (f"entry {_type(node)}", True)
        else:
            value = exported.constants.get(spec.target)
            yield node, (f"constant {_constant(value)}", True)


def _type(node: Node) -> str:
    value = node.meta.get("val")
    return f"{_number_type(value.dtype)} {value.dim()}" if isinstance(value, Tensor) else "object"


def _constant(value: object) -> str:
    """Type, shape and values, to five digits: precision does not count."""
    if not isinstance(value, Tensor):
        return type(value).__name__
    constant = value.detach()
    if constant.is_meta or type(constant).__name__ == "FakeTensor":
        return f"{_number_type(constant.dtype)} {constant.dim()} unknown"
    if constant.is_complex():
        constant = torch.view_as_real(constant.resolve_conj())
    return _digest(_number_type(value.dtype), [*value.shape], _values(constant.double().cpu()))


def _values(tensor: Tensor) -> str:
    """A digest of numbers rounded to five digits; infinities and NaN are kept apart."""
    usual = tensor.isfinite() & (tensor != 0)
    safe = torch.where(usual, tensor, 1)
    power = safe.abs().log10().floor()
    digits = (safe / 10 ** (power - 4)).round()
    full = digits.abs() == 100_000  # rounded up to the next power
    digits, power = torch.where(full, digits / 10, digits), torch.where(full, power + 1, power)
    digits = torch.where(usual, digits, torch.nan_to_num(tensor, 1, 2, -2))
    table = torch.stack([digits, power]).to(torch.int32).contiguous()
    return hashlib.blake2b(table.numpy().tobytes(), digest_size=8).hexdigest()


def _enter(graph: _Graph, sources: _Sources, node: Node) -> None:
    """Enters an operation that computes new numbers."""
    name, arguments = _name(node), _arguments(node)
    links = [
        _Operand(source, f"{where} {' '.join(moves)}")
        for where, operand in ([] if name in _NEW else arguments.operands)
        for source, moves in [sources.of(operand)]
    ]
    graph.first[node] = _digest(name, arguments.text)
    if name not in _RANDOM and sources.constants.issuperset(link.node for link in links):
        parts = sorted(f"{link.how} {graph.first[link.node]}" for link in links)
        graph.first[node] = f"constant {_digest(graph.first[node], parts)}"
        graph.operands[node] = []
        graph.settled.add(node)
        sources.constants.add(node)
        return
    graph.operands[node] = links
    for (where, operand), link in zip(arguments.operands if links else (), links, strict=False):
        graph.readers.setdefault(link.node, []).append(_Operand(node, link.how))
        for passed in sources.path(operand):
            graph.readers.setdefault(passed, []).append(_Operand(node, where))


def _leave(graph: _Graph, sources: _Sources, node: Node) -> None:
    graph.first[node], graph.operands[node] = "output", []
    graph.settled.add(node)
    for index, operand in enumerate(_nodes(node.args)):
        source, moves = sources.of(operand)
        how = f"{index} {' '.join(moves)}"
        graph.readers.setdefault(source, []).append(_Operand(node, how))


_RANDOM = {"rand", "rand_like", "randint", "randn", "randn_like", "randperm", "bernoulli"}


class _Sources:
    """Traces nodes that only move numbers (views, transposes) back to the node that computed them.

    Attributes:
        constants: nodes that depend on nothing but constants.
    """

    def __init__(self) -> None:
        self.constants: set[Node] = set()
        self._before: dict[Node, tuple[Node, str]] = {}

    def passes(self, node: Node) -> bool:
        """Enters a node if it only moves the numbers of one other node; returns whether it does."""
        operands = [n for n in node.all_input_nodes if not _is_size(n)]
        name = _name(node)
        silent = name in _SILENT and not (name.endswith("dropout") and node.args[-1] is True)
        if len(operands) != 1 or not (silent or name in _MOVING):
            return False
        if silent and _type(node) != _type(operands[0]):
            return False
        move = "" if silent else f"{name}{_arguments(node).text}"
        self._before[node] = (operands[0], move)
        return True

    def of(self, node: Node) -> tuple[Node, list[str]]:
        """The node that computed the numbers, and the moves since then."""
        moves: list[str] = []
        while node in self._before:
            node, move = self._before[node]
            moves += [move] if move else []
        return node, moves[::-1]

    def path(self, node: Node) -> Iterator[Node]:
        """The nodes back to the one that computed the numbers, which is left out."""
        while node in self._before:
            yield node
            node = self._before[node][0]


# --- operations and their arguments -------------------------------------------------------------


@dataclass(frozen=True)
class _ArgumentText:
    """The arguments of an operation.

    Attributes:
        operands: for each tensor, the name of its argument and the node.
        text: all other arguments.
    """

    operands: tuple[tuple[str, Node], ...]
    text: str


def _arguments(node: Node) -> _ArgumentText:
    name, operands, texts = _name(node), [], []
    any_order = name in _COMMUTATIVE and node.kwargs.get("alpha", 1) == 1
    for key, value in _named(node).items():
        label = "" if any_order or name in _JOINING else key
        if nodes := _nodes(value):
            whole = isinstance(value, Node) or name in _JOINING
            items = [value] if isinstance(value, Node) else value
            numbered = enumerate(items) if not whole else ((None, item) for item in nodes)
            for index, item in numbered:
                if isinstance(item, Node) and not _is_size(item):
                    operands.append((label if index is None else f"{label}.{index}", item))
        elif key not in _OMITTED and not (name == "arange" and key in ("start", "end")):
            text = _as_text(node, name, key, value)
            texts += [f"{label}={text}"] if text else []
    return _ArgumentText(tuple(operands), f"({', '.join(sorted(texts) if any_order else texts)})")


def _named(node: Node) -> dict[str, Any]:
    """All arguments by name, defaults included."""
    if getattr(node.target, "_schema", None) is None:
        return {**{str(n): value for n, value in enumerate(node.args)}, **node.kwargs}
    return every_argument(node)


def _name(node: Node) -> str:
    """Name of the operation, without overload and in-place underscore."""
    if node.op != "call_function":
        return node.op
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return getattr(node.target, "__name__", str(node.target))
    name = str(schema.name).removeprefix("aten::")
    return name if name.startswith("_") else name.rstrip("_")


def _as_text(node: Node, name: str, key: str, value: object) -> str:
    """An argument as text; empty if it carries no information."""
    if isinstance(value, (list, tuple)):
        parts = [_as_text(node, name, key, part) for part in value]
        return f"[{' '.join(parts)}]" if any(parts) else ""
    shapes = [n.meta["val"].shape for n in node.all_input_nodes if _is_tensor(n)]
    if key in _DIMS and type(value) is int and shapes:
        return str(value if value < 0 else value - len(shapes[0]))
    if key in _POSITIONS.get(name, ()) and type(value) is int and shapes:
        position = _position(value, shapes[0][_named(node).get("dim", 0)])
        return "" if (key, position) in (("start", "0"), ("end", "end")) else position
    if isinstance(value, float):
        return _amount(node, name, value, shapes)
    if isinstance(value, (bool, int, str)):
        return str(value)
    return _number_type(value) if isinstance(value, torch.dtype) else ""


def _position(index: int, size: Any) -> str:
    """An index on a dimension as text: from the nearer end, or as a simple fraction of the size."""
    if not isinstance(size, int):
        return str(index)
    index = index + size if index < 0 else min(index, size)
    share = Fraction(index, size or 1)
    if share.denominator <= 4:
        return "end" if share == 1 else str(share)
    return str(index) if 2 * index < size else f"end-{size - index}"


def _amount(node: Node, name: str, value: float, shapes: Sequence[Sequence[Any]]) -> str:
    """A number as text; roots of sizes, with which attention is scaled, by name."""
    near = [size for shape in shapes for size in shape]
    if name in ("mul", "div"):
        before = [n for operand in node.all_input_nodes for n in operand.all_input_nodes]
        near += [size for n in before if _is_tensor(n) for size in n.meta["val"].shape]
    elif name != "scaled_dot_product_attention":
        return _short(value)
    for size in near:
        for power in (-0.5, 0.5):
            if isinstance(size, int) and size > 1 and abs(value / size**power - 1) < 1e-6:
                default = name not in ("mul", "div") and power < 0
                return "" if default else f"size^{power}"
    return _short(value)


def _short(value: float) -> str:
    return f"{value:.5g}"


def _number_type(dtype: torch.dtype) -> str:
    """Kind of a number type, the same for all precisions."""
    if dtype.is_floating_point or dtype.is_complex:
        return "complex" if dtype.is_complex else "float"
    return "bool" if dtype == torch.bool else "int"


def _nodes(value: object) -> list[Node]:
    if isinstance(value, Node):
        return [value]
    return [n for part in value for n in _nodes(part)] if isinstance(value, (list, tuple)) else []


def _is_tensor(node: Node) -> bool:
    return isinstance(node.meta.get("val"), Tensor)


def _is_silent(node: Node) -> bool:
    """Whether a node computes a size, or only checks something."""
    return _is_size(node) or _name(node).startswith(("_assert", "sym_"))


def _is_size(node: Node) -> bool:
    """Whether a node is a size that the program computes."""
    return isinstance(node.meta.get("val"), (int, torch.SymInt))


def _digest(*parts: object) -> str:
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=8).hexdigest()
