"""A small zoo whose accuracies are a known function of the weights; made in a moment."""

from __future__ import annotations

import json
from pathlib import Path

import torch

import converters
from gmn import zoo
from gmn.zoo.networks import network
from gmn.zoo.store import ZooWriter

ARCHITECTURES = ("cnn-relu", "cnn-tanh")
PER_ARCHITECTURE = 40


def small_zoo(folder: Path) -> zoo.Zoo:
    """Random networks; "accuracy" grows with the spread of the last convolution's weights."""
    writer = ZooWriter(folder, "made-up", len(ARCHITECTURES) * PER_ARCHITECTURE, 0, {})
    specs = {}
    for shard, architecture in enumerate(ARCHITECTURES):
        example = torch.zeros(1, 1, 8, 8)
        specs[architecture] = json.loads(
            converters.trace(network(architecture), (example,)).to_json()
        )
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
                    "seconds": 0.0,
                }
            )
        stacked = {name: torch.stack([s[name] for s in states]) for name in states[0]}
        writer.write_shard(shard, architecture, stacked, rows)
    rows = writer.collect_rows(len(ARCHITECTURES))
    writer.finish(len(ARCHITECTURES), rows, specs, {})
    return zoo.open(folder)
