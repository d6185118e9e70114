"""Reads labels of a population, and refuses those that cannot be learned from."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
import pyarrow.compute as pc
import torch
from torch import Tensor

from gmn.errors import DataError
from gmn.zoo import Zoo

Name: TypeAlias = str | bool | int
"""What names a class."""

WAY_OUT = "Correct the labels, or take such networks out of the population"

USUAL_CLASSES = 1000


class LabelError(DataError, ValueError):
    """A population cannot be used for a task; the message names the network and the column."""


class MissingLabelsWarning(UserWarning):
    """Networks without a label were left out; the message names them."""


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
    refuse(population, column, ~values.isfinite(), "not a finite number")
    if math.isfinite(low) or math.isfinite(high):
        refuse(population, column, (values < low) | (values > high), f"not in [{low:g}, {high:g}]")
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
    refuse(population, column, wrong, "no class: classes are whole numbers from zero")
    told = "as were given" if most is not None else "as there are networks (or 1,000)"
    most = max(len(population), USUAL_CLASSES) if most is None else most
    what = f"no class: there are as many {told}, so they end at {most - 1}"
    refuse(population, column, values >= most, what)
    return values.long()


def named_classes(
    population: Zoo, column: str, known: Sequence[Name] | None = None
) -> tuple[Tensor, list[Name]]:
    """A column of text, whole numbers or truth values as classes, and their names.

    Args:
        population: the zoo.
        column: name of a column of its index.
        known: the names, in the order of their classes; None for those in the column, sorted.

    Returns:
        int64 numbers of classes, shape (networks,), and the names.

    Raises:
        LabelError: if a network has no value there or none that names a class, there are more
            classes than 1,000, or all networks are of one.
    """
    if column not in population.columns:
        raise _unreadable(population, column)
    values = [_class_name(value) for value in population.index[column].to_pylist()]
    wrong = torch.tensor([value is None for value in values])
    refuse(population, column, wrong, "no class: classes are text, whole numbers, truth values")
    found = {value for value in values if value is not None}
    names = sorted(found) if known is None else list(known)
    if known is None and not 1 < len(names) <= USUAL_CLASSES:
        raise LabelError(
            f"{population.folder}: {column} has {len(names):,} different values in "
            f"{len(population):,} networks; classes are 2 to {USUAL_CLASSES:,}"
        )
    places: dict[Name | None, int] = {name: place for place, name in enumerate(names)}
    numbers = torch.tensor([places.get(value, -1) for value in values])
    told = f"none of the classes {', '.join(map(str, names[:20]))}"
    refuse(population, column, numbers < 0, told)
    return numbers, names


def _class_name(value: Any) -> Name | None:
    """A value that names a class, as a JSON value; None for another."""
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    return value if isinstance(value, str | bool | int) else None


def present(population: Zoo, column: str) -> Zoo:
    """The networks that have a value in a column; a warning names the others.

    Raises:
        LabelError: if there is no such column.
    """
    if column not in population.columns:
        raise _unreadable(population, column)
    missing = pc.is_null(population.index[column]).to_numpy()
    if not missing.any() or missing.all():
        return population
    ids = np.asarray(population.index["id"])
    some, more = ", ".join(map(str, ids[missing][:5])), missing.sum() - 5
    warnings.warn(
        f"{population.folder}: {missing.sum()} of {len(missing)} networks have no {column} and are "
        f"left out: {some}{f' and {more} more' if more > 0 else ''}",
        MissingLabelsWarning,
        stacklevel=2,
    )
    return population.select(ids=ids[~missing].tolist())


def refuse(population: Zoo, column: str, wrong: Tensor, what: str) -> None:
    """Raises a :class:`LabelError` that names the first network that is wrong, if one is.

    Args:
        population: the zoo.
        column: name of the column.
        wrong: which networks have a label that cannot be used, bool, shape (networks,).
        what: what is wrong with them, in words.
    """
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
