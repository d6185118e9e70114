"""From a module to its GraphSpec, through ``torch.export``."""

from __future__ import annotations

import operator
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.export.graph_signature import InputKind
from torch.fx import Node
from torch.utils import _pytree as pytree

import gmn
from gmn.spec import GraphSpec, Port, StateEntry

from .axes import Atom, Axis, atoms, fix, fixed, size_of
from .build import build_spec
from .dependence import settle_dependence
from .leaves import as_operations
from .rules import RULES
from .rules.norm import STATISTICS
from .tracing import (
    TraceError,
    Tracing,
    Use,
    Value,
    arguments,
    flat_axes,
    is_inplace,
    is_read,
    name_of,
    operation_of,
    place_of,
)
from .units import ONE, Unit, UnitMismatch


def trace(model: nn.Module, example_inputs: tuple[Any, ...]) -> GraphSpec:
    """Finds the parameter graph and the symmetries of a module.

    The module is exported in evaluation mode; its weights are not read and may be on the meta
    device, where large models take no memory. Constants beside the state dict are read, if they
    have values: along dimensions where they are all alike, neurons may be permuted. Operations
    without a rule make the axes they touch ordered and are listed in ``spec.unknown``.

    Args:
        model: the network.
        example_inputs: positional inputs, as for ``torch.export.export``.

    Returns:
        The spec; it describes every state dict of this architecture.

    Raises:
        TraceError: if ``torch.export`` cannot follow the module.

    Example:
        >>> import torch, converters
        >>> import torch.nn as nn
        >>> model = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1))
        >>> [nodes.name for nodes in converters.trace(model, (torch.zeros(1, 2),)).node_sets]
        ['input', '0', '2']
    """
    entries = _state_entries(model)
    program = _export(model, example_inputs)
    result = Tracing()
    unknown = _run_axes(result, program, {e.name: e.tied_to or e.name for e in entries})
    _add_unused(result, entries)
    settle_dependence(_tensors(result), result.contractions)
    _run_units(result, program)
    return build_spec(result, entries, unknown, program)


def to_graph(model: nn.Module, example_inputs: tuple[Any, ...]) -> gmn.ParameterGraph:
    """The parameter graph of one module: a batch of one network that views its weights.

    Args:
        model: the network.
        example_inputs: positional inputs, as for ``torch.export.export``.

    Raises:
        TraceError: if ``torch.export`` cannot follow the module.
        gmn.StateDictError: if a weight is NaN or infinite, or on the meta device.
    """
    return gmn.ParameterGraph.from_state_dicts(trace(model, example_inputs), [model.state_dict()])


@contextmanager
def evaluation(model: nn.Module) -> Iterator[None]:
    """Puts the module in evaluation mode for a while, and every part back as it was."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def _export(model: nn.Module, example_inputs: tuple[Any, ...]) -> torch.export.ExportedProgram:
    if not isinstance(example_inputs, tuple):
        raise TraceError(
            f"example_inputs is a {type(example_inputs).__name__}; pass a tuple of the module's "
            "positional inputs, such as (torch.zeros(1, 3, 32, 32),)"
        )
    try:
        with evaluation(model), torch.no_grad(), warnings.catch_warnings():
            # Recurrent layers refresh their list of weights; nothing of it reaches the graph.
            warnings.filterwarnings("ignore", message="The tensor attribute")
            inputs = _beside(model, example_inputs)
            with as_operations(model, inputs):
                program = torch.export.export(model, inputs, strict=False)
            program.graph.eliminate_dead_code()  # what nobody reads tells nothing apart
            return program
    except Exception as error:
        first = str(error).strip().splitlines()[:1]
        raise TraceError(
            f"{type(model).__name__}: torch.export cannot follow it: {type(error).__name__}: "
            f"{first[0] if first else ''}. Check that the module runs on the example inputs and "
            "that its control flow does not depend on their values; a module inside it that is to "
            "blame can be given a rule with converters.register(its class, rule)."
        ) from error


def _beside(model: nn.Module, example_inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """The inputs, on the meta device if the module is there: operations do not mix devices."""
    if not any(parameter.is_meta for parameter in model.parameters()):
        return example_inputs
    moved: dict[int, Tensor] = {}  # one tensor passed twice stays one: attention looks at that
    return pytree.tree_map_only(
        Tensor, lambda value: moved.setdefault(id(value), value.to("meta")), example_inputs
    )


def _state_entries(model: nn.Module) -> list[StateEntry]:
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    owner: dict[int, str] = {}
    entries = []
    for name, tensor in model.state_dict(keep_vars=True).items():
        if not isinstance(tensor, Tensor):
            raise TraceError(
                f"{name}: the state dict holds a {type(tensor).__name__}, not a tensor"
            )
        first = owner.setdefault(id(tensor), name)
        entries.append(
            StateEntry(
                name,
                tuple(tensor.shape),
                name in parameters,
                tensor.is_floating_point(),
                None if first == name else first,
            )
        )
    return entries


# --- axes ---------------------------------------------------------------------------------------


def _run_axes(
    result: Tracing, program: torch.export.ExportedProgram, owners: Mapping[str, str]
) -> list[str]:
    """States every operation's axes; returns the reports on unknown operations."""
    inputs = {spec.arg.name: spec for spec in program.graph_signature.input_specs}
    unknown: list[str] = []
    for node in program.graph.nodes:
        result.depth[node] = max((result.depth[i] for i in node.all_input_nodes), default=0)
        if node.op != "placeholder" and result.static.issuperset(node.all_input_nodes):
            result.static.add(node)
        if node.op == "placeholder":
            spec = inputs[node.name]
            _enter(result, node, spec, owners, program.constants.get(spec.target))
        elif node.op == "output":
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
    is_parameter = spec.kind == InputKind.PARAMETER
    if spec.target in owners and (is_parameter or _is_statistic(node)):
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
    result.values[node] = axes


