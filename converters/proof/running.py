"""Runs a copy of a module in float64 with weights other than its own.

What a module is besides its state dict stays: hooks that compute weights before a pass, entries
that share storage, tensors that are plain attributes. The module itself, its warnings and the
random numbers of the process are left alone.
"""

from __future__ import annotations

import copy
import random
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from ..exporting.export import tensors_of

T = TypeVar("T")

WIDE = {torch.float64: torch.complex128, torch.float32: torch.complex64}
TOLERANCE = {torch.float64: 1e-8, torch.float32: 1e-3}
CASTS = ("float", "half", "bfloat16", "cfloat", "chalf")


@dataclass(frozen=True)
class Given:
    """The arguments of one call of a module.

    Attributes:
        args: positional ones.
        kwargs: those by name.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors among them, each once."""
        leaves = pytree.tree_leaves((self.args, dict(self.kwargs)))
        return list({id(leaf): leaf for leaf in leaves if isinstance(leaf, Tensor)}.values())

    def replaced(self, values: Mapping[int, Tensor]) -> Given:
        """The same with tensors exchanged, by identity: what was passed twice stays one."""

        def exchange(leaf: Any) -> Any:
            return values.get(id(leaf), leaf) if isinstance(leaf, Tensor) else leaf

        args, kwargs = pytree.tree_map(exchange, (self.args, dict(self.kwargs)))
        return Given(args, kwargs)


