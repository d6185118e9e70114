"""Messages through one block are the sums that they stand for."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from gmn.canonical.shifts import Change
from gmn.graph import pieces
from gmn.nn.dual.contraction import Contraction, _IntoColumns, _Mix, _Mixed, mix
from gmn.nn.dual.stream import Stream

SIZES = {"A": 3, "B": 4, "C": 2, "D": 5, "E": 2}
TAPS, WIDTH, BATCH = 3, 4, 2
# Letters of a block, of the neurons that are read, and of those that are written.
FORMS = [
    ("AB", "B", "A"),  # a linear layer
    ("AB", "A", "B"),  # one whose inputs come first
    ("ABC", "C", "AB"),  # heads
    ("BAC", "C", "AB"),  # heads in another order
    ("ABC", "AB", "AC"),  # groups
    ("BAC", "BA", "AC"),  # groups of which the source has them last
    ("CAB", "AB", "CA"),
    ("A", "A", "A"),  # one weight per neuron
    ("AD", "A", "A"),  # a dimension that indexes neither end
    ("AB", "AB", "A"),  # nothing but groups at the target
    ("ABCE", "CE", "AB"),
]


def tensors(form: tuple[str, str, str], taps: int) -> tuple[Contraction, tuple[Tensor, ...]]:
    """The contraction, and a block, a code, and channels of both ends."""
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    block, source, target = form
    shapes = [tuple(SIZES[letter] for letter in letters) for letters in form]
    counts = [torch.Size(shape).numel() for shape in shapes]
    contraction = Contraction(block, source, target, (shapes[1], shapes[2]))
    return contraction, (
        random(BATCH, *shapes[0], taps),
        random(taps, WIDTH),
        random(BATCH, counts[1], WIDTH),
        random(BATCH, counts[2], WIDTH),
    )


def expected(
    form: tuple[str, str, str], block: Tensor, code: Tensor, channels: Tensor, along: bool
) -> Tensor:
    """Sums over taps and one end, by einsum."""
    read, written = (form[1], form[2]) if along else (form[2], form[1])
    split = channels.reshape(len(channels), *(SIZES[letter] for letter in read), WIDTH)
    subscripts = f"b{form[0]}t,tw,b{read}w->b{written}w"
    return torch.einsum(subscripts, block, code, split).reshape(len(channels), -1, WIDTH)


@pytest.mark.parametrize("taps", [1, TAPS])
@pytest.mark.parametrize("form", FORMS, ids="-".join)
def test_messages_are_sums(form: tuple[str, str, str], taps: int) -> None:
    contraction, (block, code, source, target) = tensors(form, taps)
    matrix = contraction.matrix(block)
    for total, channels, along in ((target, source, True), (source, target, False)):
        wanted = total + expected(form, block, code, channels, along)
        torch.testing.assert_close(contraction.add(matrix, code, channels, total, along), wanted)


@pytest.mark.parametrize("form", FORMS, ids="-".join)
def test_messages_with_mixed_taps_are_sums(form: tuple[str, str, str]) -> None:
    contraction, (block, code, source, target) = tensors(form, TAPS)
    ranks = code[:, :2]
    wide = ranks.repeat_interleave(WIDTH // 2, dim=1)
    mixed = mix(contraction.matrix(block), ranks)
    for total, channels, along in ((target, source, True), (source, target, False)):
        wanted = total + expected(form, block, wide, channels, along)
        torch.testing.assert_close(contraction.mixed(mixed, channels, total, along), wanted)


@pytest.mark.parametrize("taps", [1, TAPS])
@pytest.mark.parametrize("form", FORMS, ids="-".join)
def test_every_tap_of_a_kernel_reads_what_it_sees(form: tuple[str, str, str], taps: int) -> None:
    contraction, (block, _, source, target) = tensors(form, taps)
    matrix, one = contraction.matrix(block), torch.ones(1, WIDTH).double()
    seen = torch.randn(*source.shape[:2], taps, WIDTH, dtype=torch.float64)
    wanted, back = target, []
    for tap in range(taps):
        part = block[..., tap : tap + 1]
        wanted = wanted + expected(form, part, one, seen[:, :, tap], True)
        back.append(expected(form, part, one, target, False))
    torch.testing.assert_close(contraction.add_seen(matrix, seen, target), wanted)
    torch.testing.assert_close(
        contraction.back_seen(matrix, taps, target), torch.stack(back, dim=2)
    )


@pytest.mark.parametrize("form", FORMS, ids="-".join)
def test_streamed_messages_are_sums(
    form: tuple[str, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "PIECE", 5)
    contraction, (block, code, source, target) = tensors(form, TAPS)
    stream = Stream(block.to(torch.float32), Change(), torch.float64)
    block = stream.full()
    for total, channels, along in ((target, source, True), (source, target, False)):
        before = total.clone()
        wanted = total + expected(form, block, code, channels, along)
        torch.testing.assert_close(contraction.stream(stream, code, channels, total, along), wanted)
        assert torch.equal(total, before)


@pytest.mark.parametrize("along", [True, False])
@pytest.mark.parametrize(("form", "taps"), [(form, 1) for form in FORMS] + [(FORMS[5], TAPS)])
def test_gradients_of_streamed_messages(
    form: tuple[str, str, str], taps: int, along: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pieces, "PIECE", 5)
    contraction, (block, code, source, target) = tensors(form, taps)
    stream = Stream(block.to(torch.float32), Change(), torch.float64)
    ends = (source, target) if along else (target, source)
    inputs = [tensor.requires_grad_() for tensor in (code, *ends)]

    def messages(*tensors: Tensor) -> Tensor:
        return contraction.stream(stream, *tensors, along)

    assert torch.autograd.gradcheck(messages, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(messages, inputs, fast_mode=True)


def test_a_linear_layer_is_a_view_of_its_block() -> None:
    for form in FORMS[:2]:
        contraction, (block, *_) = tensors(form, TAPS)
        assert contraction.matrix(block).data_ptr() == block.data_ptr()


def test_gradients_of_products_that_are_computed_again() -> None:
    contraction, (block, code, _, target) = tensors(FORMS[0], TAPS)
    inputs = [contraction.matrix(block), code, target]
    for tensor in inputs:
        tensor.requires_grad_()
    assert torch.autograd.gradcheck(_IntoColumns.apply, inputs)
    assert torch.autograd.gradgradcheck(_IntoColumns.apply, inputs)


def test_gradients_of_mixed_taps() -> None:
    contraction, (block, code, *_) = tensors(FORMS[0], TAPS)
    inputs = [contraction.matrix(block).unflatten(2, (-1, TAPS)), code]
    for tensor in inputs:
        tensor.requires_grad_()
    assert torch.autograd.gradcheck(_Mix.apply, inputs)
    assert torch.autograd.gradgradcheck(_Mix.apply, inputs)


@pytest.mark.parametrize("into_rows", [True, False])
def test_gradients_of_products_by_rank(into_rows: bool) -> None:
    contraction, (block, code, source, target) = tensors(FORMS[0], TAPS)
    mixed = mix(contraction.matrix(block), code[:, :2]).detach().requires_grad_()
    channels = (source if into_rows else target).requires_grad_()
    assert torch.autograd.gradcheck(_Mixed.apply, (mixed, channels, into_rows))
    assert torch.autograd.gradgradcheck(_Mixed.apply, (mixed, channels, into_rows))
