"""Reads what a checkpoint holds beside tensors (settings, counters, metrics) as plain values."""

from __future__ import annotations

from typing import Any

import numpy as np

from .choosing import Reader
from .machine import Global, RecordedCall
from .meter import DEEPEST, Meter
from .tensors import LazyTensor, Store, as_bytes, encoded, np_dtype, read_leaf

_MOST = 100_000
_SCALARS = ("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")
_NOTHING = object()  # a node that has no plain value


def plain_values(content: object, store: Store | None, meter: Meter) -> Any:
    """Mappings, lists, text, numbers, truth values and None; all else is left out.

    Tensors and arrays of one element are numbers, larger ones are left out; a class or function is
    its dotted name; an object is the mapping of its attributes, such as that of a namespace.

    Args:
        content: what the file holds.
        store: where its storages are.
        meter: of the file.
    """
    values = _Plain(Reader(store, meter)).value(content, 0)
    return {} if values is _NOTHING else values


class _Plain:
    """One walk through a file; a node that is referred to many times is visited once."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._seen: dict[int, Any] = {}

    def value(self, node: object, depth: int) -> Any:
        if node is None or isinstance(node, (str, int, float)):
            return node
        if isinstance(node, Global):
            return node.path
        if id(node) not in self._seen:
            self._seen[id(node)] = _NOTHING  # also what a node is within itself
            if depth <= DEEPEST and len(self._seen) <= _MOST:
                self._seen[id(node)] = self._visit(node, depth)
        return self._seen[id(node)]

    def _visit(self, node: object, depth: int) -> Any:
        leaf = read_leaf(node, self._reader.store)
        if leaf is not None:
            return _number(leaf)
        if isinstance(node, RecordedCall) and node.path in _SCALARS:
            return _scalar(node)
        if isinstance(node, (list, tuple)):
            children = self._reader.children(node).values()
            members = [self.value(child, depth + 1) for child in children]
            return _NOTHING if any(m is _NOTHING for m in members) else members
        named = self._reader.children(node).items()
        values = {name: self.value(child, depth + 1) for name, child in named}
        kept = {name: value for name, value in values.items() if value is not _NOTHING}
        return kept if kept or node == {} else _NOTHING


def _number(leaf: LazyTensor) -> Any:
    return _NOTHING if leaf.problem or leaf.size != 1 else leaf.load().reshape(()).item()


def _scalar(node: RecordedCall) -> Any:
    """A number of numpy: its type, and its bytes."""
    kind, data = (*node.arguments, None, None)[:2]
    code = kind.arguments[0] if isinstance(kind, RecordedCall) and kind.arguments else None
    order = (
        kind.state[1] if isinstance(kind, RecordedCall) and isinstance(kind.state, tuple) else "|"
    )
    dtype = np_dtype(code, order) if isinstance(code, str) else None
    raw = encoded(data)
    if dtype is None or raw is None or len(raw) != dtype.itemsize:
        return _NOTHING
    return np.frombuffer(as_bytes(raw), dtype)[0].item()
