"""What a run was trained on, so that it goes on with nothing else."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

import torch

from gmn.tasks.batches import SPLITS
from gmn.tasks.task import Task


def identity_of(task: Task) -> dict[str, Any]:
    """Everything that determines the data of a run, as plain values.

    Returns:
        Settings of the task; SHA-256 of the checksums of the population's shards (its weights), of
        the ids in each split and of their targets; versions of the code.
    """
    shards = (shard["sha256"] for shard in task.zoo.manifest["shards"])
    names, index = ("id", "split"), task.zoo.index
    rows = zip(*(index[name].to_pylist() for name in names), strict=True)
    return {
        "task": task.name,
        "settings of the task": task.settings(),
        "weights of the population": _sha256(shard.encode() for shard in shards),
        "splits": _sha256(f"{name}\0{split}\n".encode() for name, split in rows),
        "labels": _sha256(
            part.target.detach().cpu().contiguous().numpy().tobytes()
            for split in SPLITS
            for part in task.split(split)
        ),
        "graph-metanetworks": version("graph-metanetworks"),
        "torch": str(torch.__version__),
    }


def _sha256(parts: Iterable[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()
