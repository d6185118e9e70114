"""Options from a file: used, overridden, and refused where they mean nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

import gmn
from tests.brief_zoos import make_brief
from tests.gmn.commands import run


def settings(folder: Path, text: str) -> str:
    file = folder / "settings.yaml"
    file.write_text(text)
    return str(file)


def test_a_file_of_options_and_arguments(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = f"name: cnn-digits\nsize: 4\nseed: 5\nworkers: 1\nout: {tmp_path / 'a'}\n"
    file = settings(tmp_path, text)
    make_brief(monkeypatch)
    assert run(monkeypatch, "zoo", "build", "--config", file) == 0
    assert len(gmn.zoo.open(tmp_path / "a")) == 4
    assert gmn.zoo.open(tmp_path / "a").manifest["seed"] == 5


@pytest.mark.slow
def test_the_command_line_goes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = settings(tmp_path, f"size: 4\nworkers: 1\nout: {tmp_path / 'a'}\n")
    assert run(monkeypatch, "zoo", "build", "cnn-digits", "--config", file, "--size", "2") == 0
    assert len(gmn.zoo.open(tmp_path / "a")) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "sise: 4",
            "build has no option sise; it has checkpoints, gradients, name, out, overwrite",
        ),
        ("- size", "has to hold lines such as"),
        ("size: [", "is not YAML"),
        ("size: many", "Invalid value for '--size'"),
        ("model: [a, b", "is not YAML"),
    ],
)
def test_mistakes_in_the_file(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    text: str,
    message: str,
) -> None:
    file = settings(tmp_path, text)
    out = str(tmp_path / "a")
    assert run(monkeypatch, "zoo", "build", "cnn-digits", "--config", file, "--out", out) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "a").exists()


def test_a_missing_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = str(tmp_path / "none.yaml")
    assert run(monkeypatch, "zoo", "build", "cnn-digits", "--config", file, "--out", "a") == 2
    assert "none.yaml cannot be read" in " ".join(capsys.readouterr().err.split())


def test_models_in_a_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    text = f"population: {tmp_path / 'none'}\nmodel: [gmn, oracle]\nout: {tmp_path / 'a'}\n"
    assert run(monkeypatch, "compare", "--config", settings(tmp_path, text)) == 2
    assert "no model is called 'oracle'" in " ".join(capsys.readouterr().err.split())
