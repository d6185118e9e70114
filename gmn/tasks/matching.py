"""Weight matching: permutes hidden units to resemble those of another network."""

from __future__ import annotations

import torch
from torch import Tensor

from gmn.graph import ParameterGraph
from gmn.graph.draft import Draft
from gmn.graph.topology import view_block
from gmn.spec import Axis, EdgeSet

Orders = dict[str, Tensor]  # by axis: which old index stands at each place, shape (B, size)


def matched(
    graph: ParameterGraph,
    onto: ParameterGraph,
    sweeps: int = 3,
) -> ParameterGraph:
    """Permutes the hidden units of each network so that its weights lie close to another's.

    The first sweep goes through the network and assigns units by the weights that are settled
    already, those from the inputs on (linear sum assignment). Further ones assign the units of
    one axis after the other by all their weights, incoming and outgoing, until nothing changes
    (weight matching: Ainsworth et al., arXiv 2209.04836). In a chain of layers the result does not
    depend on the order in which the units of either network came, ties apart. It follows
    permutations of axes alone: not scales or signs, nor the units inside of each head or group, nor
    exchanges of branches.

    Args:
        graph: B networks; differentiable in their weights.
        onto: B networks of the same spec.
        sweeps: at most so many, the first included.

    Returns:
        The networks of ``graph`` in another order of units.
    """
    spec, orders = graph.spec, _same_order(graph)
    axes = [axis for axis in spec.symmetries.permutations if not axis.within]
    with torch.no_grad():
        pairs = [
            (edges, graph.block(edges), onto.block(edges))
            for edges in spec.edge_sets
            if edges.tied_to is None and spec.is_parameter(edges)
        ]
        settled = {axis.name for axis in spec.axes} - {axis.name for axis in axes}
        for sweep in range(sweeps):
            before = {name: order.clone() for name, order in orders.items()}
            for axis in axes:
                if sweep == 0:
                    settled.add(axis.name)
                usable = [p for p in pairs if _axes(p[0]) <= settled] or pairs
                likeness = _likeness(axis, usable, orders)
                if likeness is not None:
                    orders[axis.name] = _assign(likeness)
            if sweep and all(torch.equal(orders[name], before[name]) for name in orders):
                break
    return _reordered(graph, orders)


def _same_order(graph: ParameterGraph) -> Orders:
    return {
        axis.name: torch.arange(axis.size, device=graph.device).expand(len(graph), -1)
        for axis in graph.spec.symmetries.permutations
        if not axis.within
    }


def _axes(edges: EdgeSet) -> set[str]:
    return {dim.axis for dim in edges.dims if dim.axis is not None}


def _likeness(
    axis: Axis, pairs: list[tuple[EdgeSet, Tensor, Tensor]], orders: Orders
) -> Tensor | None:
    """Inner products of the weights of units (B, those of ``onto``, those of ``graph``)."""
    total = None
    for edges, own, other in pairs:
        for index, dim in enumerate(edges.dims):
            if dim.axis == axis.name:
                moved = _in_order(own, edges, orders, skip=index)
                rows = [
                    block.movedim(1 + index, 1).reshape(len(block), axis.size, -1)
                    for block in (other, moved)
                ]
                products = rows[0] @ rows[1].mT
                total = products if total is None else total + products
    return total


def _assign(likeness: Tensor) -> Tensor:
    from scipy.optimize import linear_sum_assignment  # takes long to import

    assigned = [linear_sum_assignment(table, maximize=True)[1] for table in likeness.cpu().numpy()]
    return torch.stack([torch.from_numpy(order) for order in assigned]).to(likeness.device)


def _in_order(block: Tensor, edges: EdgeSet, orders: Orders, skip: int | None = None) -> Tensor:
    """Permutes a block (B, *shape) along all of its dimensions but one."""
    for index, dim in enumerate(edges.dims):
        if index != skip and dim.axis in orders:
            shape = [len(block), *(1 for _ in edges.dims)]
            shape[1 + index] = dim.size
            block = block.take_along_dim(orders[dim.axis].reshape(shape), dim=1 + index)
    return block


def _reordered(graph: ParameterGraph, orders: Orders) -> ParameterGraph:
    draft = Draft(graph.spec, graph.values)
    for edges in graph.spec.edge_sets:
        if edges.tied_to is None and any(dim.axis in orders for dim in edges.dims):
            old = view_block(graph.values[edges.parameter], edges)
            draft.block(edges).copy_(_in_order(old, edges, orders))
    return graph.replace(draft.changed())
