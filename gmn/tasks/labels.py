"""Reads labels of a population, and refuses those that cannot be learned from."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from gmn.errors import DataError
from gmn.zoo import Zoo

WAY_OUT = "Correct the labels, or take such networks out of the population"

USUAL_CLASSES = 1000


class LabelError(DataError, ValueError):
    """A population cannot be used for a task; the message names the network and the column."""


def numbers(population: Zoo, column: str, low: float = -math.inf, high: float = math.inf) -> Tensor:
    """A column of the index as float32 numbers, shape (networks,).

    Args:
        population: the zoo.
        column: name of a column of its index.
        low: least number allowed.
        high: largest number allowed.

    Raises:
        LabelError: if a network has no number there, NaN or infinity, or one out of range.
    """
    try:
        values = population.labels(column)
    except (KeyError, ValueError) as error:
        raise _unreadable(population, column) from error
    _refuse(population, column, ~values.isfinite(), "not a finite number")
    if math.isfinite(low) or math.isfinite(high):
        _refuse(population, column, (values < low) | (values > high), f"not in [{low:g}, {high:g}]")
    return values


def classes(population: Zoo, column: str, most: int | None = None) -> Tensor:
    """A column of the index as classes: int64 numbers from zero, shape (networks,).

    Args:
        population: the zoo.
        column: name of a column of its index.
        most: number of classes; None for as many as there are networks, or 1,000 if that is more:
            one wrong label of millions would make a model of as many outputs.

    Raises:
        LabelError: if a network has no whole number from zero to below that there.
    """
    values = numbers(population, column)
    wrong = (values < 0) | (values != values.round())
    _refuse(population, column, wrong, "no class: classes are whole numbers from zero")
    told = "as were given" if most is not None else "as there are networks (or 1,000)"
    most = max(len(population), USUAL_CLASSES) if most is None else most
    what = f"no class: there are as many {told}, so they end at {most - 1}"
    _refuse(population, column, values >= most, what)
    return values.long()


def _refuse(population: Zoo, column: str, wrong: Tensor, what: str) -> None:
    if not bool(wrong.any()):
        return
    first, count = int(wrong.nonzero()[0]), int(wrong.sum())
    row = population.rows[first]
    raise LabelError(
        f"{population.folder}: {column} of network {row['id']} is {row[column]!r}, {what}"
        f"{_others(count)}. {WAY_OUT}"
    )


def _unreadable(population: Zoo, column: str) -> LabelError:
    """The error for a column that is missing, or has entries that are missing or no numbers."""
    known = sorted({name for row in population.rows for name in row})
    if column not in known:
        return LabelError(
            f"{population.folder}: no network has the label {column!r}; "
            f"the columns are {', '.join(known)}"
        )
    wrong = [row for row in population.rows if not _is_number(row.get(column))]
    if not wrong:
        return LabelError(f"{population.folder}: {column} cannot be read as numbers")
    value = "missing" if wrong[0].get(column) is None else repr(wrong[0][column])
    return LabelError(
        f"{population.folder}: {column} of network {wrong[0]['id']} is {value}, not a finite number"
        f"{_others(len(wrong))}. {WAY_OUT}"
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _others(count: int) -> str:
    return f", and so it is with {count - 1} more" if count > 1 else ""
