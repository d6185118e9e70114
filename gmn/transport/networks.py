"""Distances between networks: transport between the clouds of their neurons, layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from gmn.foundation.arguments import require_seed, require_whole
from gmn.graph import ParameterGraph
from gmn.graph.required import require_graph
from gmn.nn.dual.probes import Probes
from gmn.spec import GraphSpec
from gmn.transport.clouds import CoordinateFrame
from gmn.transport.kinds import directions, order_of, powers, trees
from gmn.transport.neurons import Clouds, embedding_clouds, probe_clouds, weight_clouds
from gmn.transport.ordering import ordered
from gmn.transport.trees import tree_sliced_pairs

Coords = Literal["io", "probe", "embedding"]
Kind = Literal["sliced", "tree", "sobolev", "assignment", "unaligned"]
PROBES = 64
PAIRS = 4096  # of networks that are worked on at once


@dataclass(frozen=True)
class NetworkDistance:
    """Distances between networks, invariant to the order and scale of their neurons.

    Every layer of neurons is a cloud (:mod:`gmn.transport.neurons`); the distance is
    ``(mean over clouds of d^p)^(1/p)`` with ``p = 1`` for ``"tree"`` and 2 otherwise. Layers may
    differ in width, unless points are assigned one by one. All distances of one object are along
    the same lines, and those of one matrix from the same places, so that they obey the triangle
    inequality among each other. (Trees are laid around each pair by :meth:`between`.)

    Attributes:
        coords: of neurons: ``"io"`` their weights, ``"probe"`` their values on inputs, or
            ``"embedding"`` the states that ``embed`` gives them.
        kind: ``"sliced"`` (SW_2), ``"tree"`` (Db-TSW), ``"sobolev"`` (its Sobolev form, p = 2),
            ``"assignment"`` (exact, SciPy), or ``"unaligned"``: each neuron with the one of its
            number, as a reference.
        inputs: for probes, k values for each input of the networks; 64 random ones in [-1, 1] if
            None.
        embed: for embeddings; see :func:`gmn.transport.neurons.embedding_clouds`.
        lines: directions of slices; trees have four each.
        seed: of lines and random inputs.
    """

    coords: Coords = "io"
    kind: Kind = "sliced"
    inputs: Sequence[Tensor] | None = None
    embed: Callable[[ParameterGraph], Tensor] | None = None
    lines: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in (known := get_args(Kind)):
            raise ValueError(
                f"no distance is called {self.kind!r}; there are {', '.join(known[:-1])} and "
                f"{known[-1]}"
            )
        require_whole("lines", self.lines, 1)
        require_seed("seed", self.seed)
        if self.coords not in ("io", "probe", "embedding"):
            raise ValueError(
                f"no coordinates are called {self.coords!r}; there are io, probe and embedding"
            )
        if (self.coords == "embedding") != (self.embed is not None):
            raise ValueError("embeddings need embed, and nothing else does")

    @property
    def order(self) -> int:
        """p, the order of the distance."""
        return order_of(self.kind)

    def clouds(self, graph: ParameterGraph) -> Clouds:
        """The clouds of B networks.

        Raises:
            ProgramError: if networks shall be probed that have no program.
        """
        if self.coords == "io":
            return weight_clouds(graph)
        if self.embed is not None:
            return embedding_clouds(graph, self.embed)
        inputs = self._inputs(graph.spec) if self.inputs is None else self.inputs
        return probe_clouds(graph, inputs)

    def _inputs(self, spec: GraphSpec) -> list[Tensor]:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(self.seed)
            return Probes.like(spec, PROBES).inputs()

    def between(self, a: ParameterGraph, b: ParameterGraph) -> Tensor:
        """Distances of pairs.

        Args:
            a: B networks.
            b: B networks, of the same or another spec whose node sets have the same names.

        Returns:
            Shape (B,).

        Raises:
            ValueError: if the networks cannot be compared.
            ProgramError: if networks shall be probed that have no program.
        """
        for name, graph in (("a", a), ("b", b)):
            require_graph(name, graph)
        if len(a) != len(b):
            raise ValueError(f"{len(a)} and {len(b)} networks are no pairs; see matrix")
        x, y = self.clouds(a), self.clouds(b)
        _require_alike(x, y)
        layers = [
            self._powers(x[name], y[name], CoordinateFrame.of(x[name], y[name])) for name in x
        ]
        return torch.stack(layers).mean(0) ** (1 / self.order)

    def matrix(self, a: ParameterGraph, b: ParameterGraph | None = None) -> Tensor:
        """All distances between networks.

        Args:
            a: A networks.
            b: B networks; None for those of ``a``, whose matrix is symmetric, with zeros on its
                diagonal.

        Returns:
            Shape (A, B), without gradients.

        Raises:
            ValueError: if the networks cannot be compared.
            ProgramError: if networks shall be probed that have no program.
        """
        for name, graph in (("a", a), ("b", a if b is None else b)):
            require_graph(name, graph)
        with torch.no_grad():
            x = self.clouds(a)
            y = x if b is None else self.clouds(b)
            _require_alike(x, y)
            same_widths = all(x[name].shape[1] == y[name].shape[1] for name in x)
            if self.kind == "sliced" and same_widths:
                return self._of_sorted(x, y)
            return self._of_all(x, y, symmetric=b is None)

    def _powers(self, x: Tensor, y: Tensor, frame: CoordinateFrame) -> Tensor:
        """``d^p`` of the clouds of one layer, shape (B,)."""
        if self.kind != "unaligned":
            return powers(x, y, self.kind, self.lines, self._chance(), frame)
        if x.shape != y.shape:
            raise ValueError(f"{x.shape[1]} and {y.shape[1]} neurons have no common numbers")
        return (x - y).square().mean((1, 2))

    def _chance(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.seed)

    def _of_sorted(self, x: Clouds, y: Clouds) -> Tensor:
        """SW_2 of equally wide layers: plain distances between sorted projections."""

        def sorted_projections(clouds: Clouds) -> Tensor:
            parts = []
            for cloud in clouds.values():
                along = directions(cloud.shape[-1], self.lines, self._chance()).to(cloud)
                projected = ordered(along @ cloud.mT).flatten(1)
                parts.append(projected / (projected.shape[1] * len(clouds)) ** 0.5)
            return torch.cat(parts, dim=1)

        first = sorted_projections(x)
        second = first if y is x else sorted_projections(y)
        # The fast way subtracts squares, which leaves rounding where networks are equal.
        return torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist")

    def _of_all(self, x: Clouds, y: Clouds, symmetric: bool) -> Tensor:
        rows, columns = (len(next(iter(clouds.values()))) for clouds in (x, y))
        pairs = torch.cartesian_prod(torch.arange(rows), torch.arange(columns))
        if symmetric:
            pairs = pairs[pairs[:, 0] < pairs[:, 1]]
        like = next(iter(x.values()))
        pairs = pairs.to(like.device)
        layers = [self._powers_of_pairs(x[name], y[name], pairs) for name in x]
        distances = like.new_zeros(rows, columns)
        distances[pairs[:, 0], pairs[:, 1]] = torch.stack(layers).mean(0) ** (1 / self.order)
        return distances + distances.T if symmetric else distances

    def _powers_of_pairs(self, x: Tensor, y: Tensor, pairs: Tensor) -> Tensor:
        """``d^p`` of one layer's clouds (A, n, d) and (B, m, d), for pairs (P, 2): shape (P,)."""
        frame = CoordinateFrame.of(torch.cat([*x, *y]))  # one for all pairs
        if self.kind in ("tree", "sobolev"):
            systems = trees(x.shape[-1], self.lines, self._chance())
            return tree_sliced_pairs(x, y, pairs, systems, frame, p=self.order)
        parts = [
            self._powers(x[i], y[j], frame) for i, j in (part.T for part in pairs.split(PAIRS))
        ]
        return torch.cat(parts)


