"""Names node sets and axes, in execution order."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from gmn.spec import Axis, NodeSet, Operation, Role

from ..inference.actions import Actions
from ..inference.axes import Atom, atoms
from .blocks import Block, NodeKey


class Names:
    """Names of node sets and axes, given in the order in which the network runs."""

    def __init__(self, actions: Actions, blocks: Sequence[Block]) -> None:
        self._trace = actions.trace
        order = {id(use): index for index, use in enumerate(actions.uses)}
        ordered = sorted(blocks, key=lambda block: order[id(block.use)])
        self._keys: dict[NodeKey, str] = {}
        self._taken: set[str] = set()
        for block in ordered:
            if block.source not in self._keys and block.source != block.target:
                self._name(block.source, self._source_name(block))
            if block.use.kind == "weight" or block.target not in self._keys:
                self._name(block.target, _module_of(block.use.parameter))
        self._atoms: dict[Atom, str] = {}
        self._keys_with: dict[Atom, list[NodeKey]] = {}
        taken: set[str] = set()
        for key, name in self._keys.items():
            for position, atom in enumerate(key):
                self._keys_with.setdefault(atom, []).append(key)
                if atom not in self._atoms:
                    proposal = name if len(key) == 1 else f"{name}.{position}"
                    self._atoms[atom] = unique(proposal, taken)

    def _source_name(self, block: Block) -> str:
        is_input = all("input" in atom.roles for atom in block.source)
        return "input" if is_input else f"{_module_of(block.use.parameter)}.input"

    def _name(self, key: NodeKey, proposal: str) -> None:
        if key in self._keys:
            return
        self._keys[key] = unique(proposal, self._taken)

    def node_set(self, key: NodeKey) -> str:
        """Name of a node set."""
        return self._keys[key]

    def axis(self, atom: Atom | None) -> str | None:
        """Name of an axis; None if it numbers no neurons."""
        return None if atom is None else self._atoms.get(atom)

    def axes(self) -> tuple[Axis, ...]:
        """All axes of the spec."""
        return tuple(
            Axis(name, atom.size, not atom.fixed and atom.size > 1, self._within(atom))
            for atom, name in self._atoms.items()
        )

    def _within(self, atom: Atom) -> tuple[str, ...]:
        parents = sorted(self._atoms[p] for p in atom.within if p in self._atoms)
        return () if atom.fixed else tuple(parents)

    def node_sets(self, operations: Sequence[tuple[Operation, object]]) -> tuple[NodeSet, ...]:
        """All node sets, with the operations that run on them."""
        operations_of: dict[NodeKey, list[Operation]] = {key: [] for key in self._keys}
        for operation, node in operations:
            value = self._trace.values[node]  # type: ignore[index]
            axes = value[0] if value and isinstance(value[0], list) else value
            for key in self.node_sets_on(frozenset(a for axis in axes for a in atoms(axis))):
                operations_of[key].append(operation)
        return tuple(
            NodeSet(
                name,
                _role(key),
                tuple(self._atoms[atom] for atom in key),
                tuple(atom.size for atom in key),
                tuple(operations_of[key]),
            )
            for key, name in self._keys.items()
        )

    def node_sets_on(self, present: frozenset[Atom]) -> list[NodeKey]:
        """The largest node sets whose axes a value has."""
        touched = {key for atom in present for key in self._keys_with.get(atom, ())}
        inside = [key for key in touched if present.issuperset(key)]
        return [k for k in inside if not any(set(k) < set(other) for other in inside)]


def unique(proposal: str, taken: set[str]) -> str:
    """A name that is not taken yet, with a suffix if need be; it is entered as taken."""
    names = itertools.chain([proposal], (f"{proposal}.{suffix}" for suffix in itertools.count(2)))
    name = next(name for name in names if name not in taken)
    taken.add(name)
    return name


def _module_of(parameter: str) -> str:
    return parameter.rpartition(".")[0] or parameter


def _role(key: NodeKey) -> Role:
    if any(not atom.fixed for atom in key):
        return "hidden"
    roles = {role for atom in key for role in atom.roles}
    return "input" if "input" in roles else "output" if "output" in roles else "ordered"
