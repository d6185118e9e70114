"""Normalises a functional graph: one name and one form for each operation.

torch has several names for many operations and forms that differ only in how results share memory.
Rules see one of them: this is the one place where they are made alike. Every rewritten node
computes the same values as before, so that the program still runs.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, Node

aten = torch.ops.aten

# Operators that check, and give no value.
_CHECKS = frozenset(
    {
        *("_assert_async", "_assert_scalar", "_assert_tensor_metadata"),
        *("sym_constrain_range", "sym_constrain_range_for_size", "_functional_assert_async"),
        "_functional_assert_scalar",
    }
)
# Operators whose result, where it has their first operand's shape and type, has its values, too.
_COPIES = frozenset(
    {
        *("clone", "detach", "detach_", "alias", "lift", "lift_fresh", "lift_fresh_copy"),
        *("contiguous", "to", "_to_copy", "positive", "resolve_conj", "resolve_neg", "slice"),
        *("expand", "expand_as", "view", "_unsafe_view", "reshape", "broadcast_to", "view_as"),
        *("type_as", "_reshape_alias", "narrow", "reshape_as"),
    }
)
_DROPOUTS = frozenset({"dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout"})
SYNONYMS = {
    **{"multiply": "mul", "subtract": "sub", "divide": "div", "true_divide": "div"},
    **{"absolute": "abs", "negative": "neg", "clip": "clamp", "fix": "trunc"},
    **{"greater": "gt", "greater_equal": "ge", "less": "lt", "less_equal": "le"},
    **{"not_equal": "ne", "concat": "cat", "concatenate": "cat", "linalg_matmul": "matmul"},
    **{"special_expit": "sigmoid", "special_erf": "erf", "special_exp2": "exp2"},
    **{"special_expm1": "expm1", "special_log1p": "log1p", "special_softmax": "softmax"},
    **{"special_log_softmax": "log_softmax", "special_logsumexp": "logsumexp", "ger": "outer"},
    **{"row_stack": "vstack", "swapaxes": "transpose", "swapdims": "transpose"},
    **{"moveaxis": "movedim", "_unsafe_view": "reshape", "view": "reshape"},
    **{"_reshape_alias": "reshape", "broadcast_to": "expand", "unsafe_split": "split"},
    **{"unsafe_chunk": "chunk", "unsafe_split_with_sizes": "split_with_sizes"},
    **{"arcsin": "asin", "arccos": "acos", "arctan": "atan", "arctan2": "atan2"},
    **{"arcsinh": "asinh", "arccosh": "acosh", "arctanh": "atanh"},
}
# Where the synonym's overload goes by another name.
_OVERLOADS = dict.fromkeys(
    ("swapaxes", "swapdims", "special_softmax", "special_log_softmax"), "int"
)


def is_idle_dropout(node: Node) -> bool:
    """Whether the node is a dropout in evaluation mode."""
    target = node.target
    named = isinstance(target, torch._ops.OpOverload) and target._opname in _DROPOUTS
    return named and len(node.args) == 3 and not _is_on(node.args)


def normalise(graph: Graph) -> None:
    """Brings every operation into its one form, and removes what nothing reads."""
    for node in list(graph.nodes):
        if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
            continue
        if node.target.namespace != "aten":
            continue
        if node.target._opname in _CHECKS:
            _erase(node)
        elif (same := _same_as(node)) is not None:
            node.replace_all_uses_with(same)
            graph.erase_node(node)
        else:
            _rename(node)
            if (rewrite := _REWRITES.get(node.target._opname)) is not None:
                rewrite(node)
    graph.eliminate_dead_code()


def _erase(node: Node) -> None:
    operands = node.all_input_nodes
    if node.users:
        return
    node.graph.erase_node(node)
    for operand in operands:  # comparisons of sizes that nothing else reads
        if operand.op == "call_function" and not isinstance(operand.meta.get("val"), Tensor):
            _erase(operand)


def _same_as(node: Node) -> Node | None:
    """The operand that has the values of this operation's result, if one has."""
    name, args = node.target._opname, node.args  # type: ignore[union-attr]
    if name in _COPIES or (name in _DROPOUTS and not _is_on(args)):
        return args[0] if _alike(node, args[0]) else None  # type: ignore[return-value]
    if name == "cat":
        filled = _filled(args[0])
        return filled[0] if len(filled) == 1 and _alike(node, filled[0]) else None
    if name == "copy" and _alike(node, args[1]):
        return args[1]  # type: ignore[return-value]
    if name == "slice_scatter" and _alike(node, args[1]):
        return args[1]  # type: ignore[return-value]
    return None


def _filled(parts: Any) -> list[Node]:
    # A size that depends on values is no number, and may not be compared with one.
    return [p for p in parts if all(not isinstance(n, int) or n for n in p.meta["val"].shape)]


def _is_on(args: tuple[Any, ...]) -> bool:
    _, rate, switch = args
    return bool(switch) and rate != 0


def _alike(node: Node, operand: Any) -> bool:
    """Whether both are tensors of one shape and type."""
    one, other = node.meta.get("val"), getattr(operand, "meta", {}).get("val")
    if not isinstance(one, Tensor) or not isinstance(other, Tensor):
        return False
    if one.dtype != other.dtype or one.dim() != other.dim():
        return False
    return all(_equal(a, b) for a, b in zip(one.shape, other.shape, strict=True))


