"""A picture of a spec: node sets as boxes from left to right, edge sets as arrows."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from gmn._print import group_name
from gmn.spec import EdgeSet, GraphSpec, NodeSet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {"input": "#dfe9f5", "hidden": "#e8f3e2", "output": "#fbe9d7", "ordered": "#eeeeee"}
LINE = 0.16  # height of a line of text in a box, in units of the layout
GAP = 3.4


def draw(spec: GraphSpec) -> Figure:
    """Draws the layer-level graph.

    Boxes hold a node set's size, permutation group, operations and diagonal edge sets (biases,
    normalisation); arrows are labelled with the edge set and its shape.

    Returns:
        A figure; save it with ``figure.savefig("spec.png")`` or ``.svg``.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    places = layout(spec)
    columns = max(x for x, _ in places.values()) + 1
    rows = max(y for _, y in places.values()) + 1
    height = 0.8 + rows * 2.2
    figure = Figure(figsize=(1.0 + columns * 2.9, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_axis_off()
    spots = {name: (x * GAP, -y * 2.2) for name, (x, y) in places.items()}
    for nodes in spec.node_sets:
        _draw_box(axes, spec, nodes, spots[nodes.name])
    _draw_arrows(axes, spec, spots)
    xs, ys = zip(*spots.values(), strict=True)
    axes.set_xlim(min(xs) - 1.5, max(xs) + 1.5)
    axes.set_ylim(min(ys) - 1.4, max(ys) + 1.5)
    return figure


def layout(spec: GraphSpec) -> dict[str, tuple[int, int]]:
    """Column and row of every node set: columns by the depth at which it is first written."""
    depth: dict[str, int] = {}
    for edges in spec.edge_sets:
        if not edges.diagonal and edges.source != edges.target:
            depth[edges.target] = min(edges.depth, depth.get(edges.target, edges.depth))
    columns: dict[int, list[str]] = defaultdict(list)
    for nodes in spec.node_sets:
        first = 0 if nodes.role == "input" else depth.get(nodes.name, 0)
        columns[first].append(nodes.name)
    ordered = [columns[first] for first in sorted(columns)]
    return {name: (x, y) for x, names in enumerate(ordered) for y, name in enumerate(names)}


def _draw_box(axes: Axes, spec: GraphSpec, nodes: NodeSet, spot: tuple[float, float]) -> None:
    lines = _box_lines(spec, nodes)
    axes.text(
        *spot,
        "\n".join(lines),
        ha="center",
        va="center",
        fontsize=8,
        linespacing=1.4,
        zorder=3,
        bbox={
            "boxstyle": "round,pad=0.5",
            "facecolor": COLOURS[nodes.role],
            "edgecolor": "0.45",
            "linewidth": 0.8,
        },
    )


def _box_lines(spec: GraphSpec, nodes: NodeSet) -> list[str]:
    group = " × ".join(group_name(spec.axis(name)) for name in nodes.axes)
    shape = "×".join(map(str, nodes.shape))
    lines = [rf"$\bf{{{_escape(nodes.name)}}}$", f"{shape} {nodes.role}, group {group}"]
    diagonal = [e.name.rsplit(".", 1)[-1] for e in spec.edge_sets if _in_box(e, nodes)]
    if diagonal:
        lines.append(" · ".join(dict.fromkeys(diagonal)))
    names = [operation.name for operation in nodes.operations]
    lines += ["→ " + " → ".join(names[i : i + 3]) for i in range(0, len(names), 3)][:4]
    return lines


def _in_box(edges: EdgeSet, nodes: NodeSet) -> bool:
    return edges.diagonal and edges.target == nodes.name


def _escape(name: str) -> str:
    return name.replace("_", r"\_").replace(" ", r"\ ")


def _draw_arrows(axes: Axes, spec: GraphSpec, spots: dict[str, tuple[float, float]]) -> None:
    between: dict[tuple[str, str], list[EdgeSet]] = defaultdict(list)
    for edges in spec.edge_sets:
        if not edges.diagonal:
            between[edges.source, edges.target].append(edges)
    for (source, target), group in between.items():
        label = "\n".join(_label(edges) for edges in group)
        if source == target:
            x, y = spots[source]
            axes.annotate(
                "",
                xy=(x + 0.35, y + 0.45),
                xytext=(x - 0.35, y + 0.45),
                arrowprops=_arrow(-1.2),
            )
            axes.text(x, y + 1.0, label, ha="center", va="bottom", fontsize=7, color="0.25")
            continue
        _draw_arrow(axes, spots[source], spots[target], label)


def _draw_arrow(
    axes: Axes, start: tuple[float, float], end: tuple[float, float], label: str
) -> None:
    columns = (end[0] - start[0]) / GAP
    straight = abs(columns) < 1.5 and columns >= 0 and start[1] == end[1]
    bend = 0.0 if straight else -0.25 if columns > 0 else 0.45
    axes.annotate(
        "",
        xy=end,
        xytext=start,
        zorder=1,
        arrowprops={**_arrow(bend), "shrinkA": 52, "shrinkB": 52},
    )
    middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
    # The control point of arc3 lies off the chord by its bend; the curve passes halfway there.
    x = middle[0] + bend * (end[1] - start[1]) / 2
    y = middle[1] - bend * (end[0] - start[0]) / 2
    above = y + 0.12
    axes.text(x, above, label, ha="center", va="bottom", fontsize=7, color="0.25", zorder=4)


def _arrow(bend: float) -> dict[str, object]:
    return {"arrowstyle": "-|>", "connectionstyle": f"arc3,rad={bend}", "color": "0.3"}


def _label(edges: EdgeSet) -> str:
    neurons = "×".join(str(dim.size) for dim in edges.dims if dim.port != "tap")
    taps = "×".join(str(dim.size) for dim in edges.dims if dim.port == "tap")
    return f"{edges.name}\n{neurons}{f' @ {taps}' if taps else ''}"