class Runner:
    """A copy of a module in evaluation mode that runs with any state dict of its architecture.

    Args:
        model: the module; every tensor has values.
        dtype: the floating-point type of the copy, float64 or float32; complex numbers become as
            wide.

    Attributes:
        entries: the copy's tensors by the names of the state dict.
        own: the module's own weights.
        tolerance: changes of outputs up to this are rounding.
        drew: whether a pass took random numbers.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype = torch.float64) -> None:
        self.dtype = dtype
        self.tolerance = TOLERANCE[dtype]
        self.drew = False
        self._source = model
        state = model.state_dict(keep_vars=True)
        self._held = _copies(state.values(), dtype)
        self._loose = [tensor for tensor in _attributes(model) if id(tensor) not in self._held]
        self.entries = {name: self._held[id(tensor)] for name, tensor in state.items()}
        self._shares = _share_storage(self.entries.values())
        self._used = self.copy()
        self.own = {name: value.detach().clone() for name, value in self.entries.items()}

    @property
    def parameters(self) -> dict[str, Tensor]:
        """Those of ``entries`` that are parameters."""
        return {n: t for n, t in self.entries.items() if isinstance(t, nn.Parameter)}

    def copy(self) -> nn.Module:
        """A copy that never ran. All copies hold the same state."""
        memo: dict[int, Any] = dict(self._held)
        for tensor in self._loose:
            wide = tensor.detach().to(_wide(tensor, self.dtype), copy=True)
            memo[id(tensor)] = _as_kind(wide, tensor)
        return inner(copy.deepcopy(self._source, memo)).eval()

    def outputs(
        self, state: Mapping[str, Tensor], given: Given, *, seed: int = 0, fresh: bool = False
    ) -> list[Tensor]:
        """The outputs of the module with these weights.

        Args:
            state: a state dict of the architecture.
            given: the arguments.
            seed: of the random numbers that the module draws.
            fresh: whether a copy runs that never ran: for modules that keep what they computed.

        Returns:
            All tensors of its output, in their order.
        """
        model = self.copy() if fresh else self._used
        self._write(state)
        with self.surroundings(seed, given), torch.no_grad():
            arguments = self.prepared(given)
            result = model(*arguments.args, **arguments.kwargs)
        return [tensor.detach().clone() for tensor in tensors_of(result)]

    def prepared(self, given: Given) -> Given:
        """Copies of the arguments in the module's type; a pass may write into them."""
        return given.replaced(
            {id(t): t.detach().to(_wide(t, self.dtype), copy=True) for t in given.tensors}
        )

    def disagreement(self, state: Mapping[str, Tensor]) -> float:
        """How far entries that share storage would have to differ to hold these weights.

        Returns:
            The largest difference relative to the entry's largest number; 0 if none share.
        """
        if not self._shares:
            return 0.0
        self._write(state)
        return max(relative_change(held, state[name]) for name, held in self.entries.items())

    def settled(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights as the module holds them once they are loaded into it."""
        self._write(state)
        return {name: value.detach().clone() for name, value in self.entries.items()}

    def is_random(self, state: Mapping[str, Tensor], given: Given) -> bool:
        """Whether the output depends on random numbers; a pass must have run before."""
        if not self.drew:
            return False
        one, other = (self.outputs(state, given, seed=seed) for seed in (1, 2))
        return change(one, other) > self.tolerance

    def remembers(self, state: Mapping[str, Tensor], given: Given) -> bool:
        """Whether the module caches results of earlier weights and returns them."""
        other = {k: 1.5 * v if v.is_floating_point() else v for k, v in state.items()}
        self.outputs(state, given)
        kept, own = (self.outputs(other, given, fresh=fresh) for fresh in (False, True))
        return change(kept, own) > self.tolerance

    @contextmanager
    def surroundings(self, seed: int, given: Given) -> Iterator[None]:
        """Wide types, seeded random numbers and silence for a pass; afterwards all is as before."""
        before = torch.get_default_dtype()
        with _random_numbers(seed, self._devices(given)) as drew, quiet():
            torch.set_default_dtype(self.dtype)
            try:
                with _Wide(self.dtype):
                    yield
            finally:
                torch.set_default_dtype(before)
            self.drew = self.drew or drew()

    def _devices(self, given: Given) -> list[int]:
        tensors = [*self.entries.values(), *given.tensors]
        return sorted({t.device.index or 0 for t in tensors if t.device.type == "cuda"})

    def _write(self, state: Mapping[str, Tensor]) -> None:
        with torch.no_grad():
            for name, tensor in self.entries.items():
                for dim in _expanded_dims(tensor):
                    tensor = tensor.narrow(dim, 0, 1)
                tensor.copy_(state[name][tuple(slice(0, size) for size in tensor.shape)])


def in_widest(model: nn.Module, use: Callable[[Runner], T]) -> T:
    """Calls a function with a runner in float64, or in float32 if the module refuses float64."""
    try:
        return use(Runner(model))
    except (RuntimeError, TypeError):
        return use(Runner(model, torch.float32))


@contextmanager
def quiet() -> Iterator[None]:
    """Silences warnings, which the module has shown before."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def inner(model: nn.Module) -> nn.Module:
    """The module within wrappers that spread it over devices or compile it."""
    while isinstance(model, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
        model = model.module
    return getattr(model, "_orig_mod", model)


def change(moved: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest change of any output relative to its largest number.

    Outputs a million times smaller than the largest one are rounding and count relative to that.
    Whole numbers and booleans are compared exactly; where they differ, or where numbers stop or
    start being finite, the change is 1.
    """
    largest = max((_largest(value) for value in expected), default=0.0)
    pairs = zip(moved, expected, strict=True)
    return max((relative_change(new, old, 1e-6 * largest) for new, old in pairs), default=0.0)


def relative_change(new: Tensor, old: Tensor, floor: float = 0.0) -> float:
    """The largest change of any number relative to the largest number, or to ``floor``."""
    if new.shape != old.shape:
        return 1.0
    if not (old.is_floating_point() or old.is_complex()):
        return float(not torch.equal(new, old))
    finite = old.isfinite()
    if not torch.equal(finite, new.isfinite()) or not torch.equal(
        old[~finite].nan_to_num(), new[~finite].nan_to_num()
    ):
        return 1.0
    difference = (new[finite] - old[finite]).abs()
    size, largest = max(_largest(old), floor), float(difference.max()) if len(difference) else 0.0
    return largest / size if size else min(largest, 1.0)


def _largest(value: Tensor) -> float:
    if not (value.is_floating_point() or value.is_complex()):
        return 0.0
    finite = value[value.isfinite()]
    return float(finite.abs().max()) if len(finite) else 0.0


def _attributes(model: nn.Module) -> list[Tensor]:
    """Tensors that the modules hold, in their state and beside it."""
    leaves = (leaf for module in model.modules() for leaf in pytree.tree_leaves(vars(module)))
    return list({id(leaf): leaf for leaf in leaves if isinstance(leaf, Tensor)}.values())


def _wide(tensor: Tensor, dtype: torch.dtype) -> torch.dtype:
    if tensor.is_complex():
        return WIDE[dtype]
    return dtype if tensor.is_floating_point() else tensor.dtype


def _as_kind(value: Tensor, like: Tensor) -> Tensor:
    return nn.Parameter(value, requires_grad=False) if isinstance(like, nn.Parameter) else value


def _storage(tensor: Tensor) -> int:
    """A key of the tensor's storage; unique if it has none."""
    return tensor.untyped_storage().data_ptr() or id(tensor)


def _share_storage(tensors: Iterable[Tensor]) -> bool:
    """Whether two tensors, or two elements of one, share memory."""
    distinct = list({id(tensor): tensor for tensor in tensors}.values())
    return len({*map(_storage, distinct)}) < len(distinct) or any(map(_expanded_dims, distinct))


def _expanded_dims(tensor: Tensor) -> list[int]:
    """Expanded dimensions, of stride zero."""
    strides = zip(tensor.shape, tensor.stride(), strict=True)
    return [dim for dim, (size, stride) in enumerate(strides) if size > 1 and stride == 0]


def _copies(tensors: Iterable[Tensor], dtype: torch.dtype) -> dict[int, Tensor]:
    """Wide copies by identity; what shares storage shares it in the copies, too."""
    originals = list({id(tensor): tensor for tensor in tensors}.values())
    users = Counter(map(_storage, originals))
    storages: dict[tuple[int, torch.dtype], Tensor] = {}
    result = {}
    for original in originals:
        tensor, storage = original.detach(), _storage(original)
        if users[storage] > 1 or _expanded_dims(tensor):
            if (storage, tensor.dtype) not in storages:
                whole = tensor.new_empty(0).set_(tensor.untyped_storage())
                storages[storage, tensor.dtype] = whole.to(_wide(tensor, dtype), copy=True)
            whole = storages[storage, tensor.dtype]
            copied = whole.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())
        else:
            copied = tensor.to(_wide(tensor, dtype), copy=True)
        result[id(original)] = _as_kind(copied, original)
    return result


class _Wide(TorchFunctionMode):
    """Keeps the wide type where a module casts to a narrower one, which would hide small errors."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self._dtype = dtype
        narrow = (torch.float32, torch.float16, torch.bfloat16)
        self._wider = {**dict.fromkeys(narrow, dtype), torch.complex64: WIDE[dtype]}
        self._wider[torch.complex32] = WIDE[dtype]

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        name = getattr(function, "__name__", "")
        if name in CASTS and getattr(Tensor, name) is function:
            complex_ = name.startswith("c") or args[0].is_complex()
            return args[0].to(WIDE[self._dtype] if complex_ else self._dtype)
        args = tuple(self._widened(argument) for argument in args)
        return function(*args, **{k: self._widened(v) for k, v in (kwargs or {}).items()})

    def _widened(self, argument: Any) -> Any:
        known = isinstance(argument, torch.dtype)
        return self._wider.get(argument, argument) if known else argument


@contextmanager
def _random_numbers(seed: int, devices: list[int]) -> Iterator[Any]:
    """Seeds every source of random numbers, and puts it back; yields whether numbers were drawn."""
    arrays = sys.modules.get("numpy")
    python, numpy = random.getstate(), arrays.random.get_state() if arrays else None

    def states() -> list[Any]:
        of_torch = [torch.get_rng_state(), *(torch.cuda.get_rng_state(d) for d in devices)]
        of_arrays = arrays.random.get_state(legacy=False)["state"] if arrays else {}
        return [
            random.getstate(),
            *(state.numpy().tobytes() for state in of_torch),
            *(v.tobytes() if hasattr(v, "tobytes") else v for v in of_arrays.values()),
        ]

    with torch.random.fork_rng(devices=devices):
        try:
            # torch.manual_seed would queue a call, with a traceback, for devices that nobody uses
            for source in (
                torch.default_generator,
                *(torch.cuda.default_generators[d] for d in devices),
            ):
                source.manual_seed(seed)
            random.seed(seed)
            if arrays:
                arrays.random.seed(seed)
            before = states()
            yield lambda: states() != before
        finally:
            random.setstate(python)
            if arrays:
                arrays.random.set_state(numpy)
