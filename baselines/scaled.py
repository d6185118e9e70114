"""What methods for scale groups share: who is scaled, linear maps, activations, invariants, edits.

A weight from neuron k to neuron j is multiplied by the scale of j and divided by that of k, whether
these are positive (ReLU) or signs (tanh, sine). Input and output neurons have no scale. Which group
a hidden node set has is read off the spec, node set by node set, so networks may have both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn

from gmn.canonical import without_shifts
from gmn.canonical.shifts import flips
from gmn.graph import ParameterGraph
from gmn.nn.scale_blocks import unit
from gmn.spec import GraphSpec, NodeSet, Scaling
from gmn.topology import view_block

from . import adapter
from .adapter import Link, UnsupportedArchitecture, WeightSpaceFeatures

Domains = frozenset[str]  # "positive", "sign", or both (any number but zero)
Block = tuple[tuple[int, ...], tuple[int, ...]]  # numbers of the inputs and outputs that it joins


@dataclass(frozen=True)
class Charge:
    """How a feature follows the scales of one hidden node set.

    Attributes:
        layer: number of the node set, from 1.
        power: 1 if multiplied by the scale, -1 if divided.
        domains: the group of the scales.
    """

    layer: int
    power: int
    domains: Domains

    @property
    def reduced(self) -> Charge:
        """The charge up to what the group cannot tell apart: signs are their own inverse."""
        return self if "positive" in self.domains else replace(self, power=1)


@dataclass(frozen=True)
class Form:
    """The form of a feature: a tensor of shape (B, *sizes of the node sets, channels).

    Attributes:
        charges: the hidden node sets that index it, and how it follows their scales.
        channels: number of channels, which the group does not touch.
    """

    charges: tuple[Charge, ...]
    channels: int

    @property
    def domains(self) -> Domains:
        """All groups that act on it."""
        return frozenset().union(*(charge.domains for charge in self.charges))


@dataclass(frozen=True)
class ScaledChain:
    """A chain in which every hidden neuron has a scale, and how its features are laid out.

    Channels come last, in the order (neurons without scale, taps, channels).

    Attributes:
        shapes: target neurons, source neurons and taps of every layer.
        domains: the group of every hidden node set.
        method: who reads the chain, for errors.
    """

    shapes: tuple[tuple[int, int, int], ...]
    domains: tuple[Domains, ...]
    method: str

    @classmethod
    def of(cls, spec: GraphSpec, method: str) -> ScaledChain:
        """The chain of a spec.

        Raises:
            UnsupportedArchitecture: if it is no chain, or a hidden node set has no scales.
        """
        return cls(adapter.shapes(spec), _domains(spec, method), method)

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
            target: number of the layer that indexes rows; 0 is the input.
            source: number of the layer that indexes columns; 0 also for columns that no group
                touches, such as the one of a bias.
            channels: per row and column that no group touches.
        """
        ends = ((target, 1), (source, -1))
        charges = [Charge(n, power, self.domains[n - 1]) for n, power in ends if self._scaled(n)]
        return Form(tuple(charges), channels)

    def forms(self, channels: int, taps: Sequence[int]) -> list[Form]:
        """Forms of all weights, then of all biases, with ``taps`` per weight."""
        weights, biases = [], []
        for number, (out, into, _) in enumerate(self.shapes, start=1):
            free_out = 1 if self._scaled(number) else out
            free_in = 1 if self._scaled(number - 1) else into
            width = free_out * free_in * taps[number - 1] * channels
            weights.append(self.form(number, number - 1, width))
            biases.append(self.form(number, 0, free_out * channels))
        return weights + biases

    def lay_out(self, value: Tensor, target: int, source: int) -> Tensor:
        """From (B, rows, columns, channels) to (B, *rows and columns with scales, the rest)."""
        rows, columns = self._scaled(target), self._scaled(source)
        if columns and not rows:
            value = value.transpose(1, 2)
        return value.flatten(1 + rows + columns)

    def matrix(self, value: Tensor, target: int, source: int, columns: int) -> Tensor:
        """Inverse of :meth:`lay_out` for a matrix of that many columns."""
        rows = self.sizes[target]
        if self._scaled(source) and not self._scaled(target):
            return value.view(len(value), columns, rows, -1).transpose(1, 2)
        return value.view(len(value), rows, columns, -1)

    def matrices(self, values: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Weights (B, out, in, taps · channels) and biases (B, out, 1, channels) of features."""
        numbers = range(1, self.depth + 1)
        weights = [self.matrix(values[n - 1], n, n - 1, self.sizes[n - 1]) for n in numbers]
        return weights, [self.matrix(values[self.depth + n - 1], n, 0, 1) for n in numbers]

    def read(self, graph: ParameterGraph) -> list[Tensor]:
        """The networks' parameters as features of one channel, taps included.

        Phases of sines are taken out first. Weights are multiplied by the square root of their
        fan-in, which makes them comparable across widths.

        Raises:
            UnsupportedArchitecture: if layers or groups are not those of this chain.
        """
        adapter.require_shapes(graph.spec, self.shapes, self.method)
        if (found := _domains(graph.spec, self.method)) != self.domains:
            raise UnsupportedArchitecture(
                f"the hidden neurons have the scales {_names(found)}, but this {self.method} was "
                f"built for {_names(self.domains)}. Build one per group. {adapter.INSTEAD}"
            )
        features = adapter.to_features(without_shifts(graph))
        weights = [
            self.lay_out(weight * size, number, number - 1)
            for number, (weight, size) in enumerate(
                zip(features.weights, self._fan_in_roots, strict=True), start=1
            )
        ]
        biases = [
            self.lay_out(bias[..., None, None], number, 0)
            for number, bias in enumerate(features.biases, start=1)
        ]
        return weights + biases

    def edit(self, graph: ParameterGraph, changes: Sequence[Tensor]) -> ParameterGraph:
        """The networks that :meth:`read` read, changed by features of one or more channels.

        Returns:
            The first edit of all networks, then the second of all, one edit per channel.
        """
        weights, biases = self.matrices(changes)
        copies = biases[-1].shape[-1]
        weights = [
            weight.unflatten(-1, (taps, copies)) / size
            for weight, taps, size in zip(weights, self.taps, self._fan_in_roots, strict=True)
        ]
        signs = flips(graph)
        edits = []
        for copy in range(copies):
            change = WeightSpaceFeatures(
                tuple(weight[..., copy] for weight in weights),
                tuple(bias[..., 0, copy] for bias in biases),
            )
            edits.append(_add(graph, adapter.from_features(graph, change), signs))
        return ParameterGraph.cat(edits)

    @property
    def _fan_in_roots(self) -> tuple[float, ...]:
        return tuple(float(into * taps) ** 0.5 for _, into, taps in self.shapes)

    def _scaled(self, layer: int) -> bool:
        return 0 < layer < self.depth


def _add(
    graph: ParameterGraph, change: ParameterGraph, signs: dict[str, Tensor]
) -> ParameterGraph:
    """Adds changes of networks without phases to the networks with theirs."""
    for name, sign in signs.items():
        edges = graph.spec.edge_set(name)
        block = view_block(change.values[edges.parameter], edges)
        block.copy_(block * sign)
    return graph.replace(
        {name: graph.values[name] + change.values[name] for name in _parameters(graph.spec)}
    )


def _parameters(spec: GraphSpec) -> set[str]:
    return {edges.parameter for edges in spec.edge_sets}


@lru_cache(maxsize=64)
def _domains(spec: GraphSpec, method: str) -> tuple[Domains, ...]:
    """The group of every hidden node set of a chain."""
    found = []
    for link, reader in pairwise(adapter.chain(spec)):
        nodes = spec.node_set(link.weight.target)
        domains = {s.domain for s in spec.scalings if _scales(s, nodes, link, reader)}
        # Between linear layers any change of basis is possible, so any scale but zero.
        if any(g.group == "general" and g.axes == nodes.axes for g in spec.gauges):
            domains = {"positive", "sign"}
        if not domains:
            raise _no_scales(nodes, method)
        found.append(frozenset[str](domains))
    return tuple(found)


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


def _names(domains: Sequence[Domains]) -> str:
    return ", ".join(" and ".join(sorted(one)) for one in domains) or "none"


def complete(inputs: Sequence[Form], outputs: Sequence[Form]) -> list[Block]:
    """The blocks of all linear equivariant maps: features that follow the scales alike are mixed.

    Scales of different neurons are independent, so an output can only read what is multiplied by
    exactly its own scales, at its own index.
    """
    return _matched(inputs, outputs, lambda form: tuple(c.reduced for c in form.charges))


def by_power(inputs: Sequence[Form], outputs: Sequence[Form]) -> list[Block]:
    """The blocks that hold for positive scales and signs alike: scale and inverse stay apart."""
    return _matched(inputs, outputs, lambda form: form.charges)


def _matched(
    inputs: Sequence[Form],
    outputs: Sequence[Form],
    key: Callable[[Form], tuple[Charge, ...]],
) -> list[Block]:
    keys = dict.fromkeys(map(key, outputs))
    return [
        (
            tuple(n for n, form in enumerate(inputs) if key(form) == one),
            tuple(n for n, form in enumerate(outputs) if key(form) == one),
        )
        for one in keys
    ]


class ScaledLinear(nn.Module):
    """Linear maps between features that follow scales, and constants where there are none.

    Args:
        inputs: forms of the input features.
        outputs: forms of the output features.
        blocks: which inputs each output reads (:func:`complete`, :func:`by_power`).

    Raises:
        ValueError: if a block joins features that the group tells apart, or an output reads none.
    """

    def __init__(
        self, inputs: Sequence[Form], outputs: Sequence[Form], blocks: Sequence[Block]
    ) -> None:
        super().__init__()
        self.inputs, self.outputs, self.blocks = tuple(inputs), tuple(outputs), tuple(blocks)
        self._check()
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
        features: Sequence[Tensor],  # shapes: (B, *sizes of the node sets, channels)
    ) -> list[Tensor]:  # shapes: (B, *sizes of the node sets, channels)
        """Maps the input features to the output features."""
        terms: list[list[Tensor]] = [[] for _ in self.outputs]
        for (read, written), linear in zip(self.blocks, self.mix, strict=True):
            parts = [features[n] for n in read]
            mixed = linear(parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1))
            widths = [self.outputs[n].channels for n in written]
            # The gradient of a split is a copy, even when there is only one part.
            results = mixed.split(widths, dim=-1) if len(widths) > 1 else (mixed,)
            for n, result in zip(written, results, strict=True):
                terms[n].append(result)
        return [sum(own[1:], own[0]) for own in terms]

    def _check(self) -> None:
        for read, written in self.blocks:
            joined = [self.inputs[n] for n in read] + [self.outputs[n] for n in written]
            charges = {tuple(charge.reduced for charge in form.charges) for form in joined}
            if not read or len(charges) > 1:
                raise ValueError(f"no equivariant map joins these features alone: {joined}")
        missing = set(range(len(self.outputs))) - {n for _, ws in self.blocks for n in ws}
        if missing:
            raise ValueError(f"outputs {sorted(missing)} read no input")


class Activation(nn.Module):
    """Functions of single numbers that commute with the group that acts on them.

    ReLU for positive scales, an odd function for signs. Where both act, only multiples of the
    identity commute. Features without scales go as the network's other features do.

    Args:
        forms: forms of the features.
        odd: the odd function.
    """

    def __init__(self, forms: Sequence[Form], odd: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        everywhere = frozenset[str]().union(*(form.domains for form in forms))
        signs_only = frozenset({"sign"})
        self.odd = odd
        self._kinds = tuple(
            "none"
            if len(form.domains) > 1
            else "odd"
            if form.domains == signs_only or not form.domains and everywhere == signs_only
            else "relu"
            for form in forms
        )

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Applies each feature's function; shapes stay."""
        functions = {"none": lambda value: value, "odd": self.odd, "relu": torch.relu}
        pairs = zip(self._kinds, features, strict=True)
        return [functions[kind](value) for kind, value in pairs]


def invariants(chain: ScaledChain, forms: Sequence[Form], features: Sequence[Tensor]) -> Tensor:
    """Means of features of which no number follows a scale; shape (B, sum of their channels).

    The channels (and taps) of one entry are divided by their length where positive scales act, and
    replaced by their absolute values where signs do. So an entry needs two channels or more to
    keep anything of a positive scale's orbit but its sign.
    """
    weights, biases = chain.matrices(features)
    pooled = []
    for form, matrix in zip(forms, (*weights, *biases), strict=True):
        value = unit(matrix) if "positive" in form.domains else matrix
        value = value.abs() if "sign" in form.domains else value
        hidden = {charge.power for charge in form.charges}
        dims = [dim for dim, power in ((1, 1), (2, -1)) if power in hidden]
        # The gradient of a sum is an expanded view, that of a mean a full-size tensor.
        total = value.sum(dims) / prod(value.shape[dim] for dim in dims) if dims else value
        pooled.append(total.flatten(1))
    return torch.cat(pooled, dim=1)


def mlp_head(inputs: int, width: int, outputs: int) -> nn.Sequential:
    """The published heads: two hidden layers with ReLU."""
    return nn.Sequential(
        nn.Linear(inputs, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, outputs),
    )
