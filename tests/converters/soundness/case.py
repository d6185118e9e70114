"""Small modules on which inference of symmetries may go wrong, with what is true of them.

A case says which symmetries its module has and the tracer must find (`law`, see laws.py; a test
shows each on the module), whether it may be refused, and which change of its state dict
metanetworks must notice. That no claim about it is false goes without saying.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .laws import Law, law

Linear, Norm = nn.Linear, nn.LayerNorm
attention = F.scaled_dot_product_attention
Change = Callable[[Tensor], Tensor]
Inputs = tuple[tuple[int, ...], ...]  # the shape of the example, then those of fresh inputs


@dataclass(frozen=True)
class Case:
    """A module and the truth about it.

    Attributes:
        kind: what the module puts to the test.
        name: a few words, unique within the kind.
        build: makes the module.
        example: makes the inputs that it is traced with.
        fresh: make other inputs: other batch sizes, lengths, magnitudes.
        laws: symmetries that it has and that must be found.
        sees: entries and changes of them that change the function, as metanetworks must notice.
        may_refuse: whether a TraceError is an answer, too.
        stochastic: whether it draws random numbers. It is compared under equal seeds, so
            permutations, which are symmetries in distribution only, are left out.
    """

    kind: str
    name: str
    build: Callable[[], nn.Module]
    example: Callable[[], tuple[Tensor, ...]]
    fresh: tuple[Callable[[], tuple[Tensor, ...]], ...]
    laws: tuple[Law, ...] = ()
    sees: tuple[tuple[str, Change], ...] = ()
    may_refuse: bool = False
    stochastic: bool = False

    def __str__(self) -> str:
        return f"{self.kind}: {self.name}"


class Net(nn.Module):
    """A module from its forward function, which gets the module and the inputs, and its parts."""

    def __init__(self, forward: Callable[..., object], **parts: nn.Module | Tensor) -> None:
        super().__init__()
        self.function = forward
        for name, part in parts.items():
            if isinstance(part, Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)
        self.eval()

    def forward(self, *inputs: Tensor) -> object:
        return self.function(self, *inputs)


CASES: list[Case] = []


def case(
    kind: str,
    name: str,
    inputs: Sequence[Callable[[], tuple[Tensor, ...]]],
    build: Callable[[], nn.Module],
    *laws: Law,
    sees: dict[str, Change] | None = None,
    may_refuse: bool = False,
    stochastic: bool = False,
) -> None:
    """Adds a case."""
    example, *fresh = inputs
    seen = tuple((sees or {}).items())
    CASES.append(Case(kind, name, build, example, (*fresh,), laws, seen, may_refuse, stochastic))


def drawn(*shapes: tuple[int, ...]) -> list[Callable[[], tuple[Tensor, ...]]]:
    """Example and fresh inputs of these shapes; the fresh ones at several magnitudes."""
    scales = (1.0, 1.0, 8.0, 0.1)
    return [
        lambda shape=shape, scale=scale: (scale * torch.randn(shape),)
        for shape, scale in zip(shapes, scales, strict=False)
    ]


def tokens(count: int, *lengths: int) -> list[Callable[[], tuple[Tensor, ...]]]:
    """Example and fresh indices below a number."""
    return [lambda n=n: (torch.randint(0, count, (n, lengths[0])),) for n in (2, 7)]


def nodes(width: int) -> list[Callable[[], tuple[Tensor, ...]]]:
    """Example and fresh nodes with five edges."""
    ends = torch.tensor([[0, 1, 2, 3, 0], [1, 2, 3, 0, 2]])
    return [lambda n=n, e=e: (torch.randn(n, width), e) for n, e in ((4, ends), (6, ends.flip(0)))]


def P(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(shape))


def fixed(value: Tensor) -> nn.Parameter:
    """A parameter that gradients do not reach: integers, booleans."""
    return nn.Parameter(value, requires_grad=False)


def between(*activation: Callable[..., Tensor], **more: Callable[[], object]) -> Callable[[], Net]:
    """Layers a (5 to 8) and o (8 to 3) with something between them, which may take the module."""
    (act,) = activation
    parts = {"a": lambda: Linear(5, 8), "o": lambda: Linear(8, 3), **more}
    arity = act.__code__.co_argcount if hasattr(act, "__code__") else 1
    forward = (lambda m, x: m.o(act(m.a(x)))) if arity == 1 else (lambda m, x: m.o(act(m, m.a(x))))
    return lambda: Net(forward, **{name: part() for name, part in parts.items()})


def network(forward: Callable[..., object], **more: Callable[[], object]) -> Callable[[], Net]:
    """Layers a (5 to 8) and o (8 to 3) in a forward function."""
    parts = {"a": lambda: Linear(5, 8), "o": lambda: Linear(8, 3), **more}
    return lambda: Net(forward, **{name: part() for name, part in parts.items()})


def qkvo(width: int = 8) -> dict[str, nn.Module]:
    return {name: Linear(width, width) for name in "qkvo"}


def heads(z: Tensor) -> Tensor:
    """(batch, length, 2 * width) as (batch, 2, length, width)."""
    return z.unflatten(-1, (2, -1)).transpose(1, 2)


def joined(z: Tensor) -> Tensor:
    return z.transpose(1, 2).flatten(2)


def neurons(by: str, power: int = -1) -> Law:
    """The hidden neurons between a and o; o undoes the scale of a to a power."""
    return law(f"a.weight 0, a.bias 0, o.weight 1 {power:+d}", by)


def normed(by: str = "permutation") -> Law:
    """The hidden neurons between a and o with a norm n between them."""
    return law("a.weight 0, a.bias 0, n.weight 0, n.bias 0, o.weight 1", by)


V = drawn((2, 5), (3, 5), (7, 5), (4, 5))
S = drawn((2, 4, 8), (3, 4, 8), (2, 9, 8))
S5 = drawn((2, 5, 8), (3, 5, 8), (4, 5, 8))
IMAGES = drawn((2, 3, 8, 8), (3, 3, 8, 8), (5, 3, 8, 8))
N8 = {"n": lambda: Norm(8)}
GAIN = {"g": lambda: torch.linspace(0.5, 2, 8)}
HEADS = law(
    "q.weight 0 as 2x4x8, q.bias 0 as 2x4, k.weight 0 as 2x4x8, k.bias 0 as 2x4, "
    "v.weight 0 as 2x4x8, v.bias 0 as 2x4, o.weight 1 as 8x2x4",
    "permutation",
)
VALUES = law("v.weight 1 as 2x4x8, v.bias 1 as 2x4, o.weight 2 -1 as 8x2x4", "general")
ALONE = law("v.weight 0, v.bias 0, o.weight 1 -1", "general")  # one head
