"""Symmetries written down by hand, and what acting with them does to a state dict.

A law names entries, the dimension of each along which it acts, and a power:

    law("a.weight 0, a.bias 0, o.weight 1 -1", by="permutation positive")

says that the rows of `a.weight`, the entries of `a.bias` and the columns of `o.weight` may be put
in any order together, and that rows and entries may be multiplied by positive numbers by whose
inverse the columns are. `a.weight 1 as 2x4x5` acts along dimension 1 of the entry in that shape,
`w[:8]` on its first rows. Without a dimension one number acts on the whole entry. What each kind
does with a power k: positive and sign multiply by s ** k; orthogonal and general multiply by a
matrix, or by its inverse transposed if k < 0; shift adds k t, t varying along the dimension only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import torch
from torch import Tensor

_TERM = re.compile(
    r"(?P<entry>[\w.]+)(?:\[(?P<first>\d*):(?P<last>\d*)\])?(?: (?P<dim>\d+))?"
    r"(?: (?P<power>-\d+|\+\d+))?(?: as (?P<shape>[\dx]+))?"
)


@dataclass(frozen=True)
class Term:
    """Where and how a law acts on one entry."""

    entry: str
    rows: slice
    dim: int | None
    power: int
    shape: tuple[int, ...] | None


@dataclass(frozen=True)
class Law:
    """One symmetry of a module: terms that move together."""

    terms: tuple[Term, ...]
    kinds: tuple[str, ...]

    @property
    def entries(self) -> set[str]:
        return {term.entry for term in self.terms}

    def act(
        self, kind: str, state: dict[str, Tensor], generator: torch.Generator
    ) -> dict[str, Tensor]:
        """The state dict after a random element of this kind."""
        moved = {name: value.clone() for name, value in state.items()}
        parts = [_part(moved, term) for term in self.terms]
        sizes = {
            1 if term.dim is None else part.shape[term.dim]
            for term, part in zip(self.terms, parts, strict=True)
        }
        if len(sizes) > 1:
            raise ValueError(f"a law acts along dimensions of sizes {sorted(sizes)}")
        element = _element(kind, sizes.pop(), generator)
        for term, part in zip(self.terms, parts, strict=True):
            part.copy_(_moved(kind, part.clone(), term, element))
        return moved


def law(terms: str, by: str) -> Law:
    """Reads a law."""
    return Law(tuple(map(_read, terms.split(", "))), tuple(by.split()))


def _read(text: str) -> Term:
    found = _TERM.fullmatch(text)
    if found is None:
        raise ValueError(f"not a term of a law: {text}")
    first, last, dim, power, shape = found.group("first", "last", "dim", "power", "shape")
    return Term(
        found["entry"],
        slice(int(first) if first else None, int(last) if last else None),
        None if dim is None else int(dim),
        int(power or 1),
        None if shape is None else tuple(map(int, shape.split("x"))),
    )


def _part(state: dict[str, Tensor], term: Term) -> Tensor:
    value = state[term.entry]
    value = value[term.rows] if value.dim() else value
    return value if term.shape is None else value.view(term.shape)


def _element(kind: str, size: int, generator: torch.Generator) -> Tensor:
    noise = torch.randn(size, size, generator=generator, dtype=torch.float64)
    if kind == "permutation":
        return noise[0].argsort()
    if kind in ("orthogonal", "general"):
        return torch.linalg.qr(noise).Q if kind == "orthogonal" else noise + 2 * torch.eye(size)
    if kind == "positive":
        return (0.5 * noise[0]).exp()
    return noise[0].sign() if kind == "sign" else noise[0]


def _moved(kind: str, part: Tensor, term: Term, element: Tensor) -> Tensor:
    if kind == "permutation":
        return part.index_select(term.dim or 0, element)
    if kind in ("orthogonal", "general"):
        matrix = element if term.power > 0 else element.inverse().mT
        return (
            (matrix.to(part.dtype) @ part.movedim(term.dim or 0, -2)).movedim(-2, term.dim or 0)
            if part.dim() > 1
            else matrix @ part
        )
    shape = [-1 if place == term.dim else 1 for place in range(part.dim())]
    spread = element.view(shape) if part.dim() else element[0]
    return part + term.power * spread if kind == "shift" else part * spread**term.power
