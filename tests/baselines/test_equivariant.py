"""The generic layer is equivariant and complete."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from baselines.equivariant import EquivariantLinear, Feature
from baselines.nfn import _features

WIDTHS = {
    "NP": {(3, 3, 3): 32, (2, 3, 3, 3): 62, (2, 3, 3, 3, 3): 100},
    "HNP": {(3, 3, 3): 149, (2, 3, 3, 3): 163, (2, 3, 3, 3, 3): 221},
}


def layer_of(widths: tuple[int, ...], variant: str) -> EquivariantLinear:
    shapes = [(out, into, 1) for into, out in itertools.pairwise(widths)]
    features = _features(shapes, 1, variant)  # type: ignore[arg-type]
    return EquivariantLinear(features, features).double()


def sizes_of(widths: tuple[int, ...]) -> dict[str, int]:
    return {f"n{i}": size for i, size in enumerate(widths)}


def random_values(features: tuple[Feature, ...], sizes: dict[str, int], batch: int) -> list[Tensor]:
    shapes = [(batch, *(sizes[a] for a in f.axes), f.channels) for f in features]
    return [torch.randn(shape, dtype=torch.float64) for shape in shapes]


@pytest.mark.parametrize(
    ("variant", "widths", "dimension"),
    [(v, w, d) for v, table in WIDTHS.items() for w, d in table.items()],
)
def test_one_parameter_per_equivariant_map(
    variant: str, widths: tuple[int, ...], dimension: int
) -> None:
    """As many weights as the space of equivariant maps has dimensions, all of them independent."""
    layer, sizes = layer_of(widths, variant), sizes_of(widths)
    weights = [linear.weight for linear in layer.mix]
    assert sum(weight.numel() for weight in weights) == dimension
    probes = random_values(layer.inputs, sizes, 40)
    columns = []
    with torch.no_grad():
        for linear in layer.mix:
            linear.weight.zero_()
            if linear.bias is not None:
                linear.bias.zero_()
        for weight in weights:
            for place in range(weight.numel()):
                weight.view(-1)[place] = 1
                columns.append(torch.cat([v.flatten() for v in layer(probes)]))
                weight.view(-1)[place] = 0
    assert int(torch.linalg.matrix_rank(torch.stack(columns))) == dimension


@pytest.mark.parametrize("variant", WIDTHS)
def test_commutes_with_permutations(variant: str) -> None:
    widths = (2, 4, 5, 3)
    layer, sizes = layer_of(widths, variant), sizes_of(widths)
    values = random_values(layer.inputs, sizes, 2)
    orders = {axis: torch.randperm(size) for axis, size in sizes.items()}

    def move(tensors: list[Tensor], features: tuple[Feature, ...]) -> list[Tensor]:
        moved = []
        for value, feature in zip(tensors, features, strict=True):
            for place, axis in enumerate(feature.axes):
                value = value.index_select(1 + place, orders[axis])
            moved.append(value)
        return moved

    after = move(layer(values), layer.outputs)
    before = layer(move(values, layer.inputs))
    for first, second in zip(after, before, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-12, atol=1e-12)


def test_moving_one_axis_of_one_feature_only_is_noticed() -> None:
    layer = layer_of((2, 4, 5, 3), "NP")
    values = random_values(layer.inputs, sizes_of((2, 4, 5, 3)), 1)
    moved = [values[0], values[1].flip(2), *values[2:]]
    assert (layer(values)[0] - layer(moved)[0]).abs().max() > 1e-3


def test_against_a_slow_reference() -> None:
    """Entry by entry, for a matrix that reads a matrix with one shared axis."""
    layer = EquivariantLinear([Feature(("a", "b"), 2)], [Feature(("b", "c"), 3)]).double()
    value = torch.randn(2, 4, 5, 2, dtype=torch.float64)
    other = torch.randn(2, 5, 6, 3, dtype=torch.float64)  # gives axis c its size
    both = EquivariantLinear(
        [Feature(("a", "b"), 2), Feature(("b", "c"), 3)], [Feature(("b", "c"), 3)]
    ).double()
    with torch.no_grad():
        for kept, target in zip(both._kept, both.mix, strict=True):
            target.weight.zero_()
            if kept in layer._kept:
                source = layer.mix[layer._kept.index(kept)]
                target.weight[:, :2] = source.weight
            if target.bias is not None:
                target.bias.copy_(layer.mix[layer._kept.index(())].bias)
    (found,) = both([value, other])
    overall, shared = layer.mix[layer._kept.index(())], layer.mix[layer._kept.index(("b",))]
    for b, c in itertools.product(range(5), range(6)):
        expected = overall(value.mean((1, 2))) + shared(value[:, :, b].mean(1))
        torch.testing.assert_close(found[:, b, c], expected)
