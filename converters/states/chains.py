"""Infers a plain chain of layers from the shapes of weights that come without a model."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gmn.foundation.arguments import require_type
from gmn.graph.values import require_tensors

from .checkpoint import CheckpointError

Layers = dict[str, dict[str, Tensor]]

_CONVOLUTIONS: dict[int, type[nn.Module]] = {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}
_NORMS: dict[int, type[nn.Module]] = {
    2: nn.BatchNorm1d,
    3: nn.BatchNorm1d,
    4: nn.BatchNorm2d,
    5: nn.BatchNorm3d,
}
_POOLS: dict[int, type[nn.Module]] = {
    3: nn.AdaptiveAvgPool1d,
    4: nn.AdaptiveAvgPool2d,
    5: nn.AdaptiveAvgPool3d,
}
_KNOWN = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}
_WAY_OUT = "Pass the module that the weights belong to (--model package.module:factory)"


@dataclass(frozen=True)
class Chain:
    """A module that could have these weights, and all that was assumed to build it.

    Attributes:
        module: on the meta device; the names of its state dict are those of the checkpoint.
        inputs: example inputs for :func:`converters.trace`.
        assumptions: what shapes and names do not tell, one sentence each.
    """

    module: nn.Module
    inputs: tuple[Tensor, ...]
    assumptions: tuple[str, ...]

    def __str__(self) -> str:
        lines = ["assumed, since weights alone do not tell:"]
        return "\n".join([*lines, *(f"  - {sentence}" for sentence in self.assumptions)])


class Sine(nn.Module):
    """The activation of SIREN: the sine of ``frequency`` times the input."""

    frequency = 30.0

    def forward(self, x: Tensor) -> Tensor:
        """Elementwise."""
        return torch.sin(self.frequency * x)


class _InOrder(nn.Module):
    """Runs layers in the given order."""

    def __init__(self, layers: Mapping[str, nn.Module], steps: Iterable[nn.Module]) -> None:
        super().__init__()
        for name, layer in layers.items():
            *path, last = name.split(".")
            parent: nn.Module = self
            for part in path:
                if part not in parent._modules:
                    parent.add_module(part, nn.Module())
                parent = parent.get_submodule(part)
            parent.add_module(last, layer)
        self._steps = tuple(steps)  # a tuple registers nothing: the names above stand

    def forward(self, x: Tensor) -> Tensor:
        for step in self._steps:
            x = step(x)
        return x


def infer_chain(state: Mapping[str, Tensor], activation: nn.Module | None = None) -> Chain:
    """Guesses the multilayer perceptron or convolutional network that a state dict belongs to.

    Only plain chains are guessed: linear layers, convolutions and batch norms, each reading the
    one before. Whatever else could have these shapes as well is refused.

    Args:
        state: tensors by name, as :func:`converters.load_checkpoint` gives them.
        activation: between layers; ReLU if None.

    Raises:
        CheckpointError: if the shapes form no chain, or more than one.

    Example:
        >>> import torch.nn as nn, converters
        >>> model = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 1))
        >>> chain = converters.infer_chain(model.state_dict())
        >>> print(chain)
        assumed, since weights alone do not tell:
          - the layers run in the order 0, 2
          - ReLU() follows every layer but the last
    """
    require_tensors("state", state)
    if activation is not None:
        require_type("activation", activation, nn.Module, "a module, such as torch.nn.ReLU()")
    layers = _layers(state)
    order = _order(layers)
    builder = _ChainBuilder(activation if activation is not None else nn.ReLU())
    with torch.device("meta"):
        for name in order:
            builder.add(name, layers[name])
        return builder.chain(order)


def _layers(state: Mapping[str, Tensor]) -> Layers:
    """Entries by the module that they belong to."""
    layers: Layers = {}
    for name, tensor in state.items():
        path, _, last = name.rpartition(".")
        if last not in _KNOWN:
            raise CheckpointError(f"{name} is no entry of a plain chain of layers. {_WAY_OUT}")
        layers.setdefault(path, {})[last] = tensor
    for path, entries in layers.items():
        _check_layer(path, entries)
    if not layers:
        raise CheckpointError(f"there are no weights. {_WAY_OUT}")
    if "" in layers and len(layers) > 1:
        raise CheckpointError(f"weights of the whole beside weights of parts of it. {_WAY_OUT}")
    return layers


def _check_layer(path: str, entries: Mapping[str, Tensor]) -> None:
    weight = entries.get("weight")
    norm = "running_mean" in entries and "running_var" in entries
    dimensions = None if weight is None else weight.dim()
    if norm and dimensions in (None, 1):
        return
    if norm or weight is None or dimensions not in (2, *_CONVOLUTIONS):
        raise CheckpointError(
            f"{path or 'the whole'} is no linear layer, convolution or batch norm, but has "
            f"{', '.join(f'{n} {tuple(t.shape)}' for n, t in entries.items())}: a layer norm, a "
            f"group norm and a PReLU look alike. {_WAY_OUT}"
        )
    if "bias" in entries and entries["bias"].shape != weight.shape[:1]:
        raise CheckpointError(
            f"{path}.bias has {entries['bias'].numel()} entries, the layer {len(weight)} outputs, "
            f"as in a transposed convolution. {_WAY_OUT}"
        )


def _order(layers: Layers) -> list[str]:
    """The order of the layers, by file or by name, whichever the shapes fit.

    A file that has conv3 before conv2 keeps no order: then only that of the names counts.
    """
    by_name, by_file = sorted(layers, key=_natural), list(layers)
    orders = [by_name] if by_name == by_file or not _counts_up(by_file) else [by_file, by_name]
    problems = [_misfit([layers[name] for name in order], order) for order in orders]
    fitting = [order for order, problem in zip(orders, problems, strict=True) if not problem]
    if not fitting:
        raise CheckpointError(f"the layers form no chain: {problems[-1]}. {_WAY_OUT}")
    if len(fitting) > 1:
        raise CheckpointError(
            f"the layers fit in more than one order: {', '.join(fitting[0][:5])} as in the file, "
            f"and {', '.join(fitting[1][:5])} by name. {_WAY_OUT}"
        )
    return fitting[0]


def _counts_up(names: list[str]) -> bool:
    """Whether names that differ by their numbers alone come in the order of these numbers."""
    last: dict[str, list[int]] = {}
    for name in names:
        counters = [int(digits[:18]) for digits in re.findall(r"\d+", name)]
        pattern = re.sub(r"\d+", "0", name)
        if counters < last.get(pattern, []):
            return False
        last[pattern] = counters
    return True


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Sorts layer2 before layer10."""
    parts = re.split(r"(\d+)", name)
    return [(0, int(part[:18]), "") if part.isdecimal() else (1, 0, part) for part in parts]


