"""Holds claimed symmetries against the module itself; nothing here asks the library.

Every generator of the claimed group acts alone on random weights, and the module runs on inputs of
other sizes and magnitudes than it was traced with. All of it is float64 (`doubles`), so what is
claimed rightly holds to rounding. Not every difference is a fault, though:

* numbers: outputs that stop being finite or already are not are left out of the comparison of
  their magnitudes, but have to stay where they are;
* chaos: where relative noise of 1e-9 on the weights changes the outputs by more than 1e-6, rounding
  decides them (the sign of a sum that is zero, a norm of zeros): nothing can be learned there;
* ties: which of equal numbers `argmax`, `topk` or `sort` calls the first depends on their order.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

import converters
from gmn import symmetry
from gmn.spec import GraphSpec

TOLERANCE = 1e-7
_NOISE, _CHAOS = 1e-9, 1e-6
State = dict[str, Tensor]


@dataclass(frozen=True)
class Move:
    """A generator of the claimed group that acted on weights.

    Attributes:
        kind: "permutation", "positive", "sign", "phase", "orthogonal", "general" or "shift".
        name: of the axis, scaling, gauge or translation.
        state: the weights that it made.
    """

    kind: str
    name: str
    state: State

    def moved(self, before: State) -> set[str]:
        """Entries that it changed."""
        return {name for name, value in before.items() if not same(value, self.state[name])}

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


@contextmanager
def doubles() -> Iterator[None]:
    """New tensors are float64 inside: modules built in it need no conversion, and stay tied."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.set_default_dtype(before)


def inferred(model: nn.Module, inputs: tuple[Any, ...]) -> GraphSpec:
    """The spec as inference alone finds it: without the experiment that drops false claims."""
    return converters.trace(model, inputs, experiment=False)


def random_state(model: nn.Module, seed: int) -> State:
    """Draws the module's weights and running statistics; a copy of its state dict."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.is_floating_point() or weight.is_complex():
                noise = torch.randn(weight.shape, generator=generator, dtype=_drawable(weight))
                weight.copy_(0.7 * noise)
        for name, value in model.named_buffers():
            if "running_mean" in name:
                value.copy_(torch.randn(value.shape, generator=generator))
            elif "running_var" in name:
                value.copy_(torch.rand(value.shape, generator=generator) + 0.3)
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def outputs(model: nn.Module, state: State, inputs: tuple[Any, ...]) -> list[Tensor]:
    """The tensors that the module itself returns with these weights."""
    state = {name: value.clone() for name, value in state.items()}
    inputs = tuple(x.clone() if isinstance(x, Tensor) else x for x in inputs)
    torch.manual_seed(0)  # for modules that draw numbers
    with torch.no_grad():
        storages = [weight.untyped_storage().data_ptr() for weight in model.parameters()]
        if len({*storages}) < len(storages):  # views of one another: only loading keeps them so
            model.load_state_dict(state)
            result = model(*inputs)
        else:
            result = functional_call(model, state, inputs, tie_weights=False)
    return [value for value in tree_leaves(result) if isinstance(value, Tensor)]


def change(new: Sequence[Tensor], old: Sequence[Tensor]) -> float:
    """The largest change relative to the largest number of the same tensor."""
    return max((_change(*both) for both in zip(new, old, strict=True)), default=0.0)


def same(one: Tensor, two: Tensor) -> bool:
    """Whether two tensors hold the same numbers, NaN included."""
    if one.dtype.itemsize == 1 and one.is_floating_point():  # float8 cannot be compared
        one, two = one.float(), two.float()
    return torch.equal(one.isnan(), two.isnan()) and torch.equal(one.nan_to_num(), two.nan_to_num())


def moves(
    spec: GraphSpec, state: State, generator: torch.Generator, permutations: bool = True
) -> Iterator[Move]:
    """Every generator of the claimed group alone, acting on weights, then all of them at once."""
    group = spec.symmetries
    parts = [("permutation", axis.name) for axis in group.permutations if permutations]
    parts += [(scaling.domain, scaling.name) for scaling in group.scalings]
    parts += [(gauge.group, gauge.name) for gauge in group.gauges]
    parts += [("shift", translation.name) for translation in group.translations]
    parts += [("exchange", exchange.name) for exchange in group.exchanges]
    for kind, name in parts:
        for _ in range(20):  # until it is not the identity
            move = Move(kind, name, symmetry.only(spec, name, generator).act(state))
            if move.moved(state):
                break
        yield move
    kinds = [kind for kind in symmetry.KINDS if permutations or kind != "permutations"]
    whole = symmetry.sample(spec, generator, symmetries=kinds).act(state)
    yield Move("all", "generators", whole)


def errors(
    model: nn.Module, state: State, inputs: Sequence[tuple[Any, ...]], tried: Sequence[Move]
) -> list[float]:
    """How much each move changes the function, over all inputs that can tell."""
    before = [outputs(model, state, x) for x in inputs]
    return [
        max(
            (_error(model, state, move.state, x, y) for x, y in zip(inputs, before, strict=True)),
            default=0.0,
        )
        for move in tried
    ]


def _error(
    model: nn.Module, state: State, moved: State, inputs: tuple[Any, ...], before: list[Tensor]
) -> float:
    error = change(outputs(model, moved, inputs), before)
    if error <= TOLERANCE or _can_tell(model, state, inputs, before):
        return error
    return 0.0


def _can_tell(
    model: nn.Module, state: State, inputs: tuple[Any, ...], before: list[Tensor]
) -> bool:
    """Whether the function is not decided by rounding, or by the order of equal numbers, here."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(4):
        noisy = {name: _noisy(value, generator) for name, value in state.items()}
        if not change(outputs(model, noisy, inputs), before) <= _CHAOS:
            return False
    with _Ties() as ties:
        outputs(model, state, inputs)
    return not ties.found


class _Ties(TorchFunctionMode):
    """Notes whether numbers that are put in order, or searched for the largest, are equal."""

    found = False
    ordering = ("argmax", "argmin", "argsort", "sort", "topk", "max", "min")

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] = {}
    ) -> Any:
        if getattr(func, "__name__", "") in self.ordering:
            values, dim = args[0], kwargs.get("dim", args[-1] if len(args) > 1 else None)
            if func.__name__ == "topk":
                dim = kwargs.get("dim", args[2] if len(args) > 2 else -1)
            if isinstance(dim, int) and values.dim() and not isinstance(dim, bool):
                order = values.movedim(dim, -1).flatten(0, -2) if values.dim() > 1 else values
                gaps = torch.from_numpy(order.detach().numpy().copy()).sort(-1).values.diff()
                self.found = self.found or bool((gaps == 0).any())
        return func(*args, **dict(kwargs))


def _noisy(value: Tensor, generator: torch.Generator) -> Tensor:
    if not value.is_floating_point() or value.dtype.itemsize == 1:
        return value
    noise = torch.randn(value.shape, generator=generator, dtype=value.dtype)
    return value * (1 + _NOISE * noise)


def _drawable(weight: Tensor) -> torch.dtype:
    return torch.float32 if weight.dtype.itemsize == 1 else weight.dtype


def _change(new: Tensor, old: Tensor) -> float:
    if not old.numel():
        return 0.0
    if new.shape != old.shape or not torch.equal(new.isfinite(), old.isfinite()):
        return float("inf")
    new, old = (value.masked_fill(~old.isfinite(), 0) for value in (new, old))
    size, difference = float(old.abs().max()), float((new - old).abs().max())
    return difference / size if size else difference
