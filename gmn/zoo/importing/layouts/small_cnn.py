"""The Small CNN Zoo (Unterthiner et al. 2020): all weights of all steps in one array."""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gmn.errors import ZooError
from gmn.foundation.arguments import require_one_of, require_path
from gmn.zoo.architectures.networks import ACTIVATIONS, SmallCNN
from gmn.zoo.importing.layout import Architecture, Entry, Layout, Listing, State
from gmn.zoo.importing.layouts.tables import columns, read_table
from gmn.zoo.seeds import split_of

LAYERS = ("conv1", "conv2", "conv3", "head")


@dataclass(frozen=True)
class _Block:
    """Where one tensor lies in a row of the array.

    Attributes:
        name: its key in the state dict of :class:`gmn.zoo.architectures.networks.SmallCNN`.
        start: first position.
        shape: its shape in Keras' order.
    """

    name: str
    start: int
    shape: tuple[int, ...]

    def take(self, row: np.ndarray) -> Tensor:
        """The tensor in torch's order: kernels come as (height, width, in, out) or (in, out)."""
        values = row[self.start : self.start + math.prod(self.shape)].reshape(self.shape)
        axes = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}[len(self.shape)]
        return torch.from_numpy(np.ascontiguousarray(values.transpose(axes)))


class SmallCnnZoo(Layout):
    """A folder of ``weights.npy``, ``metrics.csv`` or ``metrics.csv.gz``, and ``layout.csv``.

    ``weights.npy`` has shape (N, 4970); row n of the metrics is about row n of the weights. Only
    the last training step of the file is imported. Images are 32 × 32, of one channel, and not
    padded, as is the default of Keras; the published files do not say.

    Args:
        source: the folder of one image set.
        splits: the published file ``..._split.csv`` of the order of rows. With it, as in NFN: of
            the networks that are wanted, in that order, the second half is for testing; of the
            first half, shuffled, four fifths are for training. None for splits of this library's
            own: 70 % training, 15 % validation, by row number.
        activation: import only networks with ``"relu"`` or ``"tanh"``; None for both.

    Raises:
        ValueError: If the activation is unknown.
    """

    name = "small-cnn-zoo"
    reference = "Unterthiner et al. 2020, arXiv 2002.11448"

    def __init__(
        self, source: str | Path, splits: str | Path | None = None, activation: str | None = None
    ) -> None:
        if activation is not None:
            require_one_of("activation", activation, sorted(ACTIVATIONS))
        self.source = require_path("source", source)
        self.splits = None if splits is None else require_path("splits", splits)
        self.activation = activation

    def configuration(self) -> dict[str, Any]:
        """Which activation is wanted, and whether the published order of rows is used."""
        return {"activation": self.activation, "published_splits": self.splits is not None}

    def architecture(self, name: str) -> Architecture:
        """``"keras-cnn-relu"`` or ``"keras-cnn-tanh"``, and an image."""
        return _keras_cnn(name.removeprefix("keras-cnn-")), (torch.zeros(1, 1, 32, 32),)

    def listing(self) -> Listing:
        """The networks at the last step; rows hold all columns of the metrics."""
        metrics = _read_metrics(self.source)
        self._require_same_length(metrics)
        assert self._blocks  # a layout that does not fit is an error, not 270,000 skipped networks
        last = max(_number(row, "step", position) for position, row in enumerate(metrics))
        wanted: list[int] = []
        left_out: Counter[str] = Counter()
        for position in self._order(len(metrics)):
            reason = self._unwanted(metrics[position], last, position)
            if reason:
                left_out[reason] += 1
            else:
                wanted.append(position)
        splits = self._split(wanted)
        entries, skipped = [], []
        for position in sorted(wanted):
            row = {"id": f"{position:06d}", "split": splits[position], **columns(metrics[position])}
            name = f"{self._weights_file.name} row {position}"
            if isinstance(row.get("test_accuracy"), float):
                architecture = f"keras-cnn-{metrics[position]['config.activation']}"
                entries.append(Entry(name, architecture, row, (self._weights_file, position)))
            else:
                skipped.append(f"{name}: its test_accuracy is no finite number")
        return Listing(tuple(entries), dict(left_out), tuple(skipped), self._rule)

    def read(self, entry: Entry) -> State:
        """One row of the array, cut into tensors of torch's order."""
        row = np.array(self._weights[entry.place[1]])
        return {block.name: block.take(row) for block in self._blocks}

    @property
    def _weights_file(self) -> Path:
        return self.source / "weights.npy"

    @property
    def _rule(self) -> str:
        if self.splits is None:
            return "this library's own, by row number: 70 % train, 15 % val, 15 % test"
        return "published order of rows; wanted networks: second half test, first half 80/20"

    @cached_property
    def _weights(self) -> np.ndarray:
        """The array, mapped: it is larger than memory."""
        path = self._weights_file
        try:
            array: np.ndarray = np.lib.format.open_memmap(path, mode="r")
        except OSError as error:
            raise ZooError(f"{path}: {error.strerror or error}; unpack the archive again") from None
        except ValueError as error:
            raise ZooError(f"{path} is truncated or damaged ({error}); unpack it again") from error
        if array.ndim != 2 or array.dtype.kind != "f":
            raise ZooError(f"{path} has shape {array.shape} of {array.dtype}, not (N, 4970) floats")
        return array

    def _require_same_length(self, metrics: list[dict[str, str]]) -> None:
        if len(metrics) != len(self._weights):
            raise ZooError(
                f"{self.source}: weights.npy has {len(self._weights)} rows, but the metrics have "
                f"{len(metrics)}; one of the two files is truncated, unpack both again"
            )

    @cached_property
    def _blocks(self) -> list[_Block]:
        """The tensors of a row, by layer."""
        path = self.source / "layout.csv"
        blocks = _read_layout(path, self._weights.shape[1])
        wanted = {k: tuple(v.shape) for k, v in _keras_cnn("relu").state_dict().items()}
        for block in blocks:
            shape = tuple(block.take(np.zeros(self._weights.shape[1], np.float32)).shape)
            if shape != wanted.get(block.name):
                raise ZooError(
                    f"{path}: {block.name} has shape {shape} in torch's order, not "
                    f"{wanted.get(block.name)}; only nets 1-16-16-16-10 are read"
                )
        if len(blocks) != len(wanted):
            raise ZooError(f"{path} has {len(blocks)} tensors, not {len(wanted)}")
        return blocks

    def _order(self, rows: int) -> list[int]:
        return list(range(rows)) if self.splits is None else _read_order(self.splits, rows)

    def _unwanted(self, row: dict[str, str], last: float, position: int) -> str | None:
        """Why a row is left out, if it is."""
        activation = row.get("config.activation")
        if _number(row, "step", position) != last:
            return f"not at the last step, {last:g}"
        if activation not in ACTIVATIONS:
            return f"activation {activation}, which is not read"
        if self.activation not in (None, activation):
            return f"activation {activation}, not {self.activation}"
        return None

    def _split(self, wanted: list[int]) -> dict[int, str]:
        """The split of each wanted row; ``wanted`` is in the published order."""
        if self.splits is None:
            return {position: split_of(0, position) for position in wanted}
        half = len(wanted) // 2
        first = wanted[:half]
        random.Random(0).shuffle(first)
        train = int(0.8 * half)
        result = dict.fromkeys(first[:train], "train") | dict.fromkeys(first[train:], "val")
        return result | dict.fromkeys(wanted[half:], "test")


