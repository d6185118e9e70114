"""Small example networks with inputs, for the command line and for trying things."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from gmn.zoo.architectures.networks import network

Example = tuple[nn.Module, tuple[Tensor, ...]]


class _Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.shortcut = nn.Conv2d(inputs, outputs, 1, stride) if stride > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(torch.relu(self.norm1(self.conv1(x)))))
        return torch.relu(y + self.shortcut(x))


def _resnet() -> Example:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.ReLU(),
        _Residual(8, 8, 1),
        _Residual(8, 16, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 10),
    )
    return model, (torch.randn(2, 3, 16, 16),)


def _mlp() -> Example:
    model = nn.Sequential(
        nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 3)
    )
    return model, (torch.randn(5, 4),)


def _cnn(architecture: str) -> Callable[[], Example]:
    return lambda: (network(architecture), (torch.randn(2, 1, 14, 14),))


EXAMPLES: dict[str, Callable[[], Example]] = {
    "mlp": _mlp,
    "resnet": _resnet,
    "cnn-relu": _cnn("cnn-relu"),
    "cnn-tanh": _cnn("cnn-tanh"),
}
