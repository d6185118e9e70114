"""What became of populations of networks: table and picture."""

from __future__ import annotations

from dataclasses import dataclass

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional

from examples.flows import METHODS
from gmn.graph import ParameterGraph
from gmn.tasks.rendering import PixelGrid
from gmn.transport import ZooMetrics

GAP = 2  # pixels between pictures
SHOWN = (1.0, 0.75, 0.5, 0.25, 0.1)  # shares of the first W_2 at which networks are shown


@dataclass(frozen=True)
class Gallery:
    """Images of the two digits, equally many of each.

    Attributes:
        images: shape (images, 1, height, width).
        wanted: which of them show the second digit, shape (images,).
    """

    images: Tensor
    wanted: Tensor

    def judged(self, graph: ParameterGraph) -> Judgement:
        """Compares what networks render with all images, by correlation over the pixels."""
        seen = PixelGrid(*self.images.shape[-2:]).images(graph)
        nearest = (_centred(seen) @ _centred(self.images).T).max(dim=1)
        share = self.wanted[nearest.indices].double().mean()
        return Judgement(float(nearest.values.median()), float(share))


@dataclass(frozen=True)
class Judgement:
    """What networks render.

    Attributes:
        likeness: correlation with the most similar image, the median over networks: 1 for copies.
        share: of networks whose most similar image shows the second digit.
    """

    likeness: float
    share: float


def _centred(pictures: Tensor) -> Tensor:
    """Pixels around their mean, of length 1, shape (pictures, pixels)."""
    flat = pictures.flatten(1)
    return functional.normalize(flat - flat.mean(dim=1, keepdim=True), dim=1)


@dataclass(frozen=True)
class Outcome:
    """One flow in one kind of coordinates.

    Attributes:
        way: the kind of weights.
        method: its name.
        dimensions: of the points.
        targets: how many networks the flow goes to.
        rate: learning rate.
        ends: exact W_2 at the start and the end, in units of the spread of a coordinate.
        judged: what is rendered at the start, when W_2 is halved (None if it never is), and at the
            end.
        metrics: of the population at the end.
    """

    way: str
    method: str
    dimensions: int
    targets: int
    rate: float
    ends: tuple[float, float]
    judged: tuple[Judgement | None, ...]
    metrics: ZooMetrics


def title(outcome: Outcome) -> str:
    """What the flow is called in tables and pictures."""
    label = METHODS[outcome.method].label
    return f"{label} to {outcome.targets}, {outcome.dimensions}-D"


def table(outcomes: list[Outcome], held_out: Judgement, digit: int) -> str:
    """In Markdown.

    Args:
        outcomes: all flows.
        held_out: how other networks of the second digit are judged.
        digit: the second one.
    """
    lines = [
        "| weights | flow | rate | W₂: start, end | likeness to an image: start, half-way, end "
        f"| most like a {digit}: half-way, end | 1-NNA | coverage | novelty |",
        "|" + "---|" * 9,
    ]
    for each in outcomes:
        likeness = ", ".join("never" if j is None else f"{j.likeness:.2f}" for j in each.judged)
        share = ", ".join("never" if j is None else f"{j.share:.0%}" for j in each.judged[1:])
        metrics = each.metrics
        lines.append(
            f"| {each.way} | {title(each)} | {each.rate:g} | {each.ends[0]:.2f}, "
            f"{each.ends[1]:.2g} | {likeness} | {share} | {metrics.accuracy:.2f} | "
            f"{metrics.coverage:.2f} | {metrics.novelty:.2f} |"
        )
    lines.append(
        f"| held-out networks of the digit {digit} | | | | {held_out.likeness:.2f} | "
        f"{held_out.share:.0%} | | | |"
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
    figure, axes = plt.subplots(figsize=(9, 0.56 * len(rows) + 0.3))
    for row, (name, seen) in enumerate(rows):
        axes.text(-2, (row + 0.5) * tall, name, fontsize=7, ha="right", va="center")
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
