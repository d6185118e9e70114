"""Rules of constants, look-ups in tables, and masks that choose between values."""

from __future__ import annotations

from collections.abc import Collection, Hashable
from typing import Any

from torch.fx import Node

from gmn.spec import Port

from ..inference.actions import NOTHING, Action, Actions, merge_origins
from ..inference.axes import Atom, fix, fixed, size_of, unify
from ..inference.carrying import by_part
from ..inference.equations import Term, Terms, add
from ..inference.frames import Frame
from ..inference.primitives import (
    broadcast,
    direct_use,
    equate,
    find_diagonal,
    homogeneous,
    linear_moved,
    pinned,
    summed,
)
from ..inference.tracing import Rule, Tracing, Value, arguments, atoms_of, path_of, shape_of
from .pieces import cut_evenly, piece
from .pointwise import broadcast_axes, fixed_all, is_zero, nothing, pinned_all


def _uniform_axes(trace: Tracing, node: Node) -> Value:
    return [(Atom(size),) for size in shape_of(node)]


def _counted_axes(trace: Tracing, node: Node) -> Value:
    return [fixed(size, "counting tells positions apart") for size in shape_of(node)]


def _grid_axes(trace: Tracing, node: Node) -> list[Value]:
    """``meshgrid``: every result ranges over all operands, and varies along its own."""
    call = arguments(node)
    axes = [axis for operand in call["tensors"] for axis in trace.axes(operand)]
    if call.get("indexing") == "xy":
        axes[:2] = reversed(axes[:2])
    return [axes for _ in call["tensors"]]


def _embedding_axes(trace: Tracing, node: Node) -> Value:
    call = arguments(node)
    table = trace.axes(call["weight"])
    fix(table[0], "rows belong to tokens")
    return [*trace.axes(call["indices"]), table[1]]


def _prelu_axes(trace: Tracing, node: Node) -> Value:
    features, slopes = trace.axes(node.args[0]), trace.axes(node.args[1])
    if shape_of(node.args[1]) != (1,):  # type: ignore[arg-type]
        unify(features[1], slopes[0], path_of(node))
    return list(features)


def _glu_axes(trace: Tracing, node: Node) -> Value:
    axes, dim = list(trace.axes(node.args[0])), arguments(node)["dim"]
    half, gate = cut_evenly(axes[dim], 2, path_of(node))
    unify(half, gate, path_of(node))
    axes[dim] = half
    return axes


# --- how results transform ----------------------------------------------------------------------


def _made(actions: Actions, node: Node) -> Action:
    """New values that depend only on the shape of their operand."""
    linear_moved(actions, node)
    actions.only_shape(*node.all_input_nodes)
    return NOTHING


def _embedding(actions: Actions, node: Node) -> Action:
    """Rows picked by tokens: nothing may scale row by row; shifts differ from token to token."""
    call = arguments(node)
    indices, weight = call["indices"], call["weight"]
    actions.pin(indices)
    count = len(actions.axes(indices))
    batch = [f"b{n}" for n in range(count)]
    frame = Frame(actions, node, [(weight, ["v", "d"]), (indices, batch)], [*batch, "d"])
    taken = frame.take(0)
    roles: dict[Any, Port] = {"v": "source", "d": "target"}
    use = direct_use(frame, 0, "weight", roles)
    actions.find(weight, node, "weight", frame.origins(0), roles, use)
    parts = {pair for key in taken.shift for pair in key if pair[0] == "v"}
    shift = {
        key: _picked(actions, (node, key), terms, frame.places(1, key), whole=len(parts) < 2)
        for key, terms in by_part(frame, 1, taken.shift).items()
    }
    whole = summed(frame, Action(taken.magnitude, taken.sign, {}, taken.origins), {"v"})
    actions.linear[node] = frame.atoms_at({"d"}) - frame.atoms_at({"v", *batch})
    merged: dict[Any, Any] = {}
    for key, terms in shift.items():
        less = tuple(pair for pair in key if pair[0] != "v")
        merged[less] = add(merged.get(less, {}), terms)
    return frame.give(Action(whole.magnitude, whole.sign, merged, whole.origins))


