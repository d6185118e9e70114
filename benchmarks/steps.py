"""What conversion and a training step cost on the CNN 1-16-16-16-10 (4,970 parameters).

Prints the time to trace, the time to convert 1,000 further state dicts, and for every installed
metanetwork milliseconds per step of 32 networks and MiB saved for backward at 8 and at 32.

Run: python benchmarks/steps.py
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

import converters
import gmn
from gmn import registry
from gmn.cost import MIB, saved_bytes
from gmn.zoo.networks import network


def milliseconds(function: Callable[[], object], repeats: int) -> float:
    """Median over runs, after two that are not counted."""
    times = []
    for _ in range(repeats + 2):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:]) * 1e3


def main() -> None:
    torch.set_num_threads(1)
    model, inputs = network("cnn-relu"), (torch.zeros(2, 1, 14, 14),)
    spec = converters.trace(model, inputs)
    states = [network("cnn-relu").state_dict() for _ in range(1000)]
    print(f"trace: {milliseconds(lambda: converters.trace(model, inputs), 5):.0f} ms")
    convert = milliseconds(lambda: gmn.ParameterGraph.from_state_dicts(spec, states), 5)
    print(f"convert 1,000 state dicts: {convert:.0f} ms")
    graph = gmn.ParameterGraph.from_state_dicts(spec, states[:32])
    for name in registry.names():
        net = registry.find(name)(spec, 1)
        if isinstance(net, nn.Module):
            report(name, net, graph)


def report(name: str, net: nn.Module, graph: gmn.ParameterGraph) -> None:
    def step() -> None:
        net.zero_grad()
        net(graph).sum().backward()

    saved = []
    for size in (8, 32):
        with saved_bytes(net) as found:
            net(graph[:size]).sum()
        saved.append(sum(found.values()) / MIB)
    parameters = sum(p.numel() for p in net.parameters())
    print(
        f"{name:10} {parameters:>10,} parameters  {milliseconds(step, 11):6.1f} ms/step  "
        f"{saved[0]:6.1f} MiB saved at 8  {saved[1]:6.1f} at 32"
    )


if __name__ == "__main__":
    main()
