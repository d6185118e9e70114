"""gmn convert, and weights for gmn inspect and gmn verify."""

from __future__ import annotations

import json
import os
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from torch import nn

import converters
import gmn
from gmn import zoo
from gmn.cli.examples import EXAMPLES
from tests.converters.formats import FORMATS
from tests.gmn.test_cli import run

Patch = pytest.MonkeyPatch
Printed = pytest.CaptureFixture[str]


def resnet(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return EXAMPLES["resnet"]()[0]


def test_many_checkpoints_of_a_model(monkeypatch: Patch, capsys: Printed, tmp_path: Path) -> None:
    files = [str(tmp_path / f"{seed}.pt") for seed in range(3)]
    for seed, file in enumerate(files):
        wrapped = nn.DataParallel(resnet(seed)).state_dict()
        torch.save({"epoch": 3, "model": wrapped}, file)
    out = str(tmp_path / "graph")
    assert run(monkeypatch, "convert", *files, "--model", "resnet", "--out", out) == 0
    printed = capsys.readouterr().out
    assert "left out: epoch (int)" in printed
    assert "ParameterGraph(3 networks of" in printed
    graph = gmn.load(out)
    for seed in range(3):
        state = resnet(seed).state_dict()
        assert all(torch.equal(graph.to_state_dict(seed)[k], v) for k, v in state.items())


def test_bad_files_are_named_and_the_others_converted(
    monkeypatch: Patch, capsys: Printed, tmp_path: Path
) -> None:
    """In the order given, also if the first is bad, and with few files open at once."""
    folder = tmp_path / "files"
    folder.mkdir()
    good = [nn.Linear(2, 3, dtype=torch.float32) for _ in range(200)]
    for index, model in enumerate(good):
        torch.save(model.state_dict(), folder / f"{index:03d}.pt")
    torch.save({"weight": torch.full((3, 2), torch.nan), "bias": torch.zeros(3)}, folder / "nan.pt")
    torch.save(nn.Linear(4, 3).state_dict(), folder / "shape.pt")
    torch.save(nn.Linear(2, 3).double().state_dict(), folder / "type.pt")
    torch.save(nn.Linear(2, 3, bias=False).state_dict(), folder / "zz-missing.pt")
    (folder / "!garbage.pt").write_bytes(b"garbage")
    (folder / "empty.pt").touch()
    monkeypatch.setitem(EXAMPLES, "linear", lambda: (nn.Linear(2, 3), (torch.zeros(1, 2),)))
    files, out = map(str, sorted(folder.iterdir())), str(tmp_path / "graph")
    with _few_files():
        assert run(monkeypatch, "convert", *files, "--model", "linear", "--out", out) == 1
    printed = capsys.readouterr().out
    for name, why in {
        "!garbage": "", "empty": "", "nan": "weight", "shape": "(3, 4)", "type": "torch.float64",
        "zz-missing": "bias",
    }.items():  # fmt: skip
        (line,) = (line for line in printed.splitlines() if f"left out {folder / name}.pt:" in line)
        assert why in line
    graph = gmn.load(out)
    assert len(graph) == 200
    assert torch.equal(graph.values["weight"], torch.stack([m.weight.detach() for m in good]))


@contextmanager
def _few_files() -> Iterator[None]:
    """At most 60 more descriptors than are open now."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 60, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_no_file_is_good(monkeypatch: Patch, capsys: Printed, tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / f"{name}.pt").write_bytes(b"garbage")
    files = [str(tmp_path / f"{name}.pt") for name in "ab"]
    assert run(monkeypatch, "convert", *files, "--out", str(tmp_path / "graph")) == 1
    printed = "".join(capsys.readouterr().err.split())
    assert all("".join(file.split()) in printed for file in files)
    assert not (tmp_path / "graph").exists()


@pytest.mark.parametrize("name", ["safetensors", "torch stream", "npz"])
def test_a_bare_chain(name: str, monkeypatch: Patch, capsys: Printed, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))
    FORMATS[name](model.state_dict(), tmp_path / "inr")
    arguments = ("convert", str(tmp_path / "inr"), "--activation", "sine")
    assert run(monkeypatch, *arguments, "--out", str(tmp_path / "graph")) == 0
    assert "Sine() follows every layer but the last" in capsys.readouterr().out
    graph = gmn.load(tmp_path / "graph")
    assert torch.equal(graph.to_state_dict()["2.weight"], model[2].weight)
    assert "sign" in {scaling.domain for scaling in graph.spec.scalings}


def test_a_folder_of_transformers(monkeypatch: Patch, capsys: Printed, tmp_path: Path) -> None:
    from tests.families import build

    model, _ = build("bert-classifier")
    model.model.save_pretrained(tmp_path / "bert")
    out = str(tmp_path / "graph")
    assert run(monkeypatch, "convert", "--hf", str(tmp_path / "bert"), "--out", out) == 0
    state, found = model.model.state_dict(), gmn.load(out).to_state_dict()
    assert all(torch.equal(found[name], value) for name, value in state.items())


def test_a_timm_model(monkeypatch: Patch, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm", exc_type=(ImportError, RuntimeError))
    model = timm.create_model("resnet10t", pretrained=False)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "a.pth.tar")
    arguments = ("convert", str(tmp_path / "a.pth.tar"), "--timm", "resnet10t")
    assert run(monkeypatch, *arguments, "--out", str(tmp_path / "graph")) == 0
    found = gmn.load(tmp_path / "graph").to_state_dict()
    assert all(torch.equal(found[name], value) for name, value in model.state_dict().items())


def test_verify_takes_the_weights_of_a_file(
    monkeypatch: Patch, capsys: Printed, tmp_path: Path
) -> None:
    """Where all weights are zero, everything is a symmetry: the file was read."""
    model = resnet(0)
    arguments = ("verify", "resnet", "--json", "-c", str(tmp_path / "a.pt"))
    torch.save(
        {"net": model.state_dict(), "other": nn.Linear(2, 2).state_dict()}, tmp_path / "a.pt"
    )
    assert run(monkeypatch, *arguments) == 0
    assert json.loads(capsys.readouterr().out)["max_error"] > 0
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    torch.save(model.state_dict(), tmp_path / "a.pt")
    assert run(monkeypatch, *arguments) == 0
    assert json.loads(capsys.readouterr().out)["max_error"] < 1e-12
    assert run(monkeypatch, "inspect", "resnet", "-c", str(tmp_path / "a.pt")) == 0


@pytest.mark.parametrize(
    ("code", "arguments", "message"),
    [
        (1, ("a.pt", "--model", "mlp"), "a.pt: not a state dict of this architecture: missing"),
        (
            1,
            ("b.pt", "--model", "mlp"),
            "b.pt: 0.weight has shape (16, 5), this architecture needs",
        ),
        (1, ("nan.pt",), "nan.pt: 0.bias has NaN"),
        (1, ("c.pt",), "c.pt: there is no such file or folder"),
        (2, (), "name at least one checkpoint, or a folder with --hf"),
        (2, ("a.pt", "--model", "mlp", "--timm", "x"), "give one of --model, --hf and --timm"),
        (2, ("a.pt", "--model", "mlp", "--activation", "relu"), "for checkpoints without a model"),
        (2, ("a.pt", "--activation", "swish"), "no activation is called 'swish'; known: relu"),
        (2, ("a.pt", "-i", "1x2"), "a bare chain of layers needs none"),
        (1, ("a.pt", "--key", "x"), "there is no key 'x'"),
        (1, ("lstm.pt",), "Pass the module that the weights belong to (--model"),
        (1, ("--hf", "."), "holds 4 checkpoints"),
        (1, ("a.pt", "--hf", "."), "has no config.json"),
    ],
)
def test_mistakes_are_one_line(
    code: int,
    arguments: tuple[str, ...],
    message: str,
    monkeypatch: Patch,
    capsys: Printed,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    wide = nn.Sequential(
        nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3)
    )
    broken = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)).state_dict()
    torch.save(broken, "a.pt")
    torch.save(wide.state_dict(), "b.pt")
    torch.save(nn.LSTM(2, 2).state_dict(), "lstm.pt")
    broken["0.bias"] = torch.tensor([1, float("nan")])
    torch.save(broken, "nan.pt")
    assert run(monkeypatch, "convert", *arguments, "--out", "out") == code
    printed = capsys.readouterr().err
    assert message in " ".join(printed.split())
    assert "Traceback" not in printed
    assert not Path("out").exists()


def test_timm_that_is_not_installed(monkeypatch: Patch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(converters.CheckpointError, match="pip install timm"):
        converters.from_timm("resnet18")


class Attends(nn.Module):
    """With a mask of minus infinity, and a buffer that nothing reads."""

    def __init__(self) -> None:
        super().__init__()
        self.values, self.last = nn.Linear(4, 4), nn.Linear(4, 2)
        self.register_buffer("mask", torch.full((5, 5), -torch.inf).triu(1))
        self.register_buffer("cache", torch.full((3,), torch.nan))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scores = (x @ x.mT + self.mask).masked_fill(self.mask == -torch.inf, -torch.inf)
        return self.last(torch.relu(self.values(scores.softmax(-1) @ x)))


def attends() -> tuple[nn.Module, tuple[torch.Tensor, ...]]:
    return Attends(), (torch.zeros(2, 5, 4),)


def test_masks_and_buffers_that_nothing_reads_are_noted(
    monkeypatch: Patch, capsys: Printed, tmp_path: Path
) -> None:
    model = Attends()
    torch.save(model.state_dict(), tmp_path / "a.pt")
    words = ["--model", "tests.gmn.test_convert:attends", "--out", str(tmp_path / "graph")]
    assert run(monkeypatch, "convert", str(tmp_path / "a.pt"), *words) == 0
    printed = capsys.readouterr().out
    assert "mask holds minus infinity: it is read as a mask, and kept as it is" in printed
    assert "cache holds NaN or infinity: it is not on the graph, and kept as it is" in printed
    graph = gmn.load(tmp_path / "graph")
    found = graph.to_state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(found[name].nan_to_num(7), value.nan_to_num(7))
    assert gmn.nn.GMN(8, 1)(graph).isfinite().all()
    rows = [{"id": "a"}]
    zoo.store.shards.write_shard(tmp_path, 0, "attends", graph.spec, graph.values, rows)
