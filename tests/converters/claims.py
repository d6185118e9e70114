"""Specs with claims that are false on purpose, so that tests do not lean on a rule being wrong."""

from __future__ import annotations

from dataclasses import replace

from gmn.spec import Axis, Gauge, GraphSpec, Scaling, ScalingTerm, Translation, TranslationTerm

FALSE_SCALE = "false.scale"


def with_false_scale(spec: GraphSpec, edge_set: str, dim: int = 0) -> GraphSpec:
    """Claims that one dimension of one edge set may be scaled by itself."""
    edges = spec.edge_set(edge_set)
    axis = edges.dims[dim].axis
    assert axis is not None
    term = ScalingTerm(edge_set, (dim,), 1.0)
    scaling = Scaling(FALSE_SCALE, "positive", (axis,), (edges.dims[dim].size,), (term,))
    return replace(spec, scalings=(*spec.scalings, scaling))


def with_false_shift(spec: GraphSpec, edge_set: str) -> GraphSpec:
    """Claims that anything may be added to a bias."""
    edges = spec.edge_set(edge_set)
    axis, size = edges.dims[0].axis, edges.dims[0].size
    shift = Translation("false.shift", (axis,), (size,), (TranslationTerm(edge_set, (0,)),))
    return replace(spec, translations=(*spec.translations, shift))


def with_false_basis(spec: GraphSpec, scaling: str) -> GraphSpec:
    """Claims a change of basis where there is a scaling."""
    found = next(s for s in spec.scalings if s.name == scaling)
    gauge = Gauge("false.basis", "general", found.axes, found.shape, found.terms)
    others = tuple(s for s in spec.scalings if s.name != scaling)
    return replace(spec, scalings=others, gauges=(*spec.gauges, gauge))


def with_axis(spec: GraphSpec, name: str, movable: bool, within: tuple[str, ...] = ()) -> GraphSpec:
    """Claims that an axis may be permuted, or not."""

    def changed(axis: Axis) -> Axis:
        return replace(axis, movable=movable, within=within) if axis.name == name else axis

    return replace(spec, axes=tuple(map(changed, spec.axes)))
