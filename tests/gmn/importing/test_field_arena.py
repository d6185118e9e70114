"""The Neural Field Arena: many fields in one array."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from gmn.tasks import task_of
from gmn.zoo import NeuralFieldArena, ZooError
from tests.gmn.importing.replicas import command, import_, shorten

ORDER = [  # as Flax sorts them; the layers have other widths, so that no mix-up goes unnoticed
    ["layers_0.bias", [5]],
    ["layers_0.kernel", [2, 5]],
    ["layers_1.bias", [6]],
    ["layers_1.kernel", [5, 6]],
    ["layers_2.bias", [1]],
    ["layers_2.kernel", [6, 1]],
]
WIDTH = 5 + 10 + 6 + 30 + 1 + 6
FILES = ["MNIST_54998-55002.{}", "MNIST_59999-60001.{}", "MNIST_70000-70002.{}"]


def rows_of(number: int, count: int) -> np.ndarray:
    return np.random.default_rng(number).standard_normal((count, WIDTH)).astype(np.float32)


def arena_replica(source: Path, ending: str) -> None:
    source.mkdir()
    for number, name in enumerate(FILES):
        count = 4 if number == 0 else 2
        write(source / name.format(ending), rows_of(number, count), np.arange(count) + number)
    (source / "param_config.json").write_text(json.dumps(ORDER))


def write(path: Path, params: np.ndarray, labels: np.ndarray) -> None:
    if path.suffix == ".npz":
        np.savez(path, params=params, labels=labels)
        return
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        file["params"], file["labels"] = params, labels
        file["param_config"] = json.dumps(ORDER)  # text, which is no tensor


def field(row: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Flax's layers: x @ kernel + bias."""
    parts, start = [], 0
    for _, shape in ORDER:
        size = int(np.prod(shape))
        parts.append(row[start : start + size].reshape(shape).astype(float))
        start += size
    x = np.sin(12.5 * (points @ parts[1] + parts[0]))
    x = np.sin(12.5 * (x @ parts[3] + parts[2]))
    return x @ parts[5] + parts[4]


@pytest.mark.parametrize("ending", ["hdf5", "npz"])
def test_fields_compute_what_the_published_rows_do(tmp_path: Path, ending: str) -> None:
    arena_replica(tmp_path / "mnist", ending)
    layout = NeuralFieldArena(tmp_path / "mnist", frequency=12.5)
    population = import_(layout, tmp_path / "out")
    assert population.architectures == ["siren-2-5-6-1"]
    found = [(r["image"], r["view"], r["split"], r["label"]) for r in population.rows]
    assert found == [
        (0, 1, "train", 2),
        (1, 1, "train", 3),
        (54_998, 0, "train", 0),
        (54_999, 0, "train", 1),
        (55_000, 0, "val", 2),
        (55_001, 0, "val", 3),
        (59_999, 0, "val", 1),
        (60_000, 0, "test", 2),
    ]
    points = np.random.default_rng(0).uniform(-1, 1, (7, 2))
    graph = population.graph(range(8)).to(dtype=torch.float64)
    program = graph.spec.program
    assert program is not None
    given = torch.from_numpy(points).unsqueeze(1)
    answer = program.observe(graph.values, [given], program.outputs)[0].flatten(2)
    published = [rows_of(2, 2), rows_of(0, 4), rows_of(1, 2)]
    for found_image, row in zip(answer, np.concatenate(published), strict=True):
        np.testing.assert_allclose(found_image.numpy(), field(row, points), rtol=1e-9, atol=1e-9)
    assert task_of(tmp_path / "out").name == "INR classification"


def test_fields_and_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    source = tmp_path / "mnist"
    arena_replica(source, "npz")
    spoilt = rows_of(0, 4)
    spoilt[2, 7] = np.nan
    write(source / FILES[0].format("npz"), spoilt, np.arange(4))
    write(source / FILES[1].format("npz"), rows_of(1, 2)[:, :-1], np.arange(2))
    write(source / "MNIST_10-12.npz", rows_of(1, 2), np.arange(2) / 2)
    np.savez(source / "MNIST_20-22.npz", params=rows_of(1, 2))
    shorten(source / FILES[2].format("npz"))
    population = import_(NeuralFieldArena(source, 30.0), tmp_path / "out")
    assert [row["image"] for row in population.rows] == [54_998, 54_999, 55_001]
    skipped = dict(line.split(": ", 1) for line in population.manifest["card"]["skipped"])
    reasons = {
        "MNIST_10-12.npz": "labels are (2,) of torch.float64, not 2 ints",
        "MNIST_20-22.npz": "there is no key 'labels'",
        "MNIST_59999-60001.npz": "params has shape (2, 57); by the file's name and param_config",
        "MNIST_70000-70002.npz": "truncated",
        "MNIST_54998-55002.npz row 2": "layer1.weight has NaN",
    }
    for name, reason in reasons.items():
        assert reason in skipped.pop(name)
    assert not skipped


def test_wrong_folders_are_named(tmp_path: Path) -> None:
    source = tmp_path / "mnist"
    with pytest.raises(ZooError, match="mnist is no folder"):
        import_(NeuralFieldArena(source, 30.0), tmp_path / "out")
    with pytest.raises(ZooError, match="has no files like mnist_0-10000"):
        import_(NeuralFieldArena(tmp_path, 30.0), tmp_path / "out")
    arena_replica(source, "npz")
    for content, message in (
        ("{", "param_config.json is damaged"),
        ("[1]", "wanted is a list of pairs"),
        (json.dumps([["a.scale", [WIDTH]]]), "a.scale of shape .* is neither a kernel nor a bias"),
        (json.dumps([*ORDER, ["x_9.kernel", [3, 1]], ["x_9.bias", [1]]]), "only SIRENs are read"),
    ):
        (source / "param_config.json").write_text(content)
        with pytest.raises(ZooError, match=message):
            import_(NeuralFieldArena(source, 30.0), tmp_path / "out")
    (source / "param_config.json").unlink()
    with pytest.raises(ZooError, match=r"param_config\.json: No such file"):
        import_(NeuralFieldArena(source, 30.0), tmp_path / "out")
    write(source / "shapenet_0-2.npz", rows_of(1, 2), np.arange(2))
    with pytest.raises(
        ZooError, match="fields of mnist, shapenet; give a folder with those of one"
    ):
        import_(NeuralFieldArena(source, 30.0), tmp_path / "out")


def test_the_command_for_the_arena(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arena_replica(tmp_path / "mnist", "npz")
    arguments = ["neural-field-arena", str(tmp_path / "mnist"), "--out", str(tmp_path / "out")]
    assert command(monkeypatch, *arguments) == 2
    assert "neural-field-arena needs the options frequency" in capsys.readouterr().err
    assert command(monkeypatch, *arguments, "--frequency", "12.5") == 0
