"""Tables and plots of a comparison."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from functools import partial
from io import StringIO
from typing import TYPE_CHECKING, Any

import torch
from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import Locator

    from gmn.comparison import Comparison, Row

NAMES = {"tau": "Kendall τ", "r2": "R²", "nll": "−log p", "mse": "MSE", "psnr": "PSNR dB"}
NAMES |= {"mae": "mean |error|"}
MOST_NAMES = 12  # of classes that fit beside a picture
FORMATS = {"mse": ".5f", "psnr": ".2f"}  # others have three decimals


def columns(comparison: Comparison) -> list[str]:
    """Headings of the table."""
    metrics = [_heading(comparison, metric) for metric in comparison.rows[0].metrics]
    costs = ["probes", "parameters", "ms/network", "MFLOP/network", "peak MiB", "saved MiB"]
    return ["model", *metrics, "p vs best", *costs, "lr", "train s"]


def _heading(comparison: Comparison, metric: str) -> str:
    """A metric's name, marked where smaller values of the ranking metric are better."""
    name = NAMES.get(metric, metric)
    smaller = not comparison.protocol.get("larger_is_better", True)
    return f"{name} ↓" if smaller and metric == comparison.metric else name


def number(metric: str, value: float) -> str:
    """A value of a metric with as many decimals as it needs; a dash where it is undefined.

    >>> number("tau", 0.51234), number("mse", 0.0123), number("tau", float("nan"))
    ('0.512', '0.01230', '–')
    """
    return "–" if math.isnan(value) else format(value, FORMATS.get(metric, ".3f"))


def cells(comparison: Comparison, row: Row) -> list[str]:
    """One row of the table."""
    metrics = [
        number(m, row.mean(m))
        + ("" if math.isnan(row.interval(m)) else f" ± {number(m, row.interval(m))}")
        for m in row.metrics
    ]
    price = row.cost
    return [
        row.model,
        *metrics,
        "–" if row is comparison.rows[0] else _small(comparison.p_value(row)),
        f"{price.probes or '–'}",
        f"{price.parameters:,}",
        f"{price.milliseconds:.2f}",
        f"{price.mflop:.1f}",
        f"{price.peak_mib:.0f}",
        f"{price.saved_mib:.1f}",
        f"{row.learning_rate:g}" if row.learning_rate else "–",
        f"{sum(row.seconds) / len(row.seconds):.0f}",
    ]


def table_rows(comparison: Comparison) -> list[list[str]]:
    """All rows of the table: the models, best first, then what needs no model."""
    rows = [cells(comparison, row) for row in comparison.rows]
    for name, metrics in comparison.baselines.items():
        values = [number(metric, metrics[metric]) for metric in comparison.rows[0].metrics]
        rows.append([name, *values, *["–"] * (len(columns(comparison)) - 1 - len(values))])
    return rows


def _small(probability: float) -> str:
    """A p-value as text; underflow is shown as a bound, not as 0."""
    return f"{probability:.1g}" if probability else "<1e-300"


def caption(comparison: Comparison) -> str:
    """The protocol in one line, and one for each model that was left out."""
    protocol = comparison.protocol
    sizes = "/".join(str(n) for n in protocol["networks"].values())
    recipe = protocol["recipe"]
    protocol_line = (
        f"{protocol['task']}{_options(protocol)}: {sizes} networks (train/val/test), "
        f"{_seeds(protocol['seeds'])}, "
        f"{recipe['epochs']} epochs of batches of {recipe['batch_size']}, "
        f"AdamW with one cycle, {', '.join(_settings(recipe))}, best validation epoch; "
        f"costs per training step on {_hardware(protocol)}"
    )
    left_out = [f"{name} is left out: {why}" for name, why in comparison.refused.items()]
    return "\n".join([protocol_line, *left_out])


def _hardware(protocol: dict[str, Any]) -> str:
    device = protocol.get("device", "cpu")
    return f"{protocol['threads']} thread(s)" if device == "cpu" else str(device)


def _seeds(count: int) -> str:
    return f"{count} seeds (mean ± 95 % CI)" if count > 1 else "one seed"


def _options(protocol: dict[str, Any]) -> str:
    settings = [f"{name} {value}" for name, value in protocol.get("settings", {}).items()]
    return f" ({', '.join(settings)})" if settings else ""


def _settings(recipe: dict[str, Any]) -> list[str]:
    """Settings of a recipe in words, other than epochs and batches."""
    augment = recipe["augment"]
    settings = ["no augmentation" if augment is None else f"augmented by {augment}"]
    if recipe.get("learning_rate") is not None:
        settings.append(f"learning rate {recipe['learning_rate']:g}")
    if recipe.get("weight_decay") is not None:
        settings.append(f"weight decay {recipe['weight_decay']:g}")
    if recipe.get("clip") is not None:
        settings.append(f"gradients clipped at {recipe['clip']:g}")
    if recipe.get("patience") is not None:
        settings.append(f"stopped after {recipe['patience']} epochs without a better one")
    if recipe.get("ema") is not None:
        settings.append(f"weights averaged with decay {recipe['ema']:g}")
    if recipe.get("bf16"):
        settings.append("steps in bfloat16")
    return settings


def text_table(comparison: Comparison) -> str:
    """The table as plain text."""
    table = Table(box=box.SIMPLE_HEAD, caption=caption(comparison), caption_justify="left")
    for index, name in enumerate(columns(comparison)):
        table.add_column(name, justify="right" if index else "left", no_wrap=True)
    for row in table_rows(comparison):
        table.add_row(*row)
    plain = partial(Console, markup=False, emoji=False, highlight=False)  # names as they are
    wide = plain(width=10_000)
    needed = Measurement.get(wide, wide.options, table).maximum
    console = plain(file=StringIO(), width=max(160, needed))  # no number is cut off
    console.print(table)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return "\n".join(line.rstrip() for line in text.splitlines())


