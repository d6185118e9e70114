"""Draws a spec: node sets as boxes from left to right, edge sets as arrows."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from gmn.draw.emphasis import Emphasis
from gmn.draw.layout import Span, arrange
from gmn.graph.required import require_spec
from gmn.spec import EdgeSet, GraphSpec, NodeSet
from gmn.spec.printing import group_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {"input": "#dfe9f5", "hidden": "#e8f3e2", "output": "#fbe9d7", "ordered": "#eeeeee"}
# Inches between the centres of boxes, and around them.
ACROSS, DOWN = 3.1, 1.95
BESIDE, MARGIN = 1.2, 0.35
ASIDE = 0.22  # from the middle of a box to the arrows between it and its rail
BEND, MOST = 0.19, 0.95  # height of arrows past other boxes: by length, and at most, in inches
PAD = 0.12  # around the text in a box
LONGEST = 18  # characters of a box's name that is drawn as it is,
LONGEST_LABEL = 24  # and of an arrow's
ORDERED = 6  # operations that are drawn in their order
MANY = 8  # edge sets between two boxes that are all named


class Box(NamedTuple):
    """A drawn box, in inches."""

    left: float
    right: float
    bottom: float
    top: float

    @property
    def x(self) -> float:
        """Its middle."""
        return (self.left + self.right) / 2

    @property
    def y(self) -> float:
        """Its middle."""
        return (self.bottom + self.top) / 2


class Line(NamedTuple):
    """The line of an arrow and the position of its label."""

    start: tuple[float, float]
    end: tuple[float, float]
    label: tuple[float, float]
    align: str = "center"
    rad: float = 0.0


def draw(spec: GraphSpec, weights: Mapping[str, float] | None = None) -> Figure:
    """Draws the layer-level graph.

    Boxes hold a node set's size, permutation group, change of basis, diagonal edge sets (biases,
    normalisation) and operations; arrows are labelled with edge sets and their shapes. A residual
    stream is one long box: the layers of its blocks hang above and below it and write back to it.

    Args:
        spec: the architecture.
        weights: by edge set, how much it counts (:func:`gmn.explain.shares`): arrows and the edges
            of boxes become redder and thicker with their share of the total, which is written to
            them. Missing edge sets count 0.

    Returns:
        A figure; save it with ``figure.savefig("spec.png")`` or ``.svg``.

    Raises:
        ValueError: if a weight is negative, or belongs to no edge set of the spec.
    """
    from gmn.draw.picture import Picture

    require_spec("spec", spec)
    places = arrange(spec)
    left, right = -BESIDE, max(place.right for place in places.values()) * ACROSS + BESIDE
    figure = Picture(figsize=(right - left, DOWN))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set(xlim=(left, right), ylim=(0, DOWN))  # the height follows from what is drawn
    emphasis = Emphasis(spec, weights)
    boxes = {n.name: _draw_box(axes, spec, n, places[n.name], emphasis) for n in spec.node_sets}
    for (source, target), edges in _arrows(spec).items():
        line, label = _line(boxes, source, target), _label(edges, source, target)
        _draw_arrow(axes, line, label, edges, emphasis)
    _fit(figure, axes)
    return figure


def _fit(figure: Figure, axes: Axes) -> None:
    """Leaves a margin around everything drawn; a unit stays an inch."""
    inches = axes.transData.inverted()
    extents = [text.get_window_extent().transformed(inches) for text in axes.texts]
    bottom = min(extent.y0 for extent in extents) - MARGIN
    top = max(extent.y1 for extent in extents) + MARGIN
    figure.set_figheight(top - bottom)
    axes.set_ylim(bottom, top)


def shorten(name: str, longest: int = LONGEST) -> str:
    """A long dotted name with its words cut to initials, but for numbers and the last word."""
    if len(name) <= longest:
        return name
    *words, last = name.split(".")
    first = [w if w.isdigit() else "".join(p[0] for p in w.split("_") if p) for w in words]
    return ".".join([*first, last])


def _arrows(spec: GraphSpec) -> dict[tuple[str, str], list[EdgeSet]]:
    """The edge sets between each pair of node sets."""
    result: dict[tuple[str, str], list[EdgeSet]] = defaultdict(list)
    for edges in spec.edge_sets:
        if not edges.diagonal:
            result[edges.source, edges.target].append(edges)
    return result


# --- text ---------------------------------------------------------------------------------------


def _label(edges: list[EdgeSet], source: str, target: str) -> str:
    """Names, without what they share with a box at their end, above their shape."""
    lines: list[str] = []
    for shape, alike in groupby(edges[:MANY], _shape):
        lines += [_own_name(e.name, source, target) for e in alike] + [shape]
    if len(edges) > MANY:
        lines.append(f"and {len(edges) - MANY} more")
    return "\n".join(lines)


def _own_name(name: str, *ends: str) -> str:
    words = name.split(".")
    shared = max(_num_shared(words, end.split(".")) for end in ends)
    return shorten(".".join(words[max(0, min(shared, len(words) - 2)) :]), LONGEST_LABEL)


def _num_shared(words: list[str], others: list[str]) -> int:
    same = [a == b for a, b in zip(words, others, strict=False)]
    return (*same, False).index(False)


def _shape(edges: EdgeSet) -> str:
    neurons = "×".join(str(dim.size) for dim in edges.dims if dim.port != "tap")
    taps = "×".join(str(dim.size) for dim in edges.dims if dim.port == "tap")
    return f"{neurons} @ {taps}" if taps else neurons


def _own(spec: GraphSpec, nodes: NodeSet) -> list[EdgeSet]:
    """The edge sets that are named in a box."""
    return [edges for edges in spec.edge_sets if edges.diagonal and edges.target == nodes.name]


def _box_text(spec: GraphSpec, nodes: NodeSet, across: int, emphasis: Emphasis) -> str:
    """Lines of a box; one that covers more slots has room for longer ones."""
    group = " × ".join(map(group_name, map(spec.axis, nodes.axes)))
    group = re.sub(r" per [^)]*", " each", group)  # the axes that it depends on stand before it
    name = shorten(nodes.name).replace("_", r"\_").replace(" ", r"\ ")
    lines = [rf"$\bf{{{name}}}$", f"{'×'.join(map(str, nodes.shape))} {nodes.role}, {group}"]
    for gauge in spec.gauges:
        if gauge.axes == nodes.axes:
            lines.append(f"{'GL' if gauge.group == 'general' else 'O'}({gauge.shape[-1]}) each")
    own = _own(spec, nodes)
    kinds = list(dict.fromkeys(e.name.rsplit(".", 1)[-1] for e in own))
    lines += _wrap(kinds, " · ", 2 * across)
    if own and emphasis.on:
        lines.append(emphasis.percent(own))
    rows = _wrap(_steps([operation.name for operation in nodes.operations]), " ", 2 * across)
    return "\n".join([*lines, *rows[:3], *(["…"] if len(rows) > 3 else [])])


def _steps(names: list[str]) -> list[str]:
    """Operations in their order, or counted where they are many."""
    runs = [(name, len([*run])) for name, run in groupby(names)]
    mark = "→ " if len(runs) <= ORDERED else ""
    runs = runs if mark else [*Counter(names).items()]
    return [f"{mark}{name}" if times == 1 else f"{mark}{name} ×{times}" for name, times in runs]


def _wrap(words: list[str], separator: str, most: int) -> list[str]:
    return [separator.join(words[i : i + most]) for i in range(0, len(words), most)]


# --- geometry -----------------------------------------------------------------------------------


def _line(boxes: dict[str, Box], source: str, target: str) -> Line:
    start, end = boxes[source], boxes[target]
    if source == target:
        x, y = start.x, start.top
        return Line((x - 0.3, y), (x + 0.3, y), (x, y + 0.42), rad=-1.2)
    left, right = max(start.left, end.left), min(start.right, end.right)
    if right - left > 4 * ASIDE:
        return _upright(start, end, (left + right) / 2)
    others = [box for name, box in boxes.items() if name not in (source, target)]
    return _along(start, end, others)


def _upright(start: Box, end: Box, x: float) -> Line:
    """Between boxes one above the other: reading on the left, writing on the right."""
    reads = end.right - end.left <= start.right - start.left
    x += -ASIDE if reads else ASIDE
    down = start.y > end.y
    ends = (start.bottom, end.top) if down else (start.top, end.bottom)
    label = (x + (-0.06 if reads else 0.06), sum(ends) / 2)
    return Line((x, ends[0]), (x, ends[1]), label, "right" if reads else "left")


def _along(start: Box, end: Box, others: list[Box]) -> Line:
    """Between boxes side by side: straight where nothing stands between, else in an arc."""
    forward = start.x < end.x
    a = (start.right if forward else start.left, start.y)
    b = (end.left if forward else end.right, end.y)
    middle = ((a[0] + b[0]) / 2, (a[1] + b[1]) / 2)
    level = abs(a[1] - b[1]) < DOWN / 4
    if not any(_crosses(a, b, box) for box in others):
        return Line(a, b, (middle[0], middle[1] + (0.04 if level else -0.1)))
    a, b = (start.x, start.bottom), (end.x, end.bottom)
    height = min(MOST, BEND * abs(b[0] - a[0]))
    rad = 2 * height / abs(b[0] - a[0]) * (1 if forward else -1)
    return Line(a, b, ((a[0] + b[0]) / 2, (a[1] + b[1]) / 2 - height - 0.05), rad=rad)


def _crosses(a: tuple[float, float], b: tuple[float, float], box: Box) -> bool:
    """Whether the line from a to b touches the box."""
    if a[0] == b[0]:
        return False
    for step in range(1, 40):
        x = a[0] + (b[0] - a[0]) * step / 40
        y = a[1] + (b[1] - a[1]) * step / 40
        if box.left <= x <= box.right and box.bottom <= y <= box.top:
            return True
    return False


# --- ink ----------------------------------------------------------------------------------------


def _draw_box(axes: Axes, spec: GraphSpec, nodes: NodeSet, place: Span, emphasis: Emphasis) -> Box:
    from matplotlib.patches import FancyBboxPatch

    x, y = (place.left + place.right) / 2 * ACROSS, -place.level * DOWN
    across = place.right - place.left + 1
    text = axes.text(
        x,
        y,
        _box_text(spec, nodes, across, emphasis),
        ha="center",
        va="center",
        fontsize=8,
        linespacing=1.4,
        zorder=3,
    )
    extent = text.get_window_extent().transformed(axes.transData.inverted())
    half = max(extent.width / 2 + PAD, (place.right - place.left) / 2 * ACROSS + 0.7)
    box = Box(x - half, x + half, extent.y0 - PAD, extent.y1 + PAD)
    own = _own(spec, nodes) if emphasis.on else []
    patch = FancyBboxPatch(
        (box.left, box.bottom),
        box.right - box.left,
        box.top - box.bottom,
        boxstyle="round,pad=0,rounding_size=0.08",
        facecolor=COLOURS[nodes.role],
        edgecolor=emphasis.colour(own) if own else "0.45",
        linewidth=emphasis.width(own),
        zorder=2,
    )
    axes.add_patch(patch)
    return box


def _draw_arrow(
    axes: Axes, line: Line, label: str, edges: list[EdgeSet], emphasis: Emphasis
) -> None:
    label = f"{label}\n{emphasis.percent(edges)}" if emphasis.on else label
    style = {
        "arrowstyle": "-|>",
        "connectionstyle": f"arc3,rad={line.rad}",
        "color": emphasis.colour(edges) if emphasis.on else "0.3",
        "linewidth": emphasis.width(edges) if emphasis.on else 1.0,
        "shrinkA": 0,
        "shrinkB": 1,
    }
    axes.annotate("", xy=line.end, xytext=line.start, zorder=1, arrowprops=style)
    beside = line.align != "center"
    axes.text(
        *line.label,
        label,
        ha=line.align,
        va="center" if beside else "top" if line.rad > 0 else "bottom",
        fontsize=7,
        color="0.25",
        zorder=4,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.9, "pad": 0.8},
    )
