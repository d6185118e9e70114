"""What it costs that freed memory goes back to the system at every step, by width of the networks.

Two processes take steps in turn, forward and backward on the same networks (MLPs 28-w-w-10): one
with the C library's own settings, one after :func:`gmn.engines.keep_freed_memory`. Printed are
medians of CPU time and of page faults per step, the median ratio of the pairs, and the peaks.

Run: python -m benchmarks.allocator [--pairs 7] [--out allocator.json]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

SIZES = ((16, 32), (64, 32), (256, 8))  # width, networks
MODELS = ("nfn-np", "dual-gmn-weights", "gmn")
WORKER = """
import resource, sys, time, torch
from torch import nn
import converters, gmn
from gmn import registry
torch.set_num_threads(1)
width, count, name, keep = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4] == "keep"
if keep:
    assert gmn.engines.keep_freed_memory()
def network():
    return nn.Sequential(
        nn.Linear(28, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10)
    )
spec = converters.trace(network(), (torch.zeros(1, 28),))
states = [network().state_dict() for _ in range(count)]
graph = gmn.ParameterGraph.from_state_dicts(spec, states)
model = registry.find(name)(spec, 1)
for _ in sys.stdin:
    faults, start = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.process_time()
    model.zero_grad()
    model(graph).sum().backward()
    seconds, usage = time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF)
    print(seconds * 1e3, usage.ru_minflt - faults, usage.ru_maxrss / 1024, flush=True)
"""


def process(width: int, count: int, model: str, kind: str) -> subprocess.Popen[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, str(width), str(count), model, kind],
        env=environment | {"OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def step(worker: subprocess.Popen[str]) -> tuple[float, float, float]:
    """Milliseconds, page faults, and the peak in MiB."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    print("step", file=worker.stdin, flush=True)
    milliseconds, faults, peak = map(float, worker.stdout.readline().split())
    return milliseconds, faults, peak


def measure(width: int, count: int, model: str, pairs: int) -> dict[str, float]:
    with (
        process(width, count, model, "default") as default,
        process(width, count, model, "keep") as keep,
    ):
        found = [(step(default), step(keep)) for _ in range(pairs + 2)][2:]
        for worker in (default, keep):
            assert worker.stdin is not None
            worker.stdin.close()
    default_steps, keep_steps = zip(*found, strict=True)
    return {
        "default_ms": statistics.median(ms for ms, _, _ in default_steps),
        "keep_ms": statistics.median(ms for ms, _, _ in keep_steps),
        "ratio": statistics.median(b[0] / a[0] for a, b in found),
        "default_faults": statistics.median(faults for _, faults, _ in default_steps),
        "keep_faults": statistics.median(faults for _, faults, _ in keep_steps),
        "default_peak_mib": default_steps[-1][2],
        "keep_peak_mib": keep_steps[-1][2],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=7)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    print("| width, networks | model | default ms | kept ms | ratio | faults | kept | MiB | kept |")
    print("|---|---|---|---|---|---|---|---|---|")
    results: dict[str, dict[str, float]] = {}
    for width, count in SIZES:
        for model in MODELS:
            row = results[f"{width} {model}"] = measure(width, count, model, arguments.pairs)
            cells = [f"{v:.2f}" if k == "ratio" else f"{v:,.0f}" for k, v in row.items()]
            print(f"| {width}, {count} | {model} | {' | '.join(cells)} |", flush=True)
    if arguments.out:
        arguments.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
