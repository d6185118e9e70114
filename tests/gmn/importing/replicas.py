"""Small replicas of published zoos, and the way they are imported."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from gmn import cli, zoo
from gmn.zoo.importing import Layout

NETWORKS, STEPS = 24, (0, 40, 86)


SHAPES = {  # in the order of the published rows: biases first
    "sequential/conv2d/bias:0": (16,),
    "sequential/conv2d/kernel:0": (3, 3, 1, 16),
    "sequential/conv2d_1/bias:0": (16,),
    "sequential/conv2d_1/kernel:0": (3, 3, 16, 16),
    "sequential/conv2d_2/bias:0": (16,),
    "sequential/conv2d_2/kernel:0": (3, 3, 16, 16),
    "sequential/dense/bias:0": (10,),
    "sequential/dense/kernel:0": (16, 10),
}


def cnn_replica(folder: Path, compressed: bool = True) -> np.ndarray:
    """Writes the three files; returns the weights."""
    folder.mkdir()
    rows = NETWORKS * len(STEPS)
    weights = 0.3 * np.random.default_rng(0).standard_normal((rows, 4970)).astype(np.float32)
    np.save(folder / "weights.npy", weights)
    with (folder / "layout.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["varname", "start_idx", "end_idx", "shape"])
        start = 0
        for name, shape in SHAPES.items():
            table.writerow([name, start, start + int(np.prod(shape)), str(shape)])
            start += int(np.prod(shape))
    write_metrics(folder, compressed)
    return weights


def write_metrics(folder: Path, compressed: bool = True, **changed: dict[int, str]) -> None:
    columns = ["", "step", "test_accuracy", "config.activation", "config.l2reg", "row"]
    lines = []
    for row in range(NETWORKS * len(STEPS)):
        cells = {
            "": str(row),
            "step": str(STEPS[row % 3]),
            "test_accuracy": str(0.1 + row / 100),
            "config.activation": ("relu", "tanh")[row // 3 % 2],
            "config.l2reg": "" if row == 2 else "1e-06",
            "row": "nine",
        }
        lines.append([changed.get(key, {}).get(row, cells[key]) for key in columns])
    opener = gzip.open if compressed else open
    with opener(folder / f"metrics.csv{'.gz' if compressed else ''}", "wt", newline="") as file:
        csv.writer(file).writerows([columns, *lines])


def import_(layout: Layout, out: Path) -> zoo.Zoo:
    return zoo.import_zoo(layout, out, progress=False)


def shorten(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def siren_layers(seed: int, outputs: int = 1) -> list[nn.Linear]:
    torch.manual_seed(seed)
    return [nn.Linear(2, 32), nn.Linear(32, 32), nn.Linear(32, outputs)]


def dws_replica(source: Path, names: list[str]) -> None:
    for seed, name in enumerate(names):
        folder = source / name / "checkpoints"
        folder.mkdir(parents=True)
        state = {}
        for number, layer in enumerate(siren_layers(seed)):
            state[f"seq.{number}.weight"] = layer.weight.detach()
            state[f"seq.{number}.bias"] = layer.bias.detach()
        torch.save(state, folder / "model_final.pth")


NAMES = [f"mnist_png_training_{i % 3}_{i}" for i in range(7)] + [
    f"mnist_png_testing_{i % 3}_{i}" for i in range(3)
]


def dws_splits(path: Path, form: str) -> Path:
    lists = {"train": NAMES[:4], "val": NAMES[4:7], "test": NAMES[7:]}
    paths = {
        split: [f"/home/someone/mnist-inrs/{name}/checkpoints/model_final.pth" for name in names]
        for split, names in lists.items()
    }
    content = {k: {"path": v, "label": ["?"] * len(v)} for k, v in paths.items()}
    path.write_text(json.dumps(content if form == "objects" else paths))
    return path


class Harmful:
    """A pickle of this touches a file when it is opened by an ordinary reader."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path(self.path),)


NFN_FILES = [  # folder, image
    ("randinit_smaller_0s", 44_999),
    ("randinit_smaller_1s", 45_000),
    ("randinit_smaller_1s", 49_999),
    ("randinit_smaller_2s", 50_000),
    ("randinit_smaller_2s", 7),
    ("randinit_smaller_aug0_2s", 7),
    ("randinit_smaller_aug12_2s", 7),
    ("randinit_smaller_aug0_2s", 50_000),
]


def nfn_replica(source: Path, outputs: int = 1) -> None:
    for seed, (folder, image) in enumerate(NFN_FILES):
        (source / folder).mkdir(parents=True, exist_ok=True)
        layers = siren_layers(seed, outputs)
        names = ("net.0.linear", "net.1.linear", "net.2")
        state = {}
        for name, layer in zip(names, layers, strict=True):
            state[f"{name}.weight"] = layer.weight.detach()
            state[f"{name}.bias"] = layer.bias.detach()
        torch.save(state, source / folder / f"net{image}.pth")


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["gmn", "zoo", "import", *arguments])
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as stop:
        cli.main()
    return int(stop.value.code or 0)
