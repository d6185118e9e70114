"""Nothing of a stranger's runs: what a card names is imported with consent alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from gmn.errors import ConsentError
from gmn.train import Recipe, TrainedFileError, fit, load
from tests.gmn.commands import run
from tests.gmn.population import small_zoo

EVIL = """
import pathlib
pathlib.Path(__file__).with_name("ran").touch()
from gmn.nn.presets import gmn as make
from gmn.tasks import AccuracyPrediction as T
class Outer:
    class T(T):
        pass
    make = make
"""


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained model, and a checkpoint that it reads."""
    folder = tmp_path_factory.mktemp("honest")
    population = small_zoo(folder / "zoo")
    fit(folder / "zoo", "flat-mlp", folder / "model", Recipe(epochs=1), progress=False)
    save_file(population.state(0), folder / "model" / "a.safetensors")
    return folder / "model"


def downloaded(honest: Path, tmp_path: Path, **changes: Any) -> Path:
    """A folder with a changed card, and modules beside it that leave a mark when they run."""
    folder = tmp_path / "downloaded"
    shutil.copytree(honest, folder)
    card = json.loads((folder / "model.json").read_text())
    for field, value in changes.items():
        card["task" if field in card["task"] else field] = (
            {**card["task"], field: value} if field in card["task"] else value
        )
    (folder / "model.json").write_text(json.dumps(card))
    (folder / "evil.py").write_text(EVIL)
    (folder / "evilpackage").mkdir()
    for name in ("__init__", "inner"):
        (folder / "evilpackage" / f"{name}.py").write_text(EVIL)
    return folder


def marks(folder: Path) -> list[Path]:
    return list(folder.rglob("ran"))


