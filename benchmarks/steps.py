"""What conversion and a training step cost on a CNN and on an INR, for every installed model.

The CNN is 1-16-16-16-10 (4,970 parameters), the INR a SIREN 2-32-32-1 (1,185). Prints the time to
trace, the time to convert 1,000 further state dicts, and for every metanetwork milliseconds per
step of 32 networks (median; models take turns, so that all see the same machine), MiB kept for the
backward pass at 8 and at 32, and the peak of a step at 32 (in a fresh process); then the ratios of
GMN's dense executor to the sparse one and to GMN as it is written (see gathered_gmn.py).

Run: python -m benchmarks.steps [--device cuda] [--threads 2] [--models gmn,nfn-hnp]
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import torch
from torch import nn

import converters
import gmn
from benchmarks.gathered_gmn import GatheredGMN
from gmn import registry
from gmn.comparison.cost import MIB, high_water
from gmn.nn import GMN, InvariantHead
from gmn.nn.memory import saved_bytes
from gmn.zoo.architectures.networks import network

BATCH, ROUNDS = 32, 3


NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "cnn": (lambda: network("cnn-relu"), (1, 1, 14, 14)),
    "siren": (lambda: network("siren"), (1, 2)),
}
EXECUTORS = ("dense", "sparse", "gathered")
GMNS = {
    f"gmn {executor} (d {hidden}, {depth} layers)": (executor, hidden, depth)
    for hidden, depth in ((64, 4), (24, 3))
    for executor in EXECUTORS
}


@dataclass(frozen=True)
class Place:
    """Where to measure."""

    device: str
    threads: int


def graph_of(name: str, place: Place) -> gmn.ParameterGraph:
    torch.manual_seed(0)
    torch.set_num_threads(place.threads)
    build, shape = NETWORKS[name]
    spec = converters.trace(build(), (torch.zeros(shape),))
    states = [build().state_dict() for _ in range(BATCH)]
    return gmn.ParameterGraph.from_state_dicts(spec, states).to(place.device)


def model_of(name: str, graph: gmn.ParameterGraph) -> nn.Module | None:
    """A model by name; None for estimators and for methods that do not read the network."""
    if name in GMNS:
        executor, hidden, depth = GMNS[name]
        if executor == "gathered":
            return GatheredGMN(GMN(hidden, depth, InvariantHead(1))).to(graph.device)
        return GMN(hidden, depth, InvariantHead(1), executor=executor).to(graph.device)
    try:
        model = registry.find(name)(graph.spec, 1)
    except ValueError:
        return None
    return model.to(graph.device) if isinstance(model, nn.Module) else None


def step(model: nn.Module, graph: gmn.ParameterGraph) -> float:
    """Seconds of one forward and backward pass."""
    model.zero_grad()
    start = time.perf_counter()
    model(graph).sum().backward()
    if graph.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def milliseconds(function: Callable[[], object], repeats: int) -> float:
    """Median over runs, after two that are not counted."""
    times = []
    for _ in range(repeats + 2):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:]) * 1e3


def kept(model: nn.Module, graph: gmn.ParameterGraph) -> float:
    """MiB kept for the backward pass."""
    with saved_bytes(model) as found:
        model(graph)
    return sum(found.values()) / MIB


def peak(network_name: str, model_name: str, place: Place) -> float:
    """MiB by which two steps raise the high-water mark; for a fresh process."""
    graph = graph_of(network_name, place)
    model = model_of(model_name, graph)
    assert model is not None
    step(model, graph[:1])  # what is set up once
    if place.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    before = high_water(graph.device)
    for _ in range(2):
        step(model, graph)
    return (high_water(graph.device) - before) / MIB


def conversion() -> None:
    model, inputs = network("cnn-relu"), (torch.zeros(2, 1, 14, 14),)
    spec = converters.trace(model, inputs)
    states = [network("cnn-relu").state_dict() for _ in range(1000)]
    print(f"trace: {milliseconds(lambda: converters.trace(model, inputs), 5):.0f} ms")
    convert = milliseconds(lambda: gmn.ParameterGraph.from_state_dicts(spec, states), 5)
    print(f"convert 1,000 state dicts: {convert:.0f} ms")


def report(name: str, names: list[str], place: Place) -> None:
    """Prints the table of one input network."""
    graph = graph_of(name, place)
    found = {n: model_of(n, graph) for n in names}
    models = {n: model for n, model in found.items() if model is not None}
    times: dict[str, list[float]] = {n: [] for n in models}
    for round_ in range(ROUNDS + 1):
        for n, model in models.items():
            seconds = step(model, graph)
            if round_:
                times[n].append(seconds * 1e3)
    median = {n: statistics.median(values) for n, values in times.items()}
    peaks = {n: fresh(peak, name, n, place) for n in models}
    saved = {n: (kept(model, graph[:8]), kept(model, graph)) for n, model in models.items()}
    print(f"\n| {name} | parameters | ms per step of {BATCH} | MiB kept at 8 | at 32 | peak MiB |")
    print("|---|---|---|---|---|---|")
    for n, model in models.items():
        parameters = sum(p.numel() for p in model.parameters())
        print(
            f"| {n} | {parameters:,} | {median[n]:.1f} | {saved[n][0]:.1f} | {saved[n][1]:.1f} "
            f"| {peaks[n]:.0f} |"
        )
    for first in range(0, len(GMNS), len(EXECUTORS)):
        dense, *others = list(GMNS)[first : first + len(EXECUTORS)]
        for other in others if dense in models else ():
            print(
                f"{dense} is {median[other] / median[dense]:.2f} times as fast as {other}, keeps "
                f"{saved[dense][1] / saved[other][1]:.2f} of its memory and peaks at "
                f"{peaks[dense] / peaks[other]:.2f} of its peak"
            )


def fresh(function: Callable[..., float], *arguments: object) -> float:
    """Runs a function in a process of its own."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(function, *arguments).result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--models", help="names, separated by commas; all if left out")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    conversion()
    models = arguments.models.split(",") if arguments.models else [*GMNS, *registry.names()]
    for name in NETWORKS:
        report(name, models, Place(arguments.device, arguments.threads))


if __name__ == "__main__":
    main()
