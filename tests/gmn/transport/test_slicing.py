"""Sliced and tree-sliced distances: oracles, metric laws, gradients, memory."""

from __future__ import annotations

import itertools

import ot
import pytest
import torch
from scipy.stats import wasserstein_distance
from torch import Tensor

from gmn.transport import (
    ByDistance,
    CoordinateFrame,
    Learned,
    Splitting,
    Systems,
    Uniform,
    assigned_wasserstein,
    assignment,
    max_tree_sliced_wasserstein,
    sliced_wasserstein,
    tree_sliced_wasserstein,
)
from gmn.transport.sliced import wasserstein_1d
from tests.gmn.transport.clouds import by_linear_program, chance, cloud, weights
from tests.memory import allocated
from tests.traced import slow_but

UNITS = CoordinateFrame(torch.zeros(3).double(), torch.ones(()).double())


def learned() -> Learned:
    torch.manual_seed(0)
    net = Learned(3, 4).double()
    torch.nn.init.normal_(net.of_point.weight)
    return net


SPLITTINGS = {"uniform": Uniform(), "distance": ByDistance(), "learned": learned()}
splittings = pytest.mark.parametrize("splitting", SPLITTINGS.values(), ids=SPLITTINGS)
kinds = pytest.mark.parametrize("kind", ["concurrent", "chain"])


@pytest.mark.parametrize("p", [1, 2, 3])
@pytest.mark.parametrize("weighted", [False, True])
def test_slicing_is_that_of_pot(p: int, weighted: bool) -> None:
    x, y = cloud(7), cloud(9, seed=1)
    a, b = (weights(7), weights(9, 1)) if weighted else (None, None)
    directions = Systems.sample(3, 20, 1, generator=chance()).directions[:, 0]
    masses = [None if w is None else (w / w.sum()).numpy() for w in (a, b)]
    expected = ot.sliced_wasserstein_distance(
        x.numpy(), y.numpy(), *masses, p=p, projections=directions.T.numpy()
    )
    found = sliced_wasserstein(x, y, p=p, weights=(a, b), directions=directions)
    assert float(found) == pytest.approx(float(expected), abs=1e-12)


def test_one_line_is_that_of_scipy() -> None:
    x, y, a, b = cloud(6, 1), cloud(8, 1, 1), weights(6), weights(8, 1)
    found = wasserstein_1d(x.T, y.T, 1, (a / a.sum(), b / b.sum()))
    expected = wasserstein_distance(x[:, 0], y[:, 0], a, b)
    assert float(found) == pytest.approx(expected, abs=1e-12)


@splittings
def test_one_line_a_tree_is_sliced_w1(splitting: Splitting) -> None:
    if isinstance(splitting, Learned):
        splitting = Learned(3, 1).double()
    x, y, both = cloud(7), cloud(9, seed=1), (weights(7), weights(9, 1))
    systems = Systems.sample(3, 20, 1, generator=chance())
    expected = sliced_wasserstein(x, y, p=1, weights=both, directions=systems.directions[:, 0])
    found = tree_sliced_wasserstein(x, y, systems=systems, splitting=splitting, weights=both)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@kinds
def test_equal_shares_make_it_sliced_w1_on_any_tree(kind: str) -> None:
    x, y = cloud(7), cloud(7, seed=1)
    systems = Systems.sample(3, 5, 4, kind, generator=chance())
    expected = sliced_wasserstein(x, y, p=1, directions=systems.directions.flatten(0, 1))
    found = tree_sliced_wasserstein(x, y, systems=systems, splitting=Uniform())
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    other = tree_sliced_wasserstein(x, y, systems=systems, splitting=ByDistance())
    assert abs(other - expected) > 1e-2


