"""Rules of products of two values: matrix products, einsum and attention."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch.fx import Node

from ..inference.actions import Action, Actions
from ..inference.axes import Axis, fix, regroup, size_of, unify
from ..inference.carrying import weighted
from ..inference.frames import Frame, Member
from ..inference.primitives import (
    added,
    contract,
    forgetting,
    linear_contracted,
    linear_summed,
    multiplied,
    product,
    reshaped,
    summed,
    total,
)
from ..inference.tracing import Rule, Tracing, Value, arguments, atoms_of, path_of
from .pointwise import pinned_all
from .weights import contracted


def batch_axes(first: Sequence[Axis], second: Sequence[Axis], reason: str) -> Value:
    """Joins the batch dimensions of two operands, aligned from the right, as broadcasting does."""
    result: Value = []
    for offset in range(max(len(first), len(second)), 0, -1):
        pair = [axes[-offset] for axes in (first, second) if len(axes) >= offset]
        full = [axis for axis in pair if size_of(axis) == max(map(size_of, pair))]
        for axis in full[1:]:
            unify(full[0], axis, reason)
        result.append(full[0])
    return result


def _matmul_axes(trace: Tracing, node: Node) -> Value:
    """``A @ B``: the last dimension of A with the second to last of B, or the only one."""
    first, second = trace.axes(node.args[0]), trace.axes(node.args[1])
    column = second[-2] if len(second) > 1 else second[-1]
    unify(first[-1], column, path_of(node))
    batch = batch_axes(first[:-2], second[:-2], path_of(node))
    trace.contract(first[-1], batch if len(second) > 1 else ())
    rows = first[-2:-1]
    columns = second[-1:] if len(second) > 1 else []
    return [*batch, *rows, *columns]


def _matmul_labels(actions: Actions, node: Node) -> tuple[list[str], list[str], list[str]]:
    first, second = actions.axes(node.args[0]), actions.axes(node.args[1])
    rank = max(len(first), len(second)) - 2
    one = [f"b{rank - len(first) + 2 + n}" for n in range(len(first) - 2)]
    other = [f"b{rank - len(second) + 2 + n}" for n in range(len(second) - 2)]
    batch = [f"b{n}" for n in range(max(rank, 0))]
    rows = ["r"] if len(first) > 1 else []
    columns = ["c"] if len(second) > 1 else []
    return [*one, *rows, "k"], [*other, "k", *columns], [*batch, *rows, *columns]


def _matmul(actions: Actions, node: Node) -> Action:
    one, other, result = _matmul_labels(actions, node)
    return contracted(actions, node, (node.args[0], one), (node.args[1], other), result)


def _added_axes(trace: Tracing, node: Node) -> Value:
    """``baddbmm``: a product added to a third value."""
    added, first, second = (trace.axes(operand) for operand in node.args[:3])
    batch = batch_axes(first[:-2], second[:-2], path_of(node))
    unify(first[-1], second[-2], path_of(node))
    trace.contract(first[-1], batch)
    return batch_axes([*batch, first[-2], second[-1]], added, path_of(node))


def _added_product(actions: Actions, node: Node) -> Action:
    call = arguments(node)
    third, first, second = node.args[:3]
    if call["alpha"] == 0:
        return pinned_all(actions, node)
    labels = ["b", "r", "c"]
    own = labels[3 - len(actions.axes(third)) :]
    frame = Frame(
        actions, node, [(first, ["b", "r", "k"]), (second, ["b", "k", "c"]), (third, own)], labels
    )
    result = multiplied(contract(frame, 0, 1, {"k"}), call["alpha"])
    if call["beta"] == 0:  # the third value is not looked at
        linear_contracted(frame, 0, 1, {"k"})
        return frame.give(result)
    linear_contracted(frame, 0, 1, {"k"}, third)
    return frame.give(added(actions, result, total(frame, [2], [call["beta"]])))


def _outer_axes(trace: Tracing, node: Node) -> Value:
    return [trace.axes(node.args[0])[0], trace.axes(node.args[1])[0]]


def _outer(actions: Actions, node: Node) -> Action:
    return contracted(actions, node, (node.args[0], ["r"]), (node.args[1], ["c"]), ["r", "c"])


def _tensordot_labels(trace: Tracing, node: Node) -> tuple[list[str], list[str], list[str]]:
    """Dimensions that are summed over have one label in both operands."""
    call = arguments(node)
    ranks = [len(trace.axes(operand)) for operand in node.args[:2]]
    dims = [
        [dim % rank for dim in call[name]]
        for name, rank in zip(("dims_self", "dims_other"), ranks, strict=True)
    ]
    one = [f"a{n}" for n in range(ranks[0])]
    other = [f"z{n}" for n in range(ranks[1])]
    for index, (left, right) in enumerate(zip(*dims, strict=True)):
        one[left] = other[right] = f"k{index}"
    rest = [label for label in (*one, *other) if not label.startswith("k")]
    return one, other, rest


def _tensordot_axes(trace: Tracing, node: Node) -> Value:
    one, other, rest = _tensordot_labels(trace, node)
    by_label: dict[str, Axis] = {}
    for labels, operand in ((one, node.args[0]), (other, node.args[1])):
        for label, axis in zip(labels, trace.axes(operand), strict=True):
            if label in by_label:
                unify(by_label[label], axis, path_of(node))
                trace.contract(axis)
            by_label[label] = axis
    return [by_label[label] for label in rest]


def _tensordot(actions: Actions, node: Node) -> Action:
    one, other, rest = _tensordot_labels(actions.trace, node)
    return contracted(actions, node, (node.args[0], one), (node.args[1], other), rest)


def _added_vector_axes(trace: Tracing, node: Node) -> Value:
    """``addmv`` and ``addr``: a matrix times a vector, or two vectors, added to a third value."""
    base, first, second = (trace.axes(operand) for operand in node.args[:3])
    if len(first) == 2:
        unify(first[1], second[0], path_of(node))
        trace.contract(first[1])
    return batch_axes([first[0]] if len(first) == 2 else [first[0], second[0]], base, path_of(node))


def _added_vector(actions: Actions, node: Node) -> Action:
    call = arguments(node)
    base, first, second = node.args[:3]
    if call["alpha"] == 0 or call["beta"] == 0:
        actions.pin_all(node)
        return Action()
    matrix = len(actions.axes(first)) == 2
    labels = ["r"] if matrix else ["r", "c"]
    ends = (["r", "k"], ["k"]) if matrix else (["r"], ["c"])
    own = labels[len(labels) - len(actions.axes(base)) :]
    frame = Frame(actions, node, [(first, ends[0]), (second, ends[1]), (base, own)], labels)
    over = {"k"} if matrix else set[str]()
    result = multiplied(contract(frame, 0, 1, over), call["alpha"])
    linear_contracted(frame, 0, 1, over, base)
    return frame.give(added(actions, result, total(frame, [2], [call["beta"]])))


# --- einsum -------------------------------------------------------------------------------------


def _einsum_axes(trace: Tracing, node: Node) -> Value | None:
    labels, output = _letters(trace, node)
    if labels is None:
        return None
    by_letter: dict[str, Axis] = {}
    for operand, letters in zip(_operands(node), labels, strict=True):
        for letter, axis in zip(letters, trace.axes(operand), strict=True):
            first = by_letter.get(letter)
            if first is None or size_of(first) == 1:
                by_letter[letter] = axis
            elif size_of(axis) > 1:
                unify(first, axis, path_of(node))
    shared = [axis for letter, axis in by_letter.items() if all(letter in part for part in labels)]
    for letter, axis in by_letter.items():
        if letter not in output:
            trace.contract(axis, shared)
    return [by_letter[letter] for letter in output]


def _einsum(actions: Actions, node: Node) -> Action:
    labels, output = _letters(actions.trace, node)
    operands = _operands(node)
    if labels is None or len(operands) > 2:
        actions.pin_all(node)
        return Action()
    over = {letter for part in labels for letter in part} - set(output)
    if len(operands) == 1:
        frame = Frame(actions, node, [(operands[0], labels[0])], output)
        linear_summed(actions, node, operands)
        actions.linear[node] -= frame.atoms_at(over)
        return frame.give(summed(frame, frame.take(0), over))
    return contracted(actions, node, (operands[0], labels[0]), (operands[1], labels[1]), output)


def _operands(node: Node) -> list[Node]:
    return list(arguments(node)["tensors"])


def _letters(trace: Tracing, node: Node) -> tuple[list[list[str]] | None, list[str]]:
    """Letters of every operand and of the output, dots spelt out; None where one repeats."""
    equation = str(arguments(node)["equation"]).replace(" ", "")
    left, arrow, right = equation.partition("->")
    parts = left.split(",")
    ranks = [len(trace.axes(operand)) for operand in _operands(node)]
    dots = max(
        (rank - len(part.replace("...", "")) for part, rank in zip(parts, ranks, strict=True)
         if "..." in part),
        default=0,
    )  # fmt: skip
    labels = [_spelt(part, rank, dots) for part, rank in zip(parts, ranks, strict=True)]
    if arrow:
        output = _spelt(right, dots + len(right.replace("...", "")), dots)
    else:
        every = [letter for part in labels for letter in part]
        once = sorted(c for c in set(every) if every.count(c) == 1 and len(c) == 1)
        output = [*(f"dot{n}" for n in range(dots)), *once]
    plain = all(len(set(part)) == len(part) for part in labels)
    return (labels if plain else None), output


def _spelt(part: str, rank: int, dots: int) -> list[str]:
    """One label per dimension; those behind dots are counted from the right."""
    if "..." not in part:
        return list(part)
    before, _, after = part.partition("...")
    count = rank - len(before) - len(after)
    return [*before, *(f"dot{n}" for n in range(dots - count, dots)), *after]


# --- attention ----------------------------------------------------------------------------------


def _attention_axes(trace: Tracing, node: Node) -> Value:
    call, reason = arguments(node), path_of(node)
    query, key, value = (trace.axes(call[name]) for name in ("query", "key", "value"))
    if call.get("enable_gqa") and size_of(query[-3]) != size_of(key[-3]):
        groups = size_of(key[-3])
        heads = regroup([query[-3]], (groups, size_of(query[-3]) // groups), reason)
        unify(heads[0], key[-3], reason)
        batch = list(query[:-2])
        for first, second in zip(query[:-3], key[:-3], strict=True):
            unify(first, second, reason)
        for first, second in zip(key[:-2], value[:-2], strict=True):
            unify(first, second, reason)
    else:
        batch = batch_axes(batch_axes(query[:-2], key[:-2], reason), value[:-2], reason)
    unify(query[-1], key[-1], reason)
    unify(key[-2], value[-2], reason)
    if call["is_causal"]:
        for axis in (query[-2], key[-2]):
            fix(axis, "causal attention keeps the order of positions")
    if call["attn_mask"] is not None:
        batch_axes([*batch, query[-2], key[-2]], trace.axes(call["attn_mask"]), reason)
    trace.contract(query[-1], batch)
    trace.contract(key[-2], batch)
    return [*batch, query[-2], value[-1]]


def _attention(actions: Actions, node: Node) -> Action:
    """Queries and keys balance unit by unit; values keep theirs, but for differences in time.

    What is added to all keys alike, a softmax takes away; what is added to all values alike stays,
    since the weights of a query sum to one.
    """
    call = arguments(node)
    query, key, value = (call[name] for name in ("query", "key", "value"))
    output = actions.axes(node)
    grouped = bool(call.get("enable_gqa")) and (
        size_of(actions.axes(query)[-3]) != size_of(actions.axes(key)[-3])
    )
    if call["attn_mask"] is not None:
        actions.pin(call["attn_mask"])
    members, result, after = _attention_members(actions, node, query, key, value, grouped)
    frame = Frame(actions, node, members, result, after)
    scores = summed(frame, product(frame, 0, 1), {"u"})
    actions.zero(actions.magnitudes, scores.magnitude)
    actions.zero(actions.signs, scores.sign)
    forgetting(frame, scores, {"s"})
    values = frame.take(2)
    shift = weighted(frame, values.shift, {"s"}, (0, 1))
    passed = summed(frame, replace(values, shift=shift), {"s"}, counts=False)
    if call.get("dropout_p"):
        actions.zero(actions.shifts, passed.shift)
    units = atoms_of(actions.axes(query)[-1], actions.axes(value)[-1])
    others = (*actions.axes(query)[:-1], *actions.axes(value)[:-1])
    actions.linear[node] = units - atoms_of(*others)
    given = frame.give(passed)
    return reshaped(actions, given, after, output)


def _attention_members(
    actions: Actions, node: Node, query: object, key: object, value: object, grouped: bool
) -> tuple[list[Any], list[str], Value]:
    """Operands with their labels; grouped queries have a dimension for groups and one within."""
    output = actions.axes(node)
    if not grouped:
        rank = len(output)

        def batch(operand: object) -> list[str]:
            count = len(actions.axes(operand)) - 2
            return [f"b{rank - 2 - count + n}" for n in range(count)]

        members = [
            (query, [*batch(query), "t", "u"]),
            (key, [*batch(key), "s", "u"]),
            (value, [*batch(value), "s", "v"]),
        ]
        return members, [*(f"b{n}" for n in range(rank - 2)), "t", "v"], output
    axes, groups = actions.axes(query), size_of(actions.axes(key)[-3])
    each = size_of(axes[-3]) // groups
    heads = regroup([axes[-3]], (groups, each), path_of(node))
    split = [*axes[:-3], *heads, *axes[-2:]]
    count = len(axes) - 3
    front = [f"b{n}" for n in range(count)]
    regrouped = Member(
        query,
        [*front, "g", "h", "t", "u"],
        split,
        reshaped(actions, actions.of(query), axes, split),
    )
    grouped_members: list[Any] = [
        regrouped,
        (key, [*front, "g", "s", "u"]),
        (value, [*front, "g", "s", "v"]),
    ]
    after = [*output[:-3], *regroup([output[-3]], (groups, each), path_of(node)), *output[-2:]]
    return grouped_members, [*front, "g", "h", "t", "v"], after


# --- others -------------------------------------------------------------------------------------


def _cdist_axes(trace: Tracing, node: Node) -> Value:
    first, second = trace.axes(node.args[0]), trace.axes(node.args[1])
    unify(first[-1], second[-1], path_of(node))
    batch = batch_axes(first[:-2], second[:-2], path_of(node))
    trace.contract(first[-1], batch)
    return [*batch, first[-2], second[-2]]


def _cosine_axes(trace: Tracing, node: Node) -> Value:
    """``cosine_similarity``: what two values have in common, less one dimension."""
    dim = arguments(node).get("dim", 1)
    first, second = trace.axes(node.args[0]), trace.axes(node.args[1])
    whole = batch_axes(first, second, path_of(node))
    dim %= len(whole)
    trace.contract(whole[dim], _common(first, second))
    return [axis for n, axis in enumerate(whole) if n != dim]


def _common(first: Value, second: Value) -> list[Axis]:
    """Dimensions, aligned from the right, that neither value is broadcast along."""
    pairs = zip(reversed(first), reversed(second), strict=False)
    return [a for a, b in pairs if size_of(a) == size_of(b)]


_PRODUCT = "permutations that both operands share; scales that cancel in the sum"
_MATMUL = Rule(_matmul_axes, _matmul, _PRODUCT, product=True)
RULES = {
    **dict.fromkeys(("matmul", "bmm", "mm", "mv", "dot", "vdot"), _MATMUL),
    "baddbmm": Rule(_added_axes, _added_product, _PRODUCT, product=True),
    "tensordot": Rule(_tensordot_axes, _tensordot, _PRODUCT, product=True),
    **dict.fromkeys(
        ("addmv", "addr"), Rule(_added_vector_axes, _added_vector, _PRODUCT, product=True)
    ),
    **dict.fromkeys(("outer", "ger"), Rule(_outer_axes, _outer, _PRODUCT, product=True)),
    "einsum": Rule(_einsum_axes, _einsum, f"{_PRODUCT} (no repeated letters)", product=True),
    "scaled_dot_product_attention": Rule(
        _attention_axes,
        _attention,
        "heads; units within a head, queries with keys; a scale per unit of queries over keys, "
        "any of values; any change of basis within a head",
        recorded=True,
        product=True,
        whatever=("scale",),
    ),
    **dict.fromkeys(
        ("cdist", "_cdist_forward"),
        Rule(
            _cdist_axes,
            pinned_all,
            "permutations both share",
            product=True,
            whatever=("p", "compute_mode"),
        ),
    ),
    **dict.fromkeys(
        ("cosine_similarity", "pairwise_distance"),
        Rule(
            _cosine_axes,
            pinned_all,
            "permutations that both operands share",
            product=True,
            whatever=("p", "eps"),
        ),
    ),
}