def network_distance(
    a: ParameterGraph,
    b: ParameterGraph,
    coords: Coords = "io",
    kind: Kind = "sliced",
) -> Tensor:
    """Distances of pairs of networks; see :class:`NetworkDistance` for all settings.

    Args:
        a: B networks.
        b: B networks.
        coords: ``"io"`` or ``"probe"``.
        kind: ``"sliced"``, ``"tree"``, ``"sobolev"``, ``"assignment"`` or ``"unaligned"``.

    Returns:
        Shape (B,).

    Raises:
        ValueError: if the networks cannot be compared.

    >>> import converters
    >>> graph = converters.to_graph(torch.nn.Linear(2, 3), (torch.zeros(1, 2),))
    >>> network_distance(graph, graph)
    tensor([0.])
    """
    return NetworkDistance(coords, kind).between(a, b)


def _require_alike(x: Clouds, y: Clouds) -> None:
    if not x:
        raise ValueError(
            "nothing of these networks is seen this way: their program shows no neurons. Compare "
            "them by their weights, with coords='io'"
        )
    if x.keys() != y.keys():
        raise ValueError(
            f"the networks have other layers of neurons: {', '.join(x)} and {', '.join(y)}"
        )
    for name, cloud in x.items():
        if cloud.shape[2] != y[name].shape[2]:
            raise ValueError(
                f"{name}: neurons have {cloud.shape[2]} and {y[name].shape[2]} coordinates, as "
                "inputs, outputs or kernels differ; probe both with inputs of one shape instead"
            )
