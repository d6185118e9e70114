"""The forward function of an architecture as data, run for many networks at once.

A :class:`Program` is the exported graph without its weights: it takes them from a state dict, so
one program runs every network of its spec, and ``torch.vmap`` runs a batch of them together. What
it observes on the way are the values that pass each node set: a metanetwork that chooses its own
inputs can look at every neuron's answer to them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from gmn.spec.budget import ProgramMeter, numbers_allowed
from gmn.spec.operations import (
    ProgramError,
    function_of,
    has_batching_rule,
    require_arguments,
    writes,
)

DEFAULT = "default"  # stands for the floating-point type of the run


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

    @property
    def shape(self) -> tuple[int, int]:
        """How many other indices it reads for each neuron, and how many neurons."""
        factors = [factor for side in self.sides for factor in side.factors]
        places = math.prod(factor.size for factor in factors if factor.axis is None)
        return places, math.prod(factor.size for factor in factors if factor.axis is not None)

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
            size = math.prod(sizes)
            if (side.start, size) != (0, value.shape[place]):
                # Not of all: its gradient would be copied into zeros.
                value = value.narrow(place, side.start, size)
            shape += sizes
            axes += [factor.axis for factor in side.factors]
        others = [2 + place for place, axis in enumerate(axes) if axis is None]
        order = sorted((p for p, a in enumerate(axes) if a is not None), key=lambda p: axes[p] or 0)
        parts = value.reshape(*value.shape[:2], *shape)
        moved = parts.permute(0, 1, *others, *(2 + place for place in order))
        return moved.reshape(*value.shape[:2], *self.shape)  # not -1, for batches of no networks


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

    def run(
        self,
        state: Mapping[str, Tensor],
        inputs: Sequence[Tensor],
        moves: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor]:
        """All values of a run of one network, by name.

        Args:
            state: state dict of the network.
            inputs: of the shapes of the example that was traced.
            moves: by name of a value, what is added to it before anything reads it.

        Raises:
            ProgramError: if it would take far more than its parameters and inputs
                (:mod:`gmn.spec.budget`), or calls what a program may not call.
        """
        read = {lookup.entry: state[lookup.entry] for lookup in self.lookups}
        self._afford(read, inputs)
        values, like = self._given(state, inputs)
        for _ in self._steps(values, like, moves or {}):
            pass
        return values

    def _given(
        self, state: Mapping[str, Tensor], inputs: Sequence[Tensor]
    ) -> tuple[dict[str, Any], Tensor]:
        """What a run begins with, and a tensor of its floating-point type and device."""
        like = next((v for v in state.values() if v.is_floating_point()), torch.empty(0))
        values: dict[str, Any] = {}
        for given, value in zip(self.inputs, inputs, strict=True):
            values[given.name] = value.to(like.dtype) if given.dtype == DEFAULT else value
        values |= {lookup.name: state[lookup.entry] for lookup in self.lookups}
        for name, kind, numbers in self._constants:
            dtype = _dtype(kind, like)
            values[name] = torch.tensor(numbers, dtype=dtype, device=like.device)
        return values, like

    def _steps(
        self, values: dict[str, Any], like: Tensor, moves: Mapping[str, Tensor]
    ) -> Iterator[Call]:
        """Each call, before it adds its result to the values."""
        for call, (function, arguments, options) in zip(self.calls, self._functions, strict=True):
            yield call
            given = _fill(arguments, values, like)
            result = function(*given, **_fill(options, values, like))
            if call.name in moves:
                result = result + moves[call.name].to(result)
            values[call.name] = result

    def _afford(
        self, state: Mapping[str, Tensor], inputs: Sequence[Tensor], stacked: int = 0
    ) -> Mapping[str, Tensor]:
        """Refuses runs that would take too much; ``stacked`` dimensions count networks and runs.

        Returns:
            By name, what is observed of one run; tensors without numbers.
        """
        values = *state.values(), *inputs
        shapes = tuple(tuple(value.shape[stacked:]) for value in values)
        if shapes not in self._counted:
            self._counted[shapes] = self._count(
                {name: _blank(value, stacked) for name, value in state.items()},
                [_blank(value, stacked) for value in inputs],
                numbers_allowed(shapes),
            )
        first = [part[0] for part in (list(state.values()), inputs) if part]
        runs = math.prod(len(value) for value in first) if stacked else 1
        count, observed = self._counted[shapes]
        numbers, most = runs * count, numbers_allowed(shapes, runs)
        if numbers > most:
            raise ProgramError(
                f"{runs} runs at once would make {numbers:,} numbers; {most:,} are the most for a "
                "network of so many parameters and inputs: pass fewer networks or inputs at once"
            )
        return observed

    @cached_property
    def _counted(self) -> dict[tuple[tuple[int, ...], ...], tuple[int, dict[str, Tensor]]]:
        """What :meth:`_count` found, by the shapes of parameters and inputs."""
        return {}

    def _count(
        self, state: Mapping[str, Tensor], inputs: Sequence[Tensor], most: int
    ) -> tuple[int, dict[str, Tensor]]:
        """How many numbers a run makes, if no more than the most, and by name what is observed.

        All of tensors without numbers.
        """
        meter = ProgramMeter(most)
        try:
            for _, _, numbers in self._constants:
                torch.tensor(numbers)  # which sees uneven lists only where it makes numbers of them
            with torch.no_grad():
                values, like = self._given(state, inputs)
                with meter:
                    for call in self._steps(values, like, {}):
                        meter.operation = call.operation
            for observation in self.observations:
                meter.operation = f"the observation of {observation.value}"
                observation.read(values[observation.value][None, None])
        except ProgramError:
            raise
        except Exception as error:  # torch raises anything on a stranger's arguments
            reason = str(error).partition("\n")[0][:200]
            raise ProgramError(f"{meter.operation} cannot be run: {reason}") from error
        return meter.numbers, {one.value: values[one.value] for one in self.observations}

    @cached_property
    def _constants(self) -> list[tuple[str, str, Any]]:
        return [(one.name, one.dtype, json.loads(one.numbers)) for one in self.constants]

    @cached_property
    def _functions(self) -> list[tuple[Callable[..., Any], list[Any], dict[str, Any]]]:
        functions = []
        for call in self.calls:
            arguments, options = json.loads(call.arguments)
            require_arguments(call.operation, arguments, options)
            functions.append((function_of(call.operation), arguments, options))
        return functions

    @property
    def outputs(self) -> tuple[Observation, ...]:
        """The observations of the network's outputs."""
        return tuple(one for one in self.observations if one.reader is None)

    def observe(
        self,
        state: Mapping[str, Tensor],
        inputs: Sequence[Tensor],
        observations: Sequence[Observation] | None = None,
        moves: Mapping[str, Tensor] | None = None,
    ) -> list[Tensor]:
        """The values of each observation, for B networks at once.

        Args:
            state: stacked state dicts, entries of shape (B, *entry shape).
            inputs: shape (k, *shape of the example): k runs of each network.
            observations: some of the program's own; None for all.
            moves: by name of a value, what is added to it before anything reads it, shape
                (B, k, *shape of the value).

        Returns:
            By observation, a tensor of shape (B, k, other indices, neurons).

        Raises:
            ProgramError: if the inputs have not the shape of the example, or as :meth:`run`.
        """
        self._check(inputs)
        observations = self.observations if observations is None else observations
        names = [observation.value for observation in observations]
        read, moves = self._read(state), moves or {}
        if read and not len(next(iter(read.values()))):  # which no convolution runs
            single, still = (
                {name: value.new_zeros(1, *value.shape[1:]) for name, value in given.items()}
                for given in (read, moves)
            )
            return [values[:0] for values in self.observe(single, inputs, observations, still)]
        self._afford(read, inputs, stacked=1)

        def one(
            weights: Mapping[str, Tensor], moved: Mapping[str, Tensor], *given: Tensor
        ) -> tuple[Tensor, ...]:
            values = self.run(weights, given, moved)
            return tuple(values[name] for name in names)

        if self._batches:
            many = torch.vmap(one, in_dims=(None, 0, *(0 for _ in inputs)))
            every = torch.vmap(many, in_dims=(0, 0, *(None for _ in inputs)))
            with sdpa_kernel(SDPBackend.MATH):  # the others have no batching rules
                observed = every(read, moves, *inputs)
        else:
            observed = _looped(one, read, moves, inputs)
        return [o.read(value) for o, value in zip(observations, observed, strict=True)]

    def seen(self, state: Mapping[str, Tensor], inputs: Sequence[Tensor]) -> Mapping[str, Tensor]:
        """The observed values of one run by name: their shapes and types, without numbers.

        Args:
            state: as in :meth:`observe`.
            inputs: as in :meth:`observe`.

        Raises:
            ProgramError: as :meth:`observe`.
        """
        self._check(inputs)
        return self._afford(self._read(state), inputs, stacked=1)

    def _read(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The entries that it takes from a state dict."""
        entries = {lookup.entry for lookup in self.lookups}
        return {name: value for name, value in state.items() if name in entries}

    @cached_property
    def writes(self) -> bool:
        """Whether it writes into values of its own."""
        return any(writes(call.operation) for call in self.calls)

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
            if not has_batching_rule(call.operation):
                return False
            if writes(call.operation) and not varies:
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


def _blank(value: Tensor, stacked: int) -> Tensor:
    """A tensor of its shape without the first dimensions, and without numbers."""
    return torch.empty(value.shape[stacked:], dtype=value.dtype, device="meta")


def _looped(
    one: Callable[..., tuple[Tensor, ...]],
    state: Mapping[str, Tensor],
    moves: Mapping[str, Tensor],
    inputs: Sequence[Tensor],
) -> tuple[Tensor, ...]:
    """Runs network by network and input by input, where ``torch.vmap`` cannot."""
    count = len(next(iter(state.values())))
    rows = []
    for network in range(count):
        weights = {name: value[network] for name, value in state.items()}
        runs = [
            one(
                weights, {n: v[network, run] for n, v in moves.items()}, *(v.clone() for v in given)
            )
            for run, given in enumerate(zip(*inputs, strict=True))
        ]
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
