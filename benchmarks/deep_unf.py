"""UNF on deep networks: weights for every pair of tensors beside weights for every type of pair.

The preset takes steps on two networks in both forms, in turns, in one process on one thread.
Printed are parameters, CPU milliseconds (medians of five) and MiB kept for the backward pass.

Run: python -m benchmarks.deep_unf [--busy]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

import converters
import gmn
from baselines import UNF
from benchmarks.against_published import refuse_if_busy
from benchmarks.growth import Size
from benchmarks.one_network import NETWORKS
from benchmarks.steps import kept

STEPS = 5  # counted, after one that is not
EVERY_PAIR = 10**6
APART = (EVERY_PAIR, 0)


def _resnet(name: str) -> gmn.ParameterGraph:
    model, inputs = NETWORKS[name]()
    spec = converters.trace(model, (inputs,))
    return gmn.ParameterGraph.from_state_dicts(spec, [model.state_dict()] * 2)


GRAPHS: dict[str, Callable[[], gmn.ParameterGraph]] = {
    **{
        f"MLP, {depth} hidden layers of 16": lambda depth=depth: Size(16, depth, 2).graph()
        for depth in (34, 64)
    },
    **{name: lambda name=name: _resnet(name) for name in NETWORKS if "width 16" in name},
    "resnet-34": lambda: _resnet("resnet-34"),
}
TIMED = {*list(GRAPHS)[:2], "resnet-10, width 16", "resnet-34, width 16"}


def cells(graph: gmn.ParameterGraph, timed: bool) -> list[str]:
    """Parameters, milliseconds and MiB, each for every pair and by type."""
    nets = []
    for apart in APART:
        with torch.device("cpu" if timed else "meta"):
            nets.append(UNF(graph.spec, apart=apart))
    found = [f"{sum(p.numel() for p in net.parameters()):,}" for net in nets]
    if not timed:
        return found + ["–"] * 4
    times: list[list[float]] = [[], []]
    for _ in range(STEPS + 1):
        for net, own in zip(nets, times, strict=True):
            net.zero_grad()
            start = time.process_time()
            net(graph).sum().backward()
            own.append((time.process_time() - start) * 1e3)
    found += [f"{statistics.median(own[1:]):,.0f}" for own in times]
    return found + [f"{kept(net, graph):,.1f}" for net in nets]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--busy", action="store_true", help="measure on a busy machine, too")
    refuse_if_busy(parser.parse_args().busy)
    torch.set_num_threads(1)
    gmn.engines.keep_freed_memory()
    for name, build in GRAPHS.items():
        torch.manual_seed(0)
        graph = build()
        row = [name, str(len(graph.spec.edge_sets)), *cells(graph, name in TIMED)]
        print(f"| {' | '.join(row)} |", flush=True)


if __name__ == "__main__":
    main()
