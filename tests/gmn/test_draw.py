"""Pictures: every box and edge set is there, nothing covers another or leaves the figure."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

from matplotlib.patches import FancyBboxPatch

from gmn._layout import arrange
from gmn.draw import MANY, draw, shorten
from tests.traced import every_case, spec_of


@every_case
def test_every_case_can_be_drawn(case) -> None:  # type: ignore[no-untyped-def]
    spec = spec_of(case.name)
    figure = draw(spec)
    axes = figure.axes[0]
    drawn = "\n".join(text.get_text() for text in axes.texts)
    between = Counter((e.source, e.target) for e in spec.edge_sets if not e.diagonal)
    for edges in spec.edge_sets:
        if 0 < between[edges.source, edges.target] <= MANY and not edges.diagonal:
            assert edges.name.rsplit(".", 1)[-1] in drawn
    assert drawn.count(" more") == sum(number > MANY for number in between.values())
    boxes = [patch.get_window_extent() for patch in axes.patches]
    assert len(boxes) == len(spec.node_sets)
    assert all(isinstance(patch, FancyBboxPatch) for patch in axes.patches)
    assert not any(a.overlaps(b) for a, b in combinations(boxes, 2))
    for extent in [*boxes, *(text.get_window_extent() for text in axes.texts)]:
        assert figure.bbox.y0 <= extent.y0
        assert extent.y1 <= figure.bbox.y1
        assert figure.bbox.x0 <= extent.x0
        assert extent.x1 <= figure.bbox.x1


@every_case
def test_places_are_taken_once(case) -> None:  # type: ignore[no-untyped-def]
    places = arrange(spec_of(case.name)).values()
    slots = [(slot, p.level) for p in places for slot in range(p.left, p.right + 1)]
    assert len(set(slots)) == len(slots)


def test_columns_follow_the_network() -> None:
    places = arrange(spec_of("resnet"))
    columns = [places[name].left for name in ("input", "0", "2.conv1", "3.conv1", "3.conv2", "6")]
    assert columns == sorted(columns)


def test_a_residual_stream_is_a_rail_and_its_blocks_hang_on_it() -> None:
    places = arrange(spec_of("transformer"))
    rail = places["embed"]
    for name in ("attention.q", "attention.v", "gated.gate"):
        assert abs(places[name].level - rail.level) == 1
        assert rail.left <= places[name].left <= rail.right


def test_a_figure_shows_itself_in_a_notebook() -> None:
    assert draw(spec_of("mlp-relu"))._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]


def test_long_names_are_cut_to_initials() -> None:
    assert shorten("encoder.layer.0.attention.self.query") == "e.l.0.a.s.query"
    assert shorten("short.name") == "short.name"
    assert shorten("embeddings.word_embeddings", 30) == "embeddings.word_embeddings"
