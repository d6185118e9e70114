"""Builds the modules and reads the weights that a command line names."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain as chain_of
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

import converters
from converters.states.chains import Sine
from converters.states.pretrained import rename_state
from gmn import registry
from gmn.cli.errors import UserError
from gmn.foundation.devices import require_device
from gmn.graph import ParameterGraph, StateDictError
from gmn.graph.files import load
from gmn.graph.streaming import GraphWriter
from gmn.graph.values import is_finite
from gmn.spec import GraphSpec

_INPUT = re.compile(r"(?:(\w+)=)?(\d+(?:x\d+)*|)(?::(\w+))?(?:<(\d+))?")


FEW = 20  # files that are reported one by one


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
        ArgumentError: if it is not there.
    """
    return require_device("--device", name)


def named_module(name: str, shapes: Sequence[str] | None) -> Named:
    """The module and example inputs that the user means.

    Args:
        name: a built-in example or ``module:factory``.
        shapes: of the example inputs, as ``1x3x32x32``, ``2x7:int64<100`` or ``mask=2x7:bool``;
            None for those that come with the module.

    Raises:
        UserError: if there is no such module, or it comes without inputs.
    """
    from gmn.cli.examples import EXAMPLES

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
        StateDictError: if it does not fit the module.
    """
    checkpoint = converters.read_checkpoint(path, key=key)
    state = converters.fit_state(spec, checkpoint.state, [checkpoint.prefix])
    module.load_state_dict(_graph(spec, state, path).to_state_dict())


def convert(
    paths: Sequence[Path],
    out: Path,
    model: str | None,
    hf: Path | None,
    timm: str | None,
    shapes: Sequence[str] | None,
    key: str | None,
    activation: str | None,
) -> tuple[list[str], list[str]]:
    """Writes the graph of checkpoints of one architecture, one after the other.

    A checkpoint that cannot be used does not stop the others.

    Args:
        paths: of the checkpoints; may be empty if ``hf`` is given, whose weights are then taken.
        out: folder of the graph.
        model: a built-in example or ``module:factory``.
        hf: a folder of transformers.
        timm: a name of a timm model.
        shapes: shapes of the example inputs.
        key: where in the files the state dicts lie; None to find them.
        activation: of a bare chain of layers.

    Returns:
        A report on how they were read, and why others could not be used.

    Raises:
        converters.CheckpointError: if none can be used.
        UserError: if the arguments contradict one another.
        OutputError: if the folder cannot be written.
    """
    if sum(source is not None for source in (model, hf, timm)) > 1:
        raise UserError("give one of --model, --hf and --timm")
    paths = paths or ([hf] if hf is not None else [])
    if not paths:
        raise UserError("name at least one checkpoint, or a folder with --hf")
    bare = model is None and hf is None and timm is None
    if activation is not None and not bare:
        raise UserError("--activation is for checkpoints without a model")
    bad: list[str] = []
    read = _readable(paths, key, bad)
    first = next(read, None)
    if first is None:
        raise converters.CheckpointError("; ".join(bad))
    about = []
    if bare:
        chain = _chain(first[1].state, activation, shapes)
        named, about = Named(chain.module, chain.inputs), [str(chain)]
    else:
        named = _architecture(model, hf, timm, shapes)
    spec = converters.trace(named.module, named.inputs, named.keywords)
    report = []
    with GraphWriter(spec, out) as writer:
        for path, checkpoint in tqdm(
            chain_of([first], read), total=len(paths), unit="file", disable=len(paths) < FEW
        ):
            try:
                writer.add(_graph(spec, rename_state(spec, named.module, checkpoint), path))
            except (converters.CheckpointError, StateDictError, UserError) as error:
                bad.append(_of(path, error))
            else:
                report.append(f"{path}: {checkpoint}")
        if not report:
            raise converters.CheckpointError("; ".join(bad))
        writer.finish()
    return [*_some(report), *about, *spec.unknown, *_not_finite(load(out))], bad


def _readable(
    paths: Sequence[Path], key: str | None, bad: list[str]
) -> Iterator[tuple[Path, converters.Checkpoint]]:
    """The checkpoints one by one, as a file stays open while its weights are mapped."""
    for path in paths:
        try:
            yield path, converters.read_checkpoint(path, key=key)
        except (converters.CheckpointError, OSError) as error:
            bad.append(_of(path, error))


def _of(path: Path, error: Exception) -> str:
    return f"{path}: {str(error).removeprefix(f'{path}: ')}"


def _some(report: list[str]) -> list[str]:
    """All lines if they are few, else the first and how many more there are."""
    if len(report) < FEW:
        return report
    return [*report[:3], f"and {len(report) - 3} more"]


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
    except StateDictError as error:
        raise StateDictError(f"{path}: {str(error).removeprefix('network 0: ')}") from error


def _call_factory(name: str) -> Any:
    from gmn.cli.examples import EXAMPLES

    _, colon, factory = name.partition(":")
    if not colon:
        raise UserError(
            f"{name} is neither a built-in example ({', '.join(EXAMPLES)}) nor module:factory"
        )
    try:
        make = registry.attribute(name)
    except Exception as error:  # the user's module may raise anything
        raise UserError(f"{name}: {str(error).removeprefix(f'{name}: ')}") from error
    if isinstance(make, nn.Module):
        return make
    if needed := _needed(make):
        raise UserError(
            f"{name} cannot be called without {', '.join(needed)}; write a function without "
            f"arguments that returns (module, inputs), such as "
            f"def make(): return {factory}(...), (torch.zeros(1, 3),)"
        )
    try:
        return make()
    except Exception as error:  # and so may the function
        raise UserError(f"{name}() raised {type(error).__name__}: {error}") from error


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
    sizes = [int(size) for size in match[2].split("x")] if match and match[2] else []
    bounded = match is not None and (not match[4] or int(match[4]) > 0)
    if match is None or not bounded or 0 in sizes or not isinstance(kind, torch.dtype):
        raise UserError(
            f"{text!r} is not a shape such as 1x3x32x32, with a type 2x7:int64<100 (whole numbers "
            "below 100), with a name mask=2x7:bool. For other inputs, write a function without "
            "arguments that returns (module, inputs)"
        )
    if kind.is_floating_point or kind.is_complex:
        wide = torch.complex64 if kind.is_complex else torch.float32
        return match[1] or "", torch.randn(sizes, dtype=wide).to(kind)
    if kind == torch.bool:
        return match[1] or "", torch.ones(sizes, dtype=kind)
    return match[1] or "", torch.randint(int(match[4] or 2), sizes, dtype=kind)