def _misfit(layers: list[dict[str, Tensor]], names: list[str]) -> str:
    """Where a layer cannot read the one before; empty if nowhere."""
    size, dimensions, before = 0, 0, "the input"
    for entries, name in zip(layers, names, strict=True):
        weight = entries.get("weight", entries.get("running_mean"))
        assert weight is not None
        taken = weight.shape[min(1, weight.dim() - 1)]
        if weight.dim() == 1 and taken != size:
            return f"{before} gives {size}, {name} takes {taken}"
        if weight.dim() > 1:
            if size and not _reads(weight, size, dimensions):
                return f"{before} gives {size}, {name} takes {taken}"
            size, dimensions = weight.shape[0], weight.dim()
        before = name
    return ""


def _reads(weight: Tensor, size: int, dimensions: int) -> bool:
    """Whether a layer can follow one of ``size`` outputs whose weight has so many dimensions."""
    taken = weight.shape[1]
    if weight.dim() == 2:
        return taken == size or (dimensions > 2 and taken % size == 0)
    if weight.dim() != dimensions:
        return False
    groups = size // taken if taken else 0
    return groups > 0 and size % taken == 0 and weight.shape[0] % groups == 0


class _ChainBuilder:
    """Adds layers to the end of a chain."""

    def __init__(self, activation: nn.Module) -> None:
        self._activation = activation
        self._layers: dict[str, nn.Module] = {}
        self._steps: list[nn.Module] = []
        self._assumptions: list[str] = []
        self._first: Tensor | None = None
        self._last: Tensor | None = None

    def add(self, name: str, entries: Mapping[str, Tensor]) -> None:
        weight = entries.get("weight")
        if weight is None or weight.dim() == 1:
            self._append(name, self._norm(name, entries))
            return
        if self._last is not None:
            self._steps.append(self._activation)
        bias = "bias" in entries
        if weight.dim() == 2:
            self._append(name, self._linear(name, weight, bias))
        else:
            self._append(name, self._convolution(name, weight, bias))
        self._first, self._last = weight if self._first is None else self._first, weight

    def chain(self, order: list[str]) -> Chain:
        assert self._first is not None
        sentences = [
            f"the layers run in the order {', '.join(name or 'of one' for name in order)}"
            if len(order) > 1
            else "the layer is all there is",
            *self._assumptions,
        ]
        if self._activation in self._steps:
            sentences.append(f"{self._activation!r} follows every layer but the last")
        if self._first.dim() == 2:
            inputs = torch.zeros(2, self._first.shape[1])
        else:
            side = [2 * size + 6 for size in self._first.shape[2:]]
            inputs = torch.zeros(2, self._first.shape[1], *side)
        whole = self._layers[""] if "" in self._layers else _InOrder(self._layers, self._steps)
        return Chain(whole.eval(), (inputs,), tuple(sentences))

    def _append(self, name: str, layer: nn.Module) -> None:
        self._layers[name] = layer
        self._steps.append(layer)

    def _norm(self, name: str, entries: Mapping[str, Tensor]) -> nn.Module:
        assert self._last is not None
        kind = _NORMS[self._last.dim()]
        self._assumptions.append(f"{name} normalises before the activation")
        layer = kind(len(entries["running_mean"]), affine="weight" in entries)
        if "num_batches_tracked" not in entries:
            layer.register_buffer("num_batches_tracked", None)
        return layer

    def _linear(self, name: str, weight: Tensor, bias: bool) -> nn.Module:
        if self._last is not None and self._last.dim() > 2:
            self._flatten(name, weight.shape[1] // len(self._last))
        elif not bias and self._last is None:
            self._assumptions.append(f"{name} is a linear layer, no embedding")
        return nn.Linear(weight.shape[1], weight.shape[0], bias=bias)

    def _flatten(self, name: str, positions: int) -> None:
        assert self._last is not None
        shape = _factors(positions, self._last.dim() - 2)
        self._steps += [_POOLS[self._last.dim()](shape), nn.Flatten()]
        if positions == 1:
            self._assumptions.append(f"{name} reads every channel's mean over all positions")
        else:
            size = "×".join(map(str, shape))
            self._assumptions.append(
                f"{name} reads {len(self._last)} channels of {size} positions, channels first; "
                "any pooling before it takes means"
            )

    def _convolution(self, name: str, weight: Tensor, bias: bool) -> nn.Module:
        outputs, taken, *kernel = weight.shape
        inputs = taken if self._last is None else len(self._last)
        groups = inputs // taken
        if groups > 1:
            self._assumptions.append(f"{name} has {groups} groups")
        padding = tuple(size // 2 for size in kernel)
        kind = _CONVOLUTIONS[weight.dim()]
        return kind(inputs, outputs, tuple(kernel), padding=padding, groups=groups, bias=bias)


def _factors(positions: int, dimensions: int) -> tuple[int, ...]:
    """Sizes as equal as can be with the product ``positions``."""
    if dimensions == 1:
        return (positions,)
    root = round(positions ** (1 / dimensions))
    first = next(size for size in range(max(root, 1), 0, -1) if positions % size == 0)
    return (first, *_factors(positions // first, dimensions - 1))
