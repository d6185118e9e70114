"""Summaries of a column of a population, for its data card."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch

from gmn.zoo.store.files import Row

QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


def quantiles(values: Sequence[float], digits: int) -> dict[str, float]:
    """Quantiles from the least to the largest value.

    Args:
        values: at least one number.
        digits: decimal places to keep.

    >>> quantiles([0.1, 0.2, 0.3], 2)["50%"]
    0.2
    """
    column = torch.tensor(values, dtype=torch.float64)
    return {f"{q:.0%}": round(float(column.quantile(q)), digits) for q in QUANTILES}


def accuracies(rows: Sequence[Row]) -> dict[str, dict[str, object]]:
    """The distribution of accuracies of each architecture.

    Args:
        rows: rows of classifiers, with ``architecture`` and ``test_accuracy``.

    Returns:
        By architecture, the number of networks per tenth of accuracy, and quantiles.
    """
    by_architecture: dict[str, list[float]] = {}
    for row in rows:
        by_architecture.setdefault(row["architecture"], []).append(row["test_accuracy"])
    return {
        "test_accuracy": {name: _tenths(by_architecture[name]) for name in sorted(by_architecture)},
        "test_accuracy_quantiles": {
            name: quantiles(by_architecture[name], 3) for name in sorted(by_architecture)
        },
    }


def spread(rows: Sequence[Row], column: str, of: str) -> dict[str, dict[str, object]]:
    """The distribution of a number for each value of a column.

    Args:
        rows: rows of networks that have both.
        column: name of the column whose values are told apart.
        of: name of the column of numbers.

    Returns:
        By value of the column, how many networks have it, and quantiles of their numbers.
    """
    by_value: dict[str, list[float]] = {}
    for row in rows:
        by_value.setdefault(str(row[column]), []).append(row[of])
    return {
        value: {"networks": len(numbers), "quantiles": quantiles(numbers, 3)}
        for value, numbers in sorted(by_value.items())
    }


def _tenths(values: Sequence[float]) -> list[int]:
    counts = Counter(min(int(value * 10), 9) for value in values)
    return [counts[tenth] for tenth in range(10)]
