"""The forward function of an architecture as data, run for many networks at once.

A :class:`Program` is the exported graph without its weights: it takes them from a state dict, so
one program runs every network of its spec, and ``torch.vmap`` runs a batch of them together. What
it observes on the way are the values that pass each node set: a metanetwork that chooses its own
inputs can look at every neuron's answer to them.
"""

from __future__ import annotations

import json
import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from gmn.errors import UnsupportedArchitecture

DEFAULT = "default"  # stands for the floating-point type of the run
# Strides depend on how operations before were run; where a view is possible, this gives one, too.
INSTEAD = {"view.default": "reshape.default"}
TOUCHES_FILES = ("from_file",)  # a program may come from anywhere; it computes, no more


class ProgramError(UnsupportedArchitecture):
    """A program cannot run; the message says why."""


@dataclass(frozen=True)
class Input:
    """An input of the network.

    Attributes:
        name: name of the value.
        shape: of the example that was traced.
        dtype: ``default`` for floating-point numbers, else the name of the type.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class Lookup:
    """A value that is an entry of the state dict."""

    name: str
    entry: str


@dataclass(frozen=True)
class Constant:
    """A value that belongs to the architecture, as JSON text of nested lists."""

    name: str
    dtype: str
    numbers: str


@dataclass(frozen=True)
class Call:
    """An operation.

    Attributes:
        name: name of its result.
        operation: such as ``linear.default``, an overload of ``torch.ops.aten``; or ``getitem``.
        arguments: JSON text of a list and an object; ``{"value": name}`` stands for a result.
    """

    name: str
    operation: str
    arguments: str


@dataclass(frozen=True)
class Factor:
    """A factor of a dimension: an axis of the node set, or (None) other indices of data."""

    size: int
    axis: int | None


@dataclass(frozen=True)
class Side:
    """A dimension of an observed value: the indices from ``start``, as a product of factors."""

    start: int
    factors: tuple[Factor, ...]


@dataclass(frozen=True)
class Observation:
    """A value of the forward graph that holds the neurons of a node set.

    Attributes:
        value: the value that holds them.
        nodes: name of the node set.
        reader: the edge set that reads them; None for outputs of the network.
        sides: the dimensions of the value.
    """

    value: str
    nodes: str
    reader: str | None
    sides: tuple[Side, ...]

    def read(self, value: Tensor) -> Tensor:
        """The part of a value that belongs to the node set.

        Args:
            value: shape (B, k, *shape of the value): B networks, k inputs.

        Returns:
            Tensor of shape (B, k, other indices, neurons).
        """
        shape: list[int] = []
        axes: list[int | None] = []
        for place, side in enumerate(self.sides, start=2):
            sizes = [factor.size for factor in side.factors]
            value = value.narrow(place, side.start, math.prod(sizes))
            shape += sizes
            axes += [factor.axis for factor in side.factors]
        others = [2 + place for place, axis in enumerate(axes) if axis is None]
        order = sorted((p for p, a in enumerate(axes) if a is not None), key=lambda p: axes[p] or 0)
        parts = value.reshape(*value.shape[:2], *shape)
        moved = parts.permute(0, 1, *others, *(2 + place for place in order))
        count = math.prod(size for size, axis in zip(shape, axes, strict=True) if axis is not None)
        places = math.prod(moved.shape[2 : 2 + len(others)])  # not -1, for batches of no networks
        return moved.reshape(*value.shape[:2], places, count)


@dataclass(frozen=True)
class Program:
    """The forward function of an architecture.

    Attributes:
        inputs: what it is given.
        lookups: what it takes from the state dict.
        constants: what it brings along.
        calls: what it does, in order.
        observations: where the values of node sets can be seen.
    """

    inputs: tuple[Input, ...]
    lookups: tuple[Lookup, ...]
    constants: tuple[Constant, ...]
    calls: tuple[Call, ...]
    observations: tuple[Observation, ...]

    def run(self, state: Mapping[str, Tensor], inputs: Sequence[Tensor]) -> dict[str, Tensor]:
        """All values of a run of one network, by name.

        Args:
            state: state dict of the network.
            inputs: of the shapes of the example that was traced.
        """
        like = next((v for v in state.values() if v.is_floating_point()), torch.empty(0))
        values: dict[str, Any] = {}
        for given, value in zip(self.inputs, inputs, strict=True):
            values[given.name] = value.to(like.dtype) if given.dtype == DEFAULT else value
        values |= {lookup.name: state[lookup.entry] for lookup in self.lookups}
        for name, kind, numbers in self._constants:
            dtype = _dtype(kind, like)
            values[name] = torch.tensor(numbers, dtype=dtype, device=like.device)
        for name, function, arguments, options in self._calls:
            given_args = _fill(arguments, values, like)
            values[name] = function(*given_args, **_fill(options, values, like))
        return values

    @cached_property
    def _constants(self) -> list[tuple[str, str, Any]]:
        return [(one.name, one.dtype, json.loads(one.numbers)) for one in self.constants]

    @cached_property
    def _calls(self) -> list[tuple[str, Callable[..., Any], list[Any], dict[str, Any]]]:
        return [
            (call.name, _function(call.operation), *json.loads(call.arguments))
            for call in self.calls
        ]

    @property
    def outputs(self) -> tuple[Observation, ...]:
        """The observations of the network's outputs."""
        return tuple(one for one in self.observations if one.reader is None)

    def observe(
        self,
        state: Mapping[str, Tensor],
        inputs: Sequence[Tensor],
        observations: Sequence[Observation] | None = None,
    ) -> list[Tensor]:
        """The values of each observation, for B networks at once.

        Args:
            state: stacked state dicts, entries of shape (B, *entry shape).
            inputs: shape (k, *shape of the example): k runs of each network.
            observations: some of the program's own; None for all.

        Returns:
            By observation, a tensor of shape (B, k, other indices, neurons).

        Raises:
            ProgramError: if the inputs have not the shape of the example.
        """
        self._check(inputs)
        observations = self.observations if observations is None else observations
        names = [observation.value for observation in observations]
        entries = {lookup.entry for lookup in self.lookups}
        read = {name: value for name, value in state.items() if name in entries}
        if read and not len(next(iter(read.values()))):  # which no convolution runs
            single = {name: value.new_zeros(1, *value.shape[1:]) for name, value in read.items()}
            return [values[:0] for values in self.observe(single, inputs, observations)]

        def one(weights: Mapping[str, Tensor], *given: Tensor) -> tuple[Tensor, ...]:
            values = self.run(weights, given)
            return tuple(values[name] for name in names)

        if self._batches:
            many = torch.vmap(one, in_dims=(None, *(0 for _ in inputs)))
            with sdpa_kernel(SDPBackend.MATH):  # the others have no batching rules
                observed = torch.vmap(many, in_dims=(0, *(None for _ in inputs)))(read, *inputs)
        else:
            observed = _looped(one, read, inputs)
        return [o.read(value) for o, value in zip(observations, observed, strict=True)]

    @cached_property
    def _batches(self) -> bool:
        """Whether ``torch.vmap`` can run it.

        It must know every operation, and what is written in place must differ between all runs.
        """
        from_weights = {lookup.name for lookup in self.lookups}
        from_inputs = {given.name for given in self.inputs}
        for call in self.calls:
            names = set(_names(json.loads(call.arguments)))
            for known in (from_weights, from_inputs):
                if not names.isdisjoint(known):
                    known.add(call.name)
            varies = call.name in from_weights & from_inputs
            if not _has_batching_rule(call.operation):
                return False
            if _writes(call.operation) and not varies:
                return False
        return True

    def _check(self, inputs: Sequence[Tensor]) -> None:
        shapes = [tuple(value.shape[1:]) for value in inputs]
        expected = [given.shape for given in self.inputs]
        if shapes != expected or len({len(value) for value in inputs}) > 1:
            raise ProgramError(
                f"inputs of shapes {[tuple(v.shape) for v in inputs]}; this network takes "
                f"{[('k', *shape) for shape in expected]}: k inputs like the example it was "
                "traced with"
            )


