"""The generic layer is equivariant and complete."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from baselines.layers.equivariant import EquivariantLinear, Feature, Restriction
from baselines.nfn import Variant, _features, _missing
from tests.baselines.ranks import rank_of

WIDTHS = {
    "NP": {(3, 3, 3): 32, (2, 3, 3, 3): 62, (2, 3, 3, 3, 3): 100},
    "HNP": {(3, 3, 3): 149, (2, 3, 3, 3): 163, (2, 3, 3, 3, 3): 221},
}


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def layer_of(
    widths: tuple[int, ...], variant: Variant, published: bool = False
) -> EquivariantLinear:
    shapes = [(out, into, 1) for into, out in itertools.pairwise(widths)]
    features = _features(shapes, 1, variant)
    missing = _missing(len(shapes), widths[-1], variant) if published else ()
    return EquivariantLinear(features, features, missing).double()


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
    layer = layer_of(widths, variant)
    assert sum(linear.weight.numel() for linear in layer.mix) == dimension
    assert rank(layer, sizes_of(widths)) == dimension


@pytest.mark.parametrize(
    ("variant", "widths", "published", "complete"),
    [
        ("HNP", (3, 3, 3), 146, 149),
        ("HNP", (2, 3, 3, 3), 160, 163),
        pytest.param("HNP", (2, 3, 3, 3, 3), 218, 221, marks=pytest.mark.slow),
        ("HNP", (3, 3), 144, 144),
        ("NP", (2, 3, 3, 3), 62, 62),
        ("DWS", (2, 3, 3, 4), 213, 222),
        pytest.param("DWS", (2, 3, 3, 3, 4), 276, 288, marks=pytest.mark.slow),
    ],
)
def test_published_layers_lack_maps(
    variant: Variant, widths: tuple[int, ...], published: int, complete: int
) -> None:
    """The ranks measured on the published codes; and those of ours, which lack nothing."""
    for dimension, layer in (
        (published, layer_of(widths, variant, published=True)),
        (complete, layer_of(widths, variant)),
    ):
        assert sum(linear.weight.numel() for linear in layer.mix) == dimension
        assert rank(layer, sizes_of(widths)) == dimension


def test_published_maps_are_some_of_the_complete_ones() -> None:
    """HNP without one block of weights; DWS with the same weights for every output."""
    for variant in ("HNP", "DWS"):
        small, large = (layer_of((2, 3, 3, 4), variant, which) for which in (True, False))
        with torch.no_grad():
            for few, all_ in zip(small.mix, large.mix, strict=True):
                matrix = few(torch.eye(all_.in_features).double())
                all_.weight.copy_((matrix if few.bias is None else matrix - few.bias).T)
                if few.bias is not None:
                    all_.bias.copy_(few.bias)
        values = random_values(small.inputs, sizes_of((2, 3, 3, 4)), 2)
        for first, second in zip(small(values), large(values), strict=True):
            torch.testing.assert_close(first, second, rtol=1e-12, atol=1e-12)


def test_a_restricted_layer_starts_with_the_bounds_of_the_complete_one() -> None:
    features = [Feature(("a",), 40), Feature((), 30)]
    layer = EquivariantLinear(features, features, [Restriction(0, 1), Restriction(0, 0, parts=4)])
    free = torch.cat([linear.weight.flatten() for linear in layer.mix])
    assert 0.95 < float(free.detach().abs().max() * 70**0.5) <= 110**0.5 / 70**0.5 + 1e-6
    shared = layer.mix[1](torch.eye(40)).unflatten(1, (4, 10))
    assert torch.equal(shared[:, :1].expand_as(shared), shared)


@pytest.mark.parametrize("variant", ["NP", "HNP", "DWS"])
@pytest.mark.parametrize("published", [False, True])
def test_commutes_with_permutations(variant: Variant, published: bool) -> None:
    widths = (2, 4, 5, 3)
    layer, sizes = layer_of(widths, variant, published), sizes_of(widths)
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


def rank(layer: EquivariantLinear, sizes: dict[str, int]) -> int:
    probes = random_values(layer.inputs, sizes, 40)
    return rank_of(layer.mix, lambda: layer(probes))


FORMS = {
    "chain": [Feature(("a", "b"), 2), Feature(("b", "c"), 3), Feature(("b",), 1)],
    "square": [Feature(("d", "d"), 2), Feature(("d",), 1), Feature(("a", "d"), 2)],
    "heads": [Feature(("d", "h", "u"), 2, ((), (), (1,))), Feature(("u", "h"), 1, ((1,), ()))],
    "square heads": [Feature(("h", "u", "u"), 1, ((), (0,), (0,))), Feature(("h", "h"), 1)],
    "two ends": [Feature(("h", "u", "h", "u"), 1, ((), (0,), (), (2,))), Feature(("h",), 2)],
}
SIZES = {"a": 3, "b": 2, "c": 4, "d": 4, "h": 2, "u": 3}


@pytest.mark.parametrize("name", FORMS)
def test_against_a_slow_reference(name: str) -> None:
    """Entry by entry: which indices must be equal, and over how many entries the mean goes."""
    features = FORMS[name]
    layer = EquivariantLinear(features, features).double()
    values = random_values(layer.inputs, SIZES, 2)
    found = layer(values)
    expected = [torch.zeros_like(value) for value in found]
    for term, linear in zip(layer._terms, layer.mix, strict=True):
        first_row = 0
        for target in term.receivers:
            rows = slice(first_row, first_row := first_row + features[target.feature].channels)
            written = layer._writes[target.feature][target.reading]
            first_column = 0
            for source in term.sources:
                width = features[source.feature].channels
                columns = slice(first_column, first_column := first_column + width)
                read = layer._reads[source.feature][source.reading]
                matrix, value = linear.weight[rows, columns], values[source.feature]
                for out in on_diagonal(features[target.feature], written.dims):
                    kept = [out[written.dims[block][0]] for block in target.blocks]
                    entries = [
                        value[(slice(None), *place)]
                        for place in on_diagonal(features[source.feature], read.dims)
                        if [place[read.dims[block][0]] for block in source.blocks] == kept
                    ]
                    mean = torch.stack(entries).mean(0)
                    expected[target.feature][(slice(None), *out)] += mean @ matrix.T
            if linear.bias is not None:
                for out in on_diagonal(features[target.feature], written.dims):
                    expected[target.feature][(slice(None), *out)] += linear.bias[rows]
    for first, second in zip(found, expected, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-12, atol=1e-12)


def on_diagonal(feature: Feature, blocks: tuple[tuple[int, ...], ...]) -> list[tuple[int, ...]]:
    """Indices of a feature that agree within each block."""
    indices = itertools.product(*(range(SIZES[axis]) for axis in feature.axes))
    return [i for i in indices if all(len({i[place] for place in b}) == 1 for b in blocks)]


@pytest.mark.parametrize(
    ("axes", "maps"), [(("d",), 2), (("d", "d"), 15), (("d", "e"), 4), (("d", "d", "d"), 203)]
)
def test_as_many_maps_as_partitions(axes: tuple[str, ...], maps: int) -> None:
    """Bell numbers of the axes of input and output together."""
    layer = EquivariantLinear([Feature(axes, 1)], [Feature(axes, 1)])
    assert sum(linear.weight.numel() for linear in layer.mix) == maps


@pytest.mark.parametrize(("size", "dimension"), [(2, 8), (3, 14), (4, 15), (5, 15)])
def test_short_axes_have_fewer_maps_and_all_are_there(size: int, dimension: int) -> None:
    """Partitions of four axes into at most ``size`` blocks: the layer spans them, some twice."""
    square = Feature(("d", "d"), 1)
    layer = EquivariantLinear([square], [square]).double()
    assert rank(layer, {"d": size}) == dimension


def test_transposes_and_diagonals_are_told_apart() -> None:
    layer = EquivariantLinear(FORMS["square"], FORMS["square"]).double()
    values = random_values(layer.inputs, SIZES, 1)
    turned = [values[0].transpose(1, 2), *values[1:]]
    mixed = [values[0][:, [1, 0, 2, 3]], *values[1:]]  # rows alone: no permutation of the stream
    for changed in (turned, mixed):
        assert (layer(values)[1] - layer(changed)[1]).abs().max() > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["chain", "heads"])
def test_compiles_in_one_piece(name: str) -> None:
    layer = EquivariantLinear(FORMS[name], FORMS[name]).double()
    values = random_values(layer.inputs, SIZES, 2)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    for first, second in zip(layer(values), compiled(values), strict=True):
        torch.testing.assert_close(first, second, rtol=1e-12, atol=1e-12)


def test_sizes_that_no_input_gives_are_refused() -> None:
    layer = EquivariantLinear([Feature(("a",), 1)], [Feature(("a", "b"), 1)])
    with pytest.raises(ValueError, match="no input has the axes b"):
        layer([torch.zeros(1, 3, 1)])


def test_nesting_is_said_for_all_axes_or_none() -> None:
    with pytest.raises(ValueError, match="one entry of within for every axis"):
        Feature(("a", "b"), 1, ((),))
