"""Points that flow to a target by Adam on sliced, tree-sliced and exact distances.

The demonstration of TSW-SL (Tran et al. 2025, arXiv 2406.13725, tables 1 and 2), with one
difference: the learning rate of every method is tuned for every target, on one grid for all, by
the exact W_2 to the target after the last step, with a seed that is not reported. All sliced
methods see 100 lines a step.

Writes to --out: table.md, results.json, flows.png; and a file for each method and target, so that
a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Generator
from tqdm.auto import tqdm

from examples.flow_reports import Cell, Settings, Snapshot, drawn, tables
from examples.flows import LINES, METHODS, flow
from examples.targets import TARGETS, problem
from gmn.foundation.files import write_atomically
from gmn.transport import (
    Systems,
    Uniform,
    assigned_wasserstein,
    sliced_wasserstein,
    tree_sliced_wasserstein,
)

RATES = (1.5e-3, 5e-3, 1.5e-2, 5e-2, 0.15)
JUDGED = 50  # times that W_2 is taken along a flow
PICTURED = (0, 0.04, 0.1, 0.2, 1)  # shares of the steps at which points are kept, in 2-D
TUNING_SEED = 1000  # beyond all that are reported
PLAN = {
    "swiss-roll": ("sw1", "sw2", "db-tsw", "chain", "sobolev", "assignment"),
    "25-gaussians": ("sw1", "sw2", "db-tsw", "assignment"),
    "gaussian-10": ("sw1", "sw2", "db-tsw", "assignment"),
    "gaussian-50": ("sw1", "sw2", "db-tsw", "db-tsw-orthogonal", "assignment"),
    "gaussian-200": ("sw1", "sw2", "db-tsw", "assignment"),
}
DEFAULT = ("sw1", "sw2", "db-tsw", "assignment")  # of other targets
EXAMPLES = """examples:
  python -m examples.gradient_flows --targets swiss-roll --methods sw2,db-tsw --steps 500
  python -m examples.gradient_flows --targets gaussian-50,gaussian-200
  python -m examples.gradient_flows                      # all; about 20 minutes of one core
  python -m examples.gradient_flows --targets swiss-roll --methods maximum    # 5 minutes more