def html_table(comparison: Comparison) -> str:
    """The table for notebooks."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in columns(comparison))
    body = "".join(
        f"<tr>{''.join(f'<td>{html.escape(c)}</td>' for c in row)}</tr>"
        for row in table_rows(comparison)
    )
    lines = html.escape(caption(comparison)).replace("\n", "<br>")
    note = f"<caption>{lines}</caption>"
    return f"<table>{note}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def scatter_plot(comparison: Comparison) -> Figure:
    """Predicted against true numbers, one panel per model, seeds averaged."""
    figure, panels = _panels(comparison)
    ends = [min(comparison.target), max(comparison.target)]
    for axis, row in panels:
        predicted = torch.tensor(row.predictions).mean(dim=0)
        axis.plot(ends, ends, color="0.7", linewidth=1, zorder=0)
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
    names = comparison.protocol.get("settings", {}).get("classes")  # or how many there are
    for axis, row in panels:
        shares = confusion(row.predictions, comparison.target).numpy()
        axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
        axis.xaxis.set_major_locator(_whole_numbers())
        axis.yaxis.set_major_locator(_whole_numbers())
        if isinstance(names, list) and len(names) <= MOST_NAMES:
            axis.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=9)
            axis.set_yticks(range(len(names)), names, fontsize=9)
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
    predicted = torch.tensor(predictions).long()
    truth = torch.tensor(target).long().expand_as(predicted)
    classes = int(torch.maximum(predicted, truth).max()) + 1
    counts = torch.zeros(classes, classes)
    counts.index_put_((truth, predicted), torch.ones(()), accumulate=True)
    return counts / counts.sum(dim=1, keepdim=True).clamp(min=1)


def image_plot(comparison: Comparison) -> Figure:
    """Input, target and each model's output for some test networks.

    Every column is a network; answers are those of the first seed.
    """
    from gmn.draw.picture import Picture

    metric = comparison.metric
    lines = {name: shown for name, shown in comparison.shown.items() if name != "target"}
    lines[comparison.protocol["target"]] = comparison.shown["target"]
    for row in comparison.rows:
        lines[f"{row.model}\n{NAMES.get(metric, metric)} = {number(metric, row.mean(metric))}"] = (
            row.shown
        )
    across = len(comparison.shown["target"])
    figure = Picture(figsize=(1.2 * across + 1.6, 1.25 * len(lines)), layout="constrained")
    axes = figure.subplots(len(lines), across, squeeze=False)
    for line, (name, images) in zip(axes, lines.items(), strict=True):
        for axis, image in zip(line, images, strict=True):
            pixels = torch.tensor(image).movedim(0, -1).clamp(0, 1)
            axis.imshow(pixels.squeeze(-1).numpy(), cmap="gray", vmin=0, vmax=1)
            axis.set_xticks([])
            axis.set_yticks([])
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=9)
    return figure


def output_plot(comparison: Comparison) -> Figure:
    """Predicted against true outputs of some test networks, one panel per model."""
    figure, panels = _panels(comparison)
    truth = torch.tensor(comparison.shown["target"]).flatten()
    ends = [float(truth.min()), float(truth.max())]
    for axis, row in panels:
        axis.plot(ends, ends, color="0.7", linewidth=1, zorder=0)
        predicted = torch.tensor(row.shown).flatten()
        axis.scatter(truth, predicted, s=4, alpha=0.3, linewidths=0, color="C0")
    figure.supxlabel(f"true {comparison.protocol['target']}", fontsize=10)
    figure.supylabel("answered", fontsize=10)
    return figure


def bar_plot(comparison: Comparison) -> Figure:
    """The metrics of the models and, in grey, of what needs no model, one panel per metric."""
    from gmn.draw.picture import Picture

    metrics = list(comparison.rows[0].metrics)
    lines: list[Row | str] = [*comparison.rows, *comparison.baselines]
    names = [line if isinstance(line, str) else line.model for line in lines]
    size = (3.2 * len(metrics) + 1.6, 0.3 * len(lines) + 0.8)
    figure = Picture(figsize=size, layout="constrained")
    axes = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    for axis, metric in zip(axes, metrics, strict=True):
        for y, line in enumerate(lines):
            if isinstance(line, str):
                axis.barh(y, comparison.baselines[line][metric], color="0.75")
            else:
                error = line.interval(metric) if len(line.seconds) > 1 else None
                axis.barh(y, line.mean(metric), xerr=error, color="C0")
        axis.set_xlabel(NAMES.get(metric, metric), fontsize=10)
        axis.set_yticks(range(len(lines)), names, fontsize=9)
    axes[0].invert_yaxis()
    return figure


PLOTS: dict[str, Callable[[Comparison], Figure]] = {
    "number": scatter_plot,
    "class": confusion_plot,
    "image": image_plot,
    "function": output_plot,
    "mask": bar_plot,
}


def plot(comparison: Comparison) -> Figure:
    """Predictions and targets, in the plot that fits the task."""
    return PLOTS[comparison.protocol["kind"]](comparison)


def _whole_numbers() -> Locator:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(10, integer=True)


def _panels(comparison: Comparison) -> tuple[Figure, list[tuple[Axes, Row]]]:
    """A figure with a titled panel for each model."""
    from gmn.draw.picture import Picture

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
        title = f"{row.model}\n{NAMES.get(metric, metric)} = {number(metric, row.mean(metric))}"
        axis.set_title(title, fontsize=10)
    for axis in axes[count:]:
        axis.set_visible(False)
    return figure, list(zip(axes, comparison.rows, strict=False))
