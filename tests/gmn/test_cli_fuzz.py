"""Every command with every argument wrong in every common way: one line, exit code 0, 1 or 2."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import typer

from gmn import cli
from tests.brief_zoos import make_brief
from tests.gmn.population import small_zoo

pytestmark = pytest.mark.usefixtures("quick_costs")

ODD_WORDS = [
    "",
    "[names]",
    ":x:",
    "a:",
    ":b",
    "..a:b",
    "no.such:thing",
    "os",
    "é\n",
    "-",
    "x" * 300,
]
# Of each kind of argument what is wrong with it; of most, the first is refused without work.
WRONG: dict[str, list[str]] = {
    "whole": ["one", "", "1.5", "-1", "0", str(2**70), "nan", "[names]"],
    "rate": ["fast", "", "-1", "0", "nan", "inf", "1e400", "1e30", ":x:"],
    "read": [
        "missing",
        "",
        "file",
        "empty",
        "garbage.pt",
        "[names]",
        ":x:",
        "/dev/null",
        "y" * 300,
    ],
    "written": ["file", "file/below", "/proc/nowhere/below", "z" * 300, "[names]", ":x:"],
    "word": ["[names]", *ODD_WORDS],
    "option": ["[names]", "=", "a=b", "x=!!python/object:os.system", "copies=[", "copies=-1"],
    "input": [
        "[names]",
        "1x3x32x32",
        "x",
        "1xx2",
        "2:int64<0",
        "0x4",
        ":x:",
        "1x4:float8",
        "a=1x4",
    ],
    "condition": ["[names]", "a", "steps>", ">3", "steps>=x", "id>=3", "steps==1==2", ":x:>1"],
    "file": ["missing.yaml", "garbage.pt", "empty", "names.yaml", "deep.yaml", "[names]"],
}
KINDS: dict[str, str] = {
    **dict.fromkeys(("seeds", "epochs", "batch_size", "workers", "seed", "patience"), "whole"),
    **dict.fromkeys(("elements", "trials", "size", "views", "epoch"), "whole"),
    **dict.fromkeys(("lr", "ema", "frequency"), "rate"),
    **dict.fromkeys(("population", "folder", "folders", "added", "source", "splits"), "read"),
    **dict.fromkeys(("checkpoint", "checkpoints", "hf", "metadata", "labels"), "read"),
    **dict.fromkeys(("out", "csv", "rescue"), "written"),
    **dict.fromkeys(("model", "task", "device", "architecture", "key", "timm"), "word"),
    **dict.fromkeys(("activation", "name", "layout", "prefix", "split", "id", "format"), "word"),
    **dict.fromkeys(("ray", "trust"), "word"),
    "option": "option",
    "input_shapes": "input",
    "where": "condition",
    "config": "file",
}
# What is no mistake but long work: so many epochs, so large a population.
LONG = {
    ("epochs", str(2**70)),
    ("size", str(2**70)),
    ("elements", str(2**70)),
    ("trials", str(2**70)),
}
LONG |= {(name, str(2**70)) for name in ("seeds", "checkpoints", "views", "patience")}
# A function of another module that ends the process, or waits for a cluster.
LONG |= {("ray", word) for word in ODD_WORDS}
CALLS: dict[str, list[str]] = {
    "models": [],
    "tasks": [],
    "inspect": ["mlp", "-c", "mlp.pt", "-i", "1x4", "--key", "state"],
    "verify": ["mlp", "-c", "mlp.pt", "-i", "1x4", "--trials", "1"],
    "convert": ["chain.pt", "-o", "new"],
    "draw": ["mlp", "-o", "new.svg"],
    "train": ["zoo", "-m", "flat-mlp", "-o", "new", "--epochs", "1"],
    "compare": ["zoo", "-m", "layer-statistics", "-o", "new", "--seeds", "1", "--workers", "1"],
    "predict": ["trained", "cnn.pt", "--architecture", "cnn-relu"],
    "zoo build": ["cnn-digits", "--size", "2", "--workers", "1", "-o", "new"],
    "zoo import": ["folder", "files", "-o", "new", "--model", "mlp", "--labels", "files/t.csv"],
    "zoo show": ["zoo"],
    "zoo verify": ["zoo"],
    "zoo merge": ["zoo", "-o", "new"],
    "zoo append": ["grown", "zoo", "--prefix", "x/"],
    "zoo filter": ["zoo", "-o", "new", "--split", "test"],
    "zoo export": ["zoo", "-o", "new", "--id", "0-1"],
}


def _commands() -> Iterator[tuple[str, Any]]:
    top = typer.main.get_command(cli.app)
    for name, command in top.commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", {})
        yield from (((name, command),) if not inner else ())
        for other, below in inner.items():
            yield f"{name} {other}", below


def _mutants() -> Iterator[tuple[str, str, str, bool]]:
    """Command, argument, wrong value, and whether it is one that is tried by default.

    By default each command and each argument is wrong once: commands share their arguments.
    """
    tried = set()
    for name, command in _commands():
        for parameter in command.params:
            if getattr(parameter, "is_flag", False):
                continue
            argument = parameter.name
            kind = KINDS[argument]
            if name == "zoo build" and argument == "checkpoints":
                kind = "whole"
            new = not {name, argument} <= tried
            tried |= {name, argument}
            for number, value in enumerate(WRONG[kind]):
                if (argument, value) not in LONG:
                    yield name, argument, value, new and number == 0


MUTANTS = [*_mutants()]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that the calls read."""
    folder = tmp_path_factory.mktemp("fuzz")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        population = small_zoo(folder / "zoo")
        small_zoo(folder / "grown")
        torch.save(population.state(0), "cnn.pt")
        mlp = torch.nn.Sequential(
            torch.nn.Linear(4, 16), torch.nn.ReLU(), torch.nn.Linear(16, 16), torch.nn.Tanh(),
            torch.nn.Linear(16, 3),
        )  # fmt: skip
        torch.save({"state": mlp.state_dict()}, "mlp.pt")
        torch.save(mlp.state_dict(), "chain.pt")
        for name in ("files", "empty"):
            Path(name).mkdir()
        torch.save(mlp.state_dict(), "files/a.pt")
        Path("files/t.csv").write_text("file,split\na.pt,train\n")
        Path("file").write_text("text")
        Path("garbage.pt").write_bytes(b"\x80\x02garbage" * 20)
        Path("names.yaml").write_text("'[names]': 1\n")
        Path("deep.yaml").write_text("[" * 3000)
        assert _run(patch, ["train", *CALLS["train"][:3], "-o", "trained", "--epochs", "1"]) == 0
    return folder


