"""The network of the Small Transformer Zoo (Tran et al. 2025, arXiv 2410.04209), vision half."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTH, HEADS = 32, 2


class SmallTransformerBlock(nn.Module):
    """Attention, then two layers with a ReLU between; no skip connections, norms without weights.

    The published blocks have none of the usual skip connections, and their attention no biases.

    A share of the outputs of attention and of the two layers can be dropped in training.
    """

    def __init__(self) -> None:
        super().__init__()
        self.queries = nn.Linear(WIDTH, WIDTH, bias=False)
        self.keys = nn.Linear(WIDTH, WIDTH, bias=False)
        self.values = nn.Linear(WIDTH, WIDTH, bias=False)
        self.out_projection = nn.Linear(WIDTH, WIDTH, bias=False)
        self.fc1 = nn.Linear(WIDTH, 2 * WIDTH)
        self.fc2 = nn.Linear(2 * WIDTH, WIDTH)
        self.dropout = nn.Dropout(0.0)

    def forward(
        self,
        x: Tensor,  # shape: (batch, tokens, 32)
    ) -> Tensor:  # shape: (batch, tokens, 32)
        """What the next block reads."""
        normed = functional.layer_norm(x, (WIDTH,))
        heads = [
            layer(normed).unflatten(2, (HEADS, WIDTH // HEADS)).transpose(1, 2)
            for layer in (self.queries, self.keys, self.values)
        ]
        mixed = functional.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
        x = functional.layer_norm(self.dropout(self.out_projection(mixed)), (WIDTH,))
        return self.dropout(self.fc2(functional.relu(self.fc1(x))))


class SmallTransformer(nn.Module):
    """Patches, fixed sinusoidal positions, two blocks, mean over tokens, two layers.

    The positions are those of Vaswani et al. 2017, sines and cosines in turn; files do not hold
    them. By default the published network: images of 28 × 28 in 49 patches.

    Args:
        side: height and width of the images.
        patch: height and width of a patch.
        padding: rows of zeros around an image, where patches would not fit in.
        centred: whether images in [0, 1] are brought to [-1, 1] first; the publication does that
            before the network.

    >>> sum(p.numel() for p in SmallTransformer().parameters())
    18506
    """

    positions: Tensor

    def __init__(
        self, side: int = 28, patch: int = 4, padding: int = 0, centred: bool = False
    ) -> None:
        super().__init__()
        self.embedding = nn.Conv2d(1, WIDTH, kernel_size=patch, stride=patch, padding=padding)
        self.block1 = SmallTransformerBlock()
        self.block2 = SmallTransformerBlock()
        self.fc1 = nn.Linear(WIDTH, WIDTH)
        self.fc2 = nn.Linear(WIDTH, 10)
        self.dropout = nn.Dropout(0.0)
        self.centred = centred
        tokens = ((side + 2 * padding) // patch) ** 2
        self.register_buffer("positions", _sinusoids(tokens), persistent=False)

    def forward(
        self,
        images: Tensor,  # shape: (batch, 1, side, side)
    ) -> Tensor:  # shape: (batch, 10)
        """Class scores of each image."""
        if self.centred:
            images = 2 * images - 1
        patches = self.embedding(images).flatten(2).transpose(1, 2)
        x = self.dropout(patches + self.positions)
        x = self.block2(self.block1(x))
        return self.fc2(functional.relu(self.fc1(x.mean(1))))


def _sinusoids(tokens: int) -> Tensor:
    """Positions, shape (tokens, width)."""
    rates = torch.exp(-torch.arange(0, WIDTH, 2) / WIDTH * torch.log(torch.tensor(10_000.0)))
    angles = torch.arange(tokens).unsqueeze(1) * rates
    return torch.stack([angles.sin(), angles.cos()], dim=2).flatten(1)
