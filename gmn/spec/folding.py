"""Folds repeated layers: table rows that differ only in a layer's number are printed once."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby

Row = tuple[str, ...]

_NUMBER = re.compile(r"\d+(…\d+)?")
_HOLE, _NEXT = "\0", "\1"


def fold(rows: Sequence[Row]) -> list[Row]:
    """Replaces runs of layers that look alike by one: ``layers.0…15.mlp`` stands for sixteen.

    A layer is a block of neighbouring rows whose first cells share a dotted path up to a number,
    such as ``layers.3``. Layers are alike if all their cells are, but for that number and the next.

    Example:
        >>> fold([("h.0.mlp", "8×4"), ("h.1.mlp", "8×4"), ("h.2.mlp", "8×4"), ("h.3.mlp", "8×2")])
        [('h.0…2.mlp', '8×4'), ('h.3.mlp', '8×2')]
    """
    folded = list(rows)
    for depth in range(max((len(_numbers(row[0])) for row in rows), default=0)):
        folded = _fold_at(folded, depth)
    return folded


def fold_names(names: Sequence[str]) -> list[str]:
    """The same for a plain list of names."""
    return [name for (name,) in fold([(name,) for name in names])]


def _numbers(name: str) -> list[int]:
    """Indices of the parts of a dotted path that are numbers; folded ones count."""
    parts = name.split(".")
    return [index for index, part in enumerate(parts) if index and _NUMBER.fullmatch(part)]


def _fold_at(rows: Sequence[Row], depth: int) -> list[Row]:
    runs: list[tuple[str, int, int, list[Row]]] = []  # path, first and last layer, rows with holes
    for (path, number), block in groupby(rows, lambda row: _layer(row[0], depth)):
        shape = [tuple(_punched(cell, path, number) for cell in row) for row in block]
        if runs and number > 0 and runs[-1][0] == path and runs[-1][2:] == (number - 1, shape):
            runs[-1] = (path, runs[-1][1], number, shape)
        else:
            runs.append((path, number, number, shape))
    return [
        tuple(_filled(cell, path, first, last) for cell in row)
        for path, first, last, shape in runs
        for row in shape
    ]


def _layer(name: str, depth: int) -> tuple[str, int]:
    """Path and index of the layer that the name belongs to; -1 if there is none."""
    parts, numbers = name.split("."), _numbers(name)
    if depth >= len(numbers) or not parts[numbers[depth]].isdigit():
        return "", -1
    return ".".join(parts[: numbers[depth]]), int(parts[numbers[depth]])


def _punched(cell: str, path: str, number: int) -> str:
    """A cell with holes where it names its layer, or the next one."""
    return _punch(_punch(cell, f"{path}.{number}", _HOLE), f"{path}.{number + 1}", _NEXT)


def _filled(cell: str, path: str, first: int, last: int) -> str:
    cell = cell.replace(_HOLE, f"{path}.{_span(first, last)}")
    return cell.replace(_NEXT, f"{path}.{_span(first + 1, last + 1)}")


def _punch(cell: str, layer: str, hole: str) -> str:
    return re.sub(rf"(?<![\w.]){re.escape(layer)}(?![\w…])", hole, cell)


def _span(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}…{last}"
