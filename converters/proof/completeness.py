"""Counts the continuous symmetries of a network, and how many of them its spec claims.

At a generic point, the directions in which parameters can move without a change of any output are
the null space of the Jacobian of outputs with respect to parameters, over enough inputs. The
claimed group moves parameters along some of them. What is left was missed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.func import functional_call
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from gmn.spec import Gauge, GraphSpec
from gmn.symmetry import Element

from ..exporting.export import tensors_of
from .running import Given, Runner, quiet
from .situations import as_example, random_state, redrawn

LARGEST = 2_000  # numbers; the time grows with the third power
ROWS = 2.5  # of the Jacobian, per number
ROWS_OF_ONE = 20  # from one run: many inputs tell more than many outputs of one
MAGNITUDES = (0.3, 1.0, 3.0, 10.0)  # of inputs
DRAWS = 8  # of weights, at most: a unit that sleeps in one wakes in another
SIZES = (1.0, 0.5, 0.25)  # of the weights of draws, in turn
AGREED = 3  # draws that agree on the fewest symmetries missed
FLAT = 1e-7  # singular values that may count as zero, relative to the largest
NOISE = 1e-14  # and those that are nothing but rounding
STEP = 1e-4  # of finite differences along the group
ANGLE = 1e-4  # between a flat direction and the claimed ones, up to which it is one of them


@dataclass(frozen=True)
class Completeness:
    """Continuous symmetries at random weights, counted.

    Attributes:
        nullity: dimensions in which parameters and statistics can move while no output changes.
        claimed: dimensions in which the claimed group moves them.
        missed: dimensions of the former that the latter leaves out.
        gap: between the singular values that count as zero and the others; below a thousand, the
            count is doubtful.
        unread: numbers on which no output depends; they do not count in the others.
        support: entries of the state dict that what was missed has to move.
    """

    nullity: int
    claimed: int
    missed: int
    gap: float
    unread: int
    support: tuple[str, ...]

    def __str__(self) -> str:
        lines = [
            f"continuous symmetries: {self.nullity} dimensions, of which the claimed group moves "
            f"{self.claimed} (gap between singular values {self.gap:.0e})"
        ]
        if self.missed:
            lines.append(f"  {self.missed} are not claimed; they move {', '.join(self.support)}")
        if self.unread:
            lines.append(f"  {self.unread} more numbers change no output")
        return "\n".join(lines)


def measure(
    model: nn.Module, given: Given, spec: GraphSpec, generator: torch.Generator
) -> Completeness:
    """Compares the null space of the Jacobian with the directions in which the group moves.

    Args:
        model: the network; it is left as it is.
        given: the example inputs.
        spec: its spec.
        generator: source of randomness, on the CPU.

    Returns:
        The counts at those of a few random weights where the fewest symmetries are missed.

    Raises:
        ValueError: if the network has too many parameters, or outputs have no derivative with
            respect to any.
    """
    function = _Function(model, spec)
    if len(function) > LARGEST:
        raise ValueError(
            f"continuous symmetries are counted in networks of up to {LARGEST:,} parameters; this "
            f"one has {len(function):,}. Make a narrower one of the same architecture"
        )
    ranges = _ranges(function, given)
    kinds = {edges.parameter: edges.kind for edges in spec.edge_sets}
    counts: list[Completeness] = []
    for draw in range(DRAWS):
        state = random_state(function.runner, kinds, generator, SIZES[draw % len(SIZES)])
        counts.append(_count(function, state, given, ranges, spec, generator))
        best = min(map(_order, counts))
        if best == (0, 0) or [*map(_order, counts)].count(best) == AGREED:
            break
    return min(counts, key=_order)


def _order(count: Completeness) -> tuple[int, int]:
    """Sort key of draws: weights with inactive units come last, since more can move there."""
    return count.missed + count.unread, count.missed


def _count(
    function: _Function,
    state: Mapping[str, Tensor],
    given: Given,
    ranges: Mapping[int, int],
    spec: GraphSpec,
    generator: torch.Generator,
) -> Completeness:
    jacobian = _jacobian(function, state, given, ranges, generator)
    lengths = jacobian.norm(dim=0)
    read = lengths > NOISE * lengths.max()
    if not read.any():
        return Completeness(0, 0, 0, math.inf, len(read), ())
    null, gap = _null_space(jacobian[:, read] / lengths[read])
    claimed = _row_space(_tangents(function, spec, state)[:, read] * lengths[read])
    missed = _rank(null - (null @ claimed.T) @ claimed, ANGLE)
    support = _support(null, claimed, missed, function, read) if missed else ()
    return Completeness(len(null), len(claimed), missed, gap, int((~read).sum()), support)


class _Function:
    """The outputs of a module as a function of one vector: all numbers that a spec has as edges.

    Entries that share storage read the same numbers of the vector.

    Attributes:
        runner: the module.
        places: by entry, where its numbers stand in the vector; of complex ones, both parts.
    """

    def __init__(self, model: nn.Module, spec: GraphSpec) -> None:
        self.runner = Runner(model)
        self._model = self.runner.copy()
        held = {edges.parameter for edges in spec.edge_sets} | set(self.runner.parameters)
        entries = {
            name: tensor.detach()
            for name, tensor in self.runner.entries.items()
            if name in held and (tensor.is_floating_point() or tensor.is_complex())
        }
        self._complex = {name for name, tensor in entries.items() if tensor.is_complex()}
        inside = (
            *self._model.named_parameters(remove_duplicate=False),
            *self._model.named_buffers(),
        )
        names = {id(tensor): name for name, tensor in self.runner.entries.items()}
        self._names = {name: names.get(id(tensor), "") for name, tensor in inside}
        self.positions = _positions(entries)

    def __len__(self) -> int:
        return 1 + max(
            (int(positions.max()) for positions in self.positions.values() if positions.numel()),
            default=-1,
        )

    def vector(self, state: Mapping[str, Tensor]) -> Tensor:
        """The numbers of a state dict."""
        result = torch.zeros(len(self), dtype=torch.float64)
        for name, positions in self.positions.items():
            result[positions] = _real(state[name]).cpu()
        return result

    def outputs(
        self, vector: Tensor, state: Mapping[str, Tensor], given: Given, seed: int
    ) -> Tensor:
        """All floating-point outputs as one vector, differentiable.

        Args:
            vector: the numbers.
            state: everything else that the module holds.
            given: its arguments.
            seed: of the random numbers that it draws.
        """
        values = {}
        for inside, name in self._names.items():
            if name in self.positions:
                value = vector[self.positions[name]].to(state[name].device)
                values[inside] = torch.view_as_complex(value) if name in self._complex else value
            elif name:
                values[inside] = state[name].clone()
        with self.runner.surroundings(seed, given), sdpa_kernel(SDPBackend.MATH), _Derivable():
            arguments = self.runner.prepared(given)
            result = functional_call(
                self._model, values, arguments.args, dict(arguments.kwargs), tie_weights=False
            )
        floating = [t for t in tensors_of(result) if t.is_floating_point() or t.is_complex()]
        flat = torch.cat([_real(tensor).flatten().cpu() for tensor in floating] or [vector[:0]])
        return flat[flat.detach().isfinite()]


class _Derivable(TorchFunctionMode):
    """Writes batch normalisation out: torch has no derivative with respect to its statistics."""

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if function is functional.batch_norm:
            return _batch_norm(function, *args, **(kwargs or {}))
        return function(*args, **(kwargs or {}))


def _batch_norm(
    function: Callable[..., Tensor],
    value: Tensor,
    mean: Tensor | None,
    variance: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if training or mean is None or variance is None:
        return function(value, mean, variance, weight, bias, training, momentum, eps)
    shape = (1, -1, *(1 for _ in value.shape[2:]))
    gain = (variance + eps).rsqrt() * (1.0 if weight is None else weight)
    shift = 0.0 if bias is None else bias.view(shape)
    return (value - mean.view(shape)) * gain.view(shape) + shift


def _real(value: Tensor) -> Tensor:
    return torch.view_as_real(value) if value.is_complex() else value


def _positions(entries: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Numbers every distinct number that the entries hold."""
    starts: dict[int, int] = {}
    result: dict[str, Tensor] = {}
    end = 0
    for name, tensor in entries.items():
        storage, real = tensor.untyped_storage(), _real(tensor)
        length = storage.nbytes() // real.element_size()
        key = storage.data_ptr() or -len(result) - 1
        if key not in starts:
            starts[key], end = end, end + length
        inside = torch.arange(length).as_strided(real.shape, real.stride(), real.storage_offset())
        result[name] = starts[key] + inside
    if not result:
        return {}
    _, distinct = torch.unique(
        torch.cat([p.flatten() for p in result.values()]), return_inverse=True
    )
    parts = distinct.split([positions.numel() for positions in result.values()])
    return {name: part.view(result[name].shape) for name, part in zip(result, parts, strict=True)}