def _keras_cnn(activation: str) -> SmallCNN:
    return SmallCNN(activation, padding=0)


def _read_metrics(source: Path) -> list[dict[str, str]]:
    names = ("metrics.csv", "metrics.csv.gz")
    path = next((source / name for name in names if (source / name).is_file()), None)
    if path is None:
        raise ZooError(
            f"{source} has no metrics.csv or metrics.csv.gz; give the folder of one image set of "
            "the Small CNN Zoo"
        )
    table = read_table(path)
    if not table:
        raise ZooError(f"{path} has no rows; unpack the archive again")
    for column in ("step", "test_accuracy", "config.activation"):
        if column not in table[0]:
            raise ZooError(f"{path} has no column {column!r}; it has {', '.join(table[0])}")
    return table


def _read_layout(path: Path, width: int) -> list[_Block]:
    """The tensors of a row; layers are numbered by where they start."""
    by_stem: dict[str, list[tuple[str, int, tuple[int, ...]]]] = {}
    try:
        lines = [
            (
                line["varname"],
                int(line["start_idx"]),
                int(line["end_idx"]),
                tuple(map(int, re.findall(r"\d+", line["shape"]))),
            )
            for line in read_table(path)
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise ZooError(
            f"{path} is damaged ({error!r}); unpack the archive again: wanted are columns varname, "
            "start_idx, end_idx and shape"
        ) from error
    for name, start, end, shape in sorted(lines, key=lambda line: line[1]):
        stem, _, kind = name.rpartition("/")
        stop = start + math.prod(shape)
        if end not in (stop, stop - 1) or stop > width or len(shape) not in (1, 2, 4):
            raise ZooError(
                f"{path}: {name} of shape {shape} does not fit into {start}..{end} of {width} "
                "numbers; is it the layout of these weights?"
            )
        if kind not in ("kernel:0", "bias:0"):
            raise ZooError(f"{path}: {name} ends neither in kernel:0 nor in bias:0")
        by_stem.setdefault(stem, []).append((kind, start, shape))
    if len(by_stem) != len(LAYERS):
        raise ZooError(f"{path} has {len(by_stem)} layers, not {len(LAYERS)}: {', '.join(by_stem)}")
    names = {"kernel:0": "weight", "bias:0": "bias"}
    return [
        _Block(f"{layer}.{names[kind]}", start, shape)
        for layer, tensors in zip(LAYERS, by_stem.values(), strict=True)
        for kind, start, shape in tensors
    ]


def _read_order(path: Path, rows: int) -> list[int]:
    """The published order of all rows: one number a line, under a header that reads 0."""
    try:
        order = [int(line) for line in path.read_text().split()]
    except OSError as error:
        raise ZooError(f"{path}: {error.strerror or error}") from error
    except ValueError as error:
        raise ZooError(f"{path} is no order of rows, one number a line: {error}") from error
    if len(order) == rows + 1 and order[0] == 0:
        order = order[1:]
    if sorted(order) != list(range(rows)):
        raise ZooError(
            f"{path} does not order the {rows} rows of these weights: it has {len(order)} "
            "numbers, or some twice; is it of another image set?"
        )
    return order


def _number(row: dict[str, str], column: str, position: int) -> float:
    try:
        return float(row[column])
    except (TypeError, ValueError):
        raise ZooError(f"row {position} of the metrics has {column} = {row[column]!r}") from None
