"""Orbits of a spec's permutation group, counted entry by entry."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

import gmn
from gmn.symmetry import Element


def entries(spec: gmn.GraphSpec) -> dict[str, Tensor]:
    """A state dict of one network in which every floating-point number is one of its own."""
    state, count = {}, 0
    for entry in spec.entries:
        size = int(np.prod(entry.shape))
        numbers = torch.arange(count, count + size, dtype=torch.float64)
        state[entry.name] = numbers.reshape(entry.shape)
        count += size
    for entry in spec.entries:
        if entry.tied_to is not None:
            state[entry.name] = state[entry.tied_to]
    return state


def generators(spec: gmn.GraphSpec) -> Iterator[Element]:
    """Swaps of neighbouring indices of one axis, within one index of what it is nested in."""
    for axis in spec.symmetries.permutations:
        parents = [spec.axis(name).size for name in axis.within]
        for group in range(int(np.prod(parents))):
            for place in range(axis.size - 1):
                table = torch.arange(axis.size).repeat(int(np.prod(parents)), 1)
                table[group, [place, place + 1]] = table[group, [place + 1, place]]
                yield Element(spec, {axis.name: table.view(*parents, axis.size)}, {})


def orbits_of_pairs(spec: gmn.GraphSpec) -> int:
    """Dimension of the space of equivariant linear maps from a network's weights to its weights."""
    state = entries(spec)
    primary = [e.name for e in spec.entries if e.tied_to is None and e.floating]
    used = torch.cat([state[name].flatten() for name in primary]).long().numpy()
    number = np.full(used.max() + 1, -1)
    number[used] = np.arange(len(used))
    size, first, second = len(used), [], []
    left, right = np.divmod(np.arange(size * size), size)
    for element in generators(spec):
        moved = element.act(state)
        images = torch.cat([moved[name].flatten() for name in primary]).long().numpy()
        image = number[images]
        first.append(left * size + right)
        second.append(image[left] * size + image[right])
    rows, columns = np.concatenate(first), np.concatenate(second)
    graph = coo_array((np.ones(len(rows)), (rows, columns)), shape=(size**2, size**2))
    return int(connected_components(graph, directed=False)[0])
