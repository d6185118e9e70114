"""A picture of a spec: node sets as boxes from left to right, edge sets as arrows."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

from gmn._print import group_name
from gmn.spec import EdgeSet, GraphSpec, NodeSet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import FancyBboxPatch

COLOURS = {"input": "#dfe9f5", "hidden": "#e8f3e2", "output": "#fbe9d7", "ordered": "#eeeeee"}
# Inches between the centres of boxes, and around them.
ACROSS, DOWN, MARGIN = 3.5, 1.7, 1.2
BEND = 0.38  # curvature of arrows that pass over or under boxes,
MOST = 0.95  # and how far they go, in inches

Spot = tuple[float, float]


def draw(spec: GraphSpec) -> Figure:
    """Draws the layer-level graph.

    Boxes hold a node set's size, permutation group, diagonal edge sets (biases, normalisation) and
    operations; arrows are labelled with an edge set and its shape. Arrows that lead back to an
    earlier box, as from a block to its residual stream, pass above; those that skip boxes, below.

    Returns:
        A figure; save it with ``figure.savefig("spec.png")`` or ``.svg``.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    spots = {name: (x * ACROSS, -y * DOWN) for name, (x, y) in layout(spec).items()}
    arrows = _arrows(spec)
    above = max((_height(spots[s], spots[t]) for s, t in arrows), default=0.0)
    below = max((-_height(spots[s], spots[t]) for s, t in arrows), default=0.0)
    left, right = -MARGIN, max(x for x, _ in spots.values()) + MARGIN
    top = max(above + 0.5, MARGIN)
    bottom = min(y for _, y in spots.values()) - max(below + 0.2, MARGIN)
    figure = Figure(figsize=(right - left, top - bottom))
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set(xlim=(left, right), ylim=(bottom, top))
    boxes = {n.name: _draw_box(axes, spec, n, spots[n.name]) for n in spec.node_sets}
    for (source, target), labels in arrows.items():
        _draw_arrow(axes, boxes, spots, source, target, "\n".join(labels))
    return figure


def layout(spec: GraphSpec) -> dict[str, tuple[int, int]]:
    """Column and row of every node set; a column is one to the right of all that feed it."""
    first: dict[str, int] = {}
    between = [e for e in spec.edge_sets if not e.diagonal and e.source != e.target]
    for edges in between:
        first[edges.target] = min(edges.depth, first.get(edges.target, edges.depth))
    ahead = {(e.source, e.target) for e in between if first[e.target] >= first.get(e.source, 0)}
    column = {nodes.name: 0 for nodes in spec.node_sets}
    for _ in spec.node_sets:
        for source, target in ahead:
            column[target] = min(max(column[target], column[source] + 1), len(column))
    taken: dict[int, int] = defaultdict(int)
    order = {x: rank for rank, x in enumerate(sorted(set(column.values())))}
    places = {}
    for name, x in column.items():
        places[name] = (order[x], taken[x])
        taken[x] += 1
    return places


def _arrows(spec: GraphSpec) -> dict[tuple[str, str], list[str]]:
    """Labels of the edge sets between each pair of node sets."""
    result: dict[tuple[str, str], list[str]] = defaultdict(list)
    for edges in spec.edge_sets:
        if not edges.diagonal:
            result[edges.source, edges.target].append(_label(edges))
    return result


LONGEST = 18  # characters of a name that is drawn as it is


def shorten(name: str, kept: int = 1) -> str:
    """A dotted name with its words cut to initials, but for numbers and the last ``kept`` words."""
    if len(name) <= LONGEST:
        return name
    words = name.split(".")
    first = [w if w.isdigit() else "".join(p[0] for p in w.split("_") if p) for w in words[:-kept]]
    return ".".join([*first, *words[-kept:]])


def _label(edges: EdgeSet) -> str:
    neurons = "×".join(str(dim.size) for dim in edges.dims if dim.port != "tap")
    taps = "×".join(str(dim.size) for dim in edges.dims if dim.port == "tap")
    return f"{shorten(edges.name, 2)}  {neurons}{f' @ {taps}' if taps else ''}"


def _draw_box(axes: Axes, spec: GraphSpec, nodes: NodeSet, spot: Spot) -> FancyBboxPatch:
    from matplotlib.patches import FancyBboxPatch

    x, y = spot
    text = axes.text(
        x,
        y,
        _box_text(spec, nodes),
        ha="center",
        va="center",
        fontsize=8,
        linespacing=1.4,
        zorder=3,
    )
    extent = text.get_window_extent().transformed(axes.transData.inverted())
    box = FancyBboxPatch(
        (extent.x0, extent.y0),
        extent.width,
        extent.height,
        boxstyle="round,pad=0.08",
        facecolor=COLOURS[nodes.role],
        edgecolor="0.45",
        linewidth=0.8,
        zorder=2,
    )
    axes.add_patch(box)
    return box


def _box_text(spec: GraphSpec, nodes: NodeSet) -> str:
    axes = [replace(a, within=tuple(map(shorten, a.within))) for a in map(spec.axis, nodes.axes)]
    group = " × ".join(map(group_name, axes))
    name = shorten(nodes.name).replace("_", r"\_").replace(" ", r"\ ")
    lines = [rf"$\bf{{{name}}}$", f"{'×'.join(map(str, nodes.shape))} {nodes.role}", group]
    own = (e for e in spec.edge_sets if e.diagonal and e.target == nodes.name)
    lines += _wrap(list(dict.fromkeys(e.name.rsplit(".", 1)[-1] for e in own)), " · ")
    lines += _wrap([f"→ {operation.name}" for operation in nodes.operations], " ")[:4]
    return "\n".join(lines)


def _wrap(words: list[str], separator: str) -> list[str]:
    return [separator.join(words[i : i + 2]) for i in range(0, len(words), 2)]


def _height(start: Spot, end: Spot) -> float:
    """How far the middle of an arrow lies above (or, negative, below) the line of its ends."""
    distance = end[0] - start[0]
    if start[1] == end[1] and 0 < distance < 1.5 * ACROSS:
        return 0.0
    if distance == 0 and start[1] != end[1]:
        return 0.0
    if distance == 0:
        return 0.9
    return max(-MOST, min(MOST, -distance * BEND / 2))


def _draw_arrow(
    axes: Axes,
    boxes: dict[str, FancyBboxPatch],
    spots: dict[str, Spot],
    source: str,
    target: str,
    label: str,
) -> None:
    (x0, y0), (x1, y1) = spots[source], spots[target]
    height = _height(spots[source], spots[target])
    loop = source == target
    ends = ((x0 - 0.3, y0), (x1 + 0.3, y1)) if loop else (spots[source], spots[target])
    bend = -2.2 if loop else -2 * height / (x1 - x0) if height else 0.0
    style = {
        "arrowstyle": "-|>",
        "connectionstyle": f"arc3,rad={bend}",
        "color": "0.3",
        "patchA": boxes[source],
        "patchB": boxes[target],
        "shrinkA": 1,
        "shrinkB": 2,
    }
    axes.annotate("", xy=ends[1], xytext=ends[0], zorder=1, arrowprops=style)
    axes.text(
        (x0 + x1) / 2,
        (y0 + y1) / 2 + height + 0.05,
        label,
        ha="center",
        va="bottom",
        fontsize=7,
        color="0.25",
        zorder=4,
    )
