"""A comparison as a table and as a picture."""

from __future__ import annotations

import html
from io import StringIO
from typing import TYPE_CHECKING

import torch
from rich import box
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gmn.comparison import Comparison, Row

NAMES = {"tau": "Kendall τ", "r2": "R²"}


def columns(comparison: Comparison) -> list[str]:
    """Headings of the table."""
    metrics = [NAMES.get(m, m) for m in comparison.rows[0].metrics]
    costs = ["parameters", "ms/network", "MFLOP/network", "peak MiB", "saved MiB"]
    return ["model", *metrics, "p vs best", *costs, "lr", "train s"]


def cells(comparison: Comparison, row: Row) -> list[str]:
    """One row of the table."""
    metrics = [f"{row.mean(m):.3f} ± {row.interval(m):.3f}" for m in row.metrics]
    price = row.cost
    return [
        row.model,
        *metrics,
        "–" if row is comparison.rows[0] else f"{comparison.p_value(row):.1g}",
        f"{price.parameters:,}",
        f"{price.milliseconds:.2f}",
        f"{price.mflop:.1f}",
        f"{price.peak_mib:.0f}",
        f"{price.saved_mib:.1f}",
        f"{row.learning_rate:g}" if row.learning_rate else "–",
        f"{sum(row.seconds) / len(row.seconds):.0f}",
    ]


def caption(comparison: Comparison) -> str:
    """The protocol in one line."""
    protocol = comparison.protocol
    sizes = "/".join(str(n) for n in protocol["networks"].values())
    recipe = protocol["recipe"]
    return (
        f"{protocol['task']}: {sizes} networks (train/val/test), {protocol['seeds']} seeds "
        f"(mean ± 95 % CI), {recipe['epochs']} epochs of batches of {recipe['batch_size']}, "
        "AdamW with one cycle, no augmentation, no probes, best validation epoch; "
        f"costs per training step on {protocol['threads']} thread(s)"
    )


def text_table(comparison: Comparison) -> str:
    """The table as plain text."""
    table = Table(box=box.SIMPLE_HEAD, caption=caption(comparison), caption_justify="left")
    for number, name in enumerate(columns(comparison)):
        table.add_column(name, justify="right" if number else "left", no_wrap=True)
    for row in comparison.rows:
        table.add_row(*cells(comparison, row))
    console = Console(file=StringIO(), width=150)
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
    note = f"<caption>{html.escape(caption(comparison))}</caption>"
    return f"<table>{note}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def scatter_plot(comparison: Comparison) -> Figure:
    """Predicted against true values, one panel per model, seeds averaged."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    count = len(comparison.rows)
    across = min(count, 3)
    down = -(-count // across)
    figure = Figure(figsize=(3.2 * across, 3.3 * down + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    engine = figure.get_layout_engine()
    assert engine is not None
    engine.set(h_pad=0.12)  # type: ignore[call-arg]
    grid = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    axes = list(grid.flat)
    for axis, row in zip(axes, comparison.rows, strict=False):
        predicted = torch.tensor(row.predictions).mean(dim=0)
        axis.plot([0, 1], [0, 1], color="0.7", linewidth=1, zorder=0)
        axis.scatter(comparison.target, predicted, s=9, alpha=0.5, linewidths=0, color="C0")
        metric = comparison.metric
        title = f"{row.model}\n{NAMES.get(metric, metric)} = {row.mean(metric):.3f}"
        axis.set_title(title, fontsize=10)
        axis.set_aspect("equal")
    for axis in axes[count:]:
        axis.set_visible(False)
    figure.supxlabel("true test accuracy", fontsize=10)
    figure.supylabel("predicted from the weights", fontsize=10)
    return figure
