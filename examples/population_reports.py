"""What became of populations of networks: table and picture."""

from __future__ import annotations

from dataclasses import dataclass

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor

from examples.flows import METHODS
from gmn.graph import ParameterGraph
from gmn.tasks.rendering import PixelGrid
from gmn.transport import ZooMetrics

GAP = 2  # pixels between pictures
SHOWN = (1.0, 0.75, 0.5, 0.25, 0.1)  # shares of the first W_2 at which networks are shown


@dataclass(frozen=True)
class Gallery:
    """The images that networks were fitted to.

    Attributes:
        images: shape (images, 1, height, width).
        wanted: which of them show the second digit, shape (images,).
    """

    images: Tensor
    wanted: Tensor

    def judged(self, graph: ParameterGraph) -> tuple[float, float]:
        """Median distance (RMS) to the nearest image, and the share that shows the second digit."""
        seen = PixelGrid(*self.images.shape[-2:]).images(graph)
        pixels = self.images[0].numel()
        distances = torch.cdist(seen.flatten(1), self.images.flatten(1)) / pixels**0.5
        nearest = distances.min(dim=1)
        return float(nearest.values.median()), float(self.wanted[nearest.indices].double().mean())


@dataclass(frozen=True)
class Outcome:
    """One flow in one kind of coordinates.

    Attributes:
        way: the kind of coordinates.
        method: its name.
        targets: how many networks the flow goes to.
        rate: learning rate.
        ends: exact W_2 at the start and the end, in units of the spread of a weight.
        error: median RMS distance of pictures from the nearest image: at the start, when W_2 is
            halved (None if it never is), at the end.
        share: of pictures whose nearest image shows the second digit, at these moments.
        metrics: of the population at the end.
    """

    way: str
    method: str
    targets: int
    rate: float
    ends: tuple[float, float]
    error: tuple[float | None, ...]
    share: tuple[float | None, ...]
    metrics: ZooMetrics


def table(outcomes: list[Outcome], held_out: dict[str, tuple[float, float]], digit: int) -> str:
    """In Markdown."""
    lines = [
        "| weights | flow | rate | W₂: start, end | RMS to the nearest image: start, half-way, end "
        f"| nearest shows a {digit}: half-way, end | 1-NNA | coverage | novelty |",
        "|" + "---|" * 9,
    ]

    def number(value: float | None, form: str) -> str:
        return "never" if value is None else format(value, form)

    for each in outcomes:
        errors = ", ".join(number(value, ".3f") for value in each.error)
        shares = ", ".join(number(value, ".0%") for value in each.share[1:])
        metrics = each.metrics
        lines.append(
            f"| {each.way} | {METHODS[each.method].label} to {each.targets} | {each.rate:g} | "
            f"{each.ends[0]:.2f}, {each.ends[1]:.2g} | {errors} | {shares} | "
            f"{metrics.accuracy:.2f} | {metrics.coverage:.2f} | {metrics.novelty:.2f} |"
        )
    lines.append("")
    lines.extend(
        f"Held-out networks of the digit {digit}, {way}: RMS to the nearest image {error:.3f}, "
        f"which shows a {digit} for {share:.0%}."
        for way, (error, share) in held_out.items()
    )
    return "\n".join(lines)


def drawn(rows: list[tuple[str, list[Tensor | None]]], shown: int) -> Figure:
    """A row for each flow: the same networks at several distances from the goal.

    Args:
        rows: a title, and images (networks, 1, height, width) at each moment, None where the flow
            does not come so near.
        shown: networks side by side.
    """
    moments = ["start", *(f"{share:.0%}" for share in SHOWN[1:]), "end"]
    first = rows[0][1][0]  # a start, which all flows have
    assert first is not None
    height, width = first.shape[-2:]
    tall, wide = height + GAP, width + GAP
    canvas = torch.full((len(rows) * tall, (shown * len(moments) + 1) * wide), torch.nan)
    figure, axes = plt.subplots(figsize=(9, 0.62 * len(rows) + 0.3))
    for row, (title, seen) in enumerate(rows):
        axes.text(-2, (row + 0.5) * tall, title, fontsize=7, ha="right", va="center")
        for network in range(shown):
            for moment, images in enumerate(seen):
                # Half a tile lies between one network and the next.
                left = (network * len(moments) + moment) * wide + network * wide // 2
                if images is not None:
                    canvas[row * tall :, left:][:height, :width] = images[network, 0]
                if row == 0:
                    axes.text(left + width / 2, -2, moments[moment], fontsize=7, ha="center")
    axes.imshow(canvas.numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_axis_off()
    figure.subplots_adjust(left=0.2, right=0.995, top=0.97, bottom=0.005)
    return figure
