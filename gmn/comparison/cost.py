"""Measures the time, memory and arithmetic of a training step."""

from __future__ import annotations

import statistics
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from gmn.engines.allocator import give_back_freed_memory
from gmn.nn.dual.probes import Probes
from gmn.nn.memory import check_fits, saved_bytes
from gmn.registry import Estimator
from gmn.tasks import Batch, Task
from gmn.train.evaluate import device_of

__all__ = ["MIB", "Cost", "high_water", "measure", "saved_bytes"]

MIB = 2**20
RESET = Path("/proc/self/clear_refs")  # on Linux: 5 sets VmHWM to what is in use; see proc(5)


@dataclass(frozen=True)
class Cost:
    """Cost of training a model.

    Attributes:
        parameters: trainable numbers; 0 for estimators.
        milliseconds: per network and training step (forward, backward); median of several.
        peak_mib: largest memory of a step above what was in use before, in MiB.
        saved_mib: bytes kept for the backward pass, model parameters excluded, in MiB.
        mflop: million floating-point operations per network and step, matrix products only.
        probes: inputs of its own that it puts to each network.
    """

    parameters: int
    milliseconds: float
    peak_mib: float
    saved_mib: float
    mflop: float
    probes: int = 0


def measure(model: nn.Module | Estimator, task: Task, batch_size: int, repeats: int = 7) -> Cost:
    """Measures one training step on the first networks of the training split.

    Peak memory on the CPU is the growth of the process's high-water mark. It starts anew where the
    system can do that, as Linux; elsewhere measure in a fresh process.

    Args:
        model: a module on the device where it is to be measured, or an estimator, which is fitted
            to the whole training split.
        task: the task: targets and loss.
        batch_size: networks per step.
        repeats: timed steps, after two that are not.

    Raises:
        DoesNotFit: if a step needs more memory than there is; said before it is allocated.
    """
    parts = task.split("train")
    if not isinstance(model, nn.Module):
        return _measure_fit(model, parts)
    batch = parts[0][:batch_size]
    batch = batch.to(device_of(model) or batch.graph.device)
    check_fits(model, batch.graph, len(batch))

    def step() -> None:
        model.zero_grad()
        task.loss(model(batch.graph), batch.target).backward()

    before = _low_water(batch.graph.device)
    times = [_timed(step, batch.graph.device) for _ in range(repeats + 2)][2:]
    peak = high_water(batch.graph.device) - before
    with saved_bytes(model) as saved, FlopCounterMode(display=False) as flops:
        step()
    model.zero_grad()
    return Cost(
        parameters=sum(p.numel() for p in model.parameters() if p.requires_grad),
        milliseconds=statistics.median(times) * 1e3 / len(batch),
        peak_mib=peak / MIB,
        saved_mib=sum(saved.values()) / MIB,
        mflop=flops.get_total_flops() / len(batch) / 1e6,
        probes=sum(part.count for part in model.modules() if isinstance(part, Probes)),
    )


def _measure_fit(model: Estimator, parts: list[Batch]) -> Cost:
    before, start = _low_water(torch.device("cpu")), time.perf_counter()
    model.fit([part.graph for part in parts], torch.cat([part.target for part in parts]))
    seconds = time.perf_counter() - start
    networks = sum(map(len, parts))
    peak = (high_water(torch.device("cpu")) - before) / MIB
    return Cost(0, seconds * 1e3 / networks, peak, 0.0, 0.0)


def _timed(step, device: torch.device) -> float:  # type: ignore[no-untyped-def]
    start = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def _low_water(device: torch.device) -> int:
    """Bytes in use now, from which on :func:`high_water` counts, where the system can do that."""
    give_back_freed_memory()  # a process that trained before would take its steps from there
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with suppress(OSError):
            RESET.write_text("5")
    return high_water(device)


def high_water(device: torch.device) -> int:
    """Most bytes in use so far: of the allocator on CUDA, of the process elsewhere.

    0 on Windows, which does not say.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count what the parent held when it started this process
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows has none
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