# --- the Jacobian -------------------------------------------------------------------------------


def _jacobian(
    function: _Function,
    state: Mapping[str, Tensor],
    given: Given,
    ranges: Mapping[int, int],
    generator: torch.Generator,
) -> Tensor:
    """Gradients of outputs on random inputs, of length one each."""
    rows: list[Tensor] = []
    enough, run = math.ceil(ROWS * len(function)), 0
    while sum(map(len, rows)) < enough:
        inputs = _inputs(given, ranges, MAGNITUDES[run % len(MAGNITUDES)], generator)
        vector = function.vector(state).requires_grad_()
        outputs = function.outputs(vector, state, inputs, run)
        if not len(outputs) or not outputs.requires_grad:
            raise ValueError("no output depends on a parameter by a derivative")
        picked = torch.randperm(len(outputs), generator=generator)[:ROWS_OF_ONE]
        try:
            rows.append(_gradients(outputs[picked], vector))
        except (
            RuntimeError
        ):  # written in place after it was read: only forward mode knows the value

            def again(
                v: Tensor, x: Given = inputs, seed: int = run, rows: Tensor = picked
            ) -> Tensor:
                return function.outputs(v, state, x, seed)[rows]

            rows.append(_forward_gradients(again, vector.detach()))
        run += 1
    jacobian = torch.cat(rows)
    lengths = jacobian.norm(dim=1, keepdim=True)
    return jacobian / torch.where(lengths > 0, lengths, 1.0)


