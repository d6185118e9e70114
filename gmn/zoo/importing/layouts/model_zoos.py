"""The Model Zoos (Schürholt et al. 2022): folders of Ray Tune with a checkpoint per epoch."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from torch import nn

import converters
from gmn.foundation.arguments import require_path
from gmn.zoo.architectures.activations import activation_name
from gmn.zoo.importing.layout import Architecture, Entry, Layout, Listing, State
from gmn.zoo.importing.layouts.model_zoo_networks import (
    SHAPES,
    ModelZooCNN,
    ResNet18,
    example_image,
)
from gmn.zoo.importing.layouts.ray_tune import find_checkpoints, find_runs, read_json, read_results
from gmn.zoo.importing.layouts.sirens import chain_weights
from gmn.zoo.importing.layouts.splits import read_splits
from gmn.zoo.importing.layouts.tables import RESERVED
from gmn.zoo.seeds import split_of
from gmn.zoo.store.files import Row

LAYERS = ("conv1", "conv2", "conv3", "fc1", "fc2")
MEASURES = {  # of the lines of result.json
    "test_acc": "test_accuracy",
    "train_acc": "train_accuracy",
    "validation_acc": "validation_accuracy",
    "test_loss": "test_loss",
    "train_loss": "train_loss",
    "validation_loss": "validation_loss",
}


class ModelZoos(Layout):
    """Folders ``{run}/checkpoint_{epoch}/checkpoints`` with ``params.json`` and ``result.json``.

    ``params.json`` holds the hyper-parameters of a run, ``result.json`` a line of JSON per epoch
    with ``training_iteration`` and ``test_acc``. Read are the CNN-s (2,464 weights for images of
    one channel, 2,864 for three), the CNN-l (10,853) and the ResNet-18; which one a run has is
    told by the shapes in its first checkpoint that can be read, its activation by the
    hyper-parameter ``model::nlin``.

    The publication documents the folders and the numbers of weights; assumed are the names of the
    hyper-parameter and of the measures (those of Ray Tune and of the README), that layers are
    numbered in the order in which they follow each other, and that a ResNet-18 has torchvision's
    names. What is not so is skipped with a reason that says what was expected.

    Args:
        source: the folder of one zoo, or one above it.
        splits: a JSON file of splits: for each of ``train``, ``val`` and ``test`` the folders of
            its runs. The raw zoos have none; None takes splits of this library's own by run:
            70 % train, 15 % val, 15 % test.
        epoch: which epoch of each run; None for the last one.
        every_epoch: whether to import all epochs; rows tell them apart by ``run`` and ``epoch``.

    Raises:
        ValueError: If both an epoch and all of them are asked for.
    """

    name = "model-zoos"
    reference = "Schürholt et al. 2022, arXiv 2209.14764"

    def __init__(
        self,
        source: str | Path,
        splits: str | Path | None = None,
        epoch: int | None = None,
        every_epoch: bool = False,
    ) -> None:
        if epoch is not None and every_epoch:
            raise ValueError("give either an epoch or every_epoch, not both")
        self.source = require_path("source", source)
        self.splits = None if splits is None else require_path("splits", splits)
        self.epoch = epoch
        self.every_epoch = every_epoch

    def configuration(self) -> dict[str, Any]:
        """Which epochs are wanted, and whether there is a file of splits."""
        epochs = "every" if self.every_epoch else "last" if self.epoch is None else self.epoch
        return {"epochs": epochs, "splits_given": self.splits is not None}

    def architecture(self, name: str) -> Architecture:
        """``"cnn-s-1-tanh"``, ``"cnn-l-3-gelu"`` or ``"resnet18-3-10-64"``, and an image."""
        module: nn.Module
        if name.startswith("resnet18-"):
            channels, classes, width = (int(text) for text in name.split("-")[1:])
            module = ResNet18(channels, classes, width)
        else:
            kind, size, of_images, activation = name.split("-", 3)
            module = ModelZooCNN(f"{kind}-{size}", int(of_images), activation)
        return module, (example_image(module),)

    def listing(self) -> Listing:
        """All networks by run and epoch; rows hold hyper-parameters and measures."""
        runs = find_runs(self.source)
        entries: list[Entry] = []
        skipped: list[str] = []
        unwanted = 0
        chosen, absent = self._splits(runs)
        for run in sorted(runs.keys() & chosen.keys()):
            checkpoints = find_checkpoints(runs[run])
            wanted = self._wanted(checkpoints)
            unwanted += len(checkpoints) - len(wanted)
            try:
                new, problems = _entries(run, runs[run], wanted, chosen[run])
            except ValueError as error:
                new, problems = [], [f"{run}: {error}"]
            entries += new
            skipped += problems
        left_out = {"at other epochs": unwanted} if unwanted else {}
        if unlisted := len(runs.keys() - chosen.keys()):
            left_out["runs in no split of the file of splits"] = unlisted
        own = "this library's own, by run: 70 % train, 15 % val, 15 % test"
        rule = own if self.splits is None else "file of splits"
        return Listing(tuple(entries), left_out, (*absent, *skipped), rule)

    def read(self, entry: Entry) -> State:
        """Reads one file; code in it never runs."""
        state = converters.load_checkpoint(entry.place[0])
        if entry.architecture.startswith("resnet18-"):
            return _without_prefix(state)
        return _cnn_state(state)

    def _splits(self, runs: dict[str, Path]) -> tuple[dict[str, str], list[str]]:
        """The split of each run, and runs of the file that are not there."""
        if self.splits is None:
            return {run: split_of(0, run) for run in runs}, []

        def run_in(path: str) -> str | None:
            runs_of_path = (part for part in Path(path).parts if part in runs)
            return next(runs_of_path, None) or Path(path).name or None

        chosen = read_splits(self.splits, run_in, "a run")
        missing = sorted(chosen.keys() - runs.keys())
        return chosen, [f"{run}: in the file of splits, but no such run" for run in missing]

    def _wanted(self, checkpoints: dict[int, Path]) -> dict[int, Path]:
        if self.every_epoch or not checkpoints:
            return checkpoints
        epoch = max(checkpoints) if self.epoch is None else self.epoch
        return {e: path for e, path in checkpoints.items() if e == epoch}


def _entries(
    run: str, folder: Path, wanted: dict[int, Path], split: str
) -> tuple[list[Entry], list[str]]:
    """The networks of a run, and those that lack their measures.

    Raises:
        ValueError: If the run lacks what all its networks need.
    """
    if not wanted:
        raise ValueError("it has no checkpoint of the wanted epoch")
    params = read_json(folder / "params.json")
    if not isinstance(params, dict):
        raise ValueError("params.json holds no object")
    lines = read_results(folder / "result.json")
    architecture = _architecture(params, list(wanted.values()))
    settings = {k: v for k, v in params.items() if isinstance(v, str) or _is_number(v)}
    hyper = {f"published_{k}" if k in RESERVED else k: value for k, value in settings.items()}
    entries, skipped = [], []
    for epoch, path in sorted(wanted.items()):
        name = f"{run}/{path.parent.name}/{path.name}"
        try:
            measures = _measures(lines, epoch)
        except ValueError as error:
            skipped.append(f"{name}: {error}")
            continue
        row: Row = hyper | {"id": f"{run}-{epoch:03d}", "split": split, "run": run, "epoch": epoch}
        entries.append(Entry(name, architecture, row | measures, (path, 0)))
    return entries, skipped


def _measures(lines: dict[int, dict[str, Any]], epoch: int) -> Row:
    """Accuracies and losses of an epoch.

    Raises:
        ValueError: If there is no test accuracy.
    """
    if epoch not in lines:
        raise ValueError(f"result.json has no line with training_iteration {epoch}")
    line = lines[epoch]
    if "test_acc" not in line:
        raise ValueError(f"result.json has no test_acc; it has {', '.join(sorted(line)[:8])}")
    accuracy = line["test_acc"]
    if not isinstance(accuracy, (int, float)) or not 0 <= accuracy <= 1:
        raise ValueError(f"its test_acc is {accuracy!r}, no share of 1")
    measures = {MEASURES[k]: v for k, v in line.items() if k in MEASURES}
    return {name: float(v) for name, v in measures.items() if _is_number(v)}


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _architecture(params: dict[str, Any], checkpoints: list[Path]) -> str:
    """The name of the network of a run, by the first of its files that can be read."""
    problem = ""
    for path in checkpoints:
        try:
            state = converters.load_checkpoint(path)
        except ValueError as error:
            problem = problem or str(error)
            continue
        if any(name.endswith("layer4.1.conv2.weight") for name in state):
            return _resnet_name(_without_prefix(state))
        return _cnn_name(_cnn_state(state), params)
    raise ValueError(problem)


def _resnet_name(state: State) -> str:
    width, channels = state["conv1.weight"].shape[:2]
    return f"resnet18-{channels}-{len(state['fc.weight'])}-{width}"


def _cnn_name(state: State, params: dict[str, Any]) -> str:
    convolutions = [state[f"conv{layer}.weight"] for layer in (1, 2, 3)]
    shapes = tuple((len(weight), weight.shape[-1]) for weight in convolutions)
    size = next((size for size, known in SHAPES.items() if known[:3] == shapes), None)
    if size is None:
        raise ValueError(
            f"convolutions of (channels, kernel) {shapes}; read are {SHAPES['cnn-s'][:3]} and "
            f"{SHAPES['cnn-l'][:3]}"
        )
    if "model::nlin" not in params:
        raise ValueError(
            f"params.json has no model::nlin, the activation; it has {', '.join(sorted(params))}"
        )
    return f"{size}-{convolutions[0].shape[1]}-{activation_name(params['model::nlin'])}"


def _cnn_state(state: State) -> State:
    """The weights of a chain of three convolutions and two linear layers."""
    layers = chain_weights(state)
    ranks = [weight.ndim for weight, _ in layers]
    if ranks != [4, 4, 4, 2, 2]:
        raise ValueError(
            f"layers of weights of {ranks} dimensions; wanted are three convolutions and two "
            "linear layers, or a ResNet-18 with torchvision's names"
        )
    result: State = {}
    for name, (weight, bias) in zip(LAYERS, layers, strict=True):
        result |= {f"{name}.weight": weight, f"{name}.bias": bias}
    return result


def _without_prefix(state: State) -> State:
    """A ResNet's weights without what stands before all names.

    Raises:
        ValueError: If there is no layer ``fc``, or none ``conv1``.
    """
    prefix = next((n.removesuffix("fc.weight") for n in state if n.endswith("fc.weight")), None)
    if prefix is None or f"{prefix}conv1.weight" not in state:
        raise ValueError("a ResNet without the layers conv1 and fc; torchvision's names are read")
    return {name.removeprefix(prefix): value for name, value in state.items()}
