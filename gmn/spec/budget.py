"""What a run of a program would take, found out before it runs, and how much it may take.

A program may come from anywhere, and a short one may ask for any number of numbers. So it is run
first on torch's ``meta`` device, where tensors have shapes and no numbers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gmn.spec.operations import ProgramError

# Numbers that a run may make, by parameter and input, and beyond: long sequences and large images
# need many for few parameters. Of many runs at once, each of the first ones may have the rest.
PER_NUMBER, FREE, FREE_RUNS = 100, 10**8, 10
WORK = 1000  # multiplications, by number that a run may make
MOST_STEPS = 50_000  # operations, each step of a recurrent layer and each piece of a split counted


def numbers_allowed(given: Iterable[Sequence[int]], runs: int = 1) -> int:
    """How many numbers some runs at once may make.

    Args:
        given: shapes of the parameters and inputs of one run.
        runs: how many.
    """
    own = sum(math.prod(shape) for shape in given)
    return PER_NUMBER * own * runs + FREE * min(runs, FREE_RUNS)


class ProgramMeter(TorchDispatchMode):
    """Counts the numbers that operations make, views as well; stops what is beyond the budget.

    Args:
        most: numbers that may be made.

    Attributes:
        operation: the call of the program that runs now, for messages.
        numbers: how many were made so far.
    """

    def __init__(self, most: int) -> None:
        super().__init__()
        self.operation = "the program"
        self.numbers = 0
        self._most = most
        self._work = 0
        self._steps = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Runs one operation, unless it takes too much."""
        self._steps += _pieces(func, args)
        self._stop(self._steps, MOST_STEPS, "steps")
        kwargs = {**(kwargs or {}), **_on_meta(func)}
        result = func(*args, **kwargs)
        made = sum(_size(value) for value in tree_leaves(result) if isinstance(value, Tensor))
        self.numbers += made
        self._stop(self.numbers, self._most, "numbers")
        self._work += _work(func, args, kwargs, result, made)
        self._stop(self._work, WORK * self._most, "multiplications")
        return result

    def _stop(self, used: int, most: int, what: str) -> None:
        if used > most:
            raise ProgramError(
                f"{self.operation} brings a run to {used:,} {what}; {most:,} are the most for a "
                "network of so many parameters and inputs"
            )


@cache
def _on_meta(func: Any) -> dict[str, Any]:
    """The device for operations that would choose one of their own, as those that make numbers."""
    chooses = any(argument.name == "device" for argument in func._schema.arguments)
    return {"device": torch.device("meta")} if chooses else {}


def _size(value: Tensor) -> int:
    """Numbers of a tensor, views and empty ones by their longest sides."""
    return math.prod(max(size, 1) for size in value.shape)


def _pieces(func: Any, args: tuple[Any, ...]) -> int:
    """How many steps an operation is: splits make a tensor of each piece, before they return."""
    name = f"{func._schema.name}.{func._schema.overload_name}"
    if name in ("aten::unbind.int", "aten::unbind_copy.int"):
        dim, size = (*args[1:], 0)[0], 1
    elif name in ("aten::split.Tensor", "aten::split_copy.Tensor", "aten::unsafe_split.Tensor"):
        dim, size = (*args[2:], 0)[0], max(args[1], 1)
    else:
        return 1
    return 1 + int(args[0].shape[dim]) // size


def _work(func: Any, args: tuple[Any, ...], kwargs: Any, result: Any, made: int) -> int:
    """Multiplications of an operation that has many for each number that it makes."""
    from torch.utils.flop_counter import flop_registry  # not needed before a program runs

    count = flop_registry.get(func._overloadpacket)
    if count is not None:
        return int(count(*args, **kwargs, out_val=result)) // 2
    place = _place_of_window(func)
    if place is not None and place < len(args):
        return made * math.prod(args[place])
    if "linalg" in func._schema.name:
        sizes = (value.shape for value in args if isinstance(value, Tensor) and value.dim() > 1)
        return sum(10 * math.prod(shape) * min(shape[-2:]) for shape in sizes)
    return 0


@cache
def _place_of_window(func: Any) -> int | None:
    """Which argument of a pooling operation holds the size of its window."""
    names = [argument.name for argument in func._schema.arguments]
    return names.index("kernel_size") if "kernel_size" in names else None
