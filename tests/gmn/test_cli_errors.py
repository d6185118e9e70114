"""How the command fails: exit codes, paths and reasons, the user's words as they are."""

from __future__ import annotations

import errno
import re
from pathlib import Path

import pytest
import torch

import gmn
from gmn import cli, zoo
from gmn.cli.errors import REASONS, ExitCode, in_words
from gmn.errors import DataError, NotFiniteError
from gmn.train import Recipe, fit, predict_files
from tests.gmn.commands import run
from tests.gmn.population import small_zoo

pytestmark = pytest.mark.usefixtures("quick_costs")
PAGE = Path(__file__).parents[2] / "docs" / "command.md"


def test_the_page_has_all_exit_codes() -> None:
    codes = [int(code) for code in re.findall(r"^\| (\d+) \|", PAGE.read_text(), re.MULTILINE)]
    assert codes == [int(code) for code in ExitCode]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (0, ["models"]),
        (1, ["zoo", "show", "nowhere"]),
        (1, ["predict", "nowhere", "a.pt"]),
        (1, ["convert", "a.pt", "-o", "out"]),
        (1, ["inspect", "mlp", "-c", "missing.pt"]),
        (2, ["zoo", "show"]),
        (2, ["train", "nowhere", "-m", "oracle", "-o", "out"]),
        (2, ["train", "nowhere", "-m", "gmn", "-o", "out", "--epochs", "0"]),
        (2, ["train", "nowhere", "-m", "gmn", "-o", "out", "--seed", str(2**70)]),
        (2, ["train", "nowhere", "-m", "gmn", "-o", "out", "--lr", "inf"]),
        (2, ["train", "nowhere", "-m", "gmn", "-o", "out", "--device", "meta"]),
        (2, ["compare", "nowhere", "-o", "out", "--workers", "0"]),
        (2, ["verify", "mlp", "--seed", str(2**70)]),
        (2, ["verify", "mlp", "--trials", "-1"]),
        (2, ["inspect", "[names]"]),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else str(value),
)
def test_exit_codes(
    code: int, words: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(monkeypatch, *words) == code


def test_ctrl_c(monkeypatch: pytest.MonkeyPatch) -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(gmn.registry, "names", stop)
    assert run(monkeypatch, "models") == 130


def test_what_looks_like_markup_is_printed_as_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for odd in ("[names]", ":x:", "[red]a[/red]", "[/]", "a:smile:b[0]"):
        assert run(monkeypatch, "zoo", "show", odd) == 1
        assert f"error: {odd} is not a zoo" in capsys.readouterr().err


def test_tables_print_names_as_they_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    population = small_zoo(tmp_path / "zoo")
    fit(tmp_path / "zoo", "flat-mlp", tmp_path / "model", Recipe(epochs=1), progress=False)
    files = [tmp_path / name for name in ("[bold]x.pt", ":smile:.pt")]
    for file in files:
        torch.save(population.state(0), file)
    words = ["--architecture", "cnn-relu"]
    assert run(monkeypatch, "predict", str(tmp_path / "model"), *map(str, files), *words) == 0
    printed = capsys.readouterr().out
    assert all(str(file) in printed for file in files)


def test_failures_of_the_file_system_name_path_and_way_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    small_zoo(tmp_path / "zoo")
    (tmp_path / "file").write_text("the user's")
    monkeypatch.chdir(tmp_path)
    calls = (
        ["train", "zoo", "-m", "flat-mlp", "--epochs", "1"],
        ["convert", "zoo/shard-00000.safetensors"],
        ["zoo", "filter", "zoo", "--split", "test"],
        ["zoo", "export", "zoo"],
        ["draw", "mlp"],
    )
    for call in calls:
        out = "file/below.svg" if call[0] == "draw" else "file"
        assert run(monkeypatch, *call, "-o", out) in (1, 2)
        printed = capsys.readouterr().err
        assert "error: " in printed
        assert "Traceback" not in printed
        assert (tmp_path / "file").read_text() == "the user's"
    full = OSError(errno.ENOSPC, "No space left on device", "run.pt.part", None, "run.pt")
    assert in_words(full) == f"run.pt: {REASONS[errno.ENOSPC]}"
    assert in_words(OSError("odd")) == "odd"
    assert in_words(OSError(errno.EIO, "Input/output error", "a.pt")) == "a.pt: Input/output error"


def test_options_of_tasks_hold_plain_values(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "nowhere", "-m", "gmn", "-o", "out", "-O"]
    for wrong in ("copies=!!python/object/apply:os.system [ls]", "copies=" + "[" * 1000):
        assert run(monkeypatch, *words, wrong) == 2
        assert "its value is no number, word or list" in capsys.readouterr().err


# What is not finite is no answer


def test_a_run_that_diverged_writes_no_model(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    small_zoo(tmp_path / "zoo")
    words = ["train", str(tmp_path / "zoo"), "-o", str(tmp_path / "out"), "--lr", "1e30"]
    # One step per epoch: its loss is finite, the weights after it are not.
    assert run(monkeypatch, *words, "-m", "flat-mlp", "--epochs", "1", "--batch-size", "99") == 1
    assert "lower the learning rate" in capsys.readouterr().err
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_weights_too_large_get_no_answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    population = small_zoo(tmp_path / "zoo")
    trained = fit(tmp_path / "zoo", "gmn", tmp_path / "model", Recipe(epochs=1), progress=False)
    state = population.state(0)
    torch.save(state, tmp_path / "a.pt")
    torch.save({n: torch.full_like(v, 1e38) for n, v in state.items()}, tmp_path / "huge.pt")
    words = ["predict", str(tmp_path / "model"), str(tmp_path / "a.pt"), str(tmp_path / "huge.pt")]
    assert run(monkeypatch, *words, "--architecture", "cnn-relu") == 1
    printed = capsys.readouterr().out
    assert "answers to 1 of 1 networks are NaN or infinite" in printed
    assert "nan" not in printed.replace("NaN or infinite", "")
    graph = population.graph([0, 1])
    values = {n: v.clone() for n, v in graph.values.items()}
    values["conv1.weight"][1] = 1e38
    with pytest.raises(NotFiniteError, match="gmn: the answers to 1 of 2 networks are NaN"):
        trained.predict(graph.replace(values))


def test_a_model_of_nan_is_refused(tmp_path: Path) -> None:
    population = small_zoo(tmp_path / "zoo")
    torch.save(population.state(0), tmp_path / "a.pt")
    trained = fit(
        tmp_path / "zoo", "flat-mlp", tmp_path / "model", Recipe(epochs=1), progress=False
    )
    with torch.no_grad():
        next(trained.model.parameters()).fill_(torch.nan)
    (answer,) = predict_files(trained, [tmp_path / "a.pt"], architecture="cnn-relu")
    assert answer.prediction is None
    assert "NaN or infinite" in str(answer.error)


def test_comparisons_show_who_diverged(tmp_path: Path) -> None:
    def wild(spec: gmn.GraphSpec, outputs: int) -> torch.nn.Module:
        net = gmn.nn.GMN(4, 1, outputs)
        net.learning_rate = 1e30
        return net

    def tame(spec: gmn.GraphSpec, outputs: int) -> torch.nn.Module:
        return gmn.nn.GMN(4, 1, outputs)

    population = small_zoo(tmp_path / "zoo")
    given = {"seeds": 1, "recipe": Recipe(epochs=1), "workers": 1, "progress": False}
    found = gmn.compare(population, {"wild": wild, "tame": tame}, **given)  # type: ignore[arg-type]
    assert [row.model for row in found.rows] == ["tame"]
    assert "wild is left out: diverged with seed 0: GMN: the loss is nan" in str(found)
    with pytest.raises(NotFiniteError, match="wild: diverged with seed 0"):
        gmn.compare(population, {"wild": wild}, **given)  # type: ignore[arg-type]


def test_a_part_of_a_zoo_is_compared_as_it_is(tmp_path: Path) -> None:
    population = small_zoo(tmp_path / "zoo").select(architecture="cnn-tanh")
    recipe = Recipe(epochs=1)
    found = gmn.compare(
        population, ["layer-statistics"], seeds=1, recipe=recipe, workers=1, progress=False
    )
    assert sum(found.protocol["networks"].values()) == len(population) == 40


def test_errors_of_data_are_told_from_those_of_usage() -> None:
    kinds = (zoo.ZooError, gmn.StateDictError, gmn.GraphFileError, gmn.SpecError)
    assert all(issubclass(kind, DataError) for kind in kinds)
    assert not issubclass(gmn.errors.ArgumentError, DataError)
    assert cli.errors.report(KeyError("no")) == ExitCode.USAGE
    assert cli.errors.report(zoo.ZooError("no")) == ExitCode.DATA