def _run(patch: pytest.MonkeyPatch, words: list[str]) -> int:
    patch.setattr("sys.argv", ["gmn", *words])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)


def _call(name: str, argument: str, value: str) -> list[str]:
    """The command line of a command with one argument wrong."""
    command = dict(_commands())[name]
    parameter = next(p for p in command.params if p.name == argument)
    words = list(CALLS[name])
    if parameter.param_type_name == "argument":
        arguments = [p.name for p in command.params if p.param_type_name == "argument"]
        first = next(n for n, word in enumerate([*words, "-"]) if word.startswith("-"))
        place = arguments.index(argument)
        words[place : min(place + 1, first)] = [value]
        return [*name.split(), *words]
    spelling = max(parameter.opts, key=len)
    for known in parameter.opts:
        if known in words:
            at = words.index(known)
            del words[at : at + 2]
    return [*name.split(), *words, f"{spelling}={value}"]


def test_all_commands_and_arguments_are_tried() -> None:
    assert {name for name, _ in _commands()} == CALLS.keys()
    assert len(MUTANTS) > 500


@pytest.mark.parametrize(
    "mutant",
    [
        pytest.param(mutant, id=" ".join(mutant)[:60], marks=() if by_default else pytest.mark.slow)
        for *mutant, by_default in MUTANTS
    ],
)
def test_one_argument_wrong(
    place: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    mutant: tuple[str, str, str],
) -> None:
    make_brief(monkeypatch)
    for entry in place.iterdir():
        (tmp_path / entry.name).symlink_to(entry)
    monkeypatch.chdir(tmp_path)
    words = _call(*mutant)
    code = _run(monkeypatch, words)
    printed = capsys.readouterr()
    assert code in (0, 1, 2), words
    assert "Traceback" not in printed.out + printed.err, words
    if code:
        assert printed.err.strip() or printed.out.strip(), words
