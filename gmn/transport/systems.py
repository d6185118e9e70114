"""Samples systems of lines (trees) onto which clouds are projected."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from gmn.foundation.arguments import require_type, require_whole

Kind = Literal["concurrent", "chain"]
ROOT_SPREAD = 0.1


@dataclass(frozen=True)
class Systems:
    """Trees of k lines each in d dimensions (Tran et al. 2025, arXiv 2406.13725, section 3).

    Everything is in units of a cloud's scale and relative to its centre, so that the same systems
    serve clouds anywhere. Line l of a tree starts at ``offsets[l]`` and runs along
    ``directions[l]``; the next line starts on it at the coordinate ``steps[l]``.

    Attributes:
        directions: of length 1, shape (trees, lines, d).
        offsets: where lines start, shape (trees, lines, d).
        steps: coordinates on each line at which the next one starts, shape (trees, lines), that of
            the last line without meaning; None for lines through one point.
    """

    directions: Tensor
    offsets: Tensor
    steps: Tensor | None

    @classmethod
    def sample(
        cls,
        dimension: int,
        trees: int = 25,
        lines: int = 4,
        kind: Kind = "concurrent",
        *,
        orthogonal: bool = False,
        generator: torch.Generator | None = None,
    ) -> Systems:
        """Draws independent systems, in float64 on the CPU.

        Args:
            dimension: d, dimension of the points.
            trees: number of systems.
            lines: number of lines of each system.
            kind: ``"concurrent"`` for lines through one point near the centre (normal, a tenth of
                the scale; Db-TSW, arXiv 2503.11050), ``"chain"`` for Algorithm 1 of TSW-SL:
                a first point and steps from one line to the next, uniform in [-1, 1].
            orthogonal: whether the lines of a system are orthogonal to each other.
            generator: the source of chance, on the CPU.

        Raises:
            ValueError: if a number is not positive, the kind is unknown, or more lines shall be
                orthogonal than there are dimensions.
        """
        for name, count in (("dimension", dimension), ("trees", trees), ("lines", lines)):
            require_whole(name, count, 1)
        if generator is not None:
            require_type("generator", generator, torch.Generator, "a torch.Generator")
        if orthogonal and lines > dimension:
            raise ValueError(f"{lines} lines cannot be orthogonal in {dimension} dimensions")
        normal = _normal(generator, trees, dimension, lines)
        if orthogonal:
            # Signs of R's diagonal make Q uniform (Mezzadri 2007).
            q, r = torch.linalg.qr(normal)
            normal = q * r.diagonal(dim1=1, dim2=2).sign().unsqueeze(1)
        directions = torch.nn.functional.normalize(normal, dim=1).mT.contiguous()
        if kind == "concurrent":
            root = ROOT_SPREAD * _normal(generator, trees, 1, dimension)
            return cls(directions, root.expand_as(directions), None)
        if kind != "chain":
            raise ValueError(f"no systems are called {kind!r}; there are 'concurrent' and 'chain'")
        root = 2 * _uniform(generator, trees, 1, dimension) - 1
        steps = 2 * _uniform(generator, trees, lines) - 1
        return cls.chained(root, directions, steps)

    @classmethod
    def chained(cls, roots: Tensor, directions: Tensor, steps: Tensor) -> Systems:
        """Chains of lines from their first points.

        Args:
            roots: shape (trees, 1, d).
            directions: of length 1, shape (trees, lines, d).
            steps: to the start of the next line, shape (trees, lines).
        """
        walked = (steps.unsqueeze(2) * directions).cumsum(1)[:, :-1]
        return cls(directions, torch.cat([roots, roots + walked], dim=1), steps)

    def __len__(self) -> int:
        return len(self.directions)

    @property
    def lines(self) -> int:
        """Lines of each system."""
        return self.directions.shape[1]

    @property
    def dimension(self) -> int:
        """Dimension of the points."""
        return self.directions.shape[2]

    def to(self, like: Tensor) -> Systems:
        """The same systems with the type and device of a tensor."""
        steps = None if self.steps is None else self.steps.to(like)
        return Systems(self.directions.to(like), self.offsets.to(like), steps)

    def detach(self) -> Systems:
        """The same systems, without gradients."""
        steps = None if self.steps is None else self.steps.detach()
        return Systems(self.directions.detach(), self.offsets.detach(), steps)

    def split(self, size: int) -> Iterator[Systems]:
        """Groups of at most ``size`` trees, in order."""
        for start in range(0, len(self), size):
            part = slice(start, start + size)
            steps = None if self.steps is None else self.steps[part]
            yield Systems(self.directions[part], self.offsets[part], steps)


def _normal(generator: torch.Generator | None, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _uniform(generator: torch.Generator | None, *shape: int) -> Tensor:
    return torch.rand(shape, generator=generator, dtype=torch.float64)