def _gradients(outputs: Tensor, vector: Tensor) -> Tensor:
    """One row per output."""
    directions = torch.eye(len(outputs), dtype=outputs.dtype)
    try:
        with quiet():
            return torch.autograd.grad(
                outputs, vector, directions, retain_graph=True, is_grads_batched=True
            )[0]
    except RuntimeError:  # an operation whose derivative takes no batches
        rows = [torch.autograd.grad(outputs, vector, d, retain_graph=True)[0] for d in directions]
        return torch.stack(rows)


def _forward_gradients(function: Callable[[Tensor], Tensor], vector: Tensor) -> Tensor:
    """One row per output, column by column."""
    columns = []
    try:
        with quiet(), forward_ad.dual_level():
            for direction in torch.eye(len(vector), dtype=vector.dtype):
                answer = forward_ad.unpack_dual(function(forward_ad.make_dual(vector, direction)))
                missing = torch.zeros_like(answer.primal)
                columns.append(missing if answer.tangent is None else answer.tangent)
    except (RuntimeError, NotImplementedError) as error:
        raise ValueError(f"the outputs cannot be differentiated: {error}") from error
    return torch.stack(columns, dim=1)


def _inputs(
    given: Given, ranges: Mapping[int, int], magnitude: float, generator: torch.Generator
) -> Given:
    """Fresh inputs; whole numbers from their range."""
    drawn = redrawn(given, generator, magnitude, as_example)
    whole = {
        id(new): torch.randint(ranges[id(old)], old.shape, generator=generator).to(old)
        for new, old in zip(drawn.tensors, given.tensors, strict=True)
        if id(old) in ranges
    }
    return drawn.replaced(whole)


def _ranges(function: _Function, given: Given) -> dict[int, int]:
    """How many values inputs of whole numbers can take, by identity: as many as a table has rows.

    Those that the module does not take in any order are left out.
    """
    whole = [t for t in given.tensors if not (t.is_floating_point() or t.is_complex())]
    whole = [t for t in whole if t.dtype != torch.bool and t.numel() and int(t.min()) >= 0]
    tables = {
        positions.shape[0] for positions in function.positions.values() if positions.dim() == 2
    }
    result = {}
    for tensor in whole:
        least = int(tensor.max()) + 1
        for size in (*sorted((n for n in tables if n > least), reverse=True), least):
            largest = given.replaced({id(tensor): torch.full_like(tensor, size - 1)})
            if tensor.device.type == "cpu" and _takes(function.runner, largest):
                result[id(tensor)] = size
                break
    return result


