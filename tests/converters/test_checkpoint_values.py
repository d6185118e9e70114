"""What a checkpoint holds beside its tensors."""

from __future__ import annotations

import argparse
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import converters

CONTENT = {
    "state_dict": nn.Linear(2, 3).state_dict(),
    "epoch": 7,
    "accuracy": np.float64(0.625),
    "count": np.int32(-3),
    "losses": [0.5, np.float32(0.25), torch.tensor(2.0)],
    "args": argparse.Namespace(lr=0.1, widths=(4, 8), act=nn.GELU, resume=None, flag=True),
    "config": OrderedDict([("skip", [None, 0]), ("name", "wild")]),
    "history": torch.zeros(5),
}
PLAIN: dict[str, Any] = {
    "epoch": 7,
    "accuracy": 0.625,
    "count": -3,
    "losses": [0.5, 0.25, 2.0],
    "config": {"skip": [None, 0], "name": "wild"},
}


@pytest.mark.parametrize("old", [False, True])
def test_values_of_torch_files(tmp_path: Path, old: bool) -> None:
    path = tmp_path / "a.pt"
    torch.save(CONTENT, path, _use_new_zipfile_serialization=not old)
    found = converters.read_values(path)
    args = found.pop("args")
    assert args.pop("act").endswith("GELU")
    assert args == {"lr": 0.1, "widths": [4, 8], "resume": None, "flag": True}
    assert found == PLAIN  # neither weights nor a history


@pytest.mark.parametrize("protocol", range(6))
def test_values_of_pickles(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "a.pkl"
    content = {"accuracy": np.float64(0.625), "weight": np.zeros((2, 2)), "n": [np.int64(2)]}
    path.write_bytes(pickle.dumps(content, protocol))
    if protocol < 2:  # text, as no checkpoint is written
        with pytest.raises(converters.CheckpointError):
            converters.read_values(path)
    else:
        assert converters.read_values(path) == {"accuracy": 0.625, "n": [2]}


def test_metadata_of_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file({"w": torch.zeros(2)}, path, metadata={"lr": "0.1"})
    assert converters.read_values(path) == {"lr": "0.1"}
    save_file({"w": torch.zeros(2)}, path)
    assert converters.read_values(path) == {}


def test_nodes_within_themselves_and_nodes_of_many_references(tmp_path: Path) -> None:
    loop: dict[str, Any] = {"a": 1}
    loop["loop"] = loop
    tower: list[Any] = [1]
    for _ in range(40):
        tower = [tower, tower]  # 2 ** 40 paths
    deep: dict[str, Any] = {"end": 1}
    for _ in range(100):
        deep = {"next": deep}
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps({"loop": loop, "tower": tower, "deep": deep}))
    found = converters.read_values(path)
    assert found["loop"] == {"a": 1}
    assert found["tower"][0] is found["tower"][1]


class Harmful:
    """A pickle of this touches a file when it is opened by an ordinary reader."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_code_never_runs(tmp_path: Path) -> None:
    torch.save({"epoch": 1, "x": Harmful(tmp_path / "ran")}, tmp_path / "a.pt")
    assert converters.read_values(tmp_path / "a.pt")["epoch"] == 1
    assert not (tmp_path / "ran").exists()


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    torch.save(CONTENT, tmp_path / "a.pt")
    (tmp_path / "a.pt").write_bytes((tmp_path / "a.pt").read_bytes()[:300])
    for name in ("a.pt", "gone.pt"):
        with pytest.raises(converters.CheckpointError, match=name):
            converters.read_values(tmp_path / name)
