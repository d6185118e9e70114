"""The editor of DualGMN: changes of parameters that transform like the parameters."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from gmn import features
from gmn.canonical.layout import along
from gmn.canonical.shifts import flips, following, passing
from gmn.features import Descriptions
from gmn.graph import ParameterGraph
from gmn.graph.draft import Draft
from gmn.graph.topology import tap_order
from gmn.nn.dual.plan import RANKS, Plan, Product
from gmn.nn.dual.slots import Port
from gmn.nn.dual.stream import Blocks, taps_last
from gmn.spec import EdgeSet, TranslationTerm


class Editor(nn.Module):
    """Changes of parameters that transform like the parameters.

    With channels ``x`` that transform like neurons and ``y`` that transform inversely::

        ΔW_ji = Σ_c x_jc y_ic + W_ji (g_j + g'_i),    Δb_j = Γ x_j + b_j g_j

    where kernels weigh the channels differently at each tap, and ``g`` are functions of the
    invariant states. Running statistics stay as they are. Translations that pass a weight change
    with it.

    Where no sizes change at either end (signs, rotations, or nothing acts), ``x`` and ``y``
    transform alike, and both ends bring both: with values in ``x`` and gradients in ``y``,
    ``Σ_c y_jc x_ic`` is a step along the gradient. Under positive scales the gradient by a weight
    transforms inversely to the weight, and no such step moves along.

    Args:
        hidden: channels of node states; ``x`` and ``y`` have half as many.
        descriptions: describes edge sets.
    """

    def __init__(self, hidden: int, descriptions: Descriptions) -> None:
        super().__init__()
        self.descriptions = descriptions
        channels = hidden // 2
        self.of_target, self.of_source, self.step_target, self.step_source = (
            nn.Linear(channels, channels, bias=False) for _ in range(4)
        )
        self.added, self.step_added = (nn.Linear(channels, RANKS, bias=False) for _ in range(2))
        self.fact = nn.Linear(hidden, RANKS)
        self.gates = nn.Linear(hidden, 2)
        self.codes = nn.Linear(descriptions.edge_channels + features.TAP_FEATURES, RANKS)
        self.size = nn.Parameter(torch.tensor(0.01))

    def forward(
        self,
        graph: ParameterGraph,
        plan: Plan,
        blocks: Blocks,
        states: tuple[Tensor, Tensor, Tensor],
    ) -> ParameterGraph:
        """The edited networks.

        Args:
            graph: B networks.
            plan: the plan of their spec.
            blocks: their edge sets with taps last, translations and phases taken out.
            states: ``x`` and ``y`` (B, rows, d / 2) and ``h`` (B, N, d).
        """
        signs, passed = flips(graph), passing(graph)
        draft = Draft(graph.spec, graph.values)
        translations: list[tuple[TranslationTerm, Tensor]] = []
        for edges, change in self._changes(graph, plan, blocks, states):
            order = tap_order(edges)
            sizes = [edges.shape[dim] for dim in order]
            inverse = [0, *(1 + order.index(dim) for dim in range(len(order)))]
            change = (self.size * change).reshape(len(graph), *sizes).permute(inverse)
            if edges.name in signs:
                change = change * signs[edges.name]
            draft.block(edges).add_(change)
            translations += following(edges.name, change, passed)
        for term, values in translations:
            block = draft.block(term.edge_set)
            block.add_(along(values, term.dims, block))
        return graph.replace(draft.changed())

    def _changes(
        self,
        graph: ParameterGraph,
        plan: Plan,
        blocks: Blocks,
        states: tuple[Tensor, Tensor, Tensor],
    ) -> Iterator[tuple[EdgeSet, Tensor]]:
        """Changes of shape (B, *pair dims, taps) of all edge sets that hold parameters."""
        x, y, h = states
        channels = {False: plan.split(x), True: plan.split(y)}
        gates = plan.split(self.gates(plan.basis_mean(plan.to_rows(h))))
        products = {step.edges.name: step for step in plan.steps if isinstance(step, Product)}
        vectors = {vector.edges.name: vector.port for vector in plan.slots.vectors}
        gains = {gain.edges.name: gain for gain in reversed(plan.slots.gains)}
        described = self.descriptions.edges(plan.spec).to(h)
        for edges, description in zip(plan.spec.edge_sets, described, strict=True):
            if edges.tied_to is not None or not plan.spec.is_parameter(edges):
                continue
            values, name = blocks[edges.name], edges.name
            code = self.codes(features.with_taps(description, edges))
            if name in products and name in plan.slots.unfactored:
                step = products[name]
                gate = step.spread(gates[step.target.slot][..., 0], gates[step.source.slot][..., 1])
                yield edges, taps_last(graph.block(edges), edges) * gate.unsqueeze(-1)
                continue
            if name in products:
                step = products[name]
                target, source = self._ends(plan, channels, step.target, step.source)
                gate = step.spread(gates[step.target.slot][..., 0], gates[step.source.slot][..., 1])
                yield edges, step.outer(target, source, code) + values * gate.unsqueeze(-1)
                continue
            first, last = plan.span(edges.target)
            change = values.flatten(1, -2) * self.gates(h[:, first:last])[..., :1]
            if name in vectors:
                port = vectors[name]
                added = self.added(_at(channels, port))
                if plan.is_unsized(port):
                    added = added + self.step_added(_at(channels, port.inverse()))
                change = change + added @ code.T
            elif name in gains and plan.span_of(gains[name].source) == (first, last):
                gain = gains[name]
                target, source = self._ends(plan, channels, gain.target, gain.source)
                product = (target * source).unflatten(-1, (RANKS, -1)).sum(-1)
                change = change + product @ code.T
            elif edges in plan.slots.invariant_edges:
                change = change + self.fact(h[:, first:last]) @ code.T
            yield edges, change.reshape(values.shape)

    def _ends(
        self, plan: Plan, channels: dict[bool, tuple[Tensor, ...]], target: Port, source: Port
    ) -> tuple[Tensor, Tensor]:
        """What both ends of an edge set bring to the outer product."""
        targets = self.of_target(_at(channels, target))
        sources = self.of_source(_at(channels, source.inverse()))
        if plan.is_unsized(target) and plan.is_unsized(source):
            targets = targets + self.step_target(_at(channels, target.inverse()))
            sources = sources + self.step_source(_at(channels, source))
        return targets, sources


def _at(channels: dict[bool, tuple[Tensor, ...]], port: Port) -> Tensor:
    return channels[port.dual][port.slot]
