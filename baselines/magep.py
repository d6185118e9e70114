"""MAGEP-NFN: equivariant polynomials of weights and biases (Vo et al., ICML 2025, 2410.04213)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from baselines.layers.scaled import (
    Form,
    ScaledChain,
    ScaledEdits,
    ScaledLinear,
    activate,
    by_power,
    mlp_head,
)
from gmn.foundation.arguments import require_callable, require_each_whole, require_whole
from gmn.graph import ParameterGraph
from gmn.graph.required import require_spec
from gmn.nn.heads import EditHead, readout_of
from gmn.nn.metanetwork import Metanetwork
from gmn.spec import GraphSpec


class MAGEP(Metanetwork):
    """Polynomial layers that commute with permutations and scales of hidden neurons, and an MLP.

    A first linear layer turns kernels into channels, as published: polynomials see learned mixtures
    of a kernel's taps. Each layer then computes monomials channel by channel (:class:`Columns`,
    :class:`Matrices`) and mixes all that follow the scales alike. The output is read from the
    monomials that no scale changes; or, with an ``EditHead``, a last layer gives changes that
    transform as the parameters do.

    The form is the same for positive scales and for signs, so a model reads networks of either.
    Which of them a hidden node set has comes from the networks' spec, and only decides the function
    between layers: ReLU, or an odd one. A weight between neurons with a positive scale and neurons
    with a sign passes unchanged.

    Differences from the published code: Ψ is learned in every layer, a product with a bias has a
    coefficient for each layer the bias is of, traces are left out (:class:`Columns`), products are
    kept in size (:class:`PathProducts`), invariant monomials pass ``asinh``, so that of large ones
    the logarithm counts, and weights enter multiplied by the square root of their fan-in;
    ``published=True`` does none of this. Phases of sines are taken out first either way.

    Args:
        spec: the architecture of the networks it reads; a chain whose hidden neurons have scales.
        channels: channels per parameter after the first layer and after each polynomial layer.
        head: number of outputs of the published head (two hidden layers of 500), a module that maps
            the invariants (B, ``pooled``) to anything, or an ``EditHead``.
        invariants: number of invariants, of which each is a sum over all channels.
        odd: the function between layers for signs: ``torch.tanh`` or ``torch.sin`` in the paper.
        published: whether layers have the published monomials, at the size that they come in.

    Attributes:
        pooled: number of invariants.
        learning_rate: a good peak for :func:`gmn.train.train`.

    Raises:
        UnsupportedArchitecture: if the networks are not chains, or hidden neurons have no scales.
    """

    symmetries = ("permutations", "scalings")
    learning_rate = 1e-3

    def __init__(
        self,
        spec: GraphSpec,
        channels: Sequence[int] = (20, 20, 20),
        head: int | nn.Module | EditHead = 1,
        invariants: int = 20,
        odd: Callable[[Tensor], Tensor] = torch.tanh,
        published: bool = False,
    ) -> None:
        super().__init__(head)
        require_spec("spec", spec)
        channels = require_each_whole("channels", channels, 1)
        require_whole("invariants", invariants, 1)
        require_callable("odd", odd, "a function such as torch.tanh")
        self.chain = chain = ScaledChain.of(spec, type(self).__name__, raw=published)
        self.odd = odd
        kernels, features = chain.forms(1, chain.taps), chain.forms(channels[0], [1] * chain.depth)
        self.first = ScaledLinear(kernels, features, by_power(kernels, features))
        self.layers = nn.ModuleList(
            MonomialLayer(chain, before, after, published=published)
            for before, after in pairwise(channels)
        )
        self.pooled = invariants
        self.editor: ScaledEdits | None = None
        self.last: InvariantLayer | None = None
        if self.copies:
            last = MonomialLayer(chain, channels[-1], self.copies, chain.taps, published)
            self.editor = ScaledEdits(last)
        else:
            self.last = InvariantLayer(chain, channels[-1], invariants, published)
        self.head = readout_of(head, lambda outputs: mlp_head(invariants, 500, outputs))

    def forward(self, graph: ParameterGraph) -> Tensor | ParameterGraph:
        """Reads B networks; the output has shape (B, outputs), or is a graph of edited networks.

        Raises:
            UnsupportedArchitecture: if their layers are not those it was built for, or hidden
                neurons have no scales.
        """
        chain = self.chain.at(graph.spec)
        values = self.first(chain, chain.read(graph))
        for layer in self.layers:
            values = activate(chain, layer(chain, values), self.odd)
        if self.editor is not None:
            return chain.edit(graph, self.editor(chain, values))
        assert self.last is not None
        assert self.head is not None
        return self.head(self.last(chain, values))


class Columns(nn.Module):
    r"""The monomials that follow the scales of one layer's neurons, channel by channel.

    With :math:`[W]^{(s,t)} = W^{(s)} \cdots W^{(t+1)}` and learned
    :math:`Ψ \in \mathbb{R}^{n_0 × n_L}` and :math:`ψ \in \mathbb{R}^{1 × n_L}`, these are
    :math:`[W]^{(l,0)}`, :math:`[W]^{(l,t)} b^{(t)}` for 0 < t < l, :math:`b^{(l)}`,
    :math:`[W]^{(l,0)} Ψ [W]^{(L,0)}` and :math:`b^{(l)} ψ [W]^{(L,0)}`. Those of the last layer are
    invariant.

    The paper's traces are left out. They are sums of these: a trace is cyclic, so
    :math:`\mathrm{tr}\, [W]^{(s,0)} Ψ [W]^{(L,s)} = \mathrm{tr}\, Ψ [W]^{(L,0)}` and
    :math:`\mathrm{tr}\, b^{(s)} ψ [W]^{(L,s)} = ψ [W]^{(L,s)} b^{(s)}`. The published columns have
    them beside those of the last layer, and of :math:`[W]^{(l,t)} b^{(t)}` the sum over t.

    Args:
        chain: the chain, whose kernels are channels already.
        channels: number of channels.
        layers: numbers of the layers, from 1.
        published: whether to form the published columns.
        learned: whether Ψ is learned.
    """

    def __init__(
        self,
        chain: ScaledChain,
        channels: int,
        layers: Sequence[int],
        published: bool = False,
        learned: bool = True,
    ) -> None:
        super().__init__()
        self.chain, self.channels, self.layers = chain, channels, tuple(layers)
        self.published = published
        self.psi = _psi(chain, channels, len(self.layers), published, learned)
        self.traces = None
        if published and chain.depth > 1 and chain.depth in layers:
            self.traces = Traces(chain, channels, learned)

    def forms(self) -> list[Form]:
        """Forms of the columns of each layer."""
        inputs, forms = self.chain.sizes[0], []
        for layer in self.layers:
            rows = _free_rows(self.chain, layer)
            of_biases = min(layer, 2) if self.published else layer
            width = (3 * inputs + of_biases) * self.channels * rows
            if self.traces is not None and layer == self.chain.depth:
                width += self.traces.count
            forms.append(self.chain.form(layer, 0, width))
        return forms

    def forward(self, products: PathProducts) -> list[Tensor]:
        """The columns of each layer, shapes (B, channels, *rows with scales)."""
        columns = []
        for psi, layer in zip(self.psi, self.layers, strict=True):
            through = products.through(layer, psi @ products.after[0])
            value = torch.cat([products.columns[layer - 1], *through], dim=3)
            column = self.chain.lay_out(value, layer, 0)
            if self.traces is not None and layer == self.chain.depth:
                column = torch.cat([column, self.traces(products)], dim=1)
            columns.append(column)
        return columns


class Traces(nn.Module):
    r"""Of :math:`[W]^{(s,0)} Ψ [W]^{(L,s)}` and :math:`b^{(s)} ψ [W]^{(L,s)}`, for 0 < s < L.

    Args:
        chain: the chain, whose kernels are channels already.
        channels: number of channels.
        learned: whether Ψ is learned.

    Attributes:
        count: number of traces.
    """

    def __init__(self, chain: ScaledChain, channels: int, learned: bool) -> None:
        super().__init__()
        self.psi = _psi(chain, channels, chain.depth - 1, True, learned)
        self.count = 2 * channels * len(self.psi)

    def forward(self, products: PathProducts) -> Tensor:
        """All traces, shape (B, count)."""
        traces = []
        for layer, psi in enumerate(self.psi, start=1):
            value = products.columns[layer - 1]
            ends = torch.cat([value[..., : psi.shape[1] - 1], value[..., -1:]], dim=3)
            terms = (products.after[layer] @ ends * psi.mT).sum(2)  # a trace is cyclic
            traces += [terms[..., :-1].sum(2), terms[..., -1]]
        return torch.cat(traces, dim=1)


class Matrices(nn.Module):
    r"""The monomials that follow a weight's scales, channel by channel.

    For every layer l but the first they are :math:`W^{(l)}`, :math:`[W]^{(l,0)} Ψ [W]^{(L,l-1)}`
    and :math:`b^{(l)} ψ [W]^{(L,l-1)}`, with a Ψ and ψ of each layer's own. (The first weight's
    sources have no scale: its monomials are :class:`Columns`.)

    Args:
        chain: the chain, whose kernels are channels already.
        channels: number of channels.
        published: whether Ψ is the published one, which is not learned.
    """

    def __init__(self, chain: ScaledChain, channels: int, published: bool = False) -> None:
        super().__init__()
        self.chain, self.channels = chain, channels
        self.layers = range(2, chain.depth + 1)
        self.psi = _psi(chain, channels, len(self.layers), published, not published)

    def forms(self) -> list[Form]:
        """Forms of the three matrices of each layer."""
        return [
            self.chain.form(layer, layer - 1, self.channels * _free_rows(self.chain, layer))
            for layer in self.layers
            for _ in range(3)
        ]

    def forward(self, products: PathProducts) -> list[Tensor]:
        """The three matrices of each layer, shapes (B, channels, *ends with scales)."""
        matrices = []
        for psi, layer in zip(self.psi, self.layers, strict=True):
            through = products.through(layer, psi @ products.after[layer - 1])
            parts = products.weights[layer - 1], *through
            matrices += [self.chain.lay_out(part, layer, layer - 1) for part in parts]
        return matrices


def _psi(
    chain: ScaledChain, channels: int, count: int, published: bool, learned: bool
) -> nn.Parameter | nn.Buffer:
    """Ψ in the first rows and ψ in the last, shape (count, channels, n_0 + 1, n_L)."""
    inputs, outputs = chain.sizes[0], chain.sizes[-1]
    values = torch.randn(count, channels, inputs + 1, outputs)
    if published:
        values = values / (channels * outputs)
        values[:, :, :inputs] /= inputs
    else:
        values = values / (inputs * outputs) ** 0.5
    return nn.Parameter(values) if learned else nn.Buffer(values)


def _free_rows(chain: ScaledChain, layer: int) -> int:
    return chain.sizes[layer] if layer == chain.depth else 1


class PathProducts:
    r"""The 2L products that all monomials of a chain are made of.

    All :math:`[W]^{(l,0)}` and :math:`[W]^{(l,t)} b^{(t)}` come from one recurrence, all
    :math:`[W]^{(L,t)}` from another. Sums over neurons are divided by the root of their number,
    which keeps products of independent numbers at their size.

    Args:
        chain: the chain, whose kernels are channels already.
        values: weights and biases as features, shapes (B, channels, *ends with scales).
        published: whether products are as they are: no sum is divided, and the columns hold the sum
            of all :math:`[W]^{(l,t)} b^{(t)}` instead of each.

    Attributes:
        weights: shapes (B, d, n_l, n_(l-1)).
        columns: shapes (B, d, n_l, n_0 + l): :math:`[W]^{(l,0)}`, :math:`[W]^{(l,t)} b^{(t)}` for
            t from 1 to l - 1, and :math:`b^{(l)}`.
        after: :math:`[W]^{(L,t)}` for t from 0 to L - 1, shapes (B, d, n_L, n_t).
    """

    def __init__(
        self, chain: ScaledChain, values: Sequence[Tensor], published: bool = False
    ) -> None:
        self._inputs, self._published = chain.sizes[0], published
        self.weights, biases = chain.matrices(values)
        self.columns = [torch.cat([self.weights[0], biases[0]], dim=3)]
        for weight, bias in zip(self.weights[1:], biases[1:], strict=True):
            moved = self._divided(weight @ self.columns[-1], weight.shape[3])
            if published:
                of_inputs, of_biases = moved.tensor_split([self._inputs], dim=3)
                moved = torch.cat([of_inputs, of_biases.sum(3, keepdim=True)], dim=3)
            self.columns.append(torch.cat([moved, bias], dim=3))
        self.after = [self.weights[-1]]
        for weight in self.weights[-2:0:-1]:
            self.after.insert(0, self._divided(self.after[0] @ weight, weight.shape[2]))
        if chain.depth > 1:
            self.after.insert(0, self.columns[-1][..., : self._inputs])
        if published:
            return
        paths, bias_paths = _paths(self.weights, biases)
        outcomes = self.columns[-1].abs().mean((1, 2)).unflatten(1, (-1, 1, 1, 1))
        self._size = paths + outcomes[:, : self._inputs].mean(1)
        self._bias_sizes = [
            mean + outcomes[:, index] for index, mean in enumerate(bias_paths, self._inputs)
        ]

    def _divided(self, total: Tensor, terms: int) -> Tensor:
        return total if self._published else total / terms**0.5

    def through(self, layer: int, rows: Tensor) -> tuple[Tensor, Tensor]:
        r"""``[W] Ψ [W]`` and ``b ψ [W]`` of a layer, from the rows ``Ψ [W]`` and ``ψ [W]``.

        Products of degree up to 2L are kept at the size of a weight by numbers that no scale
        changes (the paper has none). The first is divided by a size of :math:`[W]^{(L,0)}`, the
        second by this plus the same of :math:`[W]^{(L,l)} b^{(l)}`. A size is the mean absolute
        value, plus the mean over all paths to an output of the product of absolute weights (each
        averaged over channels): there no signs cancel, so it vanishes only together with what it
        divides.
        """
        columns, inputs = self.columns[layer - 1], self._inputs
        ends = columns[..., :inputs], columns[..., -1:]
        if self._published:
            return _product(ends[0], rows[..., :inputs, :]), _product(
                ends[1], rows[..., inputs:, :]
            )
        sizes = self._size, self._size + self._bias_sizes[layer - 1]
        along, from_bias = (torch.where(size == 0, 1, size) for size in sizes)
        return (
            _product(ends[0], rows[..., :inputs, :] / along),
            _product(ends[1], rows[..., inputs:, :] / from_bias),
        )


def _product(columns: Tensor, rows: Tensor) -> Tensor:
    """The matrix product; of a single column and row without the overhead of a product's."""
    return columns * rows if columns.shape[-1] == 1 else columns @ rows


