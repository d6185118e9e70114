"""UNF: the maximal layers of any architecture's permutation group."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

import converters
import gmn
from baselines import NFN, UnsupportedArchitecture
from baselines.layers.equivariant import EquivariantLinear
from baselines.layers.typed import TypedLinear
from baselines.unf import UNF, blocks_of
from gmn.nn import EditHead
from gmn.testing import assert_equivariant, assert_invariant, relative_error
from tests.baselines.orbits import orbits_of_pairs
from tests.baselines.ranks import rank_of
from tests.cases import CASES, Attention, Case, PreActivation, TiedHidden
from tests.traced import BY_NAME, COVERING, RIGID, SEVERAL, graph_of, slow_beyond, slow_but, spec_of

# Activations do not matter to permutations: one MLP stands for all.
ACTIVATIONS = {c.name for c in CASES if c.name.startswith("mlp-")} - {"mlp-relu", "mlp-no-bias"}
DIFFERENT = [case for case in CASES if case.name not in ACTIVATIONS]
MOVING = [case for case in DIFFERENT if case.name not in RIGID]
BIGGEST_COUNTED = 700
COUNTED = COVERING - {"transformer", "transformer-rms"}
different = pytest.mark.parametrize("case", slow_beyond(MOVING, SEVERAL))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def weights_of(spec: gmn.GraphSpec, fold: int = 64) -> EquivariantLinear:
    features = [block.feature for block in blocks_of(spec, fold)]
    return EquivariantLinear(features, features).double()


def number_of_maps(layer: EquivariantLinear) -> int:
    return sum(linear.weight.numel() for linear in layer.mix)


def numbers_of(case: Case) -> int:
    return sum(value.numel() for value in case.model().state_dict().values())


@different
def test_invariant_with_positions(case: Case) -> None:
    graph = graph_of(case)
    assert_invariant(UNF(graph.spec, (3, 2), fold=0).double(), graph, tolerance=1e-10)


@different
@pytest.mark.parametrize("fold", [64, 0], ids=["channels", "positions"])
def test_edits_are_equivariant(case: Case, fold: int) -> None:
    graph = graph_of(case)
    net = UNF(graph.spec, (3,), EditHead(), fold).double()
    with torch.no_grad():
        net.size.fill_(1.0)  # so that the law is about the changes
    assert_equivariant(net, graph, tolerance=1e-10)
    assert_reaches_every_parameter(net, graph)


def assert_reaches_every_parameter(net: UNF, graph: gmn.ParameterGraph) -> None:
    edited = net(graph)
    for entry in graph.spec.entries:
        if entry.parameter:
            assert (edited.values[entry.name] != graph.values[entry.name]).all(), entry.name
        else:
            assert torch.equal(edited.values[entry.name], graph.values[entry.name])


@pytest.mark.parametrize(
    "case",
    slow_beyond((case for case in MOVING if numbers_of(case) <= BIGGEST_COUNTED), COUNTED),
)
def test_as_many_weights_as_orbits_of_pairs_of_entries(case: Case) -> None:
    """The dimension of all equivariant maps, counted by brute force, wreath products included."""
    spec = spec_of(case.name)
    assert number_of_maps(weights_of(spec)) == orbits_of_pairs(spec)


class Residual(PreActivation):
    """A residual stream that is also mixed within itself."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.embed, self.head = nn.Linear(2, 4), nn.Linear(4, 1)
        self.up, self.down = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = x + torch.tanh(self.down(torch.tanh(x)))
        return self.head(x + torch.tanh(self.up(torch.tanh(x))))


class SmallTied(TiedHidden):
    """A square weight, used twice."""

    def __init__(self) -> None:
        nn.Module.__init__(self)
        self.first, self.last = nn.Linear(2, 4), nn.Linear(4, 1)
        self.middle, self.again = nn.Linear(4, 4), nn.Linear(4, 4)
        self.again.weight = self.middle.weight


