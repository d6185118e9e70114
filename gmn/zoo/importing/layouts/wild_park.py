"""The CNN Wild Park (Kofinas et al. 2024): CNNs of many architectures, a file per checkpoint."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

import converters
from gmn.errors import ZooError
from gmn.zoo.architectures.activations import activation_name
from gmn.zoo.architectures.wild_network import WildCNN, WildLayer
from gmn.zoo.importing.layout import Architecture, Entry, Listing, State
from gmn.zoo.importing.layouts.ray_tune import read_json
from gmn.zoo.importing.layouts.sirens import chain_weights
from gmn.zoo.importing.layouts.splits import SplitLayout, read_splits
from gmn.zoo.seeds import split_of

ENDINGS = (".pt", ".pth")
CONFIGURATIONS = ("config.json", "params.json")
ACCURACY = ("test_acc", "test_accuracy")
ACTIVATIONS = ("activations", "activation")
SKIPS = ("residuals", "skips", "skip_connections")

Layers = tuple[tuple[tuple[Tensor, Tensor], ...], tuple[Tensor, Tensor]]


class CnnWildPark(SplitLayout):
    """Folders of runs with a file of PyTorch per checkpoint.

    The publication documents the networks: up to five convolutions of 4 to 32 channels and kernels
    of 3, 5 or 7, activations per layer, and skip connections that add the first channels of two
    layers. It does not document the files. Assumed is that

    * a checkpoint is ``{run}/{...}{step}.pt`` or ``{run}/{...}{step}/checkpoint.pt``, where the
      step is the last number in the name;
    * it holds a state dict of convolutions, numbered in their order, and one linear layer after
      global average pooling;
    * ``test_acc`` or ``test_accuracy``, ``activations`` and ``residuals`` (or ``skips``,
      ``skip_connections``) are in the file, there in a ``config``, or in ``config.json`` or
      ``params.json`` of the run;
    * activations are a list with a name per convolution; residuals a list that has, for every
      convolution, None or -1, or the layer whose output is added before its activation, where
      layer 0 is the image and 1 the first convolution.

    What is not so is skipped with a reason that says what was expected and what was found.

    Args:
        source: the folder into which the archive was unpacked.
        splits: the published JSON file of splits: for each of ``train``, ``val`` and ``test`` a
            list of paths that name runs, or an object with it under ``path``. None takes splits of
            this library's own by run: 70 % train, 15 % val, 15 % test.
    """

    name = "cnn-wild-park"
    reference = "Kofinas et al. 2024, arXiv 2403.12143"

    def architecture(self, name: str) -> Architecture:
        """The network of a name such as ``"3/16k3-relu/8k5-tanh/10"``, and an image."""
        network = WildCNN.of_name(name)
        return network, (torch.zeros(1, int(name.partition("/")[0]), 32, 32),)

    def listing(self) -> Listing:
        """All networks by run and step; rows hold ``run``, ``step`` and ``test_accuracy``."""
        checkpoints, unreadable = _search(self.source)
        chosen, absent = self._splits({run for run, _ in checkpoints})
        entries, skipped, unlisted = [], [*unreadable, *absent], 0
        files = sorted(checkpoints.items())
        for (run, step), path in tqdm(files, "reading settings", unit="file", disable=None):
            name = path.relative_to(self.source).as_posix()
            if run not in chosen:
                unlisted += 1
                continue
            try:
                facts = _facts(path, self.source / run)
                architecture = _architecture(_layers(converters.load_checkpoint(path)), facts)
                accuracy = _accuracy(facts)
            except ValueError as error:
                skipped.append(f"{name}: {error}")
                continue
            row = {"id": f"{run}-{step:06d}", "split": chosen[run], "run": run, "step": step}
            entries.append(Entry(name, architecture, row | {"test_accuracy": accuracy}, (path, 0)))
        own = "this library's own, by run: 70 % train, 15 % val, 15 % test"
        left_out = {"of runs in no split of the published file": unlisted} if unlisted else {}
        rule = own if self.splits is None else "published file of splits"
        return Listing(tuple(entries), left_out, tuple(skipped), rule)

    def read(self, entry: Entry) -> State:
        """Reads one file; code in it never runs."""
        convolutions, head = _layers(converters.load_checkpoint(entry.place[0]))
        state: State = {}
        for layer, (weight, bias) in enumerate(convolutions):
            state |= {f"convs.{layer}.weight": weight, f"convs.{layer}.bias": bias}
        return state | {"head.weight": head[0], "head.bias": head[1]}

    def _splits(self, runs: set[str]) -> tuple[dict[str, str], list[str]]:
        """The split of each run, and runs of the file that are not there."""
        if self.splits is None:
            return {run: split_of(0, run) for run in runs}, []

        def run_in(path: str) -> str | None:
            parts = Path(path).parts
            tails = ("/".join(parts[i:j]) for j in range(len(parts), 0, -1) for i in range(j))
            return next((tail for tail in tails if tail in runs), None) or path or None

        chosen = read_splits(self.splits, run_in, "a run")
        missing = sorted(chosen.keys() - runs)
        return chosen, [
            f"{run}: in the file of splits, but there is no such run" for run in missing
        ]


def _search(source: Path) -> tuple[dict[tuple[str, int], Path], list[str]]:
    """The files by run and step, and those that are neither."""
    if not source.is_dir():
        raise ZooError(f"{source} is no folder; give the one into which the archive was unpacked")
    checkpoints: dict[tuple[str, int], Path] = {}
    unreadable = []
    for path in sorted(path for path in source.rglob("*") if path.suffix in ENDINGS):
        name = path.relative_to(source)
        folder, stem = name.parent, name.stem
        if not re.search(r"\d", stem):
            folder, stem = folder.parent, folder.name
        digits = re.findall(r"\d+", stem)
        if not digits or folder == Path():
            unreadable.append(
                f"{name}: wanted are run/step.pt or run/checkpoint_step/checkpoint.pt"
            )
            continue
        other = checkpoints.setdefault((folder.as_posix(), int(digits[-1])), path)
        if other != path:
            unreadable.append(
                f"{name}: {other.relative_to(source)} is that step of the run already"
            )
    return checkpoints, unreadable


def _facts(path: Path, run: Path) -> dict[str, Any]:
    """Settings and measures of a checkpoint: of its run, of the file, and of its configuration."""
    facts: dict[str, Any] = {}
    for name in CONFIGURATIONS:
        if (run / name).is_file():
            content = read_json(run / name)
            facts |= content if isinstance(content, dict) else {}
    facts |= converters.read_values(path)
    inner = facts.get("config")
    return facts | inner if isinstance(inner, dict) else facts


def _fact(facts: Mapping[str, Any], names: Sequence[str]) -> Any:
    for name in names:
        if name in facts:
            return facts[name]
    known = ", ".join(sorted(facts)[:12]) or "nothing"
    raise ValueError(
        f"there is no {' or '.join(names)} in its file or configuration; it has {known}"
    )


def _accuracy(facts: Mapping[str, Any]) -> float:
    value = _fact(facts, ACCURACY)
    if not isinstance(value, (int, float)) or not 0 <= value <= 1:  # of NaN, too
        raise ValueError(f"its test accuracy is {value!r}, no share of 1")
    return float(value)


def _layers(state: State) -> Layers:
    """Convolutions in their order, and the linear layer.

    Raises:
        ValueError: If there are other layers, or they do not follow one another.
    """
    layers = chain_weights(state)
    convolutions = tuple(layer for layer in layers if layer[0].ndim == 4)
    linear = [layer for layer in layers if layer[0].ndim == 2]
    if len(linear) != 1 or not convolutions or len(layers) != len(convolutions) + 1:
        ranks = [weight.ndim for weight, _ in layers]
        raise ValueError(
            f"layers of weights of {ranks} dimensions; wanted are convolutions and a linear layer"
        )
    widths = [weight.shape[0] for weight, _ in convolutions]
    inputs = [weight.shape[1] for weight, _ in (*convolutions[1:], linear[0])]
    if widths != inputs:
        raise ValueError(
            f"layers have {widths} outputs, but the next have {inputs} inputs; wanted are "
            "convolutions in a chain, global average pooling and a linear layer"
        )
    return convolutions, linear[0]


def _architecture(layers: Layers, facts: Mapping[str, Any]) -> str:
    """The name of the network."""
    weights = [weight for weight, _ in layers[0]]
    activations = _per_layer(facts, ACTIVATIONS, len(weights))
    skips = _per_layer(facts, SKIPS, len(weights))
    chosen = []
    for layer, (weight, act, skip) in enumerate(zip(weights, activations, skips, strict=True)):
        height, width = weight.shape[2:]
        if height != width or height % 2 == 0:
            raise ValueError(f"a kernel of {height} × {width}; wanted are odd squares")
        source = _skip(skip, layer + 1)
        chosen.append(WildLayer(len(weight), height, activation_name(act), source))
    return WildCNN(weights[0].shape[1], tuple(chosen), len(layers[1][0])).name


def _per_layer(facts: Mapping[str, Any], names: Sequence[str], count: int) -> list[Any]:
    value = _fact(facts, names)
    if not isinstance(value, list) or len(value) != count:
        raise ValueError(
            f"its {names[0]} are {value!r}, not a list with one of {count} layers each"
        )
    return value


def _skip(value: Any, layer: int) -> int | None:
    """The layer whose output is added to that of a layer; both count from 1, the image is 0."""
    if value is None or value == -1:
        return None
    if type(value) is not int or not 0 <= value < layer - 1:
        raise ValueError(
            f"layer {layer} has the residual {value!r}, not None, -1 or a layer with at least one "
            "layer in between"
        )
    return value
