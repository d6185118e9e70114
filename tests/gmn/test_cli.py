"""The command: what it prints, where it fails, and how it says so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import gmn
from gmn import registry
from gmn.foundation.files import LOCK, MARKER
from tests.brief_zoos import make_brief
from tests.gmn.commands import run
from tests.gmn.population import small_zoo

pytestmark = pytest.mark.usefixtures("quick_costs")


def test_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"graph-metanetworks {gmn.__version__}\n"


def test_inspect(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "inspect", "resnet") == 0
    printed = capsys.readouterr().out
    assert "node sets" in printed
    assert "certificate: passed" in printed


def test_inspect_as_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "inspect", "mlp", "--json") == 0
    assert gmn.GraphSpec.from_json(capsys.readouterr().out).num_nodes == 4 + 16 + 16 + 3


def test_a_users_factory(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "verify", "tests.cases:resnet", "-i", "2x3x10x10", "--json") == 0
    assert json.loads(capsys.readouterr().out)["ok"] is True


@pytest.mark.parametrize(
    "arguments",
    [
        ("tests.gmn.factories:tokens", "-i", "2x7:int64<11"),
        ("tests.gmn.factories:by_name", "-i", "ids=2x7:int64<11", "-i", "mask=2x7:bool"),
        ("tests.gmn.factories:with_names",),
    ],
    ids=["integers", "names", "factory"],
)
def test_inputs_of_other_types_and_by_name(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
) -> None:
    assert run(monkeypatch, "verify", *arguments, "--json") == 0
    assert json.loads(capsys.readouterr().out)["ok"] is True
    assert run(monkeypatch, "inspect", *arguments) == 0
    assert "tried: all of" in capsys.readouterr().out


def test_missed_symmetries_are_counted_on_demand(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "verify", "mlp", "--complete", "--json") == 0
    complete = json.loads(capsys.readouterr().out)["complete"]
    assert complete["nullity"] == complete["claimed"] == 16
    assert run(monkeypatch, "inspect", "mlp", "--complete") == 0
    assert "continuous symmetries: 16 dimensions" in capsys.readouterr().out
    assert run(monkeypatch, "verify", "mlp", "--json") == 0
    assert json.loads(capsys.readouterr().out)["complete"] is None


@pytest.mark.parametrize("suffix", [pytest.param("png", marks=pytest.mark.slow), "svg"])
def test_draw(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / "new" / f"picture.{suffix}"
    assert run(monkeypatch, "draw", "cnn-relu", "--out", str(out)) == 0
    assert out.stat().st_size > 5000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("inspect", "nothing"), "neither a built-in example (mlp, resnet"),
        (("inspect", "no.such:thing"), "No module named"),
        (("inspect", "tests.cases:nothing"), "has no attribute"),
        (("inspect", "tests.cases:resnet"), "add --input"),
        (("inspect", "tests.cases:resnet", "-i", "2xthree"), "is not a shape"),
        (("inspect", "tests.cases:resnet", "-i", "2x5x10x10"), "torch.export cannot follow it"),
        (("inspect", "builtins:dict"), "gave a dict, not a torch.nn.Module"),
        (("inspect", "tests.gmn.factories:needing"), "without width, depth; write a function"),
        (("inspect", "tests.gmn.factories:needing"), "returns (module, inputs)"),
        (("inspect", "mlp", "-i", "2x7:int65"), "with a type 2x7:int64<100"),
        (("inspect", "mlp", "-i", "2x7:int64<0"), "is not a shape"),
        (("verify", "tests.gmn.factories:wide", "--complete"), "up to 2,000 parameters"),
        (("draw", "mlp", "--out", "picture.gif"), "written as .png, .svg or .pdf"),
        (("zoo", "build", "llamas", "--out", "nowhere"), "no population is called 'llamas'"),
        (("compare", "no-such-folder", "--out", "x", "-m", "oracle"), "no model is called"),
        (("compare", "no-such-folder", "--out", "x", "--device", "abacus"), "--device abacus:"),
        (
            ("compare", "no-such-folder", "--out", "x", "--device", "cuda", "--ray", "auto"),
            "--device cuda: jobs on a Ray cluster compute on its processors",
        ),
    ],
)
def test_mistakes_are_one_line(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    arguments: tuple[str, ...],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, *arguments) == 2
    printed = capsys.readouterr().err
    assert message in " ".join(printed.split())
    assert "Traceback" not in printed


def test_models(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "models") == 0
    assert capsys.readouterr().out.split() == registry.names()


def test_lists_as_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "models", "--json") == 0
    assert json.loads(capsys.readouterr().out) == registry.names()
    assert run(monkeypatch, "tasks", "--json") == 0
    assert json.loads(capsys.readouterr().out)["inr-dilation"]["options"]["copies"] == 1


def test_learning_as_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    population = small_zoo(tmp_path / "zoo")
    folder, model = str(tmp_path / "zoo"), str(tmp_path / "model")
    arguments = ("train", folder, "-m", "flat-mlp", "--epochs", "1", "--out", model)
    assert run(monkeypatch, *arguments, "--json") == 0
    trained = json.loads(capsys.readouterr().out)
    assert trained["model"] == "flat-mlp"
    assert set(trained["metrics"]) == {"tau", "r2"}
    file = tmp_path / "a.pt"
    torch.save(population.state(0), file)
    choice = ("--architecture", "cnn-relu", "--json")
    assert run(monkeypatch, "predict", model, str(file), str(tmp_path / "none"), *choice) == 1
    first, second = json.loads(capsys.readouterr().out)
    assert first["file"] == str(file)
    assert 0 < first["prediction"] < 1
    assert first["error"] is None
    assert second["prediction"] is None
    assert "none" in second["file"]
    assert second["error"]


def test_compare(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    small_zoo(tmp_path / "zoo")
    out = tmp_path / "out"
    arguments = ("compare", str(tmp_path / "zoo"), "-m", "layer-statistics", "--workers", "1")
    assert run(monkeypatch, *arguments, "--seeds", "1", "--device", "cpu", "--out", str(out)) == 0
    assert "Kendall τ" in capsys.readouterr().out
    more = ("--seeds", "1", "--batch-size", "8", "--json")
    assert run(monkeypatch, *arguments, *more, "--out", str(out)) == 2
    assert "runs with batch_size = 32, not 8" in capsys.readouterr().err
    assert run(monkeypatch, *arguments, *more, "--out", str(tmp_path / "other")) == 0
    protocol = json.loads(capsys.readouterr().out)["protocol"]
    assert protocol["seeds"] == 1
    assert protocol["device"] == "cpu"
    assert protocol["recipe"]["batch_size"] == 8
    assert {path.name for path in out.iterdir()} - {MARKER, LOCK} == {
        "comparison.json",
        "comparison.txt",
        "comparison.png",
        "runs.jsonl",
    }


def test_zoo_build(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    out = tmp_path / "zoo"
    make_brief(monkeypatch)
    arguments = ("zoo", "build", "cnn-digits", "--size", "4", "--workers", "1", "--out", str(out))
    assert run(monkeypatch, *arguments) == 0
    population = gmn.zoo.open(out)
    assert len(population) == 4
    assert population.graph([0, 2]).spec == population.spec("cnn-relu")


def test_help_teaches(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (("inspect",), ("verify",), ("draw",), ("compare",), ("zoo", "build")):
        assert run(monkeypatch, *command, "--help") == 0
        assert "Example:" in capsys.readouterr().out


def test_errors_are_printed_as_they_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Without quotes around what a KeyError says, and with brackets that look like markup."""
    out = str(tmp_path / "out")
    assert run(monkeypatch, "compare", str(tmp_path), "-m", "mine[b]", "--out", out) == 2
    assert "error: no model is called 'mine[b]'" in capsys.readouterr().err
    assert run(monkeypatch, "zoo", "show", str(tmp_path / "[red]x")) == 1
    assert "[red]x is not a zoo" in capsys.readouterr().err.replace("\n", "")
