"""What the converter makes of one model: a row that grows as it is measured.

The oracle is the model: elements of the claimed group act on random weights, and the module itself
is run in float64 on inputs that it was not traced with.
"""

from __future__ import annotations

import copy
import inspect
import math
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode

import converters
import gmn
from benchmarks.coverage.examples import Model
from gmn import symmetry
from tests.vision import measured

TOLERANCE = 1e-7
TRIALS = 3
Row = dict[str, Any]


def rows(build: Callable[[], Model]) -> Iterator[Row]:
    """Builds and measures a model; every yield adds to its row.

    The key ``stage`` tells what comes next, so a process that is stopped has said where.

    Args:
        build: makes the model.
    """
    yield {"stage": "build"}
    start = time.process_time()
    model = build()
    randomise(model)
    yield {"seconds.build": time.process_time() - start, "stage": "export", **_size(model.module)}
    inputs = model.inputs(1)
    program, seconds = _timed(lambda: _export(model.module, inputs))
    yield {"seconds.export": seconds, "operations": _operations(program), "stage": "functional"}
    yield {**_functional(program), "stage": "trace"}
    spec, seconds = _timed(lambda: _trace(model.module, inputs, experiment=False))
    yield {"seconds.trace": seconds, **described(spec), "stage": "experiment"}
    if takes_experiment():
        spec, seconds = _timed(lambda: _trace(model.module, inputs, experiment=True))
        yield {"seconds.experiment": seconds, **described(spec)}
    yield {"stage": "round trip"}
    yield {"round_trip": round_trip(model.module, spec), "stage": "soundness"}
    start = time.process_time()
    yield from soundness(model, spec)
    yield {"seconds.soundness": time.process_time() - start, "stage": "done"}


def randomise(model: Model) -> None:
    """Draws every weight, of a size that keeps signals alive; statistics follow the inputs."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in model.module.parameters():
            if weight.is_floating_point() and weight.numel():
                noise = torch.randn(weight.shape, generator=generator).to(weight)
                alike = bool((weight == weight.flatten()[0]).all())
                if weight.dim() < 2 or alike:
                    weight.add_(0.3 * noise)
                else:
                    weight.copy_(noise / math.sqrt(weight[0].numel()))
        for name, buffer in model.module.named_buffers():
            if name.endswith("running_mean"):
                buffer.add_(0.1 * torch.randn(buffer.shape, generator=generator))
            elif name.endswith("running_var"):
                buffer.mul_(1 + 0.5 * torch.rand(buffer.shape, generator=generator))
    measured(model.module, model.inputs(0))


def _size(module: nn.Module) -> Row:
    floating = [p for p in module.parameters() if p.is_floating_point() or p.is_complex()]
    return {"built": True, "parameters": sum(p.numel() for p in floating)}


def _timed(function: Callable[[], Any]) -> tuple[Any, float]:
    """The function's result and the seconds of CPU time it took: others may use the machine."""
    start = time.process_time()
    result = function()
    return result, time.process_time() - start


def _export(module: nn.Module, inputs: tuple[Tensor, ...]) -> torch.export.ExportedProgram:
    with torch.no_grad():
        return torch.export.export(module, inputs, strict=False)


def _operations(program: torch.export.ExportedProgram) -> dict[str, int]:
    calls = (node for node in program.graph.nodes if node.op == "call_function")
    return dict(Counter(_name(node.target) for node in calls))


def _name(target: object) -> str:
    """The operation with its namespace, without overload."""
    name = getattr(target, "name", None)
    if callable(name):
        return str(name()).partition(".")[0]
    return f"python::{getattr(target, '__name__', target)}"


def _functional(program: torch.export.ExportedProgram) -> Row:
    """Operations of the program without writes in place; how long it takes to get there."""
    try:
        functional, seconds = _timed(lambda: program.run_decompositions({}))
    except Exception as error:
        return {"functional_error": line(error)}
    return {"seconds.functional": seconds, "functional": _operations(functional)}


def takes_experiment() -> bool:
    """Whether tracing can end with an experiment."""
    return "experiment" in inspect.signature(converters.trace).parameters


def _trace(module: nn.Module, inputs: tuple[Tensor, ...], experiment: bool) -> gmn.GraphSpec:
    settings = {"experiment": experiment} if takes_experiment() else {}
    return converters.trace(module, inputs, **settings)


def described(spec: gmn.GraphSpec) -> Row:
    """Sizes of the claimed group, how many parameters it reaches, and what has no rule."""
    moving = {axis.name for axis in spec.symmetries.permutations}
    held = [e for e in spec.edge_sets if e.tied_to is None and spec.is_parameter(e)]
    beside = sum(e.size for e in held if any(dim.axis in moving for dim in e.dims))
    group = spec.symmetries
    return {
        "held": sum(edges.size for edges in held),
        "beside_movable": beside,
        "node_sets": len(spec.node_sets),
        **{kind: len(getattr(group, kind)) for kind in symmetry.KINDS},
        "unknown": dict(Counter(map(unruled, spec.unknown))),
        "reports": list(spec.unknown[:8]),
    }


def unruled(report: str) -> str:
    """The operation that a report of ``spec.unknown`` names, with its namespace if it has one."""
    found = re.search(r"([\w.:]+) has no rule", report)
    if found is None:
        return report[:80]
    parts = found[1].replace("::", ".").split(".")
    return "::".join(parts[:2]) if len(parts) > 1 else parts[0]


