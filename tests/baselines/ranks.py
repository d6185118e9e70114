"""How many maps the weights of a layer span."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn


def rank_of(mix: nn.ModuleList, answer: Callable[[], Iterable[Tensor]]) -> int:
    """Dimension of the space of maps that a layer's weights span.

    Args:
        mix: the layer's linear maps; zero afterwards.
        answer: what the layer makes of values of random networks, of more networks than there
            are numbers that one output reads.
    """
    columns = []
    with torch.no_grad():
        for parameter in mix.parameters():
            parameter.zero_()
        for linear in mix:
            for place in range(linear.weight.numel()):
                linear.weight.view(-1)[place] = 1
                columns.append(torch.cat([value.flatten() for value in answer()]))
                linear.weight.view(-1)[place] = 0
    return int(torch.linalg.matrix_rank(torch.stack(columns)))
