"""The order of numbers on the CPU is that of torch.sort."""

from __future__ import annotations

import pytest
import torch

from gmn.transport.ordering import order, ordered

INFINITE = float("inf")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("shape", [(1,), (7, 33), (2, 3, 65), (5, 1000)])
def test_numbers_come_in_order(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    places = order(values)
    assert places.dtype == torch.int64
    assert torch.equal(values.gather(-1, places), values.sort(-1).values)
    counts = torch.arange(shape[-1]).expand(shape)
    assert torch.equal(places.sort(-1).values, counts)


def test_extremes() -> None:
    small = torch.finfo(torch.float32).smallest_normal
    values = torch.tensor([1e38, -0.0, -small, small / 2, -INFINITE, 0.0, -1e38, INFINITE, small])
    assert torch.equal(ordered(values), values.sort().values)
    assert torch.equal(ordered(values[1:2]), values[1:2])


def test_equal_numbers_stay_in_their_order() -> None:
    values = torch.tensor([[2.0, 1.0, 2.0, 1.0, 2.0]])
    assert order(values).tolist() == [[1, 3, 0, 2, 4]]


def test_strides_and_gradients() -> None:
    values = torch.randn(4, 6, generator=torch.Generator().manual_seed(1)).T.requires_grad_()
    weights = torch.arange(4.0)
    (ordered(values) * weights).sum().backward()
    assert torch.equal(values.grad, values.argsort(-1).argsort(-1).float())
