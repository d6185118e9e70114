"""A comparison as a table and as a picture."""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from io import StringIO
from typing import TYPE_CHECKING, Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import Locator

    from gmn.comparison import Comparison, Row

NAMES = {"tau": "Kendall τ", "r2": "R²", "nll": "−log p"}


def columns(comparison: Comparison) -> list[str]:
    """Headings of the table."""
    metrics = [NAMES.get(m, m) for m in comparison.rows[0].metrics]
    costs = ["probes", "parameters", "ms/network", "MFLOP/network", "peak MiB", "saved MiB"]
    return ["model", *metrics, "p vs best", *costs, "lr", "train s"]


def cells(comparison: Comparison, row: Row) -> list[str]:
    """One row of the table."""
    several = len(row.seconds) > 1
    metrics = [
        f"{row.mean(m):.3f}" + (f" ± {row.interval(m):.3f}" if several else "") for m in row.metrics
    ]
    price = row.cost
    return [
        row.model,
        *metrics,
        "–" if row is comparison.rows[0] else f"{comparison.p_value(row):.1g}",
        f"{price.probes or '–'}",
        f"{price.parameters:,}",
        f"{price.milliseconds:.2f}",
        f"{price.mflop:.1f}",
        f"{price.peak_mib:.0f}",
        f"{price.saved_mib:.1f}",
        f"{row.learning_rate:g}" if row.learning_rate else "–",
        f"{sum(row.seconds) / len(row.seconds):.0f}",
    ]


def caption(comparison: Comparison) -> str:
    """The protocol in one line, and one for each model that was left out."""
    protocol = comparison.protocol
    sizes = "/".join(str(n) for n in protocol["networks"].values())
    recipe = protocol["recipe"]
    protocol_line = (
        f"{protocol['task']}: {sizes} networks (train/val/test), {_seeds(protocol['seeds'])}, "
        f"{recipe['epochs']} epochs of batches of {recipe['batch_size']}, "
        f"AdamW with one cycle, {_augmentation(recipe)}, best validation epoch; "
        f"costs per training step on {protocol['threads']} thread(s)"
    )
    left_out = [f"{name} is left out: {why}" for name, why in comparison.refused.items()]
    return "\n".join([protocol_line, *left_out])


def _seeds(count: int) -> str:
    return f"{count} seeds (mean ± 95 % CI)" if count > 1 else "one seed"


def _augmentation(recipe: dict[str, Any]) -> str:
    return "no augmentation" if recipe["augment"] is None else f"augmented by {recipe['augment']}"


def text_table(comparison: Comparison) -> str:
    """The table as plain text."""
    table = Table(box=box.SIMPLE_HEAD, caption=caption(comparison), caption_justify="left")
    for number, name in enumerate(columns(comparison)):
        table.add_column(name, justify="right" if number else "left", no_wrap=True)
    for row in comparison.rows:
        table.add_row(*cells(comparison, row))
    console = Console(file=StringIO(), width=160)
    console.print(table)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in text.splitlines())


def html_table(comparison: Comparison) -> str:
    """The table for notebooks."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in columns(comparison))
    body = "".join(
        f"<tr>{''.join(f'<td>{html.escape(c)}</td>' for c in cells(comparison, row))}</tr>"
        for row in comparison.rows
    )
    lines = html.escape(caption(comparison)).replace("\n", "<br>")
    note = f"<caption>{lines}</caption>"
    return f"<table>{note}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def scatter_plot(comparison: Comparison) -> Figure:
    """Predicted against true numbers, one panel per model, seeds averaged."""
    figure, panels = _panels(comparison)
    for axis, row in panels:
        predicted = torch.tensor(row.predictions).mean(dim=0)
        axis.plot([0, 1], [0, 1], color="0.7", linewidth=1, zorder=0)
        axis.scatter(comparison.target, predicted, s=9, alpha=0.5, linewidths=0, color="C0")
        axis.set_aspect("equal")
    figure.supxlabel(f"true {comparison.protocol['target']}", fontsize=10)
    figure.supylabel("predicted from the weights", fontsize=10)
    return figure


def confusion_plot(comparison: Comparison) -> Figure:
    """How often each class is taken for which, one panel per model, all seeds together.

    Rows are true classes and sum to one; agreement is on the diagonal.
    """
    figure, panels = _panels(comparison)
    for axis, row in panels:
        shares = confusion(row.predictions, comparison.target).numpy()
        axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        axis.xaxis.set_major_locator(_whole_numbers())
        axis.yaxis.set_major_locator(_whole_numbers())
    figure.supxlabel("predicted from the weights", fontsize=10)
    figure.supylabel(f"true {comparison.protocol['target']}", fontsize=10)
    return figure


def confusion(predictions: Sequence[Sequence[float]], target: Sequence[float]) -> Tensor:
    """Share of the networks of each true class (row) that are taken for each class (column).

    Args:
        predictions: classes per seed and network.
        target: true class per network.

    Returns:
        Shape (classes, classes); a row is zero where no network has its class.

    >>> confusion([[0, 1, 1], [0, 0, 1]], [0, 0, 1])
    tensor([[0.7500, 0.2500],
            [0.0000, 1.0000]])
    """
    found = torch.tensor(predictions).long()
    truth = torch.tensor(target).long().expand_as(found)
    classes = int(torch.maximum(found, truth).max()) + 1
    counts = torch.zeros(classes, classes)
    counts.index_put_((truth, found), torch.ones(()), accumulate=True)
    return counts / counts.sum(dim=1, keepdim=True).clamp(min=1)


PLOTS: dict[str, Callable[[Comparison], Figure]] = {
    "number": scatter_plot,
    "class": confusion_plot,
}


def plot(comparison: Comparison) -> Figure:
    """What the models answered and what is true, in the picture that fits the task."""
    return PLOTS[comparison.protocol["kind"]](comparison)


def _whole_numbers() -> Locator:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(10, integer=True)


def _panels(comparison: Comparison) -> tuple[Figure, list[tuple[Axes, Row]]]:
    """A figure with a titled panel for each model."""
    from gmn._picture import Picture

    count = len(comparison.rows)
    across = min(count, 3)
    down = -(-count // across)
    figure = Picture(figsize=(3.2 * across, 3.3 * down + 0.4), layout="constrained")
    engine = figure.get_layout_engine()
    assert engine is not None
    engine.set(h_pad=0.12)  # type: ignore[call-arg]
    axes = list(figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).flat)
    metric = comparison.metric
    for axis, row in zip(axes, comparison.rows, strict=False):
        title = f"{row.model}\n{NAMES.get(metric, metric)} = {row.mean(metric):.3f}"
        axis.set_title(title, fontsize=10)
    for axis in axes[count:]:
        axis.set_visible(False)
    return figure, list(zip(axes, comparison.rows, strict=False))
