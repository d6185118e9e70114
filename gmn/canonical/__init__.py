"""Canonical forms: one representative of all networks that scales, signs and shifts relate.

The symmetries of a spec are taken out one kind after the other, each leaving the function as it
is: what may be added (:mod:`.shifts`), positive scales and changes of basis (:mod:`.balance`), the
rotations that balancing leaves (:mod:`.bases`), and signs (:mod:`.signs`). Permutations of neurons
and exchanges of branches are not: what reads a canonical form should not mind them, and the form
moves with them.
"""

from __future__ import annotations

import torch

from gmn.canonical.balance import balanced
from gmn.canonical.bases import in_principal_bases
from gmn.canonical.shifts import without_shifts
from gmn.canonical.signs import with_positive_signs
from gmn.graph import ParameterGraph

__all__ = ["balanced", "canonical", "in_principal_bases", "with_positive_signs", "without_shifts"]


@torch.no_grad()
def canonical(
    graph: ParameterGraph,
    *,
    shifts: bool = True,
    scales: bool = True,
    bases: bool = True,
    signs: bool = True,
) -> ParameterGraph:
    """The canonical form of every network of the graph.

    Networks that translations, phases, scales, changes of basis and signs of the spec relate get
    the same form, up to rounding; it computes the same function. Permutations of neurons and
    exchanges of branches move it along, but for permutations within a basis, which it takes out,
    too: its directions are sorted.

    Where symmetries of a network itself leave a choice, the form is not unique: equal singular
    values of a head, and neurons whose incoming weights have no odd moment. Values that only a
    limit of scales reaches (a neuron without input, the null space of a head) are exactly 0.

    To keep what is removed as well, read both: ``stack([canonical(graph), graph])``.

    Args:
        graph: the networks; left as it is.
        shifts: whether to take out translations and the phases of sines.
        scales: whether to balance positive scales.
        bases: whether to balance changes of basis and sort their directions.
        signs: whether to choose signs, those of the bases' directions included if ``bases``.
    """
    if shifts:
        graph = without_shifts(graph)
    if scales or bases:
        graph = balanced(graph, scales=scales, bases=bases)
    if bases:
        graph = in_principal_bases(graph)
    if signs:
        graph = with_positive_signs(graph, bases=bases)
    return graph
