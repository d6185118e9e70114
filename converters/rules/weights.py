"""Rules of operations with a weight tensor: linear maps and convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch.fx import Node

from gmn.spec import Port

from ..inference.actions import Action, Actions, Use, merge_origins
from ..inference.axes import Axis, fix, fixed, mark_position, regroup, size_of, unify
from ..inference.carrying import in_parts
from ..inference.equations import Place, add
from ..inference.frames import Frame, Member, join
from ..inference.primitives import (
    added,
    contract,
    linear_contracted,
    multiplied,
    pinned,
    product,
    reshaped,
    summed,
    total,
)
from ..inference.tracing import (
    Rule,
    Tracing,
    Value,
    arguments,
    atoms_of,
    operation_of,
    path_of,
    shape_of,
)


def _linear_axes(trace: Tracing, node: Node) -> Value:
    call = arguments(node)
    features, weight = trace.axes(call["input"]), trace.axes(call["weight"])
    unify(features[-1], weight[-1], path_of(node))
    trace.contract(weight[-1])
    if len(weight) == 1:
        return features[:-1]
    _bias_axes(trace, node, call["bias"], weight[0])
    return [*features[:-1], weight[0]]


def _addmm_axes(trace: Tracing, node: Node) -> Value:
    """``b + x @ W``."""
    bias, first, second = (trace.axes(operand) for operand in node.args[:3])
    unify(first[-1], second[0], path_of(node))
    trace.contract(first[-1])
    result = [*first[:-1], second[1]]
    for axis, other in zip(reversed(bias), reversed(result), strict=False):
        if size_of(axis) == size_of(other):
            unify(axis, other, path_of(node))
    return result


def _bias_axes(trace: Tracing, node: Node, bias: object, channels: Axis) -> None:
    if bias is not None:
        unify(trace.axes(bias)[0], channels, path_of(node))


def _conv_axes(trace: Tracing, node: Node) -> Value:
    call = arguments(node)
    features, weight = trace.axes(call["input"]), trace.axes(call["weight"])
    spatial = len(weight) - 2
    channel = len(features) - spatial - 1
    spatial_axes = _convolved(node, features[channel + 1 :], weight[2:])
    shared = _conv_channels(features[channel], weight, call["groups"], path_of(node))
    trace.contract(weight[1], [shared])
    _bias_axes(trace, node, call["bias"], weight[0])
    return [*features[:channel], weight[0], *spatial_axes]


def _convolved(node: Node, before: Sequence[Axis], kernel: Sequence[Axis]) -> list[Axis]:
    """Positions of the result; along a kernel of width one they are those of the input."""
    padding = arguments(node)["padding"]
    amounts = [0] * len(kernel) if isinstance(padding, str) else list(padding)
    amounts = amounts * len(kernel) if len(amounts) == 1 else amounts
    after = feature_map(node, len(kernel))
    for dim, (axis, taps) in enumerate(zip(before, kernel, strict=True)):
        if size_of(taps) == 1 and size_of(axis) == size_of(after[dim]) and not amounts[dim]:
            after[dim] = axis
        else:
            fix(axis, "a convolution tells positions apart")
        fix(taps, "a convolution tells positions apart")
        mark_position((*axis, *taps))
    return after


def _transposed_axes(trace: Tracing, node: Node) -> Value:
    """Transposed convolution: the weight is (inputs, outputs per group, *kernel)."""
    call = arguments(node)
    features, weight = trace.axes(call["input"]), trace.axes(call["weight"])
    spatial, groups = len(weight) - 2, call["groups"]
    channel = len(features) - spatial - 1
    for axis in (*features[channel + 1 :], *weight[2:]):
        fix(axis, "a convolution tells positions apart")
        mark_position(axis)
    unify(features[channel], weight[0], path_of(node))
    outputs: Axis = weight[1]
    shared: Axis = ()
    if groups > 1:
        shared, _ = regroup([weight[0]], (groups, size_of(weight[0]) // groups), path_of(node))
        outputs = (*shared, *weight[1])
    trace.contract(weight[0], [shared])
    _bias_axes(trace, node, call["bias"], outputs)
    return [*features[:channel], outputs, *feature_map(node, spatial)]


def _conv_channels(channels: Axis, weight: Value, groups: int, path: str) -> Axis:
    """Joins input channels and weight; returns what both ends of a grouped kernel share."""
    if groups == 1:
        unify(channels, weight[1], path)
        return ()
    per_group = size_of(channels) // groups
    group, member = regroup([channels], (groups, per_group), path)
    rows, _ = regroup([weight[0]], (groups, size_of(weight[0]) // groups), path)
    unify(rows, group, path)
    if per_group > 1:
        unify(weight[1], member, path)
    return group


def feature_map(node: Node, spatial: int) -> list[Axis]:
    """Axes of the positions of a new feature map."""
    axes = [fixed(size, "positions of a feature map") for size in shape_of(node)[-spatial:]]
    for axis in axes:
        mark_position(axis)
    return axes


def _bilinear_axes(trace: Tracing, node: Node) -> Value:
    """``y_k = x' W_k z + b_k``: the weight's sources are pairs of neurons."""
    call = arguments(node)
    first, second, weight = (trace.axes(call[name]) for name in ("input1", "input2", "weight"))
    for axis, features in zip(weight[1:], (first, second), strict=True):
        unify(features[-1], axis, path_of(node))
        trace.contract(axis)
    for one, other in zip(first[:-1], second[:-1], strict=True):
        unify(one, other, path_of(node))
    _bias_axes(trace, node, call["bias"], weight[0])
    return [*first[:-1], weight[0]]


# --- how results transform ----------------------------------------------------------------------


def _linear(actions: Actions, node: Node) -> Action:
    call = arguments(node)
    features, weight = actions.axes(call["input"]), actions.axes(call["weight"])
    batch = [f"b{n}" for n in range(len(features) - 1)]
    outputs = ["o"] if len(weight) == 2 else []
    return contracted(
        actions,
        node,
        (call["input"], [*batch, "i"]),
        (call["weight"], [*outputs, "i"]),
        [*batch, *outputs],
        call.get("bias"),
    )


def contracted(
    actions: Actions,
    node: Node,
    first: tuple[object, list[str]],
    second: tuple[object, list[str]],
    result: list[str],
    bias: object = None,
) -> Action:
    """A sum of products over the labels that the result lacks, and a bias on its last dimension."""
    members: list[tuple[object, Any]] = [first, second]
    if bias is not None:
        members.append((bias, result[len(result) - len(actions.axes(bias)) :]))
    frame = Frame(actions, node, members, result)
    over = (set(first[1]) | set(second[1])) - set(result)
    action = contract(frame, 0, 1, over)
    linear_contracted(frame, 0, 1, over, bias)
    return frame.give(action if bias is None else biased(frame, action, 2))


def biased(frame: Frame, action: Action, operand: int) -> Action:
    """A value by label plus an operand, which is its bias."""
    bias = total(frame, [operand], [1], "bias")
    return added(frame.actions, action, bias)


def _addmm(actions: Actions, node: Node) -> Action:
    """``beta b + alpha x @ W``."""
    call = arguments(node)
    bias, first, second = node.args[:3]
    alpha, beta = call["alpha"], call["beta"]
    labels = ["b0", "o"]
    members = [(first, ["b0", "i"]), (second, ["i", "o"])]
    frame = Frame(actions, node, [*members, (bias, labels[2 - len(actions.axes(bias)) :])], labels)
    result = multiplied(contract(frame, 0, 1, {"i"}), alpha)
    if alpha == 0:
        return frame.give(pinned(frame))
    if beta == 0:  # the bias is not looked at
        linear_contracted(frame, 0, 1, {"i"})
        return frame.give(result)
    linear_contracted(frame, 0, 1, {"i"}, bias)
    return frame.give(added(actions, result, total(frame, [2], [beta], "bias")))


def _conv(actions: Actions, node: Node) -> Action:
    """Convolution: a sum over channels; output positions mix input positions."""
    call = arguments(node)
    features, weight = actions.axes(call["input"]), actions.axes(call["weight"])
    spatial, groups = len(weight) - 2, call["groups"]
    channel = len(features) - spatial - 1
    before, after = features[channel + 1 :], actions.axes(node)[channel + 1 :]
    kept = [one == other for one, other in zip(before, after, strict=True)]
    taps: list[str | None] = [None if same else f"t{n}" for n, same in enumerate(kept)]
    if groups == 1:
        rows, columns = [weight[0]], [weight[1]]
        inputs = [features[channel]]
        row_labels, column_labels, input_labels = ["o"], ["i"], ["i"]
    else:
        reason = path_of(node)
        inputs = regroup([features[channel]], (groups, size_of(weight[1])), reason)
        rows = regroup([weight[0]], (groups, size_of(weight[0]) // groups), reason)
        columns = [weight[1]]
        row_labels, column_labels, input_labels = ["g", "o"], ["i"], ["g", "i"]
    shape = _Convolution(
        actions, node, channel, features, weight, inputs, rows, columns, taps, kept
    )
    return shape.action(input_labels, row_labels, column_labels, transposed=False)


def _conv_transposed(actions: Actions, node: Node) -> Action:
    call = arguments(node)
    features, weight = actions.axes(call["input"]), actions.axes(call["weight"])
    spatial, groups = len(weight) - 2, call["groups"]
    channel = len(features) - spatial - 1
    taps: list[str | None] = [f"t{n}" for n in range(spatial)]
    kept = [False] * spatial
    if groups == 1:
        shape = _Convolution(
            actions, node, channel, features, weight, [features[channel]], [weight[1]], [weight[0]],
            taps, kept,
        )  # fmt: skip
        return shape.action(["i"], ["o"], ["i"], transposed=True)
    reason = path_of(node)
    inputs = regroup([features[channel]], (groups, size_of(weight[0]) // groups), reason)
    columns = regroup([weight[0]], (groups, size_of(weight[0]) // groups), reason)
    shape = _Convolution(
        actions, node, channel, features, weight, inputs, [weight[1]], columns, taps, kept
    )
    return shape.action(["g", "i"], ["o"], ["g", "i"], transposed=True)


@dataclass(frozen=True)
class _Convolution:
    """A convolution with its channels dealt out to groups and members."""

    actions: Actions
    node: Node
    channel: int
    features: Value
    weight: Value
    inputs: list[Axis]
    rows: list[Axis]
    columns: list[Axis]
    taps: list[str | None]
    kept: list[bool]

    def action(
        self, inputs: list[str], rows: list[str], columns: list[str], *, transposed: bool
    ) -> Action:
        """The action of the result."""
        actions, node, channel = self.actions, self.node, self.channel
        call = arguments(node)
        batch = [f"b{n}" for n in range(channel)]
        positions = [f"p{n}" for n in range(len(self.taps))]
        before = [label if same else None for label, same in zip(positions, self.kept, strict=True)]
        features = [*self.features[:channel], *self.inputs, *self.features[channel + 1 :]]
        ends = [*self.columns, *self.rows] if transposed else [*self.rows, *self.columns]
        end_labels = [*columns, *rows] if transposed else [*rows, *columns]
        weight = [*ends, *self.weight[2:]]
        output = actions.axes(node)
        grouped = "g" in inputs
        outputs = ["g", "o"] if grouped else ["o"]
        after = [*output[:channel], *self._outputs(output), *output[channel + 1 :]]
        members: list[Any] = [
            Member(
                call["input"],
                [*batch, *inputs, *before],
                features,
                reshaped(actions, actions.of(call["input"]), self.features, features),
            ),
            Member(
                call["weight"],
                [*end_labels, *self.taps],
                weight,
                reshaped(actions, actions.of(call["weight"]), self.weight, weight),
            ),
        ]
        if call["bias"] is not None:
            bias = self._outputs(output)
            own = actions.axes(call["bias"])
            members.append(
                Member(
                    call["bias"],
                    outputs,
                    bias,
                    reshaped(actions, actions.of(call["bias"]), own, bias),
                )
            )
        result = [*batch, *outputs, *positions]
        frame = Frame(actions, node, members, result, after)
        over = {"i", *(tap for tap in self.taps if tap is not None)}
        roles: dict[Any, Port] = {tap: "tap" for tap in self.taps if tap is not None}
        if grouped:
            roles["g"] = "both"
        use = self._direct(transposed)
        convolved = contract(frame, 0, 1, over, roles=roles, direct={1: use} if use else None)
        convolved = _everywhere(frame, convolved, positions, self.kept)
        if call["bias"] is not None:
            convolved = biased(frame, convolved, 2)
        linear_contracted(frame, 0, 1, {"i"}, call["bias"])
        own_atoms = atoms_of(*self.weight[:2]) - (atoms_of(*self.inputs[:1]) if grouped else set())
        actions.linear[node] &= own_atoms
        given = frame.give(convolved)
        return reshaped(actions, given, after, output)

    def _outputs(self, output: Value) -> list[Axis]:
        """The channels of the result, by group and member."""
        groups = arguments(self.node)["groups"]
        if groups == 1:
            return [output[self.channel]]
        size = size_of(output[self.channel]) // groups
        return regroup([output[self.channel]], (groups, size), path_of(self.node))

    def _direct(self, transposed: bool) -> Use | None:
        """The use of the weight where it is an entry itself."""
        call, actions = arguments(self.node), self.actions
        name = actions.trace.parameter_name(call["weight"])
        if name is None:
            return None
        steps = (1.0, 1.0, *(float(d) for d in _per_dim(call["dilation"], len(self.taps))))
        ends: tuple[Port, ...] = ("source", "target") if transposed else ("target", "source")
        taps: tuple[Port, ...] = tuple("tap" for _ in self.taps)
        shared = atoms_of(*self.inputs[:1]) if call["groups"] > 1 else frozenset()
        places = [
            place
            for cell in actions.cells(self.weight)
            for place in cell.places
            if place[0] == 0 and cell.atom(place) in shared
        ]
        inner: tuple[tuple[Place, Port], ...] = tuple((place, "both") for place in set(places))
        operation = operation_of(self.node)
        return Use(name, None, "weight", self.node, operation, (*ends, *taps), inner, steps)


def _per_dim(value: Any, count: int) -> list[int]:
    sizes = list(value) if isinstance(value, (list, tuple)) else [value]
    return sizes * count if len(sizes) == 1 else sizes


def _everywhere(frame: Frame, action: Action, positions: list[str], kept: Sequence[bool]) -> Action:
    """Shifts after a convolution may differ at every position: borders see less of the kernel.

    Without padding, and at positions that stay what they are, the whole kernel carries a shift on.
    """
    call, maps = arguments(frame.node), frame.actions.maps
    amounts = call["padding"] if isinstance(call["padding"], (list, tuple)) else [call["padding"]]
    whole = all(amount in (0, "valid") for amount in amounts) and "output_padding" not in call
    shown = {label for label in frame.result if label in positions}
    where = [(label, k) for label in shown for k in range(_most(frame, label))]
    shift = {}
    parts = {frame.key(frame.result, c.key) for c in frame.actions.cells(frame.result_axes)}
    for key, terms in in_parts(action.shift, parts).items():
        carried = {t: c for t, c in terms.items() if maps.carriers(t.mixed) is not None}
        alike = carried if whole or all(kept) else {}
        rest = {t: c for t, c in terms.items() if t not in alike}
        shift[key] = add(alike, maps.mix(rest, (frame, "places", key), where))  # type: ignore[arg-type]
    return replace(action, shift=shift)


def _most(frame: Frame, label: object) -> int:
    dim = list(frame.result).index(label)
    return max(len(cell.atoms[dim]) for cell in frame.actions.cells(frame.result_axes))


def _bilinear(actions: Actions, node: Node) -> Action:
    """``y_k = x' W_k z + b_k``."""
    call = arguments(node)
    one, other, weight = (call[name] for name in ("input1", "input2", "weight"))
    batch = [f"b{n}" for n in range(len(actions.axes(one)) - 1)]
    members: list[Any] = [(one, [*batch, "i"]), (other, [*batch, "j"]), (weight, ["o", "i", "j"])]
    if call["bias"] is not None:
        members.append((call["bias"], ["o"]))
    frame = Frame(actions, node, members, [*batch, "o"])
    for operand in (one, other, weight):
        actions.zero(actions.shifts, actions.of(operand).shift)
    inner = product(frame, 0, 1)
    third = frame.take(2)
    whole = Action(
        join(inner.magnitude, third.magnitude, lambda a, b: add(a, b)),
        join(inner.sign, third.sign, lambda a, b: add(a, b)),
        {},
        merge_origins(inner.origins, third.origins),
    )
    ports: tuple[Port, ...] = ("target", "source", "source")
    actions.use(weight, node, "weight", ports)
    result = summed(frame, whole, {"i", "j"})
    if call["bias"] is not None:
        result = biased(frame, result, 3)
    actions.linear[node] = atoms_of(*actions.axes(weight))
    return frame.give(result)


_CONTRACTION = "permutations and scalings of the rows; those of the columns follow the input"
RULES = {
    "linear": Rule(_linear_axes, _linear, _CONTRACTION, product=True),
    "bilinear": Rule(_bilinear_axes, _bilinear, _CONTRACTION, product=True),
    "addmm": Rule(_addmm_axes, _addmm, _CONTRACTION, product=True),
    **dict.fromkeys(
        ("conv1d", "conv2d", "conv3d"),
        Rule(_conv_axes, _conv, _CONTRACTION, product=True, whatever=("stride",)),
    ),
    **dict.fromkeys(
        ("conv_transpose1d", "conv_transpose2d", "conv_transpose3d"),
        Rule(
            _transposed_axes,
            _conv_transposed,
            _CONTRACTION,
            product=True,
            whatever=("stride", "padding", "output_padding"),
        ),
    ),
}
