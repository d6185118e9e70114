"""Exports a module to a functional forward graph through ``torch.export``."""

from __future__ import annotations

import dataclasses
import traceback
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node
from torch.fx import config as fx_config
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from ..inference.tracing import TraceError, path_of
from .functional import functional
from .leaves import as_operations
from .normal_form import normalise
from .sizes import UnsettledSize, settle_sizes

_PACKAGES = (Path(__file__).parents[1], Path(torch.__file__).parent)
# Frames of a traceback that are none of the module's: generated code, and what runs the module.
_NOT_THE_MODULE = ("<", *(f"{path}/" for path in (*_PACKAGES, Path(traceback.__file__).parent)))


def export(
    model: nn.Module,
    example_inputs: tuple[Any, ...],
    example_kwargs: Mapping[str, Any] | None = None,
) -> torch.export.ExportedProgram:
    """The function of a module in evaluation mode, as a graph of operations without side effects.

    Operations go by one name each (:mod:`converters.exporting.normal_form`), and sizes that depend
    on values are stand-ins (:mod:`converters.exporting.sizes`). The results are the tensors in what
    the module returns: in tuples, lists, mappings and dataclasses, however nested; other objects,
    such as a ``transformers`` cache, are no results. The program runs on inputs of the example's
    shapes.

    Args:
        model: the network.
        example_inputs: positional inputs, as for ``torch.export.export``.
        example_kwargs: keyword inputs.

    Raises:
        TraceError: if ``torch.export`` cannot follow the module.
    """
    if not isinstance(example_inputs, tuple):
        raise TraceError(
            f"example_inputs is a {type(example_inputs).__name__}; pass a tuple of the module's "
            "positional inputs, such as (torch.zeros(1, 3, 32, 32),)"
        )
    _require_shapes(model)
    try:
        args, kwargs = _beside(model, (example_inputs, dict(example_kwargs or {})))
        with _prepared(model), as_operations(model, args, kwargs), _without_stack_traces():
            with torch.no_grad(), _DataIsDetached():
                program = torch.export.export(model, args, kwargs, strict=False)
            program = functional(program)
    except TraceError:
        raise
    except Exception as error:
        raise TraceError(_explain(model, error)) from error
    if not next(iter(program.graph.find_nodes(op="output"))).all_input_nodes:
        raise TraceError(f"{type(model).__name__}: it returns no tensor, so there is no function")
    normalise(program.graph)
    _settle(model, program)
    program.graph_module.recompile()
    return program


def shape_of_value(node: Node) -> tuple[int, ...]:
    """Shape of an operation's result; empty for what is no tensor."""
    return tuple(int(size) for size in getattr(node.meta.get("val"), "shape", ()))


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


# --- before -------------------------------------------------------------------------------------


def _require_shapes(model: nn.Module) -> None:
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if is_lazy(tensor):
            path, _, entry = name.rpartition(".")
            kind = type(model.get_submodule(path)).__name__
            raise TraceError(
                f"{path or 'model'} ({kind}): {entry} has no shape yet. Run the module once on "
                "example inputs before tracing it; that initialises lazy layers"
            )


def _beside(model: nn.Module, inputs: Any) -> Any:
    """The inputs, on the meta device if the module is there: operations do not mix devices."""
    for value in pytree.tree_leaves(inputs):
        _register(value)
    if not any(parameter.is_meta for parameter in model.parameters()):
        return inputs
    moved: dict[int, Tensor] = {}  # one tensor passed twice stays one: attention looks at that
    return pytree.tree_map_only(
        Tensor, lambda value: moved.setdefault(id(value), value.to("meta")), inputs
    )


def _register(value: object) -> None:
    """Lets torch look into dataclasses that are inputs."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        if type(value) not in pytree.SUPPORTED_NODES:
            pytree.register_dataclass(type(value))
        for field in dataclasses.fields(value):
            for leaf in pytree.tree_leaves(getattr(value, field.name)):
                _register(leaf)


@contextmanager
def _prepared(model: nn.Module) -> Iterator[None]:
    """The module in evaluation mode, returning the tensors of what it returns."""
    with ExitStack() as stack:
        stack.enter_context(evaluation(model))
        stack.enter_context(warnings.catch_warnings())
        # Recurrent layers refresh their list of weights; nothing of it reaches the graph.
        warnings.filterwarnings("ignore", message="The tensor attribute")
        # torch of itself, while it makes a program functional.
        warnings.filterwarnings("ignore", message=r"`isinstance\(treespec", category=FutureWarning)
        hook = model.register_forward_hook(lambda module, _, result: tuple(tensors_of(result)))
        stack.callback(hook.remove)
        yield


def tensors_of(result: object) -> Iterator[Tensor]:
    """The tensors in what a module returns, in their order; other objects are no results."""
    if isinstance(result, Tensor):
        yield result
    elif isinstance(result, Mapping):
        for part in result.values():
            yield from tensors_of(part)
    elif isinstance(result, (list, tuple)):
        for part in result:
            yield from tensors_of(part)
    elif dataclasses.is_dataclass(result) and not isinstance(result, type):
        for field in dataclasses.fields(result):
            yield from tensors_of(getattr(result, field.name))
    elif type(result) in pytree.SUPPORTED_NODES:
        for part in pytree.tree_leaves(result):
            yield from tensors_of(part)


@contextmanager
def _without_stack_traces() -> Iterator[None]:
    """Nobody reads where each operation was called, and to note it is a tenth of the time."""
    before = getattr(fx_config, "do_not_emit_stack_traces", False)
    fx_config.do_not_emit_stack_traces = True
    try:
        yield
    finally:
        fx_config.do_not_emit_stack_traces = before


class _DataIsDetached(TorchFunctionMode):
    """Reads ``tensor.data`` as ``tensor.detach()``, which exporters can follow."""

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if getattr(function, "__self__", None) is Tensor.data and function.__name__ == "__get__":
            return args[0].detach()
        return function(*args, **(kwargs or {}))


# --- after --------------------------------------------------------------------------------------


def _settle(model: nn.Module, program: torch.export.ExportedProgram) -> None:
    try:
        settle_sizes(program.graph)
    except UnsettledSize as error:
        raise TraceError(
            f"{path_of(error.node)}: {error}, and no size fits what the module does with it. "
            f"Give {type(model).__name__}, or the module inside it that is to blame, a rule with "
            "converters.register(its class, rule), or write it without such sizes"
        ) from error


def _explain(model: nn.Module, error: Exception) -> str:
    if isinstance(error, GuardOnDataDependentSymNode):
        reason = "what it does next depends on the values of its inputs"
    else:
        first = (str(error).strip().splitlines() or [""])[0]
        reason = f"{type(error).__name__}: {first.rstrip('.')}"
    return (
        f"{type(model).__name__}: torch.export cannot follow it{_line_of(error)}: {reason}. Check "
        "that the module runs on the example inputs and that its control flow does not depend on "
        "their values; a module inside it that is to blame can be given a rule with "
        "converters.register(its class, rule)."
    )


def _line_of(error: Exception) -> str:
    """The line of the module's code that led to the error."""
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.line and not frame.filename.startswith(_NOT_THE_MODULE)
    ]
    last = frames[-1] if frames else None
    return f" ({Path(last.filename).name}, line {last.lineno}: {last.line})" if last else ""
