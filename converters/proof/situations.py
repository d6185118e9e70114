"""Random weights and inputs for testing symmetries: a module's own may hide failures.

At initialisation gains are one, biases and the last layer of a branch zero, and what is zero or one
hides what it is multiplied with. An example of one token or of one network hides broadcasting.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from gmn.spec import GraphSpec
from gmn.symmetry import Element

from .running import Given, Runner, change

SIZE = 0.7  # standard deviation of small weights
GAIN = 1.5  # and of what many of them sum to
NUDGE = 1e-10  # relative change of weights that measures what rounding does
MARGIN = 1e3  # roundings along the way, each as large as one of the weights


class CannotTry(ValueError):
    """A module has no outputs that could be compared; the message says why."""


class Situation:
    """A module with given weights and inputs, and its outputs.

    Args:
        runner: the module.
        state: its weights, as the module holds them.
        given: its arguments.
        expected: its outputs.

    Attributes:
        random: whether the outputs depend on random numbers, which are seeded here.
        tolerance: changes up to this are rounding.
    """

    def __init__(
        self, runner: Runner, state: Mapping[str, Tensor], given: Given, expected: list[Tensor]
    ) -> None:
        self._runner, self._state, self._given, self._expected = runner, state, given, expected
        self.random = runner.is_random(state, given)
        self.tolerance = runner.tolerance
        self._fresh = True

    def keep_copies(self) -> None:
        """Runs one copy of the module again and again, if it answers by its weights alone."""
        self._fresh = self._runner.remembers(self._state, self._given)

    def error(self, element: Element) -> float:
        """How much an element changes the outputs, or makes entries of shared storage disagree.

        An element that contradicts itself, such as an axis within one that a block lacks, changes
        all there is.
        """
        try:
            moved = element.act(self._state)
        except (ValueError, IndexError, RuntimeError):
            return 1.0
        return max(self._runner.disagreement(moved), self._change(moved))

    def rounding(self) -> float:
        """How much rounding may change the outputs: what a nudge does, scaled down.

        Deep networks with random weights can make much of little.
        """
        generator = torch.Generator().manual_seed(0)
        epsilon = torch.finfo(self._runner.dtype).eps
        amount = max(NUDGE, 8 * epsilon)
        nudged = {k: _nudge(v, amount, generator) for k, v in self._state.items()}
        return MARGIN * epsilon / amount * self._change(self._runner.settled(nudged))

    def _change(self, state: Mapping[str, Tensor]) -> float:
        moved = self._runner.outputs(state, self._given, fresh=self._fresh)
        return change(moved, self._expected)


def as_it_is(runner: Runner, given: Given) -> Situation:
    """The module's own weights on the example inputs.

    Raises:
        CannotTry: if the outputs are not numbers.
    """
    expected = runner.outputs(runner.own, given)
    if not _is_usable(expected):
        raise CannotTry("the module's outputs on the example inputs are NaN or infinite")
    return Situation(runner, runner.own, given, expected)


def at_random(
    runner: Runner, given: Given, spec: GraphSpec, generator: torch.Generator
) -> Situation:
    """Random weights on fresh inputs of another batch size, as far as the module takes them.

    Args:
        runner: the module.
        given: the example inputs.
        spec: its spec, which knows variances from means.
        generator: source of randomness, on the CPU.

    Raises:
        CannotTry: if the outputs are not numbers.
        Exception: what the module raises on every choice of inputs.
    """
    for state in _weights(runner, spec, generator):
        ran, refusal = False, None
        for fresh in inputs(given, spec, generator):
            try:
                expected = runner.outputs(state, fresh, fresh=True)
            except Exception as error:  # the module's own, whatever it is
                refusal = error
                continue
            ran = True
            if _is_usable(expected):
                return Situation(runner, state, fresh, expected)
        if refusal is not None and not ran:
            raise refusal
    raise CannotTry("the module's outputs are NaN or infinite on random weights and on its own")


def _is_usable(outputs: list[Tensor]) -> bool:
    """Whether there are finite numbers among the outputs, or nothing but whole ones."""
    floating = [t for t in outputs if (t.is_floating_point() or t.is_complex()) and t.numel()]
    if any(bool(t.isnan().any()) for t in floating):
        return False
    return not floating or any(bool(t.isfinite().any()) for t in floating)


# --- weights ------------------------------------------------------------------------------------


def _weights(
    runner: Runner, spec: GraphSpec, generator: torch.Generator
) -> Iterator[dict[str, Tensor]]:
    """Random weights, then smaller ones, then the module's own ones changed, less and less."""
    kinds = {edges.parameter: edges.kind for edges in spec.edge_sets}
    for size in (1.0, 0.3):
        yield random_state(runner, kinds, generator, size)
    for amount in (0.3, 0.0):
        own = {k: _nudge(v, amount, generator) for k, v in runner.own.items()}
        yield runner.settled(own)


def random_state(
    runner: Runner, kinds: Mapping[str, str], generator: torch.Generator, size: float = 1.0
) -> dict[str, Tensor]:
    """Random values of all floating-point entries.

    Args:
        runner: the module.
        kinds: what the values of entries do, as in edge sets, where it is known.
        generator: source of randomness, on the CPU.
        size: what the usual size of weights is multiplied by.

    Returns:
        Gaussian parameters and means, variances above zero; other buffers up to a tenth off.
    """
    parameters = runner.parameters
    state = {}
    for name, value in runner.own.items():
        kind = kinds.get(name, "")
        if not (value.is_floating_point() or value.is_complex()):
            state[name] = value
        elif kind == "variance" or name.endswith("running_var"):
            noise = torch.rand(value.shape, generator=generator, dtype=torch.float64)
            state[name] = (0.3 + noise).to(value)
        elif name in parameters or kind == "mean" or name.endswith("running_mean"):
            state[name] = size * _deviation(value) * _noise(value, generator)
        else:
            state[name] = _nudge(value, 0.1, generator)
    return runner.settled(state)


