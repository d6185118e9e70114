"""Zoos of random little networks, written in a moment, whose values say where they came from."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import torch
from torch import nn

import converters
from gmn import zoo
from gmn.foundation.files import LOCK, MARKER
from gmn.spec import GraphSpec


@lru_cache
def spec(inputs: int = 2) -> GraphSpec:
    return converters.trace(nn.Linear(inputs, 3), (torch.zeros(1, inputs),))


def states(numbers: range, inputs: int = 2) -> dict[str, torch.Tensor]:
    """Network i has the bias (i, i, i)."""
    return {
        "weight": torch.randn(len(numbers), 3, inputs),
        "bias": torch.tensor(numbers, dtype=torch.float32)[:, None].repeat(1, 3),
    }


def rows(numbers: range) -> list[zoo.store.files.Row]:
    splits = ("train", "train", "val", "test")
    return [
        {"id": f"{i:06d}", "split": splits[i % 4], "loss": i / 8, "kind": "ab"[i % 2]}
        for i in numbers
    ]


def lines(
    folder: Path, shards: int = 3, per_shard: int = 4, first: int = 0, inputs: int = 2
) -> zoo.Zoo:
    """A zoo of `shards` shards; ids and biases count from `first`."""
    size = shards * per_shard
    with zoo.ZooWriter(folder, "lines", size, first, {}) as writer:
        for number in range(shards):
            start = first + number * per_shard
            torch.manual_seed(start)
            part = range(start, start + per_shard)
            extras = {"mask": {"weight": torch.full((per_shard, 3, inputs), number) > 0}}
            name = f"linear-{inputs}"
            writer.write_shard(number, name, spec(inputs), states(part, inputs), rows(part), extras)
        writer.finish(shards, {"remark": "random"})
    return zoo.open(folder)


def contents(folder: Path) -> dict[str, bytes]:
    """All files but the journal of the build and the writer's lock."""
    aside = ("build.jsonl", LOCK, MARKER)
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in aside}
