"""Messages through one block: sums over the neurons of one end and over the taps.

Channels are weighed by a code of each tap, so that a kernel of any size is one matrix whose columns
are neurons with their taps, and a message one matrix product::

    y_n = Σ_m Σ_t W_nmt (x_m ⊙ code_t)        into the rows
    x_m = Σ_t code_t ⊙ Σ_n W_nmt y_n          into the columns

Codes are the same for all channels of a rank. So the taps of a small kernel, which costs more to
spread over channels than to read, are mixed first, for every rank of both directions at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from gmn.nn.dual.stream import Stream

Sizes = tuple[tuple[int, ...], tuple[int, ...]]
Index = tuple[slice, ...]


@dataclass(frozen=True)
class _End:
    """The neurons of one end, by the letters of their axes.

    Attributes:
        sizes: sizes of the axes.
        order: the axes with those first that the other end shares; None if they stand so.
        groups: number of neurons along the shared axes.
        width: number of neurons along the others.
    """

    sizes: tuple[int, ...]
    order: tuple[int, ...] | None
    groups: int
    width: int

    def grouped(self, channels: Tensor) -> Tensor:
        """From (B, neurons, c) to (B * groups, width, c)."""
        batch, _, count = channels.shape
        if self.order is not None:
            split = channels.reshape(batch, *self.sizes, count)
            channels = split.permute(0, *(1 + dim for dim in self.order), -1)
        elif self.groups == 1:
            return channels
        return channels.reshape(batch * self.groups, self.width, count)

    def joined(self, channels: Tensor, batch: int) -> Tensor:
        """Back to (B, neurons, c)."""
        count = channels.shape[-1]
        if self.order is not None:
            split = channels.reshape(batch, *(self.sizes[dim] for dim in self.order), count)
            inverse = (1 + self.order.index(dim) for dim in range(len(self.order)))
            channels = split.permute(0, *inverse, -1)
        return channels.reshape(batch, self.groups * self.width, count)


@dataclass(frozen=True)
class Contraction:
    """The matrix of a block, and the products with it.

    Attributes:
        block: a letter for each dimension of the block but the batch and the taps.
        source: the letters of the neurons that are read.
        target: the letters of the neurons that are written.
        sizes: shapes of the neurons that are read, and written.
    """

    block: str
    source: str
    target: str
    sizes: Sizes

    @cached_property
    def _shared(self) -> str:
        return "".join(letter for letter in self.target if letter in self.source)

    @cached_property
    def _source(self) -> _End:
        return self._end(self.source, self.sizes[0])

    @cached_property
    def _target(self) -> _End:
        return self._end(self.target, self.sizes[1])

    def _rest(self, letters: str) -> str:
        return "".join(letter for letter in letters if letter not in self._shared)

    def _end(self, letters: str, sizes: tuple[int, ...]) -> _End:
        wanted = self._shared + self._rest(letters)
        order = tuple(letters.index(letter) for letter in wanted)
        groups = math.prod(sizes[letters.index(letter)] for letter in self._shared)
        width = math.prod(sizes[letters.index(letter)] for letter in self._rest(letters))
        return _End(sizes, None if wanted == letters else order, groups, width)

    @cached_property
    def _into_rows(self) -> bool:
        """Whether rows are of the target: unless those of the source come first in memory."""
        source, target = self._rest(self.source), self._rest(self.target)
        own = "".join(letter for letter in self.block if letter in source + target)
        return not source or own != source + target

    def matrix(self, values: Tensor) -> Tensor:
        """From (B, *pair dims, taps) to (B * groups, rows, columns * taps); a view where it can."""
        both = self.source + self.target
        if summed := [1 + dim for dim, letter in enumerate(self.block) if letter not in both]:
            values = values.sum(summed)
        kept = [letter for letter in self.block if letter in both]
        rows, columns = (self._target, self.target), (self._source, self.source)
        if not self._into_rows:
            rows, columns = columns, rows
        letters = self._shared + self._rest(rows[1]) + self._rest(columns[1])
        moved = values.permute(0, *(1 + kept.index(letter) for letter in letters), -1)
        shape = (
            len(values) * self._target.groups,
            rows[0].width,
            columns[0].width * values.shape[-1],
        )
        return moved.reshape(shape)

    def add(
        self, matrix: Tensor, code: Tensor, channels: Tensor, total: Tensor, along: bool
    ) -> Tensor:
        """Adds messages.

        Args:
            matrix: of the block.
            code: shape (taps, c).
            channels: those that are read, shape (B, neurons, c).
            total: what they are added to, likewise for the other end.
            along: whether messages go along the network, from source to target, or against it.
        """
        reads, writes = (self._source, self._target) if along else (self._target, self._source)
        read, written = reads.grouped(channels), writes.grouped(total)
        result = _plus_product(matrix, code, read, written, along == self._into_rows)
        return writes.joined(result, len(total))

    def add_seen(self, matrix: Tensor, seen: Tensor, total: Tensor) -> Tensor:
        """Adds messages along the network of what kernels see.

        Args:
            matrix: of the block.
            seen: shape (B, source neurons, taps, c), or (1, ...) if all networks see the same.
            total: what they are added to, shape (B, target neurons, c), or (1, ...).
        """
        taps, groups = seen.shape[2], self._target.groups
        read, batch = self._of_target(matrix, taps), len(matrix) // groups
        written = self._target.grouped(total.expand(batch, -1, -1))
        shared = len(seen) == groups == 1
        seen = seen if shared else seen.expand(batch, -1, -1, -1)
        columns = self._source.grouped(seen.flatten(2)).unflatten(2, (taps, -1)).flatten(1, 2)
        if shared:
            flat = torch.addmm(written.flatten(0, 1), read.flatten(0, 1), columns[0])
            result = flat.view(written.shape)
        else:
            result = torch.baddbmm(written, read, columns)
        return self._target.joined(result, batch)

    def back_seen(self, matrix: Tensor, taps: int, channels: Tensor) -> Tensor:
        """Messages against the network to what kernels see, of (B, target neurons, c)."""
        products = self._of_target(matrix, taps).mT @ self._target.grouped(channels)
        by_neuron = products.unflatten(1, (-1, taps)).flatten(2)
        return self._source.joined(by_neuron, len(channels)).unflatten(2, (taps, -1))

    def _of_target(self, matrix: Tensor, taps: int) -> Tensor:
        """The matrix with rows of the target, and columns of source neurons with their taps."""
        if self._into_rows:
            return matrix
        return matrix.unflatten(2, (-1, taps)).transpose(1, 2).flatten(2)

    def mixed(self, mixed: Tensor, channels: Tensor, total: Tensor, along: bool) -> Tensor:
        """Adds messages with a kernel whose taps are mixed.

        Args:
            mixed: the matrix as :func:`mix` returns it, with the codes of this direction.
            channels: as in :meth:`add`, and so the rest.
            total: what they are added to.
            along: whether messages go along the network.
        """
        reads, writes = (self._source, self._target) if along else (self._target, self._source)
        result = _Mixed.apply(mixed, reads.grouped(channels), along == self._into_rows)
        return total + writes.joined(result, len(total))

    def stream(
        self, stream: Stream, code: Tensor, channels: Tensor, total: Tensor, along: bool
    ) -> Tensor:
        """As :meth:`add`, with a block that is read piece by piece and that needs no gradient."""
        result: Tensor = _Streamed.apply(self, stream, code, channels, total, along)
        return result

    def split(self, channels: Tensor, source: bool) -> Tensor:
        """Channels (B, neurons, c) of an end by its axes, (B, *axes, c)."""
        return channels.unflatten(1, self.sizes[0 if source else 1])

    def parts(
        self, stream: Stream, along: bool
    ) -> Iterator[tuple[Contraction, Tensor, slice, Index, Index]]:
        """The contractions of the pieces of a block.

        Yields:
            A contraction, its matrix (valid until the next one is requested), its taps, and where
            in :meth:`split` channels it reads and writes.
        """
        for index, piece in stream.pieces():
            at = dict(zip(self.block, index[1:-1], strict=True))
            size = dict(zip(self.block, piece.shape[1:-1], strict=True))
            ends = self.source, self.target
            read, written = ((index[0], *(at[letter] for letter in end)) for end in ends)
            source, target = (tuple(size[letter] for letter in end) for end in ends)
            part = Contraction(self.block, *ends, (source, target))
            places = (read, written) if along else (written, read)
            yield part, part.matrix(piece), index[-1], *places

    def gradients(
        self, matrix: Tensor, code: Tensor, channels: Tensor, gradient: Tensor, along: bool
    ) -> tuple[Tensor, Tensor]:
        """Gradients of :meth:`add` for the code and the channels, by that of its result."""
        reads, writes = (self._source, self._target) if along else (self._target, self._source)
        read, written = reads.grouped(channels), writes.grouped(gradient)
        of_code, of_channels = _gradients(matrix, code, read, written, along == self._into_rows)
        return of_code, reads.joined(of_channels, len(channels))


def _plus_product(
    matrix: Tensor, code: Tensor, channels: Tensor, total: Tensor, into_rows: bool
) -> Tensor:
    """Adds a product with a matrix (G, rows, columns * taps), or with its transpose."""
    if into_rows:
        return torch.baddbmm(total, matrix, _weighed(channels, code))
    if len(code) == 1:
        return torch.baddbmm(total, matrix.mT, channels * code)
    return total + _IntoColumns.apply(matrix, code, channels)


def _weighed(channels: Tensor, code: Tensor) -> Tensor:
    """Channels (G, columns, c) times the code of each tap: shape (G, columns * taps, c)."""
    return channels * code if len(code) == 1 else (channels.unsqueeze(2) * code).flatten(1, 2)


def mix(matrix: Tensor, codes: Tensor) -> Tensor:
    """Sums over the taps of a matrix (G, rows, columns * taps) for each of k codes (taps, k).

    Returns:
        Tensor of shape (k, G, rows, columns).
    """
    return _Mix.apply(matrix.unflatten(2, (-1, len(codes))), codes)


class _Mix(torch.autograd.Function):
    """A product with a few columns, and gradients that sum over groups last: five times as fast."""

    @staticmethod
    def forward(context: Any, kernel: Tensor, codes: Tensor) -> Tensor:
        context.save_for_backward(kernel, codes)
        # With ranks first, the product is several times as fast as with ranks last.
        return (codes.T @ kernel.flatten(0, -2).T).unflatten(1, kernel.shape[:-1])

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None]:
        kernel, codes = context.saved_tensors
        gradient = gradients[0].to(kernel)  # of another type after autocast
        of_kernel, of_codes = context.needs_input_grad
        by_group = gradient.transpose(0, 1).flatten(2)
        return (
            torch.einsum("kgrc,tk->grct", gradient, codes) if of_kernel else None,
            (by_group @ kernel.flatten(1, 2)).sum(0).T if of_codes else None,
        )


class _Mixed(torch.autograd.Function):
    """Products of the channels of each rank with its matrix (G, rows, columns), or its transpose.

    Products of few channels take half the time or less with channels before neurons.
    """

    @staticmethod
    def forward(context: Any, mixed: Tensor, channels: Tensor, into_rows: bool) -> Tensor:
        context.save_for_backward(mixed, channels)
        context.into_rows = into_rows
        matrix = mixed.flatten(0, 1)
        result = _by_rank(channels, len(mixed)) @ (matrix.mT if into_rows else matrix)
        return _side_by_side(result, len(mixed))

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        mixed, channels = context.saved_tensors
        ranks, matrix = len(mixed), mixed.flatten(0, 1)
        gradient, read = (_by_rank(t.to(mixed), ranks) for t in (gradients[0], channels))
        of_channels = _side_by_side(gradient @ (matrix if context.into_rows else matrix.mT), ranks)
        rows, columns = (gradient, read) if context.into_rows else (read, gradient)
        return (rows.mT @ columns).view(mixed.shape), of_channels, None


def _by_rank(channels: Tensor, ranks: int) -> Tensor:
    """From (G, neurons, c) to (ranks * G, c / ranks, neurons)."""
    return channels.unflatten(2, (ranks, -1)).permute(2, 0, 3, 1).flatten(0, 1)


def _side_by_side(channels: Tensor, ranks: int) -> Tensor:
    """Back to (G, neurons, c)."""
    return channels.unflatten(0, (ranks, -1)).permute(1, 3, 0, 2).flatten(2)


class _IntoColumns(torch.autograd.Function):
    """``Σ_t code_t ⊙ (Wᵀ y)_t``; the products of each tap are computed again, not kept."""

    @staticmethod
    def forward(context: Any, matrix: Tensor, code: Tensor, channels: Tensor) -> Tensor:
        context.save_for_backward(matrix, code, channels)
        return (_taps_of(matrix, code, channels) * code).sum(dim=2)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        kept: tuple[Tensor, ...] = context.saved_tensors
        matrix, code, channels = (tensor.to(kept[0]) for tensor in kept)
        gradient = gradients[0].to(matrix)  # of another type after autocast
        of_matrix = context.needs_input_grad[0]
        return (
            channels @ _weighed(gradient, code).mT if of_matrix else None,
            *_gradients(matrix, code, channels, gradient, into_rows=False),
        )


def _gradients(
    matrix: Tensor, code: Tensor, channels: Tensor, gradient: Tensor, into_rows: bool
) -> tuple[Tensor, Tensor]:
    """Gradients of a product with a matrix or its transpose, for the code and the channels."""
    if len(code) == 1 and not into_rows:  # so that one product serves both
        matrix, into_rows = matrix.mT, True
    if into_rows:
        products = _taps_of(matrix, code, gradient)
        return (products * channels.unsqueeze(2)).sum(dim=(0, 1)), (products * code).sum(dim=2)
    products = gradient.unsqueeze(2) * _taps_of(matrix, code, channels)
    return products.sum(dim=(0, 1)), matrix @ _weighed(gradient, code)


def _taps_of(matrix: Tensor, code: Tensor, channels: Tensor) -> Tensor:
    """Products of each tap, shape (G, columns, taps, c)."""
    return (matrix.mT @ channels).unflatten(1, (-1, len(code)))


class _Streamed(torch.autograd.Function):
    """A total and messages of a block that is read in pieces, again for their gradients."""

    @staticmethod
    def forward(
        context: Any,
        contraction: Contraction,
        stream: Stream,
        code: Tensor,
        channels: Tensor,
        total: Tensor,
        along: bool,
    ) -> Tensor:
        # Values are kept with the tensors so that a change in place is noticed.
        context.save_for_backward(code, channels, stream.values)
        context.contraction, context.stream, context.along = contraction, stream, along
        read, result = contraction.split(channels, along), total.clone()
        written = contraction.split(result, not along)
        for part, matrix, taps, here, there in contraction.parts(stream, along):
            ends = read[here].flatten(1, -2), written[there].flatten(1, -2)
            added = part.add(matrix, code[taps], *ends, along)
            written[there] = part.split(added, not along)
        return result

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        contraction, stream, along = context.contraction, context.stream, context.along
        # Of another type after autocast.
        code, channels, gradient = (
            tensor.to(stream.dtype) for tensor in (*context.saved_tensors[:2], *gradients)
        )
        read, written = contraction.split(channels, along), contraction.split(gradient, not along)
        of_code, of_channels = torch.zeros_like(code), torch.zeros_like(read)
        for part, matrix, taps, here, there in contraction.parts(stream, along):
            ends = read[here].flatten(1, -2), written[there].flatten(1, -2)
            added = part.gradients(matrix, code[taps], *ends, along)
            of_code[taps] += added[0]
            of_channels[here] += part.split(added[1], along)
        return None, None, of_code, of_channels.flatten(1, -2), gradients[0], None
