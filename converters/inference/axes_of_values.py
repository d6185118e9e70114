"""First pass: applies each operation's axis rule, so that every value gets its axes."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.export.graph_signature import InputKind
from torch.fx import Node

from gmn.spec import StateEntry

from ..rules import rule_of
from .axes import Atom, Axis, atoms, fix, fixed, size_of
from .tracing import (
    Rule,
    TraceError,
    Tracing,
    Value,
    flat_axes,
    is_read,
    name_of,
    path_of,
)


def run_axes(
    result: Tracing,
    program: torch.export.ExportedProgram,
    owners: Mapping[str, str],
    pinned: bool,
) -> list[str]:
    """States every operation's axes; returns the reports on unknown operations."""
    inputs = {spec.arg.name: spec for spec in program.graph_signature.input_specs}
    unknown: list[str] = []
    for node in program.graph.nodes:
        if node.op != "placeholder" and result.static.issuperset(node.all_input_nodes):
            result.static.add(node)
        if node.op == "placeholder":
            spec = inputs[node.name]
            _enter(result, node, spec, owners, program.constants.get(spec.target))
        elif node.op == "output":
            if pinned:
                _leave(result, node)
        elif node.op == "call_function":
            report = _apply(result, node)
            unknown += [report] if report and report not in unknown else []
        else:
            result.values[node] = []
    return unknown


def _enter(
    result: Tracing, node: Node, spec: Any, owners: Mapping[str, str], constant: object
) -> None:
    shape = _shape(node)
    if spec.kind != InputKind.USER_INPUT:
        result.static.add(node)
    if getattr(node.meta.get("val"), "dtype", None) in (torch.int64, torch.int32):
        result.indices.add(str(spec.target))
    if spec.target in owners and spec.kind in (InputKind.PARAMETER, InputKind.BUFFER):
        result.add_parameter(node, owners[spec.target], shape)
        result.read.update([owners[spec.target]] if node.users else [])
        return
    axes = [fixed(size, "an input" if spec.target is None else "a constant") for size in shape]
    if isinstance(constant, Tensor) and not constant.is_meta:
        axes = [
            (Atom(size),) if size > 1 and _is_same_along(constant, dim) else axes[dim]
            for dim, size in enumerate(shape)
        ]
    if spec.kind == InputKind.USER_INPUT:
        for axis in axes:
            for atom in axis:
                assert isinstance(atom, Atom)
                atom.roles.add("input")
                atom.example = atom.size == 1
    result.values[node] = axes


def _is_same_along(constant: Tensor, dim: int) -> bool:
    return bool((constant == constant.narrow(dim, 0, 1)).all())


def _shape(node: Node) -> tuple[int, ...]:
    return tuple(int(size) for size in getattr(node.meta.get("val"), "shape", ()))


def _leave(result: Tracing, node: Node) -> None:
    for operand in node.all_input_nodes:
        for axis in flat_axes(result.values[operand]):
            fix(axis, "an output")
            for atom in atoms(axis):
                atom.roles.add("output")


def _apply(result: Tracing, node: Node) -> str | None:
    if node.target is operator.getitem:
        value = result.values[node.args[0]]  # type: ignore[index]
        result.values[node] = value[node.args[1]] if value else []
        return None
    rule, sums = rule_of(node), len(result.contractions)
    axes = _axes_of(rule, result, node) if rule is not None else None
    if rule is None or axes is None or not _fits(axes, node):
        location = path_of(node)
        result.values[node] = result.opaque(node, f"{location}: {name_of(node)} has no rule")
        return (
            f"{location}: {node.target} has no rule; its axes stay ordered. "
            "Add one with converters.register"
        )
    result.values[node] = axes
    _note_mixing(result, node, [axis for axis, _ in result.contractions[sums:]])
    return None


def _axes_of(rule: Rule, result: Tracing, node: Node) -> Any:
    """The axes that the rule gives; None where it does not cover this form of the operation."""
    try:
        with result.asking(node):
            return rule.axes(result, node)
    except (ValueError, ArithmeticError, LookupError, TypeError, AttributeError) as error:
        if isinstance(error, TraceError):
            raise
        return None


def _note_mixing(result: Tracing, node: Node, summed: Sequence[Axis]) -> None:
    """Records axes that the operation mixes: those summed over, and those the result lacks."""
    left = {atom for axis in flat_axes(result.values[node]) for atom in atoms(axis)}
    left -= {atom for axis in summed for atom in atoms(axis)}
    for operand in node.all_input_nodes:
        value = result.values[operand]
        gone = {atom for axis in flat_axes(value) for atom in atoms(axis)} - left
        if gone and not isinstance(value[0], list):
            result.mix(value, gone)


def _fits(axes: Any, node: Node) -> bool:
    """Whether the axes have the sizes that the example run had; a rule may not cover all forms.

    Of several results, those that something reads count: exporters misstate the others.
    """
    meta = node.meta.get("val")
    if isinstance(meta, torch.Tensor):
        return _sizes(axes) == list(meta.shape)
    if isinstance(meta, (list, tuple)):
        read = [index for index in range(len(meta)) if is_read(node, index)]
        return all(_sizes(axes[index]) == list(meta[index].shape) for index in read)
    return True


def _sizes(value: Value) -> list[int]:
    return [size_of(axis) for axis in value]


def enter_unread(result: Tracing, entries: Sequence[StateEntry]) -> None:
    """Parameters that no operation reads join neurons of their own that may not move."""
    for entry in entries:
        if entry.tied_to or entry.name in result.parameters or not entry.learnable:
            continue
        result.parameters[entry.name] = [fixed(size, "unused") for size in entry.shape]
    for name, view in result.views.items():
        if view.dims is None:  # of two entries that overlap in part, nothing may move
            for axis in (*result.parameters.get(name, ()), *result.parameters.get(view.owner, ())):
                fix(axis, "it shares memory with another entry")


def tensors(result: Tracing) -> list[Value]:
    """The axes of all entries and values, and of what is left of those that were mixed."""
    values = [list(axes) for axes in (*result.parameters.values(), *result.mixed)]
    for value in result.values.values():
        parts = value if value and isinstance(value[0], list) else [value]
        values.extend(parts)
    return values
