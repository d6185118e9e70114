"""How the cost of a step grows with the width, the depth and the number of networks.

Every metanetwork takes steps on MLPs of 16 inputs and 10 outputs: width 16 to 256 with 2 hidden
layers, 2 to 64 hidden layers of 16 neurons (two networks each), 1 to 512 networks of the smallest.
A step may cost ``E c + N c²`` (edges, nodes, channels: 64 here). Printed are CPU time and memory
kept for the backward pass of the smallest and the largest, and the exponent with which each grows
in that bound between the last two sizes: 1 is in proportion, 2 would be its square; and the peak
of memory of the last.

Run: python -m benchmarks.growth [--models gmn,nfn-hnp] [--busy] [--out growth.json]
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

import converters
import gmn
from benchmarks.against_published import refuse_if_busy
from benchmarks.big_models import quiet
from benchmarks.steps import kept, model_of
from gmn import registry
from gmn.comparison.cost import MIB, high_water

CHANNELS = 64
STEPS = 3  # counted, after one that is not
Row = dict[str, float]


class Size(NamedTuple):
    """MLPs of a batch."""

    width: int
    depth: int
    batch: int

    def graph(self) -> gmn.ParameterGraph:
        """Random networks of this size."""
        torch.manual_seed(0)
        sizes = [16, *[self.width] * self.depth, 10]
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [nn.Linear(before, after), nn.ReLU()]
        model = nn.Sequential(*layers[:-1])
        spec = converters.trace(model, (torch.zeros(1, 16),))
        states = {name: torch.randn(self.batch, *v.shape) for name, v in model.state_dict().items()}
        return gmn.ParameterGraph(
            spec, {name: v / v[0].numel() ** 0.5 for name, v in states.items()}
        )

    def bound(self, graph: gmn.ParameterGraph) -> int:
        """``E c + N c²`` of all networks."""
        edges = sum(edge_set.size for edge_set in graph.spec.edge_sets)
        return self.batch * (edges * CHANNELS + graph.spec.num_nodes * CHANNELS**2)


SERIES = {
    "width": [Size(width, 2, 2) for width in (16, 32, 64, 128, 256)],
    "depth": [Size(16, depth, 2) for depth in (2, 4, 8, 16, 32, 64)],
    "batch": [Size(16, 2, batch) for batch in (1, 8, 64, 512)],
}


def cost(name: str, size: Size) -> Row | None:
    """CPU milliseconds of a step and MiB kept; None for what is no module; for a fresh process."""
    gmn.engines.keep_freed_memory()
    torch.set_num_threads(1)
    graph = size.graph()
    torch.manual_seed(0)
    model = model_of(name, graph)
    if model is None:
        return None
    times, before = [], high_water(graph.device)
    for _ in range(STEPS + 1):
        model.zero_grad()
        start = time.process_time()
        model(graph).sum().backward()
        times.append((time.process_time() - start) * 1e3)
    peak = (high_water(graph.device) - before) / MIB
    found = {"cpu_ms": statistics.median(times[1:]), "kept_mib": kept(model, graph)}
    return found | {"peak_mib": peak, "bound": size.bound(graph)}


def series(name: str) -> dict[str, list[Row]] | None:
    """All rows of a model."""
    rows: dict[str, list[Row]] = {}
    for what, sizes in SERIES.items():
        for size in sizes:
            with ProcessPoolExecutor(1, get_context("spawn"), quiet) as process:
                row = process.submit(cost, name, size).result()
            if row is None:
                return None
            rows.setdefault(what, []).append(row)
    return rows


def exponent(rows: list[Row], key: str) -> float:
    """With which power of the bound a figure grows between the last two sizes."""
    before, last = rows[-2:]
    return math.log(last[key] / before[key]) / math.log(last["bound"] / before["bound"])


def table(models: dict[str, dict[str, list[Row]]]) -> list[str]:
    """Lines of the table in Markdown."""
    lines = [
        "| model | "
        + " | ".join(f"{what}: CPU ms | MiB kept | exponents | peak MiB" for what in SERIES)
        + " |",
        "|---" * (1 + 4 * len(SERIES)) + "|",
    ]
    for name, found in models.items():
        cells = []
        for rows in found.values():
            first, last = rows[0], rows[-1]
            cells += [
                f"{first['cpu_ms']:.1f} – {last['cpu_ms']:,.0f}",
                f"{first['kept_mib']:.1f} – {last['kept_mib']:,.0f}",
                f"{exponent(rows, 'cpu_ms'):.2f}, {exponent(rows, 'kept_mib'):.2f}",
                f"{last['peak_mib']:,.0f}",
            ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", help="names, separated by commas; all if left out")
    parser.add_argument("--busy", action="store_true", help="measure on a busy machine, too")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    load = refuse_if_busy(arguments.busy)
    report: dict[str, object] = {"torch": torch.__version__, "load_of_others": round(load, 2)}
    models: dict[str, dict[str, list[Row]]] = {}
    for name in arguments.models.split(",") if arguments.models else registry.names():
        if (rows := series(name)) is None:
            continue
        models[name] = rows
        print(table({name: rows})[-1], flush=True)
        if arguments.out:
            arguments.out.write_text(json.dumps(report | {"models": models}, indent=1) + "\n")
    print("\n".join(table(models)))


if __name__ == "__main__":
    main()