def _takes(runner: Runner, given: Given) -> bool:
    try:
        runner.outputs(runner.own, given)
    except (IndexError, RuntimeError, ValueError):
        return False
    return True


# --- the group ----------------------------------------------------------------------------------


def _tangents(function: _Function, spec: GraphSpec, state: Mapping[str, Tensor]) -> Tensor:
    """How the numbers move with every coordinate of the claimed group, by central differences."""
    rows = []
    for forward, back in _steps(spec):
        ends = (function.vector(element.act(state)) for element in (forward, back))
        rows.append(next(ends) - next(ends))
    return torch.stack(rows) if rows else torch.zeros(0, len(function), dtype=torch.float64)


def _steps(spec: GraphSpec) -> Iterator[tuple[Element, Element]]:
    """Elements a little to both sides of the identity, along every coordinate."""
    for scaling in spec.scalings:
        if scaling.domain == "positive":
            for unit in _units(scaling.shape):
                steps = [{scaling.name: (sign * STEP * unit).exp()} for sign in (1, -1)]
                yield Element(spec, {}, steps[0]), Element(spec, {}, steps[1])
    for gauge in spec.gauges:
        for unit in _algebra(gauge):
            turns = [{gauge.name: torch.linalg.matrix_exp(sign * STEP * unit)} for sign in (1, -1)]
            yield Element(spec, {}, {}, turns[0]), Element(spec, {}, {}, turns[1])
    for translation in spec.translations:
        for unit in _units(translation.shape):
            shifts = [{translation.name: sign * STEP * unit} for sign in (1, -1)]
            yield Element(spec, {}, {}, {}, shifts[0]), Element(spec, {}, {}, {}, shifts[1])


def _units(shape: Sequence[int]) -> Iterator[Tensor]:
    size = math.prod(shape)
    return (row.view(tuple(shape)) for row in torch.eye(size, dtype=torch.float64))


def _algebra(gauge: Gauge) -> Iterator[Tensor]:
    """A basis of the matrices that the gauge's group has near the identity."""
    for unit in _units((*gauge.shape, gauge.shape[-1])):
        if gauge.group == "general":
            yield unit
        elif bool(unit.triu(1).any()):
            yield unit - unit.mT


# --- linear algebra -----------------------------------------------------------------------------


def _null_space(matrix: Tensor) -> tuple[Tensor, float]:
    """An orthonormal basis of the null space, and the gap of singular values that separates it."""
    triangle = torch.linalg.qr(matrix, mode="r").R
    _, values, directions = torch.linalg.svd(triangle)
    sizes = [max(value, NOISE) for value in (values / values[0]).tolist()]
    steps = [(a / b, index) for index, (a, b) in enumerate(pairwise(sizes), 1) if b <= FLAT]
    gap, rank = max(steps, default=(sizes[-1] / NOISE, len(sizes)))
    return directions[rank:], gap


def _row_space(rows: Tensor) -> Tensor:
    """An orthonormal basis."""
    lengths = rows.norm(dim=1, keepdim=True)
    rows = (rows / torch.where(lengths > 0, lengths, 1.0))[lengths[:, 0] > 0]
    if not len(rows):
        return rows
    _, values, directions = torch.linalg.svd(rows, full_matrices=False)
    return directions[values > FLAT * values[0]]


def _rank(rows: Tensor, least: float) -> int:
    return int((torch.linalg.svdvals(rows) > least).sum()) if rows.numel() else 0


def _support(
    null: Tensor, claimed: Tensor, missed: int, function: _Function, read: Tensor
) -> tuple[str, ...]:
    """A minimal set of entries that the missed directions move.

    Entries are given up one after the other, large ones first, as long as all that was missed can
    do without.
    """
    column = torch.full((len(read),), -1)
    column[read] = torch.arange(int(read.sum()))
    needed = list(function.positions)
    for name in sorted(needed, key=lambda name: -function.positions[name].numel()):
        still = [n for n in needed if n != name]
        kept = torch.zeros(null.shape[1], dtype=torch.bool)
        for other in still:
            columns = column[function.positions[other].flatten()]
            kept[columns[columns >= 0]] = True
        flat = len(null) - _rank(null[:, ~kept], ANGLE)
        moved = len(claimed) - _rank(claimed[:, ~kept], ANGLE)
        if flat - moved >= missed:
            needed = still
    return tuple(needed)
