"""Estimates how much memory a training step takes before it runs."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call

from gmn.errors import DataError
from gmn.graph import ParameterGraph

GIB = 2**30
CGROUP = Path("/sys/fs/cgroup")
MEMINFO = Path("/proc/meminfo")


class DoesNotFit(DataError, ValueError):
    """A training step needs more memory than there is."""


@dataclass(frozen=True)
class Estimate:
    """What a training step takes, in bytes, above the model and its input.

    Attributes:
        fixed: kept for the backward pass whatever the batch, gradients, two moments per parameter.
        each: kept for the backward pass per network.
    """

    fixed: float
    each: float

    def of(self, networks: int) -> float:
        """Bytes for a batch."""
        return self.fixed + self.each * networks

    def largest_batch(self, available: float) -> int:
        """How many networks fit; 0 if none does."""
        return max(0, math.floor((available - self.fixed) / max(self.each, 1)))


def estimate(model: nn.Module, graph: ParameterGraph, most: float = math.inf) -> Estimate:
    """Estimates a training step from forward passes of two and of three networks.

    What is kept for the backward pass grows by the same amount with every network, so this is
    exact for it; it leaves out what a single operation needs for a moment.

    Args:
        model: maps a graph to a tensor; neither it nor the random state changes.
        graph: at least one network of the architecture.
        most: bytes at which to stop: no more is allocated to find out.

    Raises:
        DoesNotFit: if these few networks take more than ``most``.
    """
    two, three = (_kept(model, graph[[0] * count], most) for count in (2, 3))
    trained = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    return Estimate(max(3 * two - 2 * three, 0) + 3 * trained, max(three - two, 0))


def _kept(model: nn.Module, graph: ParameterGraph, most: float) -> int:
    state = {name: buffer.clone() for name, buffer in model.named_buffers()}
    devices = [graph.device] if graph.device.type == "cuda" else []
    with torch.random.fork_rng(devices), torch.enable_grad(), saved_bytes(model, most) as saved:
        functional_call(model, state, (graph,))
    return sum(saved.values())


def check_fits(model: nn.Module, graph: ParameterGraph, networks: int) -> None:
    """Checks that a training step fits into memory, before it is taken.

    Args:
        model: maps a graph to a tensor.
        graph: at least one network of the architecture.
        networks: number of networks in the batch.

    Raises:
        DoesNotFit: naming the model, what it needs, what there is, and the batch that fits.
    """
    available = available_bytes(graph.device)
    found = estimate(model, graph, most=available)
    if found.of(networks) <= available:
        return
    batch = found.largest_batch(available)
    way_out = f"a batch of {batch} fits" if batch else "not even one network fits"
    raise DoesNotFit(
        f"{type(model).__name__} needs {found.of(networks) / GIB:.1f} GiB for a training step of "
        f"{networks} networks and {available / GIB:.1f} GiB are available; {way_out}. Choose a "
        "smaller batch (batch_size of the recipe), fewer channels, or a model that computes layers "
        "again instead of keeping them (recompute=True)"
    )


def available_bytes(device: torch.device) -> float:
    """Memory that can still be allocated; infinity where that is not known.

    On the CPU, what the system calls available, or what the process's control group leaves if that
    is less; on CUDA, what is free or cached by the allocator.
    """
    if device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    return min(_system_bytes(), _group_bytes()) if device.type == "cpu" else math.inf


def _system_bytes() -> float:
    if MEMINFO.exists():
        for line in MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return float(line.split()[1]) * 1024
    if "SC_PHYS_PAGES" in os.sysconf_names:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return math.inf


def _group_bytes() -> float:
    """Bytes left under the limit of a cgroup; its page cache counts as free."""
    limit, used, stat = (CGROUP / f"memory.{name}" for name in ("max", "current", "stat"))
    if not (limit.exists() and used.exists() and stat.exists()):
        return math.inf
    if (text := limit.read_text().strip()) == "max":
        return math.inf
    parts = dict(line.split() for line in stat.read_text().splitlines())
    return float(text) - float(used.read_text()) + float(parts.get("inactive_file", 0))


@contextmanager
def saved_bytes(model: nn.Module, most: float = math.inf) -> Iterator[dict[int, int]]:
    """Records the storages that autograd keeps for the backward pass: bytes by address.

    Args:
        model: its parameters do not count.
        most: bytes at which to stop.

    Raises:
        DoesNotFit: as soon as there are more than ``most``.
    """
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    saved: dict[int, int] = {}
    total = 0

    def pack(tensor: Tensor) -> Tensor:
        nonlocal total
        storage = tensor.untyped_storage()
        address, size = storage.data_ptr(), storage.nbytes()
        if address not in own:
            total += size - saved.get(address, 0)
            saved[address] = size
        if total > most:
            raise DoesNotFit(
                f"{type(model).__name__} keeps more than {most / GIB:.1f} GiB, all that is "
                "available, for the backward pass of two or three networks of this architecture. "
                "Choose fewer channels, or a model that computes layers again instead of keeping "
                "them (recompute=True)"
            )
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield saved
