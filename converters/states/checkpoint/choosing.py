"""Chooses the state dict among the mappings that a checkpoint holds."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from .errors import CheckpointError
from .machine import RecordedCall
from .meter import DEEPEST, Meter
from .tensors import LazyTensor, StorageRef, Store, read_leaf

_MOST_ENTRIES = 300_000
_CONTAINERS = (dict, list, tuple, RecordedCall)
_INNER = object()  # a node whose entries follow one by one
_PREFIXES = ("module.", "_orig_mod.")


@dataclass(frozen=True)
class Candidate:
    """A mapping that could be the state dict.

    Attributes:
        path: the names that lead to it; none for the whole file.
        leaves: its tensors.
        others: names and kinds of its entries that are no tensors.
    """

    path: tuple[str, ...]
    leaves: dict[str, LazyTensor]
    others: tuple[str, ...]

    @property
    def key(self) -> str:
        """Dotted path in the file; empty for the whole file."""
        return ".".join(self.path)

    @property
    def parameters(self) -> int:
        """Elements of its floating-point tensors, single numbers left out."""
        return sum(leaf.size for leaf in self.leaves.values() if _is_weight(leaf))


@dataclass(frozen=True)
class Chosen:
    """The state dict of a checkpoint.

    Attributes:
        key: where it lies, dotted; empty for the whole file.
        leaves: its tensors, prefixes taken off.
        prefix: what was taken off every name.
        ignored: what else the file holds, by name and kind.
    """

    key: str
    leaves: dict[str, LazyTensor]
    prefix: str
    ignored: tuple[str, ...]


def choose(content: object, store: Store | None, meter: Meter, key: str | None) -> Chosen:
    """Finds the state dict.

    Without ``key`` it is the mapping with the most floating-point elements, the first of equals;
    optimizers, known by their ``state`` and ``param_groups``, do not count.

    Args:
        content: what the file holds.
        store: where its storages are.
        meter: of the file.
        key: the dotted path of the state dict, or of one tensor; empty for the whole file; None
            to find it.

    Raises:
        CheckpointError: if there are no weights, nothing lies at ``key``, or no mapping stands out.
    """
    reader = Reader(store, meter)
    candidates = reader.everything(content)
    if key is None:
        best = _largest(candidates)
    else:
        node, path = reader.at(content, key)
        leaf = read_leaf(node, reader.store)
        one = Candidate(path[:-1], {path[-1]: leaf}, ()) if leaf is not None and path else None
        best = one or Candidate(path, *reader.flat(node))
        if not best.leaves:
            raise CheckpointError(f"there are no tensors at key={key!r}; {_listing(candidates)}")
    meter.name(len(best.key) * len(best.others))
    others = [f"{best.key}.{name}".lstrip(".") for name in best.others]
    siblings = list(reader.left_out(content, best.path))
    prefix = common_prefix(best.leaves)
    leaves = {name.removeprefix(prefix): leaf for name, leaf in best.leaves.items()}
    return Chosen(best.key, leaves, prefix, (*others, *siblings))


def common_prefix(leaves: dict[str, LazyTensor]) -> str:
    """The ``module.`` and ``_orig_mod.`` that stand before the name of every weight."""
    names = [name for name, leaf in leaves.items() if _is_weight(leaf)] or list(leaves)
    prefix = ""
    while names:
        longer = next(
            (prefix + p for p in _PREFIXES if all(n.startswith(prefix + p) for n in names)), None
        )
        if longer is None:
            break
        prefix = longer
    return prefix


def _is_weight(leaf: LazyTensor) -> bool:
    return bool(leaf.problem) or (len(leaf.shape) > 0 and leaf.dtype.is_floating_point)


def _largest(candidates: list[Candidate]) -> Candidate:
    def size(candidate: Candidate) -> tuple[int, int]:
        return candidate.parameters, sum(1 for leaf in candidate.leaves.values() if leaf.problem)

    best = max(candidates, key=size, default=None)
    if best is None or not any(_is_weight(leaf) for leaf in best.leaves.values()):
        raise CheckpointError(
            "there are no floating-point tensors in it; pass the file that holds the weights"
        )
    # Averages of the same weights are equals; parts of one network are not, and need a word.
    rest = sum(c.parameters for c in candidates if c.leaves.keys() != best.leaves.keys())
    if rest > best.parameters:
        raise CheckpointError(
            f"its weights are spread over several mappings, none of which has the most of them; "
            f"choose with key= (--key); {_listing(candidates)}"
        )
    return best


def _listing(candidates: list[Candidate]) -> str:
    largest = sorted(candidates, key=lambda c: -c.parameters)[:6]
    names = [f"{c.key!r} ({c.parameters:,} parameters)" for c in largest]
    return f"it has tensors at {', '.join(names)}" if names else "it has none anywhere"


class Reader:
    """Walks through what a pickle holds.

    Args:
        store: where its storages are; None if it has none.
        meter: of the file. A node may be referred to a million times, so visits count.
    """

    def __init__(self, store: Store | None, meter: Meter) -> None:
        self.store = store if store is not None else _NoStore()
        self._meter = meter
        self._children: dict[int, dict[str, Any]] = {}

    def children(self, node: object) -> dict[str, Any]:
        """The children of a dict, list, or recorded object by name, to be looked at once."""
        found = self._children.get(id(node))
        if found is None:
            found = self._children[id(node)] = self._list_children(node)
        self._meter.build(1 + len(found))
        return found

    def _list_children(self, node: object) -> dict[str, Any]:
        if isinstance(node, dict):
            return node
        if isinstance(node, (list, tuple)):
            self._meter.build(len(node))
            return {str(index): child for index, child in enumerate(node)}
        if not isinstance(node, RecordedCall):
            return {}
        if node.path.endswith("OrderedDict"):
            return self._merged(self._pairs(node.arguments), node.items)
        return self._merged(node.items, self._attributes(node), self.children(node.members))

    def _merged(self, *parts: dict[str, Any]) -> dict[str, Any]:
        """One mapping of several; the only one that is not empty as it is."""
        full = [part for part in parts if part]
        if len(full) == 1:
            return full[0]
        self._meter.build(sum(map(len, full)))
        return {name: child for part in full for name, child in part.items()}

    def _pairs(self, arguments: tuple[Any, ...]) -> dict[str, Any]:
        pairs = arguments[0] if arguments and isinstance(arguments[0], (list, tuple)) else ()
        self._meter.build(len(pairs))
        return {
            pair[0]: pair[1]
            for pair in pairs
            if isinstance(pair, (list, tuple)) and len(pair) == 2 and isinstance(pair[0], str)
        }

    def _attributes(self, node: object) -> dict[str, Any]:
        parts = _states(node)
        return self._merged(*parts) if parts else {}

    def everything(self, content: object) -> list[Candidate]:
        """All mappings with tensors in them, optimizers left out."""
        candidates: list[Candidate] = []
        seen: set[int] = set()
        pending: list[tuple[tuple[str, ...], Any]] = [((), content)]
        while pending:
            path, node = pending.pop()
            if not isinstance(node, _CONTAINERS) or id(node) in seen or len(path) > DEEPEST:
                continue
            seen.add(id(node))
            children = self.children(node)
            if _is_optimizer(children):
                continue
            if _is_module(node):
                candidate = Candidate(path, *self.flat(node))
            else:
                candidate = Candidate(path, *self._direct(children))
                pending += reversed([((*path, name), child) for name, child in children.items()])
            if candidate.leaves:
                candidates.append(candidate)
        return candidates

    def _direct(self, children: dict[str, Any]) -> tuple[dict[str, LazyTensor], tuple[str, ...]]:
        leaves, others = {}, []
        for name, child in children.items():
            leaf = read_leaf(child, self.store)
            if leaf is not None:
                leaves[name] = leaf
            else:
                self._meter.name(len(name))
                others.append(f"{name} ({self.kind(child)})")
        return leaves, tuple(others)

    def flat(self, node: object) -> tuple[dict[str, LazyTensor], tuple[str, ...]]:
        """All tensors below a node by their dotted path: of a module, those of its state dict."""
        leaves: dict[str, LazyTensor] = {}
        others: list[str] = []
        for steps, (name, child) in enumerate(self._below(node, "", 0)):
            if steps > _MOST_ENTRIES:
                raise CheckpointError(f"it has more than {_MOST_ENTRIES:,} entries; save fewer")
            leaf = read_leaf(child, self.store)
            if leaf is not None:
                leaves[name] = leaf
            elif child is not _INNER:
                others.append(f"{name} ({self.kind(child)})")
        return leaves, tuple(others)

    def _below(self, node: object, prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
        if depth > DEEPEST:
            raise CheckpointError(f"damaged: nested more than {DEEPEST} deep at {prefix[:80]!r}")
        for name, child in self._members(node).items():
            self._meter.name(len(prefix) + len(name))
            inner = None if read_leaf(child, self.store) else self._members(child)
            if inner is None or not inner or _is_optimizer(inner):
                yield prefix + name, child
            else:
                yield prefix + name, _INNER
                yield from self._below(child, f"{prefix}{name}.", depth + 1)

    def _members(self, node: object) -> dict[str, Any]:
        """As in a state dict: a module's parameters, persistent buffers and submodules."""
        if not _is_module(node):
            return self.children(node)
        state = self._attributes(node)
        if "_parameters" not in state:  # scripted: attributes as they are
            return {n: c for n, c in state.items() if c is not None and not isinstance(c, bool)}
        transient = state.get("_non_persistent_buffers_set")
        if isinstance(transient, RecordedCall) and transient.arguments:
            transient = transient.arguments[0]  # of set(...)
        hidden = {name for name in self.children(transient).values() if isinstance(name, str)}
        buffers = self.children(state.get("_buffers"))
        groups = (
            self.children(state.get("_parameters")),
            {name: child for name, child in buffers.items() if name not in hidden},
            self.children(state.get("_modules")),
        )
        return {n: child for group in groups for n, child in group.items() if child is not None}

    def at(self, content: object, key: str) -> tuple[object, tuple[str, ...]]:
        """The node at a dotted path, and the path itself; names may contain dots themselves."""
        node, rest = content, key
        path: tuple[str, ...] = ()
        while rest:
            children = self.children(node)
            fitting = [n for n in children if n and (rest == n or rest.startswith(f"{n}."))]
            if not fitting:
                names = ", ".join(list(children)[:8]) or "nothing"
                raise CheckpointError(
                    f"there is no key {key!r}: instead of {rest!r} it has {names}"
                )
            name = max(fitting, key=len)
            node, rest, path = children[name], rest[len(name) + 1 :], (*path, name)
        return node, path

    def left_out(self, content: object, path: tuple[str, ...]) -> Iterator[str]:
        """Names and kinds of the siblings along the path to a node."""
        for depth, name in enumerate(path):
            children = self.children(content)
            for other, child in children.items():
                if other != name:
                    self._meter.name(sum(map(len, path[:depth])) + len(other))
                    yield f"{'.'.join((*path[:depth], other))} ({self.kind(child)})"
            content = children[name]

    def kind(self, node: object) -> str:
        """The kind of a node, for messages."""
        if read_leaf(node, self.store) is not None:
            return "tensor"
        if isinstance(node, RecordedCall):
            return node.path or "object"
        if isinstance(node, dict):
            return "optimizer" if _is_optimizer(node) else f"{len(node)} entries"
        return type(node).__name__


class _NoStore(Store):
    def open(self, ref: StorageRef) -> Any:
        raise CheckpointError("damaged: a tensor has no storage")


def _is_optimizer(children: dict[str, Any]) -> bool:
    return "param_groups" in children and "state" in children


def _states(node: object) -> list[dict[str, Any]]:
    """The mappings that hold the attributes of a stand-in: those of its state, and of slots."""
    state = node.state if isinstance(node, RecordedCall) else None
    parts = state if isinstance(state, tuple) and len(state) == 2 else (state,)
    return [part for part in parts if isinstance(part, dict)]


def _is_module(node: object) -> bool:
    """Whether a stand-in is that of an ``nn.Module``, eager or scripted."""
    if isinstance(node, RecordedCall) and node.path.startswith("__torch__."):
        return True
    states = _states(node)
    return all(any(name in state for state in states) for name in ("_parameters", "_modules"))
