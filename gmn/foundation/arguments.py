"""Checks of arguments where they enter: one error that names argument, value and way out.

They stand at the entries that users call, never in loops.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Collection, Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from gmn.errors import ArgumentError

# What torch.Generator.manual_seed takes.
LEAST_SEED, MOST_SEED = -(2**63), 2**64 - 1


def require_whole(name: str, value: Any, least: float = -math.inf) -> int:
    """The value as an ``int``, if it is a whole number of at least ``least``.

    Raises:
        ArgumentError: if it is not; text, fractions and truth values are none.
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None or number < least:
        bounds = f" of at least {least}" if least > -math.inf else ""
        raise ArgumentError(f"{name} is {in_words(value)}; it has to be a whole number{bounds}")
    return number


def require_each_whole(name: str, values: Any, least: int) -> tuple[int, ...]:
    """The values as a tuple, if they are one or more whole numbers of at least ``least``.

    Raises:
        ArgumentError: if they are not, or a single number stands where several are meant.
    """
    if not isinstance(values, Iterable) or isinstance(values, str):
        raise ArgumentError(f"{name} is {in_words(values)}; give several numbers, such as (16, 16)")
    numbers = tuple(require_whole(f"a number of {name}", value, least) for value in values)
    if not numbers:
        raise ArgumentError(f"{name} is empty; give at least one number, such as (16,)")
    return numbers


def require_number(
    name: str, value: Any, *, least: float = -math.inf, above: float = -math.inf
) -> float:
    """The value as a ``float``, if it is finite, at least ``least``, and larger than ``above``.

    Raises:
        ArgumentError: if it is not.
    """
    bounds = f" above {above:g}" if above > -math.inf else ""
    bounds = f" of at least {least:g}" if least > -math.inf else bounds
    try:
        number = math.nan if isinstance(value, str | bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number) or number < least or number <= above:
        raise ArgumentError(f"{name} is {in_words(value)}; it has to be a finite number{bounds}")
    return number


def require_seed(name: str, value: Any) -> int:
    """The value as an ``int``, if a generator of PyTorch takes it.

    Raises:
        ArgumentError: if it is no whole number, or has more than 64 bits.
    """
    number = require_whole(name, value)
    if not LEAST_SEED <= number <= MOST_SEED:
        raise ArgumentError(f"{name} is {number}; it has to fit in 64 bits, such as 0")
    return number


def require_one_of(name: str, value: Any, known: Collection[Any]) -> None:
    """Refuses what is not among the known values.

    Raises:
        ArgumentError: if it is not; the message lists them.
    """
    if not isinstance(value, str) or value not in known:
        raise ArgumentError(f"{name} is {in_words(value)}; it is one of {', '.join(known)}")


def require_several(name: str, value: Any, what: str) -> None:
    """Refuses one thing where a sequence of things is meant.

    Args:
        name: of the argument.
        value: its value.
        what: the things, in words: ``folders of zoos``.

    Raises:
        ArgumentError: if it is no sequence, or is text or a mapping.
    """
    if not isinstance(value, Iterable) or isinstance(value, str | bytes | Mapping):
        raise ArgumentError(f"{name} is {in_words(value)}; give a list of {what}")


def require_path(name: str, value: Any) -> Path:
    """The value as a path.

    Raises:
        ArgumentError: if it is none, or empty.
    """
    if not isinstance(value, str | PathLike) or not str(value):
        raise ArgumentError(f"{name} is {in_words(value)}; give a path, such as 'runs/zoo'")
    return Path(value)


def require_callable(name: str, value: Any, what: str) -> None:
    """Refuses what cannot be called.

    Raises:
        ArgumentError: then.
    """
    if not callable(value):
        raise ArgumentError(f"{name} is {in_words(value)}; give {what}")


def require_type(name: str, value: Any, kind: type | tuple[type, ...], way_out: str) -> None:
    """Refuses values of another type.

    Args:
        name: of the argument.
        value: its value.
        kind: the type, or types, that it may have.
        way_out: what to give instead, in words.

    Raises:
        ArgumentError: if it has none of them.
    """
    if not isinstance(value, kind):
        raise ArgumentError(f"{name} is {in_words(value)}; give {way_out}")


def in_words(value: Any) -> str:
    """A value for a message: itself if it is short, and its type if that is not plain."""
    if value is None or isinstance(value, bool | int | float | str):
        text = repr(value)
        return text if len(text) <= 60 else f"{text[:57]}..."
    kind = value.__name__ if isinstance(value, type) else type(value).__name__
    return f"the class {kind}" if isinstance(value, type) else f"an object of type {kind}"
