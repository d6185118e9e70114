"""ScaleGMN: invariant to permutations and scales of neurons, in both forms, and to nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import gmn
from gmn import symmetry
from gmn.errors import UnsupportedArchitecture
from gmn.nn import InvariantHead, ScaleGMN
from gmn.nn.passing.groups import groups_of
from gmn.nn.passing.relations import End, Relation, Wiring
from gmn.nn.scaled.scale_blocks import EdgeUpdate, ReScaleEq, ScaleEq, ScaleInv, ScaleMasks, unit
from gmn.testing import assert_invariant, relative_error
from gmn.testing.laws import DAMAGE
from tests.traced import BY_NAME, graph_of, one_in, spec_of

CLAIMED = {"permutations", "scalings", "translations"}
REFUSED = {  # a node set whose scale no weight undoes
    **{f"attention{kind}": "q" for kind in ("", "-grouped")},
    **{"attention-packed": "qkv", "attention-module": "input", "bilinear": "left"},
    **{"transformer": "embed", "transformer-rms": "attention.q", "overwritten": "first"},
    **{"cosines": "first", "picked": "first", "bounded": "first", "windows": "first"},
    **{"width-one": "first", "width-three": "first", "shifted-units": "first"},
    **{"scalar-hidden": "conv", "reparametrised": "first.parametrizations.weight"},
}
refused = pytest.mark.parametrize(("name", "nodes"), one_in(2, REFUSED.items()))
both = pytest.mark.parametrize("bidirectional", [False, True], ids=["forward", "bidirectional"])


def net(bidirectional: bool) -> ScaleGMN:
    torch.manual_seed(0)
    return ScaleGMN(12, 3, InvariantHead(3), bidirectional).double()


def difference(net: nn.Module, one: gmn.ParameterGraph, other: gmn.ParameterGraph) -> float:
    with torch.no_grad():
        return relative_error(net(one), net(other))


@refused
def test_what_it_cannot_read_is_named(name: str, nodes: str) -> None:
    with pytest.raises(UnsupportedArchitecture, match=f"node set {nodes}: .*DualGMN"):
        net(False)(graph_of(BY_NAME[name]))


def test_changes_of_basis_are_not_claimed() -> None:
    with pytest.raises(AssertionError, match="is not invariant"):
        assert_invariant(net(True), graph_of(BY_NAME["mlp-identity"]), symmetries={"gauges"})


@both
@pytest.mark.parametrize("name", ["mlp-relu", "cnn", "batch-norm", "resnet", "mlp-tanh"])
def test_scales_of_ten_thousand(name: str, bidirectional: bool) -> None:
    graph = graph_of(BY_NAME[name])
    element = symmetry.sample(
        graph.spec, torch.Generator().manual_seed(0), spread=4.6, symmetries=CLAIMED
    )
    assert difference(net(bidirectional), element.act_on_graph(graph), graph) <= 1e-9


@both
def test_gradients_of_parameters_do_not_explode(bidirectional: bool) -> None:
    """With reciprocals they grow by 15 orders of magnitude when one weight is 1e-15."""
    graph, sizes = graph_of(BY_NAME["mlp-relu"]), []
    for weights in (graph.values["2.weight"], DAMAGE["one 1e-15"](graph.values["2.weight"])):
        model = net(bidirectional)
        model(graph.replace({"2.weight": weights})).square().sum().backward()
        sizes.append(max(p.grad.abs().max() for p in model.parameters() if p.grad is not None))
    assert sizes[1] < 10 * sizes[0]


@both
def test_one_sided_changes_are_noticed(bidirectional: bool) -> None:
    for name in ("mlp-relu", "mlp-tanh"):
        graph = graph_of(BY_NAME[name])
        first, second = graph.values["0.weight"], graph.values["2.weight"]
        changes = (
            {"0.weight": first.flip(1)},
            {"0.weight": first.flip(2)},
            {"0.weight": first * 2},
            {"2.weight": second * torch.tensor([-1.0, 1, 1, 1, 1, 1])},
            {"4.weight": graph.values["4.weight"].flip(1)},
        )
        for change in changes:
            assert difference(net(bidirectional), graph.replace(change), graph) > 1e-6


# --- the blocks ----------------------------------------------------------------------------------

ROWS = 40


def kinds() -> ScaleMasks:
    """Ten rows each of: no group, scales, signs, both."""
    number = torch.arange(ROWS).view(-1, 1, 1) // 10
    return ScaleMasks((number == 1) | (number == 3), (number >= 2).to(torch.uint8), True, True)


def scales(kind: ScaleMasks, spread: float, seed: int) -> Tensor:
    """A random element of every row's group."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(ROWS, 1, 1, generator=generator, dtype=torch.float64)
    signs = torch.where((kind.even > 0) & (noise < 0), -1.0, 1.0)
    return signs * torch.where(kind.scaled, (spread * noise.abs()).exp(), 1.0)