def _looped(
    one: Callable[..., tuple[Tensor, ...]], state: Mapping[str, Tensor], inputs: Sequence[Tensor]
) -> tuple[Tensor, ...]:
    """Runs network by network and input by input, where ``torch.vmap`` cannot."""
    count = len(next(iter(state.values())))
    rows = []
    for network in range(count):
        weights = {name: value[network] for name, value in state.items()}
        runs = [one(weights, *(v.clone() for v in given)) for given in zip(*inputs, strict=True)]
        rows.append([torch.stack(values) for values in zip(*runs, strict=True)])
    return tuple(torch.stack(values) for values in zip(*rows, strict=True))


def _names(item: Any) -> Iterator[str]:
    """The results that arguments refer to."""
    if isinstance(item, list):
        for part in item:
            yield from _names(part)
    elif isinstance(item, dict):
        if item.keys() == {"value"}:
            yield item["value"]
        else:
            yield from _names(list(item.values()))


def _writes(operation: str) -> bool:
    return operation != "getitem" and bool(_function(operation)._schema.is_mutable)


def _has_batching_rule(operation: str) -> bool:
    if operation == "getitem":
        return True
    name = _function(operation).name()
    keys = ("FuncTorchBatched", "CompositeImplicitAutograd")
    return any(torch._C._dispatch_has_kernel_for_dispatch_key(name, key) for key in keys)


def _function(operation: str) -> Any:
    if operation == "getitem":
        return operator.getitem
    name, _, overload = INSTEAD.get(operation, operation).partition(".")
    function = getattr(getattr(torch.ops.aten, name, None), overload, None)
    if function is None or name in TOUCHES_FILES:
        raise ProgramError(f"aten.{operation} is no operation that a program may call")
    return function


def _fill(item: Any, values: Mapping[str, Any], like: Tensor) -> Any:
    """Arguments with results in place of their names; types and devices are those of the run."""
    if isinstance(item, list):
        return [_fill(part, values, like) for part in item]
    if not isinstance(item, dict):
        return item
    if item.keys() == {"value"}:
        return values[item["value"]]
    if item.keys() == {"dtype"}:
        return _dtype(item["dtype"], like)
    if item.keys() == {"device"}:
        return like.device
    return {key: _fill(part, values, like) for key, part in item.items()}


def _dtype(name: str, like: Tensor) -> torch.dtype:
    dtype = like.dtype if name == DEFAULT else getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise ProgramError(f"{name!r} is no type of torch")
    return dtype
