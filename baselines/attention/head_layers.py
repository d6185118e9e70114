r"""Polynomial layers on transformer blocks, equivariant to every head's changes of basis.

The equivariant and invariant layers of Transformer-NFN (Tran et al., ICLR 2025, arXiv 2410.04209)
in compact form. A block holds four families of nodes: numbered or movable
neurons at its source, middle and sink, the hidden neurons of its feed-forward network, and one
global node. Whatever a term of the published layer reads, it first sums onto one such family; so
all terms that end at the same family are one matrix product. Of heads, only the products
:math:`\sum_s Q_s K_s^\top` and :math:`\sum_s V_s O_s` are read, which no change of basis moves.

Sums over :math:`n` neurons are divided by :math:`\sqrt n`, so that no term outweighs the others at
initialisation; this only rescales the published coefficients.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from baselines.attention.head_forms import BlockForm, State
from baselines.attention.head_maps import HeadProducts, RowMap, TermMix
from baselines.layers.equivariant import Feature


class EquivariantBlockLayer(nn.Module):
    """The published equivariant polynomial layer.

    Args:
        form: form of the block.
        inputs: number of input channels.
        outputs: number of output channels.
        rank: see :class:`TermMix`.
    """

    def __init__(self, form: BlockForm, inputs: int, outputs: int, rank: int | None = None) -> None:
        super().__init__()
        self.heads = nn.ModuleDict(
            {
                name: RowMap(rows, inputs, outputs, rank)
                for name, rows in (
                    ("query", form.query),
                    ("key", form.key),
                    ("value", form.value),
                    ("output", form.output),
                )
            }
        )
        features = form.features(outputs)
        self.names = tuple(features)
        self.mix = TermMix(form, inputs, tuple(features.values()), rank) if features else None

    def forward(self, state: State) -> State:
        """Maps a block's state to one with other channels."""
        rows = {name: module(state.rows[name]) for name, module in self.heads.items()}
        mixed = [] if self.mix is None else self.mix(state)
        return State(rows, dict(zip(self.names, mixed, strict=True)))


class InvariantBlockLayer(nn.Module):
    """The published invariant layer; numbers that no symmetry of the block changes.

    Args:
        form: form of the block.
        inputs: number of input channels.
        outputs: number of outputs.
        rank: see :class:`TermMix`.
    """

    def __init__(self, form: BlockForm, inputs: int, outputs: int, rank: int | None = None) -> None:
        super().__init__()
        self.mix = TermMix(form, inputs, (Feature((), outputs),), rank)

    def forward(self, state: State) -> Tensor:
        """Shape (B, outputs)."""
        return self.mix(state)[0]


class HeadReadout(nn.Module):
    r"""Numbers from every head's own products, through an MLP before heads are summed.

    The published layers read heads only through :math:`\sum_s Q_s K_s^\top` and
    :math:`\sum_s V_s O_s`, which do not say which unit belongs to which head, nor which values to
    which scores. An MLP on :math:`u^\top Q_s K_s^\top v` and :math:`u^\top V_s O_s v` of one head
    does; it is not part of the published method.

    Args:
        form: form of the block.
        channels: number of input channels.
        reads: number of readouts of each product.
        outputs: number of outputs.
    """

    def __init__(self, form: BlockForm, channels: int, reads: int, outputs: int) -> None:
        super().__init__()
        self.count = form.heads
        self.scores = HeadProducts(form.query, form.key, channels, reads)
        self.values = HeadProducts(form.value, form.output, channels, reads)
        width = self.scores.width + self.values.width
        self.hidden, self.answer = nn.Linear(width, 2 * width), nn.Linear(2 * width, outputs)

    def forward(self, state: State) -> Tensor:
        """Shape (B, outputs)."""
        rows, count = state.rows, self.count
        scores = self.scores(rows["query"], rows["key"], count)
        values = self.values(rows["value"], rows["output"], count)
        return self.answer(self.hidden(torch.cat([scores, values], dim=2)).relu().mean(1))
