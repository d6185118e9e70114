"""What a model is called with: factories of random inputs, found by trying."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

Factory = Callable[[torch.Generator], Tensor]


@dataclass(frozen=True)
class Model:
    """A module with random weights that can be called.

    Attributes:
        module: takes positional tensors and gives a tuple of tensors, in evaluation mode.
        factories: make its inputs.
    """

    module: nn.Module
    factories: tuple[Factory, ...]

    def inputs(self, seed: int) -> tuple[Tensor, ...]:
        """Random inputs."""
        generator = torch.Generator().manual_seed(seed)
        return tuple(make(generator) for make in self.factories)


def numbers(*shape: int) -> Factory:
    """Normal numbers of a shape."""
    return lambda generator: torch.randn(shape, generator=generator)


def tokens(*shape: int, below: int = 50) -> Factory:
    """Ordinary tokens of a shape."""
    return lambda generator: torch.randint(3, below, shape, generator=generator)


def with_images(token: int, count: int) -> Factory:
    """Two texts that begin with an image: so many tokens that stand for parts of it."""

    def make(generator: torch.Generator) -> Tensor:
        text = torch.randint(3, 50, (2, 5), generator=generator)
        return torch.cat([text[:, :1], torch.full((2, count), token), text[:, 1:]], 1)

    return make


def ones(*shape: int) -> Factory:
    """Ones of a shape, as a mask has them."""
    return lambda _: torch.ones(shape)


class AllOutputs(nn.Module):
    """Calls a module with named inputs and gives all floating-point tensors that it returns.

    Caches are no tensors and are left out.
    """

    def __init__(self, model: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        result = self.model(**dict(zip(self.names, values, strict=True)))
        return floating(result.to_tuple() if hasattr(result, "to_tuple") else result)


class AllTensors(nn.Module):
    """Calls a module with positional inputs and gives all floating-point tensors it returns."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        return floating(self.model(*values))


def floating(result: object) -> tuple[Tensor, ...]:
    """The floating-point and complex tensors in nested results."""
    leaves = [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, Tensor)]
    return tuple(leaf for leaf in leaves if leaf.is_floating_point() or leaf.is_complex())


class NoInputError(Exception):
    """No combination of inputs that was tried is accepted."""


def callable_model(module: nn.Module, choices: Iterator[Mapping[str, Factory]]) -> Model:
    """The module with the first named inputs that it accepts.

    Args:
        module: in evaluation mode.
        choices: inputs to try, best first.

    Raises:
        NoInputError: if it accepts none; with what it said to the first.
    """
    first = "no kind of input is known"
    for number, named in enumerate(itertools.islice(choices, 40)):
        found = Model(AllOutputs(module, tuple(named)).eval(), tuple(named.values()))
        try:
            with torch.no_grad():
                outputs = found.module(*found.inputs(0))
        except Exception as error:
            if number == 0:
                first = f"{', '.join(named)}: {type(error).__name__}: {error}"
            continue
        if outputs and all(bool(each.isfinite().all()) for each in outputs):
            return found
        first = first if number else f"{', '.join(named)}: outputs are empty or not finite"
    raise NoInputError(" ".join(first.split())[:300])


def combined(options: Mapping[str, list[Any]]) -> Iterator[dict[str, Any]]:
    """Every way to choose one option per name; the first names change slowest."""
    for chosen in itertools.product(*options.values()):
        yield dict(zip(options, chosen, strict=True))
