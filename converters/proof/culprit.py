"""Finds the rule behind a false symmetry, by comparing two runs value by value.

The first value that is another than its type says is that of an operation whose rule is false.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx import Node
from torch.utils import _pytree as pytree

from ..exporting.operators import is_random, qualified_name
from ..inference.actions import Action, Actions
from ..inference.tracing import Value, path_of
from .elements import PERMUTATIONS, Group
from .moved_values import Moved, is_number, redrawn, rounding
from .running import Given
from .situations import as_example
from .situations import redrawn as other_inputs

ELEMENTS = 3
TOLERANCE = 1e-7
_NARROW = (torch.float32, torch.float16, torch.bfloat16)

State = Mapping[str, Tensor]


def culprit(
    model: nn.Module, program: ExportedProgram, actions: Actions, given: Given
) -> str | None:
    """The first operation whose result is another than its type says.

    Args:
        model: the network, on the CPU.
        program: its operations.
        actions: what rules say of their results.
        given: example inputs.

    Returns:
        The operation's name with its namespace, and the module that runs it; None if all results
        are as they should be, as far as operations run by themselves.
    """
    generator = torch.Generator().manual_seed(0)
    group = Group(actions)
    calls = [node for node in program.graph.nodes if node.op == "call_function"]
    random = any(is_random(node) for node in calls)
    for _ in range(ELEMENTS):
        order = torch.randperm(len(group.parts), generator=generator).tolist()
        parts = [group.parts[n] for n in order]
        parts = [p for p in parts if not (random and p.kind == PERMUTATIONS)]
        state = _random_state(model, actions, generator)
        moved = Moved(actions, group.element(group.compatible(parts), generator), state)
        new = _moved_state(model, moved, actions, state)
        fresh = other_inputs(given, generator, 1.3, as_example)
        before, after = (_values(program, each, fresh) for each in (state, new))
        for node in calls:
            if _differs(actions, moved, node, before.get(node), after.get(node)):
                return f"{qualified_name(node)} in {path_of(node)}"
    return None


def _differs(actions: Actions, moved: Moved, node: Node, before: Any, after: Any) -> bool:
    action, axes = actions.results(node), actions.trace.values[node]
    if not isinstance(action, Action) or not isinstance(before, Tensor):
        return False
    if not isinstance(after, Tensor) or _sizes(axes) != before.dim():
        return False
    error = moved.error(action, axes, before, after)
    return not error <= max(TOLERANCE, rounding(after))


def _sizes(axes: Value) -> int:
    return -1 if axes and isinstance(axes[0], list) else len(axes)


def _random_state(model: nn.Module, actions: Actions, generator: torch.Generator) -> State:
    """Random entries in wide types; those that share memory share it."""
    own = model.state_dict(keep_vars=True)
    first = {id(value): name for name, value in reversed(own.items())}
    drawn = {name: redrawn(_wide(own[name].detach()), 0.7, generator) for name in first.values()}
    state = {name: drawn[first[id(value)]] for name, value in own.items()}
    for name, view in actions.trace.views.items():
        if view.dims is not None:
            state[name] = state[view.owner].permute(view.dims)
    return state


def _moved_state(model: nn.Module, moved: Moved, actions: Actions, state: State) -> State:
    """The transformed entries, equal under all their names."""
    own = model.state_dict(keep_vars=True)
    first = {id(value): name for name, value in reversed(own.items())}
    known = actions.trace.parameters
    return {
        name: moved.entry(first[id(own[name])], value) if first[id(own[name])] in known else value
        for name, value in state.items()
    }


def _wide(value: Tensor) -> Tensor:
    if not is_number(value):
        return value
    return value.to(torch.complex128 if value.is_complex() else torch.float64)


def _values(program: ExportedProgram, state: State, given: Given) -> dict[Node, Any]:
    """The results of all operations that run, in wide types."""
    inputs = iter(pytree.tree_leaves((given.args, dict(given.kwargs))))
    specs = {spec.arg.name: spec for spec in program.graph_signature.input_specs}
    results: dict[Node, Any] = {}
    default = torch.get_default_dtype()
    saved = torch.default_generator.get_state()
    torch.set_default_dtype(torch.float64)
    torch.default_generator.manual_seed(0)
    try:
        with torch.no_grad():
            for node in program.graph.nodes:
                if node.op == "placeholder":
                    results[node] = _given(program, specs[node.name], state, inputs)
                elif node.op == "call_function" and all(n in results for n in node.all_input_nodes):
                    _run(node, results)
    finally:
        torch.set_default_dtype(default)
        torch.default_generator.set_state(saved)
    return results


def _given(program: ExportedProgram, spec: Any, state: State, inputs: Any) -> Any:
    if spec.kind == InputKind.USER_INPUT:
        value = next(inputs)
    elif spec.target in state:
        value = state[spec.target]
    else:
        value = program.constants.get(spec.target)
    return _wide(value) if isinstance(value, Tensor) else value


def _run(node: Node, results: dict[Node, Any]) -> None:
    """Adds a result; none where the operation stands for a module or does not run in wide types."""
    args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), lambda n: results[n])
    args, kwargs = pytree.tree_map(_widened, (args, kwargs))
    try:
        results[node] = node.target(*args, **kwargs)  # type: ignore[operator]
    except Exception:  # whatever the operation raises
        return


def _widened(leaf: Any) -> Any:
    return torch.float64 if isinstance(leaf, torch.dtype) and leaf in _NARROW else leaf