def rows(size: float) -> Tensor:
    torch.manual_seed(1)
    values = size * torch.randn(ROWS, 2, 6, dtype=torch.float64)
    values[::5] = 0
    return values


sizes = pytest.mark.parametrize("size", [1.0, 1e-15, 1e15])
spreads = pytest.mark.parametrize("spread", [0.5, 9.2, -9.2])  # exp(9.2) is ten thousand


@sizes
@spreads
def test_blocks_obey_their_law(size: float, spread: float) -> None:
    torch.manual_seed(0)
    kind, x, extras = kinds(), rows(size), torch.randn(ROWS, 2, 4, dtype=torch.float64)
    q = scales(kind, spread, 0)
    invariant, equivariant = ScaleInv(6, 5, 4).double(), ScaleEq(6, 5, 4).double()
    with torch.no_grad():
        moved, still = (invariant(y, kind, extras) for y in (q * x, x))
        assert relative_error(moved, still) <= 1e-12
        moved, still = (equivariant(y, kind, extras) for y in (q * x, x))
        for one, other in zip(moved, q * still, strict=True):
            assert relative_error(one, other) <= 1e-12


@sizes
@spreads
def test_products_obey_their_law(size: float, spread: float) -> None:
    """Rows here are edges, each with a source and a target of its own."""
    torch.manual_seed(0)
    kind, x, edges = kinds(), rows(1.0), rows(size)
    source, target = torch.randperm(ROWS), torch.randperm(ROWS)
    q = scales(kind, spread, 0)
    moved_edges = edges * q[target] / q[source]
    message, update = ReScaleEq(6).double(), EdgeUpdate(6).double()
    one_to_one = End("rows", 0, (ROWS,), (0,), ())
    relation = Relation("pairs", (ROWS,), one_to_one, one_to_one)
    device, dtype = torch.device("cpu"), torch.float64
    groups = groups_of(spec_of("mlp-relu"), device, dtype)
    wiring = Wiring(spec_of("mlp-relu"), (relation,), {"rows": ROWS}, groups)
    z = torch.randn(ROWS, 2, 6, dtype=torch.float64)
    with torch.no_grad():
        moved = message(moved_edges, message.node(q * x)[source])
        still = message(edges, message.node(x)[source])
        for one, other in zip(moved, q[target] * still, strict=True):
            assert relative_error(one, other) <= 1e-12
        batched = ([e.transpose(0, 1)] for e in (moved_edges, edges))
        (moved,), (still,) = (update(wiring, e, z.transpose(0, 1)) for e in batched)
        ratio = (q[target] / q[source]).transpose(0, 1)
        for one, other in zip(*(t.transpose(0, 1) for t in (moved, ratio * still)), strict=True):
            assert relative_error(one, other) <= 1e-12


def test_signs_are_not_scales() -> None:
    """Invariance to signs keeps sizes, invariance to scales keeps signs."""
    torch.manual_seed(0)
    kind, x, block = kinds(), rows(1.0), ScaleInv(6, 5).double()
    with torch.no_grad():
        doubled, turned, found = block(2 * x, kind), block(-x, kind), block(x, kind)
    changed = [(y - found).abs().amax(dim=(1, 2)) > 1e-6 for y in (doubled, turned)]
    live = torch.arange(ROWS) % 5 > 0
    number = torch.arange(ROWS) // 10
    assert torch.equal(changed[0], live & ((number == 0) | (number == 2)))
    assert torch.equal(changed[1], live & (number <= 1))


def test_unit_vectors_have_finite_gradients() -> None:
    for size in (0.0, 1e-300, 1e-15, 1.0, 1e300):
        x = torch.full((1, 3), size, dtype=torch.float64, requires_grad=True)
        result = unit(x)
        result.sum().backward()
        assert x.grad is not None
        assert x.grad.isfinite().all()
        torch.testing.assert_close(result.norm().item(), float(size > 0))
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(unit, x)
