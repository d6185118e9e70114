"""Elements that move along one symmetry alone, and specs with some symmetries removed."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

import torch
from torch import Tensor

from gmn import symmetry
from gmn.spec import Axis, Domain, Gauge, GraphSpec, NodeSet, Scaling
from gmn.symmetry import Element


def generators(spec: GraphSpec, permutations: bool = True) -> list[str]:
    """Names of the generators: axes, scalings, changes of basis, translations, exchanges."""
    group = spec.symmetries
    moving = group.permutations if permutations else ()
    return [part.name for part in (*moving, *group.followed, *group.exchanges)]


def moving(spec: GraphSpec, names: Iterable[str], generator: torch.Generator) -> Element:
    """A random element in which none of these generators is the identity.

    A fair permutation of two leaves them where they are half the time.

    Args:
        spec: the architecture.
        names: of its axes, scalings, gauges, translations and exchanges.
        generator: source of randomness, on the CPU.
    """
    parts = [_moving(spec, name, generator) for name in names]
    return Element(
        spec,
        {k: v for part in parts for k, v in part.permutations.items()},
        {k: v for part in parts for k, v in part.scales.items()},
        {k: v for part in parts for k, v in part.bases.items()},
        {k: v for part in parts for k, v in part.shifts.items()},
        {k: v for part in parts for k, v in part.exchanges.items()},
    )


def _moving(spec: GraphSpec, name: str, generator: torch.Generator) -> Element:
    while True:
        element = symmetry.only(spec, name, generator)
        moved = (*element.permutations.values(), *element.exchanges.values())
        idle = [*map(_keeps_order, moved)]
        idle += [_is_one(scale) for scale in element.scales.values()]
        if not any(idle):
            return element


def _keeps_order(permutation: Tensor) -> bool:
    return torch.equal(permutation, torch.arange(permutation.shape[-1]).expand_as(permutation))


def _is_one(scale: Tensor) -> bool:
    """Whether no sign is changed, or no phase moved."""
    return scale.numel() > 0 and bool((scale == 1).all() or (scale == 0).all())


def without(spec: GraphSpec, names: Collection[str]) -> GraphSpec:
    """The same architecture with fewer claims.

    Axes keep their order; what depended on their index still does. Neurons none of whose axes may
    move any more are ordered.

    Args:
        spec: the architecture.
        names: of axes, scalings, gauges, translations and exchanges to give up.
    """
    axes = tuple(_held(axis) if axis.name in names else axis for axis in spec.axes)
    movable = {axis.name for axis in axes if axis.movable}
    return replace(
        spec,
        axes=axes,
        node_sets=tuple(_ordered(nodes, movable, names) for nodes in spec.node_sets),
        scalings=tuple(s for s in spec.scalings if s.name not in names),
        gauges=tuple(g for g in spec.gauges if g.name not in names),
        translations=tuple(t for t in spec.translations if t.name not in names),
        exchanges=tuple(e for e in spec.exchanges if e.name not in names),
    )


def weaker(spec: GraphSpec, name: str) -> list[GraphSpec]:
    """The same architecture with a part of a claim in its place, larger parts first.

    Of one permutation per index of other axes, one for all of them; of a change of basis, its
    diagonal matrices.
    """
    if any(axis.name == name and axis.within for axis in spec.axes):
        axes = (replace(a, within=()) if a.name == name else a for a in spec.axes)
        return [replace(spec, axes=tuple(axes))]
    parts: tuple[tuple[Domain, ...], ...] = (("positive", "sign"), ("positive",), ("sign",))
    return [
        replace(
            without(spec, [name]),
            scalings=(*spec.scalings, *(_diagonal(gauge, domain) for domain in domains)),
        )
        for gauge in spec.gauges
        if gauge.name == name
        for domains in (parts if gauge.group == "general" else parts[2:])
    ]


def _diagonal(gauge: Gauge, domain: Domain) -> Scaling:
    return Scaling(f"{gauge.name}.{domain}", domain, gauge.axes, gauge.shape, gauge.terms)


def _held(axis: Axis) -> Axis:
    return replace(axis, movable=False, within=())


def _ordered(nodes: NodeSet, movable: Collection[str], names: Collection[str]) -> NodeSet:
    touched = nodes.role == "hidden" and any(axis in names for axis in nodes.axes)
    if touched and not any(axis in movable for axis in nodes.axes):
        return replace(nodes, role="ordered")
    return nodes
