"""Summaries of a column of a population, for its data card."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch

from gmn.zoo.store.files import Row

SHARES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


def quantiles(values: Sequence[float], digits: int) -> dict[str, float]:
    """Quantiles from the least to the largest value.

    Args:
        values: At least one number.
        digits: How many to keep behind the point.

    >>> quantiles([0.1, 0.2, 0.3], 2)["50%"]
    0.2
    """
    column = torch.tensor(values, dtype=torch.float64)
    return {f"{share:.0%}": round(float(column.quantile(share)), digits) for share in SHARES}


def accuracies(rows: Sequence[Row]) -> dict[str, dict[str, object]]:
    """How the accuracies of each architecture are spread.

    Args:
        rows: Of classifiers, with ``architecture`` and ``test_accuracy``.

    Returns:
        By architecture, the number of networks per tenth of accuracy, and quantiles.
    """
    found: dict[str, list[float]] = {}
    for row in rows:
        found.setdefault(row["architecture"], []).append(row["test_accuracy"])
    return {
        "test_accuracy": {name: _tenths(found[name]) for name in sorted(found)},
        "test_accuracy_quantiles": {name: quantiles(found[name], 3) for name in sorted(found)},
    }


def _tenths(values: Sequence[float]) -> list[int]:
    counts = Counter(min(int(value * 10), 9) for value in values)
    return [counts[tenth] for tenth in range(10)]
