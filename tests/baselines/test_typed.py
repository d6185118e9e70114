"""The layer with a matrix for each type of pair: equivariant, as its equation says, none twice."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from baselines.layers.equivariant import EquivariantLinear, Feature, Selection
from baselines.layers.patterns import pattern
from baselines.layers.typed import Member, TypedLinear
from tests.baselines.ranks import rank_of

SIZES = {"a": 3, "b": 4, "c": 5, "d": 3, "h": 2, "u": 3}

# Features with their types and places.
FORMS: dict[str, list[tuple[Feature, str, int]]] = {
    "chain": [
        (Feature(("a",), 2), "first", 1), (Feature(("a",), 1), "bias", 1),
        (Feature(("b", "a"), 1), "weight", 2), (Feature(("b",), 1), "bias", 2),
        (Feature(("c", "b"), 1), "weight", 3), (Feature(("c",), 1), "bias", 3),
    ],
    "stream": [
        (Feature(("b", "d"), 1), "weight", 1), (Feature(("d", "b"), 1), "weight", 2),
        (Feature(("d",), 1), "gain", 2), (Feature(("d", "c"), 1), "weight", 3),
        (Feature(("d",), 1), "gain", 3), (Feature(("d",), 1), "gain", 3),
    ],
    "squares": [
        (Feature(("d", "d"), 1), "weight", 1), (Feature(("b", "b"), 1), "weight", 2),
        (Feature(("d",), 1), "bias", 1),
    ],
    "heads": [
        (Feature(("d", "h", "u"), 1, ((), (), (1,))), "query", 1),
        (Feature(("d", "h", "u"), 1, ((), (), (1,))), "query", 2),
        (Feature(("h", "u"), 1, ((), (0,))), "bias", 1),
    ],
}  # fmt: skip
every_form = pytest.mark.parametrize("name", FORMS)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def layer_of(name: str) -> TypedLinear:
    features = [feature for feature, _, _ in FORMS[name]]
    members = [Member(type_, place) for _, type_, place in FORMS[name]]
    return TypedLinear(features, features, members, range(len(features))).double()


def values_of(layer: TypedLinear, batch: int = 2) -> list[Tensor]:
    shapes = [(batch, *(SIZES[a] for a in f.axes), f.channels) for f in layer.inputs]
    return [torch.randn(shape, dtype=torch.float64) for shape in shapes]


@every_form
def test_against_a_slow_reference(name: str) -> None:
    """The complete layer, whose matrix of each pair is a sum of shared ones over their numbers."""
    layer = layer_of(name)
    complete = EquivariantLinear(layer.inputs, layer.outputs).double()
    kept = {
        matrix: weights.view(matrix.output.pattern.channels, -1)
        for matrix, weights in zip(layer._matrices, layer.weight.split(layer._sizes), strict=True)
    }
    with torch.no_grad():
        for term, linear in zip(complete._terms, complete.mix, strict=True):
            linear.weight.copy_(torch.cat([
                torch.cat([
                    sum(
                        weights / len(near)
                        for (output, source, average), weights in kept.items()
                        if output[2:] == (receiver.reading, receiver.in_order)
                        and output[:2] == kind(name, receiver.feature)
                        for near in [alike(name, term.sources, receiver, source, average)]
                        if index in near
                    )
                    for index in range(len(term.sources))
                ], dim=1)
                for receiver in term.receivers
            ]))  # fmt: skip
            if linear.bias is not None:
                linear.bias.copy_(layer.bias)
    values = values_of(layer)
    for found, expected in zip(layer(values), complete(values), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def kind(name: str, feature: int) -> tuple[str, Feature]:
    return FORMS[name][feature][1], pattern(FORMS[name][feature][0])


def alike(
    name: str, sources: list[Selection], receiver: Selection, way: tuple[object, ...], average: int
) -> list[int]:
    """Sources that have the axes in a way, seen from a receiver: all, those beside it, its own."""
    order = sorted(range(len(receiver.blocks)), key=receiver.blocks.__getitem__)
    found = []
    for index, source in enumerate(sources):
        blocks = tuple(source.blocks[axis] for axis in order)
        if (*kind(name, source.feature), source.reading, blocks) == way:
            places = FORMS[name][source.feature][2], FORMS[name][receiver.feature][2]
            near = (True, places[0] == places[1], source.feature == receiver.feature)
            found += [index] if near[average] else []
    return found


@every_form
def test_all_maps_are_independent(name: str) -> None:
    layer = layer_of(name)
    values = values_of(layer, 40)  # more than there are numbers that one output reads
    assert rank_of(nn.ModuleList([layer]), lambda: layer(values)) == layer.weight.numel()


@every_form
def test_is_the_complete_layer_where_all_types_differ(name: str) -> None:
    features = [feature for feature, _, _ in FORMS[name]]
    members = [Member(index, 0) for index in range(len(features))]
    layer = TypedLinear(features, features, members, range(len(features)))
    complete = EquivariantLinear(features, features)
    assert layer.weight.numel() == sum(linear.weight.numel() for linear in complete.mix)
    assert layer.bias.numel() == sum(m.bias.numel() for m in complete.mix if m.bias is not None)


def test_starts_with_the_bounds_of_the_complete_layer() -> None:
    features = [Feature(("a",), 40), Feature((), 30)]
    layer = TypedLinear(features, features, [Member(0, 0), Member(1, 0)], [0, 1])
    for index, matrix in enumerate(layer._matrices):
        fan = 110 if matrix.output.pattern.axes else 70
        largest = float(layer.weight.detach().split(layer._sizes)[index].abs().max())
        assert 0.95 < largest * fan**0.5 <= 1 + 1e-6