def _paths(weights: Sequence[Tensor], biases: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Mean products of absolute values over paths to the outputs; shapes (B, 1, 1, 1)."""
    # A sum of absolute values is many times as fast as a norm along this dimension.
    sizes, starts = (
        [value.abs().sum(1) / value.shape[1] for value in values] for values in (weights, biases)
    )
    ends = torch.full_like(starts[-1].mT, 1 / starts[-1].shape[1])  # (B, 1, n)
    from_biases: list[Tensor] = []
    for size, start in zip(reversed(sizes), reversed(starts), strict=True):
        from_biases.insert(0, (ends @ start).unsqueeze(1))
        ends = ends @ size / size.shape[2]
    return ends.sum(2, keepdim=True).unsqueeze(1), from_biases


class MonomialLayer(nn.Module):
    """An equivariant polynomial layer: all linear maps from monomials to weights and biases.

    Args:
        chain: the chain, whose kernels are channels already.
        inputs: channels per parameter of the input.
        outputs: channels per parameter of the output.
        taps: taps of each weight of the output; one each if None.
        published: whether the monomials are the published ones, whose Ψ is not learned.
    """

    def __init__(
        self,
        chain: ScaledChain,
        inputs: int,
        outputs: int,
        taps: Sequence[int] | None = None,
        published: bool = False,
    ) -> None:
        super().__init__()
        self.published = published
        layers = range(1, chain.depth + 1)
        self.columns = Columns(chain, inputs, layers, published, learned=not published)
        self.matrices = Matrices(chain, inputs, published)
        before = [*self.columns.forms(), *self.matrices.forms()]
        after = chain.forms(outputs, [1] * chain.depth if taps is None else taps)
        self.mix = ScaledLinear(before, after, by_power(before, after))

    def forward(self, chain: ScaledChain, values: Sequence[Tensor]) -> list[Tensor]:
        """From features (B, channels, *ends with scales) of the input to those of the output."""
        products = PathProducts(chain, values, self.published)
        return self.mix(chain, [*self.columns(products), *self.matrices(products)])


class InvariantLayer(nn.Module):
    """An invariant polynomial layer: sums of the monomials that no scale changes, and a constant.

    Args:
        chain: the chain, whose kernels are channels already.
        inputs: channels per parameter of the input.
        outputs: number of sums.
        published: whether the monomials are the published ones, and summed as they are.
    """

    def __init__(
        self, chain: ScaledChain, inputs: int, outputs: int, published: bool = False
    ) -> None:
        super().__init__()
        self.published = published
        self.columns = Columns(chain, inputs, [chain.depth], published)
        (form,) = self.columns.forms()
        self.mix = nn.Linear(form.channels, outputs)

    def forward(self, chain: ScaledChain, values: Sequence[Tensor]) -> Tensor:
        """From features (B, channels, *ends with scales) to invariants (B, outputs)."""
        (columns,) = self.columns(PathProducts(chain, values, self.published))
        return self.mix(columns if self.published else torch.asinh(columns))