"""


def measured(target: str, method: str, settings: Settings) -> Cell:
    """Tunes the learning rate, then flows with the seeds that are reported."""
    trials = [(TUNING_SEED, rate) for rate in settings.rates]
    tuning = [curve[-1] for curve in flows(target, method, settings, trials)[0]]
    rate = settings.rates[min(range(len(tuning)), key=tuning.__getitem__)]
    trials = [(seed, rate) for seed in settings.seeds]
    curves, snapshots = flows(target, method, settings, trials)
    goal = problem(target, settings.points, settings.seeds[0])[1]
    flat = goal.shape[1] == 2
    return Cell(
        target=target,
        method=method,
        settings=settings,
        tuning=tuning,
        rate=rate,
        steps=judged(settings.steps),
        curves=curves,
        snapshots=snapshots if flat else [],
        goal=goal.tolist() if flat else [],
    )


def flows(
    target: str, method: str, settings: Settings, trials: Sequence[tuple[int, float]]
) -> tuple[list[list[float]], list[Snapshot]]:
    """The exact W_2 along flows side by side, and points of the first one.

    Lines are drawn for a step, not for a flow: all see the same.

    Args:
        target: its name.
        method: its name.
        settings: points and steps.
        trials: seed of the clouds, and learning rate, of each flow.
    """
    pairs = [problem(target, settings.points, seed) for seed, _ in trials]
    start, goal = (torch.stack(clouds) for clouds in zip(*pairs, strict=True))
    rates = [rate for _, rate in trials]
    chance = Generator().manual_seed(trials[0][0])
    path = flow(start, goal, METHODS[method].loss, rates, settings.steps, chance)
    moments = set(judged(settings.steps))
    pictured = {round(share * settings.steps) for share in PICTURED}
    found, snapshots = [], []
    title = f"{target} {method}"
    for step, points in enumerate(tqdm(path, title, settings.steps + 1, leave=False, unit="step")):
        if step in moments:
            found.append(assigned_wasserstein(points, goal))
        if step in pictured:
            snapshots.append((step, points[0].tolist()))
    return torch.stack(found, dim=1).tolist(), snapshots


def judged(steps: int) -> list[int]:
    """The steps at which W_2 is taken."""
    return sorted({round(steps * part / JUDGED) for part in range(JUDGED + 1)})


def kept(folder: Path, target: str, method: str, settings: Settings) -> Cell:
    """The cell as an earlier run left it, or a new one.

    Raises:
        SystemExit: if the earlier run had other settings.
    """
    path = folder / f"{target}-{method}.json"
    if not path.exists():
        cell = measured(target, method, settings)
        write_atomically(path, json.dumps(asdict(cell)).encode())
    cell = Cell.of(json.loads(path.read_text()))
    if cell.settings != settings:
        raise SystemExit(f"{path} is of {cell.settings}, not {settings}; give another --out")
    return cell


def milliseconds(
    target: str, methods: Sequence[str], points: int, rounds: int = 5
) -> dict[str, float]:
    """The shortest time of a step of one cloud, methods taking turns, ten steps each."""
    start, goal = (cloud.unsqueeze(0) for cloud in problem(target, points, TUNING_SEED))
    best = dict.fromkeys(methods, float("inf"))
    for _ in range(rounds):
        for method in methods:
            path = flow(start, goal, METHODS[method].loss, (1e-3,), 10, Generator().manual_seed(0))
            next(path)
            begin = time.perf_counter()
            for _points in path:
                pass
            best[method] = min(best[method], (time.perf_counter() - begin) * 100)
    return best


def uniform_gap(target: str, points: int) -> float:
    """The largest difference of TSW-SL with equal shares from SW_1, its gradient included."""
    start, goal = problem(target, points, TUNING_SEED)
    start, goal = start.double().requires_grad_(), goal.double()
    systems = Systems.sample(start.shape[1], LINES // 4, 4, "chain", generator=_chance())
    directions = systems.directions.flatten(0, 1)
    sliced = sliced_wasserstein(start, goal, p=1, directions=directions)
    trees = tree_sliced_wasserstein(start, goal, splitting=Uniform(), systems=systems)
    (of_sliced,), (of_trees,) = (torch.autograd.grad(value, start) for value in (sliced, trees))
    gap = (sliced - trees).detach().abs()
    return max(float(gap), float((of_sliced - of_trees).abs().max()))


def _chance() -> Generator:
    return Generator().manual_seed(TUNING_SEED)


def main(arguments: list[str] | None = None) -> None:
    """Measures all cells that are missing, then writes the tables and the picture."""
    parser = argparse.ArgumentParser(
        prog="python -m examples.gradient_flows",
        description=__doc__,
        epilog=EXAMPLES + "\nmethods: " + ", ".join(METHODS) + "\ntargets: " + ", ".join(TARGETS),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--targets", default=",".join(PLAN), help="separated by commas")
    parser.add_argument("--methods", help="separated by commas (default: see below)")
    parser.add_argument("--steps", type=int, default=2500, help="of Adam (default: 2500)")
    parser.add_argument("--points", type=int, default=100, help="of each cloud (default: 100)")
    parser.add_argument("--seeds", type=int, default=3, help="how many are reported (default: 3)")
    parser.add_argument("--seed", type=int, default=0, help="the first of them (default: 0)")
    parser.add_argument("--out", type=Path, default=Path("runs/gradient-flows"), help="folder")
    options = parser.parse_args(arguments)
    targets = options.targets.split(",")
    for name in {*targets, *(options.methods or "").split(",")} - {*TARGETS, *METHODS, ""}:
        parser.error(f"{name!r} is neither a target nor a method that --help lists")
    methods = {
        target: tuple(options.methods.split(",")) if options.methods else PLAN.get(target, DEFAULT)
        for target in targets
    }
    if min(options.steps, options.points, options.seeds) < 1:
        parser.error("steps, points and seeds have to be positive")
    torch.set_num_threads(1)
    options.out.mkdir(parents=True, exist_ok=True)

    seeds = tuple(range(options.seed, options.seed + options.seeds))
    settings = Settings(options.points, options.steps, RATES, seeds)
    pairs = [(target, method) for target in targets for method in methods[target]]
    cells = [
        kept(options.out, target, method, settings)
        for target, method in tqdm(pairs, "flows", unit="method")
    ]
    times = {target: milliseconds(target, methods[target], options.points) for target in targets}
    gaps = {target: uniform_gap(target, options.points) for target in targets}
    text = tables(cells, times, gaps)
    (options.out / "table.md").write_text(text)
    results = {"cells": [asdict(cell) for cell in cells], "milliseconds": times, "uniform": gaps}
    (options.out / "results.json").write_text(json.dumps(results))
    drawn(cells).savefig(options.out / "flows.png", dpi=110)
    print(text)


if __name__ == "__main__":
    main()
