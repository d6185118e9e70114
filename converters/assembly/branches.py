"""Finds branches that may be exchanged, by renaming entries in the forward graph.

Branches are parts of a sum, a product, a maximum or a mean of stacked values that look alike when
entries of one shape count as equal. That two of them may be exchanged is then proved: with
their entries renamed, the program computes the same expressions of the same entries
(:mod:`.expressions`). Only what changes is computed anew.
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx import Node

from gmn.spec import StateEntry

from .expressions import EntryHead, Expression, Expressions, ReorderedHead, RowHead

# For each name, the entry that it stands for, or two of whose indices trade places.
Renaming = Mapping[str, EntryHead | ReorderedHead]


@dataclass(frozen=True)
class Branches:
    """Branches that may be exchanged, any with any.

    Attributes:
        entries: names of the entries of each branch, in corresponding order.
        numbered: entries, with the dimension whose indices are the branches in their order.
    """

    entries: tuple[tuple[str, ...], ...]
    numbered: tuple[tuple[str, int], ...] = ()


def branches_of(
    exported: ExportedProgram, entries: Sequence[StateEntry], shared: frozenset[str] = frozenset()
) -> list[Branches]:
    """Finds branches that may be exchanged, largest sets first.

    Args:
        exported: the program, without writes in place.
        entries: the state dict.
        shared: names of entries that have memory in common with others; they stay.
    """
    program = _NumberedGraph(exported, entries)
    order = {entry.name: index for index, entry in enumerate(entries)}
    result: list[Branches] = []
    for alike in _alike(program):
        for steps in _classes(program, alike, shared):
            branches = _branches(steps, order)
            if branches is not None and not any(_covers(other, branches) for other in result):
                _add(result, branches)
    return result


# --- the program as expressions -----------------------------------------------------------------


class _NumberedGraph:
    """A forward graph with value numbers, also of its values after entries are renamed."""

    def __init__(self, exported: ExportedProgram, entries: Sequence[StateEntry]) -> None:
        self.expressions = Expressions()
        self.values: dict[Node, int] = {}
        self._places: dict[str, list[Node]] = defaultdict(list)
        self._order = {node: index for index, node in enumerate(exported.graph.nodes)}
        self._nodes = list(self._order)
        self._proved: dict[Hashable, bool] = {}
        self._looks: list[int] = []
        self._kinds: dict[Hashable, int] = {}
        owners = {entry.name: entry.tied_to or entry.name for entry in entries}
        given = _given(exported, owners)
        for node in self._nodes:
            if node.op == "placeholder":
                self._enter(node, given[node])
            elif node.op != "output":
                number = self.expressions.of_node(node, self.values.__getitem__)
                self.values[node] = number

    def _enter(self, node: Node, head: Hashable) -> None:
        value = node.meta.get("val")
        shape = tuple(int(size) for size in value.shape) if isinstance(value, Tensor) else None
        self.values[node] = self.expressions.enter(Expression(head), shape)
        if isinstance(head, EntryHead):
            self._places[head.name].append(node)

    def looks(self) -> Sequence[int]:
        """Value numbers of a graph in which entries of equal shape and type count as equal."""
        for made in self.expressions.by_number[len(self._looks) :]:  # operands come first
            operands = [self._looks[operand] for operand in made.operands]
            key = _nameless(made.head), tuple(sorted(operands) if made.unordered else operands)
            self._looks.append(self._kinds.setdefault(key, len(self._kinds)))
        return self._looks

    def keeps(self, renaming: Renaming) -> bool:
        """Whether all results are the same expressions when entries are renamed."""
        key = frozenset(renaming.items())
        if key not in self._proved:
            self._proved[key] = self._keeps(renaming)
        return self._proved[key]

    def _keeps(self, renaming: Renaming) -> bool:
        new: dict[Node, int] = {}
        waiting: list[int] = []
        listed: set[int] = set()

        def change(node: Node, number: int) -> None:
            new[node] = number
            fresh = {self._order[user] for user in node.users} - listed
            listed.update(fresh)
            for index in fresh:
                heapq.heappush(waiting, index)

        for name, head in renaming.items():
            for node in self._places[name]:
                shape = tuple(int(size) for size in node.meta["val"].shape)
                change(node, self.expressions.enter(Expression(head), shape))
        while waiting:
            node = self._nodes[heapq.heappop(waiting)]
            if node.op == "output":
                return False
            number = self.expressions.of_node(node, lambda n: new.get(n, self.values[n]))
            if number != self.values[node]:
                change(node, number)
        return True


def _given(exported: ExportedProgram, owners: Mapping[str, str]) -> dict[Node, Hashable]:
    """What each placeholder is: an entry, an input, or a constant by its values."""
    specs = {spec.arg.name: spec for spec in exported.graph_signature.input_specs}
    placeholders = [node for node in exported.graph.nodes if node.op == "placeholder"]
    constants = {
        node: exported.constants.get(specs[node.name].target)
        for node in placeholders
        if specs[node.name].kind != InputKind.USER_INPUT
    }
    alike = Counter(_looks(value) for value in constants.values())
    heads: dict[Node, Hashable] = {}
    for node in placeholders:
        spec, value = specs[node.name], node.meta.get("val")
        if spec.kind != InputKind.USER_INPUT and spec.target in owners and value is not None:
            heads[node] = EntryHead(owners[spec.target], tuple(value.shape), value.dtype)
            continue
        constant = constants.get(node)
        heads[node] = "given", node.name
        if isinstance(constant, Tensor) and alike[_looks(constant)] > 1:
            heads[node] = _constant(node, constant)
    return heads


def _looks(value: object) -> Hashable:
    return (tuple(value.shape), value.dtype) if isinstance(value, Tensor) else None


def _constant(node: Node, value: Tensor) -> Hashable:
    """A constant as a key: its values, or its name where it has none (meta tensors)."""
    if value.is_meta or type(value).__name__ == "FakeTensor" or value.layout != torch.strided:
        return "given", node.name
    plain = torch.view_as_real(value.resolve_conj()) if value.is_complex() else value
    data = plain.detach().cpu().contiguous().flatten().view(torch.uint8)
    return "constant", value.dtype, tuple(value.shape), data.numpy().tobytes()


# --- what looks alike ---------------------------------------------------------------------------


def _alike(program: _NumberedGraph) -> list[list[int]]:
    """Operands of sums, products and the like that differ only in entries, largest groups first."""
    expressions = program.expressions.by_number
    whole = {
        number
        for number in program.values.values()
        if expressions[number].unordered and number not in program.expressions.absorbed
    }
    if not any(len(set(expressions[number].operands)) > 1 for number in whole):
        return []
    looks = program.looks()
    result: list[list[int]] = []
    for number in sorted(whole):
        groups: dict[int, list[int]] = defaultdict(list)
        for operand in sorted(set(expressions[number].operands)):
            groups[looks[operand]].append(operand)
        result += [group for group in groups.values() if len(group) > 1]
    return sorted(result, key=len, reverse=True)


def _nameless(head: Hashable) -> Hashable:
    if isinstance(head, EntryHead):
        return "entry", head.shape, head.dtype
    if isinstance(head, RowHead):
        return "row", head.entry.shape, head.entry.dtype, head.dim
    return head


# --- what may trade places ----------------------------------------------------------------------

_FAILURES = 16  # attempts beyond two for each part, after which the others are not tried

Head = EntryHead | RowHead
HeadMap = Mapping[Head, Head]  # the renaming of entries from one branch to the next


def _classes(
    program: _NumberedGraph, alike: Sequence[int], shared: frozenset[str]
) -> Iterator[list[HeadMap]]:
    """For every class of exchangeable operands, the renamings from each to the next."""
    classes: list[tuple[list[int], list[HeadMap]]] = []
    left = 2 * len(alike) + _FAILURES
    for part in alike:
        for members, steps in classes[: max(left, 0)]:
            step = _step(program, members[-1], part)
            fits = not steps or {*steps[-1].values()} == step.keys()
            if fits and _proved(program, step, shared):
                members.append(part)
                steps.append(step)
                break
            left -= 1
        else:
            classes.append(([part], []))
    return (steps for _, steps in classes if steps)


def _step(program: _NumberedGraph, one: int, other: int) -> HeadMap:
    """The renaming of entries that maps one expression to another of the same form.

    Empty if an entry would get two names.
    """
    expressions, looks = program.expressions.by_number, program.looks()
    step: dict[Head, Head] = {}
    waiting, seen = [(one, other)], {(one, other)}
    while waiting:
        left, right = waiting.pop()
        if left == right:
            continue
        first, second = expressions[left].head, expressions[right].head
        if isinstance(first, (EntryHead, RowHead)) and isinstance(second, (EntryHead, RowHead)):
            if step.setdefault(first, second) != second:
                return {}
            continue
        for pair in _operands(looks, expressions[left], expressions[right]):
            if pair not in seen:
                seen.add(pair)
                waiting.append(pair)
    return step


def _operands(
    looks: Sequence[int], first: Expression, second: Expression
) -> Iterator[tuple[int, int]]:
    if not first.unordered:
        return zip(first.operands, second.operands, strict=True)
    own, others = Counter(first.operands), Counter(second.operands)
    left = sorted((own - others).elements(), key=lambda number: (looks[number], number))
    right = sorted((others - own).elements(), key=lambda number: (looks[number], number))
    return zip(left, right, strict=True)


def _proved(program: _NumberedGraph, step: HeadMap, shared: frozenset[str]) -> bool:
    renaming = _renaming(step)
    return bool(renaming) and shared.isdisjoint(renaming) and program.keeps(renaming)


def _renaming(step: HeadMap) -> Renaming:
    """The renaming in both directions; empty if that is no exchange."""
    entries: dict[str, EntryHead | ReorderedHead] = {}
    rows: dict[EntryHead, tuple[set[int], set[tuple[int, int]]]] = {}
    whole: dict[EntryHead, EntryHead] = {}
    for before, after in step.items():
        if (
            isinstance(before, RowHead)
            and isinstance(after, RowHead)
            and before.entry == after.entry
        ):
            dims, swapped = rows.setdefault(before.entry, (set(), set()))
            dims.add(before.dim)
            swapped.add((before.index, after.index))
            continue
        one, other = _owner(before), _owner(after)
        if whole.setdefault(one, other) != other or _index(before) != _index(after):
            return {}
    both = [*whole, *whole.values(), *rows]
    if not whole or len(both) != len(set(both)):
        return {}
    for one, other in whole.items():
        if (one.shape, one.dtype) != (other.shape, other.dtype):
            return {}
        entries[one.name], entries[other.name] = other, one
    pairs = {pair for _, swapped in rows.values() for pair in swapped}
    if len(pairs) > 1 or any(len(dims) > 1 for dims, _ in rows.values()):
        return {}
    for entry, (dims, swapped) in rows.items():
        entries[entry.name] = ReorderedHead(entry, min(dims), min(swapped))
    return entries


def _owner(leaf: Head) -> EntryHead:
    return leaf if isinstance(leaf, EntryHead) else leaf.entry


def _index(leaf: Head) -> int | None:
    return None if isinstance(leaf, EntryHead) else leaf.index


def _branches(steps: Sequence[HeadMap], order_of: Mapping[str, int]) -> Branches | None:
    """Branches from the renamings between them; None if they share entries."""
    lists = [sorted(steps[0], key=lambda leaf: (order_of[_owner(leaf).name], _index(leaf) or 0))]
    for step in steps:
        lists.append([step[leaf] for leaf in lists[-1]])
    numbered, moved = set(), []
    for k in range(len(lists[0])):
        column = [leaves[k] for leaves in lists]
        owners = [_owner(leaf) for leaf in column]
        if len(set(owners)) == len(owners):
            moved.append(tuple(owner.name for owner in owners))
        elif len(set(owners)) == 1 and isinstance(row := column[0], RowHead):
            indices = tuple(leaf.index for leaf in column if isinstance(leaf, RowHead))
            numbered.add((owners[0].name, row.dim, owners[0].shape[row.dim], indices))
        else:
            return None
    moved = list(dict.fromkeys(moved))
    names = [name for column in moved for name in column]
    if not moved or len(names) != len(set(names)):
        return None
    branches = [*zip(*moved, strict=True)]
    order = {indices for _, _, _, indices in numbered} or {tuple(range(len(branches)))}
    sizes = {size for _, _, size, _ in numbered} or {len(branches)}
    if len(order) > 1 or sizes != {len(branches)}:
        return None
    by_index = dict(zip(order.pop(), branches, strict=True))
    return Branches(
        tuple(by_index[index] for index in sorted(by_index)),
        tuple(sorted((name, dim) for name, dim, _, _ in numbered)),
    )


def _add(result: list[Branches], branches: Branches) -> None:
    """Adds branches, merged with those that share a branch with them."""
    for k, other in enumerate(result):
        alike = not {*other.entries}.isdisjoint(branches.entries)
        if alike and not other.numbered and not branches.numbered:
            result[k] = Branches((*dict.fromkeys([*other.entries, *branches.entries]),))
            return
    result.append(branches)


def _covers(one: Branches, other: Branches) -> bool:
    """Whether the first set of branches contains the second."""
    covered = {frozenset(branch) for branch in one.entries}
    return one.numbered == other.numbered and covered.issuperset(map(frozenset, other.entries))
