"""Tests a rule: tries what it claims about one operation on random operands."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Node
from torch.utils import _pytree as pytree

from gmn.foundation.arguments import require_callable, require_several

from .exporting.entries import state_entries
from .exporting.export import export
from .exporting.operators import is_random, qualified_name
from .inference.actions import Action, Actions
from .inference.infer import infer
from .proof.culprit import culprit
from .proof.elements import KINDS, PERMUTATIONS, Freedom, Group
from .proof.moved_values import Move, Moved, is_number, redrawn, rounding
from .proof.situations import as_given

TOLERANCE = 1e-9
MAGNITUDES = (1.0, 0.2, 4.0)


def assert_sound(
    operation: Callable[..., Any],
    operands: Sequence[Any],
    arguments: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    data: Collection[int] = (),
    trials: int = 4,
    generator: torch.Generator | None = None,
) -> None:
    """Tries what the rule of an operation claims, by itself.

    The operands may move in every way that the rule allows: they are scaled, shifted and permuted
    by a random element, and the result is compared with what the rule says becomes of it. Nothing
    else restricts them, so what holds here holds in every network.

    Args:
        operation: an operator of torch, such as ``torch.ops.mylib.my_op``, or a function or module
            that consists of operations with rules. The parameters of a module move, too.
        operands: its first arguments: tensors of any floating-point type, lists of them, or
            numbers. Random ones of the same shapes take their place, positive where these are.
        arguments: more positional arguments.
        kwargs: more arguments by name; tensors among them are operands.
        data: numbers of the tensors, in order, that are the network's inputs and do not move.
            Tensors of whole numbers and booleans never do, and keep their values.
        trials: number of random elements that move everything at once.
        generator: source of randomness, on the CPU; seeded with 0 if None.

    Raises:
        AssertionError: if a result is another than the rule says; it names the operations, what
            was moved and how large the error is.
        TraceError: if ``torch.export`` cannot follow the operation.

    Example:
        >>> import torch
        >>> from converters.testing import assert_sound
        >>> assert_sound(torch.relu, [torch.randn(4, 6)])
    """
    require_callable("operation", operation, "an operator, such as torch.relu, or a module")
    require_several("operands", operands, "operands, such as [torch.randn(4, 6)]")
    law = Law.of(operation, operands, arguments, kwargs, data=data)
    law.check(trials, torch.Generator().manual_seed(0) if generator is None else generator)


def first_difference(
    model: nn.Module,
    example_inputs: tuple[Any, ...],
    example_kwargs: Mapping[str, Any] | None = None,
) -> str | None:
    """The first operation of a module whose result moves otherwise than its rule says.

    The module's operations run in float64 on random weights and on moved ones, side by side.

    Args:
        model: the network, on the CPU.
        example_inputs: positional inputs, as for ``torch.export.export``.
        example_kwargs: keyword inputs.

    Returns:
        The operation's name and the module that runs it; None if all rules hold. Modules that have
        a rule of their own are passed over, with all that is computed from them.

    Raises:
        TraceError: if ``torch.export`` cannot follow the module.
    """
    program = export(model, example_inputs, example_kwargs)
    actions, _ = infer(model, program, state_entries(model))
    return culprit(model, program, actions, as_given(example_inputs, example_kwargs))


def _choices(group: Group, trials: int, generator: torch.Generator) -> Iterator[list[Freedom]]:
    """What moves in each trial: everything at once, then one kind, then each part alone."""
    for _ in range(trials):
        order = torch.randperm(len(group.parts), generator=generator).tolist()
        yield group.compatible([group.parts[n] for n in order])
    for kind in KINDS:
        yield group.compatible([part for part in group.parts if part.kind == kind])


class _OneOperation(nn.Module):
    """A network of one operation whose operands are its parameters."""

    def __init__(
        self,
        operation: Callable[..., Any],
        given: tuple[Any, Any],
        inputs: Collection[int],
    ) -> None:
        super().__init__()
        leaves, self._form = pytree.tree_flatten(given)
        counter = itertools.count()
        self._names: list[str | None] = []
        self._rest: list[Any] = []
        self.inputs: list[Tensor] = []
        self.operation = operation
        for leaf in leaves:
            index = next(counter) if isinstance(leaf, Tensor) else -1
            name = None
            if isinstance(leaf, Tensor) and (index in inputs or not is_number(leaf)):
                name = ""
                self.inputs.append(_wide(leaf))
            elif isinstance(leaf, Tensor):
                name = f"operand_{index}"
                self.register_parameter(name, nn.Parameter(_wide(leaf).clone()))
            self._names.append(name)
            self._rest.append(None if isinstance(leaf, Tensor) else leaf)

    def forward(self, *inputs: Tensor) -> Any:
        waiting = iter(inputs)
        leaves = [
            rest if name is None else getattr(self, name) if name else next(waiting)
            for name, rest in zip(self._names, self._rest, strict=True)
        ]
        args, kwargs = pytree.tree_unflatten(leaves, self._form)
        return self.operation(*args, **kwargs)


def _wide(value: Tensor) -> Tensor:
    if not is_number(value):
        return value.detach()
    return value.detach().to(torch.complex128 if value.is_complex() else torch.float64)


@dataclass(frozen=True)
class Law:
    """One operation and the claims of its rule.

    Attributes:
        model: a network of this operation alone.
        actions: how its values transform.
        results: its results.
        operations: names of what it consists of, with their namespaces.
        unknown: reports on operations without a rule.
        random: whether they draw random numbers.
    """

    model: _OneOperation
    actions: Actions
    results: tuple[Node, ...]
    operations: tuple[str, ...]
    unknown: tuple[str, ...]
    random: bool

    @classmethod
    def of(
        cls,
        operation: Callable[..., Any],
        operands: Sequence[Any],
        arguments: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        data: Collection[int] = (),
    ) -> Law:
        """The law of an operation; arguments are those of :func:`assert_sound`."""
        given = ((*operands, *arguments), dict(kwargs or {}))
        model = _OneOperation(operation, given, data).eval()
        if isinstance(operation, nn.Module):
            model = model.to(torch.float64)
        program = export(model, tuple(model.inputs))
        actions, unknown = infer(model, program, state_entries(model), pinned=False)
        output = next(iter(program.graph.find_nodes(op="output")))
        results = pytree.tree_leaves(output.args, is_leaf=lambda leaf: isinstance(leaf, Node))
        calls = [n for n in program.graph.nodes if n.op == "call_function"]
        names = [qualified_name(n) for n in calls if "getitem" not in qualified_name(n)]
        return cls(
            model,
            actions,
            tuple(results),
            tuple(dict.fromkeys(names)),
            tuple(unknown),
            any(is_random(node) for node in calls),
        )

    @property
    def freedom(self) -> dict[str, list[tuple[str, ...]]]:
        """By kind, the entries that each independent freedom moves.

        Operands are called ``operand_0`` and so on.
        """
        parts = Group(self.actions).parts
        return {kind: [p.entries for p in parts if p.kind == kind] for kind in KINDS}

    def check(self, trials: int, generator: torch.Generator) -> None:
        """Raises an AssertionError if the law is broken."""
        group = Group(self.actions)
        if self.random:  # permutations hold in distribution only
            group.parts = [part for part in group.parts if part.kind != PERMUTATIONS]
        sizes = itertools.cycle(MAGNITUDES)
        for parts in _choices(group, trials, generator):
            error = self.error(group.element(parts, generator), generator, next(sizes))
            if not error <= TOLERANCE:
                raise AssertionError(self.complaint(group, parts, error, generator))

    def error(self, move: Move, generator: torch.Generator, size: float = 1.0) -> float:
        """The largest error of any result, on random operands of about this size."""
        own = self.model.state_dict(keep_vars=True)
        state = {name: redrawn(value.detach(), size, generator) for name, value in own.items()}
        state = {name: state[_first(own, name)] for name in own}
        moved = Moved(self.actions, move, state)
        new = {name: moved.entry(_first(own, name), value) for name, value in state.items()}
        inputs = tuple(redrawn(value, size, generator) for value in self.model.inputs)
        before, after = (self._run(each, inputs) for each in (state, new))
        worst = 0.0
        for node, old, new_result in zip(self.results, before, after, strict=True):
            axes, action = self.actions.trace.values[node], self.actions.results(node)
            if isinstance(action, Action):
                error = moved.error(action, axes, old, new_result)
                worst = max(worst, error if error > rounding(new_result) else 0.0)
        return worst

    def _run(self, state: Mapping[str, Tensor], inputs: tuple[Tensor, ...]) -> list[Tensor]:
        with torch.no_grad(), _seeded():
            results = torch.func.functional_call(self.model, dict(state), inputs, tie_weights=False)
        return [leaf for leaf in pytree.tree_leaves(results) if isinstance(leaf, Tensor)]

    def complaint(
        self, group: Group, parts: Sequence[Freedom], error: float, generator: torch.Generator
    ) -> str:
        """A message that names the smallest part of the claim that fails."""
        failures = []
        for part in parts:
            alone = self.error(group.element([part], generator), generator)
            if not alone <= TOLERANCE:
                failures.append((part, alone))
        what = "its parts move together"
        if failures:
            part, error = failures[0]
            what = f"{_WORDS[part.kind]} of {' and '.join(part.entries) or 'no entry'}{_at(part)}"
        return (
            f"the rule of {' or '.join(self.operations)} is false: under {what} the result is "
            f"another than it says, by {error:.1e} (relative)"
        )


@contextmanager
def _seeded() -> Iterator[None]:
    """Fixes the random seed inside, and restores the generator's state."""
    known = torch.default_generator.get_state()
    torch.default_generator.manual_seed(0)
    try:
        yield
    finally:
        torch.default_generator.set_state(known)


_WORDS = {
    "magnitudes": "positive scales",
    "signs": "signs",
    "shifts": "shifts",
    "permutations": "permutations",
}


def _at(part: Freedom) -> str:
    slots = getattr(part.free, "slots", None)
    if slots is None:
        return ""
    dims = sorted({dim for dim, _ in slots})
    return f" along dimensions {dims}" if dims else ", the same for all entries"


def _first(own: Mapping[str, Tensor], name: str) -> str:
    """The first name of an entry that has several."""
    return next(other for other, value in own.items() if value is own[name])