def round_trip(module: nn.Module, spec: gmn.GraphSpec) -> bool:
    """Whether a state dict comes back from its graph with the same bits."""
    state = {name: value.detach() for name, value in module.state_dict().items()}
    back = gmn.ParameterGraph.from_state_dicts(spec, [state]).to_state_dict()
    return list(back) == list(state) and all(
        back[name].dtype == value.dtype and torch.equal(back[name], value)
        for name, value in state.items()
    )


# --- soundness ----------------------------------------------------------------------------------


def soundness(model: Model, spec: gmn.GraphSpec) -> Iterator[Row]:
    """Elements of the whole group, then of its kinds, then single generators where those fail."""
    oracle = Oracle(model)
    noise = oracle.noise()
    yield {"noise": noise, "sensitivity": oracle.sensitivity()}
    limit = max(TOLERANCE, 100 * noise)
    generator = torch.Generator().manual_seed(5)
    whole = oracle.worst(partial(symmetry.sample, spec, generator))
    yield {"error": whole, "sound": whole <= limit, "false": {}}
    if whole <= limit:
        return
    false: dict[str, float] = {}
    for kind in symmetry.KINDS:
        error = oracle.worst(partial(symmetry.sample, spec, generator, symmetries=(kind,)))
        yield {f"error.{kind}": error}
        if error > limit:
            for part in getattr(spec.symmetries, kind):
                single = oracle.worst(partial(symmetry.only, spec, part.name, generator))
                if single > limit:
                    detail = getattr(part, "domain", getattr(part, "group", ""))
                    false[f"{kind} {detail} {part.name}".replace("  ", " ")] = single
                    yield {"false": false}


class Oracle:
    """The module itself in float64, run with other weights on inputs it was not traced with."""

    def __init__(self, model: Model) -> None:
        self._module = copy.deepcopy(model.module).double()
        self._tensors = {
            id(each): each for each in (*self._module.parameters(), *self._module.buffers())
        }
        inputs = [model.inputs(seed) for seed in (21, 22)]
        factors = (1.0, 1.7)
        self._inputs = [
            tuple(f * v.double() if v.is_floating_point() else v for v in each)
            for f, each in zip(factors, inputs, strict=True)
        ]
        self.state = {name: value.detach() for name, value in self._module.state_dict().items()}
        self._expected = self._outputs(self.state)
        self._size = max((_most(each) for each in self._expected), default=0.0)

    def _outputs(self, state: Mapping[str, Tensor]) -> list[Tensor]:
        """The outputs of a module that never ran: some keep what they computed from weights."""
        result: list[Tensor] = []
        for inputs in self._inputs:
            torch.manual_seed(0)
            module = copy.deepcopy(self._module, dict(self._tensors))
            with torch.no_grad(), _Float64():
                result += functional_call(module, dict(state), inputs, tie_weights=False)
        return result

    def error(self, state: Mapping[str, Tensor]) -> float:
        """Largest change of an output tensor, relative to its largest entry."""
        worst = 0.0
        for new, old in zip(self._outputs(state), self._expected, strict=True):
            if not torch.equal(new.isfinite(), old.isfinite()):
                return math.inf
            size = max(_most(old), 1e-8 * self._size)
            change = _most(new - old)
            worst = max(worst, change / size if size else change)
        return worst

    def worst(self, draw: Callable[[], symmetry.Element]) -> float:
        """The largest error over some elements."""
        return max(self.error(draw().act(self.state)) for _ in range(TRIALS))

    def noise(self) -> float:
        """The change that rounding makes: of weights that change in their last digits."""
        return self._nudged(1e-15)

    def sensitivity(self) -> float:
        """The change that other weights make: without one, nothing false could be seen."""
        return self._nudged(0.3)

    def _nudged(self, size: float) -> float:
        generator = torch.Generator().manual_seed(9)
        state = dict(self.state)
        for name, weight in self._module.named_parameters():
            if weight.is_floating_point():
                noise = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
                state[name] = weight.detach() * (1 + size * noise.to(weight))
        for name, parameter in self._module.named_parameters(remove_duplicate=False):
            state[name] = state[self._first(parameter)]
        return self.error(state)

    def _first(self, parameter: Tensor) -> str:
        return next(name for name, each in self._module.named_parameters() if each is parameter)


def _most(tensor: Tensor) -> float:
    finite = tensor[tensor.isfinite()]
    return float(finite.abs().max()) if finite.numel() else 0.0


class _Float64(TorchFunctionMode):
    """Keeps float64 where a module casts to less, which would hide the size of errors."""

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if function in (Tensor.float, Tensor.half, Tensor.bfloat16):
            return args[0].double()
        wider = dict.fromkeys((torch.float32, torch.float16, torch.bfloat16), torch.float64)
        args = tuple(wider.get(a, a) if isinstance(a, torch.dtype) else a for a in args)
        named = {
            k: wider.get(v, v) if isinstance(v, torch.dtype) else v
            for k, v in (kwargs or {}).items()
        }
        return function(*args, **named)


def line(error: BaseException) -> str:
    """Type and first line of an error."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:300]}"
