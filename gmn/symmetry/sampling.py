"""Random elements of the symmetry group of a spec."""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from gmn.foundation.arguments import require_number, require_several, require_type
from gmn.spec import Axis, Exchange, Gauge, GraphSpec, Scaling, Translation
from gmn.symmetry.element import Element

KINDS = ("permutations", "exchanges", "scalings", "gauges", "translations")


def sample(
    spec: GraphSpec,
    generator: torch.Generator | None = None,
    *,
    scalings: bool = True,
    spread: float = 0.5,
    symmetries: Collection[str] | None = None,
) -> Element:
    """Draws a random element of the group, or of a part of it.

    Args:
        spec: the architecture.
        generator: source of randomness, on the CPU.
        scalings: False for permutations, of branches too, only: no scales, changes of basis and
            translations.
        spread: standard deviation of the logarithm of positive scales, and of translations.
        symmetries: which parts move, of :data:`KINDS`; None for what ``scalings`` says.

    Returns:
        Uniform permutations of every movable axis and of branches; log-normal positive scales;
        fair signs; bases with log-normal singular values between uniform rotations.

    Raises:
        ValueError: if ``symmetries`` holds another name.
    """
    _require(spec, generator)
    require_number("spread", spread, least=0)
    if symmetries is not None:
        require_several("symmetries", symmetries, f"some of {', '.join(KINDS)}")
    if symmetries is None:
        symmetries = KINDS if scalings else KINDS[:2]
    if unknown := set(symmetries) - set(KINDS):
        raise ValueError(f"no symmetries are called {sorted(unknown)}; there are {KINDS}")
    group = spec.symmetries
    moves, branches, scales, bases, shifts = (
        {part.name: draw(part) for part in parts} if kind in symmetries else {}
        for kind, parts, draw in (
            ("permutations", group.permutations, lambda a: _permutation(spec, a, generator)),
            ("exchanges", group.exchanges, lambda e: _exchange(e, generator)),
            ("scalings", group.scalings, lambda s: _scales(s, generator, spread)),
            ("gauges", group.gauges, lambda g: _basis(g, generator, spread)),
            ("translations", group.translations, lambda t: _shifts(t, generator, spread)),
        )
    )
    return Element(spec, moves, scales, bases, shifts, branches)


def _permutation(spec: GraphSpec, axis: Axis, generator: torch.Generator | None) -> Tensor:
    sizes = [spec.axis(name).size for name in axis.within]
    return torch.rand(*sizes, axis.size, generator=generator).argsort(dim=-1)


def _exchange(exchange: Exchange, generator: torch.Generator | None) -> Tensor:
    return torch.randperm(len(exchange.branches), generator=generator)


def _scales(scaling: Scaling, generator: torch.Generator | None, spread: float) -> Tensor:
    noise = torch.randn(scaling.shape, generator=generator, dtype=torch.float64)
    if scaling.domain == "phase":
        return (2 * noise).round()
    if scaling.domain == "sign":
        return torch.where(noise < 0, -1.0, 1.0).to(torch.float64)
    return (noise * spread).exp()


def _basis(gauge: Gauge, generator: torch.Generator | None, spread: float) -> Tensor:
    left, right = (_rotation(gauge.shape, generator) for _ in range(2))
    if gauge.group == "orthogonal":
        return left
    noise = torch.randn(gauge.shape, generator=generator, dtype=torch.float64)
    return left @ ((noise * spread).exp().unsqueeze(-1) * right)


def _rotation(shape: tuple[int, ...], generator: torch.Generator | None) -> Tensor:
    """Uniform orthogonal matrices (QR of Gaussians, its signs made unique)."""
    noise = torch.randn(*shape, shape[-1], generator=generator, dtype=torch.float64)
    rotation, triangle = torch.linalg.qr(noise)
    return rotation * triangle.diagonal(dim1=-2, dim2=-1).sign().unsqueeze(-2)


def _shifts(translation: Translation, generator: torch.Generator | None, spread: float) -> Tensor:
    return spread * torch.randn(translation.shape, generator=generator, dtype=torch.float64)


def only(spec: GraphSpec, name: str, generator: torch.Generator | None = None) -> Element:
    """Draws an element that moves one axis, scaling, gauge, translation or exchange only.

    Axes that depend on it keep their order within each index.

    Args:
        spec: the architecture.
        name: a movable axis, a scaling, a gauge, a translation or an exchange of the spec.
        generator: source of randomness, on the CPU.

    Raises:
        KeyError: if the spec has none of that name.
    """
    _require(spec, generator)
    for axis in spec.axes:
        if axis.name == name:
            return Element(spec, {name: _permutation(spec, axis, generator)}, {})
    for scaling in spec.scalings:
        if scaling.name == name:
            return Element(spec, {}, {name: _scales(scaling, generator, 0.5)})
    for gauge in spec.gauges:
        if gauge.name == name:
            return Element(spec, {}, {}, {name: _basis(gauge, generator, 0.5)})
    for translation in spec.translations:
        if translation.name == name:
            return Element(spec, {}, {}, {}, {name: _shifts(translation, generator, 0.5)})
    for exchange in spec.exchanges:
        if exchange.name == name:
            return Element(spec, {}, {}, exchanges={name: _exchange(exchange, generator)})
    raise KeyError(f"this spec has no axis, scaling, gauge, translation or exchange called {name}")


def _require(spec: GraphSpec, generator: torch.Generator | None) -> None:
    require_type("spec", spec, GraphSpec, "a gmn.GraphSpec, such as graph.spec")
    if generator is not None:
        require_type("generator", generator, torch.Generator, "a torch.Generator")
