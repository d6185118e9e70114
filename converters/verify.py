"""The certificate: proof by experiment that a spec's symmetries preserve the function."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from gmn import symmetry
from gmn.spec import Axis, GraphSpec

from .trace import evaluation, trace

TOLERANCE = 1e-8


@dataclass(frozen=True)
class Certificate:
    """What happened to the outputs when weights moved along the group.

    Errors are relative: largest change of any output entry over the largest output entry.

    Attributes:
        max_error: over random elements of the whole group.
        trials: number of such elements.
        errors: by movable axis, by scaling, gauge and translation, moving it alone.
        missed: ordered axes of hidden neurons whose permutation changed nothing: symmetries that
            the spec does not claim.
        unknown: operations without a rule.
        tolerance: errors up to this are rounding.
    """

    max_error: float
    trials: int
    errors: dict[str, float]
    missed: tuple[str, ...]
    unknown: tuple[str, ...]
    tolerance: float = TOLERANCE

    @property
    def ok(self) -> bool:
        """Whether every claimed symmetry preserves the function."""
        return max([self.max_error, *self.errors.values()]) <= self.tolerance

    def to_json(self) -> str:
        """All fields and ``ok`` as JSON text."""
        return json.dumps({"ok": self.ok, **asdict(self)})

    def __str__(self) -> str:
        lines = [
            f"certificate: {'passed' if self.ok else 'FAILED'}; {self.trials} random elements of "
            f"the group change outputs by at most {self.max_error:.1e} (relative, float64)"
        ]
        width = max(map(len, self.errors), default=0)
        for name, error in self.errors.items():
            mark = "" if error <= self.tolerance else "  not a symmetry"
            lines.append(f"  {name.ljust(width)}  {error:.1e}{mark}")
        if self.missed:
            lines.append(f"  ordered, yet free to permute: {', '.join(self.missed)}")
        lines += [f"  {report}" for report in self.unknown]
        return "\n".join(lines)


def verify(
    model: nn.Module,
    example_inputs: tuple[Any, ...],
    spec: GraphSpec | None = None,
    trials: int = 8,
    generator: torch.Generator | None = None,
) -> Certificate:
    """Moves the weights of a copy of the module along its group, in float64, and compares outputs.

    Args:
        model: the network; it is left as it is.
        example_inputs: positional inputs, as for ``torch.export.export``.
        spec: its spec; traced if None.
        trials: number of random elements of the whole group.
        generator: source of randomness, on the CPU; seeded with 0 if None.

    Raises:
        TraceError: if there is no spec and ``torch.export`` cannot follow the module.
        ValueError: if the outputs are not finite, or the module is on the meta device.
    """
    _require_values(model)
    spec = trace(model, example_inputs) if spec is None else spec
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    with evaluation(model):
        run = _Run(model, example_inputs)
        errors = {name: run.error(element) for name, element in _single(spec, generator)}
        whole = [run.error(symmetry.sample(spec, generator)) for _ in range(trials)]
        missed = tuple(
            axis.name
            for axis in _ordered(spec)
            if run.error(_moving(spec, axis.name, generator)) <= TOLERANCE
        )
    return Certificate(max(whole, default=0.0), trials, errors, missed, spec.unknown)


def _require_values(model: nn.Module) -> None:
    tensors = (*model.named_parameters(), *model.named_buffers())
    if (name := next((name for name, tensor in tensors if tensor.is_meta), None)) is not None:
        raise ValueError(
            f"{name} is on the meta device, which holds no values, so the module cannot run; build "
            "it on the CPU and load a checkpoint first (tracing needs neither)"
        )


def _single(spec: GraphSpec, generator: torch.Generator) -> Iterator[tuple[str, symmetry.Element]]:
    group = spec.symmetries
    names = [axis.name for axis in group.permutations]
    names += [symmetry.name for symmetry in group.followed]
    for name in names:
        yield name, _moving(spec, name, generator)


def _moving(spec: GraphSpec, name: str, generator: torch.Generator) -> symmetry.Element:
    """Moves one thing alone, and does: a fair permutation of two leaves them half the time."""
    while True:
        element = symmetry.only(spec, name, generator)
        if not any(map(_is_identity, element.permutations.values())):
            return element


def _is_identity(permutation: Tensor) -> bool:
    return torch.equal(permutation, torch.arange(permutation.shape[-1]).expand_as(permutation))


def _ordered(spec: GraphSpec) -> Iterator[Axis]:
    hidden = {n for nodes in spec.node_sets if nodes.role == "ordered" for n in nodes.axes}
    return (axis for axis in spec.axes if axis.name in hidden and axis.size > 1)


class _Run:
    """A float64 copy of the module, run with other weights."""

    def __init__(self, model: nn.Module, example_inputs: tuple[Any, ...]) -> None:
        self._model = copy.deepcopy(model).double()
        self._inputs = pytree.tree_map(_double, example_inputs)
        self._state = {k: v.detach() for k, v in self._model.state_dict().items()}
        self._tensors = {id(t): t for t in (*self._model.parameters(), *self._model.buffers())}
        self._used = self._copy()
        self._expected = self._outputs(self._used, self._state)
        self._remembers = self._is_stale()
        self._size = max((float(t.abs().max()) for t in self._expected if t.numel()), default=0.0)
        if not all(bool(t.isfinite().all()) for t in self._expected):
            raise ValueError("the module's outputs on the example inputs are NaN or infinite")

    def _copy(self) -> nn.Module:
        """A copy that never ran, with the same tensors."""
        return copy.deepcopy(self._model, dict(self._tensors))

    def _is_stale(self) -> bool:
        """Whether the module keeps what it computed from earlier weights, and answers with that."""
        other = {k: 1.5 * v if v.is_floating_point() else v for k, v in self._state.items()}
        answers = (self._outputs(model, other) for model in (self._used, self._copy()))
        return not all(torch.equal(a, b) for a, b in zip(*answers, strict=True))

    def _outputs(self, model: nn.Module, state: Mapping[str, Tensor]) -> list[Tensor]:
        with torch.no_grad(), _Float64():
            result = functional_call(model, dict(state), self._inputs, tie_weights=False)
        return [t for t in pytree.tree_leaves(result) if isinstance(t, Tensor)]

    def error(self, element: symmetry.Element) -> float:
        """Relative change of the outputs."""
        model = self._copy() if self._remembers else self._used
        moved = self._outputs(model, element.act(self._state))
        pairs = zip(moved, self._expected, strict=True)
        change = max((float((a - b).abs().max()) for a, b in pairs if b.numel()), default=0.0)
        return change / self._size if self._size else change


class _Float64(TorchFunctionMode):
    """Keeps float64 where a module casts to float32, which would hide the size of errors."""

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if function is Tensor.float:
            return args[0].double()
        wider = {torch.float32: torch.float64}
        args = tuple(wider.get(a, a) if isinstance(a, torch.dtype) else a for a in args)
        named = {
            k: wider.get(v, v) if isinstance(v, torch.dtype) else v
            for k, v in (kwargs or {}).items()
        }
        return function(*args, **named)


def _double(value: object) -> object:
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value