def _bag_axes(trace: Tracing, node: Node) -> list[Value]:
    """``embedding_bag``: sums, averages or maxima of rows; the other results are counts."""
    call, shapes = arguments(node), node.meta["val"]
    table = trace.axes(call["weight"])
    fix(table[0], "rows belong to tokens")
    rest = [[fixed(int(n), "counts") for n in part.shape] for part in shapes[1:]]
    return [[fixed(int(shapes[0].shape[0]), "bags"), table[1]], *rest]


def _bag(actions: Actions, node: Node) -> list[Action]:
    call = arguments(node)
    weight, sums = call["weight"], actions.trace.values[node][0]
    for operand in node.all_input_nodes:
        if operand is not weight:
            actions.pin(operand)
    frame = Frame(actions, node, [(weight, ["v", "d"])], ["b", "d"], sums)
    taken = frame.take(0)
    actions.zero(actions.shifts, taken.shift)
    if call["mode"] == 2:
        actions.zero(actions.signs, taken.sign)
    else:
        actions.linear[node] = frame.atoms_at({"d"})
    roles: dict[Any, Port] = {"v": "source", "d": "target"}
    use = direct_use(frame, 0, "weight", roles)
    actions.find(weight, node, "weight", frame.origins(0), roles, use)
    whole = summed(frame, Action(taken.magnitude, taken.sign, {}, taken.origins), {"v"})
    return [frame.give(whole), *[NOTHING] * (len(node.meta["val"]) - 1)]


def _picked(
    actions: Actions, how: Hashable, terms: Terms, where: Collection[Any], *, whole: bool
) -> Terms:
    """Shifts of selected rows: those that differ by row differ by output position.

    Of a table that is put together of several, each part has shifts of its own.
    """
    kept: Terms = {}
    for term, coefficient in actions.shifts.reduce(terms).items():
        one: Terms = {term: coefficient}
        if term.mixed or not whole or any(label == "v" for label, _ in term.at):
            moved = actions.maps.mix(one, (how, "picked"), where)
            one = {
                Term(t.unknown, tuple(p for p in t.at if p[0] != "v"), t.mixed): c
                for t, c in moved.items()
            }
        kept = add(kept, one)
    return kept


def _masked(actions: Actions, node: Node) -> Action:
    """Entries filled with 0 keep any scale, with −∞ positive ones and shifts."""
    call = arguments(node)
    value, mask, fill = call["self"], call["mask"], call["value"]
    if isinstance(fill, Node):
        return fixed_all(actions, node)
    actions.pin(mask)
    frame = broadcast(actions, node, [value, mask])
    taken = frame.take(0)
    infinite = fill in (float("-inf"), float("inf"))
    if fill == 0:
        linear = atoms_of(*actions.axes(value)) - atoms_of(*actions.axes(mask))
        actions.linear[node] = linear
    if not infinite:
        actions.zero(actions.shifts, taken.shift)
        taken = Action(taken.magnitude, taken.sign, {}, taken.origins)
    if infinite or fill != 0:
        actions.zero(actions.signs, taken.sign)
        taken = Action(taken.magnitude, {}, taken.shift, taken.origins)
    if not infinite and fill != 0:
        actions.zero(actions.magnitudes, taken.magnitude)
        taken = Action({}, {}, taken.shift, taken.origins)
    find_diagonal(frame, 1, "shift")
    return frame.give(taken)