def _is_same_along(constant: Tensor, dim: int) -> bool:
    return bool((constant == constant.narrow(dim, 0, 1)).all())


def _shape(node: Node) -> tuple[int, ...]:
    return tuple(int(size) for size in getattr(node.meta.get("val"), "shape", ()))


def _is_statistic(node: Node) -> bool:
    """Whether every reader takes the buffer as a statistic of its features."""
    return bool(node.users) and all(
        any(arguments(user).get(name) is node for name in STATISTICS.get(name_of(user), ()))
        for user in node.users
        if user.op == "call_function"
    )


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
    rule, before, sums = RULES.get(name_of(node)), len(result.uses), len(result.contractions)
    axes = rule.axes(result, node) if rule is not None else None
    if rule is None or axes is None or not _fits(axes, node):
        place = place_of(node)
        result.values[node] = result.opaque(node, f"{place}: {name_of(node)} has no rule")
        return (
            f"{place}: {node.target} has no rule; its axes stay ordered. "
            "Add one with converters.register"
        )
    result.values[node] = axes
    _note_mixing(result, node, [axis for axis, _ in result.contractions[sums:]])
    if node in result.static:
        result.derive(node)
    if any(use.kind == "weight" for use in result.uses[before:]):
        result.depth[node] += 1
    if rule.recorded and len(result.uses) == before:
        result.operations.append((operation_of(node), node))
    return None


def _note_mixing(result: Tracing, node: Node, summed: Sequence[Axis]) -> None:
    """What an operand has and the result has not, or what is summed over, is put together."""
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
        read = [number for number in range(len(meta)) if is_read(node, number)]
        return all(_sizes(axes[number]) == list(meta[number].shape) for number in read)
    return True


def _sizes(value: Value) -> list[int]:
    return [size_of(axis) for axis in value]


def _add_unused(result: Tracing, entries: list[StateEntry]) -> None:
    """Parameters that no operation reads as edges become edges all the same.

    Those that the network reads in another way join the neurons that they range over; those that
    it does not read at all join neurons of their own that may not move.
    """
    used = {use.parameter for use in result.uses}
    graph = torch.fx.Graph()
    for entry in entries:
        if entry.tied_to or entry.name in used or not (entry.parameter and entry.floating):
            continue
        entered = entry.name in result.parameters
        if not entered:
            result.parameters[entry.name] = [fixed(size, "unused") for size in entry.shape]
        axes = result.parameters[entry.name]
        moving = [
            place
            for place, axis in enumerate(axes)
            if any(not atom.fixed and atom.size > 1 for atom in atoms(axis))
        ]
        ports: list[Port] = ["both"] * len(axes)
        if len(moving) > 1 or (not entered and len(axes) > 1):
            ports = ["source"] * len(axes)
            ports[moving[0] if moving else 0] = "target"
        node = graph.placeholder("unused")
        result.depth[node] = 0
        operation = gmn.spec.Operation("read" if entry.name in result.read else "unused")
        result.add_use(Use(entry.name, "weight", node, operation, tuple(ports)))


def _tensors(result: Tracing) -> list[Value]:
    values = [list(axes) for axes in (*result.parameters.values(), *result.mixed)]
    for value in result.values.values():
        parts = value if value and isinstance(value[0], list) else [value]
        values.extend(parts)
    return values


# --- units --------------------------------------------------------------------------------------


def _run_units(result: Tracing, program: torch.export.ExportedProgram) -> None:
    for node in program.graph.nodes:
        if node.op == "call_function":
            result.set_unit(node, _unit_of(result, node))
        elif node.op == "output":
            _fix_operands(result, node)
    _fix_mixed_uses(result)


def _unit_of(result: Tracing, node: Node) -> Unit:
    """States an operation's unit equations; where it cannot, nothing it reads may be scaled."""
    rule = None if node in result.unknown else RULES.get(name_of(node))
    try:
        if node.target is operator.getitem:
            return result.unit_of_result(node.args[0], node.args[1])  # type: ignore[arg-type]
        if rule is not None:
            unit = rule.units(result, node)
            if is_inplace(node):
                result.balance.equal(unit, result.unit(node.args[0]))
            return unit
    except UnitMismatch:
        pass
    _fix_operands(result, node)
    return ONE


def _fix_operands(result: Tracing, node: Node) -> None:
    for operand in node.all_input_nodes:
        result.balance.fix(result.unit(operand))


def _fix_mixed_uses(result: Tracing) -> None:
    """A parameter that serves as edges in two ways has no unit that fits both."""
    uses: dict[str, set[tuple[str, ...]]] = {}
    for use in result.uses:
        uses.setdefault(use.parameter, set()).add(use.ends)
    for name, ports in result.ports_of_scales().items():
        if len(uses.get(name, ())) > 1 or ("both" in ports and len(ports) > 1):
            for port in ports:
                result.balance.fix(result.scale(name, port))
