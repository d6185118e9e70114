"""Gradient flows: their steps, that they arrive, and the program around them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor

from examples import gradient_flows
from examples.flow_reports import Cell, Settings
from examples.flows import LINES, METHODS, flow
from examples.targets import TARGETS, problem
from gmn.transport import Systems, assigned_wasserstein
from tests.traced import slow_but


def clouds(points: int = 6, dimension: int = 3) -> tuple[Tensor, Tensor]:
    chance = Generator().manual_seed(0)
    return tuple(torch.randn(2, 2, points, dimension, generator=chance).double())


def chance() -> Generator:
    return Generator().manual_seed(1)


def test_a_step_descends_the_gradient_of_sw2_by_hand() -> None:
    start, goal = clouds()
    rates = (0.1, 0.3)
    first, second = flow(start, goal, METHODS["sw2"].loss, rates, 1, chance())
    lines = Systems.sample(3, LINES, 1, generator=chance()).directions[:, 0]
    gradient = torch.zeros_like(start)
    for line in lines:
        # Each point is drawn along the line to the goal's point of the same rank.
        own, other = start @ line, (goal @ line).sort(-1).values
        partner = other.gather(-1, own.argsort(-1).argsort(-1))
        gradient += 2 * (own - partner).unsqueeze(-1) * line / (6 * LINES)
    # The first step of Adam is as long as the learning rate in every coordinate.
    step = gradient / (gradient.abs() + 1e-8)
    torch.testing.assert_close(first, start, rtol=0, atol=0)
    torch.testing.assert_close(second, start - torch.tensor(rates).view(2, 1, 1) * step)


def test_flows_side_by_side_are_those_alone() -> None:
    start, goal = clouds()
    loss = METHODS["db-tsw"].loss
    *_, both = flow(start, goal, loss, (0.01, 0.2), 5, chance())
    for number, rate in enumerate((0.01, 0.2)):
        part = slice(number, number + 1)
        *_, alone = flow(start[part], goal[part], loss, (rate,), 5, chance())
        torch.testing.assert_close(both[part], alone)


@pytest.mark.parametrize(
    "method", slow_but(METHODS, ["sw2", "db-tsw", "chain", "maximum", "assignment"])
)
def test_flows_arrive(method: str) -> None:
    start, goal = (cloud.unsqueeze(0) for cloud in problem("swiss-roll", 10, 0))
    steps = 40 if method == "maximum" else 80
    *_, last = flow(start, goal, METHODS[method].loss, (0.08,), steps, chance())
    before, after = (float(assigned_wasserstein(points, goal)) for points in (start, last))
    assert after < 0.15 * before


@pytest.mark.parametrize("target", TARGETS)
def test_targets_have_their_points_and_seeds(target: str) -> None:
    start, goal = problem(target, 50, 3)
    assert start.shape == goal.shape
    assert len(goal) == 50
    assert torch.equal(goal, problem(target, 50, 3)[1])
    assert not torch.equal(goal, problem(target, 50, 4)[1])
    assert assigned_wasserstein(start, goal) > 0.3


def test_equal_shares_are_sliced_w1() -> None:
    assert gradient_flows.uniform_gap("gaussian-10", 20) < 1e-12


def test_the_rate_is_chosen_by_the_end_on_a_seed_of_its_own() -> None:
    settings = Settings(points=8, steps=40, rates=(1e-5, 0.03), seeds=(0, 1))
    cell = gradient_flows.measured("gaussian-10", "assignment", settings)
    assert cell.rate == 0.03
    assert cell.tuning[1] < cell.tuning[0]
    for seed, curve in enumerate(cell.curves):
        start, goal = problem("gaussian-10", 8, seed)
        assert curve[0] == pytest.approx(float(assigned_wasserstein(start, goal)))
        assert curve[-1] < curve[0]
    other = gradient_flows.TUNING_SEED
    (curve,), _ = gradient_flows.flows("gaussian-10", "assignment", settings, [(other, 0.03)])
    assert curve[-1] == pytest.approx(cell.tuning[1], rel=1e-4)


def test_the_program_goes_on_where_it_was(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    arguments = ["--targets", "swiss-roll", "--methods", "sw2,assignment", "--steps", "10"]
    arguments += ["--points", "6", "--seeds", "2", "--out", str(tmp_path)]
    gradient_flows.main(arguments)
    table = (tmp_path / "table.md").read_text()
    assert table in capsys.readouterr().out
    assert table.count("| SW₂² |") == 2
    assert (tmp_path / "flows.png").stat().st_size > 10_000
    found = [Cell.of(cell) for cell in json.loads((tmp_path / "results.json").read_text())["cells"]]
    assert [cell.method for cell in found] == ["sw2", "assignment"]
    for cell in found:
        path = tmp_path / f"swiss-roll-{cell.method}.json"
        before, content = path.stat().st_mtime_ns, path.read_bytes()
        assert gradient_flows.kept(tmp_path, "swiss-roll", cell.method, cell.settings) == cell
        assert path.stat().st_mtime_ns == before
        path.unlink()
        assert gradient_flows.kept(tmp_path, "swiss-roll", cell.method, cell.settings) == cell
        assert path.read_bytes() == content
    with pytest.raises(SystemExit, match="another --out"):
        gradient_flows.main([*arguments, "--steps", "5"])


def test_unknown_names_are_refused(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        gradient_flows.main(["--methods", "sw3"])
    assert "'sw3' is neither a target nor a method" in capsys.readouterr().err