class Stream(nn.Module):
    """Attention on a residual stream, between an embedding and a readout."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Linear(1, 4, bias=False), nn.Linear(4, 1, bias=False)
        self.attention, self.norm = Attention(4, 2, 2), nn.LayerNorm(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        return self.head(x + self.attention(self.norm(x)))


SMALL = {
    "residual": (Residual, (3, 2)),
    "tied": (SmallTied, (3, 2)),
    "attention": (Stream, (2, 3, 1)),
}


def small(name: str) -> gmn.GraphSpec:
    build, shape = SMALL[name]
    return converters.trace(build().double(), (torch.randn(shape).double(),))


@pytest.mark.parametrize("name", slow_but(SMALL, ["residual", "tied"]))
def test_weights_span_all_equivariant_maps(name: str) -> None:
    """As many weights as orbits, and all of them independent."""
    spec = small(name)
    layer, blocks = weights_of(spec), blocks_of(spec, 64)
    dimension = orbits_of_pairs(spec)
    assert number_of_maps(layer) == dimension
    networks = 40  # more than there are numbers that one output reads
    values = [
        torch.randn(networks, *block.sizes, block.feature.channels).double() for block in blocks
    ]
    assert rank_of(layer.mix, lambda: layer(values)) == dimension


def chain(*widths: int) -> gmn.GraphSpec:
    layers: list[nn.Module] = []
    for into, out in pairwise(widths):
        layers += [nn.Linear(into, out), nn.Tanh()]
    return converters.trace(nn.Sequential(*layers[:-1]), (torch.zeros(2, widths[0]),))


@pytest.mark.parametrize(
    ("widths", "hidden", "everywhere"),
    [
        ((3, 3, 3), 149, 32),
        ((2, 3, 3, 3), 163, 62),
        ((2, 3, 3, 3, 3), 221, 100),
        ((2, 3, 3, 4), 222, 62),
        ((2, 3, 3, 3, 4), 288, 100),
    ],
)
def test_layers_of_chains_are_those_of_nfn(
    widths: tuple[int, ...], hidden: int, everywhere: int
) -> None:
    """HNP, which moves hidden neurons; and NP, for which inputs and outputs are axes as well."""
    spec = chain(*widths)
    assert number_of_maps(weights_of(spec)) == hidden == orbits_of_pairs(spec)
    assert number_of_maps(weights_of(spec, fold=0)) == everywhere


@pytest.mark.parametrize("name", ["cnn", "cnn-flatten", "cnn-unequal-kernels"])
def test_as_many_weights_as_nfn_on_cnns(name: str) -> None:
    spec = spec_of(name)
    nfn = NFN(spec, (3, 2)).layers
    unf = UNF(spec, (3, 2)).layers
    assert [number_of_maps(a) for a in nfn] == [number_of_maps(b) for b in unf]


def swapped_units(graph: gmn.ParameterGraph) -> gmn.ParameterGraph:
    """Exchanges a query unit of one head with one of another, in queries and keys."""
    order = torch.tensor([4, 1, 2, 3, 0, 5, 6, 7])
    return graph.replace({n: graph.values[n][:, order] for n in Q_AND_K})


Q_AND_K = ("q.weight", "q.bias", "k.weight", "k.bias")


def test_units_may_not_leave_their_head() -> None:
    """An element of the symmetric group of all units, but not of the wreath product."""
    graph = graph_of(BY_NAME["attention"])
    net = UNF(graph.spec, (4, 3)).double()
    assert relative_error(net(swapped_units(graph)), net(graph)) > 1e-6


@pytest.mark.parametrize("name", ["tied-hidden", "recurrent-tanh"])
def test_rows_may_not_move_without_columns(name: str) -> None:
    """Square weights: their rows alone, their columns alone, their transpose."""
    graph = graph_of(BY_NAME[name])
    weight = "middle.weight" if name == "tied-hidden" else "layer.weight_hh_l0"
    net, old = UNF(graph.spec, (4, 3)).double(), graph.values[weight]
    for new in (old.flip(1), old.flip(2), old.mT.contiguous()):
        assert relative_error(net(graph.replace({weight: new})), net(graph)) > 1e-6


@different
def test_every_entry_is_read(case: Case) -> None:
    graph = graph_of(case)
    net = UNF(graph.spec, (3, 2)).double()
    names = [e.name for e in graph.spec.entries if e.tied_to is None and e.floating]
    changed = {name: graph.values[name].clone() for name in names}
    for values in changed.values():
        values.view(len(graph), -1)[:, 0] += 1
    moved = [graph.replace({name: values}) for name, values in changed.items()]
    with torch.no_grad():
        still, *answers = net(gmn.ParameterGraph.cat([graph, *moved])).split(len(graph))
    for name, answer in zip(names, answers, strict=True):
        assert relative_error(answer, still) > 1e-9, name


@pytest.mark.parametrize("fold", [64, 0])
def test_ordered_indices_are_told_apart(fold: int) -> None:
    """As channels, or by their learned positions."""
    graph = graph_of(BY_NAME["cnn-1d"])
    net = UNF(graph.spec, (4, 3), fold=fold).double()
    for dim in (2, 3):  # input channels, kernel places
        changed = graph.replace({"0.weight": graph.values["0.weight"].flip(dim)})
        assert relative_error(net(changed), net(graph)) > 1e-6


def test_positions_are_for_what_is_too_large_to_fold() -> None:
    spec = spec_of("transformer")  # a vocabulary of 11, positions of 5 tokens
    assert not list(UNF(spec, (2,), fold=11).positions)
    shapes = [tuple(p.shape) for p in UNF(spec, (2,), fold=10).positions]
    assert shapes == [(11, 1, 1)]
    assert len(list(UNF(spec, (2,), fold=4).positions)) == 2


class OwnKernels(nn.Module):
    """Kernels of every input channel: movable axes within one that may not move."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv1d(3, 12, 2, groups=3), nn.Conv1d(12, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.first(x)))


