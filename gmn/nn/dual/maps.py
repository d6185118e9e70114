"""Small maps for passes: where the kernels of a network look in images smaller than its own.

A kernel reads its window at every place of a map, as its stride, dilation and padding say, and
pooling makes maps smaller. The first kernels read learned images; what was never a map is the same
everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional

from gmn.nn.dual.activations import POOLING
from gmn.nn.dual.plan import Plan, Product
from gmn.spec import EdgeSet
from gmn.spec.parts import Operation

SIDE = 16  # of an image of two dimensions
PLACES = SIDE**2
# Images are smaller where a pass on one takes more products than this, and than so many per weight.
PRODUCTS = 2**20
PER_WEIGHT = 4

Grid = tuple[int, ...]  # size of a map along each dimension


@dataclass(frozen=True, eq=False)
class Window:
    """Where a window looks at each of its places.

    Attributes:
        index: the places of a map that it shows, shape (taps, places of the window); a number that
            no place has is outside, where values are 0.
        places: how many places the map has.
    """

    index: Tensor
    places: int

    def look(self, channels: Tensor) -> Tensor:
        """From (B, neurons, places * c) to what each tap sees, (B, neurons, taps, there * c)."""
        seen = functional.pad(channels.unflatten(2, (self.places, -1)), (0, 0, 0, 1))
        seen = seen.index_select(2, self.index.flatten())
        return seen.unflatten(2, self.index.shape).flatten(3)

    def back(self, seen: Tensor) -> Tensor:
        """The transposed map."""
        parts = seen.unflatten(3, (self.index.shape[1], -1)).flatten(2, 3)
        total = parts.new_zeros(*parts.shape[:2], self.places + 1, parts.shape[3])
        return total.index_add(2, self.index.flatten(), parts)[:, :, :-1].flatten(2)


@dataclass(frozen=True, eq=False)
class Pool:
    """The mean, or the largest, of the values in a window."""

    window: Window
    largest: bool

    def with_shares(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """From (B, neurons, places * c) to (B, neurons, there * c), and what each value counts."""
        seen = self.window.look(values)
        if not self.largest:
            return seen.mean(2), torch.full_like(seen, 1 / seen.shape[2])
        pooled = seen.amax(2, keepdim=True)
        same = (seen == pooled).to(seen)
        return pooled.squeeze(2), same / same.sum(2, keepdim=True)

    def back(self, values: Tensor, shares: Tensor) -> Tensor:
        """The transposed map, at the values that had these shares."""
        return self.window.back(values.unsqueeze(2) * shares)


@dataclass(frozen=True, eq=False)
class Look:
    """How an edge set reads the map of its source.

    Attributes:
        pools: what comes first.
        window: of its kernel; None if each place reads its own.
    """

    pools: tuple[Pool, ...]
    window: Window | None


@dataclass(frozen=True, eq=False)
class Maps:
    """The maps of a network.

    Attributes:
        grids: by slot, the size of its map; empty if it has none.
        looks: by edge set, how it reads a map.
    """

    grids: tuple[Grid, ...]
    looks: Mapping[str, Look]

    def places(self, slot: int) -> int:
        """How many places the map of a slot has."""
        return math.prod(self.grids[slot])

    def image(self, slot: int) -> Tensor:
        """The place of every pixel among :data:`PLACES`: a smaller image is part of a larger."""
        grid = self.grids[slot]
        index, full = torch.zeros(1, dtype=torch.long), _side(SIDE, max(len(grid), 1))
        for size in grid:
            index = (index.unsqueeze(1) * full + torch.arange(size)).flatten()
        return index


def _side(side: int, dims: int) -> int:
    """Size along each dimension of an image with about as many places as a square."""
    return int(side ** (2 / dims) + 1e-9)


@lru_cache(maxsize=64)
def maps_of(plan: Plan) -> Maps:
    """The largest maps, up to :data:`SIDE`, on which a pass is not too much work; cached.

    Attention, which passes leave out, sees one place: there it does what they do.
    """
    enough = max(PRODUCTS, PER_WEIGHT * sum(step.edges.size for step in plan.products))
    layouts = (_Layout(plan, side) for side in range(SIDE, 0, -1))
    return next(one for one in layouts if one.work <= enough and not one.attends).maps()


class _Layout:
    """The maps of a network whose images have a given side."""

    def __init__(self, plan: Plan, side: int) -> None:
        self._plan, self._side = plan, side
        # What is no product with a block leaves every place where it is.
        self._same = list(range(len(plan.sizes)))
        for step in plan.steps:
            if not isinstance(step, Product):
                kept, other = self._same[step.source.slot], self._same[step.target.slot]
                self._same = [kept if one == other else one for one in self._same]
        self._grids: list[Grid] = [()] * len(plan.sizes)
        for step in plan.products:
            slot = step.source.slot
            dims = sum(dim.port == "tap" for dim in step.edges.dims)
            if dims and plan.is_free(plan.slots.slots[slot], "input"):
                self._grids[self._same[slot]] = (_side(side, dims),) * dims
        for step in plan.products:
            end = self._same[step.target.slot]
            grids = self._grids[end], self._read(step)[2]
            self._grids[end] = max(grids, key=lambda grid: (math.prod(grid), len(grid)))

    @property
    def work(self) -> int:
        """Products of one pass."""
        ends = ((step.edges.size, self._grid(step.target.slot)) for step in self._plan.products)
        return sum(size * math.prod(grid) for size, grid in ends)

    @property
    def attends(self) -> bool:
        """Whether attention reads a map of several places."""
        spec, slots = self._plan.spec, self._plan.slots.slots
        return any(
            operation.name == "scaled_dot_product_attention" and math.prod(self._grid(slot)) > 1
            for slot, of in enumerate(slots)
            for operation in spec.node_set(of.nodes).operations
        )

    def maps(self) -> Maps:
        """The maps, and how every edge set reads them."""
        looks = {}
        for step in self._plan.products:
            pools, index, grid = self._read(step)
            places = math.prod(pools[-1].grid if pools else self._grid(step.source.slot))
            wanted = self._grid(step.target.slot)
            if grid != wanted:  # values of the nearest place
                index = index[:, _nearest(grid, wanted)]
            own = torch.equal(index, torch.arange(places).unsqueeze(0))
            window = None if own else self._window(index, places)
            read = [Pool(self._window(p.index, p.places), p.largest) for p in pools]
            looks[step.edges.name] = Look(tuple(read), window)
        return Maps(tuple(self._grid(slot) for slot in range(len(self._same))), looks)

    def _grid(self, slot: int) -> Grid:
        return self._grids[self._same[slot]]

    def _window(self, index: Tensor, places: int) -> Window:
        return Window(index.to(self._plan.rows.device), places)

    def _read(self, step: Product) -> tuple[list[_Pooling], Tensor, Grid]:
        """Pooling, the places that each tap sees, and the map that comes of it."""
        grid = self._grid(step.source.slot)
        nodes = self._plan.spec.node_set(self._plan.slots.slots[step.source.slot].nodes)
        kernel = step.edges.operation.name.startswith("conv")
        pools = []
        for operation in nodes.operations:
            if (pool := _pooling(operation, grid, kernel)) is not None:
                pools.append(pool)
                grid = pool.grid
        return pools, *_kernel(step.edges, grid, _side(self._side, max(len(grid), 1)))


@dataclass(frozen=True, eq=False)
class _Pooling:
    index: Tensor
    places: int
    largest: bool
    grid: Grid


def _pooling(operation: Operation, grid: Grid, kernel: bool) -> _Pooling | None:
    """What pooling shows of a map; None for other operations.

    Kernels read a stream before the mean over all places that comes at its end.
    """
    name, numbers = operation.name, dict(operation.attributes)
    if not grid:
        return None
    if name == "mean":  # of the tokens that a map became, it has fewer dimensions
        sizes = (1.0,) * len(grid)
    elif name.startswith("adaptive") and name.endswith(POOLING):
        sizes = numbers.get("output_size", ())
    elif name.endswith(POOLING) and "kernel_size" in numbers:
        taps = [int(_number(numbers, "kernel_size", dim, 1)) for dim in range(len(grid))]
        index, after = _windows(numbers, grid, taps, numbers["kernel_size"])
        return _Pooling(index, math.prod(grid), name.startswith("max"), after)
    else:
        return None
    if kernel or len(sizes) != len(grid):
        return None
    after = tuple(min(int(size), n) for size, n in zip(sizes, grid, strict=True))
    wheres = [_shares(n, size) for n, size in zip(grid, after, strict=True)]
    return _Pooling(_places(grid, wheres), math.prod(grid), "max" in name, after)


def _kernel(edges: EdgeSet, grid: Grid, side: int) -> tuple[Tensor, Grid]:
    """The places (taps, there) that each tap sees, and the map that a kernel makes."""
    name, numbers = edges.operation.name, dict(edges.operation.attributes)
    taps = [dim.size for dim in edges.dims if dim.port == "tap"]
    if name.startswith("conv") and len(taps) <= len(grid):
        taps = _of_all_dims(taps, numbers.get("padding", ()), len(grid))
        if name.startswith("conv_transpose"):
            return _transposed(numbers, grid, taps, side)
        return _windows(numbers, grid, taps, (1.0,))
    if not taps:
        return torch.arange(math.prod(grid)).unsqueeze(0), grid
    # A linear layer of a whole map, or a kernel where there is none.
    if len(taps) != len(grid):
        grid, taps = (math.prod(grid),), [math.prod(taps)]
    seen = [_middle(n, size).unsqueeze(1) for n, size in zip(grid, taps, strict=True)]
    return _places(grid, seen), ()


def _of_all_dims(taps: Sequence[int], padding: Sequence[float], dims: int) -> list[int]:
    """Taps along every dimension, where specs leave out widths of one: those are padded least."""
    padded = [padding[dim % len(padding)] if padding else 0 for dim in range(dims)]
    wide = sorted(range(dims), key=lambda dim: -padded[dim])[: len(taps)]
    left = iter(taps)
    return [next(left) if dim in wide else 1 for dim in range(dims)]


def _windows(
    numbers: Mapping[str, Sequence[float]], grid: Grid, taps: Sequence[int], step: Sequence[float]
) -> tuple[Tensor, Grid]:
    """The places that windows see, as the settings of a convolution or of pooling say."""
    wheres = []
    for dim, (size, count) in enumerate(zip(grid, taps, strict=True)):
        stride = _number(numbers, "stride", dim, step[dim % len(step)])
        dilation = _number(numbers, "dilation", dim, 1)
        extent = dilation * (count - 1) + 1
        padding = _number(numbers, "padding", dim, extent // 2)
        padding = max(padding, (extent - size) // 2)  # a map smaller than the window is its middle
        there = max((size + 2 * padding - extent) // stride + 1, 1)
        first = stride * torch.arange(there) - padding
        wheres.append(first + dilation * torch.arange(count).unsqueeze(1))
    return _places(grid, wheres), tuple(where.shape[1] for where in wheres)


def _transposed(
    numbers: Mapping[str, Sequence[float]], grid: Grid, taps: Sequence[int], side: int
) -> tuple[Tensor, Grid]:
    """The places that each tap sees of the map that a transposed convolution spreads."""
    wheres = []
    for dim, (size, count) in enumerate(zip(grid, taps, strict=True)):
        stride, dilation = (_number(numbers, name, dim, 1) for name in ("stride", "dilation"))
        padding, more = (_number(numbers, name, dim, 0) for name in ("padding", "output_padding"))
        there = (size - 1) * stride - 2 * padding + dilation * (count - 1) + 1 + more
        places = torch.arange(min(max(there, 1), max(side, size))) + padding
        spread = places - dilation * torch.arange(count).unsqueeze(1)
        wheres.append(torch.where(spread % stride == 0, spread // stride, -1))
    return _places(grid, wheres), tuple(where.shape[1] for where in wheres)


def _number(numbers: Mapping[str, Sequence[float]], name: str, dim: int, default: float) -> int:
    values = numbers.get(name) or (default,)
    return int(values[dim % len(values)])


def _shares(size: int, parts: int) -> Tensor:
    """The places of equal parts of a line, shape (places of a part, parts)."""
    first = torch.arange(parts) * size // parts
    return first + torch.arange(-(-size // parts)).unsqueeze(1)


def _middle(size: int, parts: int) -> Tensor:
    """The place in the middle of each of equal parts of a line."""
    return (2 * torch.arange(parts) + 1) * size // (2 * parts)


def _nearest(grid: Grid, wanted: Grid) -> Tensor:
    """For each place of a map the nearest one of another."""
    if len(grid) != len(wanted):
        grid, wanted = (math.prod(grid),), (math.prod(wanted),)
    seen = [_middle(n, size).unsqueeze(0) for n, size in zip(grid, wanted, strict=True)]
    return _places(grid, seen).flatten()


def _places(grid: Grid, wheres: Iterable[Tensor]) -> Tensor:
    """Places numbered through, (taps, there), of those along each dimension; outside, one more."""
    index = torch.zeros(1, 1, dtype=torch.long)
    outside = torch.zeros(1, 1, dtype=torch.bool)
    for size, where in zip(grid, wheres, strict=True):
        where = where[None, :, None, :]
        index = (index[:, None, :, None] * size + where).flatten(2).flatten(0, 1)
        beyond = outside[:, None, :, None] | (where < 0) | (where >= size)
        outside = beyond.flatten(2).flatten(0, 1)
    return torch.where(outside, math.prod(grid), index)
