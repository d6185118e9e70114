"""The vision half of the Small Transformer Zoo (Tran et al. 2025): MNIST in patches."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import torch

import converters
from gmn.errors import ZooError
from gmn.foundation.arguments import require_path
from gmn.zoo.architectures.transformers import WIDTH, SmallTransformer
from gmn.zoo.importing.layout import Architecture, Entry, Layout, Listing, State
from gmn.zoo.importing.layouts.sirens import by_numbers
from gmn.zoo.importing.layouts.tables import columns, read_table
from gmn.zoo.seeds import split_of
from gmn.zoo.store.files import Row

FILE = re.compile(r"(?P<run>.+)_(?P<epoch>\d+)_(?P<accuracy>\d+)\.pt")
ATTENTION = ("queries", "keys", "values", "out_projection")
NONE = torch.zeros(())


class SmallTransformerZoo(Layout):
    """Files ``{run}_{epoch}_{accuracy}.pt`` of MNIST; the accuracy in hundredths of a percent.

    The names of layers end in ``queries``, ``keys``, ``values``, ``out_projection``, ``fc1`` and
    ``fc2``; whatever stands before tells the blocks apart. The networks of AG-News lack their
    embedding and are not read.

    Args:
        source: the folder ``MNIST-Transformers/mnist``.
        metadata: the published table ``mnist.csv`` of hyper-parameters, whose column
            ``ckpt_file`` names the files; None does without.
        epoch: which checkpoint of each run; the publication's experiments are on 75.
    """

    name = "small-transformer-zoo"
    reference = "Tran et al. 2025, arXiv 2410.04209"

    def __init__(
        self, source: str | Path, metadata: str | Path | None = None, epoch: int = 75
    ) -> None:
        self.source = require_path("source", source)
        self.metadata = None if metadata is None else require_path("metadata", metadata)
        self.epoch = epoch

    def configuration(self) -> dict[str, Any]:
        """The epoch, and whether there is a table of hyper-parameters."""
        return {"epoch": self.epoch, "metadata": self.metadata is not None}

    def architecture(self, name: str) -> Architecture:
        """The one architecture, and an image."""
        return SmallTransformer(), (torch.zeros(1, 1, 28, 28),)

    def listing(self) -> Listing:
        """All networks by file; rows hold ``run``, ``epoch``, ``test_accuracy`` and the table."""
        if not self.source.is_dir():
            raise ZooError(f"{self.source} is no folder; give MNIST-Transformers/mnist itself")
        table = None if self.metadata is None else _read_metadata(self.metadata)
        entries, skipped, left_out = [], [], Counter[str]()
        for path in sorted(self.source.glob("*.pt")):
            match = FILE.fullmatch(path.name)
            if match is None:
                left_out["not named run_epoch_accuracy.pt"] += 1
            elif int(match["epoch"]) != self.epoch:
                left_out[f"not at epoch {self.epoch}"] += 1
            elif int(match["accuracy"]) > 10_000:
                skipped.append(f"{path.name}: its name claims an accuracy above 100 %")
            elif table is not None and path.name not in table:
                skipped.append(f"{path.name}: {self.metadata} has no row of it")
            else:
                more = {} if table is None else table[path.name]
                entries.append(Entry(path.name, "small-transformer", _row(match, more), (path, 0)))
        rule = "this library's own, by run: 70 % train, 15 % val, 15 % test"
        return Listing(tuple(entries), dict(left_out), tuple(skipped), rule)

    def read(self, entry: Entry) -> State:
        """Reads one file; code in it never runs."""
        return _rename(converters.load_checkpoint(entry.place[0]))


def _read_metadata(path: Path) -> dict[str, dict[str, str]]:
    table = read_table(path)
    if not table or "ckpt_file" not in table[0]:
        raise ZooError(f"{path} has no column ckpt_file; give the published metadata/mnist.csv")
    return {Path(line["ckpt_file"] or "").name: line for line in table}


def _row(match: re.Match[str], metadata: dict[str, str]) -> Row:
    return columns(metadata) | {
        "id": f"{match['run']}-{int(match['epoch']):03d}",
        "split": split_of(0, match["run"]),  # all checkpoints of a run in one split
        "run": match["run"],
        "epoch": int(match["epoch"]),
        "test_accuracy": int(match["accuracy"]) / 10_000,
    }


def _rename(state: State) -> State:
    """Published weights under the names of :class:`.SmallTransformer`.

    Raises:
        ValueError: If there are not two blocks, one embedding and one classifier.
    """
    layers: dict[str, State] = {}
    for name in sorted(state, key=by_numbers):
        stem, _, kind = name.rpartition(".")
        layers.setdefault(stem, {})[kind] = state[name]
    patches = [stem for stem, layer in layers.items() if layer.get("weight", NONE).ndim == 4]
    if len(patches) != 1:
        raise ValueError(
            f"{len(patches)} convolutions that embed patches, not one; networks of AG-News come "
            "without their embedding and are not read"
        )
    targets = {patches[0]: "embedding"}
    for kind in ATTENTION:
        targets |= _blocks(kind, [stem for stem in layers if _last(stem) == kind])
    for kind in ("fc1", "fc2"):
        # The classifier's layers have the same names; those of blocks are 64 wide inside.
        stems = [stem for stem in layers if _last(stem) == kind]
        wide = [s for s in stems if 2 * WIDTH in layers[s].get("weight", NONE).shape]
        targets |= _blocks(kind, wide)
        classifier = [stem for stem in stems if stem not in wide]
        if len(classifier) != 1:
            raise ValueError(f"{len(classifier)} layers called {kind} in the classifier, not 1")
        targets[classifier[0]] = kind
    return {
        f"{targets.get(stem, stem)}.{kind}": value
        for stem, layer in layers.items()
        for kind, value in layer.items()
    }


def _last(stem: str) -> str:
    return stem.rpartition(".")[2]


def _blocks(kind: str, stems: list[str]) -> dict[str, str]:
    if len(stems) != 2:
        raise ValueError(f"{len(stems)} layers called {kind} in blocks, not 2")
    return {stem: f"block{block}.{kind}" for block, stem in enumerate(stems, start=1)}
