"""The Neural Field Arena (Papa et al. 2024): the weights of many fields in one array."""

from __future__ import annotations

import math
import re
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import converters
from gmn.errors import ZooError
from gmn.foundation.arguments import require_path
from gmn.zoo.importing.layout import Architecture, Entry, Layout, Listing, State
from gmn.zoo.importing.layouts.ray_tune import read_json
from gmn.zoo.importing.layouts.sirens import PublishedSiren, siren_state
from gmn.zoo.store.files import Row

FILE = re.compile(r"(?P<set>.+?)[_-](?P<start>\d+)-(?P<stop>\d+)\.(hdf5|h5|npz)")
ORDER = "param_config.json"
IMAGES = {"mnist": (60_000, 70_000), "cifar10": (50_000, 60_000)}  # of training, and all
VALIDATION = 5_000  # images, the last ones of training
KINDS = {"kernel": "weight", "weight": "weight", "bias": "bias"}

Blocks = tuple[tuple[str, tuple[int, ...]], ...]


class NeuralFieldArena(Layout):
    """Files ``{set}_{start}-{stop}.hdf5`` (or ``.npz``) of SIRENs of MNIST and CIFAR10.

    The publication documents that fields are stored as vectors, several sets of fields of the same
    images one after the other, and are fitted in ranges from a start to a stop. It does not
    document the files. Assumed is that

    * a file has the arrays ``params`` (a row per field) and ``labels``, and its name says which
      fields of the set it holds;
    * ``param_config.json`` beside the files lists the names and shapes of the tensors in a row, in
      their order, as pairs; kernels are (inputs, outputs), as Flax has them, and layers numbered;
    * images are counted through the training and then the test images.

    What is not so is refused, or skipped with a reason that says what was expected. Validation is
    on the last 5,000 training images; all fields of an image are in one split.

    Args:
        source: the folder of one set.
        frequency: the factor in the sines, which the files do not say.
    """

    name = "neural-field-arena"
    reference = "Papa et al. 2024, arXiv 2312.10531"

    def __init__(self, source: str | Path, frequency: float) -> None:
        self.source = require_path("source", source)
        self.frequency = frequency
        self._loaded: tuple[Path, Tensor] | None = None

    def configuration(self) -> dict[str, Any]:
        """The frequency."""
        return {"frequency": self.frequency}

    def architecture(self, name: str) -> Architecture:
        """``"siren-2-32-32-1"``, and a coordinate."""
        inputs, *hidden, outputs = (int(text) for text in name.split("-")[1:])
        siren = PublishedSiren(outputs, 0.0, inputs, tuple(hidden), self.frequency)
        return siren, (torch.zeros(1, inputs),)

    def listing(self) -> Listing:
        """All fields by file and row; rows hold ``label``, ``image`` and ``view``."""
        files, architecture = _files(self.source), self._architecture
        entries: list[Entry] = []
        skipped = []
        for path, match in files:
            start, stop = int(match["start"]), int(match["stop"])
            try:
                labels = self._labels(path, stop - start)
            except ValueError as error:
                skipped.append(f"{path.name}: {error}")
                continue
            training, images = IMAGES[_set_of(match)]
            for row, label in enumerate(labels):
                view, image = divmod(start + row, images)
                facts: Row = {"id": f"{image:06d}-{view:02d}", "split": _split(image, training)}
                facts |= {"label": label, "image": image, "view": view}
                name = f"{path.name} row {row}"
                entries.append(Entry(name, architecture, facts, (path, row)))
        _require_distinct(entries)
        rule = "by number of the image: the last 5,000 of training for validation"
        return Listing(tuple(entries), {}, tuple(skipped), rule)

    def read(self, entry: Entry) -> State:
        """One row of the array, cut into tensors of torch's order."""
        vector = self._params(entry.place[0])[entry.place[1]]
        return siren_state(_cut(vector, self._blocks), self._architecture.count("-") - 1)

    def _params(self, path: Path) -> Tensor:
        if self._loaded is None or self._loaded[0] != path:  # rows are asked for file by file
            self._loaded = (path, converters.load_checkpoint(path, key="params")["params"])
        return self._loaded[1]

    def _labels(self, path: Path, count: int) -> list[int]:
        """The labels of a file, whose arrays are of the right shape."""
        params = self._params(path)
        expected = (count, sum(math.prod(shape) for _, shape in self._blocks))
        if tuple(params.shape) != expected:
            raise ValueError(
                f"params has shape {tuple(params.shape)}; by the file's name and {ORDER} it should "
                f"be {expected}"
            )
        labels = converters.load_checkpoint(path, key="labels")["labels"]
        if labels.shape != (count,) or labels.is_floating_point():
            raise ValueError(
                f"labels are {tuple(labels.shape)} of {labels.dtype}, not {count} ints"
            )
        values: list[int] = labels.tolist()
        return values

    @cached_property
    def _blocks(self) -> Blocks:
        """Names and shapes of the tensors in a row."""
        path = self.source / ORDER
        try:
            content = read_json(path)
            blocks = tuple((str(name), tuple(int(n) for n in shape)) for name, shape in content)
        except (ValueError, TypeError) as error:
            raise ZooError(
                f"{path}: {error}; wanted is a list of pairs of a name, such as "
                '"layers_0.kernel", and a shape'
            ) from error
        return blocks

    @cached_property
    def _architecture(self) -> str:
        try:
            size = sum(math.prod(shape) for _, shape in self._blocks)
            state = _cut(torch.zeros(size), self._blocks)
            depth = len(state) // 2
            chain = siren_state(state, depth)
            weights = [chain[f"layer{layer}.weight"] for layer in range(1, depth + 1)]
            widths = [weights[0].shape[1], *(len(weight) for weight in weights)]
            if [weight.shape[1] for weight in weights] != widths[:-1]:
                raise ValueError(f"layers of shapes {[tuple(w.shape) for w in weights]} in a row")
        except ValueError as error:
            raise ZooError(f"{self.source / ORDER}: {error}; only SIRENs are read") from error
        return "-".join(map(str, ("siren", *widths)))