def test_axes_within_ordered_ones() -> None:
    models = [OwnKernels().double() for _ in range(2)]
    spec = converters.trace(models[0], (torch.randn(2, 3, 5).double(),))
    (axis,) = spec.symmetries.permutations
    assert axis.within
    graph = gmn.ParameterGraph.from_state_dicts(spec, [m.state_dict() for m in models])
    net = UNF(spec, (4, 3)).double()
    assert_invariant(net, graph, tolerance=1e-10)
    groups = {n: graph.values[n].clone() for n in ("first.weight", "first.bias")}
    groups = {n: v.unflatten(1, (3, 4)).flip(1).flatten(1, 2) for n, v in groups.items()}
    columns = graph.values["last.weight"].unflatten(2, (3, 4)).flip(2).flatten(2, 3)
    changed = graph.replace({**groups, "last.weight": columns})
    assert relative_error(net(changed), net(graph)) > 1e-6


def test_edits_come_in_copies_and_start_small() -> None:
    graph = graph_of(BY_NAME["resnet"])
    edited = UNF(graph.spec, (3,), EditHead(copies=2)).double()(graph)
    assert len(edited) == 2 * len(graph)
    for entry in graph.spec.entries:
        if entry.parameter:
            first, second = (edited[s].values[entry.name] for s in (slice(0, 2), slice(2, 4)))
            assert not torch.equal(first, second)
            assert relative_error(first, graph.values[entry.name]) < 0.1


def test_edits_learn() -> None:
    graph = graph_of(BY_NAME["tied-hidden"])
    net = UNF(graph.spec, (3,), EditHead()).double()
    sum(value.square().sum() for value in net(graph).values.values()).backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in net.parameters())
    assert net.size is not None
    assert bool(net.size.grad.any())


def test_reads_other_activations_but_not_other_widths() -> None:
    net = UNF(spec_of("mlp-relu"), (3,)).double()
    assert net(graph_of(BY_NAME["mlp-tanh"])).shape == (2, 1)
    with pytest.raises(UnsupportedArchitecture, match=r"0\.weight is not as expected"):
        net(graph_of(BY_NAME["two-layers"]))
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2, bias=False))
    graph = gmn.ParameterGraph.from_state_dicts(
        converters.trace(model, (torch.zeros(1, 3),)), [model.state_dict()]
    )
    with pytest.raises(UnsupportedArchitecture, match="3 parameter tensors instead of 4"):
        UNF(chain(3, 4, 2), (3,))(graph)


def test_head_may_be_a_module() -> None:
    spec = spec_of("attention")
    pooled = UNF(spec, (3,)).pooled
    net = UNF(spec, (3,), nn.Linear(pooled, 7)).double()
    assert net(graph_of(BY_NAME["attention"])).shape == (2, 7)


