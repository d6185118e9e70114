"""Reads the nested containers and tensors that were given to ``torch.save``."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from .errors import CheckpointError
from .machine import RecordedCall
from .meter import DEEPEST, Meter
from .tensors import Store, read_leaf


def nested_values(content: object, store: Store | None, meter: Meter) -> Any:
    """Dicts, lists, tuples, text, numbers, truth values, None and tensors, and nothing else.

    Args:
        content: what the file holds.
        store: where its storages are.
        meter: of the file.

    Raises:
        CheckpointError: if it holds anything else, or far more than its size allows.
    """
    return _Nested(store, meter).value(content, 0)


class _Nested:
    """One walk. What is referred to twice is copied, and counted, twice.

    So the result is a tree: to compare or print it costs no more than the meter allowed.
    """

    def __init__(self, store: Store | None, meter: Meter) -> None:
        self._store, self._meter, self._bytes = store, meter, 0

    def value(self, node: object, depth: int) -> Any:
        if depth > DEEPEST:
            raise CheckpointError("damaged: containers lie too deeply within one another")
        self._meter.build()
        if node is None or isinstance(node, (int, float)):
            return node
        if isinstance(node, str):
            self._meter.name(len(node))
            return node
        if isinstance(node, (list, tuple)):
            return type(node)(self.value(member, depth + 1) for member in node)
        if isinstance(node, dict):
            return self._named(node, depth)
        if isinstance(node, RecordedCall) and node.path == "collections.OrderedDict":
            return self._state_dict(node, depth)
        return self._tensor(node)

    def _named(self, items: dict[str, Any], depth: int) -> dict[str, Any]:
        return {name: self.value(item, depth + 1) for name, item in items.items()}

    def _state_dict(self, node: RecordedCall, depth: int) -> OrderedDict[str, Any]:
        """With the attribute that tells modules by which version of themselves it was made."""
        if node.arguments:
            raise CheckpointError("damaged: a state dict is made of other things than its entries")
        result = OrderedDict(self._named(node.items, depth))
        if isinstance(node.state, dict) and "_metadata" in node.state:
            result._metadata = self.value(node.state["_metadata"], depth + 1)  # type: ignore[attr-defined]
        return result

    def _tensor(self, node: object) -> Any:
        leaf = None if self._store is None else read_leaf(node, self._store)
        if leaf is None:
            raise CheckpointError(
                "it holds something other than numbers, text, tensors and containers of these"
            )
        if leaf.problem:
            raise CheckpointError(f"a tensor is {leaf.problem}")
        self._bytes += leaf.bytes
        self._meter.load(self._bytes)
        return leaf.load().clone()  # the file may be replaced while the tensor is in use
