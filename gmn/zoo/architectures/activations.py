"""The activations of published networks, by their names in configurations."""

from __future__ import annotations

from torch import nn

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "silu": nn.SiLU,
    "leaky-relu": nn.LeakyReLU,
    "identity": nn.Identity,
}
SPELLINGS = {"leakyrelu": "leaky-relu", "swish": "silu", "none": "identity", "linear": "identity"}


def activation_name(published: object) -> str:
    """The key of ``ACTIVATIONS`` that a configuration means, such as ``"leaky-relu"``.

    Case, underscores and the ``nn.`` of classes do not matter; None is the identity.

    Raises:
        ValueError: If it is none of them.

    >>> activation_name("nn.LeakyReLU"), activation_name(None)
    ('leaky-relu', 'identity')
    """
    plain = str(published).lower().rpartition(".")[2].removesuffix("()").replace("_", "-")
    for name in (plain, SPELLINGS.get(plain.replace("-", ""), "")):
        if name in ACTIVATIONS:
            return name
    raise ValueError(f"no activation {published!r} is known; known: {', '.join(ACTIVATIONS)}")
