"""A folder of one's own checkpoints."""

from __future__ import annotations

import csv
import gzip
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from gmn import zoo
from gmn.tasks import task_of
from gmn.zoo import CheckpointFolder, ZooError
from gmn.zoo.importing import named_layout
from tests.gmn.importing.replicas import Harmful, command, import_, shorten

INPUTS = (torch.zeros(1, 1, 8, 8),)
FILES = ["a/1.pt", "a/2.pth", "b/1.safetensors", "b/2.ckpt", "c.pt", "d.pt"]


def network() -> nn.Module:
    """With running statistics, a counter of batches and a tied weight."""
    tied = nn.Linear(4, 4)
    parts = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]
    return nn.Sequential(*parts, nn.Flatten(), tied, nn.ReLU(), tied, nn.Linear(4, 3))


def trained(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    model = network()
    for _ in range(3):
        model(torch.randn(16, 1, 8, 8) + seed)
    return model


def write_checkpoints(folder: Path) -> None:
    """In several formats: bare, wrapped, of half precision, with the names of DataParallel."""
    for seed, name in enumerate(FILES):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        state = trained(seed).state_dict()
        if path.suffix == ".safetensors":
            save_file({name: value.clone() for name, value in state.items()}, path)
        elif path.suffix == ".ckpt":
            optimizer = torch.optim.Adam(trained(seed).parameters()).state_dict()
            torch.save({"epoch": 3, "net": {"model": state}, "optimizer": optimizer}, path)
        elif path.suffix == ".pth":
            torch.save({f"module.{name}": value for name, value in state.items()}, path)
        else:
            torch.save(state, path)


def write_labels(path: Path, rows: list[dict[str, object]]) -> Path:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    return path


def rows_of_files() -> list[dict[str, object]]:
    return [
        {"file": name, "split": ("train", "val", "test")[i % 3], "test_accuracy": 0.1 * i, "lr": ""}
        for i, name in enumerate(FILES)
    ]


def folder_layout(source: Path, labels: Path, key: str | None = None) -> CheckpointFolder:
    return CheckpointFolder(source, labels, network(), INPUTS, key)


@pytest.mark.parametrize("ending", ["csv", "csv.gz"])
def test_checkpoints_keep_values_labels_and_splits(tmp_path: Path, ending: str) -> None:
    write_checkpoints(tmp_path / "runs")
    labels = write_labels(tmp_path / f"labels.{ending}", rows_of_files())
    population = import_(folder_layout(tmp_path / "runs", labels), tmp_path / "out")
    found = [(row["id"], row["split"], row["test_accuracy"], row["lr"]) for row in population.rows]
    assert found == [(r["file"], r["split"], r["test_accuracy"], None) for r in rows_of_files()]
    images = torch.randn(2, 1, 8, 8, dtype=torch.float64)
    graph = population.graph(range(len(FILES))).to(dtype=torch.float64)
    program = graph.spec.program
    assert program is not None
    given = images.unsqueeze(1)
    answer = program.observe(graph.values, [given], program.outputs)[0].flatten(2)
    for seed in range(len(FILES)):
        expected_scores = trained(seed).double().eval()(images)
        torch.testing.assert_close(answer[seed], expected_scores, rtol=1e-9, atol=1e-9)
    assert population.manifest["card"]["split_rule"] == "column split of the table"
    assert task_of(tmp_path / "out").name == "accuracy prediction"


def test_without_a_split_no_run_is_in_two(tmp_path: Path) -> None:
    model = nn.Linear(2, 1)
    (tmp_path / "runs").mkdir()
    rows: list[dict[str, object]] = []
    for number in range(60):
        torch.save(model.state_dict(), tmp_path / "runs" / f"{number}.pt")
        rows.append({"file": f"{number}.pt", "run": f"r{number // 3}", "step": number % 3})
    labels = write_labels(tmp_path / "labels.csv", rows)
    layout = CheckpointFolder(tmp_path / "runs", labels, model, (torch.zeros(1, 2),))
    population = import_(layout, tmp_path / "out")
    splits = {run: set() for run in {row["run"] for row in population.rows}}
    for row in population.rows:
        splits[row["run"]].add(row["split"])
    assert len(splits) == 20
    assert all(len(found) == 1 for found in splits.values())
    assert set.union(*splits.values()) == {"train", "val", "test"}
    assert "by run" in population.manifest["card"]["split_rule"]


def test_checkpoints_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    write_checkpoints(runs)
    rows = rows_of_files()
    rows[5]["test_accuracy"] = "nan"
    rows += [{"file": "gone.pt", "split": "train", "test_accuracy": 0.1, "lr": ""}]
    rows += [{"file": "e.pt", "split": "dev", "test_accuracy": 0.1, "lr": ""}]
    torch.save(trained(9).state_dict(), runs / "e.pt")
    torch.save(trained(9).state_dict(), runs / "f.pt")
    shorten(runs / "a" / "1.pt")
    state: dict[str, Tensor] = trained(1).state_dict()
    torch.save(
        state | {"1.running_var": torch.tensor([1.0, 2.0, torch.nan, 1.0])}, runs / "a/2.pth"
    )
    save_file({"0.weight": torch.zeros(4, 1, 3, 3)}, runs / "b" / "1.safetensors")
    (tmp_path / "ran").mkdir()
    torch.save({"net": state, "x": Harmful(str(tmp_path / "ran" / "it"))}, runs / "b" / "2.ckpt")
    labels = write_labels(tmp_path / "labels.csv", rows)
    population = import_(folder_layout(runs, labels), tmp_path / "out")
    skipped = dict(line.split(": ", 1) for line in population.manifest["card"]["skipped"])
    reasons = {
        "d.pt": "its test_accuracy is 'nan'",
        "gone.pt": "there is no such file",
        "e.pt": "its split is 'dev', not one of train, val, test",
        "f.pt": "labels.csv has no row of it",
        "a/1.pt": "truncated",
        "a/2.pth": "1.running_var has NaN",
        "b/1.safetensors": "missing 0.bias",
    }
    for file, reason in reasons.items():
        assert reason in skipped.pop(file)
    assert not skipped
    assert [row["id"] for row in population.rows] == ["b/2.ckpt", "c.pt"]  # the code is not run
    assert not (tmp_path / "ran" / "it").exists()


def test_a_column_of_numbers_and_text_is_text(tmp_path: Path) -> None:
    write_checkpoints(tmp_path / "runs")
    rows = rows_of_files()
    for row, value in zip(rows, ("0.5", "auto", "", "2", "1", "1"), strict=True):
        row["lr"] = value
    labels = write_labels(tmp_path / "labels.csv", rows)
    population = import_(folder_layout(tmp_path / "runs", labels), tmp_path / "out")
    assert [row["lr"] for row in population.rows] == ["0.5", "auto", None, "2.0", "1.0", "1.0"]


def test_wrong_tables_are_named(tmp_path: Path) -> None:
    write_checkpoints(tmp_path / "runs")
    rows = rows_of_files()
    for changed, message in (
        ([{"path": "a.pt"}], "has no column 'file' that names the checkpoints; it has path"),
        ([*rows, rows[0]], "line 8: a/1.pt has a row already"),
        ([rows[0] | {"file": "../x.pt"}], r"line 2: '\.\./x\.pt' is no path of a checkpoint"),
        ([rows[0] | {"file": ""}], "line 2: '' is no path of a checkpoint"),
    ):
        labels = write_labels(tmp_path / "labels.csv", changed)
        with pytest.raises(ZooError, match=message):
            import_(folder_layout(tmp_path / "runs", labels), tmp_path / "out")
    with pytest.raises(ZooError, match="absent is no folder"):
        import_(folder_layout(tmp_path / "absent", labels), tmp_path / "out")
    with pytest.raises(ZooError, match=r"none\.csv cannot be read"):
        import_(folder_layout(tmp_path / "runs", tmp_path / "none.csv"), tmp_path / "out")


def test_a_key_chooses_among_the_weights_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    first, second = nn.Linear(2, 1).state_dict(), nn.Linear(2, 1).state_dict()
    torch.save({"net": first, "ema": second}, tmp_path / "runs" / "x.pt")
    labels = write_labels(tmp_path / "labels.csv", [{"file": "x.pt", "label": 1}])
    for key, expected in ((None, first), ("ema", second)):
        out = tmp_path / f"out-{key}"
        model, inputs = nn.Linear(2, 1), (torch.zeros(1, 2),)
        layout = CheckpointFolder(tmp_path / "runs", labels, model, inputs, key)
        assert torch.equal(import_(layout, out).state(0)["weight"], expected["weight"])


def test_a_shard_of_large_networks_holds_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_checkpoints(tmp_path / "runs")
    labels = write_labels(tmp_path / "labels.csv", rows_of_files())
    size = 4 * sum(value.numel() for value in network().state_dict().values())
    monkeypatch.setattr("gmn.zoo.importing.run.SHARD_BYTES", 2 * size + 1)
    population = import_(folder_layout(tmp_path / "runs", labels), tmp_path / "out")
    assert [shard["networks"] for shard in population.manifest["shards"]] == [2, 2, 2]


def test_the_command_for_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_checkpoints(tmp_path / "runs")
    labels = write_labels(tmp_path / "labels.csv", rows_of_files())
    arguments = ["folder", str(tmp_path / "runs"), "--labels", str(labels)]
    model = ["--model", "tests.gmn.importing.test_folder:network", "-i", "1x1x8x8"]
    assert command(monkeypatch, *arguments, *model, "--out", str(tmp_path / "out")) == 0
    assert len(zoo.open(tmp_path / "out")) == len(FILES)
    capsys.readouterr()
    assert command(monkeypatch, *arguments, "--out", str(tmp_path / "other")) == 2
    assert "folder needs the options model, inputs" in capsys.readouterr().err
    with pytest.raises(ValueError, match="folder needs the options labels"):
        named_layout("folder", tmp_path, {"model": network(), "inputs": INPUTS})
