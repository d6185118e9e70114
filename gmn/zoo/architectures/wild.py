"""Random architectures after the CNN Wild Park (Kofinas et al. 2024, arXiv 2403.12143)."""

from __future__ import annotations

import torch

from gmn.zoo.architectures.wild_network import WildLayer, wild_name

DEEPEST = 5
WIDTHS = (4, 8, 16, 32)
KERNELS = (3, 5, 7)
ACTIVATIONS = ("relu", "gelu", "tanh", "sigmoid", "leaky-relu", "identity")
SKIPPING = 0.3  # of the layers that have an earlier one to skip from


def wild_architectures(count: int) -> tuple[str, ...]:
    """Names of different CNNs for images of one channel and ten classes, always the same.

    Depth, and of each layer width, kernel and activation, are uniform and independent; a layer
    adds the output of any earlier one, or the image, with probability 0.3.

    Args:
        count: how many; the first ones do not depend on it.

    Returns:
        Names that :func:`gmn.zoo.architectures.networks.network` knows.

    >>> wild_architectures(1)
    ('1/8k3-gelu/32k5-gelu/8k7-relu/16k7-relu+0/8k7-identity+3/10',)
    """
    generator = torch.Generator().manual_seed(0)
    names: dict[str, None] = {}
    while len(names) < count:
        depth = 1 + _draw(DEEPEST, generator)
        layers = tuple(_layer(index, generator) for index in range(depth))
        names[wild_name(1, layers, 10)] = None
    return tuple(names)


def _layer(index: int, generator: torch.Generator) -> WildLayer:
    skips = float(torch.rand((), generator=generator)) < SKIPPING
    return WildLayer(
        WIDTHS[_draw(len(WIDTHS), generator)],
        KERNELS[_draw(len(KERNELS), generator)],
        ACTIVATIONS[_draw(len(ACTIVATIONS), generator)],
        _draw(index, generator) if index and skips else None,
    )


def _draw(bound: int, generator: torch.Generator) -> int:
    return int(torch.randint(bound, (), generator=generator))
