"""Decides which axes may be permuted separately at each index of another (wreath products)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from .axes import Atom, Axis, atoms, fix, resolve, terms


def _roots(within: set[Atom]) -> set[Atom]:
    """Root atoms of a dependence; one that became a concatenation is given up."""
    result: set[Atom] = set()
    for atom in within:
        axis = resolve((atom,))
        if all(isinstance(factor, Atom) for factor in axis):
            result.update(atoms(axis))
    return result


def settle_dependence(
    values: Iterable[Sequence[Axis]], contractions: Iterable[tuple[Axis, Sequence[Axis]]] = ()
) -> None:
    """Drops every dependence that some value of the graph does not allow.

    Each child in a value must have its parent there exactly once, in its own term of its own
    dimension or else in the other dimensions: without it, entries could not know which permutation
    to follow; with several, they could not know which one to ask. What is left must be transitive,
    or the permutations would not form a group.

    Args:
        values: the axes of every value of the traced graph.
        contractions: axes that are summed over, each with the axes in which the factors agree.
    """
    counted = [[[Counter(atoms(term)) for term in terms(a)] for a in value] for value in values]
    everything = {atom for value in counted for dim in value for term in dim for atom in term}
    for value in counted:
        present = sum((term for dim in value for term in dim), Counter[Atom]())
        for atom in present:
            if atom.stack is not None and present[atom.stack] != 1:
                fix((atom,), "taken apart, but also used as a whole")
    for atom in everything:
        atom.within = _roots(atom.within) - {atom}
    for atom in everything:
        atom.siblings = atom.siblings | atom.within
        for parent in atom.within:
            parent.siblings.add(atom)
    for value in counted:
        whole = [sum(dim, Counter[Atom]()) for dim in value]
        for place, dim in enumerate(value):
            others = sum(whole[:place] + whole[place + 1 :], Counter[Atom]())
            for term in dim:
                for atom in term:
                    atom.within = {p for p in atom.within if (term[p] or others[p]) == 1}
    for summed, aligned in contractions:
        agree = {atom for axis in (summed, *aligned) for atom in atoms(axis)}
        for atom in atoms(summed):
            atom.within &= agree
    changed = True
    while changed:
        changed = False
        for atom in everything:
            kept = {p for p in atom.within if p.fixed or p.within <= atom.within}
            changed |= kept != atom.within
            atom.within = kept
