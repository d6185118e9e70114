"""Pictures: every box and edge set is there, nothing covers another or leaves the figure."""

from __future__ import annotations

from collections import Counter
from itertools import combinations

import pytest
from matplotlib.patches import FancyBboxPatch

from gmn.draw import draw
from gmn.draw.layout import arrange
from gmn.draw.network import MANY, shorten
from tests.traced import several_cases, spec_of


@several_cases
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


@several_cases
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


@several_cases
def test_shares_are_written_to_what_they_belong_to(case) -> None:  # type: ignore[no-untyped-def]
    spec = spec_of(case.name)
    weights = {e.name: 1 + n % 3 for n, e in enumerate(spec.edge_sets) if e.tied_to is None}
    figure = draw(spec, weights)
    axes = figure.axes[0]
    drawn = "\n".join(text.get_text() for text in axes.texts)
    arrows = {(e.source, e.target) for e in spec.edge_sets if not e.diagonal}
    boxes = {e.target for e in spec.edge_sets if e.diagonal}
    assert drawn.count(" %") == len(arrows) + len(boxes)
    extents = [patch.get_window_extent() for patch in axes.patches]
    assert not any(a.overlaps(b) for a, b in combinations(extents, 2))
    for extent in [*extents, *(text.get_window_extent() for text in axes.texts)]:
        assert figure.bbox.y0 <= extent.y0
        assert extent.y1 <= figure.bbox.y1


def test_what_counts_more_is_redder_and_thicker() -> None:
    figure = draw(spec_of("mlp-relu"), {"0.weight": 1.0, "2.weight": 3.0, "2.bias": 4.0})
    arrows = [t.arrow_patch for t in figure.axes[0].texts if getattr(t, "arrow_patch", None)]
    widths = [arrow.get_linewidth() for arrow in arrows]
    assert widths[1] > widths[0] > widths[2]
    reds = [arrow.get_edgecolor()[0] - arrow.get_edgecolor()[1] for arrow in arrows]
    assert reds[1] > reds[0] > reds[2] == 0
    boxes = figure.axes[0].patches
    assert boxes[2].get_linewidth() > boxes[1].get_linewidth()
    labels = [text.get_text() for text in figure.axes[0].texts]
    assert sum("38 %" in label for label in labels) == 1
    assert sum("50 %" in label for label in labels) == 1


def test_weights_that_cannot_be_drawn() -> None:
    with pytest.raises(ValueError, match=r"does not have: \['3.weight'\]"):
        draw(spec_of("mlp-relu"), {"3.weight": 1.0})
    with pytest.raises(ValueError, match=r"at least 0; they are not at 0.bias, 2.bias"):
        draw(spec_of("mlp-relu"), {"2.bias": -1.0, "0.bias": float("nan")})
