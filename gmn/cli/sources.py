"""Builds the modules and reads the weights that a command line names."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import converters
from converters.states.chains import Sine
from converters.states.pretrained import rename_state
from gmn import registry
from gmn.cli.errors import UserError
from gmn.graph import ParameterGraph
from gmn.spec import GraphSpec
from gmn.values import is_finite

_INPUT = re.compile(r"(?:(\w+)=)?(\d+(?:x\d+)*|)(?::(\w+))?(?:<(\d+))?")


@dataclass(frozen=True)
class Named:
    """A module and its example inputs.

    Attributes:
        module: the network.
        inputs: positional inputs.
        keywords: inputs by name.
    """

    module: nn.Module
    inputs: tuple[Any, ...]
    keywords: dict[str, Any] = field(default_factory=dict)


ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "elu": nn.ELU,
    "leaky-relu": nn.LeakyReLU,
    "sigmoid": nn.Sigmoid,
    "sine": Sine,
}


def device(name: str) -> torch.device:
    """The device of a name, checked.

    Raises:
        UserError: if it is not there.
    """
    try:
        chosen = torch.device(name)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise UserError(f"--device {name}: {str(error).splitlines()[0]}") from error
    return chosen


def named_module(name: str, shapes: Sequence[str] | None) -> Named:
    """The module and example inputs that the user means.

    Args:
        name: a built-in example or ``module:factory``.
        shapes: of the example inputs, as ``1x3x32x32``, ``2x7:int64<100`` or ``mask=2x7:bool``;
            None for those that come with the module.

    Raises:
        UserError: if there is no such module, or it comes without inputs.
    """
    from gmn.examples import EXAMPLES

    made = EXAMPLES[name]() if name in EXAMPLES else _call_factory(name)
    module, inputs = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(module, nn.Module):
        raise UserError(
            f"{name} gave a {type(module).__name__}, not a torch.nn.Module or a pair (module, "
            "inputs)"
        )
    if shapes:
        given = [_input(text) for text in shapes]
        by_name = {key: value for key, value in given if key}
        return Named(module, tuple(value for key, value in given if not key), by_name)
    if inputs is None:
        raise UserError(f"{name} gave no example inputs; add --input 1x3x32x32, once per input")
    if isinstance(inputs, Mapping):
        return Named(module, (), dict(inputs))
    return Named(module, (inputs,) if isinstance(inputs, Tensor) else tuple(inputs))


def load_weights(module: nn.Module, spec: GraphSpec, path: Path, key: str | None) -> None:
    """Puts a checkpoint's weights into a module.

    Args:
        module: a module of the architecture ``spec``.
        spec: the architecture.
        path: path of the checkpoint.
        key: where in the file the state dict lies; None to find it.

    Raises:
        converters.CheckpointError: if the checkpoint cannot be read.
        UserError: if it does not fit the module.
    """
    checkpoint = converters.read_checkpoint(path, key=key)
    state = converters.fit_state(spec, checkpoint.state, [checkpoint.prefix])
    module.load_state_dict(_graph(spec, state, path).to_state_dict())


def convert(
    paths: Sequence[Path],
    model: str | None,
    hf: Path | None,
    timm: str | None,
    shapes: Sequence[str] | None,
    key: str | None,
    activation: str | None,
) -> tuple[ParameterGraph, list[str]]:
    """The graph of checkpoints of one architecture, and a report on how they were read.

    Args:
        paths: of the checkpoints; may be empty if ``hf`` is given, whose weights are then taken.
        model: a built-in example or ``module:factory``.
        hf: a folder of transformers.
        timm: a name of a timm model.
        shapes: shapes of the example inputs.
        key: where in the files the state dicts lie; None to find them.
        activation: of a bare chain of layers.

    Raises:
        converters.CheckpointError: if a checkpoint cannot be read.
        UserError: if one does not fit, or the arguments contradict one another.
    """
    if sum(source is not None for source in (model, hf, timm)) > 1:
        raise UserError("give one of --model, --hf and --timm")
    paths = paths or ([hf] if hf is not None else [])
    if not paths:
        raise UserError("name at least one checkpoint, or a folder with --hf")
    bare = model is None and hf is None and timm is None
    if activation is not None and not bare:
        raise UserError("--activation is for checkpoints without a model")
    checkpoints = [converters.read_checkpoint(path, key=key) for path in paths]
    report = [f"{path}: {checkpoint}" for path, checkpoint in zip(paths, checkpoints, strict=True)]
    if bare:
        chain = _chain(checkpoints[0].state, activation, shapes)
        named = Named(chain.module, chain.inputs)
        report.append(str(chain))
    else:
        named = _architecture(model, hf, timm, shapes)
    spec = converters.trace(named.module, named.inputs, named.keywords)
    graphs = []
    for path, checkpoint in zip(paths, checkpoints, strict=True):
        state = rename_state(spec, named.module, checkpoint)
        graphs.append(_graph(spec, state, path))
    graph = ParameterGraph.cat(graphs) if len(graphs) > 1 else graphs[0]
    return graph, [*report, *spec.unknown, *_not_finite(graph)]


def _not_finite(graph: ParameterGraph) -> list[str]:
    """Notes on values that are kept as they are, though they are no numbers to compute with."""
    on_graph = {edges.parameter for edges in graph.spec.edge_sets}
    return [
        f"{entry.name} holds "
        + (
            "minus infinity: it is read as a mask, and kept as it is"
            if entry.name in on_graph
            else "NaN or infinity: it is not on the graph, and kept as it is"
        )
        for entry in graph.spec.entries
        if not is_finite(graph.values[entry.name])
    ]


def _chain(
    state: dict[str, Tensor], activation: str | None, shapes: Sequence[str] | None
) -> converters.Chain:
    if shapes:
        raise UserError("--input is for --model and --timm: a bare chain of layers needs none")
    if activation is not None and activation not in ACTIVATIONS:
        raise UserError(f"no activation is called {activation!r}; known: {', '.join(ACTIVATIONS)}")
    return converters.infer_chain(state, ACTIVATIONS[activation]() if activation else None)


def _architecture(
    model: str | None, hf: Path | None, timm: str | None, shapes: Sequence[str] | None
) -> Named:
    if model is not None:
        return named_module(model, shapes)
    if hf is not None:
        if shapes:
            raise UserError("--input is for --model and --timm: a configuration tells the inputs")
        return Named(*converters.from_config(hf))
    assert timm is not None
    module, inputs = converters.from_timm(timm)
    if shapes:
        inputs = tuple(_input(text)[1].to("meta") for text in shapes)
    return Named(module, inputs)


def _graph(spec: GraphSpec, state: dict[str, Tensor], path: Path) -> ParameterGraph:
    try:
        return ParameterGraph.from_state_dicts(spec, [state])
    except ValueError as error:
        raise UserError(f"{path}: {str(error).removeprefix('network 0: ')}") from error


def _call_factory(name: str) -> Any:
    from gmn.examples import EXAMPLES

    _, colon, factory = name.partition(":")
    if not colon:
        raise UserError(
            f"{name} is neither a built-in example ({', '.join(EXAMPLES)}) nor module:factory"
        )
    make = registry.attribute(name)
    if isinstance(make, nn.Module):
        return make
    if needed := _needed(make):
        raise UserError(
            f"{name} cannot be called without {', '.join(needed)}; write a function without "
            f"arguments that returns (module, inputs), such as "
            f"def make(): return {factory}(...), (torch.zeros(1, 3),)"
        )
    return make()


def _needed(make: Any) -> list[str]:
    """Required arguments of a factory."""
    try:
        parameters = inspect.signature(make).parameters.values()
    except (TypeError, ValueError):  # a few builtins do not say
        return []
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [p.name for p in parameters if p.default is p.empty and p.kind not in several]


def _input(text: str) -> tuple[str, Tensor]:
    """An example input and its name, if it has one: ``[NAME=]SHAPE[:TYPE][<BOUND]``."""
    match = _INPUT.fullmatch(text)
    kind = getattr(torch, match[3] or "float32", None) if match else None
    if match is None or not isinstance(kind, torch.dtype) or (match[4] and int(match[4]) < 1):
        raise UserError(
            f"{text!r} is not a shape such as 1x3x32x32, with a type 2x7:int64<100 (whole numbers "
            "below 100), with a name mask=2x7:bool. For other inputs, write a function without "
            "arguments that returns (module, inputs)"
        )
    shape = [int(size) for size in match[2].split("x")] if match[2] else []
    if kind.is_floating_point or kind.is_complex:
        wide = torch.complex64 if kind.is_complex else torch.float32
        return match[1] or "", torch.randn(shape, dtype=wide).to(kind)
    if kind == torch.bool:
        return match[1] or "", torch.ones(shape, dtype=kind)
    return match[1] or "", torch.randint(int(match[4] or 2), shape, dtype=kind)
