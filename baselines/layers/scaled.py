"""What NFNs for scale groups share: layers, activations, invariants and edits.

A weight from neuron k to neuron j is multiplied by the scale of j and divided by that of k, whether
these are positive (ReLU) or signs (tanh, sine). Input and output neurons have no scale. Which group
a hidden node set has is read off the spec, node set by node set, so networks may have both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import pairwise, product
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor, nn

from baselines import adapter
from baselines.adapter import Link, UnsupportedArchitecture, WeightSpaceFeatures
from gmn.canonical import without_shifts
from gmn.canonical.layout import along
from gmn.canonical.shifts import Passing, flips, following, passing
from gmn.graph import ParameterGraph
from gmn.graph.draft import Draft
from gmn.nn.scaled.scale_blocks import unit
from gmn.spec import GraphSpec, NodeSet, Scaling

Domains = frozenset[str]  # "positive", "sign", or both (any number but zero)
NONE: Domains = frozenset()
SIGNS: Domains = frozenset({"sign"})
POSITIVE: Domains = frozenset({"positive"})
Block = tuple[tuple[int, ...], tuple[int, ...]]  # indices of the inputs and outputs that it joins


class Charge(NamedTuple):
    """How a feature follows the scales of one hidden node set.

    Attributes:
        layer: index of the node set, from 1.
        power: 1 if multiplied by the scale, -1 if divided.
    """

    layer: int
    power: int


@dataclass(frozen=True)
class Form:
    """The form of a feature: a tensor of shape (B, channels, *sizes of the node sets).

    Attributes:
        charges: the hidden node sets that index it, and how it follows their scales.
        channels: number of channels, on which the group does not act.
    """

    charges: tuple[Charge, ...]
    channels: int


@dataclass(frozen=True)
class ScaledChain:
    """A chain in which every hidden neuron has a scale, and how its features are laid out.

    Channels come first, as products of matrices want them, in the order (channels, taps, neurons
    without scale).

    Attributes:
        shapes: target neurons, source neurons and taps of every layer.
        domains: the group of every hidden node set.
        method: name of the method that reads the chain, for errors.
        raw: whether weights are read as they are, and not multiplied by the root of their fan-in.
    """

    shapes: tuple[tuple[int, int, int], ...]
    domains: tuple[Domains, ...]
    method: str
    raw: bool = False

    @classmethod
    def of(cls, spec: GraphSpec, method: str, raw: bool = False) -> ScaledChain:
        """The chain of a spec.

        Raises:
            UnsupportedArchitecture: if it is no chain, or a hidden node set has no scales.
        """
        return cls(adapter.shapes(spec), _domains(spec, method), method, raw)

    def at(self, spec: GraphSpec) -> ScaledChain:
        """The same layers with the groups of another spec.

        Raises:
            UnsupportedArchitecture: if the layers differ, or a hidden node set has no scales.
        """
        adapter.require_shapes(spec, self.shapes, self.method)
        return replace(self, domains=_domains(spec, self.method))

    @property
    def depth(self) -> int:
        """Number of layers."""
        return len(self.shapes)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of neurons, from the input to the output."""
        return (self.shapes[0][1], *(out for out, _, _ in self.shapes))

    @property
    def taps(self) -> tuple[int, ...]:
        """Number of taps of every layer."""
        return tuple(taps for _, _, taps in self.shapes)

    def form(self, target: int, source: int, channels: int) -> Form:
        """The form of a matrix from the neurons of one layer to those of another.

        Args:
            target: index of the layer that indexes rows; 0 is the input.
            source: index of the layer that indexes columns; 0 also for columns on which no group
                acts, such as the one of a bias.
            channels: channels per row and column on which no group acts.
        """
        ends = ((target, 1), (source, -1))
        return Form(tuple(Charge(n, power) for n, power in ends if self._scaled(n)), channels)

    def forms(self, channels: int, taps: Sequence[int]) -> list[Form]:
        """Forms of all weights, then of all biases, with ``taps`` per weight."""
        weights, biases = [], []
        for layer, (out, into, _) in enumerate(self.shapes, start=1):
            free_out = 1 if self._scaled(layer) else out
            free_in = 1 if self._scaled(layer - 1) else into
            width = free_out * free_in * taps[layer - 1] * channels
            weights.append(self.form(layer, layer - 1, width))
            biases.append(self.form(layer, 0, free_out * channels))
        return weights + biases

    def lay_out(self, value: Tensor, target: int, source: int) -> Tensor:
        """From (B, channels, rows, columns) to (B, channels and unscaled axes, *scaled axes)."""
        rows, columns = self._scaled(target), self._scaled(source)
        if rows and columns:
            return value
        return (value.transpose(2, 3) if rows else value).flatten(1, 3 - rows - columns)

    def matrix(self, value: Tensor, target: int, source: int, columns: int) -> Tensor:
        """Inverse of :meth:`lay_out` for a matrix of that many columns."""
        rows = self.sizes[target]
        rest = math.prod(value.shape[1:]) // (rows * columns)  # not -1, for batches of no networks
        if self._scaled(target) and not self._scaled(source):
            return value.view(len(value), rest, columns, rows).transpose(2, 3)
        return value.view(len(value), rest, rows, columns)

    def matrices(self, values: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Weights (B, channels · taps, out, in) and biases (B, channels, out, 1) of features."""
        layers = range(1, self.depth + 1)
        weights = [self.matrix(values[n - 1], n, n - 1, self.sizes[n - 1]) for n in layers]
        return weights, [self.matrix(values[self.depth + n - 1], n, 0, 1) for n in layers]

    def read(self, graph: ParameterGraph) -> list[Tensor]:
        """The networks' parameters as features of one channel, taps included.

        Phases of sines are taken out first. Unless :attr:`raw`, weights are multiplied by the
        square root of their fan-in, which makes them comparable across widths.
        """
        features = adapter.to_features(without_shifts(graph))
        weights = [
            self.lay_out(weight.movedim(3, 1) * size, layer, layer - 1)
            for layer, (weight, size) in enumerate(
                zip(features.weights, self._fan_in_roots, strict=True), start=1
            )
        ]
        biases = [
            self.lay_out(bias[:, None, :, None], layer, 0)
            for layer, bias in enumerate(features.biases, start=1)
        ]
        return weights + biases

    def edit(self, graph: ParameterGraph, changes: Sequence[Tensor]) -> ParameterGraph:
        """The networks that :meth:`read` read, changed by features of one or more channels.

        Returns:
            The first edit of all networks, then the second of all, one edit per channel.
        """
        weights, biases = self.matrices(changes)
        copies = biases[-1].shape[1]
        weights = [
            weight.unflatten(1, (copies, taps)) / size
            for weight, taps, size in zip(weights, self.taps, self._fan_in_roots, strict=True)
        ]
        signs, weights_passed = flips(graph), passing(graph)
        edits = []
        for copy in range(copies):
            change = WeightSpaceFeatures(
                tuple(weight[:, copy].movedim(1, 3) for weight in weights),
                tuple(bias[:, copy, :, 0] for bias in biases),
            )
            edits.append(_add(graph, adapter.from_features(graph, change), signs, weights_passed))
        return ParameterGraph.cat(edits)

    @cached_property
    def acting(self) -> tuple[Domains, ...]:
        """All groups that act on each weight, then on each bias."""
        of_layer = (NONE, *self.domains, NONE)
        return (*(one | other for one, other in pairwise(of_layer)), *of_layer[1:])

    @property
    def _fan_in_roots(self) -> tuple[float, ...]:
        return tuple(1.0 if self.raw else (into * taps) ** 0.5 for _, into, taps in self.shapes)

    def _scaled(self, layer: int) -> bool:
        return 0 < layer < self.depth


def _add(
    graph: ParameterGraph, change: ParameterGraph, signs: dict[str, Tensor], passed: Passing
) -> ParameterGraph:
    """Adds changes of networks without shifts to the networks with theirs."""
    draft = Draft(graph.spec, change.values)
    for name, sign in signs.items():
        draft.block(name).mul_(sign)
    for name in passed:
        for term, added in following(name, draft.block(name), passed):
            block = draft.block(term.edge_set)
            block.add_(along(added, term.dims, block))
    changes = {**change.values, **draft.changed()}
    parameters = {edges.parameter for edges in graph.spec.edge_sets}
    return graph.replace({name: graph.values[name] + changes[name] for name in parameters})


@lru_cache(maxsize=64)
def _domains(spec: GraphSpec, method: str) -> tuple[Domains, ...]:
    """The group of every hidden node set of a chain."""
    result = []
    for link, reader in pairwise(adapter.chain(spec)):
        nodes = spec.node_set(link.weight.target)
        domains = {s.domain for s in spec.scalings if _scales(s, nodes, link, reader)}
        # Between linear layers any change of basis is possible, so any scale but zero.
        if any(g.group == "general" and g.axes == nodes.axes for g in spec.gauges):
            domains = {"positive", "sign"}
        if not domains:
            raise _no_scales(nodes, method)
        result.append(frozenset(domains))
    return tuple(result)


def _scales(scaling: Scaling, nodes: NodeSet, link: Link, reader: Link) -> bool:
    """Whether each neuron has a scale that multiplies what it reads and divides what reads it."""
    if scaling.domain == "phase" or prod(scaling.shape) != nodes.size:
        return False
    read = [link.weight.name] if link.bias is None else [link.weight.name, link.bias.name]
    inverse = -1.0 if scaling.domain == "positive" else 1.0
    expected = {(name, 1.0) for name in read} | {(reader.weight.name, inverse)}
    return {(term.edge_set, term.exponent) for term in scaling.terms} == expected


def _no_scales(nodes: NodeSet, method: str) -> UnsupportedArchitecture:
    after = " after " + ", ".join(op.name for op in nodes.operations) if nodes.operations else ""
    return UnsupportedArchitecture(
        f"node set {nodes.name} has no scales{after}; {method} assumes that every hidden neuron "
        "has a positive scale of its own (as before ReLU) or a sign (as before tanh or a sine). "
        "NFN reads this network with its permutations alone, gmn.nn.ScaleGMN with the scales that "
        f"it has. {adapter.INSTEAD}"
    )


def by_power(inputs: Sequence[Form], outputs: Sequence[Form]) -> list[Block]:
    """The linear maps that commute with scales of every kind: from what follows them alike.

    Scales of different neurons are independent, so an output can only read what is multiplied by
    exactly its own scales, at its own index.
    """
    return [(_like(inputs, charges), _like(outputs, charges)) for charges in _powers(outputs)]


def complete(chain: ScaledChain, inputs: Sequence[Form], outputs: Sequence[Form]) -> list[Block]:
    """All linear maps that commute with the chain's group: signs are their own inverse."""
    blocks = by_power(inputs, outputs)
    for read, written in product(_powers(inputs), _powers(outputs)):
        needed = _signs_needed(read, written)
        if needed and all(chain.domains[layer - 1] == SIGNS for layer in needed):
            blocks.append((_like(inputs, read), _like(outputs, written)))
    return blocks


def _powers(forms: Sequence[Form]) -> list[tuple[Charge, ...]]:
    return list(dict.fromkeys(form.charges for form in forms))


def _like(forms: Sequence[Form], charges: tuple[Charge, ...]) -> tuple[int, ...]:
    return tuple(index for index, form in enumerate(forms) if form.charges == charges)


def _signs_needed(read: Sequence[Charge], written: Sequence[Charge]) -> tuple[int, ...] | None:
    """The node sets whose scales must be their own inverse for a map to commute; None if none."""
    if [charge.layer for charge in read] != [charge.layer for charge in written]:
        return None
    return tuple(one.layer for one, two in zip(read, written, strict=True) if one != two)


class ScaledLinear(nn.Module):
    """Linear maps between features that follow scales, and constants where there are none.

    Args:
        inputs: forms of the input features.
        outputs: forms of the output features.
        blocks: the inputs that each output reads (:func:`by_power`, :func:`complete`).

    Raises:
        ValueError: if no group lets a block's features meet, or an output reads none.
    """

    def __init__(
        self, inputs: Sequence[Form], outputs: Sequence[Form], blocks: Sequence[Block]
    ) -> None:
        super().__init__()
        self.inputs, self.outputs, self.blocks = tuple(inputs), tuple(outputs), tuple(blocks)
        self._needs = tuple(self._checked(block) for block in blocks)
        if missing := set(range(len(outputs))) - {n for _, written in blocks for n in written}:
            raise ValueError(f"outputs {sorted(missing)} read no input")
        self.mix = nn.ModuleList(
            nn.Linear(
                sum(inputs[n].channels for n in read),
                sum(outputs[n].channels for n in written),
                bias=not outputs[written[0]].charges,
            )
            for read, written in blocks
        )
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draws weights as Glorot and Bengio do (normal), and sets constants to zero.

        Args:
            generator: source of randomness; torch's own if None.
        """
        for linear in self.mix:
            assert isinstance(linear, nn.Linear)
            nn.init.xavier_normal_(linear.weight, generator=generator)
            if linear.bias is not None:
                nn.init.zeros_(linear.bias)

    def forward(
        self,
        chain: ScaledChain,
        features: Sequence[Tensor],  # shapes: (B, channels, *sizes of the node sets)
    ) -> list[Tensor]:  # shapes: (B, channels, *sizes of the node sets)
        """Maps the input features to the output features, by the maps that the group allows."""
        terms: list[list[Tensor]] = [[] for _ in self.outputs]
        for (read, written), needs, linear in zip(self.blocks, self._needs, self.mix, strict=True):
            assert isinstance(linear, nn.Linear)
            if any(chain.domains[layer - 1] != SIGNS for layer in needs):
                continue
            mixed = _mixed(linear, [features[n] for n in read])
            widths = [self.outputs[n].channels for n in written]
            # The gradient of a split is a copy, even when there is only one part.
            results = mixed.split(widths, dim=1) if len(widths) > 1 else (mixed,)
            for n, result in zip(written, results, strict=True):
                terms[n].append(result)
        return [sum(summands[1:], summands[0]) for summands in terms]

    def _checked(self, block: Block) -> tuple[int, ...]:
        """The node sets that must have signs for a block to commute."""
        pairs = product((self.inputs[n] for n in block[0]), (self.outputs[n] for n in block[1]))
        candidates = {_signs_needed(source.charges, target.charges) for source, target in pairs}
        if len(candidates) != 1 or (needed := candidates.pop()) is None:
            raise ValueError(f"no group lets the inputs {block[0]} and outputs {block[1]} meet")
        return needed


def _mixed(linear: nn.Linear, parts: Sequence[Tensor]) -> Tensor:
    """A linear map of the second dimension, on several tensors as if they were joined there."""
    if parts[0].dim() < 4:
        value = parts[0] if len(parts) == 1 else torch.cat([*parts], dim=1)
        return linear(value) if value.dim() == 2 else linear(value.mT).mT
    # Matrices are large and have few channels: one product each, instead of a copy.
    batch, sizes = len(parts[0]), parts[0].shape[2:]
    total: Tensor | None = None
    widths = [part.shape[1] for part in parts]
    weights = linear.weight.split(widths, dim=1) if len(widths) > 1 else (linear.weight,)
    for weight, part in zip(weights, parts, strict=True):
        operands = weight.expand(batch, -1, -1), part.flatten(2)
        total = torch.bmm(*operands) if total is None else torch.baddbmm(total, *operands)
    assert total is not None
    return total.unflatten(2, sizes)


def activate(
    chain: ScaledChain, features: Sequence[Tensor], odd: Callable[[Tensor], Tensor]
) -> list[Tensor]:
    """Pointwise functions that commute with the group that acts on each value.

    ReLU for positive scales, the odd function for signs. Where both act, only multiples of the
    identity commute. Features without scales go as the network's other features do.
    """
    unscaled = odd if chain.domains and set(chain.domains) == {SIGNS} else torch.relu
    functions = {NONE: unscaled, SIGNS: odd, POSITIVE: torch.relu}
    return [
        functions[acting](value) if acting in functions else value
        for value, acting in zip(features, chain.acting, strict=True)
    ]


def invariants(
    chain: ScaledChain, features: Sequence[Tensor], affine: Tensor | None = None
) -> Tensor:
    """Means of invariant features; shape (B, sum of their channels).

    The channels (and taps) of one entry are divided by their length where positive scales act, and
    replaced by their absolute values where signs do. Of an entry that layers mixed with no other,
    and no tap, the first leaves nothing but its sign.

    Args:
        chain: the chain.
        features: one channel and more per parameter.
        affine: a gain and a shift of every channel (and tap) of each layer's weight, then of its
            bias, shape (2, all of them); None for neither.
    """
    weights, biases = chain.matrices(features)
    hidden = range(1, chain.depth)
    ends = [(layer, layer - 1) for layer in range(1, chain.depth + 1)]
    ends += [(layer, 0) for layer in range(1, chain.depth + 1)]
    matrices, pooled = (*weights, *biases), []
    pieces = [None] * len(matrices) if affine is None else affine.split(_widths(matrices), dim=1)
    for matrix, acting, layers, piece in zip(matrices, chain.acting, ends, pieces, strict=True):
        value = unit(matrix.movedim(1, -1)).movedim(-1, 1) if "positive" in acting else matrix
        value = value.abs() if "sign" in acting else value
        dims = [dim for dim, layer in enumerate(layers, start=2) if layer in hidden]
        # The gradient of a sum is an expanded view, that of a mean a full-size tensor.
        total = value.sum(dims) / prod(value.shape[dim] for dim in dims) if dims else value
        total = total.flatten(2) if total.dim() > 2 else total.unsqueeze(2)
        if piece is not None:
            gain, shift = piece.unsqueeze(2)
            total = total * gain + shift
        pooled.append(total.flatten(1))
    return torch.cat(pooled, dim=1)


def _widths(matrices: Sequence[Tensor]) -> list[int]:
    return [matrix.shape[1] for matrix in matrices]


class ScaledEdits(nn.Module):
    """Changes of parameters, of a learned size that is small at first.

    Args:
        layer: maps a chain and its features to changes.
    """

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer
        self.size = nn.Parameter(torch.tensor(0.01))

    def forward(self, chain: ScaledChain, features: Sequence[Tensor]) -> list[Tensor]:
        """One change per feature of the networks' parameters."""
        return [self.size * change for change in self.layer(chain, features)]


def mlp_head(inputs: int, width: int, outputs: int) -> nn.Sequential:
    """The published heads: two hidden layers with ReLU."""
    return nn.Sequential(
        nn.Linear(inputs, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, outputs),
    )
