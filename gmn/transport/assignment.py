"""Exact optimal transport between clouds of equally many points, by assignment."""

from __future__ import annotations

import torch
from torch import Tensor

from gmn.foundation.arguments import require_number
from gmn.transport.clouds import check


def assignment(
    x: Tensor,  # shape: (..., n, d)
    y: Tensor,  # shape: (..., n, d)
    p: float = 2,
) -> Tensor:
    """For each point of the first cloud, the index of its partner in the second.

    The sum of distances to the p-th power is the smallest there is (``scipy``'s
    ``linear_sum_assignment``, of cubic cost in n).

    Args:
        x: points, shape (..., n, d).
        y: points, shape (..., n, d).
        p: power of Euclidean distances.

    Returns:
        int64 numbers, shape (..., n), on the device of the points.

    Raises:
        ValueError: if shapes do not fit, or numbers are not finite.
    """
    from scipy.optimize import linear_sum_assignment  # takes long to import

    check(x, y)
    require_number("p", p, above=0)
    if x.shape != y.shape:
        raise ValueError(
            f"{x.shape[-2]} points cannot be assigned to {y.shape[-2]} one by one; slice them, or "
            "solve the exact problem with POT's ot.emd2"
        )
    costs = torch.cdist(x.detach().double(), y.detach().double()) ** p
    flat = costs.reshape(-1, *costs.shape[-2:]).cpu().numpy()
    partners = [torch.from_numpy(linear_sum_assignment(cost)[1]) for cost in flat]
    return torch.stack(partners).view(x.shape[:-1]).to(x.device)


def assigned_wasserstein(
    x: Tensor,  # shape: (..., n, d)
    y: Tensor,  # shape: (..., n, d)
    *,
    p: float = 2,
    root: bool = True,
) -> Tensor:
    """The exact Wasserstein distance of order p between clouds of n points of equal weight.

    Args:
        x: points, shape (..., n, d).
        y: points, shape (..., n, d).
        p: order of the distance.
        root: False for the p-th power, whose gradient is finite where clouds are equal.

    Returns:
        Shape (...); differentiable in the points.

    Raises:
        ValueError: if shapes do not fit, or numbers are not finite.
    """
    partner = assignment(x, y, p).unsqueeze(-1).expand(x.shape)
    squares = (x - y.gather(-2, partner)).square().sum(-1)
    powers = (squares if p == 2 else squares ** (p / 2)).mean(-1)
    return powers ** (1 / p) if root else powers