@kinds
@splittings
def test_the_closed_form_is_the_linear_program(kind: str, splitting: Splitting) -> None:
    x, y, a, b = cloud(5), cloud(6, seed=1), weights(5), weights(6, 1)
    a, b = a / a.sum(), b / b.sum()
    systems = Systems.sample(3, 3, 4, kind, generator=chance())
    with torch.no_grad():
        found = tree_sliced_wasserstein(
            x, y, systems=systems, splitting=splitting, weights=(a, b), frame=UNITS
        )
        expected = by_linear_program(systems, splitting, (x, y), (a, b))
    assert float(found) == pytest.approx(expected, abs=1e-10)


@kinds
@splittings
@pytest.mark.parametrize("p", slow_but([1, 2], [1]))
def test_metric_axioms(kind: str, splitting: Splitting, p: float) -> None:
    systems = Systems.sample(3, 6, 4, kind, generator=chance())
    clouds = [cloud(n, seed=n) for n in (4, 5, 7, 9)]
    with torch.no_grad():

        def distance(x: Tensor, y: Tensor) -> float:
            return float(
                tree_sliced_wasserstein(
                    x, y, p=p, systems=systems, splitting=splitting, frame=UNITS
                )
            )

        for x, y, z in itertools.permutations(clouds, 3):
            assert distance(x, y) == distance(y, x) > 0.05
            assert distance(x, z) <= distance(x, y) + distance(y, z) + 1e-12


@kinds
@splittings
@pytest.mark.parametrize("p", [1, 2])
def test_order_does_not_matter_to_the_last_bit(kind: str, splitting: Splitting, p: float) -> None:
    x, y = cloud(60, seed=2), cloud(60, seed=1)
    moved = x[torch.randperm(60, generator=chance())]
    systems = Systems.sample(3, 6, 4, kind, generator=chance())
    with torch.no_grad():
        given = {"p": p, "systems": systems, "splitting": splitting}
        assert float(tree_sliced_wasserstein(x, moved, **given)) == 0.0
        assert float(tree_sliced_wasserstein(x, y, **given)) == float(
            tree_sliced_wasserstein(moved, y, **given)
        )


def test_sliced_distances_of_permuted_copies_are_zero() -> None:
    x = cloud(60)
    moved = x[torch.randperm(60, generator=chance())]
    assert float(sliced_wasserstein(x, moved)) == 0.0
    assert float(assigned_wasserstein(x, moved)) == 0.0
    assert float(sliced_wasserstein(x, moved + 0.1)) > 0.05


def test_a_duplicated_point_is_a_point_of_twice_the_weight() -> None:
    x, y = cloud(5), cloud(6, seed=1)
    doubled = torch.cat([x, x[:1]])
    weight = torch.tensor([2.0, 1, 1, 1, 1]).double()
    for distance in (sliced_wasserstein, tree_sliced_wasserstein):
        frame = {} if distance is sliced_wasserstein else {"frame": UNITS}
        one = distance(doubled, y, generator=chance(), **frame)
        other = distance(x, y, weights=(weight, None), generator=chance(), **frame)
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@kinds
def test_rotations_shifts_and_units(kind: str) -> None:
    """Moved with both clouds, systems give the same Db-TSW distance; units are those of points."""
    x, y = cloud(8), cloud(9, seed=1)
    rotation = torch.linalg.qr(cloud(3, 3, 5)).Q
    systems = Systems.sample(3, 6, 4, kind, generator=chance())
    turned = Systems(systems.directions @ rotation, systems.offsets @ rotation, systems.steps)
    expected = tree_sliced_wasserstein(x, y, systems=systems)
    moved = tree_sliced_wasserstein(5 * x @ rotation + 3, 5 * y @ rotation + 3, systems=turned)
    torch.testing.assert_close(moved, 5 * expected, rtol=1e-12, atol=0)
    assert abs(tree_sliced_wasserstein(x @ rotation, y, systems=systems) - expected) > 1e-3