def _files(source: Path) -> list[tuple[Path, re.Match[str]]]:
    """The files of fields by their first field."""
    if not source.is_dir():
        raise ZooError(f"{source} is no folder; give the one into which the archive was unpacked")
    named = ((path, FILE.fullmatch(path.name)) for path in source.iterdir())
    files = [(path, match) for path, match in named if match]
    if not files:
        raise ZooError(f"{source} has no files like mnist_0-10000.hdf5; give the folder of one set")
    sets = {_set_of(match) for _, match in files}
    if len(sets) > 1 or not sets <= IMAGES.keys():
        raise ZooError(
            f"{source} holds fields of {', '.join(sorted(sets))}; give a folder with those of one "
            f"of {', '.join(IMAGES)}"
        )
    return sorted(files, key=lambda item: int(item[1]["start"]))


def _set_of(match: re.Match[str]) -> str:
    return match["set"].lower().partition("_")[0]


def _split(image: int, training: int) -> str:
    return "test" if image >= training else "val" if image >= training - VALIDATION else "train"


def _cut(vector: Tensor, blocks: Blocks) -> State:
    """The tensors of a row.

    Raises:
        ValueError: If one is neither a kernel nor a bias.
    """
    state: State = {}
    parts = vector.split([math.prod(shape) for _, shape in blocks])
    for (name, shape), part in zip(blocks, parts, strict=True):
        stem, _, kind = name.rpartition(".")
        if kind not in KINDS or len(shape) != (1 if kind == "bias" else 2):
            raise ValueError(f"{name} of shape {shape} is neither a kernel nor a bias")
        value = part.reshape(shape)
        state[f"{stem}.{KINDS[kind]}"] = value.T if kind == "kernel" else value
    return state


def _require_distinct(entries: list[Entry]) -> None:
    seen: dict[str, str] = {}
    for entry in entries:
        if (other := seen.setdefault(entry.row["id"], entry.name)) != entry.name:
            raise ZooError(f"{other} and {entry.name} are the same field of the set; remove one")
