"""The printed spec: repeated layers take one row, and nothing else is hidden."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import converters
from gmn.spec.folding import fold, fold_names


def test_alike_layers_fold_block_by_block() -> None:
    rows = [("in", "3")]
    for i in range(4):
        rows += [(f"h.{i}.up", f"in → h.{i}.up"), (f"h.{i}.down", f"h.{i}.up → in")]
    assert fold(rows) == [
        ("in", "3"),
        ("h.0…3.up", "in → h.0…3.up"),
        ("h.0…3.down", "h.0…3.up → in"),
    ]


def test_layers_that_differ_stay_apart() -> None:
    sizes = [("h.0.up", "8"), ("h.1.up", "9"), ("h.2.up", "9")]
    assert fold(sizes) == [("h.0.up", "8"), ("h.1…2.up", "9")]
    gaps = [("h.0", "x"), ("h.2", "x"), ("g.3", "x")]
    assert fold(gaps) == gaps
    chain = [("h.1", "h.0 → h.1"), ("h.2", "h.1 → h.2"), ("h.3", "h.2 → h.3")]
    assert fold(chain) == chain
    partial = [("h.0.a", "1"), ("h.0.b", "1"), ("h.1.a", "1")]
    assert fold(partial) == partial


def test_numbers_that_name_no_layer_stay() -> None:
    """Sizes, further uses and top-level numbers look like layers, but are none."""
    rows = [("h.8.w", "8×8", "h.8.w[0] h.80 x.h.8"), ("h.9.w", "8×8", "h.9.w[0] h.80 x.h.8")]
    assert fold(rows) == [("h.8…9.w", "8×8", "h.8…9.w[0] h.80 x.h.8")]
    assert fold([("0", "8"), ("1", "8")]) == [("0", "8"), ("1", "8")]
    assert fold_names(["h.0.w", "h.0.w@2", "h.1.w", "h.1.w@2"]) == ["h.0…1.w", "h.0…1.w@2"]


def test_nested_layers_fold_from_the_outside() -> None:
    names = [f"stage.{i}.block.{j}.w" for i in range(2) for j in range(3)]
    assert fold_names(names) == ["stage.0…1.block.0…2.w"]
    assert fold_names(names[:5]) == ["stage.0.block.0…2.w", "stage.1.block.0…1.w"]


class Residual(nn.Module):
    def __init__(self, depth: int) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(3, 8), nn.Linear(8, 2)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 8)) for _ in range(depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        for layer in self.layers:
            x = x + layer(x)
        return self.leave(x)


def test_deep_networks_print_as_many_lines_as_shallow_ones() -> None:
    printed = [str(converters.trace(Residual(depth), (torch.zeros(1, 3),))) for depth in (4, 12)]
    assert printed[0].count("\n") == printed[1].count("\n")
    assert "layers.0…3.0.weight" in printed[0]
    assert "layers.0…9.2.bias.carry" in printed[1]  # each makes up for the one before
    assert "layers.0…11.0.weight" in printed[1]
    assert "enter → layers.0…11.0" in printed[1]


def test_entries_that_are_not_on_the_graph_are_named() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 1)).eval()
    model.register_buffer("unread", torch.zeros(2, 3, dtype=torch.complex64))
    text = str(converters.trace(model, (torch.zeros(2, 2),)))
    _, named = text.split("not on the graph, since never read\n")
    assert named.split("\n\n")[0].splitlines() == [
        "  unread                 6 complex numbers",
        "  1.num_batches_tracked  1 integer",
    ]


def test_entries_that_are_all_read_need_no_such_words() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    assert "not on the graph" not in str(converters.trace(model, (torch.zeros(2, 2),)))