@kinds
@splittings
@pytest.mark.parametrize("p", slow_but([1, 2], [2]))
def test_gradients(kind: str, splitting: Splitting, p: float) -> None:
    x, y = cloud(4).requires_grad_(), cloud(5, seed=1).requires_grad_()
    a, b = weights(4).requires_grad_(), weights(5, 1).requires_grad_()
    systems = Systems.sample(3, 2, 4, kind, generator=chance())

    def distance(*given: Tensor) -> Tensor:
        return tree_sliced_wasserstein(
            given[0],
            given[1],
            p=p,
            weights=(given[2], given[3]),
            systems=systems,
            splitting=splitting,
            frame=UNITS,
        )

    assert torch.autograd.gradcheck(distance, (x, y, a, b))


@pytest.mark.parametrize("p", [1, 2, 3])
def test_gradients_of_slices_and_assignments(p: float) -> None:
    x, y = cloud(5).requires_grad_(), cloud(5, seed=1).requires_grad_()
    directions = Systems.sample(3, 4, 1, generator=chance()).directions[:, 0]
    more, b = cloud(4, seed=2).requires_grad_(), weights(4).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda u, v: sliced_wasserstein(u, v, p=p, directions=directions), (x, y)
    )
    assert torch.autograd.gradcheck(
        lambda u, v, w: sliced_wasserstein(u, v, p=p, weights=(None, w), directions=directions),
        (x, more, b),
    )
    assert torch.autograd.gradcheck(lambda u, v: assigned_wasserstein(u, v, p=p), (x, y))


def test_powers_have_finite_gradients_at_zero() -> None:
    x = cloud(5).requires_grad_()
    for power in (
        sliced_wasserstein(x, x.detach(), root=False),
        assigned_wasserstein(x, x.detach(), root=False),
        tree_sliced_wasserstein(x, x.detach(), p=2, root=False),
    ):
        (gradient,) = torch.autograd.grad(power, x)
        assert bool(gradient.isfinite().all())


def test_a_batch_is_its_pairs() -> None:
    x, y = torch.stack([cloud(6, seed=s) for s in range(3)]), cloud(7, seed=9).expand(3, 7, 3)
    for distance in (sliced_wasserstein, tree_sliced_wasserstein):
        together = distance(x, y, generator=chance())
        alone = [distance(one, other, generator=chance()) for one, other in zip(x, y, strict=True)]
        torch.testing.assert_close(together, torch.stack(alone), rtol=1e-12, atol=0)
    together = assigned_wasserstein(x, y[:, :6])
    alone = [assigned_wasserstein(one, other[:6]) for one, other in zip(x, y, strict=True)]
    torch.testing.assert_close(together, torch.stack(alone), rtol=1e-12, atol=0)


def test_chunks_of_trees_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = cloud(6), cloud(7, seed=1)
    together = tree_sliced_wasserstein(x, y, kind="chain", generator=chance())
    monkeypatch.setattr("gmn.transport.trees.CHUNK", 100)
    apart = tree_sliced_wasserstein(x, y, kind="chain", generator=chance())
    torch.testing.assert_close(apart, together, rtol=1e-12, atol=0)


def test_float32_is_near() -> None:
    x, y = cloud(200, 20), cloud(300, 20, 1)
    for distance in (sliced_wasserstein, tree_sliced_wasserstein):
        exact = distance(x, y, generator=chance())
        single = distance(x.float(), y.float(), generator=chance())
        assert single.dtype == torch.float32
        assert float(single) == pytest.approx(float(exact), rel=1e-4)


def test_memory_is_that_of_projections() -> None:
    """n = 4,096, d = 512, 100 lines: 1.6 GiB if all differences of points and lines were made."""
    x, y = (torch.randn(4096, 512).requires_grad_() for _ in range(2))
    _, total = allocated(lambda: tree_sliced_wasserstein(x, y).backward())
    assert total < 2**29  # all that is made, temporary or not, forward and backward