MODELS = [
    "evil:make",
    "evilpackage:make",
    "evilpackage.inner:make",
    "evil:Outer.make",
    ".evil:make",
    "..evil:make",
    "evil:",
    ":make",
    "evil:make:make",
    "./evil:make",
    "evil.py:make",
    "antigravity:x",
    "os:system",
    "builtins:print",
    "subprocess:run",
    "runpy:run_path",
    "__main__:make",
    "gmn.registry:attribute",
    "torch.hub:load",
]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("field", ["model", "task"])
def test_modules_that_a_card_names_do_not_run(
    field: str, name: str, honest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = downloaded(honest, tmp_path, **{field: name})
    monkeypatch.chdir(folder)
    path, modules = list(sys.path), set(sys.modules)
    with pytest.raises((ConsentError, TrainedFileError, ValueError), match=r"model\.json"):
        load(".")
    assert sys.path == path
    assert not {"evil", "evilpackage", "antigravity"} & (set(sys.modules) - modules)
    assert not marks(folder)


def test_the_refusal_says_what_would_run(
    honest: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = downloaded(honest, tmp_path, model="evil:make")
    monkeypatch.chdir(folder)
    assert run(monkeypatch, "predict", ".", "a.safetensors") == 2
    message = " ".join(capsys.readouterr().err.split())
    assert "model.json asks for evil:make" in message
    assert "with all your rights. Nothing was run" in message
    assert "--trust evil" in message
    monkeypatch.syspath_prepend(folder)
    with pytest.raises(ConsentError, match=rf"from {folder}/evil\.py"):
        load(folder)
    assert not marks(folder)


def test_consent_names_a_module_or_its_package(
    honest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = downloaded(honest, tmp_path, task="evilpackage.inner:T")
    monkeypatch.chdir(folder)
    # What the user names himself, in other tests, is searched for here; what files name is not.
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    with pytest.raises(TrainedFileError, match="current folder is not searched"):
        load(folder, trust=["evilpackage"])
    assert not marks(folder)
    monkeypatch.syspath_prepend(folder)
    for other in ("evilpackag", "inner", "evilpackage.other", "evil"):
        with pytest.raises(ConsentError):
            load(folder, trust=[other])
    assert not marks(folder)
    assert type(load(folder, trust=["evilpackage"]).task).__name__ == "AccuracyPrediction"
    assert marks(folder)
    for name in ("evilpackage", "evilpackage.inner"):
        sys.modules.pop(name)


PREDICT = """
import sys
sys.argv = ["gmn", "predict", ".", "a.safetensors"]
from gmn.cli import main
main()
"""
COMMANDS = {"-c": ["-c", PREDICT], "-m": ["-m", "gmn.cli", "predict", ".", "a.safetensors"]}


@pytest.fixture
def predict(
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[[Path], tuple[int, str]]:
    """Predicts in a folder, which Python searches first: exit code, errors.

    `python -c` has the search path of a notebook; `python -m` the same with an absolute name.
    """

    def here(folder: Path) -> tuple[int, str]:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "path", ["", *sys.path])
        return run(monkeypatch, *COMMANDS["-m"][2:]), capsys.readouterr().err

    def in_a_process(folder: Path) -> tuple[int, str]:
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        command = [sys.executable, *COMMANDS[request.param]]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
        return done.returncode, done.stderr

    return here if request.param == "here" else in_a_process


in_any_way = pytest.mark.parametrize(
    "predict",
    ["here", *(pytest.param(name, marks=pytest.mark.slow) for name in COMMANDS)],
    indirect=True,
)


@in_any_way
def test_the_current_folder_is_searched_but_does_not_run(
    predict: Callable[[Path], tuple[int, str]], honest: Path, tmp_path: Path
) -> None:
    folder = downloaded(honest, tmp_path, model="evil:make")
    code, told = predict(folder)
    assert code == 2, told
    assert "asks for evil:make" in " ".join(told.split())
    assert not marks(folder)


@in_any_way
def test_packages_made_up_in_the_current_folder_offer_nothing(
    predict: Callable[[Path], tuple[int, str]], honest: Path, tmp_path: Path
) -> None:
    folder = downloaded(honest, tmp_path, model="evil-model")
    facts = folder / "evil-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: evil\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text(
        "[gmn.models]\nevil-model = evil:make\n[gmn.tasks]\nevil-task = evil:T\n"
    )
    code, told = predict(folder)
    assert code == 2, told
    assert "no model is called 'evil-model'" in told
    assert not marks(folder)


@pytest.mark.parametrize("predict", ["-c"], indirect=True)
def test_a_package_in_the_current_folder_does_not_take_the_place_of_an_installed_one(
    predict: Callable[[Path], tuple[int, str]], honest: Path, tmp_path: Path
) -> None:
    folder = downloaded(honest, tmp_path)
    (folder / "baselines").mkdir()
    for name in ("__init__", "presets"):
        (folder / "baselines" / f"{name}.py").write_text(EVIL + "\nflat_mlp = make\n")
    code, told = predict(folder)
    assert code == 2, told
    assert "baselines.presets" in told
    assert not marks(folder)


def test_a_model_of_ones_own_is_trusted_by_the_run_that_trained_it(tmp_path: Path) -> None:
    small_zoo(tmp_path / "zoo")
    out = tmp_path / "model"
    fit(tmp_path / "zoo", "gmn.nn.presets:ng_gnn", out, Recipe(epochs=1), progress=False)
    assert load(out).name == "gmn.nn.presets:ng_gnn"  # as an installed package offers the same
    fit(tmp_path / "zoo", "tests.gmn.test_consent:linear", tmp_path / "own", Recipe(epochs=1))
    with pytest.raises(ConsentError, match=r"tests\.gmn\.test_consent:linear"):
        load(tmp_path / "own")
    assert load(tmp_path / "own", trust=["tests"]).metrics


class _Linear(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)

    def forward(self, graph: Any) -> torch.Tensor:
        return self.layer(graph.values["conv1.bias"].mean(1, keepdim=True))


def linear(spec: Any, outputs: int) -> torch.nn.Module:
    return _Linear()
