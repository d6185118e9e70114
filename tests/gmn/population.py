"""A small zoo whose accuracies are a known function of the weights; made in a moment."""

from __future__ import annotations

import shutil
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

import converters
from gmn import zoo
from gmn.zoo.architectures.networks import network

ARCHITECTURES = ("cnn-relu", "cnn-tanh")
PER_ARCHITECTURE = 40


def small_zoo(folder: Path) -> zoo.Zoo:
    """Random networks; "accuracy" grows with the spread of the last convolution's weights."""
    shutil.copytree(_written().name, folder, dirs_exist_ok=True)
    return zoo.open(folder)


@cache
def _written() -> TemporaryDirectory[str]:
    """Once per process; removed when it ends."""
    folder = TemporaryDirectory()
    with zoo.ZooWriter(
        folder.name, "made-up", len(ARCHITECTURES) * PER_ARCHITECTURE, 0, {}
    ) as writer:
        for shard, architecture in enumerate(ARCHITECTURES):
            spec = converters.trace(network(architecture), (torch.zeros(1, 1, 8, 8),))
            states, rows = [], []
            for number in range(PER_ARCHITECTURE):
                torch.manual_seed(1000 * shard + number)
                model, scale = network(architecture), float(torch.rand(()))
                state = model.state_dict()
                state["conv3.weight"] *= 0.5 + 3 * scale
                states.append(state)
                rows.append(
                    {
                        "id": f"{shard}-{number}",
                        "split": ("train", "train", "train", "val", "test")[number % 5],
                        "test_accuracy": 0.1 + 0.8 * scale,
                        "steps": 10 + number,
                    }
                )
            stacked = {name: torch.stack([s[name] for s in states]) for name in states[0]}
            writer.write_shard(shard, architecture, spec, stacked, rows)
        writer.finish(len(ARCHITECTURES), {})
    return folder
