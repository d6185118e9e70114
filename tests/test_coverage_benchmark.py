"""The benchmark on model families builds small models, blames what is false, and goes on."""

from __future__ import annotations

import json
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

import converters
from benchmarks.coverage import graphs, hugging
from benchmarks.coverage.examples import Model, numbers
from benchmarks.coverage.jobs import Limits, Rows, run
from benchmarks.coverage.measure import rows, soundness, unruled
from benchmarks.coverage.shrink import WIDTH
from benchmarks.coverage.summary import as_markdown, compare, summarise

ROW = {"family": "a", "name": "x", "built": True, "stage": "done", "parameters": 10}
TRACED = {
    **ROW,
    "seconds.export": 1.0,
    "seconds.trace": 2.0,
    "functional": {"aten::linear": 2, "aten::sort": 1},
    "beside_movable": 5,
    "unknown": {"aten::sort_": 1},
    "round_trip": True,
    "sensitivity": 0.5,
    "error": 1e-15,
    "sound": True,
    "false": {},
}


class _Tuple(nn.Sequential):
    def forward(self, value: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (super().forward(value),)


def _pair(activation: nn.Module) -> Model:
    torch.manual_seed(0)
    return Model(_Tuple(nn.Linear(3, 5), activation, nn.Linear(5, 2)).eval(), (numbers(4, 3),))


@pytest.mark.parametrize("name", ["bert", "clip", "llama", "resnet", "t5"])
def test_a_model_type_builds_from_a_small_configuration(name: str) -> None:
    model = hugging.build(name)
    assert sum(each.numel() for each in model.module.parameters()) < 1_000_000
    assert getattr(model.module.model.config, "hidden_size", WIDTH) <= WIDTH  # type: ignore[union-attr]
    with torch.no_grad():
        outputs = model.module(*model.inputs(1))
    assert outputs
    assert all(bool(each.isfinite().all()) for each in outputs)


def test_inputs_of_other_seeds_differ() -> None:
    model = hugging.build("bert")
    assert not torch.equal(*(model.inputs(seed)[0] for seed in (0, 1)))


def test_the_row_of_a_model_tells_all_that_is_measured() -> None:
    row: dict[str, object] = {}
    for found in rows(partial(_pair, nn.ReLU())):
        row.update(found)
    assert row["stage"] == "done"
    assert row["sound"]
    assert row["round_trip"]
    assert row["parameters"] == row["held"] == 32
    assert row["beside_movable"] == 30
    assert row["operations"] == {"aten::linear": 2, "aten::relu": 1}


def test_a_false_claim_is_blamed_on_its_generator() -> None:
    spec = converters.trace(_pair(nn.ReLU()).module, (torch.zeros(4, 3),))
    row: dict[str, object] = {}
    for found in soundness(_pair(nn.Tanh()), spec):
        row.update(found)
    assert row["sound"] is False
    assert list(row["false"]) == [f"scalings positive {spec.scalings[0].name}"]  # type: ignore[call-overload]


def test_layers_of_graph_networks_build() -> None:
    model = graphs.build("GCNConv")
    (output,) = model.module(*model.inputs(0))
    assert output.shape == (graphs.NODES, graphs.OUT)


def test_a_report_names_its_operation() -> None:
    assert unruled("blocks.0: aten.sort.default has no rule; its axes stay ordered") == "aten::sort"
    assert unruled("blocks.0: her::relu has no rule") == "her::relu"


def test_a_model_over_its_time_is_stopped_where_it_was() -> None:
    (row,) = run([(("a", "slow"), partial(time.sleep, 60))], Limits(seconds=1))
    assert row["error_type"] == "TimeLimit"
    assert row["stage"] == "build"


def test_an_error_is_reported_with_its_stage_and_type() -> None:
    def build() -> Model:
        raise ValueError("no such model\nat all")

    (row,) = run([(("a", "none"), build)], Limits())
    assert (row["stage"], row["error_type"], row["error_message"]) == (
        "build",
        "ValueError",
        "no such model",
    )
    assert not row["trace_error"]


def test_a_stopped_run_goes_on_after_its_last_whole_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(ROW) + '\n{"family": "a", "na')
    kept = Rows(path)
    kept.add({**ROW, "name": "y"})
    assert list(Rows(path).found) == [("a", "x"), ("a", "y")]


def test_a_summary_counts_by_family() -> None:
    failed = {**ROW, "name": "f", "stage": "trace", "error_type": "KeyError", "trace_error": False}
    false = {**TRACED, "name": "w", "sound": False, "error": 0.5, "false": {"scalings positive": 1}}
    unbuilt = {
        **ROW,
        "name": "u",
        "built": False,
        "stage": "build",
        "error_type": "NotSmallError",
        "trace_error": False,
    }
    summary = summarise([TRACED, false, failed, unbuilt, {**TRACED, "family": "b"}])
    family = summary["families"]["a"]
    assert (family["models"], family["built"], family["traced"], family["false"]) == (4, 3, 2, 1)
    assert family["undocumented_errors"] == 1
    assert family["share_movable"] == 0.5
    assert family["median_ratio"] == {"trace to export": 2.0, "experiment to trace": None}
    assert summary["false"] == {"a/w": {"scalings positive": 1}}
    assert summary["failures"] == {"trace: KeyError": 1, "build: NotSmallError": 1}
    assert summary["operations"] == [
        {"name": "aten::linear", "models": 3, "uses": 6, "no_rule_in": 0},
        {"name": "aten::sort", "models": 3, "uses": 3, "no_rule_in": 3},
    ]
    text = as_markdown(summary)
    assert "| a | 4 | 3 |" in text
    assert "| a/w | 1 | scalings positive | 1e+00 |" in text


def test_an_earlier_run_is_compared_model_by_model() -> None:
    other = {**TRACED, "name": "y", "seconds.trace": 1.0}
    faster = [{**TRACED, "seconds.trace": 1.0, "beside_movable": 10}, {**ROW, "name": "y"}]
    since = compare(faster, [TRACED, other])
    assert since["a"] == {
        "models": 1,
        "median_ratio": 0.5,
        "largest_ratio": 0.5,
        "slowest": "x",
        "share_then": 0.5,
        "share_now": 1.0,
        "lost": ["y"],
    }
    assert "| a | 1 | 0.50 | 0.50 | x |" in as_markdown({**summarise(faster), "since": since})