@pytest.mark.parametrize("kind", slow_but(["concurrent", "chain"], ["chain"]))
def test_the_best_system_tells_more_than_random_ones(kind: str) -> None:
    x = cloud(40, 6)
    y = x + torch.tensor([0.0, 0, 0, 0, 0, 1]).double()
    common = tree_sliced_wasserstein(x, y, kind=kind, generator=chance())
    best = max_tree_sliced_wasserstein(x, y, kind=kind, generator=chance())
    assert best > 1.2 * common
    along = max_tree_sliced_wasserstein(x, y, lines=1, steps=300, generator=chance())
    assert float(along) == pytest.approx(1, abs=0.02)  # W_1 along the shift
    assert along <= 1 + 1e-9


def test_orthogonal_lines() -> None:
    systems = Systems.sample(5, 7, 4, orthogonal=True, generator=chance())
    products = systems.directions @ systems.directions.mT
    torch.testing.assert_close(products, torch.eye(4).double().expand(7, 4, 4))


def test_chains_hang_together() -> None:
    systems = Systems.sample(5, 7, 4, "chain", generator=chance())
    assert systems.steps is not None
    ends = systems.offsets + systems.steps.unsqueeze(2) * systems.directions
    torch.testing.assert_close(ends[:, :-1], systems.offsets[:, 1:])


def test_assignment_is_exact() -> None:
    x, y = cloud(5), cloud(5, seed=1)
    costs = torch.cdist(x, y) ** 2
    best = min(float(costs[range(5), order].mean()) for order in itertools.permutations(range(5)))
    assert float(assigned_wasserstein(x, y, root=False)) == pytest.approx(best)
    order = torch.randperm(5, generator=chance())
    assert torch.equal(assignment(x, x[order]), order.argsort())
    exact = ot.emd2([], [], costs.numpy()) ** 0.5
    assert float(assigned_wasserstein(x, y)) == pytest.approx(exact)


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (torch.zeros(3, 2), torch.zeros(3, 4), "do not fit"),
        (torch.zeros(2, 3, 2), torch.zeros(3, 2), "do not fit"),
        (torch.zeros(0, 2), torch.zeros(3, 2), "no points"),
        (torch.full((3, 2), torch.nan), torch.zeros(3, 2), "first cloud has NaN"),
        (torch.zeros(3, 2), torch.full((3, 2), torch.inf), "second cloud has NaN or infinite"),
        (torch.zeros(3, 2), torch.zeros(3, 2).double(), "one floating-point type"),
    ],
)
def test_clouds_that_cannot_be_compared(x: Tensor, y: Tensor, message: str) -> None:
    for distance in (sliced_wasserstein, tree_sliced_wasserstein, assigned_wasserstein):
        with pytest.raises(ValueError, match=message):
            distance(x, y)


def test_settings_that_mean_nothing() -> None:
    x = cloud(4)
    with pytest.raises(ValueError, match="at least 1"):
        sliced_wasserstein(x, x, p=0.5)
    with pytest.raises(ValueError, match="at least 1"):
        tree_sliced_wasserstein(x, x, p=0.5)
    with pytest.raises(ValueError, match="non-negative"):
        sliced_wasserstein(x, x, weights=(-weights(4), None))
    with pytest.raises(ValueError, match="5 weights for 4 points"):
        tree_sliced_wasserstein(x, x, weights=(None, weights(5)))
    with pytest.raises(ValueError, match="'concurrent' and 'chain'"):
        Systems.sample(3, 2, 2, "star")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="cannot be orthogonal"):
        Systems.sample(3, 2, 4, orthogonal=True)
    with pytest.raises(ValueError, match="trees is 0"):
        Systems.sample(3, 0)
    with pytest.raises(ValueError, match="systems of 2 dimensions"):
        tree_sliced_wasserstein(x, x, systems=Systems.sample(2))
    with pytest.raises(ValueError, match="cannot be assigned to 5"):
        assigned_wasserstein(x, cloud(5))