def _deviation(weight: Tensor) -> float:
    """Of weights: of size about one where few are summed, smaller where many are."""
    shape = weight.shape
    if len(shape) < 2 or not weight.numel():
        return SIZE
    summed = weight.numel() // shape[0] if len(shape) > 3 else max(shape[-2:])
    return float(min(SIZE, GAIN / summed**0.5))


def _noise(like: Tensor, generator: torch.Generator) -> Tensor:
    wide = torch.complex128 if like.is_complex() else torch.float64
    return torch.randn(like.shape, generator=generator, dtype=wide).to(like)


def _nudge(value: Tensor, amount: float, generator: torch.Generator) -> Tensor:
    """Every number times one plus a bit; signs, zeros and infinities stay."""
    if not amount or not (value.is_floating_point() or value.is_complex()):
        return value
    noise = torch.randn(value.shape, generator=generator, dtype=torch.float64).clamp(-3, 3)
    return torch.where(value.isfinite(), value * (1 + amount * noise).to(value), value)


# --- inputs -------------------------------------------------------------------------------------


def inputs(given: Given, spec: GraphSpec, generator: torch.Generator) -> Iterator[Given]:
    """Random inputs, the most informative first; the example itself comes last.

    Sizes of one are tried as others, then the batch size alone; what a module does not take, it
    refuses by an error.
    """
    for shapes in chain(_grown(given, spec), _other_batch(given), [as_example]):
        yield redrawn(given, generator, 1.7, shapes)
    yield given


Shape = Callable[[Tensor], tuple[int, ...]]


def redrawn(given: Given, generator: torch.Generator, magnitude: float, shapes: Shape) -> Given:
    """Inputs of the same types and shapes with random values.

    Args:
        given: the example.
        generator: source of randomness, on the CPU.
        magnitude: what floating-point inputs are multiplied by after they are drawn with the
            example's mean and deviation.
        shapes: the shape that each tensor gets.

    Returns:
        Floating-point inputs anew, unless they are masks; whole numbers in another order, booleans
        and what is not finite as they are, repeated where the shape asks for more.
    """
    values = {id(t): _redraw(t, shapes(t), magnitude, generator) for t in given.tensors}
    return given.replaced(values)


def _redraw(
    value: Tensor, shape: tuple[int, ...], magnitude: float, generator: torch.Generator
) -> Tensor:
    repeated = value.detach()
    for dim, size in enumerate(shape):
        if size != value.shape[dim]:
            indices = torch.arange(size, device=value.device) % max(value.shape[dim], 1)
            repeated = repeated.index_select(dim, indices)
    if value.dtype == torch.bool or not value.numel():
        return repeated
    if not (value.is_floating_point() or value.is_complex()) or _is_mask(value):
        order = torch.randperm(repeated.numel(), generator=generator).to(value.device)
        return repeated.flatten()[order].reshape(shape)
    if not bool(value.isfinite().all()):
        return repeated
    wide = value.to(torch.complex128 if value.is_complex() else torch.float64)
    deviation = float(wide.std()) if wide.numel() > 1 else 0.0
    mean = wide.mean() if deviation else torch.zeros_like(wide.mean())
    drawn = mean + (deviation or 1.0) * _noise(wide.new_empty(shape), generator)
    return magnitude * drawn.to(value.dtype)


def _is_mask(value: Tensor) -> bool:
    """Whether both zeros and ones occur, and nothing else."""
    return set(value.unique().tolist()) == {0.0, 1.0}


def as_example(value: Tensor) -> tuple[int, ...]:
    """The shape that the tensor has."""
    return tuple(value.shape)


def _other_batch(given: Given) -> Iterator[Shape]:
    """Another size of the first dimension, if all tensors share it."""
    sizes = {t.shape[0] for t in given.tensors if t.dim()}
    if len(sizes) == 1:
        other = 3 if sizes == {2} else 2
        yield lambda value: (other, *value.shape[1:]) if value.dim() else ()


def _grown(given: Given, spec: GraphSpec) -> Iterator[Shape]:
    """Other sizes of dimensions of size one, all at once and one at a time, batch size aside."""
    depth = max((t.dim() for t in given.tensors), default=0)
    single = [
        dim
        for dim in range(1, depth)
        if all(t.shape[dim] == 1 for t in given.tensors if t.dim() > dim)
    ]
    known = sorted({size for entry in spec.entries for size in entry.shape if 3 < size < 65})
    choices = ([single] if len(single) > 1 else []) + [[dim] for dim in single]
    for dims in choices:
        for size in (*known[:6], 3):
            yield _with_sizes(dims, size)


def _with_sizes(dims: list[int], size: int) -> Shape:
    def shape(value: Tensor) -> tuple[int, ...]:
        return tuple(size if dim in dims else old for dim, old in enumerate(value.shape))

    return shape


def as_given(example_inputs: tuple[Any, ...], example_kwargs: Mapping[str, Any] | None) -> Given:
    """The example inputs as the arguments of a call."""
    return Given(tuple(example_inputs), dict(example_kwargs or {}))


def without_values(model: nn.Module) -> str | None:
    """The name of an entry on the meta device, if there is one."""
    tensors = (*model.named_parameters(), *model.named_buffers())
    return next((name for name, tensor in tensors if tensor.is_meta), None)