def _where(actions: Actions, node: Node) -> Action:
    """One of two values: what they share passes; zeros have every unit."""
    call = arguments(node)
    condition, first, second = call["condition"], call["self"], call["other"]
    actions.pin(condition)
    values = [v for v in (first, second) if isinstance(v, Node)]
    frame = broadcast(actions, node, [condition, *values])
    for operand in range(len(values) + 1):
        find_diagonal(frame, operand, "shift")
    ends = [frame.take(n + 1) for n in range(len(values))]
    constants = [v for v in (first, second) if not isinstance(v, Node)]
    zero = [is_zero(v) for v in values]
    if len(values) == 2 and any(zero):
        ends, constants = [end for end, z in zip(ends, zero, strict=True) if not z][:1], [0]
    if len(ends) == 2:
        return frame.give(
            Action(
                equate(actions.magnitudes, ends[0].magnitude, ends[1].magnitude),
                equate(actions.signs, ends[0].sign, ends[1].sign),
                equate(actions.shifts, ends[0].shift, ends[1].shift),
                merge_origins(ends[0].origins, ends[1].origins),
            )
        )
    if not ends:
        return NOTHING
    actions.zero(actions.shifts, ends[0].shift)
    if not constants or constants[0] != 0:
        return frame.give(pinned(frame))
    return frame.give(Action(ends[0].magnitude, ends[0].sign, {}, ends[0].origins))


def _prelu(actions: Actions, node: Node) -> Action:
    value, slopes = node.args[0], node.args[1]
    rank = len(actions.axes(value))
    actions.pin(slopes)
    frame = Frame(actions, node, [(value, range(rank)), (slopes, [1])], range(rank))
    find_diagonal(frame, 1, "slope")
    return frame.give(homogeneous(frame, degree=1, sign="pin"))


def _glu(actions: Actions, node: Node) -> Action:
    """``a σ(b)``: the first half keeps its unit, the second has none."""
    value, after = node.args[0], actions.axes(node)
    dim = arguments(node).get("dim", -1) % len(after)
    size = size_of(after[dim])
    gate = piece(actions, value, after, dim, size, size)
    for system, channel in (
        (actions.magnitudes, gate.magnitude),
        (actions.signs, gate.sign),
        (actions.shifts, gate.shift),
    ):
        actions.zero(system, channel)
    half = piece(actions, value, after, dim, 0, size)
    actions.zero(actions.shifts, half.shift)
    return Action(half.magnitude, half.sign, {}, half.origins)


_POINTWISE = "permutations that all operands share"
RULES = {
    **dict.fromkeys(
        (
            *("zeros", "ones", "full", "zeros_like", "ones_like", "full_like", "new_zeros"),
            *("new_ones", "new_full", "empty", "empty_like", "new_empty", "scalar_tensor"),
            *("rand", "randn", "rand_like", "randn_like", "randint", "empty_strided"),
            *("new_empty_strided", "empty_permuted"),
        ),
        Rule(
            _uniform_axes,
            _made,
            "everything",
            whatever=("fill_value", "s", "low", "high", "dtype", "stride", "physical_layout"),
        ),
    ),
    **dict.fromkeys(
        ("arange", "linspace", "eye", "tril_indices", "triu_indices", "hann_window"),
        Rule(
            _counted_axes,
            nothing,
            "nothing",
            whatever=(
                *("start", "end", "step", "steps", "n", "m", "row", "col", "offset", "dtype"),
                *("window_length", "periodic"),
            ),
        ),
    ),
    "meshgrid": Rule(_grid_axes, pinned_all, "any permutation"),
    "embedding": Rule(
        _embedding_axes,
        _embedding,
        "permutations and scales of the embedding's dimensions",
        whatever=("padding_idx",),
    ),
    **dict.fromkeys(
        ("embedding_bag", "_embedding_bag", "_embedding_bag_forward_only"),
        Rule(
            _bag_axes,
            _bag,
            "permutations and scales of the embedding's dimensions",
            whatever=("padding_idx", "include_last_offset"),
        ),
    ),
    "masked_fill": Rule(broadcast_axes, _masked, f"{_POINTWISE}; scales, if filled with 0"),
    "where": Rule(broadcast_axes, _where, f"{_POINTWISE}; scales they share"),
    **dict.fromkeys(
        ("prelu", "_prelu_kernel"),
        Rule(_prelu_axes, _prelu, "permutations of channels; positive scales"),
    ),
    "glu": Rule(_glu_axes, _glu, "permutations of both halves; scales of the first"),
}
