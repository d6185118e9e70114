"""Selects networks by conditions on the columns of the index."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc
import torch
from torch import Tensor

from gmn.foundation.arguments import require_several
from gmn.zoo.store.index import is_number

if TYPE_CHECKING:
    from gmn.zoo.population import Zoo

OPERATORS: dict[str, Callable[..., Any]] = {
    "==": pc.equal,
    "!=": pc.not_equal,
    ">=": pc.greater_equal,
    "<=": pc.less_equal,
    ">": pc.greater,
    "<": pc.less,
}
CONDITION = re.compile(r"\s*(?P<column>[^=!<>]+?)\s*(?P<operator>==|!=|>=|<=|>|<)\s*(?P<value>.+)")
TRUTH = {"true": True, "false": False}


def select(
    zoo: Zoo,
    where: str | Sequence[str] = (),
    split: str | None = None,
    architecture: str | None = None,
    ids: Sequence[str] | None = None,
) -> Tensor:
    """Indices of the networks that meet all conditions.

    Args:
        zoo: the population.
        where: conditions such as ``"test_accuracy>=0.5"``, ``"activation==relu"`` or
            ``"split!=test"``. A network that has no value in the column does not meet one.
        split: ``"train"``, ``"val"`` or ``"test"``.
        architecture: name of an architecture.
        ids: the networks of these ids.

    Returns:
        int64 indices in increasing order.

    Raises:
        ValueError: If a condition cannot be read, or a column, a split, an architecture or an id
            is unknown.

    Example:
        >>> CONDITION.match("test_accuracy >= 0.5").groups()
        ('test_accuracy', '>=', '0.5')
    """
    conditions = [where] if isinstance(where, str) else where
    require_several("where", conditions, "conditions such as 'test_accuracy>=0.5'")
    chosen = np.zeros(len(zoo), dtype=bool)
    chosen[zoo.indices(split, architecture).numpy()] = True
    for condition in conditions:
        chosen &= _meets(zoo, condition)
    if ids is not None:
        require_several("ids", ids, "ids")
        chosen &= _has_id(zoo, ids)
    return torch.from_numpy(np.flatnonzero(chosen))


def _meets(zoo: Zoo, condition: str) -> np.ndarray[Any, Any]:
    match = CONDITION.fullmatch(str(condition))
    if match is None:
        raise ValueError(
            f"{condition!r} is not a condition such as 'test_accuracy>=0.5'; the operators are "
            f"{', '.join(OPERATORS)}"
        )
    name, value = match["column"], match["value"].strip()
    if name not in zoo.columns:
        raise ValueError(f"no column is called {name!r}; known: {', '.join(zoo.columns)}")
    column = zoo.index[name]
    compare = OPERATORS[match["operator"]]
    fits = pc.fill_null(compare(column, _value(column.type, value, condition)), False)
    return np.asarray(fits.to_numpy(), dtype=bool)


def _value(arrow_type: Any, text: str, condition: str) -> Any:
    """The text of a condition as a value of the column's type."""
    if str(arrow_type) == "bool":
        if text.lower() not in TRUTH:
            raise ValueError(f"{condition!r}: that column holds true and false")
        return TRUTH[text.lower()]
    if is_number(arrow_type):
        try:
            return float(text)
        except ValueError:
            raise ValueError(f"{condition!r}: that column holds numbers") from None
    return text.strip("'\"")


def _has_id(zoo: Zoo, ids: Sequence[str]) -> np.ndarray[Any, Any]:
    known = zoo.index["id"].to_pylist()
    if unknown := sorted(set(ids).difference(known)):
        raise ValueError(f"no network has the id {', '.join(unknown[:5])}")
    wanted = set(ids)
    return np.fromiter(map(wanted.__contains__, known), dtype=bool, count=len(known))