def _equal(one: Any, other: Any) -> bool:
    return str(one) == str(other)  # sizes that are not known before a run are alike by name


def _rename(node: Node) -> None:
    target: Any = node.target
    packet = getattr(aten, SYNONYMS.get(target._opname, target._opname))
    overload = _OVERLOADS.get(target._opname, target._overloadname)
    if overload not in packet.overloads():
        return
    operation = getattr(packet, overload)
    if set(_parameters(operation)).issuperset(node.kwargs):
        node.target = operation


# --- forms --------------------------------------------------------------------------------------


def _replace(node: Node, target: Any, *args: Any) -> None:
    node.target, node.args, node.kwargs = target, args, {}


def _transpose_last(node: Node) -> None:
    _replace(node, aten.transpose.int, node.args[0], -2, -1)


def _reverse(node: Node) -> None:
    _replace(node, aten.permute.default, node.args[0], list(range(_rank(node)))[::-1])


def _move(node: Node) -> None:
    """``movedim`` as ``permute``."""
    rank = _rank(node)
    source, destination = (_dimensions(dims, rank) for dims in node.args[1:])
    rest = iter(dim for dim in range(rank) if dim not in source)
    moved = dict(zip(destination, source, strict=True))
    order = [moved[position] if position in moved else next(rest) for position in range(rank)]
    _replace(node, aten.permute.default, node.args[0], order)


def _dimensions(dims: Any, rank: int) -> list[int]:
    dims = dims if isinstance(dims, (list, tuple)) else [dims]
    return [dim % rank for dim in dims if rank]  # a scalar may be said to have one


def _narrow(node: Node) -> None:
    """``narrow`` as ``slice``, if the start is a number."""
    if node.target is aten.narrow.default:
        value, dim, start, length = node.args
        if isinstance(start, int) and isinstance(length, int):
            start %= node.args[0].meta["val"].shape[dim]  # type: ignore[union-attr]
            _replace(node, aten.slice.Tensor, value, dim, start, start + length)


def _chunk(node: Node) -> None:
    """``chunk`` as ``split``."""
    value, parts, dim = (*node.args, 0)[:3]
    size = value.meta["val"].shape[dim]  # type: ignore[union-attr]
    if isinstance(size, int) and size > 0:
        _replace(node, aten.split.Tensor, value, -(-size // parts), dim)  # type: ignore[operator]


def _cat(node: Node) -> None:
    """``cat`` without parts of no elements, which may have any number of dimensions."""
    parts: Any = node.args[0]
    if (filled := _filled(parts)) and len(filled) < len(parts):
        node.args = (filled, *node.args[1:])


def _broadcast(node: Node) -> None:
    """``broadcast_tensors`` as one ``expand`` for each operand."""
    shape = list(node.meta["val"][0].shape)
    if not all(isinstance(size, int) for size in shape):
        return
    for user in list(node.users):
        operand: Any = node.args[0][user.args[1]]  # type: ignore[index]
        _replace(user, aten.expand.default, operand, shape)
        if _alike(user, operand):
            user.replace_all_uses_with(operand)
            node.graph.erase_node(user)


def _to(node: Node) -> None:
    """``_to_copy`` to another type as ``to``."""
    if (dtype := node.kwargs.get("dtype")) is not None:
        _replace(node, aten.to.dtype, node.args[0], dtype)


def _batch_norm(node: Node) -> None:
    """The operators that ``batch_norm`` consists of, if nothing reads its new statistics."""
    arguments = dict(zip(_parameters(node.target), node.args, strict=False)) | node.kwargs
    training = arguments.get("training", False)
    statistics = [None if training else arguments[f"running_{name}"] for name in ("mean", "var")]
    learned = [arguments[name] for name in ("input", "weight", "bias")]
    settings = (training, arguments["momentum"], arguments["eps"], False)
    _replace_first_result(node, aten.batch_norm.default, (*learned, *statistics, *settings))


def _parameters(target: Any) -> list[str]:
    return [argument.name for argument in target._schema.arguments]


def _native_dropout(node: Node) -> None:
    value, rate, _ = node.args
    _replace_first_result(node, aten.dropout.default, (value, rate, True))


def _replace_first_result(node: Node, target: Any, args: tuple[Any, ...]) -> None:
    """A node with several results of which only the first one is read, as one with one result."""
    read = [user for user in node.users if user.users]
    if any(user.target is not operator.getitem or user.args[1] != 0 for user in read):
        return
    with node.graph.inserting_before(node):
        result = node.graph.call_function(target, args)
    result.meta = {**node.meta, "val": node.meta["val"][0]}
    for user in list(node.users):
        user.replace_all_uses_with(result)
        node.graph.erase_node(user)
    node.graph.erase_node(node)


def _rank(node: Node) -> int:
    return int(node.meta["val"].dim())


_REWRITES: Mapping[str, Callable[[Node], None]] = {
    "mT": _transpose_last,
    "numpy_T": _reverse,
    "movedim": _move,
    "narrow": _narrow,
    "chunk": _chunk,
    "cat": _cat,
    "broadcast_tensors": _broadcast,
    "_to_copy": _to,
    "_native_batch_norm_legit": _batch_norm,
    "_native_batch_norm_legit_functional": _batch_norm,
    "_native_batch_norm_legit_no_training": _batch_norm,
    "native_dropout": _native_dropout,
}
