"""Tables and pictures of gradient flows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from examples.flows import METHODS

Snapshot = tuple[int, list[list[float]]]  # a step, and the points then
COLUMNS = 5  # numbers of steps in the table
# Of the published comparison (arXiv 2406.13725, appendix E.1): for sliced methods, and for trees.
PUBLISHED_RATES = (5e-3, 5e-2)


@dataclass(frozen=True)
class Settings:
    """What the flows of a target share.

    Attributes:
        points: of each cloud.
        steps: of Adam.
        rates: learning rates to choose from.
        seeds: that are reported.
    """

    points: int
    steps: int
    rates: tuple[float, ...]
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Cell:
    """One method on one target.

    Attributes:
        target: its name.
        method: its name.
        settings: of the flows.
        tuning: exact W_2 at the end with each rate, with the seed of tuning.
        rate: the best one.
        steps: at which W_2 was taken.
        curves: exact W_2 of each seed at these steps.
        snapshots: in 2-D, steps and points of the first seed.
        goal: in 2-D, the target of the first seed.
    """

    target: str
    method: str
    settings: Settings
    tuning: list[float]
    rate: float
    steps: list[int]
    curves: list[list[float]]
    snapshots: list[Snapshot]
    goal: list[list[float]]

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Cell:
        """From JSON."""
        given = values["settings"]
        lists = {name: tuple(given[name]) for name in ("rates", "seeds")}
        return cls(**{**values, "settings": Settings(**{**given, **lists})})

    def middle(self) -> list[float]:
        """The median over seeds, step by step."""
        return [median(values) for values in zip(*self.curves, strict=True)]


def tables(
    cells: Sequence[Cell],
    milliseconds: Mapping[str, Mapping[str, float]],
    gaps: Mapping[str, float],
) -> str:
    """W_2 along the flows, and at the end with every rate, in Markdown.

    Args:
        cells: all methods of all targets.
        milliseconds: of a step, by target and method.
        gaps: of TSW-SL with equal shares from SW_1, by target.
    """
    parts = []
    for target in milliseconds:
        own = [cell for cell in cells if cell.target == target]
        parts.append(f"### {target}\n")
        parts.append(_along(own, milliseconds[target]))
        parts.append(
            "\nW₂ at the end with every learning rate, one seed of its own, used for tuning:\n"
        )
        parts.append(_by_rate(own))
        parts.append(_published(own))
        parts.append(
            f"\nTSW-SL with equal shares differs from SW₁ by {gaps[target]:.0e}, its gradient "
            "included (float64): its row is that of SW₁.\n"
        )
    return "\n".join(parts)


def _along(cells: Sequence[Cell], milliseconds: Mapping[str, float]) -> str:
    last = cells[0].settings.steps
    shown = [round(last * part / COLUMNS) for part in range(1, COLUMNS + 1)]
    places = [cells[0].steps.index(step) for step in shown]
    seeds = len(cells[0].settings.seeds)
    lines = [
        f"| median of {seeds} seeds | rate | {' | '.join(map(str, shown))} | range at the end "
        "| smallest | ms a step |",
        "|" + "---|" * (len(shown) + 5),
    ]
    for cell in cells:
        middle = cell.middle()
        ends = sorted(curve[-1] for curve in cell.curves)
        values = " | ".join(f"{middle[place]:.2g}" for place in places)
        lines.append(
            f"| {METHODS[cell.method].label} | {cell.rate:g} | {values} | {ends[0]:.2g} to "
            f"{ends[-1]:.2g} | {min(middle):.2g} | {milliseconds[cell.method]:.1f} |"
        )
    return "\n".join(lines)


def _by_rate(cells: Sequence[Cell]) -> str:
    rates = cells[0].settings.rates
    lines = [
        f"| rate | {' | '.join(f'{rate:g}' for rate in rates)} |",
        "|" + "---|" * (len(rates) + 1),
    ]
    for cell in cells:
        values = " | ".join(f"{value:.2g}" for value in cell.tuning)
        lines.append(f"| {METHODS[cell.method].label} | {values} |")
    return "\n".join(lines)


def _published(cells: Sequence[Cell]) -> str:
    """What unequal learning rates make of the comparison in high dimensions."""
    if cells[0].snapshots or not set(PUBLISHED_RATES) <= set(cells[0].settings.rates):
        return ""
    ends = [
        {c.method: c.tuning[c.settings.rates.index(rate)] for c in cells}
        for rate in PUBLISHED_RATES
    ]
    pairs = [("sw1", 0), ("sw2", 0), ("sw1", 1), ("sw2", 1), ("db-tsw", 1)]
    named = [
        f"{METHODS[method].label} at {PUBLISHED_RATES[place]:g}: {ends[place][method]:.2g}"
        for method, place in pairs
        if method in ends[place]
    ]
    given = "The published comparison gave SW the rate {:g} and TSW-SL {:g}; here ".format(
        *PUBLISHED_RATES
    )
    return f"\n{given}{'; '.join(named)}."


def drawn(cells: Sequence[Cell]) -> Figure:
    """Curves of all targets above; points of the 2-D targets below, targets side by side."""
    targets = list(dict.fromkeys(cell.target for cell in cells))
    flat = [[c for c in cells if c.target == t and c.snapshots] for t in targets]
    flat = [own for own in flat if own]
    lines, rows = -(-(len(targets) + 1) // 3), max((len(own) for own in flat), default=0)
    heights = [2.3 * lines, 1.05 * max(rows, 1)]
    figure = plt.figure(figsize=(11, sum(heights)), layout="constrained")
    above, below = figure.subfigures(2, 1, squeeze=False, height_ratios=heights)[:, 0]

    places = list(above.subplots(lines, 3, squeeze=False).ravel())
    for target in targets:
        _curves(places.pop(0), [cell for cell in cells if cell.target == target])
    for axes in places:
        axes.set_axis_off()
    for method in dict.fromkeys(cell.method for cell in cells):
        places[0].plot([], [], color=_colour(method), label=METHODS[method].label)
    places[0].legend(loc="center", frameon=False)

    if flat:
        panels = len(flat[0][0].snapshots)
        grid = below.subplots(rows, panels * len(flat), squeeze=False)
        for axes in grid.ravel():
            axes.set(xticks=[], yticks=[], frame_on=False)
        for block, own in enumerate(flat):
            for line, cell in zip(grid, own, strict=False):
                _points(line[panels * block : panels * (block + 1)], cell)
    return figure


def _colour(method: str) -> str:
    return f"C{list(METHODS).index(method)}"


def _curves(axes: Axes, cells: Sequence[Cell]) -> None:
    for cell in cells:
        axes.plot(cell.steps, cell.middle(), color=_colour(cell.method), linewidth=1.2)
    axes.set(title=cells[0].target, xlabel="steps of Adam", ylabel="exact W₂", yscale="log")


def _points(row: Sequence[Axes], cell: Cell) -> None:
    goal = torch.tensor(cell.goal).T
    for axes, (step, points) in zip(row, cell.snapshots, strict=True):
        axes.scatter(goal[0], goal[1], s=4, color="0.85")
        now = torch.tensor(points).T
        axes.scatter(now[0], now[1], s=2, color=_colour(cell.method))
        axes.set(xlim=(-1.6, 1.6), ylim=(-1.6, 1.6), aspect="equal")
        axes.set_title(f"step {step}", fontsize=6, pad=1)
    row[0].set_ylabel(METHODS[cell.method].label.replace(", ", "\n"), fontsize=6)