def test_features_restore_exactly() -> None:
    for name in ("transformer", "u-net", "decoder", "cnn-regrouped"):
        graph = graph_of(BY_NAME[name])
        for fold in (64, 0):
            for block in blocks_of(graph.spec, fold):
                found = block.restore(block.read(graph))
                torch.testing.assert_close(found, graph.block(block.edges), rtol=1e-14, atol=0)
                assert math.prod(block.sizes) * block.feature.channels == block.edges.size


@different
@pytest.mark.parametrize("fold", [64, 0], ids=["channels", "positions"])
def test_shared_edits_are_equivariant(case: Case, fold: int) -> None:
    graph = graph_of(case)
    net = UNF(graph.spec, (3,), EditHead(), fold, apart=0).double()
    with torch.no_grad():
        net.size.fill_(1.0)
    assert_equivariant(net, graph, tolerance=1e-10)
    assert_reaches_every_parameter(net, graph)


def counts(net: UNF) -> tuple[int, int]:
    """Weights and constants of the layers."""
    assert all(isinstance(layer, TypedLinear) for layer in net.layers)
    return tuple(sum(getattr(la, n).numel() for la in net.layers) for n in ("weight", "bias"))


def test_shared_weights_do_not_grow_with_depth() -> None:
    """The first and last weight apart: a constant for each weight and bias of each layer."""
    nets = {depth: UNF(chain(3, *[4] * depth, 2), (3, 2), apart=0) for depth in (4, 5, 9)}
    weights, constants = zip(*map(counts, nets.values()), strict=True)
    assert len(set(weights)) == 1
    channels = 3 + 2  # of both layers
    assert constants == tuple(channels * (3 + 2 + 2 + (depth - 1) + depth) for depth in nets)
    assert len({net.pooled for net in nets.values()}) == 1


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.relu(self.norm(self.conv(x)))


def residual(blocks: int) -> gmn.ParameterGraph:
    """Random networks of equal blocks on one residual stream."""
    models = [
        nn.Sequential(
            nn.Conv2d(2, 4, 1), *(Block() for _ in range(blocks)), nn.Flatten(2), nn.Linear(16, 2)
        )
        .double()
        .eval()
        for _ in range(2)
    ]
    for model in models:
        for value in model.state_dict().values():
            if value.is_floating_point():
                value.copy_(torch.rand_like(value) + 0.1)
    spec = converters.trace(models[0], (torch.randn(1, 2, 4, 4).double(),))
    return gmn.ParameterGraph.from_state_dicts(spec, [model.state_dict() for model in models])


def exchanged(graph: gmn.ParameterGraph, first: str, second: str) -> gmn.ParameterGraph:
    """Entries whose names begin with the one, in the place of those that begin with the other."""
    names = [name for name in graph.values if name.startswith(first)]
    others = {name: second + name.removeprefix(first) for name in names}
    pairs = [*others.items(), *((other, name) for name, other in others.items())]
    return graph.replace({name: graph.values[other] for name, other in pairs})


@pytest.mark.parametrize("part", ["", ".conv", ".norm"])
def test_blocks_of_one_type_are_told_apart(part: str) -> None:
    """Exchanging equal blocks of a stream, or parts of them, changes the function."""
    graph = residual(3)
    net = UNF(graph.spec, (4, 3), apart=0).double()
    assert_invariant(net, graph, tolerance=1e-10)
    assert relative_error(net(exchanged(graph, f"1{part}.", f"2{part}.")), net(graph)) > 1e-6


def test_only_many_tensors_share() -> None:
    spec = chain(3, 4, 4, 2)  # six tensors
    for apart, kind in ((6, EquivariantLinear), (5, TypedLinear)):
        assert {type(layer) for layer in UNF(spec, (3, 2), apart=apart).layers} == {kind}


@pytest.mark.parametrize("name", ["cnn", "resnet", "transformer", "recurrent-gru"])
def test_shared_layers_read_every_entry(name: str) -> None:
    graph = graph_of(BY_NAME[name])
    net = UNF(graph.spec, (3, 2), apart=0).double()
    for entry in graph.spec.entries:
        if entry.tied_to is None and entry.floating:
            values = graph.values[entry.name].clone()
            values.view(len(graph), -1)[:, 0] += 1
            moved = graph.replace({entry.name: values})
            assert relative_error(net(moved), net(graph)) > 1e-9, entry.name
